"""Part files whose schemas differ: one schema, as long as no value changes."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabpfn_operators.errors import InvalidInputError
from tabpfn_operators.tables._unify import aligned, unify


def unified(*kinds):
    return unify([(f"part-{i}", pa.schema([("c", kind)])) for i, kind in enumerate(kinds)]).field("c").type


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (pa.int32(), pa.int64(), pa.int64()),
        (pa.int8(), pa.uint8(), pa.int16()),
        (pa.uint32(), pa.int32(), pa.int64()),
        (pa.int32(), pa.float64(), pa.float64()),
        (pa.int16(), pa.float32(), pa.float32()),
        (pa.int32(), pa.float32(), pa.float64()),
        (pa.float32(), pa.float64(), pa.float64()),
        (pa.null(), pa.string(), pa.string()),
        (pa.null(), pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.int8(), pa.string())),
        (pa.string(), pa.large_string(), pa.large_string()),
        (pa.decimal128(5, 2), pa.decimal128(9, 3), pa.decimal128(9, 3)),
        (pa.timestamp("ms"), pa.timestamp("us"), pa.timestamp("us")),
        (pa.timestamp("ms", "UTC"), pa.timestamp("us", "UTC"), pa.timestamp("us", "UTC")),
        (
            pa.dictionary(pa.int8(), pa.string()),
            pa.dictionary(pa.int32(), pa.string()),
            pa.dictionary(pa.int32(), pa.string()),
        ),
    ],
    ids=str,
)
def test_types_that_have_a_wider_one(one, other, both):
    assert unified(one, other) == both
    assert unified(other, one) == both


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pa.int64(), pa.float64()),
        (pa.int64(), pa.uint64()),
        (pa.int64(), pa.string()),
        (pa.bool_(), pa.int8()),
        (pa.float64(), pa.decimal128(9, 2)),
        (pa.timestamp("us"), pa.timestamp("us", "UTC")),
        (pa.timestamp("us", "UTC"), pa.timestamp("us", "Europe/Berlin")),
        (pa.date32(), pa.timestamp("us")),
        (pa.date32(), pa.string()),
        (pa.dictionary(pa.int8(), pa.string()), pa.string()),
        (pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.int8(), pa.string(), ordered=True)),
        (pa.list_(pa.int32()), pa.list_(pa.int64())),
    ],
    ids=str,
)
def test_types_that_have_none(one, other):
    for first, second in ((one, other), (other, one)):
        with pytest.raises(InvalidInputError) as caught:
            unified(first, second)
        text = str(caught.value)
        assert "'c'" in text
        assert "part-1" in text
        assert str(first) in text
        assert str(second) in text


NUMBERS = {kind: (-(2 ** (kind.bit_width - 1)), 2 ** (kind.bit_width - 1) - 1) for kind in map(pa.type_for_alias, ("int8", "int16", "int32", "int64"))} | {kind: (0, 2**kind.bit_width - 1) for kind in map(pa.type_for_alias, ("uint8", "uint16", "uint32", "uint64"))}  # fmt: skip # noqa: E501
FLOATS = {pa.float32(): (-(2**24), 2**24), pa.float64(): (-(2**53), 2**53)}


@given(one=st.sampled_from([*NUMBERS, *FLOATS]), other=st.sampled_from([*NUMBERS, *FLOATS]), data=st.data())
def test_no_number_changes(one, other, data):
    try:
        both = unified(one, other)
    except InvalidInputError:
        return
    for kind in (one, other):
        least, most = {**NUMBERS, **FLOATS}[kind]
        values = data.draw(st.lists(st.sampled_from([least, most, 0, 1]) | st.integers(least, most), min_size=1))
        batch = pa.record_batch({"c": pa.array(values, pa.int64() if most < 2**63 else pa.uint64()).cast(kind)})
        assert aligned(batch, pa.schema([("c", both)]), {}).column("c").to_pylist() == values


def test_missing_columns_are_null_and_the_order_is_that_of_first_appearance():
    first = pa.schema([pa.field("a", pa.int64(), nullable=False), ("b", pa.string())], metadata={"k": "v"})
    second = pa.schema([("c", pa.float64()), pa.field("a", pa.int64(), nullable=False)])
    schema = unify([("1", first), ("2", second)])
    assert schema.names == ["a", "b", "c"]
    assert schema.metadata == {b"k": b"v"}
    assert [field.nullable for field in schema] == [False, True, True]
    batch = pa.record_batch([pa.array([1.5]), pa.array([7])], schema=second)
    assert aligned(batch, schema, {}).to_pydict() == {"a": [7], "b": [None], "c": [1.5]}
    assert aligned(batch, schema, {"b": pa.scalar("x")}).to_pydict()["b"] == ["x"]


def test_equal_schemas_are_left_alone():
    schema = pa.schema([("a", pa.int64()), ("a", pa.string())], metadata={"k": "v"})
    assert unify([("1", schema), ("2", schema)]) is schema


def test_a_name_twice_in_part_files_that_differ():
    twice = pa.schema([("a", pa.int64()), ("a", pa.string())])
    with pytest.raises(InvalidInputError, match="more than once"):
        unify([("1", pa.schema([("a", pa.int64())])), ("2", twice)])


def test_a_time_that_the_finer_unit_cannot_hold():
    far = pa.record_batch({"c": pa.array([2**60], pa.timestamp("ms"))})
    with pytest.raises(InvalidInputError, match="'c'"):
        aligned(far, pa.schema([("c", pa.timestamp("ns"))]), {})
