"""Bootstrap intervals: rows are drawn with replacement, one resample in memory at a time."""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np

from tabpfn_assets import Interval

#: A metric as a function of how often each row counts: float64 of shape (rows,).
Weighted: TypeAlias = Callable[[Any], float]

LEVEL = 0.95
#: Keeps the draws of the bootstrap apart from those of the sample, which uses the seed alone.
_STREAM = 1


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


def interval(metric: Weighted, rows: int, *, seed: int, resamples: int) -> Interval | None:
    """Compute the percentile interval of a metric.

    Args:
        metric: The metric as a function of how often each row counts.
        rows: Rows.
        seed: Seed of the draws.
        resamples: How many resamples.

    Returns:
        The middle 95 %; None where the metric has no value in any resample.
    """
    values = np.fromiter((metric(counts) for counts in resampled(rows, seed=seed, resamples=resamples)), np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(low=float(low), high=float(high), level=LEVEL, resamples=len(values))
