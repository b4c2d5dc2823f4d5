"""JSON Schemas of the records that others may read, made from the code, with each field's words from its docstring."""

import inspect
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from tabpfn_assets._record import Asked, Record
from tabpfn_assets.evaluation import Decision, Evaluation
from tabpfn_assets.fitted_model import FittedModel
from tabpfn_assets.job import JobRecord
from tabpfn_assets.prediction_set import PredictionSet
from tabpfn_assets.scoring import ScoringManifest
from tabpfn_assets.scoring_plan import ScoringPlan

DIALECT = "https://json-schema.org/draft/2020-12/schema"
PUBLISHED: Mapping[str, type[Record]] = {
    kind.__name__: kind
    for kind in (FittedModel, PredictionSet, JobRecord, Evaluation, Decision, ScoringPlan, ScoringManifest)
}

_FIELD = re.compile(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)


def record_schema(kind: type[Record]) -> dict[str, Any]:
    """Describe a record as JSON Schema, draft 2020-12.

    Args:
        kind: Class of the record, for instance `FittedModel`.

    Returns:
        The schema of what a reader may find. Unknown fields are allowed everywhere, since a newer version of this
        package may add some; optional ones may be missing, since an older one did not know them.
    """
    schema = kind.model_json_schema()
    kinds = {each.__name__: each for each in _kinds()}
    definitions = schema.get("$defs", {})
    if "$ref" in schema:  # a record that holds records of its own kind
        schema = {**definitions[kind.__name__], "$defs": definitions}
    for name, described in [(kind.__name__, schema), *definitions.items()]:
        _describe(described, kinds[name])
    version = kind.model_fields["schema_version"].default
    return {"$schema": DIALECT, "$id": f"urn:tabpfn-providers:{kind.__name__}:{version}", **schema}


def _kinds() -> list[type[BaseModel]]:
    """List the classes of this package alone; whoever uses it may derive more, of the same names."""
    every = [kind for base in (Record, Asked) for kind in base.__subclasses__()]
    return [kind for kind in every if kind.__module__.startswith(f"{__package__}.")]


def _describe(schema: dict[str, Any], kind: type[BaseModel]) -> None:
    """Move the words of a docstring's Args to the fields they are about."""
    summary, _, arguments = inspect.cleandoc(kind.__doc__ or "").partition("\n\nArgs:\n")
    schema["description"] = " ".join(summary.split())
    schema["additionalProperties"] = True
    words = {name: " ".join(text.split()) for name, text in _FIELD.findall(arguments)}
    words["schema_version"] = "Version of the record's format; a reader that knows older ones only must refuse it."
    for name, field in schema["properties"].items():
        field.pop("title", None)
        if name in words:
            field["description"] = words[name]
