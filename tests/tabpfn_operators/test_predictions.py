"""From the JSON of a prediction to a Parquet file (contract 5)."""

import io
import json
import math
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabpfn_operators.errors import ApiError, InvalidInputError
from tabpfn_operators.predictions import (
    DEFAULT_QUANTILES,
    AnswerIntake,
    check_output,
    probability_column,
    quantile_column,
    write_parquet,
)


def read(prediction, model, output_type, **told):
    with stored(prediction, model, output_type, **told) as found:
        return found.loaded()


@contextmanager
def stored(prediction, model, output_type, *, quantiles=None, rows=2, metadata=None):
    answer = json.dumps({"prediction": prediction, "metadata": metadata or {}, "timings": {"predict_s": 0.5}})
    with AnswerIntake(output_type) as intake:
        intake.reader.feed(answer.encode())
        left = intake.reader.end()
        left = json.loads(left) if intake.reader.problem is None else {}
        yield intake.decoded(left, model, quantiles=quantiles, rows=rows)


def columns(prediction):
    return {name: array.to_pylist() for name, array in prediction.columns.items()}


@pytest.fixture
def regressor(build_model):
    return build_model(parameters={"task": "regression"}, classes=None)


def test_probabilities(build_model):
    found = read([[0.9, 0.1], [0.2, 0.8]], build_model(), "probas")
    assert columns(found) == {
        "prediction": ["no", "yes"],
        "probability_no": [0.9, 0.2],
        "probability_yes": [0.1, 0.8],
    }
    assert found.timings == {"predict_s": 0.5}


def test_a_row_without_probabilities_has_no_prediction(build_model):
    found = columns(read([[0.9, 0.1], [None, None], [0.2, 0.8]], build_model(), "probas", rows=3))
    assert found["prediction"] == ["no", None, "yes"]
    assert math.isnan(found["probability_no"][1])


def test_the_servers_order_of_classes_wins(build_model):
    found = read([[0.9, 0.1], [0.2, 0.8]], build_model(), "probas", metadata={"classes": ["yes", "no"]})
    assert columns(found)["prediction"] == ["yes", "no"]
    assert list(found.columns) == ["prediction", "probability_yes", "probability_no"]


@pytest.mark.parametrize(
    ("classes", "names"),
    [
        ([False, True], ["probability_false", "probability_true"]),
        ([0, 1], ["probability_0", "probability_1"]),
        ([0.0, 1.5], ["probability_0.0", "probability_1.5"]),
        (["0", "größe.x"], ["probability_0", "probability_größe.x"]),
    ],
)
def test_labels_of_every_type_come_back(build_model, classes, names):
    found = read([[0.9, 0.1], [0.2, 0.8]], build_model(classes=classes), "probas")
    assert columns(found)["prediction"] == classes
    assert [type(label) for label in columns(found)["prediction"]] == [type(label) for label in classes]
    assert list(found.columns)[1:] == names


def test_labels_alone(build_model):
    assert columns(read(["yes", "no"], build_model(), "preds")) == {"prediction": ["yes", "no"]}
    assert columns(read([1, 0], build_model(), "preds")) == {"prediction": [1, 0]}
    assert columns(read([True, False], build_model(), "preds")) == {"prediction": [True, False]}
    assert columns(read([1.5, 1], build_model(), "preds")) == {"prediction": [1.5, 1.0]}
    assert columns(read(["yes", None], build_model(), "preds")) == {"prediction": ["yes", None]}
    assert columns(read([None, None], build_model(), "preds")) == {"prediction": [None, None]}


@pytest.mark.parametrize("output_type", ["mean", "median", "mode"])
@pytest.mark.parametrize("body", [[1.5, 2.5], [[1.5], [2.5]]])
def test_numbers(regressor, output_type, body):
    assert columns(read(body, regressor, output_type)) == {"prediction": [1.5, 2.5]}


def test_a_null_number_becomes_nan(regressor):
    values = columns(read([1.5, None], regressor, "mean"))["prediction"]
    assert values[0] == 1.5
    assert math.isnan(values[1])


def test_quantiles_come_quantile_by_quantile(regressor):
    found = read([[1, 2], [3, 4]], regressor, "quantiles", quantiles=(0.1, 0.95))
    assert columns(found) == {"quantile_0.1": [1, 2], "quantile_0.95": [3, 4]}


def test_the_servers_own_quantiles(regressor):
    found = read([[q, q] for q in DEFAULT_QUANTILES], regressor, "quantiles")
    assert columns(found) == {f"quantile_{q}": [q, q] for q in DEFAULT_QUANTILES}


def test_one_quantile_may_come_flat(regressor):
    assert columns(read([1, 2], regressor, "quantiles", quantiles=(0.5,))) == {"quantile_0.5": [1, 2]}
    assert columns(read([[1, 2]], regressor, "quantiles", quantiles=(0.5,))) == {"quantile_0.5": [1, 2]}


MAIN = {"mean": [1, 2], "median": [3, 4], "mode": [5, None], "quantiles": [[6, 7]]}
FULL = {**MAIN, "logits": [[0.5, None, 1], [None, 0, 0]], "borders": [0, 1, 2, 3]}


def test_the_main_output(regressor):
    found = columns(read(MAIN, regressor, "main", quantiles=(0.5,)))
    assert math.isnan(found.pop("mode")[1])
    assert found == {"prediction": [1, 2], "mean": [1, 2], "median": [3, 4], "quantile_0.5": [6, 7]}


def test_the_full_output(regressor):
    found = read(FULL, regressor, "full", quantiles=(0.5,))
    assert columns(found)["logits"] == [[0.5, -math.inf, 1], [-math.inf, 0, 0]]
    assert found.borders == (0.0, 1.0, 2.0, 3.0)


