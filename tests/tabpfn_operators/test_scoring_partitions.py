"""Predictions in folders by the values of kept columns, as Hive's readers find them."""

import datetime as dt

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabpfn_assets import FitParameters
from tabpfn_operators.errors import InvalidInputError
from tabpfn_operators.scoring._partitions import MOST_FOLDERS, by_folder, check_folders, type_problems

VALUES = {
    "text": st.text("ab/=% .ü", max_size=4) | st.none(),
    "number": st.integers(-3, 3) | st.none(),
    "truth": st.booleans() | st.none(),
    "day": st.dates(dt.date(2026, 1, 1), dt.date(2026, 1, 3)) | st.none(),
    "category": st.text("ab/", max_size=2) | st.none(),
}
KINDS = {"text": pa.string(), "number": pa.int64(), "truth": pa.bool_(), "day": pa.date32(), "category": pa.string()}


@st.composite
def tables(draw):
    rows = draw(st.lists(st.fixed_dictionaries(VALUES), min_size=1, max_size=30))
    kinds = {**KINDS, "category": pa.dictionary(pa.int8(), pa.string()), "row": pa.int64()}
    schema = pa.schema(list(kinds.items()))
    return pa.Table.from_pylist([{**row, "row": number} for number, row in enumerate(rows)], schema=schema)


@given(tables(), st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=3, unique=True))
def test_every_row_is_in_one_folder_in_order(table, names):
    parts = list(by_folder(table, names))
    assert sorted(row for _, part in parts for row in part["row"].to_pylist()) == list(range(table.num_rows))
    assert len({folder for folder, _ in parts}) == len(parts)
    for folder, part in parts:
        rows = part["row"].to_pylist()
        assert rows == sorted(rows)
        assert part.column_names == [name for name in table.column_names if name not in names]
        assert folder.count("/") == len(names) - 1
        told = dict(ds.get_partition_keys(_hive(names).parse(f"/{folder}/")))
        for row in rows:
            expected = {name: _read(table[name][row].as_py()) for name in names}
            assert {name: told.get(name) for name in names} == expected


def _hive(names):
    return ds.HivePartitioning(pa.schema([(name, KINDS[name]) for name in names]))


def _read(value):
    return None if value == "" else value


def test_too_many_folders_are_refused_before_anything_is_sent():
    batch = pa.RecordBatch.from_pydict({"shop": list(range(MOST_FOLDERS + 1))})
    with pytest.raises(InvalidInputError, match=r"Shard 00003 would be spread over more than 500 folders by shop"):
        check_folders(iter([batch]), ["shop"], "Shard 00003")
    check_folders(iter([batch.slice(1)]), ["shop"], "Shard 00003")


def test_columns_that_name_no_folders_and_batches_without_rows_are_passed_over():
    batch = pa.record_batch({"shop": pa.array(["n", "s"]), "note": pa.array(["a", "b"]).cast(pa.string_view())})
    check_folders(iter([batch.slice(0, 0), batch]), ["shop"], "Shard 00000")
    with pytest.raises(InvalidInputError, match="has 300 letters"):
        check_folders(iter([batch, pa.record_batch({"shop": ["x" * 300], "note": ["a"]})]), ["shop"], "Shard 00000")


def test_a_value_that_is_too_long_for_a_folder_is_refused():
    batch = pa.RecordBatch.from_pydict({"note": ["x" * 300]})
    with pytest.raises(InvalidInputError, match="has 300 letters, too many for a folder"):
        check_folders(iter([batch]), ["note"], "Shard 00000")


@pytest.mark.parametrize("kind", [pa.float64(), pa.timestamp("us"), pa.list_(pa.int64())])
def test_a_column_whose_values_name_no_folders(kind):
    assert "cannot name folders" in type_problems(pa.schema([("x", kind)]), ["x"])[0]


def test_a_scoring_in_folders(client, write, tmp_path):
    rows = 60
    columns = {"a": [float(row) for row in range(rows)], "y": [row % 2 for row in range(rows)]}
    kept = {"day": [row % 3 if row % 10 else None for row in range(rows)], "id": list(range(rows))}
    model = client.fit(write(columns, "train.parquet"), "y", parameters=FitParameters(task="classification"))
    source, out = write({**columns, **kept}, "test.parquet"), tmp_path / "out"
    options = {"keep": ["id", "day"], "rows_per_shard": 25}
    record = client.score(model, source, str(out), partition_by=["day"], **options)
    found = ds.dataset(out, partitioning=_typed({"day": pa.int64()}), format="parquet", exclude_invalid_files=True)
    table = found.to_table().sort_by("id")
    assert table["id"].to_pylist() == kept["id"]
    assert table["day"].to_pylist() == kept["day"]
    flat = tmp_path / "flat"
    client.score(model, source, str(flat), **options)
    plain = pa.concat_tables([pq.read_table(path) for path in sorted(flat.glob("part-*"))])
    assert table.select(plain.column_names).equals(plain.replace_schema_metadata(table.schema.metadata))
    assert sorted(path.name for path in out.glob("day=*")) == [
        "day=0",
        "day=1",
        "day=2",
        "day=__HIVE_DEFAULT_PARTITION__",
    ]
    assert client.score(model, source, str(out), partition_by=["day"], **options) == record


def _typed(kinds):
    return ds.partitioning(pa.schema(list(kinds.items())), flavor="hive")


def test_a_column_that_is_not_kept_names_no_folders(client, write, tmp_path, build_model):
    with pytest.raises(InvalidInputError, match="partition_by names 'day', which is not kept"):
        client.score(build_model(), write({"a": [1.0]}), str(tmp_path / "out"), partition_by=["day"])
