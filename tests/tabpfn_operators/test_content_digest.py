"""The digest of a table in memory: of its values, not of how they lie in memory."""

import datetime as dt
import decimal
import itertools
import random

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabpfn_operators.plan import fingerprint_of
from tabpfn_operators.reading import Reading
from tabpfn_operators.tables._digest import content_digest
from tabpfn_operators.tables._memory import open_frame, open_stream, open_table_in_memory

ADVICE = (
    "The digest of a table changed: fits of tables in memory would not be found again, and be paid for twice. If that "
    'is meant, raise "v" in source_fingerprint, say so in CHANGELOG.md, and only then change this value.'
)
PINNED = "108263541f3f30a2e538c98605d4f981e6c780ca6290fb2a2d661d7575a14ccd"
BERLIN = pa.timestamp("us", "Europe/Berlin")


def values(kind):
    """Five values of a type, two of them missing."""
    some = {
        "bool": [True, False, True],
        "int8": [1, -2, 3],
        "uint64": [1, 2, 2**64 - 1],
        "halffloat": [np.float16(0.5), np.float16(1), np.float16(2)],
        "float": [0.5, -0.0, 1e30],
        "double": [0.1, float("nan"), float("-inf")],
        "decimal128(9, 2)": [decimal.Decimal("1.50"), decimal.Decimal("-2.00"), decimal.Decimal(0)],
        "decimal256(50, 1)": [decimal.Decimal("1.5"), decimal.Decimal("-2.0"), decimal.Decimal(10**40)],
        "date32[day]": [dt.date(2026, 11, day) for day in (1, 2, 3)],
        "time64[us]": [dt.time(day) for day in (1, 2, 3)],
        "duration[s]": [1, 2, 3],
        "fixed_size_binary[2]": [b"ab", b"cd", b"\x00\xff"],
        "null": [None] * 3,
        "list": [[1, 2], [], [None, 3]],
        "struct": [{"a": 1}, {"a": None}, {"a": 3}],
    }
    if str(kind) in some:
        chosen = some[str(kind)]
    elif pa.types.is_timestamp(kind):
        chosen = [1, -1, 1_795_262_400_000_000]
    elif pa.types.is_nested(kind):
        chosen = some["struct" if pa.types.is_struct(kind) else "list"]
    elif "binary" in str(kind):
        chosen = [b"a", b"", b"\x00\xff"]
    else:
        chosen = ["a", "", "Grüße, |*_"]
    return [chosen[0], None, *chosen[1:], None]


KINDS = [
    pa.bool_(),
    pa.int8(),
    pa.uint64(),
    pa.float16(),
    pa.float32(),
    pa.float64(),
    pa.decimal128(9, 2),
    pa.decimal256(50, 1),
    pa.date32(),
    pa.time64("us"),
    pa.duration("s"),
    pa.timestamp("ns"),
    BERLIN,
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.large_binary(),
    pa.binary_view(),
    pa.binary(2),
    pa.null(),
    pa.list_(pa.int64()),
    pa.struct([("a", pa.int64())]),
    pa.dictionary(pa.int8(), pa.string()),
    pa.dictionary(pa.int32(), pa.large_string()),
    pa.dictionary(pa.int32(), pa.int64()),
]


def array_of(kind):
    if pa.types.is_dictionary(kind):
        plain = values(pa.string()) if kind.value_type != pa.int64() else [7, None, 8, 7, None]
        return pa.array(plain, kind.value_type).dictionary_encode().cast(kind)
    return pa.array(values(kind), kind)


def digest(*arrays, names=None):
    names = names or [f"c{number}" for number in range(len(arrays))]
    return content_digest(open_table_in_memory(pa.table(list(arrays), names=list(names))), names)


def cut(array, *ends):
    """The same values in chunks."""
    places = [0, *ends, len(array)]
    return pa.chunked_array([array[a:b] for a, b in itertools.pairwise(places)], array.type)


class Batches:
    """A source of rows that are cut as a test says."""

    def __init__(self, batches):
        self.schema = batches[0].schema
        self._batches = batches

    def batches(self, columns):
        return (batch.select(list(columns)) for batch in self._batches)


# Pinned


def test_the_digest_of_a_table_stays():
    kinds = [kind for kind in KINDS if not pa.types.is_nested(kind)]
    assert digest(*map(array_of, kinds)) == PINNED, ADVICE


