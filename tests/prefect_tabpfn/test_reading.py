"""Filters, casts and recompression of the tasks: they reach the core from both twins."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import prefect_tabpfn
from tabpfn_assets import FittedModel
from tabpfn_emulator.testing import account_of
from tabpfn_operators import errors

SOME = [["other", ">", 2]]


@pytest.fixture(params=["sync", "async"])
def upload(request, run_async) -> Callable[..., Any]:
    if request.param == "sync":
        return prefect_tabpfn.upload_train_set
    return partial(run_async, prefect_tabpfn.aupload_train_set)


@pytest.fixture(params=["sync", "async"])
def score(request, run_async) -> Callable[..., Any]:
    return prefect_tabpfn.predict if request.param == "sync" else partial(run_async, prefect_tabpfn.apredict)


@pytest.fixture
def model(classification, token) -> FittedModel:
    train_set = prefect_tabpfn.upload_train_set(classification.train, classification.target)
    return prefect_tabpfn.wait_for_fit(prefect_tabpfn.submit_fit(train_set))


@pytest.mark.parametrize("filters", [SOME, '[["other", ">", 2]]', pc.field("other") > 2], ids=["list", "text", "arrow"])
def test_a_filter_reaches_the_fit(upload, classification, token, control, filters):
    kept = pq.read_table(classification.train, filters=SOME).num_rows
    assert 0 < kept < classification.rows_trained

    train_set = upload(classification.train, classification.target, exclude=["other"], filters=filters)
    fitted = prefect_tabpfn.wait_for_fit(prefect_tabpfn.submit_fit(train_set))

    (seen,) = control.fits(account=account_of(token))
    assert fitted.rows == seen["train_rows"] == kept
    assert fitted.feature_names == ("x",)


def test_a_filter_reaches_the_prediction(score, classification, model):
    kept = pq.read_table(classification.score, filters=SOME).num_rows
    assert 0 < kept < classification.rows_scored

    scored = score(model, classification.score, classification.destination, filters=SOME)

    assert scored.rows == pq.read_metadata(scored.uri).num_rows == kept


def test_casts_reach_the_train_set(upload, classification, token):
    casts = {"other": "string"}

    train_set = upload(classification.train, classification.target, casts=casts, recompress=("zstd", 3))

    assert {feature.name: feature.dtype for feature in train_set.features} == {"x": "double", "other": "string"}


UNREADABLE = pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"filters": '[["absent", ">", 0]]'}, "filter names column 'absent'"),
        ({"casts": {"other": "integer-ish"}}, "'integer-ish'"),
        ({"recompress": ("lzma", 1)}, "recompress is a codec"),
    ],
)


@UNREADABLE
def test_a_train_set_that_cannot_be_read_so_is_not_sent(upload, classification, token, control, changes, text):
    with pytest.raises(errors.InvalidInputError, match=text) as refused:
        upload(classification.train, classification.target, **changes)
    assert refused.value.terminal
    assert control.journal(route="/tabpfn/prepare_train_set_upload", account=account_of(token)) == []


@UNREADABLE
def test_a_test_set_that_cannot_be_read_so_is_not_sent(score, classification, model, token, control, changes, text):
    with pytest.raises(errors.InvalidInputError, match=text) as refused:
        score(model, classification.score, classification.destination, **changes)
    assert refused.value.terminal
    assert control.journal(route="/tabpfn/prepare_test_set_upload", account=account_of(token)) == []
