"""Evaluate: check everything, read the target, predict the rows, compare."""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tabpfn_assets import EngineRun, Evaluation, FittedModel, PredictionSet, SourceRef
from tabpfn_operators._call import Session
from tabpfn_operators.account import get_settings
from tabpfn_operators.cost import check_predict_cost
from tabpfn_operators.errors import InvalidInputError, LimitExceededError
from tabpfn_operators.evaluation._extra import sklearn_metrics
from tabpfn_operators.evaluation._holdout import (
    ChosenReading,
    Limits,
    check_holdout,
    check_models,
    holdout_ref,
    read_target,
)
from tabpfn_operators.evaluation._kept import Place, place_for
from tabpfn_operators.evaluation._metrics_table import MAX_AUC_CLASSES, check_headline
from tabpfn_operators.evaluation._scoring import classes_told, latency_of, stored_scores
from tabpfn_operators.plan import fingerprint_of
from tabpfn_operators.predict import predict
from tabpfn_operators.pricing import check_max_cost
from tabpfn_operators.progress import ProgressCallback
from tabpfn_operators.reading import Reading
from tabpfn_operators.storage import StorageOptions, folder
from tabpfn_operators.tables._source import RowSource
from tabpfn_operators.upload import check_test_set

if TYPE_CHECKING:
    from tabpfn_operators.evaluation._truth import Truth

#: One billed call with all that is measured: all probabilities, or mean and quantiles.
_OUTPUT = {"classification": "probas", "regression": "main"}


@dataclass(frozen=True)
class _Plan:
    truth: "Truth"
    reading: Reading
    ref: SourceRef
    sent: RowSource = field(repr=False)

    @property
    def rows(self) -> int:
        """Rows to predict."""
        return len(self.truth.values)


@dataclass(frozen=True)
class _Scored:
    model: FittedModel
    place: Place
    record: PredictionSet


async def evaluate(
    session: Session,
    model: FittedModel,
    holdout: Reading,
    target: str | None,
    *,
    champion: FittedModel | None,
    headline: str | None,
    limits: Limits,
    scores: str | None,
    scores_options: StorageOptions | None,
    max_cost: int | None,
    run: EngineRun | None,
    checksum: bool | None,
    progress: ProgressCallback,
) -> Evaluation:
    """Predict a holdout with a model, and a champion too, and compare with its target."""
    await session.wire.call(sklearn_metrics)
    check_max_cost(max_cost)
    chosen = check_headline(model.task, headline)
    # A rerun after a promotion meets the candidate as champion: it is predicted, and paid for, once.
    rival = champion is not None and champion.fitted_train_set_id != model.fitted_train_set_id
    models = [model, champion] if champion is not None and rival else [model]
    _check_usable(models, chosen)
    check_models(model, champion)
    column = target or model.target
    kept = None if scores is None else [place_for(scores, one, scores_options) for one in models]
    if scores is not None:
        await session.wire.call(folder, scores, scores_options)  # a URL of no use costs nothing
    plan = await session.wire.call(_planned, holdout, model, champion, column, limits)
    found = [None for _ in models] if kept is None else await session.wire.call(_found, models, kept, plan)
    missing = [one for one, record in zip(models, found, strict=True) if record is None]
    await _check_limits(session, missing, plan)
    await _check_cost(session, missing, plan, max_cost)
    temporary = await session.wire.call(tempfile.mkdtemp, None, "tabpfn-scores-") if kept is None else None
    try:
        places = kept or [place_for(temporary or "", one, None) for one in models]
        scored: list[_Scored] = []
        left = max_cost
        for one, place, record in zip(models, places, found, strict=True):
            if record is None:
                record = await predict(  # noqa: PLW2901 - what was not found is made
                    session,
                    one,
                    plan.reading,
                    place.url,
                    output_type=_OUTPUT[one.task],
                    quantiles=None,
                    destination_options=place.options,
                    run=run,
                    redact_labels=False,
                    max_cost=left,
                    checksum=checksum,
                    progress=progress,
                )
                left = None if left is None else max(left - (record.charged or record.estimated_cost or 0), 0)
            scored.append(_Scored(one, place, record))
        if champion is not None and not rival:
            scored.append(scored[0])
        return await session.wire.call(_compared, plan, scored, column, chosen, limits)
    finally:
        if temporary is not None:
            # Not over the wire, which a cancelled task cannot wait for.
            shutil.rmtree(temporary, ignore_errors=True)