# How it lies in memory


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("ends", [(1,), (2, 4), (0, 0, 3), (1, 2, 3, 4), (5,)], ids=str)
def test_chunks_do_not_show(kind, ends):
    array = array_of(kind)
    assert digest(cut(array, *ends)) == digest(array)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_slice_is_its_values(kind):
    whole = pa.concat_arrays([array_of(kind)] * 3)
    assert digest(whole[4:9]) == digest(pa.array(whole[4:9].to_pylist(), kind))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_value_counts_and_its_place(kind):
    if pa.types.is_null(kind):
        assert digest(array_of(kind)) != digest(array_of(kind)[1:])
        return
    array = array_of(kind)
    one_less, none = array[:-1], pa.nulls(5, kind)
    turned, moved = (pa.array([array[i].as_py() for i in order], kind) for order in ((2, 1, 0, 3, 4), (1, 0, 2, 3, 4)))
    assert len({digest(each) for each in (array, one_less, turned, none, moved)}) == 5


@pytest.mark.parametrize(
    ("kind", "buffer"),
    [(pa.int32(), b"\x01\0\0\0\xaa\xbb\xcc\xdd"), (pa.float64(), b"\0" * 8 + b"\xde\xad\xbe\xef" * 2)],
    ids=str,
)
def test_what_lies_under_a_missing_value_does_not_count(kind, buffer):
    validity = pa.py_buffer(b"\x01")
    clean = buffer[: len(buffer) // 2] + b"\0" * (len(buffer) // 2)
    dirty, zero = (pa.Array.from_buffers(kind, 2, [validity, pa.py_buffer(data)]) for data in (buffer, clean))
    assert dirty.buffers()[1].to_pybytes() != zero.buffers()[1].to_pybytes()
    assert digest(dirty) == digest(zero) == digest(pa.array([zero[0].as_py(), None], kind))


def test_text_under_a_missing_value_does_not_count():
    offsets = pa.py_buffer(np.array([0, 1, 4], np.int32).tobytes())
    dirty = pa.Array.from_buffers(pa.string(), 2, [pa.py_buffer(b"\x01"), offsets, pa.py_buffer(b"axyz")])
    assert dirty.to_pylist() == ["a", None]
    assert digest(dirty) == digest(pa.array(["a", None]))


def test_where_one_text_ends_shows():
    assert digest(pa.array(["ab", "c"])) != digest(pa.array(["a", "bc"]))
    assert digest(pa.array(["", "a"])) != digest(pa.array(["a", ""]))
    assert digest(pa.array([""])) != digest(pa.array([None], pa.string()))


def test_names_types_and_order_of_columns_count():
    a, b = pa.array([1, 2]), pa.array([3, 4])
    table = open_table_in_memory(pa.table({"a": a, "b": b}))
    different = [
        content_digest(table, ("a", "b")),
        content_digest(table, ("b", "a")),
        content_digest(table, ("a",)),
        digest(b, a, names=("a", "b")),
        digest(a, b, names=("a", "c")),
        digest(a.cast(pa.int32()), b, names=("a", "b")),
    ]
    assert len(set(different)) == len(different)
    assert digest(a, b, names=("a", "b")) == different[0]


def test_what_is_not_sent_does_not_count():
    one, other = (pa.table({"a": [1, 2], "id": [first, first + 1]}) for first in (0, 100))
    assert len({content_digest(open_table_in_memory(table), ("a",)) for table in (one, other)}) == 1


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())], ids=str)
def test_the_same_text_in_another_type_is_other_data(kind):
    """The server is sent the type too, and may treat it in another way."""
    texts = pa.array(["a", None, "b"])
    assert digest(texts.cast(kind) if "dict" not in str(kind) else texts.dictionary_encode().cast(kind)) != digest(
        texts
    )


def test_how_a_dictionary_is_numbered_does_not_count():
    kind = pa.dictionary(pa.int8(), pa.string())
    one = pa.DictionaryArray.from_arrays(pa.array([0, 1, None], pa.int8()), ["a", "b"])
    other = pa.DictionaryArray.from_arrays(pa.array([2, 0, None], pa.int8()), ["b", "unused", "a"])
    missing = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2], pa.int8()), pa.array(["a", "b", None]))
    assert one.type == other.type == missing.type == kind
    assert len({digest(each) for each in (one, other, missing)}) == 1
    assert digest(pa.chunked_array([one[:1], other[1:]])) == digest(one)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_batch_without_rows_does_not_show(kind):
    empty = pa.RecordBatch.from_arrays([pa.array([], kind)], names=["a"])
    some = pa.RecordBatch.from_arrays([array_of(kind)], names=["a"])
    assert content_digest(Batches([empty, empty]), ("a",)) == content_digest(Batches([empty]), ("a",))
    assert content_digest(Batches([empty, some, empty]), ("a",)) == digest(array_of(kind), names=("a",))


