"""Files of the writers that people use, spliced, and read back by the readers that people use."""

import datetime as dt

import duckdb
import fastparquet
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tabpfn_operators.splice import splice, split

ROWS = 500
TABLE = pa.table(
    {
        "number": pa.array([None if n % 11 == 0 else n for n in range(ROWS)], pa.int64()),
        "ratio": [n / 7 for n in range(ROWS)],
        "text": [None if n % 5 == 0 else f"größe {n % 13}" for n in range(ROWS)],
        "flag": [n % 2 == 0 for n in range(ROWS)],
        "when": pa.array([1_767_225_600_000_000 + n * 3_600_000_000 for n in range(ROWS)], pa.timestamp("us")),
        "y": [n % 3 for n in range(ROWS)],
    }
)


def by_pyarrow(path):
    pq.write_table(TABLE, path, row_group_size=200, compression="zstd", write_page_index=True)


def by_duckdb(path):
    connection = duckdb.connect()
    connection.register("source", TABLE)
    connection.execute(f"COPY source TO '{path}' (FORMAT parquet, ROW_GROUP_SIZE 2048)")
    connection.close()


def by_polars(path):
    pl.from_arrow(TABLE).write_parquet(path, row_group_size=200)


def by_fastparquet(path):
    fastparquet.write(str(path), TABLE.to_pandas(), row_group_offsets=200, compression="GZIP")


def by_pandas(path):
    frame = TABLE.to_pandas()
    frame["text"] = frame["text"].astype("category")
    frame.to_parquet(path)


def read_by_pyarrow(path):
    return pq.read_table(path)


def read_by_duckdb(path):
    connection = duckdb.connect()
    table = connection.sql(f"SELECT * FROM '{path}'").to_arrow_table()
    connection.close()
    return table


def read_by_polars(path):
    return pl.read_parquet(path).to_arrow()


WRITERS = (by_pyarrow, by_duckdb, by_polars, by_fastparquet, by_pandas)
READERS = (read_by_pyarrow, read_by_duckdb, read_by_polars)


def rows(table):
    return [
        [value.replace(tzinfo=None) if isinstance(value, dt.datetime) else value for value in row.values()]
        for row in table.to_pylist()
    ]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("writer", WRITERS)
def test_features_and_target_read_back_equal(tmp_path, writer, reader):
    source = tmp_path / "source.parquet"
    writer(source)
    whole = reader(source)
    for name, virtual in zip("xy", split(str(source), "y", exclude=["flag"]), strict=True):
        path = tmp_path / f"{name}.parquet"
        path.write_bytes(b"".join(virtual.chunks(1000)))
        columns = ["number", "ratio", "text", "when"] if name == "x" else ["y"]
        got = reader(path)
        assert got.column_names == columns
        assert rows(got) == rows(whole.select(columns))


@pytest.mark.parametrize("writer", WRITERS)
def test_the_last_row_group_alone_reads_back_equal(tmp_path, writer):
    source, path = tmp_path / "source.parquet", tmp_path / "some.parquet"
    writer(source)
    file = pq.ParquetFile(source)
    last = file.num_row_groups - 1
    virtual = splice(str(source), ["y", "text"], [last])
    path.write_bytes(virtual.read(0, virtual.size))
    want = file.read_row_group(last).select(["y", "text"])
    for reader in READERS:
        assert rows(reader(path)) == rows(want)


def test_a_category_of_pandas_stays_one(tmp_path):
    source, path = tmp_path / "source.parquet", tmp_path / "x.parquet"
    by_pandas(source)
    x, _ = split(str(source), "y")
    path.write_bytes(x.read(0, x.size))
    assert isinstance(pd.read_parquet(path)["text"].dtype, pd.CategoricalDtype)
