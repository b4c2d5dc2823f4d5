"""The bootstrap: seeded, around its point, and as wide as theory says."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabpfn_operators.evaluation._bootstrap import bootstrapped, interval_of, resampled


def mean_of(values):
    return lambda counts: float(counts @ values / counts.sum())


def interval(metric, rows, *, seed, resamples):
    return interval_of(bootstrapped([metric], rows, seed=seed, resamples=resamples)[:, 0])


def test_a_resample_draws_as_many_rows_as_there_are():
    draws = list(resampled(50, seed=3, resamples=20))
    assert {draw.sum() for draw in draws} == {50.0}
    assert len({draw.tobytes() for draw in draws}) == 20


@given(st.floats(-1e6, 1e6), st.integers(1, 300), st.integers(0, 2**63))
def test_the_interval_of_a_constant_is_the_constant(value, rows, seed):
    found = interval(mean_of(np.full(rows, value)), rows, seed=seed, resamples=20)
    assert (found.low, found.high) == pytest.approx((value, value))


@given(st.integers(0, 2**63), st.integers(1, 100))
def test_one_seed_gives_one_interval(seed, rows):
    metric = mean_of(np.random.default_rng(1).normal(size=rows))
    first, again = (interval(metric, rows, seed=seed, resamples=30) for _ in range(2))
    assert first == again
    assert first.low <= first.high


def test_another_seed_gives_another_interval():
    metric = mean_of(np.random.default_rng(1).normal(size=200))
    assert interval(metric, 200, seed=1, resamples=100) != interval(metric, 200, seed=2, resamples=100)


def test_it_is_as_wide_as_the_normal_approximation():
    values = np.random.default_rng(5).normal(size=4000)
    found = interval(mean_of(values), 4000, seed=0, resamples=1000)
    half = 1.96 * values.std() / np.sqrt(4000)
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=half * 0.15)
    assert (found.level, found.resamples) == (0.95, 1000)


def test_a_resample_without_a_value_is_left_out():
    def only_with_the_first(counts):
        return 1.0 if counts[0] else float("nan")

    found = interval(only_with_the_first, 3, seed=0, resamples=100)
    assert (found.low, found.high) == (1.0, 1.0)
    assert 0 < found.resamples < 100
    assert interval(lambda counts: float("nan"), 3, seed=0, resamples=10) is None


def test_metrics_are_computed_on_the_same_rows():
    values = np.random.default_rng(1).normal(size=40)
    drawn = bootstrapped([mean_of(values), mean_of(values + 1)], 40, seed=0, resamples=50)
    assert drawn.shape == (50, 2)
    assert drawn[:, 1] - drawn[:, 0] == pytest.approx(np.ones(50))


def test_memory_is_that_of_one_resample():
    rows = 200_000
    metric = mean_of(np.random.default_rng(1).normal(size=rows))
    tracemalloc.start()
    interval(metric, rows, seed=0, resamples=20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * rows * 8
