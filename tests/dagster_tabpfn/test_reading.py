"""Filters, casts and recompression of the two assets: they reach the core, and what cannot be read so fails once."""

from pathlib import Path

import dagster as dg
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tabpfn_assets import FittedModel
from tabpfn_emulator.testing import account_of

POLICY = dg.RetryPolicy(max_retries=2, delay=0)
SOME = [("mean radius", ">", 14.0)]


def model_of(result):
    (event,) = result.asset_materializations_for_node("model")
    return FittedModel.model_validate(event.metadata["tabpfn/model"].value)


def kept(path):
    count = pq.read_table(path, filters=SOME).num_rows
    assert 0 < count < pq.read_metadata(path).num_rows
    return count


@pytest.mark.parametrize(
    "filters", [SOME, '[["mean radius", ">", 14.0]]', pc.field("mean radius") > 14.0], ids=["list", "text", "arrow"]
)
def test_a_filter_reaches_the_fit_and_the_prediction(build, datasets, instance, control, token, filters):
    data = datasets["classification"]
    pipeline = build(fit={"filters": filters, "exclude": ["mean radius"]}, predict={"filters": filters})

    result = pipeline.materialize(instance)

    assert result.success
    model = model_of(result)
    (seen,) = control.fits(account=account_of(token))
    assert model.rows == seen["train_rows"] == kept(data.train)
    assert "mean radius" not in model.feature_names
    assert pq.read_metadata(Path(pipeline.destination) / "predictions.parquet").num_rows == kept(data.score)


def test_casts_reach_the_fit_and_the_prediction(build, instance):
    changes = {"casts": {"mean radius": "string"}, "recompress": ("zstd", 3)}

    result = build(fit=changes, predict=changes).materialize(instance)

    assert result.success
    assert {feature.name: feature.dtype for feature in model_of(result).features}["mean radius"] == "string"


@pytest.mark.parametrize("node", ["model", "scores"])
@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"filters": '[["absent", ">", 0]]'}, "filter names column 'absent'"),
        ({"casts": {"mean radius": "integer-ish"}}, "'integer-ish'"),
        ({"recompress": ("lzma", 1)}, "recompress is a codec"),
    ],
)
def test_what_cannot_be_read_so_is_not_tried_again(build, instance, failure_of, node, changes, text):
    asset = {"model": "fit", "scores": "predict"}[node]

    result = build(**{asset: {**changes, "retry_policy": POLICY}}).materialize(instance)

    failure, tries = failure_of(result)
    assert tries == 1
    assert not result.asset_materializations_for_node(node)
    assert text in failure.user_failure_data.description
    assert failure.user_failure_data.metadata["tabpfn/error"].value == "InvalidInputError"
