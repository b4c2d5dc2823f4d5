"""The part files of a shard: what is kept beside the predictions in types of all kinds, and groups of a good size."""

import datetime as dt

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from tabpfn_assets import FitParameters
from tabpfn_operators.errors import InvalidInputError, SourceChangedError
from tabpfn_operators.predictions import StoredPrediction, write_parquet
from tabpfn_operators.predictions._columns import Columns
from tabpfn_operators.scoring._part import written_parts
from tabpfn_operators.scoring._plan import Shard


@pytest.fixture
def predicted():
    """Build a prediction of some rows: their numbers, in columns."""

    def build(rows, columns=1, seen=lambda: None):
        schema = pa.schema([(f"probability_{number}", pa.float64()) for number in range(columns)])

        def read(start, count):
            seen()
            return [pa.array(np.arange(start, start + count) + number / 1000) for number in range(columns)]

        return StoredPrediction(Columns(schema, rows, read), {}, {})

    return build


def parts_of(prediction, kept, **options):
    shard = Shard(0, 0, prediction.columns.rows)
    return written_parts("0123456789", shard, prediction, iter(kept), fitted_train_set_id="fitted-1", **options)


def category(values, places, **options):
    return pa.DictionaryArray.from_arrays(pa.array(places, pa.int8()), values, **options)


def batches(*columns, name="kind"):
    return [pa.RecordBatch.from_arrays([column], names=[name]) for column in columns]


def groups_of(path):
    metadata = pq.read_metadata(path)
    return [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]


# Kept columns


def nested(values, places):
    return pa.StructArray.from_arrays([category(values, places)], ["inner"])


TEXTS = pa.array(["a", None, "b"])
ODD = {
    "a null among the values": (category(TEXTS, [0, 1, None, 2]), category(TEXTS, [2, 1, 1, 0])),
    "nulls alone": (category(pa.array([None], pa.string()), [0, None]), category(pa.array([], pa.string()), [None])),
    "another dictionary each": (
        category(pa.array(["a", None]), [1, 0]),
        category(pa.array([None, "c", "a"]), [0, 1, 2]),
    ),
    "more values than an index holds": (
        category(pa.array([f"a{number}" for number in range(100)]), range(100)),
        category(pa.array([f"b{number}" for number in range(100)]), range(100)),
    ),
    "in a struct": (nested(TEXTS, [0, 1, None, 2]), nested(pa.array(["c", None]), [0, 1])),
    "in a list": (pa.ListArray.from_arrays([0, 2, 4], category(TEXTS, [0, 1, None, 2])),),
    "of structs": (category(pa.array([{"a": 1}, None]), [0, 1, 0]), category(pa.array([{"a": 2}]), [0, None])),
    "of durations": (category(pa.array([1, 2, None], pa.duration("s")), [0, 1, 2]),),
    "of nothing": (category(pa.nulls(1), [0, None]),),
    "of views": (category(TEXTS.cast(pa.string_view()), [0, 1, None, 2]),),
    "views in a list": (pa.ListArray.from_arrays([0, 1, 3], TEXTS.cast(pa.string_view())),),
    "views": (pa.array(["a", None, "b" * 20]).cast(pa.string_view()),),
}


@pytest.mark.parametrize("partition_by", [[], ["day"]], ids=["one file", "folders"])
@pytest.mark.parametrize("columns", ODD.values(), ids=ODD)
def test_a_kept_category_of_any_kind(predicted, columns, partition_by):
    expected = [value for column in columns for value in column.to_pylist()]
    kept = [pa.record_batch({"kind": column, "day": pa.array([7] * len(column))}) for column in columns]
    with parts_of(predicted(len(expected)), kept, partition_by=partition_by) as parts:
        ((path, file),) = parts.files
        assert file.rows == len(expected)
        assert pq.ParquetFile(path).read()["kind"].to_pylist() == expected


def test_categories_stay_categories(predicted):
    """Also an order that they have, where rows of several dictionaries meet in a folder."""
    levels = pa.array(["low", "middle", "high"])
    kept = [
        pa.record_batch(
            {"size": category(levels, [2, 0], ordered=True), "kind": category(TEXTS, [0, 1]), "day": pa.array([day, 7])}
        )
        for day in (7, 8)
    ]
    for partition_by in ([], ["day"]):
        with parts_of(predicted(4), kept, partition_by=partition_by) as parts:
            for path, _ in parts.files:
                table = pq.ParquetFile(path).read()
                assert table.schema.field("kind").type == pa.dictionary(pa.int32(), pa.string())
                assert table.schema.field("size").type == pa.dictionary(pa.int32(), pa.string(), ordered=True)
                assert table["size"].chunk(0).dictionary == levels


def test_a_scoring_that_keeps_a_category_with_a_null_and_makes_folders_of_another(client, write, tmp_path, journal):
    rows = 40
    columns = {"a": [float(row) for row in range(rows)], "y": [row % 2 for row in range(rows)]}
    model = client.fit(write(columns, "train.parquet"), "y", parameters=FitParameters(task="classification"))
    places = [row % 3 for row in range(rows)]
    table = pa.table({**columns, "kind": category(TEXTS, places), "shop": category(pa.array(["", "n", None]), places)})
    feather.write_feather(table, tmp_path / "test.feather")
    out = tmp_path / "out"
    client.score(model, str(tmp_path / "test.feather"), str(out), keep=["kind", "shop", "a"], partition_by=["shop"])
    assert sorted(path.name for path in out.glob("shop=*")) == ["shop=__HIVE_DEFAULT_PARTITION__", "shop=n"]
    (path,) = out.glob("shop=__*/*")
    assert pq.ParquetFile(path).read()["a"].to_pylist() == [row for row in range(rows) if row % 3 != 1]
    found = ds.dataset(out, partitioning=None, format="parquet", exclude_invalid_files=True).to_table().sort_by("a")
    assert found["kind"].to_pylist() == table["kind"].to_pylist()
    assert len(journal.rows("/tabpfn/predict")) == 1