# Anything

columns = st.integers(0, 12).flatmap(
    lambda rows: st.fixed_dictionaries(
        {
            name: st.lists(st.none() | some, min_size=rows, max_size=rows)
            for name, some in {
                "number": st.integers(-(2**63), 2**63 - 1),
                "float": st.floats(),
                "text": st.text(),
                "bytes": st.binary(max_size=5),
                "flag": st.booleans(),
                "when": st.datetimes(),
            }.items()
        }
    )
)
SCHEMA = pa.schema(
    [
        ("number", pa.int64()),
        ("float", pa.float64()),
        ("text", pa.string()),
        ("bytes", pa.binary()),
        ("flag", pa.bool_()),
        ("when", pa.timestamp("us")),
    ]
)


@given(columns, st.lists(st.integers(0, 12), max_size=4), st.integers(0, 3))
def test_equal_tables_have_one_digest(data, ends, padding):
    table = pa.table(data, SCHEMA)
    rows = table.num_rows
    padded = pa.concat_tables([table.slice(0, min(padding, rows)), table])
    shifted = padded.slice(min(padding, rows))
    places = sorted({0, rows, *(end for end in ends if end < rows)})
    pieces = [shifted.slice(a, b - a).combine_chunks() for a, b in itertools.pairwise(places)]
    again = pa.concat_tables(pieces) if pieces else shifted
    assert again.equals(table) or "float" in data  # NaN is not equal to itself
    assert digest(*again.columns) == digest(*table.columns)


@given(columns, columns)
def test_other_tables_have_another(one, other):
    tables = [pa.table(data, SCHEMA) for data in (one, other)]
    same = repr(tables[0].to_pydict()) == repr(tables[1].to_pydict())
    assert (digest(*tables[0].columns) == digest(*tables[1].columns)) == same


# What users have


def frame():
    return pd.DataFrame(
        {
            "number": [1.5, None, float("nan"), 4.0],
            "count": pd.array([1, None, 3, 4], "Int64"),
            "text": ["a", None, "Grüße", ""],
            "when": pd.to_datetime(["2026-11-21", None, "2026-11-23", "2026-11-24"]).tz_localize("Europe/Berlin"),
            "kind": pd.Categorical(["u", "v", None, "u"]),
            "flag": [True, False, True, False],
        }
    )


def test_a_frame_is_the_arrow_table_of_its_schema():
    table = pa.Table.from_pandas(frame(), preserve_index=False)
    names = tuple(table.column_names)
    assert content_digest(open_frame(frame()), names) == content_digest(open_table_in_memory(table), names)


def test_the_index_of_a_frame_does_not_count():
    names = tuple(frame().columns)
    shuffled = frame().set_index(pd.Index([9, 7, 7, 1]))
    assert content_digest(open_frame(frame()), names) == content_digest(open_frame(shuffled), names)


def test_a_stream_is_the_table_it_gave():
    table = pa.Table.from_pandas(frame(), preserve_index=False)
    names = tuple(table.column_names)
    reader = pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=3))
    assert content_digest(open_stream(reader), names) == content_digest(open_table_in_memory(table), names)


def test_a_large_frame_is_cut_anywhere(monkeypatch):
    from tabpfn_operators.tables import _memory

    seed = 20261121
    numbers = random.Random(seed)
    rows = [(numbers.random(), numbers.choice(["a", None, "bb"]), numbers.random() > 0.5) for _ in range(1000)]
    many = pd.DataFrame(rows, columns=["x", "text", "flag"])
    whole = content_digest(open_frame(many), ("x", "text", "flag"))
    for size in (64, 1000, 5000):
        monkeypatch.setattr(_memory, "BATCH_BYTES", size)
        assert open_frame(many).batch_rows < 1000
        assert content_digest(open_frame(many), ("x", "text", "flag")) == whole, f"seed {seed}, batches of {size} bytes"


def test_a_fingerprint_reads_what_is_in_memory_and_tells_train_from_test():
    table = Reading(frame()).open()
    changed = frame()
    changed.loc[0, "number"] = 1.25
    different = [
        fingerprint_of(table, ("number", "text"), "flag"),
        fingerprint_of(table, ("number", "text", "flag"), None),
        fingerprint_of(table, ("text", "number"), "flag"),
        fingerprint_of(Reading(changed).open(), ("number", "text"), "flag"),
    ]
    assert len(set(different)) == 4
    assert fingerprint_of(Reading(frame()).open(), ("number", "text"), "flag") == different[0]
    assert fingerprint_of(Reading(changed).open(), ("text",), "flag") == fingerprint_of(table, ("text",), "flag")
