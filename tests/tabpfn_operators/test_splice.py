"""What is spliced equals what pyarrow selects: for random schemas, writers' options, columns and row groups."""

import datetime as dt
import decimal
import io
import random

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tabpfn_operators.errors import CorruptParquetError, InvalidInputError, NotSpliceableError
from tabpfn_operators.splice import splice, split

CODECS = ("none", "snappy", "gzip", "brotli", "zstd", "lz4")
WORDS = ["", "a", "zoé", "東京", "x" * 200, "ab c", "\x00"]
PLAIN_TYPES = [
    *(getattr(pa, f"{sign}int{bits}")() for sign in ("", "u") for bits in (8, 16, 32, 64)),
    pa.float16(),
    pa.float32(),
    pa.float64(),
    pa.bool_(),
    pa.null(),
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.large_binary(),
    pa.binary_view(),
    pa.binary(3),
    pa.binary(200),
    pa.date32(),
    pa.date64(),
    pa.time32("s"),
    pa.time32("ms"),
    pa.time64("us"),
    pa.time64("ns"),
    *(pa.timestamp(unit, zone) for unit in ("s", "ms", "us", "ns") for zone in (None, "UTC", "Europe/Berlin")),
    pa.duration("us"),
    pa.decimal128(9, 2),
    pa.decimal128(38, 10),
    pa.decimal256(60, 4),
    pa.dictionary(pa.int8(), pa.string()),
    pa.dictionary(pa.int32(), pa.int64()),
    pa.dictionary(pa.int16(), pa.string(), ordered=True),
]
NUMBERS = st.sampled_from([pa.int32(), pa.float64(), pa.string(), pa.bool_()])
TYPES = st.one_of(
    st.sampled_from(PLAIN_TYPES),
    NUMBERS.map(pa.list_),
    NUMBERS.map(pa.large_list),
    NUMBERS.map(lambda kind: pa.list_(pa.list_(kind))),
    NUMBERS.map(lambda kind: pa.struct([pa.field("x.y", kind), pa.field("é", pa.list_(pa.int16()))])),
    NUMBERS.map(lambda kind: pa.map_(pa.string(), kind)),
    NUMBERS.map(lambda kind: pa.list_(pa.struct([("q", kind), ("r", pa.timestamp("us", "UTC"))]))),
)
NAMES = st.lists(
    st.one_of(
        st.sampled_from(["y", "a.b", "a", "größe", "列", " ", "", "schema", "__index_level_0__", 'quo"te']),
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
    ),
    min_size=1,
    max_size=6,
    unique=True,
)


def value(kind, rng):  # noqa: C901 - a table of types
    if pa.types.is_boolean(kind):
        return rng.random() < 0.5
    if pa.types.is_integer(kind):
        signed = str(kind).startswith("int")
        span = 2 ** (kind.bit_width - signed)
        return rng.randrange(-span if signed else 0, span)
    if pa.types.is_floating(kind):
        return np.float16(rng.randrange(-99, 99)) if kind == pa.float16() else float(rng.randrange(-999, 999)) / 8
    if pa.types.is_fixed_size_binary(kind):
        return rng.randbytes(kind.byte_width)
    if str(kind).startswith(("binary", "large_binary")):
        return rng.randbytes(rng.randrange(40))
    if str(kind).startswith(("string", "large_string")):
        return rng.choice(WORDS)
    if pa.types.is_date(kind):
        return dt.date(2000, 1, 1) + dt.timedelta(days=rng.randrange(9999))
    if pa.types.is_time(kind):
        return dt.time(rng.randrange(24), rng.randrange(60), rng.randrange(60))
    if pa.types.is_timestamp(kind):
        return dt.datetime(2020, 1, 1, tzinfo=kind.tz and dt.UTC) + dt.timedelta(seconds=rng.randrange(10**8))
    if pa.types.is_duration(kind):
        return dt.timedelta(seconds=rng.randrange(10**6))
    if pa.types.is_decimal(kind):
        return decimal.Decimal(rng.randrange(-(10**6), 10**6)).scaleb(-kind.scale)
    if pa.types.is_struct(kind):
        return {field.name: maybe(field.type, rng, 0.2) for field in kind}
    if pa.types.is_map(kind):
        return [(rng.choice(WORDS), maybe(kind.item_type, rng, 0.2)) for _ in range(rng.randrange(3))]
    return [maybe(kind.value_type, rng, 0.2) for _ in range(rng.randrange(4))]


