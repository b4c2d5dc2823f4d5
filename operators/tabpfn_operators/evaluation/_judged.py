"""From truth and scores to an evaluation: pure, but for the time of day."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

import numpy as np

from tabpfn_assets import ClassLabel, Comparison, Evaluation, FittedModel, SourceRef
from tabpfn_operators.errors import InvalidInputError
from tabpfn_operators.evaluation._bootstrap import bootstrapped, interval_of
from tabpfn_operators.evaluation._classification import Classified
from tabpfn_operators.evaluation._holdout import Limits, check_labels, class_order, named
from tabpfn_operators.evaluation._labels import UNSEEN, match_labels
from tabpfn_operators.evaluation._metrics_table import DEFAULT_HEADLINE, improvement
from tabpfn_operators.evaluation._regression import Regressed
from tabpfn_operators.evaluation._scores import Numbers, Probabilities, Scores
from tabpfn_operators.evaluation._truth import Truth

_Judgement: TypeAlias = Classified | Regressed


@dataclass(frozen=True)
class Facts:
    """What an evaluation records beside its numbers.

    Args:
        target: Target column.
        headline: The metric that decides.
        rows_scored: Rows that were predicted.
        holdout: Where the holdout came from.
        latency: Seconds that the server took to predict.
        charged: Tokens that the predictions cost.
    """

    target: str
    headline: str
    rows_scored: int
    holdout: SourceRef
    latency: float | None = None
    charged: int | None = None


def judged(
    model: FittedModel,
    truth: Truth,
    scores: Scores,
    facts: Facts,
    limits: Limits,
    *,
    champion: FittedModel | None = None,
    champion_scores: Scores | None = None,
) -> Evaluation:
    """Compute an evaluation.

    Args:
        model: The model.
        truth: The truth of the rows evaluated.
        scores: The model's predictions of these rows, in the same order.
        facts: What is recorded beside the numbers.
        limits: Seed and resamples.
        champion: Another model.
        champion_scores: Its predictions of these rows.

    Raises:
        InvalidInputError: No row can be compared, or the models have other classes; the message says which.
    """
    notes = _notes_of_the_holdout(model, truth, facts, limits)
    values: Any = truth.values
    classes: tuple[ClassLabel, ...] | None = None
    for given in (scores, champion_scores):
        if isinstance(given, Probabilities):
            given.check()
    if isinstance(scores, Probabilities):
        classes = scores.classes
        values = _codes(truth, classes, facts.target, notes)
        if isinstance(champion_scores, Probabilities):
            order = class_order(classes, champion_scores.classes)
            champion_scores = champion_scores.ordered(order, classes)
    kept = scores.usable() if champion_scores is None else scores.usable() & champion_scores.usable()
    if not kept.all():
        notes.append(f"Left out: {_rows(int((~kept).sum()))} whose prediction is not a finite number.")
        if not kept.any():
            raise InvalidInputError("No prediction is a finite number; look at the predictions, and predict again.")
        values, scores = values[kept], scores.take(kept)
        champion_scores = None if champion_scores is None else champion_scores.take(kept)
    judgement = _judge(values, scores, limits)
    metrics, absent = judgement.metrics()
    rivals = [] if champion_scores is None else [_judge(values, champion_scores, limits)]
    theirs = [rival.metrics()[0] for rival in rivals]
    headline = facts.headline
    if any(headline not in known for known in (metrics, *theirs)):
        headline = DEFAULT_HEADLINE[model.task]
        notes.append(f"{facts.headline} was to decide and has no value for this holdout; {headline} decides.")
    drawn = bootstrapped(
        [one.weighted(headline) for one in (judgement, *rivals)],
        judgement.rows,
        seed=limits.seed,
        resamples=limits.resamples,
    )
    comparison = None
    if champion is not None and theirs:
        comparison = _compared(metrics, theirs[0], headline, champion, drawn)
    return Evaluation(
        fitted_train_set_id=model.fitted_train_set_id,
        task=model.task,
        target=facts.target,
        headline=headline,
        metrics=metrics,
        interval=interval_of(drawn[:, 0]),
        baseline=_judge(values, _constant(values, scores), limits).metrics()[0],
        comparison=comparison,
        rows=truth.rows,
        rows_scored=facts.rows_scored,
        rows_evaluated=judgement.rows,
        seed=limits.seed,
        classes=classes,
        confusion=judgement.confusion() if isinstance(judgement, Classified) else None,
        curves=judgement.curves(),
        latency=facts.latency,
        charged=facts.charged,
        notes=(*notes, *absent),
        holdout=facts.holdout,
        created_at=datetime.now(UTC),
    )


def _judge(values: Any, scores: Scores, limits: Limits) -> _Judgement:
    if isinstance(scores, Probabilities):
        return Classified(values, scores)
    return Regressed(values, scores, limits.seed)


def _compared(
    mine: Mapping[str, float], theirs: dict[str, float], headline: str, champion: FittedModel, drawn: Any
) -> Comparison:
    return Comparison(
        fitted_train_set_id=champion.fitted_train_set_id,
        metrics=theirs,
        improvement=improvement(headline, mine[headline], theirs[headline]),
        interval=interval_of(improvement(headline, drawn[:, 0], drawn[:, 1])),
    )


def _constant(values: Any, scores: Scores) -> Scores:
    """Return what a model that knows nothing but the holdout's target would predict: shares, or mean and quantiles."""
    rows = len(values)
    if isinstance(scores, Probabilities):
        known = values[values != UNSEEN]
        shares = np.bincount(known, minlength=len(scores.classes)) / max(len(known), 1)
        return Probabilities(scores.classes, [np.broadcast_to(share, rows) for share in shares])
    quantiles = {alpha: np.broadcast_to(np.quantile(values, alpha), rows) for alpha in scores.quantiles}
    return Numbers(np.broadcast_to(values.mean(), rows), quantiles)


def _codes(truth: Truth, classes: Sequence[ClassLabel], target: str, notes: list[str]) -> Any:
    """Number the truth by class, and note the labels that are none."""
    check_labels(truth.labels, classes, target)
    matched = np.asarray(match_labels(truth.labels, classes), np.int64)
    codes = matched[truth.values]
    unseen = np.flatnonzero(codes == UNSEEN)
    if len(unseen):
        strange = [truth.labels[index] for index in np.unique(truth.values[unseen])]
        notes.append(
            f"Counted as wrong: {_rows(len(unseen))} with a label that the model has never seen ({named(strange)}); "
            "its probability is taken as 0, and the confusion matrix is without them."
        )
    return codes


def _notes_of_the_holdout(model: FittedModel, truth: Truth, facts: Facts, limits: Limits) -> list[str]:
    notes = []
    if facts.holdout.fingerprint is not None and facts.holdout.fingerprint == model.source.fingerprint:
        notes.append("The holdout is the train set itself; these figures say nothing about rows that are new.")
    if truth.missing:
        notes.append(f"Left out: {_rows(truth.missing)} without a target.")
    if truth.sampled:
        notes.append(
            f"A sample of {len(truth.values):,} of {truth.rows - truth.missing:,} rows was evaluated, drawn with seed "
            f"{limits.seed}."
        )
    return notes


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"
