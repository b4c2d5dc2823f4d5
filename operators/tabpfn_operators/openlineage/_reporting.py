"""Flows that are told of: started, then completed or failed."""

from collections.abc import Callable
from typing import TypeVar

from tabpfn_assets import EngineRun, Evaluation, FitParameters, FittedModel, PredictionSet, public_url
from tabpfn_operators._run import Flow, Wire
from tabpfn_operators.errors import FitTimeoutError
from tabpfn_operators.openlineage._emitter import Emitter
from tabpfn_operators.openlineage._events import RunIdentity
from tabpfn_operators.openlineage._lineage import (
    RunLineage,
    evaluation_lineage,
    fit_lineage,
    fit_start,
    score_lineage,
    score_start,
)
from tabpfn_operators.openlineage._naming import named_uris

R = TypeVar("R", FittedModel, PredictionSet, Evaluation)


async def reported_fit(
    wire: Wire,
    emitter: Emitter | None,
    flow: Callable[[], Flow[FittedModel]],
    *,
    source: object,
    target: str,
    parameters: FitParameters,
    name: str | None = None,
    api_url: str | None = None,
    run: EngineRun | None = None,
) -> FittedModel:
    """Fit, and tell of it; without an emitter, only fit.

    An interrupt or a cancelled task sends no event: whoever asks for that waits for nothing.

    Args:
        wire: What carries the sending, as it carries all blocking work.
        emitter: Where events go; None for nowhere.
        flow: Starts the fit.
        source: What the caller named as source.
        target: Target column.
        parameters: Task, config, systems, thinking.
        name: The model's name.
        api_url: The API that will hold it.
        run: The engine run.

    Returns:
        What the flow returned.
    """
    if emitter is None:
        return await flow()
    identity = emitter.identify("fit", name=name, engine_run=run, parts=(*named_uris(source), target))

    def start() -> RunLineage:
        return fit_start(source, target, parameters, name=name, api_url=api_url, redact=emitter.redact_labels)

    return await _reported(wire, emitter, identity, flow, start, fit_lineage)


async def reported_score(
    wire: Wire,
    emitter: Emitter | None,
    flow: Callable[[], Flow[PredictionSet]],
    *,
    source: object,
    model: FittedModel,
    destination: str,
    run: EngineRun | None = None,
) -> PredictionSet:
    """Predict, and tell of it; without an emitter, only predict.

    Args:
        wire: As in `reported_fit`.
        emitter: As in `reported_fit`.
        flow: Starts the prediction.
        source: What the caller named as source.
        model: The model that predicts.
        destination: Where the predictions go.
        run: The engine run.

    Returns:
        What the flow returned.
    """
    if emitter is None:
        return await flow()
    parts = (*named_uris(source), model.fitted_train_set_id, public_url(destination))
    identity = emitter.identify("score", name=model.name, engine_run=run, parts=parts)

    def start() -> RunLineage:
        return score_start(source, model.redacted() if emitter.redact_labels else model)

    return await _reported(wire, emitter, identity, flow, start, score_lineage)


async def reported_evaluation(
    wire: Wire,
    emitter: Emitter | None,
    flow: Callable[[], Flow[Evaluation]],
    *,
    holdout: object,
    model: FittedModel,
    run: EngineRun | None = None,
) -> Evaluation:
    """Evaluate, and tell of it; without an emitter, only evaluate.

    Args:
        wire: As in `reported_fit`.
        emitter: As in `reported_fit`.
        flow: Starts the evaluation.
        holdout: What the caller named as holdout.
        model: The model that is evaluated.
        run: The engine run.

    Returns:
        What the flow returned.
    """
    if emitter is None:
        return await flow()
    parts = (*named_uris(holdout), model.fitted_train_set_id)
    identity = emitter.identify("evaluate", name=model.name, engine_run=run, parts=parts)
    shown = model.redacted() if emitter.redact_labels else model
    return await _reported(
        wire,
        emitter,
        identity,
        flow,
        lambda: score_start(holdout, shown, job="EVALUATE"),
        lambda evaluation: evaluation_lineage(evaluation, shown),
    )


async def _reported(
    wire: Wire,
    emitter: Emitter,
    identity: RunIdentity,
    flow: Callable[[], Flow[R]],
    start: Callable[[], RunLineage],
    completed: Callable[[R], RunLineage],
) -> R:
    await wire.call(emitter.report, "START", identity, start)
    try:
        result = await flow()
    except FitTimeoutError:
        raise  # it goes on at the server; who waits again reports the end of the same run
    except Exception as error:
        await wire.call(emitter.report, "FAIL", identity, start, error)
        raise

    def told() -> RunLineage:
        return completed(result.redacted() if emitter.redact_labels else result)

    await wire.call(emitter.report, "COMPLETE", identity, told)
    return result
