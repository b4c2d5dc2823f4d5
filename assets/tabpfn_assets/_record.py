"""The base of every record."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict


class Record(BaseModel):
    """A frozen, JSON-plain value; fields that a newer version added are kept when an older one reads it."""

    model_config = ConfigDict(frozen=True, extra="allow", ser_json_inf_nan="strings")


def _to_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


UtcTime = Annotated[AwareDatetime, AfterValidator(_to_utc)]