def _check_usable(models: Sequence[FittedModel], headline: str) -> None:
    for model in models:
        if model.status != "completed":
            raise InvalidInputError(
                f"The fit {model.fitted_train_set_id} is {model.status}; wait for it before evaluating."
            )
        if headline == "roc_auc_ovr" and len(model.classes or ()) > MAX_AUC_CLASSES:
            raise InvalidInputError(
                f"The model has {len(model.classes or ())} classes and roc_auc_ovr is computed for up to "
                f"{MAX_AUC_CLASSES}; name another headline."
            )


def _planned(holdout: Reading, model: FittedModel, champion: FittedModel | None, target: str, limits: Limits) -> _Plan:
    """Look at the holdout, and choose what is sent: the source as it is, or those of its rows that are evaluated."""
    table = holdout.open(keep=True)
    check_holdout(table, model, champion, target)
    truth = read_target(table, model, target, limits)
    table.check_unchanged()
    reading = holdout
    if truth.positions is not None:
        wording = "a sample of its rows" if truth.sampled else "rows without a target"
        reading = ChosenReading(
            holdout.source, holdout.storage_options, holdout.filters, holdout.casts, holdout.recompress
        ).choosing(table, truth.positions, wording)
    return _Plan(truth, reading, holdout_ref(table, model, target, truth.rows), reading.open())


async def _check_limits(session: Session, models: Sequence[FittedModel], plan: _Plan) -> None:
    """Hold the rows against the server's limits for every model, before one of them is billed."""
    if not models:
        return
    server = await get_settings(session)
    try:
        for model in models:
            check_test_set(plan.sent, model, server, _OUTPUT[model.task], plan.rows)
    except LimitExceededError as error:
        raise LimitExceededError(
            f"{error.message} Or evaluate a sample, with a max_rows below {plan.rows:,}.", problems=error.problems
        ) from None


async def _check_cost(session: Session, models: Sequence[FittedModel], plan: _Plan, max_cost: int | None) -> None:
    """Refuse what all models together would cost; one model alone is held against it by `predict`."""
    if max_cost is None or len(models) < 2:
        return
    left = max_cost
    for model in models:
        cost = await check_predict_cost(session, model, rows=plan.rows, max_cost=left)
        left = max(left - (cost.total or 0), 0)


def _found(models: Sequence[FittedModel], places: Sequence[Place], plan: _Plan) -> list[PredictionSet | None]:
    return [
        place.find(
            model,
            output_type=_OUTPUT[model.task],
            fingerprint=fingerprint_of(plan.sent, model.feature_names, None),
            rows=plan.rows,
        )
        for model, place in zip(models, places, strict=True)
    ]


def _compared(plan: _Plan, scored: Sequence[_Scored], target: str, headline: str, limits: Limits) -> Evaluation:
    from tabpfn_operators.evaluation._judged import Facts, judged

    read: list[Any] = [
        stored_scores(one.place.reading, one.model, classes_told(one.record.metadata), rows=plan.rows, positions=None)
        for one in scored
    ]
    first, *others = scored
    facts = Facts(target, headline, plan.rows, plan.ref, latency_of(first.record), first.record.charged)
    return judged(
        first.model,
        plan.truth,
        read[0],
        facts,
        limits,
        champion=others[0].model if others else None,
        champion_scores=read[1] if others else None,
    )
