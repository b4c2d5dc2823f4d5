"""Whole pipelines as Prefect flows."""

from collections.abc import Sequence
from typing import Any, TypedDict

from prefect import flow

from prefect_tabpfn.lineage import publish_model, publish_predictions
from prefect_tabpfn.tasks import (
    apredict,
    asubmit_fit,
    aupload_train_set,
    await_for_fit,
    predict,
    submit_fit,
    upload_train_set,
    wait_for_fit,
)
from tabpfn_assets import FitParameters, FittedModel, PredictionSet, Task, Thinking, public_url
from tabpfn_operators.errors import InvalidInputError


class RetrainResult(TypedDict):
    """What a retraining flow returns: small, JSON-plain, and without secrets."""

    predictions_uri: str
    lineage_uri: str
    fitted_train_set_id: str
    rows_trained: int
    rows_scored: int


@flow(name="tabpfn-retrain-and-score", retries=0)
def retrain_and_score(
    train_url: str,
    score_url: str,
    target: str,
    destination: str,
    *,
    task: Task = "classification",
    config: dict[str, Any] | None = None,
    thinking: Thinking | None = None,
    model_name: str | None = None,
    output_type: str | None = None,
    quantiles: Sequence[float] | None = None,
    fit_timeout: float | None = None,
    redact_labels: bool = False,
    credentials_block_name: str | None = None,
) -> RetrainResult:
    """Fit a model on one table, score another, and publish the lineage of both.

    Prefect stores flow parameters in clear text, so none of them takes a key. Storage keys come from the environment of
    the worker; where they must be passed, call the tasks in a flow of your own.

    Args:
        train_url: fsspec URL or path of the Parquet file to learn from, without user info and query.
        score_url: fsspec URL or path of the Parquet file to score, without user info and query.
        target: The column to predict.
        destination: fsspec URL or path of the folder for `predictions.parquet` and `_lineage.json`.
        task: `classification` or `regression`.
        config: `tabpfn_config` keys, for instance `{"n_estimators": 4}`.
        thinking: Thinking mode, which is billed; None for a standard fit.
        model_name: The name users know the model by.
        output_type: What to predict; None takes probabilities, respectively the mean.
        quantiles: Quantiles in (0, 1) for `output_type="quantiles"`.
        fit_timeout: Seconds to wait for the fit; None takes the server's own limit.
        redact_labels: Hash column names and class labels in records and artifacts.
        credentials_block_name: Name of a saved `TabPFNCredentials` block; None takes the environment's key.

    Returns:
        Where predictions and lineage are, and how many rows took part.

    Raises:
        InvalidInputError: A URL holds what may be a secret; the message names the parameter and the way out.
        TabPFNError: A step failed; the class, its message and its docstring say what to do next.
    """
    _refuse_secrets(train_url=train_url, score_url=score_url, destination=destination)
    train_set = upload_train_set(train_url, target, task=task, credentials=credentials_block_name)
    parameters = FitParameters(task=task, config=config or {}, thinking=thinking)
    model = submit_fit(train_set, parameters=parameters, name=model_name, credentials=credentials_block_name)
    fitted = wait_for_fit(model, timeout=fit_timeout, credentials=credentials_block_name)
    publish_model(fitted.redacted() if redact_labels else fitted)
    scored = predict(
        fitted,
        score_url,
        destination,
        output_type=output_type,
        quantiles=quantiles,
        redact_labels=redact_labels,
        credentials=credentials_block_name,
    )
    publish_predictions(scored)
    return _result(fitted, scored)


@flow(name="tabpfn-retrain-and-score-async", retries=0)
async def aretrain_and_score(
    train_url: str,
    score_url: str,
    target: str,
    destination: str,
    *,
    task: Task = "classification",
    config: dict[str, Any] | None = None,
    thinking: Thinking | None = None,
    model_name: str | None = None,
    output_type: str | None = None,
    quantiles: Sequence[float] | None = None,
    fit_timeout: float | None = None,
    redact_labels: bool = False,
    credentials_block_name: str | None = None,
) -> RetrainResult:
    """Asynchronous twin of `retrain_and_score`: many of them wait in one process."""
    _refuse_secrets(train_url=train_url, score_url=score_url, destination=destination)
    train_set = await aupload_train_set(train_url, target, task=task, credentials=credentials_block_name)
    parameters = FitParameters(task=task, config=config or {}, thinking=thinking)
    model = await asubmit_fit(train_set, parameters=parameters, name=model_name, credentials=credentials_block_name)
    fitted = await await_for_fit(model, timeout=fit_timeout, credentials=credentials_block_name)
    publish_model(fitted.redacted() if redact_labels else fitted)
    scored = await apredict(
        fitted,
        score_url,
        destination,
        output_type=output_type,
        quantiles=quantiles,
        redact_labels=redact_labels,
        credentials=credentials_block_name,
    )
    publish_predictions(scored)
    return _result(fitted, scored)


def _refuse_secrets(**urls: str) -> None:
    problems = tuple(
        f"{name}: the URL holds user info or a query, and Prefect stores flow parameters in clear text; pass the plain"
        " URL and give the worker storage keys by its environment, or call the tasks with storage_options in a flow"
        " of your own."
        for name, url in urls.items()
        if public_url(url) != url
    )
    if problems:
        raise InvalidInputError(" ".join(problems), problems=problems)


def _result(fitted: FittedModel, scored: PredictionSet) -> RetrainResult:
    return RetrainResult(
        predictions_uri=scored.uri,
        lineage_uri=scored.lineage_uri,
        fitted_train_set_id=fitted.fitted_train_set_id,
        rows_trained=fitted.rows,
        rows_scored=scored.rows,
    )
