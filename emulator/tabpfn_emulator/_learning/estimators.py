"""What has been learnt, behind one face: the stand-ins, and the constant predictions for benchmarks."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tabpfn_emulator._learning.forest import Forest, grow

DEFAULT_QUANTILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
BARS = 100
"""Bars of a `full` output."""

_SMALL_ROWS = 2_000
_TREES_SMALL, _TREES_LARGE = 12, 40
_RESIDUALS = 201
_FLAT = 1e-9


class Estimator(Protocol):
    """A fitted model of either task."""

    def outputs(self, features: np.ndarray, output_type: str, quantiles: tuple[float, ...], /) -> dict[str, np.ndarray]:
        """Predict.

        Args:
            features: float32, shape (rows, features); NaN is missing.
            output_type: `probas` for classes; `mean`, `median`, `mode`, `quantiles`, `main` or `full` for numbers.
            quantiles: Levels from 0 to 1.

        Returns:
            Of `probas` (rows, classes in sorted order), `mean`, `median`, `mode` (rows), `quantiles` (levels, rows),
            `logits` (rows, bars) and `borders` (bars + 1) at least those of the output type.
        """


@dataclass(frozen=True)
class ClassForest:
    """A classifier: the mean of the trees' class shares."""

    forest: Forest

    def outputs(self, features: np.ndarray, /, *_: object) -> dict[str, np.ndarray]:
        """Return `probas`."""
        return {"probas": self.forest.predict(features)}


@dataclass(frozen=True)
class Spread:
    """A distribution around a point, the same around every point.

    Attributes:
        residuals: Sorted offsets, with mean 0: the point is the expectation.
        borders: The `BARS + 1` borders of `full` outputs; no point plus offset lies outside.
    """

    residuals: np.ndarray
    borders: np.ndarray

    def outputs(self, mean: np.ndarray, output_type: str, quantiles: tuple[float, ...]) -> dict[str, np.ndarray]:
        """Return what an output type asks for; all of it describes the same distribution.

        Args:
            mean: The points, shape (rows,).
            output_type: As for `Estimator.outputs`.
            quantiles: Levels from 0 to 1.
        """
        answer = {
            "mean": mean,
            "median": mean + np.quantile(self.residuals, 0.5),
            "mode": mean + _peak(self.residuals),
            "quantiles": np.quantile(self.residuals, quantiles)[:, None] + mean[None, :],
        }
        if output_type == "full":
            answer |= {"logits": self._logits(mean), "borders": self.borders}
        return answer

    def _logits(self, mean: np.ndarray) -> np.ndarray:
        samples = mean[:, None] + self.residuals[None, :]
        bars = np.clip(np.searchsorted(self.borders, samples, side="right") - 1, 0, BARS - 1)
        rows = np.arange(len(mean))[:, None] * BARS
        counts = np.bincount((rows + bars).ravel(), minlength=len(mean) * BARS).reshape(len(mean), BARS)
        with np.errstate(divide="ignore"):
            logits: np.ndarray = np.log(counts / samples.shape[1])
        return logits


@dataclass(frozen=True)
class NumberForest:
    """A regressor: the mean of the trees, and the errors that trees made on rows they had not seen.

    Attributes:
        forest: Grown on the target in units of `scale` around `centre`.
        centre: The target's mean.
        scale: The target's largest absolute value; 1 when that is 0.
        spread: The errors.
    """

    forest: Forest
    centre: float
    scale: float
    spread: Spread

    def outputs(self, features: np.ndarray, output_type: str, quantiles: tuple[float, ...]) -> dict[str, np.ndarray]:
        """Return what an output type asks for."""
        mean = self.forest.predict(features)[:, 0] * self.scale + self.centre
        return self.spread.outputs(mean, output_type, quantiles)


@dataclass(frozen=True)
class ConstantClasses:
    """The class shares of the train set for every row, whatever its columns hold."""

    shares: np.ndarray

    def outputs(self, features: np.ndarray, /, *_: object) -> dict[str, np.ndarray]:
        """Return `probas`."""
        return {"probas": np.tile(self.shares, (len(features), 1))}


