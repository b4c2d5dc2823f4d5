"""TabPFNClassifier and TabPFNRegressor: what they predict, and with which settings."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import cross_val_score


def rmse(predicted, actual):
    return float(np.sqrt(np.mean((np.asarray(predicted) - np.asarray(actual)) ** 2)))


def test_a_classifier_predicts(client, cancer):
    train, test, y_train, y_test = cancer
    model = client.TabPFNClassifier().fit(train, y_train)
    predicted = model.predict(test)
    assert np.mean(predicted == y_test) > np.mean(y_test == y_train.mode()[0]) + 0.2
    shares = model.predict_proba(test)
    assert shares.shape == (len(test), 2)
    assert shares.sum(axis=1) == pytest.approx(1)
    assert (model.classes_[shares.argmax(axis=1)] == predicted).all()


def mixed_frame():
    rng = np.random.default_rng(0)
    target = rng.integers(0, 3, 150)
    frame = pd.DataFrame(
        {
            "number": np.where(rng.random(150) < 0.2, np.nan, rng.normal(size=150)),
            "city": pd.Categorical(np.array(["Oslo", "Rome", "Bern"])[target]),
            "note": [f"ticket {row}, kind {'abc'[kind]}" for row, kind in enumerate(target)],
            "flag": target == 1,
            "when": pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(150), unit="D"),
        }
    )
    return frame, target


@pytest.mark.parametrize(
    "labels", [["zebra", "ape", "mole"], [30, 10, 20], [2.0, -1.0, 0.0]], ids=["text", "integers", "floats"]
)
def test_labels_of_any_type_and_mixed_columns(client, labels):
    frame, target = mixed_frame()
    labels = np.array(labels)[target]
    model = client.TabPFNClassifier().fit(frame, labels)
    assert model.classes_.tolist() == sorted(set(labels.tolist()))
    predicted = model.predict(frame)
    assert (predicted == labels).mean() > 0.95
    assert (model.classes_[model.predict_proba(frame).argmax(axis=1)] == predicted).all()


def test_labels_that_are_booleans(client, few):
    train, test, y_train, _ = few
    model = client.TabPFNClassifier().fit(train, y_train == 1)
    predicted = model.predict(test)
    assert predicted.dtype == bool
    assert (model.classes_[model.predict_proba(test).argmax(axis=1)] == predicted).all()


def test_a_regressor_takes_mixed_columns(client):
    frame, target = mixed_frame()
    predicted = client.TabPFNRegressor().fit(frame, target * 10.0).predict(frame)
    assert rmse(predicted, target * 10.0) < 4


@pytest.mark.parametrize("kind", ["numbers", "objects"])
def test_arrays_are_taken_as_well(client, kind):
    frame, target = mixed_frame()
    array = frame[["number"]].to_numpy() if kind == "numbers" else frame[["number", "note"]].to_numpy()
    model = client.TabPFNClassifier().fit(array, target)
    assert model.predict(array).shape == (150,)


@pytest.mark.parametrize("output_type", ["mean", "median", "mode"])
def test_a_regressor_predicts_points(client, diabetes, output_type):
    train, test, y_train, y_test = diabetes
    model = client.TabPFNRegressor().fit(train, y_train)
    predicted = model.predict(test, output_type=output_type)
    assert predicted.shape == (len(test),)
    assert rmse(predicted, y_test) < rmse(np.full(len(test), y_train.mean()), y_test)


@pytest.mark.parametrize(("quantiles", "count"), [(None, 9), ([0.1, 0.5, 0.9], 3), ([0.5], 1)])
def test_a_regressor_predicts_quantiles(client, diabetes, quantiles, count):
    train, test, y_train, _ = diabetes
    model = client.TabPFNRegressor().fit(train, y_train)
    predicted = model.predict(test, output_type="quantiles", quantiles=quantiles)
    assert [one.shape for one in predicted] == [(len(test),)] * count
    assert (np.diff(np.array(predicted), axis=0) >= 0).all()


def test_a_regressor_predicts_main(client, diabetes):
    train, test, y_train, _ = diabetes
    predicted = client.TabPFNRegressor().fit(train, y_train).predict(test, output_type="main")
    assert {name: value.shape for name, value in predicted.items()} == {
        "mean": (len(test),),
        "median": (len(test),),
        "mode": (len(test),),
        "quantiles": (9, len(test)),
    }


def check_full(predicted, rows):
    bars = len(predicted["borders"]) - 1
    logits = np.asarray(predicted["logits"], dtype=float)
    logits = np.where(np.isnan(logits), -np.inf, logits)  # 0.4.1 leaves a bar outside of the support at NaN
    assert logits.shape == (rows, bars)
    assert np.isneginf(logits).any()
    assert np.exp(logits).sum(axis=1) == pytest.approx(1)
    assert predicted["quantiles"].shape == (9, rows)
    assert [predicted[name].shape for name in ("mean", "median", "mode")] == [(rows,)] * 3


def test_a_regressor_predicts_full(client, diabetes):
    train, test, y_train, _ = diabetes
    model = client.TabPFNRegressor().fit(train, y_train)
    predicted = model.predict(test, output_type="full")
    check_full(predicted, len(test))
    assert predicted["mean"] == pytest.approx(model.predict(test))


@pytest.mark.needs("a split of full outputs")
def test_full_outputs_are_split_over_400_rows(client, posts, diabetes):
    train, test, y_train, _ = diabetes
    rows = pd.concat([train, test])
    assert len(rows) > 400
    model = client.TabPFNRegressor().fit(train, y_train)
    check_full(model.predict(rows, output_type="full"), len(rows))
    assert posts("/tabpfn/predict") == [200, 200]


def test_a_full_output_over_the_servers_limit_is_refused_or_split(client, lacking, control, diabetes, posts):
    train, test, y_train, _ = diabetes
    control.configure(limits={"test_set_max_rows_w_full_regression_output": 40})
    model = client.TabPFNRegressor().fit(train, y_train)
    if "a split of full outputs" in lacking:
        with pytest.raises(ValueError, match="full regression output"):
            model.predict(test, output_type="full")
    else:
        check_full(model.predict(test, output_type="full"), len(test))
        assert len(posts("/tabpfn/predict")) == -(-len(test) // 40)


OPTIONS = {
    "n_estimators": 4,
    "softmax_temperature": 0.5,
    "average_before_softmax": True,
    "ignore_pretraining_limits": True,
    "inference_precision": "autocast",
    "random_state": 3,
    "inference_config": {"SUBSAMPLE_SAMPLES": 30},
    "categorical_features_indices": [0],
    "fit_mode": "fit_with_cache",
}


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_every_setting_of_the_model_is_taken(client, control, account, few, task):
    train, test, y_train, _ = few
    options = {**OPTIONS, "balance_probabilities": True} if task == "classification" else OPTIONS
    estimator = client.TabPFNClassifier if task == "classification" else client.TabPFNRegressor
    model = estimator(**options).fit(train, y_train, description="forty rows")
    assert len(model.predict(test)) == len(test)
    (fitted,) = control.fits(account=account)
    assert fitted["config"] == options
    assert fitted["task"] == task
    assert model._last_meta["tabpfn_config"]["n_estimators"] == 4
    assert client.UserDataClient.get_data_summary()["datasets"][0]["description"] == "forty rows"


def test_the_paper_version_has_no_systems(client, control, account, fit):
    fit(paper_version=True)
    fit()
    assert [fitted["systems"] for fitted in control.fits(account=account)] == [[], ["preprocessing", "text"]]


@pytest.mark.parametrize(
    "version",
    [
        "v2",
        "v2.5",
        "v2.6",
        "v3",
        pytest.param("v3.5", marks=pytest.mark.needs("v3.5")),
        pytest.param("v3.5-fast", marks=pytest.mark.needs("v3.5-fast")),
    ],
)
@pytest.mark.parametrize("estimator", ["TabPFNClassifier", "TabPFNRegressor"])
def test_a_chosen_model_version(client, few, control, account, lacking, estimator, version):
    from tabpfn_client.api_models import ModelVersion

    train, test, y_train, _ = few
    model = getattr(client, estimator).create_default_for_version(ModelVersion(version), n_estimators=2)
    assert len(model.fit(train, y_train).predict(test)) == len(test)
    (fitted,) = control.fits(account=account)
    assert f"{version}_default" in fitted["config"]["model_path"]
    if "metadata about billing" not in lacking:
        assert model._last_meta["billing_model_version"] == version
        assert model._last_meta["n_estimators"] == 2


@pytest.mark.parametrize("estimator", ["TabPFNClassifier", "TabPFNRegressor"])
def test_every_model_that_the_client_lists(client, few, control, account, estimator):
    train, _, y_train, _ = few
    names = getattr(client, estimator).list_available_models()
    for name in names:
        getattr(client, estimator)(model_path=name).fit(train, y_train)
    paths = [fitted["config"].get("model_path", "auto") for fitted in control.fits(account=account)]
    assert len(paths) == len(names)
    assert [name in path or name == "default" for name, path in zip(names, paths, strict=True)] == [True] * len(names)


@pytest.mark.needs("text_handling")
@pytest.mark.parametrize("preset", ["advanced", "simple"])
def test_text_handling(client, control, account, preset):
    frame, target = mixed_frame()
    model = client.TabPFNClassifier(text_handling=preset).fit(frame[["note"]], target)
    assert (model.predict(frame[["note"]]) == target).mean() > 0.9
    assert control.fits(account=account)[0]["text_handling"] == preset


def test_equal_fits_predict_equally(client, diabetes):
    train, test, y_train, _ = diabetes
    first, second = (client.TabPFNRegressor().fit(train, y_train) for _ in range(2))
    assert first.model_id_ != second.model_id_
    assert (first.predict(test) == second.predict(test)).all()


def test_scikit_learn_clones_and_scores(client, few):
    train, _, y_train, _ = few
    model = clone(client.TabPFNClassifier(n_estimators=2))
    assert cross_val_score(model, train, y_train, cv=2).mean() > 0.5


def test_the_servers_metadata_is_kept(client, few, fit):
    model = fit()
    model.predict(few[1])
    assert model._last_meta["test_set_num_rows"] == len(few[1])
    assert model._last_meta["test_set_num_cols"] == few[1].shape[1]
    assert model._last_meta["task"] == "classification"


@pytest.mark.needs("metadata about billing")
@pytest.mark.parametrize(
    ("options", "mode", "cache"),
    [
        ({}, "standard", "not_requested"),
        ({"thinking_mode": True}, "thinking", "not_requested"),
        ({"fit_mode": "fit_with_cache"}, "cache", "hit"),
    ],
)
def test_metadata_tells_how_it_was_billed(few, fit, options, mode, cache):
    model = fit(**options)
    model.predict(few[1])
    assert (model._last_meta["execution_mode"], model._last_meta["cache_outcome"]) == (mode, cache)
    assert model._last_meta["billing_model_version"] == "v3"
    assert model._last_meta["classes"] == [0, 1]
