"""Tables in memory as rows: DataFrames, Arrow tables, readers."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tabpfn_operators.errors import InvalidInputError
from tabpfn_operators.spool import Spool
from tabpfn_operators.tables import _memory as memory
from tabpfn_operators.tables import open_table

FRAME = pd.DataFrame(
    {
        "n": np.arange(500),
        "x": np.arange(500) / 7,
        "kind": pd.Categorical([f"k{n % 3}" for n in range(500)], categories=["k2", "k1", "k0", "never"]),
        "text": [f"t{n}" if n % 2 else None for n in range(500)],
        "zoned": pd.date_range("2026-11-21", periods=500, freq="h", tz="Europe/Berlin"),
        "flag": pd.array([True, None] * 250, dtype="boolean"),
        7: np.arange(500, dtype="float32"),
    },
    index=pd.Index(range(500, 1000), name="personal id"),
)
TABLE = pa.Table.from_pandas(FRAME.rename(columns=str), preserve_index=False)


def read(source, columns=None):
    return pa.Table.from_batches(source.batches(columns or source.names))


SOURCES = {
    "DataFrame": lambda: FRAME,
    "Table": lambda: TABLE,
    "RecordBatch": lambda: TABLE.combine_chunks().to_batches()[0],
    "RecordBatchReader": lambda: TABLE.to_reader(max_chunksize=77),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_rows_in_batches_without_the_index_any_number_of_times(monkeypatch, kind):
    monkeypatch.setattr(memory, "BATCH_BYTES", 4096)
    source = open_table(SOURCES[kind]())
    assert source.schema.equals(TABLE.schema)
    assert (source.rows, source.objects, source.digests) == (500, (), ())
    assert source.size > 0
    for _ in range(2):
        assert read(source).equals(TABLE)
    assert read(source, ["7", "kind"]).equals(TABLE.select(["7", "kind"]))
    assert len(list(source.batches(["n"]))) >= 5
    source.check_unchanged()


@pytest.mark.parametrize("kind", SOURCES)
def test_filters_and_casts(kind):
    source = open_table(SOURCES[kind](), filters=pc.field("kind") == "k1", casts={"n": "int16"})
    expected = TABLE.filter(pc.field("kind") == "k1").column("n")
    assert read(source, ["n"]).column("n").equals(expected.cast(pa.int16()))


@pytest.mark.parametrize("kind", SOURCES)
def test_the_spool_has_the_same_types(tmp_path, kind):
    with Spool(open_table(SOURCES[kind]()), ["zoned", "kind"], ["n"]) as spool:
        list(spool.write())
        x, y = (pq.read_table(file.path) for file in spool.files())
    pq.write_table(TABLE, tmp_path / "whole.parquet")
    whole = pq.read_table(tmp_path / "whole.parquet")
    assert x.equals(whole.select(["zoned", "kind"]))
    assert y.equals(whole.select(["n"]))
    assert x.to_pandas()["kind"].dtype == FRAME["kind"].dtype
    assert b"personal" not in x.schema.metadata[b"pandas"]


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (
            pd.DataFrame({"fine": [1, 2], "mixed": pd.Series([1, "x"], dtype=object)}),
            "Column 'mixed' .*more than one type",
        ),
        (pd.DataFrame({"mixed": pd.Series([True, 1], dtype=object)}), "Column 'mixed'"),
        (pd.DataFrame({"what": [object(), object()]}), "Column 'what'"),
        (pd.DataFrame(np.zeros((2, 2)), columns=["a", "a"]), "column 'a' more than once"),
        (pd.DataFrame(np.zeros((2, 2)), columns=[1, "1"]), "column '1' more than once"),
        (pd.DataFrame({("a", "b"): [1], ("a", "c"): [2]}), "several levels"),
        (pd.DataFrame({"a": []}), "holds no rows"),
    ],
)
def test_a_frame_that_cannot_be_sent(frame, words):
    with pytest.raises(InvalidInputError, match=words) as caught:
        open_table(frame)
    assert "DataFrame" in str(caught.value)


def test_the_frame_that_was_given_stays_as_it_is():
    frame = pd.DataFrame({1: [1, 2]})
    assert open_table(frame).names == ("1",)
    assert list(frame.columns) == [1]


def test_a_reader_that_fails_on_the_way():
    def batches():
        yield TABLE.to_batches()[0]
        raise OSError("personal")

    with pytest.raises(InvalidInputError, match=r"RecordBatchReader failed \(OSError\)") as caught:
        open_table(pa.RecordBatchReader.from_batches(TABLE.schema, batches()))
    assert "personal" not in str(caught.value)


def test_a_table_without_rows():
    with pytest.raises(InvalidInputError, match="Table holds no rows"):
        open_table(TABLE.slice(0, 0))


def test_a_reader_that_was_read_before_is_named():
    reader = pa.table({"a": [1]}).to_reader()
    reader.read_all()
    with pytest.raises(InvalidInputError, match="RecordBatchReader holds no rows; was it read before"):
        open_table(reader)
