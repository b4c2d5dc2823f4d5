"""Predictions: shapes of all output types, quality, determinism, refusals (contract sections 1.8 and 5)."""

import datetime as dt
import math
import uuid

import numpy as np
import pandas as pd
import pytest


def halves(data):
    frame, target = data
    order = np.random.default_rng(0).permutation(len(frame))
    middle = len(frame) * 3 // 4
    train, test = order[:middle], order[middle:]
    return frame.iloc[train], target.iloc[train], frame.iloc[test], target.iloc[test]


def test_classes_are_far_better_than_the_majority(api, cancer):
    train, y_train, test, y_test = halves(cancer)
    fitted = api.fit(train, y_train, "classification")
    answer = api.predict(fitted, test, "classification", output_type="preds").json()
    accuracy = np.mean(np.array(answer["prediction"]) == y_test.to_numpy())
    majority = np.mean(y_test == y_train.mode()[0])
    assert accuracy > majority + 0.2
    metadata = answer["metadata"]
    assert metadata["task"] == "classification"
    assert metadata["classes"] == [0, 1]
    assert (metadata["test_set_num_rows"], metadata["test_set_num_cols"]) == test.shape
    assert metadata["tabpfn_config"]["n_estimators"] == metadata["n_estimators"] == 8
    assert metadata["execution_mode"] == "standard"
    assert metadata["cache_outcome"] == "not_requested"
    assert metadata["billing_model_version"] == "v3"
    assert set(answer["timings"]) == {
        "test_set_transform_queue_wait_s",
        "test_set_transform_s",
        "predict_queue_wait_s",
        "predict_s",
    }


def test_numbers_are_clearly_better_than_the_mean(api, diabetes):
    train, y_train, test, y_test = halves(diabetes)
    fitted = api.fit(train, y_train, "regression")
    predicted = api.predict(fitted, test, "regression").json()["prediction"]

    def rmse(values):
        return math.sqrt(np.mean((np.asarray(values) - y_test.to_numpy()) ** 2))

    assert rmse(predicted) < 0.9 * rmse(np.full(len(y_test), y_train.mean()))


def test_probabilities_follow_the_sorted_labels_and_sum_to_one(api, cancer):
    train, y_train, test, _ = halves(cancer)
    words = y_train.map({0: "zebra", 1: "ape"})
    fitted = api.fit(train, words, "classification")
    answer = api.predict(fitted, test, "classification").json()
    shares = np.array(answer["prediction"])
    assert shares.shape == (len(test), 2)
    assert shares.sum(axis=1) == pytest.approx(1)
    assert answer["metadata"]["classes"] == ["ape", "zebra"]
    labels = api.predict(fitted, test, "classification", output_type="preds").json()["prediction"]
    assert labels == [["ape", "zebra"][best] for best in shares.argmax(axis=1)]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["b", "a", "c"], ["a", "b", "c"]),
        ([10, 9, -1], [-1, 9, 10]),
        ([0.5, 2.0, -1.5], [-1.5, 0.5, 2.0]),
        ([True, False, True], [False, True]),
        ([7, 7, 7], [7]),
    ],
)
def test_labels_keep_their_json_type(api, labels, classes):
    frame = pd.DataFrame({"a": np.arange(30), "b": np.arange(30) % 3})
    fitted = api.fit(frame, pd.Series(labels * 10, name="y"), "classification")
    answer = api.predict(fitted, frame, "classification", output_type="preds").json()
    assert answer["metadata"]["classes"] == classes
    assert [type(label) for label in answer["metadata"]["classes"]] == [type(label) for label in classes]
    assert set(answer["prediction"]) <= set(classes)


@pytest.fixture
def regression(api, diabetes):
    train, y_train, test, _ = halves(diabetes)
    return api.fit(train, y_train, "regression"), test.head(20)


@pytest.mark.parametrize("output_type", ["mean", "median", "mode"])
def test_points_are_one_number_per_row(api, regression, output_type):
    fitted, test = regression
    prediction = api.predict(fitted, test, "regression", output_type=output_type).json()["prediction"]
    assert len(prediction) == 20
    assert all(isinstance(value, float) for value in prediction)


@pytest.mark.parametrize(
    ("quantiles", "count"), [({}, 9), ({"quantiles": [0.05, 0.5, 0.95]}, 3), ({"quantiles": [0.5]}, 1)]
)
def test_quantiles_are_quantile_major_and_ordered(api, regression, quantiles, count):
    fitted, test = regression
    answer = api.predict(fitted, test, "regression", output_type="quantiles", **quantiles).json()
    values = np.array(answer["prediction"])
    assert values.shape == (count, 20)
    assert (np.diff(values, axis=0) >= 0).all()


def test_main_holds_points_and_quantiles(api, regression):
    fitted, test = regression
    prediction = api.predict(fitted, test, "regression", output_type="main", quantiles=[0.1, 0.9]).json()["prediction"]
    assert set(prediction) == {"mean", "median", "mode", "quantiles"}
    assert [len(prediction[name]) for name in ("mean", "median", "mode")] == [20, 20, 20]
    assert np.array(prediction["quantiles"]).shape == (2, 20)