def maybe(kind, rng, nulls):
    return None if pa.types.is_null(kind) or rng.random() < nulls else value(kind, rng)


def column(kind, rows, rng, nulls):
    if pa.types.is_dictionary(kind):
        words = ["low", "mid", "high"] if kind.value_type == pa.string() else [7, 8, 9]
        codes = [None if rng.random() < nulls else rng.randrange(3) for _ in range(rows)]
        return pa.DictionaryArray.from_arrays(
            pa.array(codes, kind.index_type), pa.array(words, kind.value_type), ordered=kind.ordered
        )
    if kind == pa.date64():
        return pa.array([maybe(kind, rng, nulls) for _ in range(rows)], pa.date32()).cast(kind)
    return pa.array([maybe(kind, rng, nulls) for _ in range(rows)], kind)


@st.composite
def written(draw):
    """A Parquet file in memory, with whatever schema and options."""
    fields = [
        pa.field(name, kind, nullable=draw(st.booleans()) or pa.types.is_null(kind))
        for name, kind in ((name, draw(TYPES)) for name in draw(NAMES))
    ]
    schema = pa.schema(fields, metadata={"other tool": "knows of every column"} if draw(st.booleans()) else None)
    version = draw(st.sampled_from(["1.0", "2.4", "2.6"]))
    options = {
        "version": version,
        "compression": draw(st.sampled_from(CODECS)),
        "use_dictionary": draw(st.booleans()),
        "write_statistics": draw(st.booleans()),
        "data_page_version": draw(st.sampled_from(["1.0", "2.0"])),
        "write_page_index": draw(st.booleans()),
        "write_page_checksum": draw(st.booleans()),
        "store_schema": draw(st.booleans()),
        "data_page_size": draw(st.sampled_from([64, 1 << 20])),
        "write_batch_size": draw(st.sampled_from([1, 1024])),
        "use_deprecated_int96_timestamps": draw(st.booleans()),
    }
    if draw(st.booleans()):
        flat = [field.name for field in fields if field.type in {pa.int32(), pa.int64(), pa.string()}]
        options["bloom_filter_options"] = {name: {"ndv": 8} for name in flat if "." not in name}
    rng = random.Random(draw(st.integers(0, 2**32)))
    file = io.BytesIO()
    with pq.ParquetWriter(file, schema, **options) as writer:
        for rows in draw(st.lists(st.integers(0, 30), max_size=4)):
            nulls = rng.choice([0, 0.3, 1])
            arrays = [column(field.type, rows, rng, nulls if field.nullable else 0) for field in fields]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=max(rows, 1))
    return file.getvalue()


def content(virtual):
    data = virtual.read(0, virtual.size + 100)
    assert len(data) == virtual.size
    return data


def selected(data, columns, groups):
    """pyarrow's own selection."""
    file = pq.ParquetFile(pa.BufferReader(data))
    schema = file.schema_arrow
    tables = [file.read_row_group(group) for group in groups]
    table = pa.concat_tables(tables) if tables else schema.empty_table()
    return table.select([schema.names.index(name) for name in columns])


def same_values(one, other):
    return one.to_pylist() == other.to_pylist()


@settings(max_examples=150)
@given(data=written(), choice=st.data())
def test_a_splice_equals_pyarrows_own_selection(data, choice, tmp_path_factory):
    path = tmp_path_factory.mktemp("splice") / "source.parquet"
    path.write_bytes(data)
    file = pq.ParquetFile(pa.BufferReader(data))
    names, groups = file.schema_arrow.names, range(file.num_row_groups)
    columns = choice.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    chosen = choice.draw(st.none() | st.lists(st.sampled_from(groups), unique=True) if groups else st.none())
    virtual = splice(str(path), columns, chosen)
    want = selected(data, columns, groups if chosen is None else chosen)
    spliced = content(virtual)
    got = pq.read_table(pa.BufferReader(spliced))
    assert got.schema.equals(want.schema, check_metadata=False)
    assert virtual.schema.equals(got.schema, check_metadata=False)
    assert got.num_rows == want.num_rows == virtual.num_rows
    assert same_values(got, want)
    assert [str(kind) for kind in got.to_pandas().dtypes] == [str(kind) for kind in want.to_pandas().dtypes]
    assert b"other tool" not in spliced
    start = choice.draw(st.integers(0, virtual.size))
    length = choice.draw(st.integers(0, virtual.size))
    assert virtual.read(start, length) == spliced[start : start + length]
    assert b"".join(virtual.chunks(7, start, start + length)) == spliced[start : start + length]
    # A splice of a splice: what we write can be read by ourselves.
    path.write_bytes(spliced)
    assert content(splice(str(path))) == spliced