@pytest.mark.parametrize(
    ("output_type", "body"),
    [
        ("probas", [[0.5, 0.5]]),
        ("probas", [[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]]),
        ("probas", [[0.5, 0.5], [0.5]]),
        ("probas", [0.5, 0.5]),
        ("probas", {"a": 1}),
        ("probas", None),
        ("probas", [["a", "b"], ["c", "d"]]),
        ("preds", ["yes"]),
        ("preds", {"0": "yes", "1": "no"}),
        ("preds", "ab"),
        ("preds", [["yes"], 1]),
        ("preds", ["yes", 1]),
        ("preds", [True, 1]),
        ("preds", [1, 2**70]),
        ("preds", ["yes", "\ud800"]),
        ("mean", [1.0]),
        ("mean", [[1.0, 2.0], [1.0, 2.0]]),
        ("mean", ["a", "b"]),
        ("mean", None),
        ("quantiles", [[1, 2]]),
        ("quantiles", [[1, 2, 3]] * 9),
        ("main", [1, 2]),
        ("main", {"mean": [1, 2]}),
        ("main", {**MAIN, "median": [1]}),
        ("full", MAIN),
        ("full", {**FULL, "borders": [0, 1]}),
        ("full", {**FULL, "borders": None}),
        ("full", {**FULL, "borders": ["a", "b", "c", "d"]}),
    ],
)
def test_an_answer_of_another_shape_is_the_servers_fault(build_model, output_type, body):
    task = "classification" if output_type in {"probas", "preds"} else "regression"
    model = build_model(parameters={"task": task})
    quantiles = (0.5,) if output_type in {"main", "full"} else None
    with pytest.raises(ApiError, match=f"shape of '{output_type}' for 2 rows") as caught:
        read(body, model, output_type, quantiles=quantiles)
    assert caught.value.terminal  # an engine's retry would be billed again


def test_a_model_without_labels_cannot_name_probabilities(build_model):
    with pytest.raises(ApiError, match="0 classes"):
        read([[0.5, 0.5], [0.5, 0.5]], build_model(classes=None), "probas")


@pytest.mark.parametrize(
    ("task", "output_type", "quantiles", "words"),
    [
        ("classification", "mean", None, "'mean' is not one of probas, preds"),
        ("regression", "probas", None, "'probas' is not one of mean"),
        ("regression", "mean", (0.5,), "quantiles go with output_type"),
        ("classification", None, (0.5,), "quantiles go with output_type"),
        ("regression", "quantiles", (), "different numbers between 0 and 1"),
        ("regression", "quantiles", (0.5, 0.5), "different numbers between 0 and 1"),
        ("regression", "quantiles", (0.0,), "different numbers between 0 and 1"),
        ("regression", "quantiles", (1,), "different numbers between 0 and 1"),
        ("regression", "main", (True,), "different numbers between 0 and 1"),
        ("regression", "full", (math.nan,), "different numbers between 0 and 1"),
    ],
)
def test_an_output_that_cannot_be_asked_for(build_model, task, output_type, quantiles, words):
    with pytest.raises(InvalidInputError, match=words):
        check_output(build_model(parameters={"task": task}), output_type, quantiles)


def test_what_is_predicted_when_nobody_says(build_model, regressor):
    assert check_output(build_model(), None, None) == "probas"
    assert check_output(regressor, None, None) == "mean"


def test_a_redacted_record_cannot_predict(build_model):
    with pytest.raises(InvalidInputError, match="redacted"):
        check_output(build_model().redacted(), None, None)


@given(st.lists(st.floats(0, 1, exclude_min=True, exclude_max=True), min_size=1, max_size=20, unique=True))
def test_different_quantiles_have_different_columns(quantiles):
    names = [quantile_column(quantile) for quantile in quantiles]
    assert len(set(names)) == len(quantiles)
    assert [float(name.removeprefix("quantile_")) for name in names] == quantiles


@given(
    st.lists(st.text(max_size=8), max_size=6, unique=True)
    | st.lists(st.integers(), max_size=6, unique=True)
    | st.lists(st.floats(allow_nan=False), max_size=6, unique=True)
    | st.lists(st.booleans(), max_size=2, unique=True)
)
def test_different_labels_have_different_columns(labels):
    assert len({probability_column(label) for label in labels}) == len(labels)


def test_a_file_keeps_the_columns_and_tells_its_model(regressor):
    file = io.BytesIO()
    with stored(FULL, regressor, "full", quantiles=(0.5,)) as found:
        write_parquet(found.columns, file, fitted_train_set_id="fitted-1")
    table = pq.read_table(pa.BufferReader(file.getvalue()))
    assert table.column_names == ["prediction", "mean", "median", "mode", "quantile_0.5", "logits"]
    assert table["logits"].to_pylist() == [[0.5, -math.inf, 1], [-math.inf, 0, 0]]
    assert table.schema.metadata[b"tabpfn.fitted_train_set_id"] == b"fitted-1"
    assert json.loads(table.schema.metadata[b"tabpfn.borders"]) == [0, 1, 2, 3]


def test_a_file_of_probabilities_reads_in_pandas(build_model):
    import pandas as pd

    file = io.BytesIO()
    with stored([[0.9, 0.1], [0.2, 0.8]], build_model(), "probas") as found:
        write_parquet(found.columns, file, fitted_train_set_id="f")
    frame = pd.read_parquet(file)
    assert list(frame["prediction"]) == ["no", "yes"]
    assert list(frame["probability_yes"]) == [0.1, 0.8]
