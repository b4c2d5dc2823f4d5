"""The bases of records, and of what people write by hand."""

from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import InitErrorDetails

T = TypeVar("T")

_in_record: ContextVar[bool] = ContextVar("_in_record", default=False)


class Record(BaseModel):
    """A frozen, JSON-plain value; fields that a newer version added are kept when an older one reads it."""

    model_config = ConfigDict(frozen=True, extra="allow", ser_json_inf_nan="strings")


class Asked(BaseModel):
    """A frozen value that people write: an unknown field is a typing mistake, and kept where a record holds it."""

    model_config = ConfigDict(
        frozen=True, extra="allow", ser_json_inf_nan="strings", json_schema_extra={"additionalProperties": False}
    )

    @model_validator(mode="wrap")
    @classmethod
    def _known_fields_only(cls, value: Any, build: ModelWrapValidatorHandler[Self]) -> Self:
        if isinstance(value, Mapping) and not _in_record.get():
            unknown = [str(key) for key in value if key not in cls.model_fields]
            if unknown:
                wrong = [InitErrorDetails(type="extra_forbidden", loc=(key,), input=value.get(key)) for key in unknown]
                raise ValidationError.from_exception_data(cls.__name__, wrong)
        return build(value)


def _as_recorded(value: Any, build: ValidatorFunctionWrapHandler) -> Any:
    before = _in_record.set(True)
    try:
        return build(value)
    finally:
        _in_record.reset(before)


Recorded = Annotated[T, WrapValidator(_as_recorded)]
"""An `Asked` that a record holds: its unknown fields are a newer version's, and kept."""


def _to_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


UtcTime = Annotated[AwareDatetime, AfterValidator(_to_utc)]
