"""Row filters: what pyarrow understands, from Python and from JSON, checked before a row is read."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabpfn_operators.errors import InvalidInputError
from tabpfn_operators.tables._filters import parse_filters

ROWS = pa.table(
    {
        "n": pa.array([1, 2, None, 4, 5], pa.int64()),
        "x": [0.5, float("nan"), None, 2.5, -1.0],
        "text": ["a", "b", None, "a", "größe"],
        "kind": pa.array(["a", "b", None, "a", "c"]).dictionary_encode(),
        "day": pa.array([date(2026, 11, day) for day in range(1, 6)]),
        "zoned": pa.array([datetime(2026, 11, day, tzinfo=UTC) for day in range(1, 6)]),
        "naive": pa.array([datetime(2026, 11, day) for day in range(1, 6)], pa.timestamp("ns")),  # noqa: DTZ001
        "money": pa.array([Decimal(f"{n}.50") for n in range(5)], pa.decimal128(9, 2)),
        "a.b c": [True, False, None, True, True],
    }
)
BATCH = ROWS.to_batches()[0]


def kept(filters):
    found = parse_filters(filters, ROWS.schema)
    return found.keep(BATCH).column("naive").to_pylist()


def pyarrows(filters):
    return ROWS.filter(pq.filters_to_expression(filters)).column("naive").to_pylist()


numbers = st.tuples(
    st.sampled_from(["n", "x"]), st.sampled_from(["=", "==", "!=", "<", ">", "<=", ">="]), st.integers(-2, 6)
)
texts = st.tuples(st.sampled_from(["text", "kind"]), st.sampled_from(["==", "!=", "<", ">="]), st.sampled_from("abcz"))
sets = st.tuples(
    st.sampled_from(["text", "kind"]),
    st.sampled_from(["in", "not in"]),
    st.lists(st.sampled_from("abcz"), min_size=1, max_size=3),
)
numbers_of = st.tuples(
    st.sampled_from(["n", "x"]),
    st.sampled_from(["in", "not in"]),
    st.lists(st.integers(0, 6) | st.just(2.5), min_size=1, max_size=3),
)
flags = st.tuples(st.just("a.b c"), st.sampled_from(["==", "!="]), st.booleans())
conjunctions = st.lists(numbers | texts | sets | numbers_of | flags, min_size=1, max_size=3)


@given(conjunctions | st.lists(conjunctions, min_size=1, max_size=3))
def test_rows_are_those_of_pyarrow_also_from_json(filters):
    expected = pyarrows(filters)
    assert kept(filters) == expected
    assert kept(json.dumps(filters)) == expected
    columns = {one[0] for every in (filters if isinstance(filters[0], list) else [filters]) for one in every}
    assert set(parse_filters(filters, ROWS.schema).columns) == columns


@given(conjunctions)
def test_an_expression_and_the_columns_it_needs(filters):
    found = parse_filters(pq.filters_to_expression(filters), ROWS.schema)
    assert set(found.columns) == {one[0] for one in filters}
    assert found.keep(BATCH).column("naive").to_pylist() == pyarrows(filters)


@pytest.mark.parametrize(
    ("condition", "same"),
    [
        (["day", ">", "2026-11-03"], pc.field("day") > date(2026, 11, 3)),
        (["day", "in", ["2026-11-03", "2026-11-09"]], pc.field("day") == date(2026, 11, 3)),
        (["zoned", "<=", "2026-11-02T01:00:00+01:00"], pc.field("zoned") <= datetime(2026, 11, 2, tzinfo=UTC)),
        (["zoned", "in", ["2026-11-02T00:00:00Z"]], pc.field("zoned") == datetime(2026, 11, 2, tzinfo=UTC)),
        (["naive", "==", "2026-11-02"], pc.field("naive") == datetime(2026, 11, 2)),  # noqa: DTZ001
        (["money", ">=", "2.50"], pc.field("money") >= Decimal("2.50")),
        (["money", "in", ["2.50"]], pc.field("money") == Decimal("2.50")),
        (["x", "==", None], pc.field("x").is_null(nan_is_null=True)),
        (["text", "!=", None], pc.field("text").is_valid()),
    ],
)
def test_text_is_read_as_what_the_column_holds_and_null_asks_for_missing(condition, same):
    expected = ROWS.filter(same).column("naive").to_pylist()
    assert 0 < len(expected) < 5
    assert kept(json.dumps([condition])) == expected


@pytest.mark.parametrize("column", ROWS.column_names)
def test_one_of_none(column):
    assert kept([(column, "in", [])]) == []
    assert len(kept([(column, "not in", [])])) == 5


def test_missing_values_in_a_list():
    assert kept('[["text", "in", ["b", null]]]') == pyarrows([("text", "in", ["b", None])])


def test_dates_of_python():
    assert kept([("day", ">", date(2026, 11, 4)), ("zoned", ">", datetime(2026, 11, 1, tzinfo=UTC))]) == pyarrows(
        [("day", ">", date(2026, 11, 4))]
    )


def test_an_expression_that_needs_no_column():
    assert parse_filters(pc.scalar(True), ROWS.schema).keep(BATCH).num_rows == 5


@pytest.mark.parametrize("nothing", [None, [], (), "", "  ", "null", "[]"])
def test_no_filter(nothing):
    assert parse_filters(nothing, ROWS.schema) is None


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        ('[["n", ">", 1', "no JSON"),
        ("n > 1", "no JSON"),
        ('{"n": 1}', "no list of conditions"),
        (7, "no list of conditions"),
        (["n", ">", 1], "no list of conditions"),
        ([[]], "no list of conditions"),
        ([[[]]], "A condition is"),
        ([["n", ">"]], "A condition is"),
        ([["n", ">", 1], "x"], "no list of conditions"),
        ([["n", 5, 1]], "A condition is"),
        ([[["n", ">", 1]], [7]], "no list of conditions"),
        ([["n", "~", 1]], "operator '~'; use one of =, ==, !="),
        ([["m", ">", 1]], r"column 'm', which is not there \('n', 'x'"),
        ([["text", ">", 1]], r"column 'text' \(string\) with 1"),
        ([["n", "==", "1"]], r"column 'n' \(int64\) with '1'"),
        ([["n", "==", [1]]], r"column 'n' \(int64\) with \[1\]"),
        ([["n", "==", {"a": 1}]], "column 'n'"),
        ([["n", "in", 1]], "no list of values"),
        ([["text", "in", "abc"]], "no list of values"),
        ([["n", "in", [1, "x"]]], "column 'n'"),
        ([["n", "<", None]], "null by '<'"),
        ([["day", ">", "yesterday"]], r"column 'day' \(date32\[day\]\) with 'yesterday'"),
        ([["zoned", ">", "2026-11-03"]], "'2026-11-21T00:00:00Z', with a zone"),
        ([["naive", ">", "2026-11-03T00:00:00Z"]], "'2026-11-21T00:00:00', without a zone"),
        ([["n", "==", 2**70]], "column 'n'"),
        (pc.field("m") > 1, "does not fit the columns"),
        (pc.field("text") > 1, "does not fit the columns"),
        (pc.field("n"), "gives int64 and no truth value"),
    ],
)
def test_what_is_wrong_is_named(filters, words):
    with pytest.raises(InvalidInputError, match=words):
        parse_filters(filters, ROWS.schema)


def test_a_column_that_is_there_twice():
    with pytest.raises(InvalidInputError, match="more than once"):
        parse_filters([["a", ">", 1]], pa.schema([("a", pa.int64()), ("a", pa.int64())]))
