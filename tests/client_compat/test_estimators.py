"""TabPFNClassifier and TabPFNRegressor of tabpfn-client 0.6.1: fit, predict, save, load."""

import json

import numpy as np
import pandas as pd
import pytest


def rmse(predicted, actual):
    return float(np.sqrt(np.mean((np.asarray(predicted) - np.asarray(actual)) ** 2)))


def test_it_is_the_version_that_the_contract_was_read_from(client):
    assert client.__version__ == "0.6.1"


def test_a_classifier_predicts(client, cancer):
    train, test, y_train, y_test = cancer
    model = client.TabPFNClassifier().fit(train, y_train)
    predicted = model.predict(test)
    assert np.mean(predicted == y_test) > np.mean(y_test == y_train.mode()[0]) + 0.2
    shares = model.predict_proba(test)
    assert shares.shape == (len(test), 2)
    assert shares.sum(axis=1) == pytest.approx(1)
    assert (model.classes_[shares.argmax(axis=1)] == predicted).all()


def test_a_classifier_with_text_labels_and_mixed_columns_predicts(client):
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
    labels = np.array(["zebra", "ape", "mole"])[target]
    model = client.TabPFNClassifier().fit(frame, labels)
    assert model.classes_.tolist() == ["ape", "mole", "zebra"]
    predicted = model.predict(frame)
    assert (predicted == labels).mean() > 0.95
    assert (model.classes_[model.predict_proba(frame).argmax(axis=1)] == predicted).all()


def test_arrays_are_taken_as_well(client, cancer):
    train, test, y_train, _ = cancer
    model = client.TabPFNClassifier().fit(train.to_numpy(), y_train.to_numpy())
    assert model.predict(test.to_numpy()).shape == (len(test),)


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


@pytest.mark.parametrize("rows_per_call", [400, 40])
def test_a_regressor_predicts_full_split_or_not(client, control, diabetes, account, rows_per_call):
    control.configure(limits={"test_set_max_rows_w_full_regression_output": rows_per_call})
    train, test, y_train, _ = diabetes
    model = client.TabPFNRegressor().fit(train, y_train)
    predicted = model.predict(test, output_type="full")
    bars = len(predicted["borders"]) - 1
    assert predicted["logits"].shape == (len(test), bars)
    assert np.isneginf(predicted["logits"]).any()
    assert np.exp(predicted["logits"]).sum(axis=1) == pytest.approx(1)
    assert predicted["quantiles"].shape == (9, len(test))
    assert predicted["mean"] == pytest.approx(model.predict(test))
    calls = len(control.journal(route="/tabpfn/predict", account=account))
    assert calls == 1 + -(-len(test) // rows_per_call)


def test_the_asynchronous_mode(client, control, cancer, account):
    train, test, y_train, _ = cancer
    control.configure(fit_seconds=2.0, retry_in_secs=0.5)
    model = client.TabPFNClassifier(api_mode="async").fit(train, y_train)
    assert model.predict(test).shape == (len(test),)
    assert len(control.journal(route="/tabpfn/submit_fit_job", account=account)) == 1
    assert len(control.journal(route="/tabpfn/get_fit_status", account=account)) >= 2
    assert model.fit_timings_["elapsed_s"] > 1.9


def test_the_automatic_mode_follows_the_servers_threshold(client, control, cancer, account):
    train, _, y_train, _ = cancer
    control.configure(async_threshold_bytes=1)
    client.TabPFNClassifier().fit(train, y_train)
    assert len(control.journal(route="/tabpfn/submit_fit_job", account=account)) == 1


def test_a_long_synchronous_fit_with_keepalive(client, control, cancer):
    train, test, y_train, _ = cancer
    control.configure(fit_seconds=0.5, keepalive_after_secs=0.1, keepalive_every_secs=0.1)
    model = client.TabPFNClassifier(api_mode="sync").fit(train, y_train)
    assert model.predict(test).shape == (len(test),)


def test_a_thinking_fit(client, control, cancer, account):
    train, test, y_train, _ = cancer
    model = client.TabPFNClassifier(thinking_effort="high", thinking_timeout_s=30, thinking_metric="accuracy")
    model.fit(train, y_train)
    assert model.predict(test).shape == (len(test),)
    (fit,) = control.fits(account=account)
    assert fit["thinking"] == {"effort": "high", "timeout_secs": 30.0, "metric": "accuracy"}
    assert "thinking" in fit["systems"]
    assert model._last_meta["execution_mode"] == "thinking"


@pytest.mark.parametrize("model_path", ["v2.6_default", "v3.5-fast_default"])
def test_a_chosen_model_version(client, diabetes, model_path):
    train, test, y_train, _ = diabetes
    model = client.TabPFNRegressor(model_path=model_path, n_estimators=2, text_handling="simple")
    assert model.fit(train, y_train).predict(test).shape == (len(test),)
    assert model._last_meta["billing_model_version"] == model_path.split("_")[0]
    assert model._last_meta["n_estimators"] == 2


def test_a_saved_model_is_loaded_and_predicts_the_same(client, diabetes, tmp_path):
    train, test, y_train, _ = diabetes
    model = client.TabPFNRegressor(random_state=7).fit(train, y_train)
    record = model.save_model(tmp_path / "model.json")
    assert json.loads((tmp_path / "model.json").read_text()) == record
    loaded = client.TabPFNRegressor.load_model(tmp_path / "model.json")
    assert loaded.model_id_ == model.model_id_
    assert loaded.predict(test) == pytest.approx(model.predict(test))


def test_a_saved_classifier_keeps_its_classes(client, cancer):
    train, test, y_train, _ = cancer
    model = client.TabPFNClassifier().fit(train, y_train)
    loaded = client.TabPFNClassifier.load_model(model.save_model())
    assert loaded.classes_.tolist() == [0, 1]
    assert (loaded.predict(test) == model.predict(test)).all()


def test_timings_are_reported(client, cancer):
    train, test, y_train, _ = cancer
    model = client.TabPFNClassifier().fit(train, y_train)
    model.predict(test)
    assert model.fit_timings_["fit_s"] > 0
    assert model.last_predict_timings["predict_s"] > 0
