"""How good probabilities of classes are: scikit-learn's metrics, and each as a function of how often a row counts.

A label that the model has never seen counts as wrong everywhere: for the counts it is one further class that is never
predicted, its probability is 0 (log loss takes the least positive step of float64, as scikit-learn does for a 0), and
for ROC AUC it belongs to the rest.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tabpfn_assets import Curve
from tabpfn_operators.evaluation._bootstrap import Weighted, mean
from tabpfn_operators.evaluation._extra import sklearn_metrics
from tabpfn_operators.evaluation._metrics_table import MAX_AUC_CLASSES, METRICS
from tabpfn_operators.evaluation._scores import BLOCK_ROWS, Probabilities

BINS = 10
_CURVE_POINTS = 101
_CURVE_CLASSES = 5
_EPS = np.finfo(np.float64).eps


class Classified:
    """Probabilities held against the truth.

    Args:
        truth: Number of the class of each row, -1 for a label that the model has never seen.
        scores: Probabilities of the same rows.
    """

    def __init__(self, truth: Any, scores: Probabilities) -> None:
        self.scores = scores
        self.rows = scores.rows
        self._count = len(scores.classes)
        self._true = np.where(truth < 0, self._count, truth)
        self._predicted = np.empty(self.rows, np.int64)
        self._confidence, self._log, self._brier = (np.empty(self.rows) for _ in range(3))
        for start in range(0, self.rows, BLOCK_ROWS):
            self._look_at(start)
        self._hit = (self._predicted == self._true).astype(np.float64)
        self._bin = np.clip((self._confidence * BINS).astype(np.int64), 0, BINS - 1)

    def _look_at(self, start: int) -> None:
        block = self.scores.block(start)
        part = slice(start, start + len(block))
        true = self._true[part]
        known = np.flatnonzero(true < self._count)
        of_truth = np.zeros(len(block))
        of_truth[known] = block[known, true[known]]
        self._predicted[part] = block.argmax(axis=1)
        self._confidence[part] = block.max(axis=1)
        self._log[part] = -np.log(np.clip(of_truth, _EPS, 1 - _EPS))
        squares = np.einsum("ij,ij->i", block, block) - 2 * of_truth + 1
        # Of two classes, the usual score of one of them (scikit-learn's scale_by_half="auto").
        self._brier[part] = squares / 2 if self._count == 2 else squares

    def metrics(self) -> tuple[dict[str, float], list[str]]:
        """Return the metrics, and why one is absent."""
        sk = sklearn_metrics()
        present = np.unique(self._true)
        found = {
            "accuracy": sk.accuracy_score(self._true, self._predicted),
            "balanced_accuracy": sk.recall_score(
                self._true, self._predicted, average="macro", labels=present, zero_division=0.0
            ),
            # Of these, the sums over rows: scikit-learn would make copies of all scores.
            "log_loss": self._log.mean(),
            "brier": self._brier.mean(),
            "ece": self.weighted("ece")(np.ones(self.rows)),
            "f1_macro": sk.f1_score(self._true, self._predicted, average="macro", zero_division=0.0),
        }
        notes = []
        ranked = self._ranked()
        if self._count > MAX_AUC_CLASSES:
            notes.append(f"roc_auc_ovr is left out: {self._count} classes, it is computed for up to {MAX_AUC_CLASSES}.")
        elif not ranked:
            notes.append("roc_auc_ovr has no value: it needs rows of at least two classes.")
        else:
            areas = [sk.roc_auc_score(self._true == index, self.scores.columns[index]) for index in ranked]
            found["roc_auc_ovr"] = np.mean(areas)
            if (unranked := self._count - len(ranked)) and self._count > 2:
                notes.append(f"roc_auc_ovr is the mean over {len(ranked)} classes; not in the holdout: {unranked}.")
        return {name: float(found[name]) for name in METRICS["classification"] if name in found}, notes

    def weighted(self, metric: str) -> Weighted:
        """Return a metric as a function of how often each row counts.

        Args:
            metric: Its name.
        """
        losses = {"accuracy": self._hit, "log_loss": self._log, "brier": self._brier}
        if metric in losses:
            values = losses[metric]
            return lambda counts: mean(counts, values)
        others: dict[str, Callable[[], Weighted]] = {
            "ece": self._weighted_ece,
            "balanced_accuracy": self._weighted_recall,
            "f1_macro": self._weighted_f1,
            "roc_auc_ovr": self._weighted_auc,
        }
        return others[metric]()

    def _weighted_ece(self) -> Weighted:
        gap = self._confidence - self._hit
        return lambda counts: float(np.abs(np.bincount(self._bin, counts * gap, BINS)).sum() / counts.sum())

    def _weighted_recall(self) -> Weighted:
        def recall(counts: Any) -> float:
            rows = np.bincount(self._true, counts, self._count + 1)
            hits = np.bincount(self._true, counts * self._hit, self._count + 1)
            return float((hits[rows > 0] / rows[rows > 0]).mean())

        return recall

    def _weighted_f1(self) -> Weighted:
        def f1(counts: Any) -> float:
            both = np.bincount(self._true, counts, self._count + 1)
            both += np.bincount(self._predicted, counts, self._count + 1)
            hits = np.bincount(self._true, counts * self._hit, self._count + 1)
            return float((2 * hits[both > 0] / both[both > 0]).mean())

        return f1

    def _weighted_auc(self) -> Weighted:
        areas = [_weighted_area(self._true == index, self.scores.columns[index]) for index in self._ranked()]

        def average(counts: Any) -> float:
            found = [value for area in areas if np.isfinite(value := area(counts))]
            return float(np.mean(found)) if found else float("nan")

        return average

    def _ranked(self) -> list[int]:
        """Name the classes that have rows of their own and rows of others; of two classes one says it all."""
        counts = np.bincount(self._true, minlength=self._count + 1)[: self._count]
        classes = [1] if self._count == 2 else range(self._count)
        return [index for index in classes if 0 < counts[index] < self.rows]

    def confusion(self) -> tuple[tuple[int, ...], ...]:
        """Count rows by true and predicted class, without those of a label that the model has never seen."""
        cells = self._true * self._count + self._predicted
        counts = np.bincount(cells, minlength=self._count * (self._count + 1))[: self._count**2]
        return tuple(tuple(row) for row in counts.reshape(self._count, self._count).tolist())

    def curves(self) -> dict[str, Curve]:
        """Return reliability, and ROC and precision-recall curves of the most frequent classes."""
        sk = sklearn_metrics()
        found: dict[str, Curve] = {"reliability": self._reliability()}
        counts = np.bincount(self._true, minlength=self._count)
        frequent = sorted(self._ranked(), key=lambda index: (-counts[index], index))[:_CURVE_CLASSES]
        for index in sorted(frequent):
            true, column = self._true == index, self.scores.columns[index]
            false_rate, true_rate, _ = sk.roc_curve(true, column)
            precision, recall, _ = sk.precision_recall_curve(true, column)
            found[f"roc:{index}"] = _thinned(false_rate, true_rate)
            found[f"pr:{index}"] = _thinned(recall[::-1], precision[::-1])
        return found

    def _reliability(self) -> Curve:
        rows, confidence, hits = (
            np.bincount(self._bin, values, BINS) for values in (np.ones(self.rows), self._confidence, self._hit)
        )
        filled = np.flatnonzero(rows)
        return tuple((float(confidence[i] / rows[i]), float(hits[i] / rows[i]), float(rows[i])) for i in filled)


def _weighted_area(positive: Any, scores: Any) -> Weighted:
    """Return the area under the ROC curve of one class as a function of how often each row counts."""
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    mine = np.flatnonzero(positive)
    first = np.searchsorted(ranked, scores[mine], side="left")
    last = np.searchsorted(ranked, scores[mine], side="right")
    below = np.zeros(len(scores) + 1)

    def area(counts: Any) -> float:
        np.cumsum(counts[order], out=below[1:])
        weights = counts[mine]
        own = weights.sum()
        pairs = own * (below[-1] - own)
        if not pairs:
            return float("nan")
        # A tie counts half; among themselves, the rows of the class are half of their pairs below each other.
        return float((mean(weights, below[first] + below[last]) - own) * own / 2 / pairs)

    return area


def _thinned(x: Sequence[float], y: Sequence[float]) -> Curve:
    """Keep points at even steps along a curve, its ends among them."""
    points = np.column_stack([x, y])
    way = np.r_[0.0, np.abs(np.diff(points, axis=0)).sum(axis=1).cumsum()]
    steps = np.linspace(0.0, way[-1], _CURVE_POINTS)
    kept = np.unique(np.searchsorted(way, steps)) if len(way) > _CURVE_POINTS else np.arange(len(way))
    return tuple((float(a), float(b)) for a, b in points[kept])