def test_full_adds_a_distribution_over_bars(api, regression):
    fitted, test = regression
    prediction = api.predict(fitted, test, "regression", output_type="full").json()["prediction"]
    assert set(prediction) == {"mean", "median", "mode", "quantiles", "logits", "borders"}
    borders = np.array(prediction["borders"])
    assert (np.diff(borders) > 0).all()
    assert len(prediction["logits"]) == 20
    assert {len(row) for row in prediction["logits"]} == {len(borders) - 1}
    assert any(bar is None for row in prediction["logits"] for bar in row)
    mass = np.exp(np.array(prediction["logits"], dtype=float))
    assert np.nansum(mass, axis=1) == pytest.approx(1)
    centres = (borders[:-1] + borders[1:]) / 2
    assert np.nansum(mass * centres, axis=1) == pytest.approx(prediction["mean"], rel=0.2)


def test_borders_do_not_depend_on_the_test_set(api, regression):
    fitted, test = regression
    parts = [
        api.predict(fitted, part, "regression", output_type="full").json()["prediction"]
        for part in (test.head(5), test.tail(15))
    ]
    whole = api.predict(fitted, test, "regression", output_type="full").json()["prediction"]
    assert parts[0]["borders"] == parts[1]["borders"] == whole["borders"]
    assert parts[0]["mean"] + parts[1]["mean"] == whole["mean"]
    assert parts[0]["logits"] + parts[1]["logits"] == whole["logits"]


def test_a_constant_target_can_be_learnt(api):
    frame = pd.DataFrame({"a": range(20)})
    fitted = api.fit(frame, pd.Series([3.0] * 20, name="y"), "regression")
    prediction = api.predict(fitted, frame, "regression", output_type="full").json()["prediction"]
    assert prediction["mean"] == pytest.approx([3.0] * 20)
    assert prediction["borders"][0] < 3.0 < prediction["borders"][-1]


def test_equal_input_gives_equal_output(api, other_api, diabetes):
    train, y_train, test, _ = halves(diabetes)
    answers = []
    for caller in (api, other_api):
        fitted = caller.fit(train, y_train, "regression", random_state=3)
        answers.append(caller.predict(fitted, test, "regression", output_type="quantiles").json()["prediction"])
    assert answers[0] == answers[1]
    other_seed = api.fit(train, y_train, "regression", random_state=4)
    assert api.predict(other_seed, test, "regression", output_type="quantiles").json()["prediction"] != answers[0]


def mixed(rows, seed):
    rng = np.random.default_rng(seed)
    signal = rng.integers(0, 2, rows)
    start = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    maybe = rng.random(rows) < 0.2
    frame = pd.DataFrame(
        {
            "number": np.where(maybe, np.nan, rng.normal(size=rows)),
            "flag": pd.Series([None if gone else bool(one) for gone, one in zip(maybe, signal, strict=True)]),
            "city": pd.Categorical(np.where(signal == 1, "Rome", "Oslo")),
            "word": [None if gone else ["low", "high"][one] for gone, one in zip(maybe, signal, strict=True)],
            "note": [f"ticket {row} is {'urgent' if one else 'calm'}" for row, one in enumerate(signal)],
            "when": [start + dt.timedelta(days=int(day)) for day in rng.integers(0, 700, rows)],
            "day": [(start + dt.timedelta(days=int(day))).date() for day in rng.integers(0, 700, rows)],
            "empty": [None] * rows,
        }
    )
    return frame, pd.Series(signal, name="y")


def test_every_kind_of_column_is_learnt_from(api):
    train, y_train = mixed(200, seed=1)
    test, y_test = mixed(60, seed=2)
    fitted = api.fit(train, y_train, "classification")
    predicted = api.predict(fitted, test, "classification", output_type="preds").json()["prediction"]
    assert np.mean(np.array(predicted) == y_test.to_numpy()) > 0.9


def test_text_alone_is_learnt_from(api):
    train, y_train = mixed(200, seed=1)
    test, y_test = mixed(60, seed=2)
    fitted = api.fit(train[["note"]], y_train, "classification")
    predicted = api.predict(fitted, test[["note"]], "classification", output_type="preds").json()["prediction"]
    assert np.mean(np.array(predicted) == y_test.to_numpy()) > 0.9


def test_unseen_values_at_prediction_are_no_failure(api):
    train, y_train = mixed(100, seed=1)
    fitted = api.fit(train, y_train, "classification")
    strange = train.head(3).assign(city="Paris", word="middle", number="text", when=None, note=None)
    assert len(api.predict(fitted, strange, "classification").json()["prediction"]) == 3


