"""The plots of a report: one function draws one of them on given axes, from the numbers of an evaluation alone."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from tabpfn_assets import ClassLabel, Curve, Evaluation
from tabpfn_operators.evaluation._report_axes import Theme, diagonal, frame, line, spread, ticks, unit_square
from tabpfn_operators.evaluation._report_text import MINUS, brief, percent, plot_labels, whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Classes that a confusion matrix shows one by one, and up to which it writes its counts.
CONFUSION_CLASSES = 20
_COUNTED_CLASSES = 12
#: Characters side by side under a confusion matrix.
_LINE = 54
#: Beyond it, differences overflow; no metric of a usable model is there.
_HUGE = 1e100


#: Index of a class, and the points of its curve.
ClassCurve: TypeAlias = tuple[int, list[tuple[float, ...]]]


@dataclass(frozen=True)
class Plot:
    """One plot that an evaluation has the numbers for.

    Args:
        name: Its name, part of no path.
        title: Its title.
        how_to_read: What a good model's plot looks like.
        alt: What it shows, in words and numbers.
        draw: Draws it.
    """

    name: str
    title: str
    how_to_read: str
    alt: str
    draw: "Callable[[Axes, Theme], None]"


def plots(evaluation: Evaluation) -> list[Plot]:
    """List the plots that an evaluation has the numbers for, the most telling first."""
    makers = (_reliability, _confusion, _roc, _precision_recall, _predicted_actual, _residuals, _coverage)
    return [plot for maker in makers if (plot := maker(evaluation)) is not None]


def confusion_shown(evaluation: Evaluation) -> tuple[list[int], list[list[int]]]:
    """Return the classes that a confusion matrix shows, in their order, and its rows by true and predicted class.

    Of more than 20 classes it keeps the most frequent 19, and puts the others together in a last row and column.
    """
    matrix = evaluation.confusion or ()
    kept = list(range(len(matrix)))
    if len(matrix) <= CONFUSION_CLASSES:
        return kept, [list(row) for row in matrix]
    kept = sorted(sorted(kept, key=lambda i: (-sum(matrix[i]), i))[: CONFUSION_CLASSES - 1])
    place = {each: position for position, each in enumerate(kept)}
    shown = [[0] * CONFUSION_CLASSES for _ in range(CONFUSION_CLASSES)]
    for true, row in enumerate(matrix):
        for predicted, rows in enumerate(row):
            shown[place.get(true, -1)][place.get(predicted, -1)] += rows
    return kept, shown


def _usable(curve: Curve | None, columns: int) -> list[tuple[float, ...]]:
    rows = [row[:columns] for row in curve or () if len(row) >= columns]
    return [row for row in rows if all(math.isfinite(number) and abs(number) < _HUGE for number in row)]


def _reliability(evaluation: Evaluation) -> Plot | None:
    points = [row for row in _usable(evaluation.curves.get("reliability"), 3) if row[2] > 0]
    if not points:
        return None
    total = sum(rows for _, _, rows in points)

    def draw(axes: "Axes", theme: Theme) -> None:
        unit_square(axes, theme, "Mean predicted probability", "Share that was right")
        diagonal(axes, theme, 0, 1)
        most = max(rows for _, _, rows in points)
        heights = [0.18 * rows / most for _, _, rows in points]
        positions = [probability for probability, _, _ in points]
        axes.bar(
            positions, heights, width=0.045, color=theme.muted, alpha=0.28, edgecolor="none", linewidth=0, zorder=1
        )
        line(axes, positions, [share for _, share, _ in points], theme.accent, marker="o")

    gap = sum(rows * abs(probability - share) for probability, share, rows in points) / total
    return Plot(
        "reliability",
        "Reliability",
        "On the diagonal, the model is as often right as it says it is; below it, it is too sure of itself. "
        "Grey bars: how many rows.",
        f"Reliability curve over {whole(round(total))} rows in {len(points)} bins; the share that was right is off the "
        f"predicted probability by {percent(gap)} on average.",
        draw,
    )


def _one_vs_rest(evaluation: Evaluation, prefix: str) -> list[ClassCurve]:
    found = []
    for name, curve in evaluation.curves.items():
        start, _, index = name.partition(":")
        if start == prefix and index.isdecimal() and (points := _usable(curve, 2)):
            found.append((int(index), points))
    return sorted(found)


def _draw_classes(
    axes: "Axes",
    theme: Theme,
    evaluation: Evaluation,
    curves: list[ClassCurve],
    where: Literal["lower left", "lower right"],
) -> None:
    for (_, points), colour in zip(curves, theme.series, strict=False):
        line(axes, [x for x, _ in points], [y for _, y in points], colour)
    names = plot_labels([(i + 1, _class(evaluation, i)) for i, _ in curves], theme.has_glyph, 18)
    handles = axes.get_lines()[-len(curves) :]
    # Placeholders first: matplotlib leaves out of a legend what begins with an underscore.
    legend = axes.legend(
        handles,
        [f"class {i}" for i in range(len(handles))],
        loc=where,
        frameon=False,
        fontsize=8.5,
        labelcolor=theme.ink,
        handlelength=1.4,
        borderaxespad=0.6,
    )
    for text, name in zip(legend.get_texts(), names, strict=False):
        text.set_text(name)


def _class(evaluation: Evaluation, index: int) -> ClassLabel:
    classes = evaluation.classes or ()
    return classes[index] if index < len(classes) else f"class {index + 1}"


def _roc(evaluation: Evaluation) -> Plot | None:
    curves = _one_vs_rest(evaluation, "roc")[:5]
    if not curves:
        return None

    def draw(axes: "Axes", theme: Theme) -> None:
        unit_square(axes, theme, "False positive rate", "True positive rate")
        diagonal(axes, theme, 0, 1)
        _draw_classes(axes, theme, evaluation, curves, "lower right")

    return Plot(
        "roc",
        "ROC",
        "The closer to the upper left corner, the better the class is told from the others; the diagonal is chance."
        + _which(evaluation, len(curves)),
        f"ROC curves, one against the rest, of {_classes(len(curves))}.",
        draw,
    )


def _precision_recall(evaluation: Evaluation) -> Plot | None:
    curves = _one_vs_rest(evaluation, "pr")[:5]
    if not curves:
        return None

    def draw(axes: "Axes", theme: Theme) -> None:
        unit_square(axes, theme, "Recall", "Precision")
        _draw_classes(axes, theme, evaluation, curves, "lower left")

    return Plot(
        "pr",
        "Precision and recall",
        "The closer to the upper right corner, the better: how many of those named are right (precision) when so many "
        "of the class are found (recall)." + _which(evaluation, len(curves)),
        f"Precision by recall, one against the rest, of {_classes(len(curves))}.",
        draw,
    )


def _classes(count: int) -> str:
    return "1 class" if count == 1 else f"{count} classes"


def _which(evaluation: Evaluation, shown: int) -> str:
    total = len(evaluation.classes or ())
    return f" Shown are the {shown} most frequent of {total} classes." if 1 < shown < total else ""


def _confusion(evaluation: Evaluation) -> Plot | None:
    if not evaluation.confusion:
        return None
    total = len(evaluation.confusion)
    right = sum(row[i] for i, row in enumerate(evaluation.confusion))
    rows = sum(map(sum, evaluation.confusion))
    summed = (
        f" Shown are the {CONFUSION_CLASSES - 1} most frequent of {total} classes; the others are one, and mistakes "
        "among them not seen."
        if total > CONFUSION_CLASSES
        else ""
    )
    return Plot(
        "confusion",
        "Confusion matrix",
        "Colour: share of the rows of a true class. Only the diagonal is right." + summed,
        f"Confusion matrix of {_classes(total)}: {whole(right)} of {whole(rows)} rows are on the diagonal." + summed,
        lambda axes, theme: _draw_confusion(axes, theme, evaluation),
    )


def _draw_confusion(axes: "Axes", theme: Theme, evaluation: Evaluation) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    kept, matrix = confusion_shown(evaluation)
    size = len(matrix)
    shares = [[rows / (sum(row) or 1) for rows in row] for row in matrix]
    colours = LinearSegmentedColormap.from_list("share", [theme.low, theme.accent])
    axes.imshow(
        shares, cmap=colours, vmin=0, vmax=1, interpolation="nearest", aspect="auto", origin="upper", resample=False
    )
    frame(axes, theme, "Predicted", "True", grid=False)
    length = 14 if size <= _COUNTED_CLASSES else 10
    names = plot_labels([(i + 1, _class(evaluation, i)) for i in kept], theme.has_glyph, length)
    names += [f"{len(evaluation.confusion or ()) - len(kept)} others"] * (size - len(kept))
    axes.set_xticks(range(size), labels=names)
    axes.set_yticks(range(size), labels=names)
    crowded = size * (max(map(len, names)) + 2) > _LINE
    font = 9 if size <= _COUNTED_CLASSES else 6.5
    for text in axes.get_xticklabels():
        text.set(rotation=40 if crowded else 0, ha="right" if crowded else "center", fontsize=font)
        text.set_rotation_mode("anchor" if crowded else "default")
    for text in axes.get_yticklabels():
        text.set_fontsize(font)
    axes.tick_params(length=0)
    for edge in range(1, size):
        axes.axhline(edge - 0.5, color=theme.surface, linewidth=1.5 if size <= _COUNTED_CLASSES else 0.6, linestyle="-")
        axes.axvline(edge - 0.5, color=theme.surface, linewidth=1.5 if size <= _COUNTED_CLASSES else 0.6, linestyle="-")
    if size <= _COUNTED_CLASSES:
        for row, counts in enumerate(matrix):
            for column, count in enumerate(counts):
                colour = theme.surface if shares[row][column] > 0.5 else theme.ink
                weight = "bold" if row == column else "normal"
                axes.text(
                    column,
                    row,
                    whole(count),
                    color=colour,
                    ha="center",
                    va="center",
                    weight=weight,
                    fontsize=_fit(size),
                )


def _fit(size: int) -> float:
    return 12.0 if size <= 3 else 10.0 if size <= 6 else 7.0


def _predicted_actual(evaluation: Evaluation) -> Plot | None:
    points = _usable(evaluation.curves.get("predicted_actual"), 2)
    if not points:
        return None
    low, high = min(map(min, points)), max(map(max, points))

    def draw(axes: "Axes", theme: Theme) -> None:
        frame(axes, theme, "Actual", "Predicted")
        spread(axes, low, high, margin=0.04)
        diagonal(axes, theme, *axes.get_xlim())
        axes.scatter(
            [actual for actual, _ in points],
            [predicted for _, predicted in points],
            s=16,
            marker="o",
            color=theme.accent,
            alpha=0.45,
            linewidths=0,
            zorder=3,
        )

    sampled = len(points) < evaluation.rows_evaluated
    return Plot(
        "predicted_actual",
        "Predicted and actual",
        "Each point is a row; on the diagonal the prediction is right."
        + (f" A sample of {whole(len(points))} rows." if sampled else ""),
        f"Predicted against actual values of {whole(len(points))} rows, from {brief(low)} to {brief(high)}.",
        draw,
    )


def _residuals(evaluation: Evaluation) -> Plot | None:
    bins = [row for row in _usable(evaluation.curves.get("residuals"), 3) if row[1] >= row[0]]
    if not bins or not sum(rows for _, _, rows in bins):
        return None
    low, high = bins[0][0], bins[-1][1]
    most = max(rows for _, _, rows in bins)

    def draw(axes: "Axes", theme: Theme) -> None:
        frame(axes, theme, f"Residual (actual {MINUS} predicted)", "Rows")
        spread(axes, low, high, margin=0.02, both=False)
        ticks(axes, 0, most, "y")
        axes.set_ylim(0, most * 1.06)
        least = (axes.get_xlim()[1] - axes.get_xlim()[0]) / 200
        widths = [max(right - left, least) for left, right, _ in bins]
        axes.bar(
            [left for left, _, _ in bins],
            [rows for _, _, rows in bins],
            width=widths,
            align="edge",
            color=theme.accent,
            edgecolor=theme.surface,
            linewidth=0.6,
            zorder=2,
        )
        axes.axvline(0, color=theme.ink, linewidth=1.2, linestyle=(0, (4, 3)), zorder=3)

    return Plot(
        "residuals",
        "Residuals",
        "Narrow and centred on the dashed zero is good; a second hump or a long tail is a group of rows to look at.",
        f"Histogram of the residuals in {len(bins)} bins from {brief(low)} to {brief(high)}; the fullest holds "
        f"{whole(round(most))} rows.",
        draw,
    )


def _coverage(evaluation: Evaluation) -> Plot | None:
    points = sorted(_usable(evaluation.curves.get("coverage"), 2))
    if not points:
        return None

    def draw(axes: "Axes", theme: Theme) -> None:
        unit_square(axes, theme, "Level of the interval", "Share of rows inside")
        diagonal(axes, theme, 0, 1)
        line(axes, [level for level, _ in points], [share for _, share in points], theme.accent, marker="o")

    pairs = ", ".join(f"{percent(level)}: {percent(share)}" for level, share in points)
    return Plot(
        "coverage",
        "Coverage of the intervals",
        "On the diagonal, the predicted intervals hold as many rows as they promise; below it they are too narrow.",
        f"Share of rows inside the predicted intervals, by level: {pairs}.",
        draw,
    )