def frame():
    rows = 40
    index = pd.Index(list(range(100, 100 + rows)), name="customer", dtype="int64")
    return pd.DataFrame(
        {
            "kind": pd.Categorical(["low", "high"] * (rows // 2), categories=["low", "mid", "high"], ordered=True),
            "when": pd.date_range("2026-01-01", periods=rows, freq="h", tz="Europe/Berlin"),
            "count": pd.array([1, None] * (rows // 2), dtype="Int64"),
            "flag": pd.array([True, None] * (rows // 2), dtype="boolean"),
            "text": pd.array(["a", None] * (rows // 2), dtype="string"),
            "y": np.linspace(0, 1, rows),
        },
        index=index,
    )


@pytest.mark.parametrize("row_group_size", [7, 1000])
def test_features_and_target_keep_their_pandas_types_and_leave_the_index_at_home(tmp_path, row_group_size):
    table = frame()
    path = tmp_path / "frame.parquet"
    table.to_parquet(path, row_group_size=row_group_size)
    x, y = split(str(path), "y", exclude=["text"])
    got = pq.read_table(pa.BufferReader(content(x)))
    want = table.reset_index(drop=True).drop(columns=["y", "text"])
    pd.testing.assert_frame_equal(got.to_pandas(), want)
    pd.testing.assert_frame_equal(
        pq.read_table(pa.BufferReader(content(y))).to_pandas(), table[["y"]].reset_index(drop=True)
    )
    for name in (b"customer", b"text"):
        assert name not in content(x), "names of what stays at home stay at home"
    assert x.num_rows == y.num_rows == len(table)


def test_an_index_that_is_asked_for_becomes_a_plain_column(tmp_path):
    path = tmp_path / "frame.parquet"
    frame().to_parquet(path)
    x, _ = split(str(path), "y", features=["count", "customer"])
    got = pq.read_table(pa.BufferReader(content(x))).to_pandas()
    assert list(got.columns) == ["count", "customer"]
    assert list(got["customer"]) == list(range(100, 140))


@pytest.mark.parametrize("spoil", [b"!!!!", b""])
def test_arrow_metadata_that_is_not_readable_is_left_out_with_a_word(tmp_path, caplog, spoil):
    path = tmp_path / "frame.parquet"
    table = pa.table({"kind": pa.array(["a", "b"]).dictionary_encode(), "y": [1, 2]})
    pq.write_table(table, path)
    data = path.read_bytes()
    at = data.index(b"ARROW:schema") + len(b"ARROW:schema") + 4
    path.write_bytes(data[:at] + (spoil or b"AAAA") * 4 + data[at + 16 :])
    virtual = splice(str(path), ["kind"])
    assert pq.read_table(pa.BufferReader(content(virtual))).column("kind").to_pylist() == ["a", "b"]
    assert virtual.schema.field("kind").type == pa.string()
    assert "ARROW:schema is not readable" in caplog.text


def test_part_files_become_one(tmp_path):
    tables = [pa.table({"a": [start, start + 1], "b": [f"{start}", None]}) for start in (1, 10, 20)]
    paths = [tmp_path / f"part-{number}.parquet" for number in range(3)]
    for path, table, codec in zip(paths, tables, ("zstd", "snappy", "none"), strict=True):
        pq.write_table(table, path, compression=codec, row_group_size=1)
    virtual = splice([str(path) for path in paths], ["b"])
    assert pq.read_table(pa.BufferReader(content(virtual))).column("b").to_pylist() == [
        "1",
        None,
        "10",
        None,
        "20",
        None,
    ]
    some = splice([str(path) for path in paths], ["a"], row_groups=[5, 0, 2, 3])
    assert pq.read_table(pa.BufferReader(content(some))).column("a").to_pylist() == [21, 1, 10, 11]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (pa.table({"a": ["1"], "b": ["x"]}), "column 'a' has another type"),
        (pa.table({"b": ["x"], "a": [1]}), "columns are others"),
        (pa.table({"a": [1]}), "columns are others"),
        (pa.table({"a": [1], "b": pa.array(["x"]).dictionary_encode()}), "Arrow types are others"),
    ],
)
def test_part_files_that_differ_are_not_spliced(tmp_path, other, words):
    pq.write_table(pa.table({"a": [1], "b": ["x"]}), tmp_path / "1.parquet")
    pq.write_table(other, tmp_path / "2.parquet")
    with pytest.raises(NotSpliceableError, match=words) as caught:
        splice([str(tmp_path / "1.parquet"), str(tmp_path / "2.parquet")])
    assert "2.parquet" in caught.value.message


def test_what_is_not_there_is_named(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": [1], "b": [2]}), path)
    for columns, groups, words in [
        (["c"], None, "no column 'c'"),
        ([], None, "no column is left"),
        (["a", "a"], None, "named twice"),
        (["a"], [1], "no row group 1; there are 1"),
        (["a"], [-1], "no row group -1"),
        (["a"], [0, 0], "named twice"),
    ]:
        with pytest.raises(InvalidInputError, match=words):
            splice(str(path), columns, groups)
    with pytest.raises(InvalidInputError, match="target 'z' is not among the columns"):
        split(str(path), "z")


def test_a_column_that_is_there_twice_is_kept_with_all_and_refused_by_name(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2]), pa.array([3])], names=["a", "a", "b"]), path)
    got = pq.ParquetFile(pa.BufferReader(content(splice(str(path))))).read()
    assert [column.to_pylist() for column in got.columns] == [[1], [2], [3]]
    with pytest.raises(InvalidInputError, match="'a' is there more than once"):
        splice(str(path), ["a"])


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda data: b"", InvalidInputError, "not a Parquet file"),
        (lambda data: b"x" + data[1:-4] + b"PARX", InvalidInputError, "not a Parquet file"),
        (lambda data: data[:-100], CorruptParquetError, "begins like Parquet and has no footer"),
        (lambda data: data[:-4] + b"PARE", NotSpliceableError, "encrypted"),
        (lambda data: data[:-8] + b"\xff\xff\xff\x7fPAR1", CorruptParquetError, "footer is said to have 2,147,483,647"),
        (lambda data: data[:-8] + b"\0\0\0\0PAR1", CorruptParquetError, "damaged"),
        (lambda data: data[:4] + data[-8 - int.from_bytes(data[-8:-4], "little") :], CorruptParquetError, "outside of"),
    ],
)
def test_damage_is_named(tmp_path, change, error, words):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": range(1000)}), path, write_page_index=True)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(error, match=words):
        splice(str(path))


