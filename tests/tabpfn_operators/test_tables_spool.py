"""The spool of any source: few row groups, one schema whatever the path, nothing left behind."""

import json
import resource
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tabpfn_operators import parquet, spool
from tabpfn_operators.errors import InvalidInputError
from tabpfn_operators.splice import splice
from tabpfn_operators.spool import Spool
from tabpfn_operators.storage import look_up
from tabpfn_operators.tables import open_table

RNG = np.random.default_rng(3)
FRAME = pd.DataFrame(
    {
        "n": range(5000),
        "x": RNG.random(5000),
        "kind": pd.Categorical(RNG.choice(["a", "b"], 5000), categories=["b", "a", "never"]),
        "zoned": pd.date_range("2026-11-21", periods=5000, freq="min", tz="Europe/Berlin"),
        "y": RNG.integers(0, 2, 5000),
    }
)


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The temporary folder, to see what is left in it."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture
def path(tmp_path):
    FRAME.to_parquet(tmp_path / "rows.parquet", row_group_size=100)
    return str(tmp_path / "rows.parquet")


def spooled(source, *columns, **options):
    with Spool(source, *columns, **options) as opened:
        rows = list(opened.write())
        assert rows[-1] == opened.rows
        return [(pq.read_table(file.path), pq.read_metadata(file.path), file.size) for file in opened.files()]


def test_rows_that_a_filter_leaves_share_row_groups(temporary, path):
    source = open_table(path, filters=[("n", "not in", list(range(0, 5000, 7)))])
    ((x, metadata, _),) = spooled(source, ["x", "n"])
    expected = FRAME[FRAME["n"] % 7 != 0]
    assert x.column("n").to_pylist() == expected["n"].tolist()
    assert x.column("x").to_pylist() == expected["x"].tolist()
    assert metadata.num_row_groups == 1
    assert list(temporary.iterdir()) == []


def test_a_row_group_is_bounded(monkeypatch, path):
    monkeypatch.setattr(spool, "ROW_GROUP_BYTES", 10_000)
    monkeypatch.setattr(parquet, "BATCH_BYTES", 2_000)
    ((_, metadata, _),) = spooled(open_table(path), ["n"])
    sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    assert sum(sizes) == 5000
    assert len(sizes) > 3
    assert max(sizes) * 8 < 13_000


def test_the_schema_is_that_of_the_plain_path(path):
    columns = ["zoned", "kind", "n"]
    ((plain, _, _),) = spooled(parquet.read_footer(look_up(path, None)), columns)
    ((decoded, _, _),) = spooled(open_table(path, filters=[("n", ">=", 0)]), columns)
    assert decoded.schema.equals(plain.schema, check_metadata=True)
    assert decoded.equals(plain)
    described = json.loads(decoded.schema.metadata[b"pandas"])
    assert [column["name"] for column in described["columns"]] == ["n", "kind", "zoned"]
    pd.testing.assert_frame_equal(decoded.to_pandas(), FRAME[columns])


def test_the_schema_is_that_of_a_splice(path):
    columns = ["zoned", "kind", "n"]
    virtual = splice(path, columns)
    spliced = pq.read_table(pa.BufferReader(virtual.read(0, virtual.size)))
    ((decoded, _, _),) = spooled(open_table(path, filters=[("n", ">=", 0)]), columns)
    assert decoded.schema.equals(spliced.schema, check_metadata=True)
    assert decoded.equals(spliced)


def test_columns_of_the_filter_stay_at_home(path):
    ((x, _, _), (y, _, _)) = spooled(open_table(path, filters=[("n", "<", 50)]), ["x"], ["y"])
    assert (x.column_names, y.column_names) == (["x"], ["y"])
    assert (x.num_rows, y.num_rows) == (50, 50)
    assert "personal" not in str(x.schema.metadata)


