"""From a record to what its run read and wrote."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tabpfn_assets import Evaluation, FitParameters, FittedModel, PredictionSet, SourceRef
from tabpfn_operators.openlineage._facets import Plain, asked, columns_from, facet, run_facets, schema
from tabpfn_operators.openlineage._naming import DatasetId, dataset_id, id_of, model_id, named_uris, source_ids


@dataclass(frozen=True)
class RunLineage:
    """What a run read, wrote and was asked: plain data in OpenLineage's form, for any engine's own integration.

    Args:
        inputs: Input datasets: `namespace`, `name`, `facets`, `inputFacets`.
        outputs: Output datasets: `namespace`, `name`, `facets`, `outputFacets`.
        run_facets: Facets of the run by key.
        job_facets: Facets of the job by key.
    """

    inputs: tuple[Plain, ...] = ()
    outputs: tuple[Plain, ...] = ()
    run_facets: dict[str, Plain] = field(default_factory=dict)
    job_facets: dict[str, Plain] = field(default_factory=dict)


def fit_start(
    source: object,
    target: str,
    parameters: FitParameters,
    *,
    name: str | None = None,
    api_url: str | None = None,
    redact: bool = False,
) -> RunLineage:
    """Tell what is known of a fit before anything is read.

    Args:
        source: What the caller named: files are inputs, folders and patterns only once they have been listed.
        target: Target column.
        parameters: Task, config, systems, thinking.
        name: The model's name; a model without one has no dataset before it has its fitted id.
        api_url: The API that will hold it.
        redact: Leave out what names columns.

    Returns:
        Inputs, the model as output, and what was asked for.
    """
    place = model_id(None, name, api_url)
    return RunLineage(
        inputs=tuple(_dataset(dataset_id(uri), {"datasetType": _type("FILE")}) for uri in named_uris(source)),
        outputs=() if place is None else (_dataset(place, {"datasetType": _type("MODEL")}),),
        run_facets={} if redact else {"tabpfn_fit": asked(parameters, target)},
        job_facets=_job("FIT"),
    )


def fit_lineage(model: FittedModel) -> RunLineage:
    """Tell what a fit read and made.

    Args:
        model: The record; take `redacted()` where many people read.

    Returns:
        The source's files as inputs, the model as output with schema, version and column lineage.
    """
    columns = [*model.feature_names, model.target]
    places = source_ids(model.source)
    return RunLineage(
        inputs=_inputs(model.source),
        outputs=(
            _dataset(
                id_of(model),
                {
                    **_model_facets(model),
                    "columnLineage": columns_from(columns, _crossed(places, columns), copied=True),
                },
                outputFacets={"outputStatistics": facet("OutputStatisticsOutputDatasetFacet", rowCount=model.rows)},
            ),
        ),
        run_facets=run_facets(model),
        job_facets=_job("FIT"),
    )


def score_start(source: object, model: FittedModel, *, job: Literal["SCORE", "EVALUATE"] = "SCORE") -> RunLineage:
    """Tell what is known of a scoring or an evaluation before anything is read.

    Args:
        source: What the caller named, as in `fit_start`.
        model: The model that predicts; take `redacted()` where many people read.
        job: Which of the two.

    Returns:
        Inputs: the files named, and the model.
    """
    files = tuple(_dataset(dataset_id(uri), {"datasetType": _type("FILE")}) for uri in named_uris(source))
    return RunLineage(inputs=(*files, _dataset(id_of(model), _model_facets(model))), job_facets=_job(job))


def score_lineage(predictions: PredictionSet) -> RunLineage:
    """Tell what a scoring read and wrote.

    Args:
        predictions: The record beside the predictions; take `redacted()` where many people read.

    Returns:
        The scored files and the model as inputs, the predictions as output; each output column comes from all features
        and from the target that the model has learned.
    """
    model = predictions.model
    learned = (id_of(model), model.target)
    inputs = [*_crossed(source_ids(predictions.source), model.feature_names), learned]
    written = facet("OutputStatisticsOutputDatasetFacet", rowCount=predictions.rows, fileCount=1)
    return RunLineage(
        inputs=(*_inputs(predictions.source), _dataset(id_of(model), _model_facets(model))),
        outputs=(
            _dataset(
                dataset_id(predictions.uri),
                {
                    "datasetType": _type("FILE"),
                    "schema": schema((column, None) for column in predictions.columns),
                    "lifecycleStateChange": facet("LifecycleStateChangeDatasetFacet", lifecycleStateChange="OVERWRITE"),
                    "columnLineage": columns_from(predictions.columns, inputs),
                },
                outputFacets={"outputStatistics": written},
            ),
        ),
        run_facets=run_facets(predictions),
        job_facets=_job("SCORE"),
    )


def evaluation_lineage(evaluation: Evaluation, model: FittedModel) -> RunLineage:
    """Tell what an evaluation read; it writes no dataset, its result is a facet of the run.

    Args:
        evaluation: The result; take `redacted()` where many people read.
        model: The model that was evaluated, redacted alike.

    Returns:
        The holdout's files and the model as inputs.
    """
    holdout = () if evaluation.holdout is None else _inputs(evaluation.holdout)
    return RunLineage(
        inputs=(*holdout, _dataset(id_of(model), _model_facets(model))),
        run_facets=run_facets(evaluation),
        job_facets=_job("EVALUATE"),
    )


def _inputs(source: SourceRef) -> tuple[Plain, ...]:
    places = source_ids(source)
    version = facet("DatasetVersionDatasetFacet", datasetVersion=source.fingerprint) if source.fingerprint else None
    facets = {"datasetType": _type("FILE"), "version": version}
    if len(places) != 1:  # the counts are of all files together, and would be added up
        return tuple(_dataset(place, facets) for place in places)
    counts = facet(
        "InputStatisticsInputDatasetFacet", rowCount=source.rows, size=source.size_bytes, fileCount=len(source.uris)
    )
    return (_dataset(places[0], facets, inputFacets={"inputStatistics": counts}),)


def _model_facets(model: FittedModel) -> dict[str, Plain | None]:
    place = id_of(model)
    other = {"namespace": place.namespace, "name": model.fitted_train_set_id, "type": "FITTED_TRAIN_SET"}
    return {
        "datasetType": _type("MODEL"),
        "version": facet("DatasetVersionDatasetFacet", datasetVersion=model.fitted_train_set_id),
        "schema": schema([*((each.name, each.dtype) for each in model.features), (model.target, None)]),
        "symlinks": facet("SymlinksDatasetFacet", identifiers=[other]) if model.name else None,
    }


def _dataset(place: DatasetId, facets: Mapping[str, Plain | None], **of_this_run: Plain) -> Plain:
    known = {name: value for name, value in facets.items() if value is not None}
    return {"namespace": place.namespace, "name": place.name, "facets": known, **of_this_run}


def _type(kind: str) -> Plain:
    return facet("DatasetTypeDatasetFacet", datasetType=kind)


def _job(kind: str) -> dict[str, Plain]:
    return {"jobType": facet("JobTypeJobFacet", processingType="BATCH", integration="TABPFN", jobType=kind)}


def _crossed(places: Sequence[DatasetId], columns: Sequence[str]) -> list[tuple[DatasetId, str]]:
    return [(place, column) for place in places for column in columns]
