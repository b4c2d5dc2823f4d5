"""The two ways to walk a footer agree, and the compact protocol is read as it is written."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabpfn_operators.splice import _thrift as thrift
from tabpfn_operators.splice._chunks import ChunkWalk
from tabpfn_operators.splice._footer import parse_footer
from tabpfn_operators.splice._rewrite import Part, rewrite
from tabpfn_operators.splice._schema import arrow_schema
from tabpfn_operators.splice._thrift import MalformedError

INT64 = st.integers(-(2**63), 2**63 - 1)


def footer_of(table, **options):
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    data = file.getvalue()
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    return data[start:-8], start


TABLE = pa.table(
    {
        "number": range(50),
        "small": pa.array([n % 3 for n in range(50)], pa.int8()),
        "text": [None if n % 4 else "x" * n * 4 for n in range(50)],
        "fixed": pa.array([b"abc"] * 50, pa.binary(3)),
        "flag": [True, False] * 25,
        "none": pa.nulls(50),
        "list": [[n] * (n % 3) for n in range(50)],
    }
)


@pytest.mark.parametrize("options", [{}, {"write_page_index": True}, {"row_group_size": 7, "use_dictionary": False}])
def test_the_quick_walk_and_the_slow_one_agree(options, monkeypatch):
    data, start = footer_of(TABLE, **options)
    slow_calls = []
    slow = ChunkWalk._unusual
    monkeypatch.setattr(ChunkWalk, "_unusual", lambda *args: slow_calls.append(args) or slow(*args))
    quick = parse_footer(data, data_end=start)
    assert slow_calls == [], "what pyarrow writes is quick"

    def slowly(self, position):
        for index in range(len(self._leaves)):
            position = self._unusual(position, index)
        return position

    monkeypatch.setattr(ChunkWalk, "row_group", slowly)
    other = parse_footer(data, data_end=start)
    assert len(slow_calls) == quick.starts.size
    results = []
    for footer in (quick, other):
        groups = np.arange(len(footer.group_rows))
        segments, tail = rewrite([Part(0, footer, groups)], [2, 0, 6], arrow_schema(footer, "here"))
        results.append(
            (tail, segments.lengths.tolist(), segments.offsets.tolist(), [footer.nulls(i) for i in range(7)])
        )
    assert results[0] == results[1]
    assert results[0][3][2] == TABLE.column("text").null_count


def test_bloom_filters_take_the_slow_walk_and_are_left_out(tmp_path):
    data, start = footer_of(TABLE, bloom_filter_options={"number": {"ndv": 9}, "text": {"ndv": 9}})
    footer = parse_footer(data, data_end=start)
    assert len(footer.described) > len(data)
    _, tail = rewrite([Part(0, footer, np.arange(1))], range(7), arrow_schema(footer, "here"))
    again = parse_footer(tail[:-8], data_end=start)
    assert again.described == again.data


@given(st.lists(INT64, max_size=40))
def test_numbers_read_one_by_one_and_together_alike(values):
    encoded = [thrift.integer(value) for value in values]
    data = b"".join(encoded)
    starts = np.cumsum([0, *map(len, encoded)])[:-1].astype(np.int64) if values else np.empty(0, np.int64)
    assert [thrift.read_int(data, int(start)) for start in starts] == values
    assert thrift.read_ints(np.frombuffer(data or b"\0", np.uint8), starts).tolist() == values


@given(st.lists(st.integers(0, 2**62), min_size=1, max_size=40))
def test_numbers_written_one_by_one_and_together_alike(values):
    rows, lengths = thrift.write_ints(np.array(values, np.int64))
    assert [bytes(row[:length]) for row, length in zip(rows, lengths, strict=True)] == [
        thrift.integer(value) for value in values
    ]


FIELDS = st.lists(
    st.tuples(
        st.integers(1, 2000), st.sampled_from([thrift.I64, thrift.BINARY, thrift.TRUE]), INT64, st.binary(max_size=200)
    ),
    max_size=20,
    unique_by=lambda field: field[0],
).map(sorted)


@given(FIELDS, st.binary(max_size=5))
def test_a_struct_is_read_as_it_was_written(fields, behind):
    values = {thrift.I64: lambda f: thrift.integer(f[2]), thrift.BINARY: lambda f: thrift.binary(f[3])}
    written = thrift.struct([(f[0], f[1], values.get(f[1], lambda f: b"")(f)) for f in fields])
    found, stop = thrift.read_struct(written + behind, 0)
    assert stop == len(written) == thrift.skip(written + behind, 0, thrift.STRUCT)
    assert [(field.id, field.type) for field in found] == [f[:2] for f in fields]
    for field, f in zip(found, fields, strict=True):
        if field.type == thrift.I64:
            assert thrift.read_int(written, field.start) == f[2]
        elif field.type == thrift.BINARY:
            assert thrift.read_binary(written, field) == f[3]


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data):
    try:
        _, stop = thrift.read_struct(data, 0)
    except MalformedError:
        return
    assert stop <= len(data)


def test_nesting_and_lengths_have_bounds():
    for data in (
        b"\x1c" * 100,
        b"\x18\xff\xff\xff\x7f",
        b"\x19\xfc\xff\xff\xff\x7f",
        b"\x16" + b"\xff" * 20,
        b"\x1f\x00",
    ):
        with pytest.raises(MalformedError):
            thrift.read_struct(data, 0)
