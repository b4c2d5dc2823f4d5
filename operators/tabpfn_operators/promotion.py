"""Whether a candidate takes the champion's place: rules as data, and a decision that keeps its numbers."""

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tabpfn_assets import Check, Decision, Evaluation, FittedModel
from tabpfn_operators.errors import InvalidInputError
from tabpfn_operators.evaluation._metrics_table import HIGHER_IS_BETTER

if TYPE_CHECKING:
    from tabpfn_operators.lineage import LineageStore

_HOW_TO_COMPARE = "evaluate the candidate with champion=<the champion's record>, so that both predict the same rows"


class PromotionRule(BaseModel):
    """What a candidate must show to become the champion; every condition that is asked for must hold.

    Plain data, for YAML, JSON and engine settings. Values are taken as they are: `"0.01"` and `true` are no numbers,
    and a key that is misspelt is refused.

    Args:
        headline: Metric that decides, for instance `log_loss`; None takes the evaluation's own.
        min_improvement: By how much the candidate must be better than the champion, in units of the metric, whichever
            direction is better; may be negative. None asks for 0 where `non_inferiority` is None too, else nothing.
        non_inferiority: Margin, at least 0, in units of the metric: the lower end of the paired bootstrap interval of
            the improvement must not lie below minus this margin. None does not ask.
        must_beat_baseline: Whether the metric must be better than that of a constant prediction.
        max_latency: Seconds the server may take to predict the holdout. None does not ask.
        max_cost: Tokens that the fit and the holdout's predictions may have cost together. None does not ask.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    headline: str | None = None
    min_improvement: float | None = None
    non_inferiority: Annotated[float, Field(ge=0)] | None = None
    must_beat_baseline: bool = True
    max_latency: Annotated[float, Field(gt=0)] | None = None
    max_cost: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _metric_is_known(self) -> Self:
        if self.headline is not None and self.headline not in HIGHER_IS_BETTER:
            raise ValueError(f"headline: {self.headline!r} is no metric; use one of {', '.join(HIGHER_IS_BETTER)}")
        return self

    @property
    def required_improvement(self) -> float | None:
        """By how much the candidate must be better than the champion; None where only `non_inferiority` counts."""
        if self.min_improvement is None and self.non_inferiority is None:
            return 0.0
        return self.min_improvement


def decide(
    candidate: FittedModel, evaluation: Evaluation, champion: FittedModel | None, rule: PromotionRule, *, now: datetime
) -> Decision:
    """Judge a candidate by its evaluation; pure, so that the same records always come to the same decision.

    A number that a condition needs and the records do not hold fails the condition, with the way to get it. The first
    model of a name has no champion to be compared with: it is judged on the other conditions, and a check says so.

    Args:
        candidate: The model that would become the champion.
        evaluation: Its evaluation, compared with the champion.
        champion: The champion; None where there is none yet.
        rule: The conditions.
        now: When it is decided, with a time zone.

    Returns:
        The decision with every condition that was asked for, passed or not.

    Raises:
        InvalidInputError: The records do not belong together, or the candidate is not fitted or is the champion
            already; the message says which records to pass.
    """
    headline = rule.headline or evaluation.headline
    _check_records(candidate, evaluation, champion, headline, now)
    checks = [*_against_baseline(evaluation, headline, rule)]
    if champion is None:
        reason = "There is no champion yet: the first model is judged on the conditions that need none."
        checks.append(Check(rule="champion", passed=True, reason=reason))
    else:
        checks += _against_champion(evaluation, headline, rule)
    checks += _limits(candidate, evaluation, rule)
    return Decision(
        promote=all(check.passed for check in checks),
        candidate_id=candidate.fitted_train_set_id,
        champion_id=None if champion is None else champion.fitted_train_set_id,
        headline=headline,
        checks=tuple(checks),
        decided_at=now,
    )


def promote(
    store: "LineageStore",
    name: str,
    version: str = "latest",
    *,
    rule: PromotionRule,
    alias: str = "champion",
    now: datetime | None = None,
) -> Decision:
    """Judge a recorded version against the champion, and make it the champion where every condition holds.

    The decision is recorded: with the alias's move, or beside the version it refuses (`store.decisions`). Of the
    evaluations recorded for the version the newest counts that compares it with the champion, else the newest.
    A version that the alias points to already stays there, so that a rerun after a kill comes to the same decision.

    Args:
        store: The lineage store.
        name: The model.
        version: The candidate, as for `LineageStore.get`.
        rule: The conditions.
        alias: The alias of the champion.
        now: When it is decided, with a time zone; None for the present.

    Returns:
        The decision; the alias points to the version if `promote` is true, and is untouched if it is false.

    Raises:
        InvalidInputError: The version has no evaluation, or one against another champion; evaluate it and record that
            by `LineageStore.add_evaluation`.
        AliasMovedError: Another moved the alias meanwhile; evaluate against the new champion and decide again.
        ModelNotRecordedError: There is no such model or version; the message names those there are.
        ConfigurationError: The version is erased, or a name is no name; choose another.
        RecordUnreadableError: A record is damaged or may not be read; the message names the file.
        StoreNotExclusiveError: The store cannot keep two writers apart; the message names those that can.
        DestinationError: The store cannot be written to; correct path or credentials.
        StorageError: The storage did not answer; run again.
    """
    version = store.resolve(name, version)
    entry = store.alias(name, alias)
    candidate = store.get(name, version)
    now = now or datetime.now(UTC)
    if entry is not None and entry.version == version:
        return entry.decision or _stays(candidate, alias, now)
    champion = None if entry is None else store.get(name, entry.version)
    evaluation = _evaluation(store, name, version, candidate, champion)
    decision = decide(candidate, evaluation, champion, rule, now=now)
    if decision.promote:
        store.promote(name, version, alias=alias, expected=None if entry is None else entry.version, decision=decision)
    else:
        store.add_decision(name, version, decision)
    return decision


def _stays(candidate: FittedModel, alias: str, now: datetime) -> Decision:
    mine = candidate.fitted_train_set_id
    reason = f"The alias {alias!r} points to this version already, by hand and not by a rule; nothing was changed."
    return Decision(
        promote=True,
        candidate_id=mine,
        champion_id=mine,
        headline=candidate.evaluation.headline if candidate.evaluation else "",
        checks=(Check(rule="champion", passed=True, reason=reason),),
        decided_at=now,
    )


def _evaluation(
    store: "LineageStore", name: str, version: str, candidate: FittedModel, champion: FittedModel | None
) -> Evaluation:
    newest = candidate.evaluation
    if newest is None:
        raise InvalidInputError(
            f"{name} {version} has no evaluation to be judged by; evaluate it on a holdout"
            f"{'' if champion is None else ', against the champion,'} and record that by store.add_evaluation()."
        )
    if champion is None or _compares(newest, champion):
        return newest
    return next((each for each in reversed(store.evaluations(name, version)) if _compares(each, champion)), newest)


def _compares(evaluation: Evaluation, champion: FittedModel) -> bool:
    other = evaluation.comparison and evaluation.comparison.fitted_train_set_id
    return other == champion.fitted_train_set_id


def _check_records(
    candidate: FittedModel, evaluation: Evaluation, champion: FittedModel | None, headline: str, now: datetime
) -> None:
    mine = candidate.fitted_train_set_id
    if candidate.status != "completed":
        raise InvalidInputError(f"The candidate {mine} is {candidate.status}; wait until its fit is completed.")
    if evaluation.fitted_train_set_id != mine:
        raise InvalidInputError(
            f"The evaluation is of {evaluation.fitted_train_set_id}, not of the candidate {mine}; pass the candidate's."
        )
    if headline not in HIGHER_IS_BETTER:
        raise InvalidInputError(
            f"The evaluation's headline {headline!r} is no metric that this version can judge; name one by the rule's "
            f"headline: {', '.join(HIGHER_IS_BETTER)}."
        )
    if now.tzinfo is None:
        raise InvalidInputError("now= has no time zone; pass datetime.now(UTC).")
    if champion is None:
        return
    if champion.fitted_train_set_id == mine:
        raise InvalidInputError(f"{mine} is the champion already; pass another candidate.")
    other = evaluation.comparison and evaluation.comparison.fitted_train_set_id
    if other not in {None, champion.fitted_train_set_id}:
        raise InvalidInputError(
            f"The evaluation compares the candidate {mine} with {other}, but the champion is "
            f"{champion.fitted_train_set_id}: {_HOW_TO_COMPARE}."
        )


def _against_baseline(evaluation: Evaluation, headline: str, rule: PromotionRule) -> list[Check]:
    if not rule.must_beat_baseline:
        return []
    name = "must_beat_baseline"
    actual, required = evaluation.metrics.get(headline), evaluation.baseline.get(headline)
    if actual is None:
        return [_absent(name, f"The evaluation holds no {headline}", _absent_metric(evaluation))]
    if required is None:
        remedy = f"evaluate with headline={headline!r} on a holdout for which the baseline has one"
        return [_absent(name, f"The evaluation holds no {headline} of the baseline", remedy)]
    passed = actual > required if HIGHER_IS_BETTER[headline] else actual < required
    verdict = "better than" if passed else "not better than"
    reason = f"{headline} {_n(actual)} is {verdict} the baseline's {_n(required)}."
    return [Check(rule=name, passed=passed, actual=actual, required=required, reason=reason)]


def _against_champion(evaluation: Evaluation, headline: str, rule: PromotionRule) -> list[Check]:
    checks = []
    improvement = _improvement(evaluation, headline)
    if (required := rule.required_improvement) is not None:
        name = "min_improvement"
        if evaluation.comparison is None:
            checks.append(_absent(name, "The evaluation has no comparison with the champion", _HOW_TO_COMPARE))
        elif improvement is None:
            remedy = _absent_metric(evaluation)
            checks.append(_absent(name, f"The evaluation does not hold {headline} of both models", remedy))
        else:
            passed = improvement >= required
            verdict = "at least the" if passed else "less than the"
            reason = (
                f"{headline} is better than the champion's by {_n(improvement)}, {verdict} required {_n(required)}."
            )
            checks.append(Check(rule=name, passed=passed, actual=improvement, required=required, reason=reason))
    if rule.non_inferiority is not None:
        checks.append(_non_inferior(evaluation, headline, 0.0 - rule.non_inferiority))
    return checks


def _improvement(evaluation: Evaluation, headline: str) -> float | None:
    comparison = evaluation.comparison
    if comparison is None:
        return None
    if headline == evaluation.headline:
        return comparison.improvement
    mine, theirs = evaluation.metrics.get(headline), comparison.metrics.get(headline)
    if mine is None or theirs is None:
        return None
    return mine - theirs if HIGHER_IS_BETTER[headline] else theirs - mine


def _non_inferior(evaluation: Evaluation, headline: str, required: float) -> Check:
    name = "non_inferiority"
    comparison = evaluation.comparison
    if comparison is None:
        return _absent(name, "The evaluation has no comparison with the champion", _HOW_TO_COMPARE)
    if headline != evaluation.headline:
        remedy = f"evaluate with headline={headline!r}"
        return _absent(name, f"The evaluation's interval is of {evaluation.headline}, not of {headline}", remedy)
    interval = comparison.interval
    if interval is None:
        remedy = "use a headline that has a value for each row, such as log_loss, accuracy or rmse, or min_improvement"
        return _absent(name, f"The improvement of {headline} has no paired bootstrap interval", remedy)
    passed = interval.low >= required
    verdict = "does not reach" if passed else "reaches"
    reason = (
        f"The {interval.level:.0%} interval of the improvement of {headline}, {_n(interval.low)} to "
        f"{_n(interval.high)} ({interval.resamples} paired resamples), {verdict} below {_n(required)}."
    )
    return Check(rule=name, passed=passed, actual=interval.low, required=required, reason=reason)


def _limits(candidate: FittedModel, evaluation: Evaluation, rule: PromotionRule) -> list[Check]:
    checks = []
    if (limit := rule.max_latency) is not None:
        seconds = evaluation.latency
        if seconds is None:
            remedy = "evaluate by predicting the holdout anew, on a server that reports its seconds"
            checks.append(_absent("max_latency", "The evaluation holds no latency", remedy, limit))
        else:
            verdict = "within" if seconds <= limit else "more than"
            reason = f"The server took {_n(seconds)} s to predict the holdout, {verdict} the {_n(limit)} s allowed."
            passed = seconds <= limit
            checks.append(Check(rule="max_latency", passed=passed, actual=seconds, required=limit, reason=reason))
    if rule.max_cost is not None:
        checks.append(_cost(candidate, evaluation, rule.max_cost))
    return checks


def _cost(candidate: FittedModel, evaluation: Evaluation, limit: int) -> Check:
    fit = candidate.charged if candidate.charged is not None or candidate.parameters.billed else 0
    unknown = "fit" if fit is None else "holdout's predictions" if evaluation.charged is None else None
    if fit is None or evaluation.charged is None:
        remedy = (
            "pass max_cost (--max-cost) to evaluate, which then looks at the usage before and after, and run both "
            "while nobody else uses the account"
        )
        return _absent("max_cost", f"It is not known what the {unknown} cost", remedy, limit)
    tokens = fit + evaluation.charged
    verdict = "within" if tokens <= limit else "more than"
    reason = f"Fit and holdout predictions cost {tokens:,} tokens, {verdict} the {limit:,} allowed."
    return Check(rule="max_cost", passed=tokens <= limit, actual=tokens, required=limit, reason=reason)


def _absent(rule: str, fact: str, remedy: str, required: float | None = None) -> Check:
    return Check(rule=rule, passed=False, required=required, reason=f"{fact}: {remedy}.")


def _absent_metric(evaluation: Evaluation) -> str:
    held = ", ".join(sorted(evaluation.metrics)) or "no metric"
    return f"it holds {held}; name one of them as the rule's headline, or see the evaluation's notes"


def _n(number: float) -> str:
    return f"{number:.6g}" if math.isfinite(number) else str(number)
