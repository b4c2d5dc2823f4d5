"""The stand-in behind the reasoning API: a small tree, and the filters that choose its rows."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tabpfn_emulator._envelopes import DataError
from tabpfn_emulator._learning import model as _learning
from tabpfn_emulator._learning.reasoning import fit
from tabpfn_emulator._learning.row_filters import matching


@pytest.fixture
def write(tmp_path):
    def to_file(frame, file_format="parquet"):
        path = tmp_path / f"data.{file_format}"
        if file_format == "csv":
            frame.to_csv(path, index=False)
        else:
            frame.to_parquet(path, index=False)
        return path

    return to_file


def people(rows=200):
    rng = np.random.default_rng(0)
    age = rng.integers(18, 80, rows)
    city = np.array(["Oslo", "Rome", "Lima"])[rng.integers(0, 3, rows)]
    return pd.DataFrame(
        {
            "age": age,
            "city": city,
            "seen": [dt.datetime(2024, 1, 1, tzinfo=dt.UTC) + dt.timedelta(days=int(day)) for day in age],
            "income": 100.0 * age + 1000.0 * (city == "Rome"),
            "old": age > 50,
            "note": [None if row % 5 == 0 else f"n{row % 2}" for row in range(rows)],
        }
    )


@pytest.mark.parametrize("file_format", ["parquet", "csv"])
def test_numbers_are_clearly_better_than_the_mean(write, file_format):
    frame = people()
    path = write(frame, file_format)
    model = fit(path, file_format, "income", "regression")
    predicted = np.array(model.predict_file(path, file_format))
    assert predicted.shape == (200, 1)
    assert np.std(predicted[:, 0] - frame["income"]) < 0.2 * frame["income"].std()
    assert (model.columns, model.classes) == (("age", "city", "seen", "old", "note"), ())


@pytest.mark.parametrize(
    ("label", "kind", "classes"),
    [
        ("old", "binclass", (False, True)),
        ("old", "multiclass", (False, True)),
        ("city", "multiclass", ("Lima", "Oslo", "Rome")),
    ],
)
def test_classes_have_probabilities_in_sorted_order(write, label, kind, classes):
    frame = people()
    path = write(frame)
    model = fit(path, "parquet", label, kind)
    shares = np.array(model.predict_file(path, "parquet"))
    assert model.classes == classes
    assert shares.sum(axis=1) == pytest.approx(1)
    right = np.array(classes)[shares.argmax(axis=1)] == frame[label]
    assert right.mean() > frame[label].value_counts(normalize=True).max() + 0.05


def test_rows_as_objects_and_rows_of_a_file_are_predicted_alike(write):
    frame = people()
    path = write(frame)
    model = fit(path, "parquet", "income", "regression")
    rows = [{**row, "seen": row["seen"].isoformat()} for row in frame.to_dict("records")]
    assert model.predict(rows) == model.predict_file(path, "parquet")
    assert model.predict([]) == []
    assert len(model.predict([{}, {"age": None, "unknown": 1}])) == 2


def test_columns_of_a_file_are_found_by_their_names(write):
    frame = people()
    model = fit(write(frame), "parquet", "income", "regression")
    expected = model.predict_file(write(frame), "parquet")
    turned = frame[frame.columns[::-1]].assign(more=1)
    assert model.predict_file(write(turned), "parquet") == expected
    with pytest.raises(DataError, match=r"no columns \['city', 'old'\]"):
        model.predict_file(write(frame.drop(columns=["old", "city"])), "parquet")


def test_equal_input_gives_an_equal_model(write):
    path = write(people())
    first, second = (fit(path, "parquet", "city", "multiclass", None, seed).predict([{"age": 30}]) for seed in (-1, -1))
    assert first == second


def test_only_filtered_rows_with_a_label_are_learnt_from(write):
    frame = people()
    frame.loc[:9, "income"] = None
    path = write(frame)
    young = {"kind": "cmp", "col": "age", "op": "lt", "value": 40}
    model = fit(path, "parquet", "income", "regression", young)
    assert model.rows == ((frame["age"] < 40) & frame["income"].notna()).sum()
    assert len(model.predict_file(path, "parquet", young)) == (frame["age"] < 40).sum()


def test_a_large_dataset_is_sampled(write, monkeypatch):
    monkeypatch.setattr(_learning, "SAMPLE_ROWS", 100)
    monkeypatch.setattr(_learning, "_MIN_SAMPLE_ROWS", 50)
    assert fit(write(people()), "parquet", "old", "binclass").rows == 100


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"label_column": "nope"}, "no column 'nope'"),
        ({"label_column": "city", "task_kind": "binclass"}, "two labels"),
        ({"label_column": "city"}, "finite numbers"),
        ({"file_format": "pkl"}, "does not read pkl"),
        ({"row_filter": {"col": "age", "op": "gt", "value": 99}}, "No row passes"),
        ({"row_filter": {"col": "nope"}}, "names the column 'nope'"),
        ({"row_filter": {"col": "age", "op": "gt", "value": "many"}}, "not of that column's type"),
        ({"row_filter": {"col": "seen", "op": "gt", "value": "many"}}, "not of that column's type"),
        ({"row_filter": {"col": "city", "op": "eq", "value": None}}, "not of that column's type"),
        ({"row_filter": {"col": "age", "op": "in", "value": 3}}, "needs a list"),
        ({"row_filter": {"col": "age", "op": "like", "value": 3}}, "not known"),
    ],
)
def test_what_cannot_be_fitted_is_refused(write, change, words):
    options = {"file_format": "parquet", "label_column": "income", "task_kind": "regression", **change}
    with pytest.raises(DataError, match=words):
        fit(write(people()), **options)


@pytest.mark.parametrize("frame", [pd.DataFrame({"y": [1.0, 2.0]}), pd.DataFrame({"y": [], "a": []})])
def test_nothing_to_learn_from_is_refused(write, frame):
    with pytest.raises(DataError):
        fit(write(frame), "parquet", "y", "regression")


CASES = [
    ("age", "eq", 30, lambda row: row["age"] == 30),
    ("age", "ne", 30, lambda row: row["age"] != 30),
    ("age", "ge", "30", lambda row: row["age"] >= 30),
    ("age", "le", 30.5, lambda row: row["age"] <= 30),
    ("age", "in", [20, 30, 40], lambda row: row["age"] in {20, 30, 40}),
    ("old", "eq", True, lambda row: row["old"]),
    ("city", "gt", "Lima", lambda row: row["city"] > "Lima"),
    ("city", "not_in", ["Rome"], lambda row: row["city"] != "Rome"),
    ("note", "eq", "n1", lambda row: row["note"] == "n1"),
    ("note", "ne", "n1", lambda row: row["note"] == "n0"),
    ("note", "not_in", ["n1"], lambda row: row["note"] == "n0"),
    ("note", "is_null", None, lambda row: row["note"] is None),
    ("note", "is_not_null", None, lambda row: row["note"] is not None),
    ("seen", "lt", "2024-02-10", lambda row: row["seen"] < dt.datetime(2024, 2, 10, tzinfo=dt.UTC)),
]


@pytest.mark.parametrize(("column", "name", "value", "holds"), CASES)
def test_comparisons(column, name, value, holds):
    frame = people().astype({"note": object})
    frame["note"] = frame["note"].where(frame["note"].notna(), None)
    mask = matching(frame, {"kind": "cmp", "col": column, "op": name, "value": value})
    assert mask.tolist() == [bool(holds(row)) for row in frame.to_dict("records")]
    assert 0 < mask.sum() < len(frame)


def test_a_column_without_values_passes_no_comparison():
    frame = pd.DataFrame({"a": [None, None]})
    assert not matching(frame, {"col": "a", "op": "eq", "value": "x"}).any()
    assert matching(frame, {"col": "a", "op": "is_null"}).all()


leaves = st.builds(
    lambda name, value: {"kind": "cmp", "col": "a", "op": name, "value": value},
    st.sampled_from(["eq", "ne", "lt", "le", "gt", "ge"]),
    st.integers(0, 9),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(lambda arg: {"kind": "not", "arg": arg}, inner),
        st.builds(
            lambda name, args: {"kind": "bool", "op": name, "args": args},
            st.sampled_from(["and", "or"]),
            st.lists(inner, min_size=1, max_size=3),
        ),
    ),
    max_leaves=6,
)


def holds(tree, value):
    if tree["kind"] == "not":
        return not holds(tree["arg"], value)
    if tree["kind"] == "bool":
        combine = all if tree["op"] == "and" else any
        return combine(holds(part, value) for part in tree["args"])
    wanted = tree["value"]
    return {
        "eq": value == wanted,
        "ne": value != wanted,
        "lt": value < wanted,
        "le": value <= wanted,
        "gt": value > wanted,
        "ge": value >= wanted,
    }[tree["op"]]


@settings(derandomize=True, deadline=None)
@given(trees)
def test_filters_combine_as_logic_does(tree):
    frame = pd.DataFrame({"a": range(10)})
    assert matching(frame, tree).tolist() == [holds(tree, value) for value in range(10)]