@dataclass(frozen=True)
class ConstantNumber:
    """The target's own distribution for every row, whatever its columns hold."""

    mean: float
    spread: Spread

    def outputs(self, features: np.ndarray, output_type: str, quantiles: tuple[float, ...]) -> dict[str, np.ndarray]:
        """Return what an output type asks for."""
        return self.spread.outputs(np.full(len(features), self.mean), output_type, quantiles)


def constant_classes(codes: np.ndarray, classes: int) -> ConstantClasses:
    """Return the constant classifier.

    Args:
        codes: Class numbers from 0, one per row.
        classes: How many classes there are.
    """
    return ConstantClasses(np.bincount(codes, minlength=classes) / len(codes))


def constant_number(values: np.ndarray) -> ConstantNumber:
    """Return the constant regressor.

    Args:
        values: The target, one finite number per row.
    """
    mean = float(values.mean())
    return ConstantNumber(mean, _spread(values - mean, float(values.min()), float(values.max())))


def grow_classes(
    features: np.ndarray, codes: np.ndarray, classes: int, *, balanced: bool, effort: int, seed: int
) -> ClassForest:
    """Grow a classifier.

    Args:
        features: float32, shape (rows, features); NaN is missing.
        codes: Class numbers from 0, one per row.
        classes: How many classes there are; some may not be in `codes`.
        balanced: Whether the trees see all classes equally often.
        effort: How many times the usual number of trees, 1 or more.
        seed: 0 or more.
    """
    outputs = np.zeros((len(codes), classes))
    outputs[np.arange(len(codes)), codes] = 1.0
    forest, _ = grow(
        features,
        outputs,
        trees=_trees(len(codes), effort),
        max_features=max(1, round(features.shape[1] ** 0.5)),
        min_samples_leaf=1,
        weights=1 / np.bincount(codes)[codes] if balanced else None,
        seed=seed,
    )
    return ClassForest(forest)


def grow_number(features: np.ndarray, values: np.ndarray, *, effort: int, seed: int) -> NumberForest:
    """Grow a regressor.

    Args:
        features: float32, shape (rows, features); NaN is missing.
        values: The target, one finite number per row.
        effort: How many times the usual number of trees, 1 or more.
        seed: 0 or more.
    """
    centre, scale = float(values.mean()), float(np.abs(values).max()) or 1.0
    outputs = ((values - centre) / scale)[:, None]
    forest, unseen = grow(
        features,
        outputs,
        trees=_trees(len(values), effort),
        max_features=max(1, round(features.shape[1] / 2)),
        min_samples_leaf=2,
        weights=None,
        seed=seed,
    )
    errors = (outputs - unseen)[:, 0]
    errors = errors[~np.isnan(errors)] * scale
    spread = _spread(errors if len(errors) else np.zeros(1), float(values.min()), float(values.max()))
    return NumberForest(forest, centre, scale, spread)


def _trees(rows: int, effort: int) -> int:
    return effort * (_TREES_SMALL if rows <= _SMALL_ROWS else _TREES_LARGE)


def _spread(errors: np.ndarray, low: float, high: float) -> Spread:
    residuals = np.quantile(errors, np.linspace(0, 1, _RESIDUALS))
    residuals = residuals - residuals.mean()
    low, high = low + residuals[0], high + residuals[-1]
    size = max(abs(low), abs(high))
    # Borders must differ in floating point, also around a target that hardly does.
    margin = 0.01 * (high - low) if high - low > max(_FLAT * size, 1e-290) else max(1.0, size)
    return Spread(residuals, np.linspace(low - margin, high + margin, BARS + 1))


def _peak(residuals: np.ndarray) -> float:
    # The mode of a sample: the middle of the shortest stretch that holds a fifth of it.
    width = max(1, len(residuals) // 5)
    start = int(np.argmin(residuals[width:] - residuals[:-width]))
    return float((residuals[start] + residuals[start + width]) / 2)
