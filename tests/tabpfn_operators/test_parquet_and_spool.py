"""Parquet in, X and y out: what is read, what is sent, and that no table is ever held."""

import json
import os
from datetime import UTC, datetime
from hashlib import sha256

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tabpfn_operators import parquet
from tabpfn_operators import target as targets
from tabpfn_operators.errors import InvalidInputError, SourceChangedError
from tabpfn_operators.parquet import (
    batches,
    column_problems,
    features_of,
    index_columns,
    read_footer,
)
from tabpfn_operators.spool import Spool
from tabpfn_operators.storage import look_up


def stored(folder, table, **options):
    path = folder / "source.parquet"
    pq.write_table(table, path, **options)
    return read_footer(look_up(str(path), None))


def spooled(source, *columns):
    """The files that would be sent, as tables."""
    spool = Spool(source, *columns).open()
    try:
        rows = list(spool.write())
        assert rows[-1] == source.rows
        return [pq.read_table(file.path) for file in spool.files()]
    finally:
        spool.close()


NUMBERS = pa.table({"a": pa.array(range(1000), pa.int64()), "b": [n / 7 for n in range(1000)], "y": [0, 1] * 500})


# The footer


def test_what_the_footer_says(tmp_path):
    source = stored(tmp_path, NUMBERS)
    assert source.names == ("a", "b", "y")
    assert source.rows == 1000
    assert [(feature.name, feature.dtype) for feature in features_of(source, ("b", "a"))] == [
        ("b", "double"),
        ("a", "int64"),
    ]
    content = (tmp_path / "source.parquet").read_bytes()
    footer = content[-8 - int.from_bytes(content[-8:-4], "little") : -8]
    assert source.footer_digest == sha256(footer).hexdigest()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not a Parquet file; convert it"),
        (b"PAR1", "is not a Parquet file; convert it"),
        (b"a,b\n1,2\n" * 100, "is not a Parquet file; convert it"),
        (b"PAR1" + b"\xff" * 100 + b"\xff\xff\xff\x7fPAR1", "is not a Parquet file; convert it"),
        (b"PAR1" + b"\x00" * 100 + b"\x08\x00\x00\x00PAR1", "is not readable as Parquet"),
    ],
)
def test_what_is_no_parquet_is_named(tmp_path, content, words):
    path = tmp_path / "source.parquet"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=words) as caught:
        read_footer(look_up(str(path), None))
    assert str(path) in str(caught.value)


def test_columns_that_cannot_be_sent(tmp_path):
    table = pa.table({"list": [[1], [2]], "struct": [{"a": 1}, {"a": 2}], "bytes": [b"a", b"b"], "fine": [1, 2]})
    problems = column_problems(stored(tmp_path, table), table.column_names)
    assert [problem.split(" is ")[0] for problem in problems] == ["column 'list'", "column 'struct'", "column 'bytes'"]
    assert column_problems(stored(tmp_path, table), ["fine"]) == []


def test_a_column_that_is_there_twice(tmp_path):
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    assert column_problems(stored(tmp_path, table), ["a"]) == ["column 'a' is there more than once; rename one of them"]


# The target


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (["b", "a", None, "b"], ("a", "b")),
        ([3, 1, 2, 1], (1, 2, 3)),
        ([1.5, float("nan"), 0.5, None], (0.5, 1.5)),
        ([True, False, True, None], (False, True)),
        (pd.Categorical(["b", "a", "b", None], categories=["c", "b", "a"]), ("a", "b")),
    ],
)
def test_classes_are_the_sorted_values_that_occur(tmp_path, values, classes):
    source = stored(tmp_path, pa.table({"y": pa.array(values)}))
    found = targets.profile_target(source, "y", "classification")
    assert found.classes == classes
    assert [type(label) for label in found.classes] == [type(label) for label in classes]
    missing = [value for value in values if value is None or value != value]
    assert found.nulls == len(missing)
    assert targets.profile_target(source, "y", "regression").classes is None


def test_classes_are_counted_to_a_bound_only(tmp_path, monkeypatch):
    monkeypatch.setattr(targets, "MAX_COLLECTED_CLASSES", 10)
    monkeypatch.setattr(parquet, "BATCH_BYTES", 16 * 7)
    found = targets.profile_target(stored(tmp_path, pa.table({"y": list(range(100))})), "y", "classification")
    assert len(found.classes) == 10
    assert found.more_classes
    ten = targets.profile_target(stored(tmp_path, pa.table({"y": list(range(10))})), "y", "classification")
    assert (len(ten.classes), ten.more_classes) == (10, False)


