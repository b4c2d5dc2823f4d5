"""How good predicted numbers are: scikit-learn's metrics, and each as a function of how often a row counts."""

import math
from typing import Any

import numpy as np

from tabpfn_assets import Curve
from tabpfn_operators.evaluation._bootstrap import Weighted, mean
from tabpfn_operators.evaluation._extra import sklearn_metrics
from tabpfn_operators.evaluation._metrics_table import METRICS
from tabpfn_operators.evaluation._scores import Numbers

#: The ends of the interval that 80 % of the rows should be in.
INTERVAL_80 = (0.1, 0.9)
_BINS = 40
_SCATTER_POINTS = 500
#: Keeps the draw of the scatter plot's rows apart from other draws of the seed.
_STREAM = 2


class Regressed:
    """Predicted numbers held against the truth.

    Args:
        truth: The number of each row.
        scores: Predictions of the same rows.
        seed: Seed of the rows that the scatter plot shows.
    """

    def __init__(self, truth: Any, scores: Numbers, seed: int) -> None:
        self.scores = scores
        self.rows = scores.rows
        self._truth = truth
        self._seed = seed

    def metrics(self) -> tuple[dict[str, float], list[str]]:
        """Return the metrics, and why one is absent."""
        sk = sklearn_metrics()
        truth, points = self._truth, self.scores.points
        found = {"rmse": sk.root_mean_squared_error(truth, points), "mae": sk.mean_absolute_error(truth, points)}
        notes = []
        if self.rows > 1 and np.ptp(truth) > 0:
            found["r2"] = sk.r2_score(truth, points)
        else:
            notes.append("r2 has no value: the target is the same in every row.")
        if self.scores.quantiles:
            losses = [sk.mean_pinball_loss(truth, q, alpha=alpha) for alpha, q in self.scores.quantiles.items()]
            found["pinball"] = np.mean(losses)
        else:
            notes.append("pinball has no value: no quantiles were predicted.")
        if set(INTERVAL_80) <= set(self.scores.quantiles):
            found["coverage_80"] = self._inside(*INTERVAL_80).mean()
        else:
            notes.append("coverage_80 has no value: the quantiles 0.1 and 0.9 were not predicted.")
        return {name: float(found[name]) for name in METRICS["regression"] if name in found}, notes

    def weighted(self, metric: str) -> Weighted:
        """Return a metric as a function of how often each row counts.

        Args:
            metric: Its name, one of those that `metrics` returned.
        """
        error = self._truth - self.scores.points
        if metric == "rmse":
            squares = error**2
            return lambda counts: math.sqrt(mean(counts, squares))
        if metric == "r2":
            return self._weighted_r2(error**2)
        values = np.abs(error) if metric == "mae" else self._pinball()
        return lambda counts: mean(counts, values)

    def _weighted_r2(self, squares: Any) -> Weighted:
        truth = self._truth

        def r2(counts: Any) -> float:
            spread = mean(counts, (truth - mean(counts, truth)) ** 2)
            return 1 - mean(counts, squares) / spread if spread else math.nan

        return r2

    def _pinball(self) -> Any:
        total = np.zeros(self.rows)
        for alpha, predicted in self.scores.quantiles.items():
            error = self._truth - predicted
            total += np.maximum(alpha * error, (alpha - 1) * error)
        return total / len(self.scores.quantiles)

    def _inside(self, low: float, high: float) -> Any:
        below, above = self.scores.quantiles[low], self.scores.quantiles[high]
        return ((below <= self._truth) & (self._truth <= above)).astype(np.float64)

    def curves(self) -> dict[str, Curve]:
        """Return residuals, predictions against truth for some rows, and the coverage of each predicted interval."""
        residuals = self._truth - self.scores.points
        counts, edges = np.histogram(residuals, bins=_BINS, range=_reach(residuals))
        found: dict[str, Curve] = {
            "residuals": tuple(zip(edges[:-1].tolist(), edges[1:].tolist(), counts.astype(float).tolist(), strict=True))
        }
        shown = np.arange(self.rows)
        if self.rows > _SCATTER_POINTS:
            random = np.random.default_rng((self._seed, _STREAM))
            shown = np.sort(random.choice(self.rows, _SCATTER_POINTS, replace=False))
        pairs = zip(self._truth[shown].tolist(), self.scores.points[shown].tolist(), strict=True)
        found["predicted_actual"] = tuple(pairs)
        intervals = ((low, _partner(self.scores, low)) for low in self.scores.quantiles if low < 0.5)
        coverage = [
            (round(high - low, 9), float(self._inside(low, high).mean())) for low, high in intervals if high is not None
        ]
        if coverage:
            found["coverage"] = tuple(sorted(coverage))
        return found


def _partner(scores: Numbers, low: float) -> float | None:
    """Find the quantile that makes a symmetric interval with one below the median (1 - 0.1 is not quite 0.9)."""
    return next((high for high in scores.quantiles if abs(high - (1 - low)) < 1e-9), None)


def _reach(values: Any) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    margin = max(abs(low), abs(high), 1.0) * 1e-6
    return (low, high) if high - low > margin else (low - margin, high + margin)
