"""Row groups in bounded memory: columns in turns, batches that wait in memory and on disk."""

import random
import tempfile
from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tabpfn_operators.errors import InvalidInputError
from tabpfn_operators.parquet import read_footer
from tabpfn_operators.spool import Spool
from tabpfn_operators.storage import look_up
from tabpfn_operators.tables import _rowgroups as rowgroups
from tabpfn_operators.tables._shelf import Shelf

ROWS = 3000


def table():
    rng = np.random.default_rng(5)
    columns = {f"x{i}": rng.random(ROWS).round(i % 4 + 1) for i in range(40)}
    columns["kind"] = pd.Categorical(rng.choice(["a", "b", None], ROWS), categories=["b", "a", "never"])
    columns["text"] = pa.array([f"text {n % 99}" if n % 7 else None for n in range(ROWS)])
    columns["a.b"] = rng.integers(0, 9, ROWS)
    columns["nested"] = pa.array([{"b": n, "c": [n]} for n in range(ROWS)])
    return pa.table(columns)


TABLE = table()


def read(path, columns, batch_rows=170, groups=None):
    with path.open("rb") as file:
        found = list(rowgroups.read_row_groups(file, columns, batch_rows, groups))
    assert all(0 < batch.num_rows <= batch_rows for batch in found)
    return pa.Table.from_batches(found)


@pytest.mark.parametrize("row_group_size", [ROWS, 1000, 37])
@pytest.mark.parametrize(
    ("open_bytes", "held_bytes"), [(1 << 30, 0), (100_000, 1 << 30), (100_000, 20_000), (100_000, 0), (1, 0)]
)
def test_rows_are_the_same_however_little_may_be_held(tmp_path, monkeypatch, open_bytes, held_bytes, row_group_size):
    monkeypatch.setattr(rowgroups, "OPEN_BYTES", open_bytes)
    monkeypatch.setattr(rowgroups, "HELD_BYTES", held_bytes)
    path = tmp_path / "rows.parquet"
    columns = random.Random(open_bytes + row_group_size).sample(TABLE.column_names, 25)
    pq.write_table(TABLE, path, row_group_size=row_group_size)
    assert read(path, columns).equals(pq.read_table(path).select(columns))


def test_some_row_groups_in_the_order_asked_for(tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(TABLE, path, row_group_size=1000)
    assert read(path, ["x3"], groups=[2, 0]).equals(
        pa.concat_tables([TABLE.select(["x3"]).slice(2000), TABLE.select(["x3"]).slice(0, 1000)])
    )


def test_no_more_columns_are_open_than_the_bound_allows(tmp_path, monkeypatch):
    monkeypatch.setattr(rowgroups, "OPEN_BYTES", 100_000)
    asked = []
    real = rowgroups._decoded

    def noted(file, metadata, groups, columns, rows, costs):
        asked.append((groups, sum(costs[name] for name in columns), len(columns)))
        yield from real(file, metadata, groups, columns, rows, costs)

    monkeypatch.setattr(rowgroups, "_decoded", noted)
    path = tmp_path / "rows.parquet"
    pq.write_table(TABLE, path)
    read(path, TABLE.column_names)
    assert len(asked) > 5
    assert all(cost <= 100_000 or count == 1 for _, cost, count in asked)
    asked.clear()
    pq.write_table(TABLE.select(["x1"]), path, row_group_size=10)
    read(path, ["x1"])
    assert len(asked) < ROWS / 100  # small row groups are read together
    assert [group for groups, _, _ in asked for group in groups] == list(range(ROWS // 10))


def test_neighbouring_columns_are_fetched_together(tmp_path, monkeypatch):
    fs = MemoryFileSystem()
    ranges = []
    content = tmp_path / "rows.parquet"
    pq.write_table(TABLE.drop_columns(["nested"]), content, row_group_size=1000)
    fs.pipe_file("/rows.parquet", content.read_bytes())
    source = read_footer(look_up("memory://rows.parquet", None))
    real = rowgroups.read_row_groups

    class Noted:
        closed = False

        def __init__(self, file):
            self.file = file

        def read(self, size=-1):
            ranges.append((self.file.tell(), size))
            return self.file.read(size)

        def __getattr__(self, name):
            return getattr(self.file, name)

    monkeypatch.setattr(rowgroups, "read_row_groups", lambda file, *args: real(Noted(file), *args))
    try:
        assert sum(batch.num_rows for batch in source.batches(source.names)) == ROWS
    finally:
        fs.rm_file("/rows.parquet")
    assert len(ranges) < 10  # and not one for each of 129 chunks
    assert sum(size for _, size in ranges) < 1.2 * source.size


@pytest.mark.parametrize("held_bytes", [0, 1000, 1 << 30])
def test_a_shelf_gives_back_what_it_took(held_bytes):
    batches = TABLE.to_batches(max_chunksize=300)
    with Shelf(held_bytes) as shelf:
        places = [shelf.put(batch) for batch in batches]
        assert [shelf.look(place) for place in places] == batches
        assert [shelf.take(place) for place in reversed(places)] == batches[::-1]


def test_a_full_temporary_folder_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(rowgroups, "OPEN_BYTES", 1)
    monkeypatch.setattr(rowgroups, "HELD_BYTES", 0)
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: open("/dev/full", "w+b", buffering=0))  # noqa: SIM115
    pq.write_table(TABLE.drop_columns(["nested"]), tmp_path / "rows.parquet")
    source = read_footer(look_up(str(tmp_path / "rows.parquet"), None))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    with pytest.raises(InvalidInputError, match="set TMPDIR to a larger disk"), Spool(source, source.names) as spool:
        list(spool.write())
    assert list((tmp_path / "tmp").iterdir()) == []


def test_nothing_is_left_when_reading_stops_early(tmp_path, monkeypatch):
    monkeypatch.setattr(rowgroups, "OPEN_BYTES", 1)
    monkeypatch.setattr(rowgroups, "HELD_BYTES", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    pq.write_table(TABLE, tmp_path / "rows.parquet")
    source = read_footer(look_up(str(tmp_path / "rows.parquet"), None))
    reading = source.batches(["x1", "x2"])
    assert next(reading).num_rows
    reading.close()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_runs_cover_all_row_groups_once(tmp_path, monkeypatch):
    monkeypatch.setattr(rowgroups, "OPEN_BYTES", 60_000)
    path = tmp_path / "rows.parquet"
    with pq.ParquetWriter(path, TABLE.schema) as writer:
        for size in (0, 10, 1000, 5, 0, 700, 1, 1, 0):
            writer.write_table(TABLE.slice(0, size))
    metadata = pq.read_metadata(path)
    runs = [run for run, _ in rowgroups._runs(metadata, range(metadata.num_row_groups), ["x1", "text"])]
    seen = [group for run in runs for group in run]
    assert all(one < other for one, other in pairwise(seen))
    assert [group for group in range(metadata.num_row_groups) if metadata.row_group(group).num_rows] == seen
