"""Bootstrap intervals: rows are drawn with replacement, one resample in memory at a time."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from tabpfn_assets import Interval

#: A metric as a function of how often each row counts: float64 of shape (rows,).
Weighted: TypeAlias = Callable[[Any], float]

LEVEL = 0.95
#: Keeps the draws of the bootstrap apart from those of the sample, which uses the seed alone.
_STREAM = 1


def mean(counts: Any, values: Any) -> float:
    """Return the mean of values that count so often; not by BLAS, whose sums depend on how many threads it takes.

    Args:
        counts: How often each row counts.
        values: A number for each row.
    """
    return float(np.einsum("i,i->", counts, values) / counts.sum())


def resampled(rows: int, *, seed: int, resamples: int) -> Iterator[Any]:
    """Draw resamples as counts.

    Args:
        rows: Rows, at least 1.
        seed: Seed, not negative; equal seeds draw equal rows.
        resamples: How many.

    Yields:
        How often each row was drawn, float64 of shape (rows,), summing to `rows`.
    """
    random = np.random.default_rng((seed, _STREAM))
    for _ in range(resamples):
        yield np.bincount(random.integers(0, rows, rows), minlength=rows).astype(np.float64)


def bootstrapped(metrics: Sequence[Weighted], rows: int, *, seed: int, resamples: int) -> Any:
    """Compute metrics on resamples, all on the same rows of each.

    Args:
        metrics: Metrics as functions of how often each row counts.
        rows: Rows.
        seed: Seed of the draws.
        resamples: How many resamples.

    Returns:
        float64 of shape (resamples, metrics); NaN where a metric has no value.
    """
    draws = resampled(rows, seed=seed, resamples=resamples)
    return np.array([[metric(counts) for metric in metrics] for counts in draws])


def interval_of(values: Any) -> Interval | None:
    """Take the middle 95 % of a metric's values on resamples; None where it has a value in none.

    Args:
        values: float64 of shape (resamples,); NaN counts as no resample.
    """
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(low=float(low), high=float(high), level=LEVEL, resamples=len(values))
