"""Records without column names and class labels: numbered, since a hash of a short name can be guessed. Pure."""

from typing import Any

from pydantic import BaseModel

from tabpfn_assets import Evaluation, FittedModel


def without_names(model: FittedModel) -> FittedModel:
    """Number the columns and class labels of a record; what can be traced by it stays the same.

    Fields of a newer version go too: what they hold is not known.

    Args:
        model: A record, which may hold hashes already.
    """
    redacted = model.redacted()
    numbers = {feature.name: f"column-{number}" for number, feature in enumerate(redacted.features, 1)}
    numbers[redacted.target] = "target"
    known = _known(redacted)
    known["target"] = "target"
    known["features"] = [{"name": numbers[f.name], "dtype": f.dtype} for f in redacted.features]
    known["classes"] = _numbered(redacted.classes)
    known["redacted_fields"] = True
    thinking = known["parameters"]["thinking"]
    for column in ("group_col", "time_col", "group_time_col") if thinking else ():
        if thinking[column] is not None:
            thinking[column] = numbers.get(thinking[column], "column")
    if model.evaluation is not None:
        known["evaluation"] = evaluation_without_names(model.evaluation)
    return FittedModel.model_validate(known)


def evaluation_without_names(evaluation: Evaluation) -> Evaluation:
    """Number the class labels of an evaluation; its metrics stay.

    Args:
        evaluation: An evaluation, which may hold hashes already.
    """
    known = _known(evaluation.redacted())
    return Evaluation.model_validate({**known, "target": "target", "classes": _numbered(evaluation.classes)})


def _numbered(labels: Any) -> list[str] | None:
    return None if labels is None else [f"class-{number}" for number, _ in enumerate(labels, 1)]


def _known(value: Any) -> Any:
    """Write a record as plain data, with the fields that this version knows, at every depth."""
    if isinstance(value, BaseModel):
        return {field: _known(getattr(value, field)) for field in type(value).model_fields}
    if isinstance(value, list | tuple):
        return [_known(each) for each in value]
    return value