@pytest.mark.parametrize(
    ("kind", "task", "fits"),
    [
        (pa.string(), "classification", True),
        (pa.large_string(), "classification", True),
        (pa.int8(), "classification", True),
        (pa.bool_(), "classification", True),
        (pa.dictionary(pa.int8(), pa.string()), "classification", True),
        (pa.timestamp("us"), "classification", False),
        (pa.date32(), "classification", False),
        (pa.binary(), "classification", False),
        (pa.float32(), "regression", True),
        (pa.int64(), "regression", True),
        (pa.decimal128(9, 2), "regression", True),
        (pa.string(), "regression", False),
        (pa.bool_(), "regression", False),
        (pa.dictionary(pa.int8(), pa.string()), "regression", False),
    ],
)
def test_types_a_target_may_have(tmp_path, kind, task, fits):
    pq.write_table(pa.table({"y": pa.array([None, None], kind)}), tmp_path / "source.parquet")
    problem = targets.target_type_problem(read_footer(look_up(str(tmp_path / "source.parquet"), None)), "y", task)
    assert (problem is None) == fits
    assert fits or "'y'" in problem


# Batches


def test_a_batch_is_bounded_and_there_are_many(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "BATCH_BYTES", 4800)
    source = stored(tmp_path, NUMBERS)  # one row group; at least 16 bytes a value
    found = list(batches(source, ("y", "a")))
    assert len(found) >= 10
    assert max(batch.num_rows for batch in found) <= source.batch_rows <= 100
    assert [batch.schema.names for batch in found] == [["y", "a"]] * len(found)
    assert pa.Table.from_batches(found).equals(NUMBERS.select(["y", "a"]))


def test_the_spool_takes_one_batch_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "BATCH_BYTES", 4800)
    source = stored(tmp_path, NUMBERS)
    alive, most = [], [0]
    real = parquet.batches

    def counted(*arguments):
        for batch in real(*arguments):
            alive.append(batch.num_rows)
            most[0] = max(most[0], len(alive))
            yield batch
            alive.pop()

    monkeypatch.setattr("tabpfn_operators.parquet.batches", counted)
    spool = Spool(source, ("a", "b"), ("y",)).open()
    try:
        steps = spool.write()
        next(steps)
        assert (len(alive), most[0]) == (1, 1)  # nothing is read ahead of what is asked for
        rows = list(steps)
        x, y = spool.files()
    finally:
        spool.close()
    assert len(rows) >= 9
    assert most[0] == 1
    assert x.size > y.size > 0


def test_x_and_y_hold_the_rows_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "BATCH_BYTES", 4800)
    x, y = spooled(stored(tmp_path, NUMBERS, row_group_size=130), ("b", "a"), ("y",))
    assert x.equals(NUMBERS.select(["b", "a"]))
    assert y.equals(NUMBERS.select(["y"]))


def test_row_groups_without_rows(tmp_path):
    path = tmp_path / "source.parquet"
    with pq.ParquetWriter(path, NUMBERS.schema) as writer:
        for table in (NUMBERS.slice(0, 0), NUMBERS.slice(0, 10), NUMBERS.slice(0, 0), NUMBERS.slice(10, 5)):
            writer.write_table(table)
        writer.write_table(NUMBERS.slice(0, 0))
    x, y = spooled(read_footer(look_up(str(path), None)), ("a",), ("y",))
    assert x.equals(NUMBERS.select(["a"]).slice(0, 15))
    assert y.num_rows == 15


def test_types_survive(tmp_path):
    zone = pa.timestamp("us", tz="Europe/Berlin")
    table = pa.table(
        {
            "category": pa.array(pd.Categorical(["b", "a", None], categories=["c", "b", "a"])),
            "ordered": pa.array(pd.Categorical(["lo", "hi", "lo"], categories=["lo", "hi"], ordered=True)),
            "zoned": pa.array([datetime(2026, 11, 21, tzinfo=UTC), None, None], zone),
            "naive": pa.array([1, 2, None], pa.timestamp("ns")),
            "day": pa.array([1, 2, None], pa.date32()),
            "money": pa.array(["1.50", None, "2.25"]).cast(pa.decimal128(9, 2)),
            "small": pa.array([1, 2, None], pa.int8()),
            "flag": [True, None, False],
            "text": pa.array(["größe", "", None], pa.large_string()),
            "nothing": pa.nulls(3),
        }
    )
    source = stored(tmp_path, table)
    (x,) = spooled(source, table.column_names)
    assert x.schema.types == source.schema.types
    assert x.to_pydict() == table.to_pydict()
    assert pa.types.is_dictionary(x.schema.field("category").type)
    assert x.schema.field("ordered").type.ordered
    assert x.schema.field("zoned").type == zone