def test_a_large_train_set_is_learnt_from_a_sample_and_the_journal_says_so(api, control, journal):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(30_000, 2)), columns=["a", "b"])
    fitted = api.fit(frame, (frame["a"] > 0).astype(int).rename("y"), "classification")
    (row,) = control.fits(account=api.account)
    assert (row["train_rows"], row["sampled_rows"]) == (30_000, 20_000)
    (entry,) = journal.rows("/tabpfn/fit")
    assert entry["note"] == "trained on a seeded sample of 20000 of 30000 rows"
    test = frame.head(20_000)
    predicted = api.predict(fitted, test, "classification", output_type="preds").json()["prediction"]
    assert np.mean(np.array(predicted) == (test["a"] > 0)) > 0.95


def test_a_prediction_with_a_pending_fit_is_422(api, control, cancer, helpers):
    frame, target = cancer
    control.configure(fit_seconds=30.0)
    upload = api.upload_train(helpers.parquet(frame.head(40)), helpers.parquet(target.head(40).to_frame()))
    job = api.post("/tabpfn/submit_fit_job", helpers.nested(upload, "classification")).json()
    answer = api.predict(job["fitted_train_set_id"], frame.tail(2), "classification")
    assert (answer.status_code, "pending" in answer.json()["message"]) == (422, True)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"output_type": "mean"}, "output_type"),
        ({"quantiles": [0.5]}, "quantiles"),
        ({"output_type": "probas", "colour": "blue"}, "colour"),
    ],
)
def test_params_of_the_other_task_are_refused(api, cancer, params, words):
    frame, target = cancer
    fitted = api.fit(frame.head(40), target.head(40), "classification")
    answer = api.predict(fitted, frame.tail(2), "classification", **params)
    assert answer.status_code == 422
    assert words in answer.json()["message"]


@pytest.mark.parametrize("quantiles", [[], [1.5], [-0.1], ["a"]])
def test_quantiles_outside_zero_to_one_are_refused(api, regression, quantiles):
    fitted, test = regression
    answer = api.predict(fitted, test, "regression", output_type="quantiles", quantiles=quantiles)
    assert answer.status_code == 422


def test_what_does_not_belong_together_is_refused(api, other_api, regression, diabetes, helpers):
    fitted, test = regression
    train, y_train, _, _ = halves(diabetes)
    second = api.fit(train, y_train, "regression")
    theirs = other_api.fit(train, y_train, "regression")
    upload = api.upload_test(fitted, helpers.parquet(test))
    their_upload = other_api.upload_test(theirs, helpers.parquet(test))

    def status(fitted_id, upload_id, task="regression"):
        return api.post("/tabpfn/predict", helpers.predict_body(fitted_id, upload_id, task)).status_code

    assert status(fitted, upload) == 200
    assert status(second, upload) == 422
    assert status(fitted, upload, "classification") == 422
    assert status(theirs, upload) == 404
    assert status(fitted, their_upload) == 404
    assert status(fitted, str(uuid.uuid4())) == 404
    assert status(str(uuid.uuid4()), upload) == 404


def test_other_columns_than_at_fit_are_refused(api, regression):
    fitted, test = regression
    answer = api.predict(fitted, test.iloc[:, :4], "regression")
    assert answer.status_code == 422
    assert "4 columns" in answer.json()["message"]


def test_an_empty_test_set_is_refused(api, regression):
    fitted, test = regression
    assert api.predict(fitted, test.head(0), "regression").status_code == 422


@pytest.mark.parametrize(
    ("limits", "output_type", "status"),
    [
        ({"test_set_max_rows": 19}, "mean", 422),
        ({"test_set_max_rows": 20}, "mean", 200),
        ({"test_set_max_rows_w_full_regression_output": 19}, "full", 422),
        ({"test_set_max_rows_w_full_regression_output": 19}, "main", 200),
        ({"test_set_max_cells": 199}, "mean", 422),
        ({"predict_row_pairs_budget": 331 * 20 - 1}, "mean", 422),
        ({"predict_row_pairs_budget": 331 * 20}, "mean", 200),
    ],
)
def test_more_than_the_limits_is_refused(api, control, regression, limits, output_type, status):
    fitted, test = regression
    control.configure(limits=limits)
    assert api.predict(fitted, test, "regression", output_type=output_type).status_code == status


def test_the_given_config_is_echoed(api, cancer, helpers):
    frame, target = cancer
    fitted = api.fit(frame.head(40), target.head(40), "classification", n_estimators=2)
    upload = api.upload_test(fitted, helpers.parquet(frame.tail(2)))
    body = helpers.predict_body(fitted, upload, "classification")
    body["task_config"]["tabpfn_config"] = {"n_estimators": 2, "model_path": "v3.5-fast_default"}
    metadata = api.post("/tabpfn/predict", body).json()["metadata"]
    assert metadata["n_estimators"] == 2
    assert metadata["billing_model_version"] == "v3.5-fast"
    assert metadata["tabpfn_config"]["model_path"] == "v3.5-fast_default"