@pytest.mark.parametrize(
    "column",
    [pa.array([{}]), pa.array([b""], pa.binary(0)), pa.array([(1, 2, 3)], pa.month_day_nano_interval())],
    ids=["a struct of nothing", "bytes of no length", "an interval"],
)
def test_what_parquet_cannot_hold_is_refused_before_it_is_paid_for(client, write, tmp_path, journal, column):
    columns = {"a": [1.0, 2.0], "y": [0, 1]}
    model = client.fit(write(columns, "train.parquet"), "y", parameters=FitParameters(task="classification"))
    with pytest.raises(InvalidInputError, match=r"column 'kind' is to be kept and is .* which Parquet cannot hold"):
        client.score(model, pa.table({"a": [1.0], "kind": column}), str(tmp_path / "out"), keep=["kind"])
    assert not journal.rows("/tabpfn/predict")


@pytest.mark.parametrize("partition_by", [[], ["day"]], ids=["one file", "folders"])
def test_a_value_that_parquet_cannot_hold_is_named_as_what_it_is(predicted, partition_by):
    """Not as a source that was written to, which the same value would be for ever."""
    schema = pa.schema([pa.field("id", pa.int64(), nullable=False), ("day", pa.date32())])
    kept = [pa.RecordBatch.from_arrays([pa.nulls(1, pa.int64()), pa.array([dt.date(2026, 11, 21)])], schema=schema)]
    told = r"Shard 00000: .* cannot be written as Parquet: .*'id'.* nulls\. They were billed; keep other columns"
    with pytest.raises(InvalidInputError, match=told), parts_of(predicted(1), kept, partition_by=partition_by):
        pass


@pytest.mark.parametrize(("rows", "told"), [(1, "fewer"), (3, "more")])
def test_a_source_of_other_rows_was_written_to(predicted, rows, told):
    kept = batches(pa.array(range(rows)))
    with pytest.raises(SourceChangedError, match=f"has {told} rows"), parts_of(predicted(2), kept):
        pass


# Row groups


def test_a_dictionary_is_no_part_of_each_slice_of_it(predicted, tmp_path):
    rows = 60_000
    values = pa.array([f"customer {number:012}" for number in range(rows)])
    column = pa.DictionaryArray.from_arrays(pa.array(range(rows), pa.int32()), values)
    kept = batches(column.slice(0, 1), *(column.slice(start, 10_000) for start in range(1, rows, 10_000)))
    path = tmp_path / "part.parquet"
    write_parquet(predicted(rows).columns, path, fitted_train_set_id="fitted-1", kept=iter(kept))
    assert min(groups_of(path)[:-1], default=rows) >= 5_000
    assert pq.read_table(path)["kind"].to_pylist() == values.to_pylist()


def test_a_first_row_that_is_large_is_not_taken_for_all(predicted, tmp_path):
    rows = 20_000
    kept = batches(pa.array(["x" * (1 << 20)]), pa.array(["x"] * (rows - 1)))
    path = tmp_path / "part.parquet"
    write_parquet(predicted(rows).columns, path, fitted_train_set_id="fitted-1", kept=iter(kept))
    assert min(groups_of(path)[:-1], default=rows) >= 5_000


def test_many_folders_of_many_columns_take_the_memory_of_some_groups(predicted):
    """Each folder is one row group, though its rows came in many; the rows keep their order."""
    rows, columns, folders = 40_000, 80, 200
    held = []
    before = pa.total_allocated_bytes()
    prediction = predicted(rows, columns, lambda: held.append(pa.total_allocated_bytes() - before))
    numbers = np.arange(rows)
    table = pa.table({"row": numbers, "shop": numbers * 7919 % folders})
    with parts_of(prediction, table.to_batches(max_chunksize=5_000), partition_by=["shop"]) as parts:
        assert len(held) > 3
        assert max(held) < 16 << 20
        assert len(parts.files) == folders
        seen = []
        for path, file in parts.files:
            assert groups_of(path) == [file.rows] == [rows // folders]
            found = pq.ParquetFile(path).read()
            assert found["row"].to_pylist() == sorted(found["row"].to_pylist())
            assert found["probability_79"].to_numpy() == pytest.approx(found["row"].to_numpy() + 0.079)
            seen += found["row"].to_pylist()
        assert sorted(seen) == list(range(rows))


def test_a_folder_of_many_rows_has_groups_of_some_size(predicted):
    rows = 30_000
    table = pa.table({"row": np.arange(rows), "shop": np.zeros(rows, np.int64)})
    with parts_of(predicted(rows, 100), table.to_batches(max_chunksize=1_000), partition_by=["shop"]) as parts:
        ((path, _),) = parts.files
        assert min(groups_of(path)[:-1]) >= 5_000
        assert pq.ParquetFile(path).read()["row"].to_pylist() == list(range(rows))
