"""The steps of a retraining pipeline as Prefect tasks, each with an asynchronous twin of the same signature.

Orchestrate them in flows, never task in task: a task that is called inside another one is part of its transaction.
Nothing is cached: Prefect's default policy takes two API keys for one and new data under an old URL for the old data.
Tasks that create something which may be billed are never repeated by Prefect, whatever its settings say;
`with_options(retries=...)` turns that on, still limited to errors for which it is known to be safe.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff
from pydantic import BaseModel

from prefect_tabpfn._engine import current_run
from prefect_tabpfn.credentials import TabPFNCredentials
from prefect_tabpfn.retries import retry_unless_terminal
from tabpfn_assets import FitParameters, FittedModel, PredictionSet, TrainSet
from tabpfn_assets import Task as Problem
from tabpfn_operators.errors import ConfigurationError
from tabpfn_operators.reading import Casts, Compression, Filters

Credentials = TabPFNCredentials | str | None
Record = TypeVar("Record", bound=BaseModel)

_UPLOAD = "Upload TabPFN train set"
_SUBMIT = "Submit TabPFN fit"
_WAIT = "Wait for TabPFN fit"
_PREDICT = "Predict with TabPFN"


@task(
    name=_UPLOAD,
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=exponential_backoff(10),
    retry_condition_fn=retry_unless_terminal,
)
def upload_train_set(
    source: str,
    target: str,
    *,
    task: Problem = "classification",
    features: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    storage_options: Mapping[str, Any] | None = None,
    filters: Filters | None = None,
    casts: Casts | None = None,
    recompress: Compression | None = None,
    credentials: Credentials = None,
) -> TrainSet:
    """Send a table to TabPFN; free, and content that the server has already is not sent again.

    Args:
        source: fsspec URL or path of a Parquet file.
        target: The column to predict.
        task: `classification` or `regression`.
        features: Feature columns; None takes all but the target.
        exclude: Columns that are not features.
        storage_options: Options of the source's filesystem; Prefect does not store them.
        filters: Rows to keep, as `[("age", ">", 17)]`, `[[...], [...]]`, the same as JSON text, or a
            `pyarrow.compute.Expression`; None keeps all.
        casts: Columns to convert, as `{"code": "string"}` with Arrow's type names; no value may change by it.
        recompress: Codec and level to send with, for slow links, as `("zstd", 9)`; None sends what is stored.
        credentials: A block, the name of a saved one, or None for the environment's key.

    Returns:
        The train set on the server.

    Raises:
        TabPFNError: The upload failed; the class, its message and its docstring say what to do next.
    """
    with _load(credentials).get_client() as client:
        train_set = client.upload_train_set(
            source,
            target,
            task=task,
            features=features,
            exclude=exclude,
            storage_options=storage_options,
            filters=filters,
            casts=casts,
            recompress=recompress,
        )
    _log_uploaded(train_set)
    return train_set


@task(
    name=f"{_UPLOAD} (async)",
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=exponential_backoff(10),
    retry_condition_fn=retry_unless_terminal,
)
async def aupload_train_set(
    source: str,
    target: str,
    *,
    task: Problem = "classification",
    features: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    storage_options: Mapping[str, Any] | None = None,
    filters: Filters | None = None,
    casts: Casts | None = None,
    recompress: Compression | None = None,
    credentials: Credentials = None,
) -> TrainSet:
    """Asynchronous twin of `upload_train_set`."""
    async with (await _aload(credentials)).get_async_client() as client:
        train_set = await client.upload_train_set(
            source,
            target,
            task=task,
            features=features,
            exclude=exclude,
            storage_options=storage_options,
            filters=filters,
            casts=casts,
            recompress=recompress,
        )
    _log_uploaded(train_set)
    return train_set


@task(name=_SUBMIT, cache_policy=NO_CACHE, retries=0, retry_condition_fn=retry_unless_terminal)
def submit_fit(
    train_set: TrainSet | dict[str, Any],
    *,
    parameters: FitParameters | dict[str, Any] | None = None,
    name: str | None = None,
    credentials: Credentials = None,
) -> FittedModel:
    """Start a fit and come back at once; every call creates another model (contract 2.2), so Prefect does not retry it.

    Args:
        train_set: What `upload_train_set` returned, or its JSON form.
        parameters: How to fit; None fits for the train set's task with the server's defaults. A fit with `thinking` is
            billed.
        name: The name users know the model by.
        credentials: A block, the name of a saved one, or None for the environment's key.

    Returns:
        The model, pending. Its id cannot be found again once lost; the log has it too.

    Raises:
        AsyncFitUnsupportedError: The server has no job API; fit with `TabPFNCredentials.get_client().fit_train_set`.
        TabPFNError: The fit was not started, or nobody knows; the class, its message and its docstring say what to do.
    """
    uploaded = _record(TrainSet, train_set)
    with _load(credentials).get_client() as client:
        model = client.submit_fit_job(
            uploaded, parameters=_parameters(uploaded, parameters), name=name, run=current_run()
        )
    _log_submitted(model)
    return model


@task(name=f"{_SUBMIT} (async)", cache_policy=NO_CACHE, retries=0, retry_condition_fn=retry_unless_terminal)
async def asubmit_fit(
    train_set: TrainSet | dict[str, Any],
    *,
    parameters: FitParameters | dict[str, Any] | None = None,
    name: str | None = None,
    credentials: Credentials = None,
) -> FittedModel:
    """Asynchronous twin of `submit_fit`."""
    uploaded = _record(TrainSet, train_set)
    async with (await _aload(credentials)).get_async_client() as client:
        model = await client.submit_fit_job(
            uploaded, parameters=_parameters(uploaded, parameters), name=name, run=current_run()
        )
    _log_submitted(model)
    return model


@task(
    name=_WAIT,
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=exponential_backoff(10),
    retry_condition_fn=retry_unless_terminal,
)
def wait_for_fit(
    model: FittedModel | dict[str, Any], *, timeout: float | None = None, credentials: Credentials = None
) -> FittedModel:
    """Wait in this process until a fit is completed; looking is free and may be repeated at any time.

    Args:
        model: What `submit_fit` returned, or its JSON form.
        timeout: Seconds to wait; None takes the server's own limit.
        credentials: A block, the name of a saved one, or None for the environment's key.

    Returns:
        The model, completed.

    Raises:
        FitFailedError: The server reports the fit as failed; read the message, correct the data, fit again.
        FitTimeoutError: Still running; it goes on at the server. Wait again with a longer timeout.
        TabPFNError: The server could not be asked; the class, its message and its docstring say what to do next.
    """
    with _load(credentials).get_client() as client:
        fitted = client.wait_for_fit(_record(FittedModel, model), timeout=timeout)
    _log_fitted(fitted)
    return fitted


@task(
    name=f"{_WAIT} (async)",
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=exponential_backoff(10),
    retry_condition_fn=retry_unless_terminal,
)
async def await_for_fit(
    model: FittedModel | dict[str, Any], *, timeout: float | None = None, credentials: Credentials = None
) -> FittedModel:
    """Asynchronous twin of `wait_for_fit`: many waits share one thread."""
    async with (await _aload(credentials)).get_async_client() as client:
        fitted = await client.wait_for_fit(_record(FittedModel, model), timeout=timeout)
    _log_fitted(fitted)
    return fitted


@task(name=_PREDICT, cache_policy=NO_CACHE, retries=0, retry_condition_fn=retry_unless_terminal)
def predict(
    model: FittedModel | dict[str, Any],
    source: str,
    destination: str,
    *,
    output_type: str | None = None,
    quantiles: Sequence[float] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    filters: Filters | None = None,
    casts: Casts | None = None,
    recompress: Compression | None = None,
    destination_options: Mapping[str, Any] | None = None,
    redact_labels: bool = False,
    credentials: Credentials = None,
) -> PredictionSet:
    """Score a table and write `predictions.parquet` and `_lineage.json`; billed, so Prefect does not retry it.

    Args:
        model: What `wait_for_fit` returned, or its JSON form.
        source: fsspec URL or path of a Parquet file; the target and other columns in it are not sent.
        destination: fsspec URL or path of the folder to write into.
        output_type: What to predict; None takes probabilities, respectively the mean.
        quantiles: Quantiles in (0, 1) for `output_type="quantiles"`.
        storage_options: Options of the source's filesystem; Prefect does not store them.
        filters: As in `upload_train_set`.
        casts: As in `upload_train_set`.
        recompress: As in `upload_train_set`.
        destination_options: Options of the destination's filesystem; Prefect does not store them.
        redact_labels: Hash column names and class labels in the lineage record.
        credentials: A block, the name of a saved one, or None for the environment's key.

    Returns:
        Where the predictions are and what made them.

    Raises:
        DestinationError: The folder cannot be written; nothing was billed.
        TabPFNError: The prediction failed; the class, its message and its docstring say what to do next.
    """
    with _load(credentials).get_client() as client:
        scored = client.predict(
            _record(FittedModel, model),
            source,
            destination,
            output_type=output_type,
            quantiles=quantiles,
            storage_options=storage_options,
            filters=filters,
            casts=casts,
            recompress=recompress,
            destination_options=destination_options,
            run=current_run(),
            redact_labels=redact_labels,
        )
    _log_scored(scored)
    return scored


@task(name=f"{_PREDICT} (async)", cache_policy=NO_CACHE, retries=0, retry_condition_fn=retry_unless_terminal)
async def apredict(
    model: FittedModel | dict[str, Any],
    source: str,
    destination: str,
    *,
    output_type: str | None = None,
    quantiles: Sequence[float] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    filters: Filters | None = None,
    casts: Casts | None = None,
    recompress: Compression | None = None,
    destination_options: Mapping[str, Any] | None = None,
    redact_labels: bool = False,
    credentials: Credentials = None,
) -> PredictionSet:
    """Asynchronous twin of `predict`."""
    async with (await _aload(credentials)).get_async_client() as client:
        scored = await client.predict(
            _record(FittedModel, model),
            source,
            destination,
            output_type=output_type,
            quantiles=quantiles,
            storage_options=storage_options,
            filters=filters,
            casts=casts,
            recompress=recompress,
            destination_options=destination_options,
            run=current_run(),
            redact_labels=redact_labels,
        )
    _log_scored(scored)
    return scored


def _load(credentials: Credentials) -> TabPFNCredentials:
    if not isinstance(credentials, str):
        return credentials or TabPFNCredentials()
    try:
        block = TabPFNCredentials.load(credentials)
    except ValueError:
        raise _no_block(credentials) from None
    if not isinstance(block, TabPFNCredentials):
        raise TypeError("Prefect handed out a coroutine; use the asynchronous task in asynchronous code")
    return block


async def _aload(credentials: Credentials) -> TabPFNCredentials:
    if not isinstance(credentials, str):
        return credentials or TabPFNCredentials()
    try:
        return await TabPFNCredentials.aload(credentials)
    except ValueError:
        raise _no_block(credentials) from None


def _no_block(name: str) -> ConfigurationError:
    return ConfigurationError(
        f"No TabPFN Credentials block is named {name!r}: save one in Prefect's UI or with"
        f" TabPFNCredentials(token=...).save({name!r}), or name another as credentials."
    )


def _record(kind: type[Record], value: Record | dict[str, Any]) -> Record:
    return value if isinstance(value, kind) else kind.model_validate(value)


def _parameters(train_set: TrainSet, parameters: FitParameters | dict[str, Any] | None) -> FitParameters:
    if parameters is None:
        return FitParameters(task=train_set.task)
    return _record(FitParameters, parameters)


def _log_uploaded(train_set: TrainSet) -> None:
    how = "already there" if train_set.duplicate else f"{train_set.bytes_sent} bytes sent"
    get_run_logger().info("Train set %s: %d rows, %s", train_set.train_set_upload_id, train_set.rows, how)


def _log_submitted(model: FittedModel) -> None:
    get_run_logger().info("Fit %s submitted", model.fitted_train_set_id)


def _log_fitted(model: FittedModel) -> None:
    get_run_logger().info("Fit %s completed on %d rows", model.fitted_train_set_id, model.rows)


def _log_scored(scored: PredictionSet) -> None:
    get_run_logger().info("%d rows predicted into %s", scored.rows, scored.uri)