def test_a_sort_order_is_kept_as_far_as_its_columns_are(tmp_path):
    path = tmp_path / "a.parquet"
    table = pa.table({"a": [1, 1, 2], "b": [1, 2, 3], "c": [3, 4, 5]})
    order = [pq.SortingColumn(1, descending=True), pq.SortingColumn(2), pq.SortingColumn(0)]
    pq.write_table(table, path, sorting_columns=order)

    def kept(columns):
        metadata = pq.read_metadata(pa.BufferReader(content(splice(str(path), columns))))
        return metadata.row_group(0).sorting_columns

    assert kept(["c", "b"]) == (pq.SortingColumn(1, descending=True), pq.SortingColumn(0))
    assert kept(["b", "a"]) == (pq.SortingColumn(0, descending=True),)
    assert kept(["a", "c"]) == ()


def test_statistics_and_sizes_are_those_of_the_kept_columns(tmp_path):
    path = tmp_path / "a.parquet"
    table = pa.table({"a": range(100), "b": [None if n % 3 else f"{n}" for n in range(100)], "c": np.ones(100)})
    pq.write_table(table, path, row_group_size=40, write_page_index=True, bloom_filter_options={"b": {"ndv": 9}})
    virtual = splice(str(path), ["b", "a"])
    metadata, old = pq.read_metadata(pa.BufferReader(content(virtual))), pq.read_metadata(path)
    for number in range(3):
        group, before = metadata.row_group(number), old.row_group(number)
        assert group.column(0).statistics == before.column(1).statistics
        assert group.column(1).statistics == before.column(0).statistics
        assert not group.column(0).has_offset_index
        assert group.total_byte_size == sum(before.column(index).total_uncompressed_size for index in (0, 1))
    assert metadata.created_by == old.created_by
