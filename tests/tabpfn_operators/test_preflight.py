"""Checks before any byte moves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabpfn_assets import Feature
from tabpfn_operators import preflight
from tabpfn_operators.errors import InvalidInputError, LimitExceededError
from tabpfn_operators.preflight import kind_of, select_features
from tabpfn_operators.server import ModelLimit, ServerSettings, model_version_of

COUNTS = st.integers(0, 1000)
LIMITS = st.none() | st.integers(0, 1000)


@given(rows=COUNTS, columns=COUNTS, classes=st.none() | COUNTS, max_rows=LIMITS, max_cols=LIMITS, max_classes=LIMITS)
def test_every_train_limit_that_is_exceeded_is_listed(rows, columns, classes, max_rows, max_cols, max_classes):
    limit = ModelLimit(
        train_set_max_rows=max_rows,
        max_cols=max_cols,
        max_classes=max_classes,
        train_set_max_upload_cells=None if max_rows is None or max_cols is None else max_rows * max_cols,
    )
    over = [
        max_rows is not None and rows > max_rows,
        max_cols is not None and columns > max_cols,
        limit.train_set_max_upload_cells is not None and rows * columns > limit.train_set_max_upload_cells,
        max_classes is not None and (classes or 0) > max_classes,
    ]
    found = preflight.train_limit_problems(limit, rows=rows, columns=columns, classes=classes)
    assert len(found) == sum(over)


def test_a_limit_is_told_with_figure_limit_and_remedy():
    found = preflight.train_limit_problems(
        ModelLimit(train_set_max_rows=1_000_000), rows=1_000_001, columns=1, classes=None
    )
    assert found == ["1,000,001 rows, the server takes 1,000,000; train on a sample or on fewer row groups"]


@pytest.mark.parametrize(
    ("limit", "arguments", "words"),
    [
        ({"test_set_max_rows": 9}, {}, ["10 rows, the server takes 9"]),
        ({"test_set_max_cells": 19}, {}, ["20 cells"]),
        ({"predict_row_pairs_budget": 900}, {}, ["10 rows for a model of 100 train rows, the server takes 9"]),
        ({"predict_row_pairs_budget": 900}, {"subsampled": True}, []),
        ({"test_set_max_rows_w_full_regression_output": 9}, {}, []),
        ({"test_set_max_rows_w_full_regression_output": 9}, {"output_type": "full"}, ["with output type full"]),
        ({"test_set_max_rows": 1, "test_set_max_cells": 1}, {}, ["10 rows", "20 cells"]),
        ({}, {"output_type": "full"}, []),
    ],
)
def test_limits_of_a_test_set(limit, arguments, words):
    given_ = {"rows": 10, "columns": 2, "train_rows": 100, "output_type": "mean", "subsampled": False, **arguments}
    found = preflight.test_limit_problems(ModelLimit(**limit), **given_)
    assert len(found) == len(words)
    assert all(word in text for word, text in zip(words, found, strict=True))


def test_all_problems_come_in_one_error():
    with pytest.raises(InvalidInputError) as caught:
        preflight.raise_problems("train.parquet", ["no target"], ["too many rows"])
    assert type(caught.value) is InvalidInputError
    assert caught.value.problems == ("no target", "too many rows")
    assert str(caught.value) == "train.parquet:\n  - no target\n  - too many rows"


def test_limits_alone_are_a_class_of_their_own():
    with pytest.raises(LimitExceededError, match=r"^train\.parquet: too many rows\.$"):
        preflight.raise_problems("train.parquet", [], ["too many rows"])
    preflight.raise_problems("train.parquet", [])


def select(names, **arguments):
    given_ = {"target": "y", "features": None, "exclude": (), "index_columns": frozenset(), **arguments}
    return select_features(names, **given_)


@pytest.mark.parametrize(
    ("arguments", "chosen"),
    [
        ({}, ("a", "b", "id")),
        ({"exclude": ("b",)}, ("a", "id")),
        ({"index_columns": frozenset({"id"})}, ("a", "b")),
        ({"features": ("b", "a")}, ("b", "a")),
        ({"features": ("b", "b")}, ("b",)),
        ({"features": ("a", "b"), "exclude": ("b",)}, ("a",)),
        ({"features": ("id",), "index_columns": frozenset({"id"})}, ("id",)),
    ],
)
def test_features_that_are_chosen(arguments, chosen):
    assert select(["a", "y", "b", "id"], **arguments) == (chosen, [])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"target": "z"}, ["target 'z' is not among the columns ('a', 'y')"]),
        ({"features": ("a", "q")}, ["column 'q' is not there"]),
        ({"exclude": ("q",)}, ["column 'q' is not there"]),
        ({"features": ("a", "y")}, ["target 'y' is among the features"]),
        ({"features": ()}, ["no feature column is left"]),
        ({"exclude": ("a",)}, ["no feature column is left"]),
        ({"target": "z", "exclude": ("q", "q")}, ["target 'z'", "column 'q'"]),
    ],
)
def test_features_that_cannot_be_chosen(arguments, words):
    _, problems = select(["a", "y"], **arguments)
    assert len(problems) == len(words)
    assert all(problem.startswith(word) for word, problem in zip(words, problems, strict=True))


@given(
    names=st.lists(st.text(max_size=4), max_size=8, unique=True),
    features=st.none() | st.lists(st.text(max_size=4), max_size=4),
    exclude=st.lists(st.text(max_size=4), max_size=3),
    target=st.text(max_size=4),
)
def test_what_is_chosen_is_there_once_and_never_the_target(names, features, exclude, target):
    chosen, problems = select(names, features=features, exclude=exclude, target=target)
    assert set(chosen) <= set(names) - {target, *exclude}
    assert len(set(chosen)) == len(chosen)
    assert problems or (chosen and target in names)


def test_a_long_list_of_columns_is_cut():
    _, problems = select([f"column_{n}" for n in range(2000)])
    assert "and 1988 more" in problems[0]
    assert len(problems[0]) < 400


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, []),
        ({"nulls": 3}, ["not finite in 3 of 100 rows; drop or fill"]),
        ({"rows": 1, "task": "regression", "classes": None}, ["1 row is too few"]),
        ({"classes": 1}, ["has one class only"]),
        ({"classes": 0, "nulls": 100}, ["not finite in 100 of 100 rows"]),
        ({"classes": 10_000, "more_classes": True}, ["more than 10,000 classes"]),
    ],
)
def test_values_of_a_target(arguments, words):
    given_ = {"task": "classification", "rows": 100, "nulls": 0, "classes": 2, "more_classes": False, **arguments}
    found = preflight.target_problems("y", given_.pop("task"), **given_)
    assert len(found) == len(words)
    assert all(word in text for word, text in zip(words, found, strict=True))


KINDS = {
    "number": ["int8", "int64", "uint16", "float", "double", "halffloat", "decimal128(10, 2)", "decimal256(40, 2)"],
    "text": ["string", "large_string", "string_view", "large_utf8"],
    "time": ["timestamp[us]", "date32[day]", "date64[ms]"],
    "time with a zone": ["timestamp[ns, tz=Europe/Berlin]"],
    "bool": ["bool"],
    "duration[ns]": ["duration[ns]"],
    "time64[us]": ["time64[us]"],
    "null": ["null"],
}
NAMED = [(dtype, kind) for kind, dtypes in KINDS.items() for dtype in dtypes]


@pytest.mark.parametrize(("dtype", "kind"), NAMED)
def test_kind_of_a_type(dtype, kind):
    assert kind_of(dtype) == kind


@given(st.sampled_from(NAMED), st.sampled_from(["int8", "int32", "uint16"]), st.integers(0, 1))
def test_a_category_is_what_its_values_are(named, index, ordered):
    dtype, kind = named
    assert kind_of(f"dictionary<values={dtype}, indices={index}, ordered={ordered}>") == kind


def test_kind_of_knows_the_texts_that_arrow_writes():
    import pyarrow as pa

    types = [
        pa.int8(),
        pa.uint64(),
        pa.float16(),
        pa.float32(),
        pa.float64(),
        pa.decimal128(9, 2),
        pa.decimal256(50, 2),
    ]
    assert {kind_of(str(kind)) for kind in types} == {"number"}
    assert {kind_of(str(kind)) for kind in (pa.string(), pa.large_string(), pa.string_view())} == {"text"}
    assert {kind_of(str(kind)) for kind in (pa.date32(), pa.date64(), pa.timestamp("ns"))} == {"time"}
    assert kind_of(str(pa.timestamp("ns", "UTC"))) == "time with a zone"
    for value in (*types, pa.string(), pa.large_string(), pa.timestamp("us", "UTC"), pa.bool_()):
        assert kind_of(str(pa.dictionary(pa.int16(), value))) == kind_of(str(value))


@given(st.text(max_size=30))
def test_kind_of_takes_any_text(text):
    assert isinstance(kind_of(text), str)


def test_schema_of_a_test_set(build_model):
    model = build_model()
    fine = [Feature(name="b", dtype="large_string"), Feature(name="a", dtype="int32"), Feature(name="c", dtype="bool")]
    assert preflight.schema_problems(model, fine) == []
    wrong = preflight.schema_problems(model, [Feature(name="a", dtype="string")])
    assert len(wrong) == 2
    assert "'a' is string, the model was fitted with double" in wrong[0]
    assert "'b' of the model is missing" in wrong[1]


@pytest.mark.parametrize(
    ("path", "version"),
    [
        (None, None),
        ("auto", None),
        ("v3_default", "v3"),
        ("v3.5_default", "v3.5"),
        ("v3.5-fast_default", "v3.5-fast"),
        ("v2.5", "v2.5"),
        ("tabpfn-v3-classifier-v3_default.ckpt", "v3"),
    ],
)
def test_model_version_of_a_config(path, version):
    assert model_version_of({"model_path": path} if path else {}) == version


def test_limits_are_resolved_exactly():
    settings = ServerSettings.model_validate(
        {
            "default_model_version": "v3",
            "max_model_limit": {"max_cols": 9},
            "model_limits": {"v3": {"max_cols": 3}, "v3.5": {"max_cols": 5}},
            "new_field": 1,
        }
    )
    found = [settings.limit_for(version).max_cols for version in (None, "v3", "v3.5", "v3.5-fast")]
    assert found == [3, 3, 5, 9]
