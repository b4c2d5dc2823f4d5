"""What batch scoring takes its rows from: files, folders, tables in memory, filters, row groups of any size."""

import contextlib
import math
import tempfile
from itertools import pairwise

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pv
import pyarrow.parquet as pq
import pytest

from tabpfn_assets import ScoringManifest
from tabpfn_operators import Client
from tabpfn_operators.errors import SourceChangedError, TabPFNError


@pytest.fixture
def client(emulator, bearer):
    """One kind of client, for time."""
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


@pytest.fixture
def keyed(regression):
    """The rows of `regression.score` with a key, a column that no model knows."""
    return pq.read_table(regression.score).append_column("row", pa.array(range(25)))


def scores(folder):
    return pq.read_table(folder)


def shards(folder):
    return ScoringManifest.model_validate_json((folder / "_manifest.json").read_bytes()).shards


def as_csv(table, tmp_path):
    pv.write_csv(table, tmp_path / "rows.csv")
    return str(tmp_path / "rows.csv"), {}


def as_frame(table, tmp_path):
    return table.to_pandas(), {}


def as_arrow(table, tmp_path):
    return table, {}


def as_folder(table, tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    for number, (start, stop) in enumerate(pairwise((0, 3, 14, 15, table.num_rows))):
        pq.write_table(table.slice(start, stop - start), folder / f"part-{number}.parquet", row_group_size=4)
    return str(folder), {}


def as_days(table, tmp_path):
    for day, rows in (("1", table.slice(0, 11)), ("2", table.slice(11))):
        (tmp_path / "days" / f"day={day}").mkdir(parents=True)
        pq.write_table(rows, tmp_path / "days" / f"day={day}" / "rows.parquet", row_group_size=5)
    return str(tmp_path / "days"), {"keep": ["day", "row"]}


def as_filtered(table, tmp_path):
    more = pa.concat_tables([table, table]).append_column("wanted", pa.array([1] * 25 + [0] * 25))
    pq.write_table(more, tmp_path / "more.parquet", row_group_size=7)
    return str(tmp_path / "more.parquet"), {"filters": [("wanted", "=", 1)], "allow_extra": True}


def as_large_groups(table, tmp_path):
    with pq.ParquetWriter(tmp_path / "groups.parquet", table.schema) as writer:
        for start, rows in ((0, 2), (2, 19), (21, 4)):
            writer.write_table(table.slice(start, rows), row_group_size=rows)
    return str(tmp_path / "groups.parquet"), {}


@pytest.mark.parametrize("make", [as_csv, as_frame, as_arrow, as_folder, as_days, as_filtered, as_large_groups])
def test_sources(client, fit_once, regression, tmp_path, out, whole, keyed, make):
    source, options = make(keyed, tmp_path)
    options = {"keep": ["row"], "rows_per_shard": 6, **options}
    model = fit_once(regression)
    record = client.score(model, source, str(out), **options)
    found = scores(out)
    assert found["row"].to_pylist() == list(range(25))
    assert found["prediction"].to_pylist() == whole(model, regression.score)["prediction"].to_pylist()
    if "day" in options["keep"]:
        assert [str(day) for day in found["day"].to_pylist()] == ["1"] * 11 + ["2"] * 14
    assert 4 < record.shards == len(shards(out)) < 9
    assert all(shard.rows <= 6 for shard in shards(out))
    assert client.score(model, source, str(out), **options) == record


class Rewrite:
    """Write the source again, backwards, when the second shard is begun; a progress callback."""

    def __init__(self, path):
        self._path = path
        self._begun = set()

    def __call__(self, told):
        if told.step != "prepare" or told.shard in self._begun:
            return
        self._begun.add(told.shard)
        if len(self._begun) == 2:
            rows = pq.read_table(self._path)
            pq.write_table(rows.take(pa.array(range(24, -1, -1))), self._path, row_group_size=5, compression="gzip")


def test_rows_that_are_moved_as_bytes_have_to_stay(client, fit_once, regression, write, out, keyed, journal):
    source = write(keyed, "moved.parquet")
    pq.write_table(keyed, source, row_group_size=5)
    options = {"keep": ["row"], "rows_per_shard": 5, "concurrency": 1}
    model = fit_once(regression)
    with pytest.raises(SourceChangedError, match=r"changed while it was read.*1 of 5 shards are done and kept"):
        client.score(model, source, str(out), progress=Rewrite(source), **options)
    assert journal.posts("/tabpfn/predict") == 1
    client.score(model, source, str(out), **options)
    assert scores(out)["row"].to_pylist() == list(range(24, -1, -1))
    assert len(list(out.glob("part-*"))) == 5


def test_rows_that_were_copied_are_those_of_the_plan(client, fit_once, regression, write, out, keyed, whole):
    source = write(keyed, "copied.parquet")
    model = fit_once(regression)
    reference = whole(model, regression.score)["prediction"]
    progress = Rewrite(source)
    client.score(model, source, str(out), keep=["row"], rows_per_shard=5, concurrency=1, progress=progress)
    assert scores(out)["row"].to_pylist() == list(range(25))
    assert scores(out)["prediction"].to_pylist() == reference.to_pylist()


@pytest.mark.parametrize("fault", [None, "quota", "drop"])
def test_no_temporary_file_is_left(connect, fit_once, regression, tmp_path, out, keyed, control, monkeypatch, fault):
    source, _ = as_csv(keyed, tmp_path)
    model = fit_once(regression)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    if fault is not None:
        control.inject(kind=fault, route="/tabpfn/predict", skip=1, times=None)
    options = {"keep": ["row"], "rows_per_shard": 6, "concurrency": 2, "on_unknown": "raise"}
    with contextlib.nullcontext() if fault is None else pytest.raises(TabPFNError):
        connect().score(model, source, str(out), **options)
    assert list((tmp_path / "temporary").iterdir()) == []
    assert 0 < len(list(out.glob("part-*"))) <= 5


def test_a_server_that_tells_neither_limits_nor_prices(client, fit_once, regression, out, control, caplog):
    model = fit_once(regression)
    control.configure(get_settings=False)
    control.inject(kind="status", status=404, route="/tabpfn/estimate_cost", times=None)
    control.inject(kind="drop", when="after", route="/tabpfn/predict")
    record = client.score(model, regression.score, str(out))
    assert (record.shards, record.estimated_cost, record.resends) == (1, None, 1)
    assert "was sent at a price that nobody knows, and nobody knows what came of it; it is sent again" in caplog.text


def test_casts(client, fit_once, regression, write, out, whole):
    table = pq.read_table(regression.score)
    text = write(table.set_column(1, "other", table["other"].cast(pa.string())), "text.parquet")
    model = fit_once(regression)
    client.score(model, text, str(out), rows_per_shard=10, casts={"other": "int64"})
    assert scores(out).equals(whole(model, regression.score))


def test_more_workers_than_shards_and_more_shards_than_workers(client, fit_once, regression, tmp_path, whole):
    model = fit_once(regression)
    reference = whole(model, regression.score)
    for rows, concurrency in ((25, 8), (1, 8), (2, 1)):
        folder = tmp_path / f"out-{rows}"
        record = client.score(model, regression.score, str(folder), rows_per_shard=rows, concurrency=concurrency)
        assert record.shards == math.ceil(25 / rows)
        assert scores(folder).equals(reference)


def test_frames_have_an_index_that_is_not_sent(client, fit_once, regression, out, whole):
    frame = pq.read_table(regression.score).to_pandas()
    frame.index = pd.Index([f"row {i}" for i in range(25)], name="key")
    model = fit_once(regression)
    client.score(model, frame, str(out), rows_per_shard=10)
    assert scores(out)["prediction"].to_pylist() == whole(model, regression.score)["prediction"].to_pylist()
