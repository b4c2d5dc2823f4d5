"""What a report says of an evaluation in words, made of its numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tabpfn_assets import Evaluation, Interval
from tabpfn_operators.evaluation._metrics_table import HIGHER_IS_BETTER, improvement
from tabpfn_operators.evaluation._report_text import NOTHING, brief, inline, percent, title, visible, whole

#: What a cell says: a headline, the number, a line beneath, and whether that is good, bad or neither.
Fact = tuple[str, str, str, bool | None]


@dataclass(frozen=True)
class ClassScore:
    """How well one class was found.

    Args:
        index: Its place in the evaluation's classes.
        rows: Rows of the class.
        recall: Share of them that was found; None where there are none.
        precision: Share of those named so that was right; None where none was.
    """

    index: int
    rows: int
    recall: float | None
    precision: float | None


def headline_lines(evaluation: Evaluation) -> tuple[str, str, str]:
    """Say in three lines how good the model is, against what, and on which rows."""
    name = evaluation.headline
    against = []
    if evaluation.interval:
        against.append(between(evaluation.interval))
    if (constant := evaluation.baseline.get(name)) is not None:
        against.append(f"baseline {brief(constant)}")
    if evaluation.comparison and (champion := evaluation.comparison.metrics.get(name)) is not None:
        gain = evaluation.comparison.improvement
        against.append(f"champion {brief(champion)} ({better(gain)})")
    task = f"{evaluation.task.capitalize()} of {visible(evaluation.target)}"
    when = f"{evaluation.created_at:%d %B %Y}"
    return (
        f"{title(name)} {brief(evaluation.metrics.get(name))}",
        "   ·   ".join(against),
        "   ·   ".join([task, f"{whole(evaluation.rows_evaluated)} rows evaluated", when]),
    )


def facts(evaluation: Evaluation) -> list[Fact]:
    """List what a reader in a hurry looks for."""
    name = evaluation.headline
    value, constant = evaluation.metrics.get(name), evaluation.baseline.get(name)
    under = between(evaluation.interval) if evaluation.interval else "no interval"
    found: list[Fact] = [(title(name), brief(value), under, None)]
    if value is not None and constant is not None:
        gain = _gain(name, value, constant)
        line = f"{_comparative(gain)} than a constant prediction ({brief(constant)})"
        found.append(("Against the baseline", signed(gain), line, None if gain is None else gain > 0))
    if evaluation.comparison:
        gain = evaluation.comparison.improvement
        interval = evaluation.comparison.interval
        certain = interval is None or interval.low > 0 or interval.high < 0
        line = f"{_comparative(gain)} than the champion; " + (between(interval) if interval else "no interval")
        found.append(("Against the champion", signed(gain), line, gain > 0 if certain and gain else None))
    rows = whole(evaluation.rows_evaluated)
    all_rows = evaluation.rows_evaluated == evaluation.rows
    found.append(("Rows evaluated", rows, "the whole holdout" if all_rows else f"of {whole(evaluation.rows)}", None))
    return found


def summary(evaluation: Evaluation) -> str:
    """Say in a sentence or two what the numbers say."""
    name = evaluation.headline
    value, constant = evaluation.metrics.get(name), evaluation.baseline.get(name)
    if value is None:
        return f"The evaluation holds no {inline(name)}; its notes say why."
    text = f"{title(name)} is {brief(value)}"
    if constant is not None and (gain := _gain(name, value, constant)) is not None:
        text += (
            f", {better(gain)} than the {brief(constant)} of a constant prediction{_relative(name, value, constant)}"
        )
    text += "."
    if evaluation.comparison:
        gain, interval = evaluation.comparison.improvement, evaluation.comparison.interval
        text += f" On the same rows it is {better(gain)} than the champion"
        if interval and interval.low <= 0 <= interval.high:
            text += f", a difference that these rows cannot tell from none ({between(interval)})"
        elif interval:
            text += f" ({between(interval)})"
        text += "."
    return text


def class_scores(evaluation: Evaluation) -> list[ClassScore]:
    """Score each class by the confusion matrix, the most frequent first."""
    matrix = evaluation.confusion or ()
    named = [sum(row[i] for row in matrix) for i in range(len(matrix))]
    scores = [
        ClassScore(
            index=i,
            rows=sum(row),
            recall=row[i] / sum(row) if sum(row) else None,
            precision=row[i] / named[i] if named[i] else None,
        )
        for i, row in enumerate(matrix)
    ]
    return sorted(scores, key=lambda score: (-score.rows, score.index))


def confusions(evaluation: Evaluation, most: int) -> list[tuple[int, int, int, float]]:
    """List the most frequent mistakes: true class, predicted class, rows, and their share of the true class."""
    matrix: Sequence[Sequence[int]] = evaluation.confusion or ()
    found = [
        (true, predicted, rows, rows / sum(row))
        for true, row in enumerate(matrix)
        for predicted, rows in enumerate(row)
        if rows and true != predicted
    ]
    return sorted(found, key=lambda mistake: (-mistake[2], mistake[0], mistake[1]))[:most]


def between(interval: Interval) -> str:
    """Write an interval."""
    return f"{100 * interval.level:g}% interval {brief(interval.low)} to {brief(interval.high)}"


def better(gain: float) -> str:
    """Say by how much something is better, or worse."""
    return "no better" if gain == 0 else f"{brief(abs(gain))} {'better' if gain > 0 else 'worse'}"


def _comparative(gain: float | None) -> str:
    if gain is None or math.isnan(gain):
        return "no comparison; other"
    return "better" if gain > 0 else "worse" if gain < 0 else "no better"


def signed(gain: float | None) -> str:
    """Write a gain with its sign."""
    return NOTHING if gain is None else ("+" if gain > 0 else "") + brief(gain)


def direction(metric: str) -> str:
    """Say which way a metric is better; empty where it is not known."""
    if metric == "coverage_80":
        return "0.8 is as promised"
    return {True: "higher is better", False: "lower is better", None: ""}[HIGHER_IS_BETTER.get(metric)]


def _gain(metric: str, value: float, other: float) -> float | None:
    return improvement(metric, value, other) if metric in HIGHER_IS_BETTER else None


def _relative(metric: str, value: float, constant: float) -> str:
    if HIGHER_IS_BETTER.get(metric, True) or constant <= 0 or value < 0 or value > constant:
        return ""
    return f" ({percent(1 - value / constant, 0)} less)"
