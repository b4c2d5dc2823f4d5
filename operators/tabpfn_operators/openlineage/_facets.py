"""Facets as plain data: the standard ones, and three of our own."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from pydantic import BaseModel

from tabpfn_assets import (
    EngineRun,
    Evaluation,
    FitParameters,
    FittedModel,
    PredictionSet,
    __version__,
    public_url,
)
from tabpfn_operators.errors import TabPFNError
from tabpfn_operators.openlineage._naming import DatasetId

#: A facet or a dataset, as JSON has it.
Plain: TypeAlias = dict[str, Any]

#: A package URL: a URI of exactly this version, which needs no host.
PRODUCER = f"pkg:pypi/tabpfn-providers@{__version__}"
EVENT_SCHEMA = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
#: Above it, column lineage names the columns that all outputs depend on once, not once for each output.
MOST_COLUMN_PAIRS = 5_000

_VERSIONS = {
    "ColumnLineageDatasetFacet": "1-2-0",
    "DatasetTypeDatasetFacet": "1-0-0",
    "DatasetVersionDatasetFacet": "1-0-1",
    "ErrorMessageRunFacet": "1-0-1",
    "ExternalQueryRunFacet": "1-0-2",
    "InputStatisticsInputDatasetFacet": "1-0-0",
    "JobTypeJobFacet": "2-0-3",
    "LifecycleStateChangeDatasetFacet": "1-0-1",
    "OutputStatisticsOutputDatasetFacet": "1-0-2",
    "ParentRunFacet": "1-1-0",
    "ProcessingEngineRunFacet": "1-1-1",
    "SchemaDatasetFacet": "1-1-1",
    "SymlinksDatasetFacet": "1-0-1",
}
_OWN = ("TabPFNFitRunFacet", "TabPFNScoreRunFacet", "TabPFNEvaluationRunFacet")
_EVALUATION_FIELDS = frozenset(
    {
        "fitted_train_set_id",
        "task",
        "target",
        "headline",
        "metrics",
        "interval",
        "baseline",
        "comparison",
        "rows",
        "rows_scored",
        "rows_evaluated",
        "seed",
        "latency",
        "charged",
        "created_at",
    }
)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")
_BEARER = re.compile(r"(?i)\bbearer\s+\S+")
_MOST_CHARACTERS = 2_000


def facet(kind: str, **fields: Any) -> Plain:
    """Make a facet of a kind; fields that are None are left out."""
    if kind in _OWN:
        schema = f"{PRODUCER}#tabpfn_operators/openlineage/{kind}.json"
    else:
        schema = f"https://openlineage.io/spec/facets/{_VERSIONS[kind]}/{kind}.json#/$defs/{kind}"
    known = {name: value for name, value in fields.items() if value is not None}
    return {"_producer": PRODUCER, "_schemaURL": schema, **known}


def schema(fields: Iterable[tuple[str, str | None]]) -> Plain:
    """Describe columns by name and, where it is known, Arrow type."""
    described = [{"name": name, "type": dtype} if dtype else {"name": name} for name, dtype in fields]
    return facet("SchemaDatasetFacet", fields=described)


def columns_from(
    outputs: Sequence[str], inputs: Sequence[tuple[DatasetId, str]], *, copied: bool = False
) -> Plain | None:
    """Say which input columns each output column comes from.

    Args:
        outputs: Output columns.
        inputs: Datasets and columns: all of them for each output or, where they are `copied`, those of its name.
        copied: Whether an output is its input unchanged.

    Returns:
        The facet; None where it would be larger than is good for anyone.
    """
    how = {"type": "DIRECT", "subtype": "IDENTITY" if copied else "TRANSFORMATION"}
    fields: list[Plain] = [
        {"namespace": place.namespace, "name": place.name, "field": column, "transformations": [how]}
        for place, column in inputs
    ]
    if len(fields) > MOST_COLUMN_PAIRS:
        return None
    if copied:
        by_name: dict[str, list[Plain]] = {}
        for each in fields:
            by_name.setdefault(each["field"], []).append(each)
        lineage = {name: {"inputFields": by_name[name]} for name in outputs if name in by_name}
        return facet("ColumnLineageDatasetFacet", fields=lineage) if lineage else None
    if not fields:
        return None
    if len(fields) * len(outputs) > MOST_COLUMN_PAIRS:
        return facet("ColumnLineageDatasetFacet", fields={}, dataset=fields)
    return facet("ColumnLineageDatasetFacet", fields={name: {"inputFields": fields} for name in outputs})


def run_facets(record: FittedModel | PredictionSet | Evaluation) -> dict[str, Plain]:
    """Tell what a run was asked for and what came of it, for an engine that sends its own events.

    Args:
        record: What the run made; take `redacted()` where many people read.

    Returns:
        Run facets by key: `tabpfn_fit`, `tabpfn_score`, `tabpfn_evaluation`, `externalQuery`; JSON-plain, without
        class labels.
    """
    if isinstance(record, Evaluation):
        return {"tabpfn_evaluation": _evaluation(record)}
    if isinstance(record, PredictionSet):
        return {"tabpfn_score": _score(record), **_evaluated(record.model)}
    query = facet(
        "ExternalQueryRunFacet",
        externalQueryId=record.fitted_train_set_id,
        source=record.api_url or "tabpfn",
    )
    return {"tabpfn_fit": _fit(record), "externalQuery": query, **_evaluated(record)}


def asked(parameters: FitParameters, target: str) -> Plain:
    """Tell what a fit is asked for, before there is a model."""
    return facet("TabPFNFitRunFacet", task=parameters.task, target=target, parameters=_as_json(parameters))


def engine(run: EngineRun | None) -> Plain:
    """Name what runs it: the engine where one does, else this package."""
    known = run is not None and run.engine_version is not None
    return facet(
        "ProcessingEngineRunFacet",
        name=run.engine if known and run is not None else "tabpfn-providers",
        version=run.engine_version if known and run is not None else __version__,
        openlineageAdapterVersion=__version__,
    )


def failure(error: BaseException, *, redact: bool = False) -> Plain:
    """Tell why a run failed, without what may be secret.

    Args:
        error: What was raised. The text of an error that is not ours may hold anything, so only its class is told.
        redact: Tell the class alone: messages name columns and labels.

    Returns:
        The facet; no stack trace, because its lines quote arguments.
    """
    message = type(error).__name__
    if isinstance(error, TabPFNError) and not redact:
        text = _BEARER.sub("Bearer ***", _URL.sub(lambda found: public_url(found[0]), str(error)))
        message = f"{message}: {text}"[:_MOST_CHARACTERS]
    else:
        message += "; the log of the run has its text."
    return facet("ErrorMessageRunFacet", message=message, programmingLanguage="PYTHON")


def _fit(model: FittedModel) -> Plain:
    return facet(
        "TabPFNFitRunFacet",
        fittedTrainSetId=model.fitted_train_set_id,
        trainSetUploadId=model.train_set_upload_id,
        status=model.status,
        task=model.task,
        target=model.target,
        parameters=_as_json(model.parameters),
        featureCount=len(model.features),
        classCount=None if model.classes is None else len(model.classes),
        rows=model.rows,
        fingerprint=model.fingerprint,
        timings=_numbers(model.timings),
        estimatedCost=model.estimated_cost,
        charged=model.charged,
        possibleOrphans=model.possible_orphans,
        parentId=model.parent_id,
        packages=dict(model.packages),
        **_run_of(model.run),
    )


def _score(predictions: PredictionSet) -> Plain:
    return facet(
        "TabPFNScoreRunFacet",
        fittedTrainSetId=predictions.model.fitted_train_set_id,
        testSetUploadId=predictions.test_set_upload_id,
        outputType=predictions.output_type,
        quantiles=None if predictions.quantiles is None else list(predictions.quantiles),
        rows=predictions.rows,
        lineageUri=predictions.lineage_uri,
        timings=_numbers(predictions.timings),
        estimatedCost=predictions.estimated_cost,
        charged=predictions.charged,
        packages=dict(predictions.packages),
        **_run_of(predictions.run),
    )


def _evaluated(model: FittedModel) -> dict[str, Plain]:
    return {} if model.evaluation is None else {"tabpfn_evaluation": _evaluation(model.evaluation)}


def _evaluation(evaluation: Evaluation) -> Plain:
    known = _as_json(evaluation, include=set(_EVALUATION_FIELDS))
    if "comparison" in known:
        known["comparison"] = _in_camel_case(known["comparison"])
    return facet("TabPFNEvaluationRunFacet", **_in_camel_case(known))


def _run_of(run: EngineRun | None) -> Plain:
    if run is None:
        return {}
    return {"engineRunId": run.run_id, "engineTaskId": run.task_id, "engineUrl": run.url and public_url(run.url)}


def _as_json(record: BaseModel, **options: Any) -> Plain:
    """Go through JSON text: it is where numbers that JSON lacks become text or null."""
    plain: Plain = json.loads(record.model_dump_json(exclude_none=True, **options))
    return plain


def _numbers(timings: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in timings.items() if value is not None and math.isfinite(value)}


def _in_camel_case(fields: Plain) -> Plain:
    """Spell the keys as all facets do."""
    return {re.sub("_([a-z])", lambda found: found[1].upper(), name): value for name, value in fields.items()}