NAMES = ["a.b", "a", "a.b.c", "größe", "with space", "", "日本", "x/y", "`q`", "A"]


def test_column_names_of_any_kind(tmp_path):
    table = pa.table({name: [number, number + 100] for number, name in enumerate(NAMES)})
    source = stored(tmp_path, table)
    x, y = spooled(source, tuple(reversed(NAMES[1:])), (NAMES[0],))
    assert x.equals(table.select(list(reversed(NAMES[1:]))))
    assert y.equals(table.select(["a.b"]))


def test_a_dotted_name_beside_a_nested_column(tmp_path):
    table = pa.table({"s": [{"b": 1}, {"b": 2}], "s.b": [3, 4], "s.b.c": [5, 6]})
    (x,) = spooled(stored(tmp_path, table), ("s.b.c", "s.b"))
    assert x.to_pydict() == {"s.b.c": [5, 6], "s.b": [3, 4]}


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6), min_size=1, max_size=5, unique=True
    )
)
def test_whatever_columns_are_called(tmp_path, names):
    table = pa.table({name: [number] for number, name in enumerate(names)})
    (x,) = spooled(stored(tmp_path, table), tuple(names[::-1]))
    assert x.equals(table.select(names[::-1]))


# pandas


def test_a_pandas_index_is_no_feature(tmp_path):
    path = tmp_path / "source.parquet"
    frame = pd.DataFrame({"a": [1, 2], "y": [0, 1]}, index=pd.Index(["r1", "r2"], name="personal id"))
    frame.to_parquet(path)
    source = read_footer(look_up(str(path), None))
    assert "personal id" in source.names
    assert index_columns(source) == {"personal id"}
    x, y = spooled(source, ("a",), ("y",))
    for table, name in ((x, "a"), (y, "y")):
        described = json.loads(table.schema.metadata[b"pandas"])
        assert [column["name"] for column in described["columns"]] == [name]
        assert described["index_columns"] == []
        assert list(table.to_pandas().columns) == [name]


def test_a_plain_range_index_is_none(tmp_path):
    path = tmp_path / "source.parquet"
    pd.DataFrame({"a": [1, 2]}).to_parquet(path)
    assert index_columns(read_footer(look_up(str(path), None))) == frozenset()


def test_a_file_that_is_sent_speaks_of_no_other_column(tmp_path):
    path = tmp_path / "source.parquet"
    frame = pd.DataFrame({"a": [1, 2], "personal column": ["personal value", "x"], "y": [0, 1]})
    frame.attrs["note"] = "personal note"
    table = pa.Table.from_pandas(frame)
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"tool": b"personal column"}), path)
    assert b"personal" in path.read_bytes()
    spool = Spool(read_footer(look_up(str(path), None)), ("a",), ("y",)).open()
    try:
        list(spool.write())
        sent = b"".join(file.path.read_bytes() for file in spool.files())
        footers = b"".join(json.dumps(str(pq.read_schema(file.path).metadata)).encode() for file in spool.files())
    finally:
        spool.close()
    assert b"personal" not in sent + footers


def test_pandas_metadata_that_is_none(tmp_path):
    for described in (b"not json", b"[]", b"null"):
        source = stored(tmp_path, NUMBERS.replace_schema_metadata({b"pandas": described}))
        assert index_columns(source) == frozenset()
        assert spooled(source, ("a",))[0].column_names == ["a"]


# A source that is written to


@pytest.mark.parametrize("when", ["before the first batch", "between two batches"])
def test_a_source_that_is_rewritten_meanwhile(tmp_path, monkeypatch, when):
    monkeypatch.setattr(parquet, "BATCH_BYTES", 4800)
    path = tmp_path / "source.parquet"
    source = stored(tmp_path, NUMBERS)
    spool = Spool(source, ("a",), ("y",)).open()

    def rewrite():
        pq.write_table(NUMBERS.set_column(0, "a", NUMBERS["b"]), tmp_path / "other.parquet")
        os.replace(tmp_path / "other.parquet", path)

    try:
        steps = spool.write()
        if when == "between two batches":
            next(steps)
        rewrite()
        with pytest.raises(SourceChangedError, match="changed while it was read"):
            list(steps)
    finally:
        spool.close()


def test_a_damaged_page_is_the_sources_fault(tmp_path):
    path = tmp_path / "source.parquet"
    pq.write_table(NUMBERS, path, compression="zstd", use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[20:2000] = b"\x00" * 1980
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match="damaged") as caught:
        spooled(read_footer(look_up(str(path), None)), ("a", "b"))
    assert str(path) in str(caught.value)
