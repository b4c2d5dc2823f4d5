"""Parts without a server: limits, prices, encodings."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tabpfn_emulator._books.limits import MODEL_VERSIONS, price, version_of
from tabpfn_emulator._learning.encoding import choose_encoder

settings.register_profile("emulator", derandomize=True, deadline=None)
settings.load_profile("emulator")


@pytest.mark.parametrize(
    ("model_path", "version"),
    [
        (None, "v3"),
        ("auto", "v3"),
        ("v3.5_default", "v3.5"),
        ("v3.5-fast_default", "v3.5-fast"),
        ("v3_default", "v3"),
        ("v2.5_real-variant", "v2.5"),
        ("v2.6_default", "v2.6"),
        ("v2_default", "v2"),
        ("tabpfn-v3-classifier-v3_default.ckpt", "v3"),
        ("weights/tabpfn-v2.5-regressor-v2.5_real.ckpt", "v2.5"),
        ("tabpfn-v3.5-fast-classifier.ckpt", "v3.5-fast"),
        ("v2.5", "v2.5"),
        ("gn2p4bpt", "v2"),
        ("2noar4o2", "v2"),
        ("tabpfn-v2-classifier-gn2p4bpt.ckpt", "v2"),
        ("v4_default", "v2"),
        ("v2.7_default", "v2"),
        ("v30_default", "v2"),
    ],
)
def test_versions_are_told_apart_exactly(model_path, version):
    assert version_of(model_path) == version


@given(
    st.integers(1, 10**6),
    st.integers(0, 10**5),
    st.integers(1, 2000),
    st.integers(1, 8),
    st.sampled_from(MODEL_VERSIONS),
)
def test_prices_have_a_minimum_and_never_fall_with_size(train_rows, test_rows, columns, n_estimators, version):
    def cost(operation="predict", more_rows=0, effort=None):
        return price(operation, train_rows, test_rows + more_rows, columns, n_estimators, version, effort)

    assert cost() >= (5_000 if version.startswith("v2") else 10_000)
    assert cost(more_rows=1000) >= cost()
    assert cost("cache_predict") <= cost()
    assert cost("thinking_fit", effort="high") > cost("thinking_fit", effort="medium") > cost()


@pytest.mark.parametrize(
    ("version", "plain", "cached"),
    [("v3", 126_491, 40_000), ("v2.5", 160_000_000, 16_000_000)],
)
def test_a_hit_of_the_cache_is_cheaper(version, plain, cached):
    shape = {"train_rows": 90_000, "test_rows": 10_000, "columns": 200, "n_estimators": 8}
    assert price("predict", **shape, version=version, effort=None) == plain
    assert price("cache_predict", **shape, version=version, effort=None) == cached


cells = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=6),
    st.dates(),
    st.datetimes(),
    st.decimals(allow_nan=False),
    st.binary(max_size=3),
    st.lists(st.integers(), max_size=2),
)


@given(st.lists(cells, min_size=1, max_size=30), st.lists(cells, min_size=1, max_size=30))
def test_whatever_a_column_holds_it_becomes_finite_or_missing_numbers(train, test):
    encoder = choose_encoder(pd.Series(train, dtype=object))
    fitted = encoder.encode(pd.Series(train, dtype=object))
    later = encoder.encode(pd.Series(test, dtype=object))
    assert fitted.shape == (len(train), later.shape[1])
    for encoded in (fitted, later):
        assert not np.isinf(encoded.astype(np.float32)).any()