def test_recompression(path):
    found = [spooled(open_table(path), ["x", "n"], compression=("zstd", level))[0] for level in (1, 19)]
    assert found[0][0].equals(found[1][0])
    assert found[1][2] < found[0][2]
    assert spooled(open_table(path), ["n"], compression=("snappy", None))[0][1].row_group(0).column(0).compression == (
        "SNAPPY"
    )


def test_a_filter_that_no_row_meets(temporary, path):
    with pytest.raises(InvalidInputError, match="no row is left") as caught:
        spooled(open_table(path, filters=[("n", "<", 0)]), ["x"])
    assert path in str(caught.value)
    assert list(temporary.iterdir()) == []


def test_no_space_is_told_first(temporary, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(total=10, used=0, free=10))
    with pytest.raises(InvalidInputError, match=r"DataFrame is .* bytes and the temporary folder has 10 free"):
        Spool(open_table(FRAME), ["x"]).open()
    assert list(temporary.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_folder_that_is_full(temporary, monkeypatch):
    monkeypatch.setattr(Spool, "_path", lambda self, index: Path("/dev/full"))
    with pytest.raises(InvalidInputError, match=r"takes no more after 0 rows \(No space left on device\); set TMPDIR"):
        spooled(open_table(FRAME), ["x"], ["y"])
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("row_group_bytes", [10_000, 1 << 30])
def test_a_folder_that_fills_on_the_way(temporary, monkeypatch, path, row_group_bytes):
    monkeypatch.setattr(spool, "ROW_GROUP_BYTES", row_group_bytes)
    monkeypatch.setattr(parquet, "BATCH_BYTES", 2_000)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(InvalidInputError, match=r"takes no more after [\d,]+ rows \(File too large\); set TMPDIR"):
            spooled(open_table(path), ["x"], ["y"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("columns", [["x", "mixed"], ["mixed"]])
def test_a_source_that_fails_on_the_way_leaves_nothing(temporary, tmp_path, monkeypatch, columns):
    monkeypatch.setattr("tabpfn_operators.tables._files.BLOCK_BYTES", 4096)
    path = tmp_path / "rows.csv"
    path.write_text("x,mixed\n" + "1,2\n" * 4000 + "1,word\n")
    with pytest.raises(InvalidInputError, match="column 'mixed'"):
        spooled(open_table(str(path)), columns)
    assert list(temporary.iterdir()) == []


def test_a_value_that_a_cast_refuses_leaves_nothing(temporary, path):
    with pytest.raises(InvalidInputError, match="'n'"):
        spooled(open_table(path, casts={"n": "int8"}), ["n"])
    assert list(temporary.iterdir()) == []


def test_dictionaries_that_differ_from_row_group_to_row_group(tmp_path):
    tables = [pa.table({"kind": pa.array(values).dictionary_encode()}) for values in (["a", "b"], ["c"], ["b", None])]
    paths = [str(tmp_path / f"{number}.parquet") for number in range(3)]
    for one, table in zip(paths, tables, strict=True):
        pq.write_table(table, one)
    ((x, _, _),) = spooled(open_table(paths), ["kind"])
    assert x.column("kind").to_pylist() == ["a", "b", "c", "b", None]
    assert pa.types.is_dictionary(x.schema.field("kind").type)


PROGRAM = """
import os, signal, sys
from tabpfn_operators.splice import splice
from tabpfn_operators.spool import Spool
from tabpfn_operators.tables import open_table

signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
with Spool(open_table(sys.argv[1]), ["n", "x"]) as spool:
    for rows in spool.write():
        assert os.listdir(os.environ["TMPDIR"])
        os.kill(os.getpid(), signal.SIGTERM)
"""


def test_nothing_is_left_after_sigterm(temporary, path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, path], env={"TMPDIR": str(temporary)}, capture_output=True, check=False
    )
    assert done.returncode == 128 + signal.SIGTERM, done.stderr.decode()
    assert list(temporary.iterdir()) == []
