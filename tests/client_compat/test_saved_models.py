"""A fitted model outlives its process: records, ids, pickles; and its deletion is noticed."""

import json
import pickle
import uuid

import pytest


@pytest.mark.needs("save_model")
def test_a_saved_model_is_loaded_and_predicts_the_same(client, diabetes, tmp_path):
    train, test, y_train, _ = diabetes
    model = client.TabPFNRegressor(random_state=7).fit(train, y_train)
    record = model.save_model(tmp_path / "model.json")
    assert json.loads((tmp_path / "model.json").read_text()) == record
    loaded = client.TabPFNRegressor.load_model(tmp_path / "model.json")
    assert loaded.model_id_ == model.model_id_
    assert loaded.predict(test) == pytest.approx(model.predict(test))


@pytest.mark.needs("save_model")
def test_a_saved_classifier_keeps_its_classes(client, few, fit):
    model = fit()
    loaded = client.TabPFNClassifier.load_model(model.save_model())
    assert loaded.classes_.tolist() == [0, 1]
    assert (loaded.predict(few[1]) == model.predict(few[1])).all()
    assert loaded.get_timings()["fit"] is None


@pytest.mark.needs("save_model")
def test_a_record_of_a_thinking_model_is_loaded(client, few, fit):
    model = fit(thinking_effort="high")
    loaded = client.TabPFNClassifier.load_model(model.save_model())
    assert (loaded.predict_proba(few[1]) == model.predict_proba(few[1])).all()
    assert loaded._last_meta["execution_mode"] == "thinking"


def test_an_id_is_all_that_another_process_needs(client, few, fit):
    fitted = fit()
    other = client.TabPFNClassifier()
    other.model_id_ = fitted.model_id_
    assert (other.predict_proba(few[1]) == fitted.predict_proba(few[1])).all()


def test_a_pickled_model_predicts(few, fit):
    model = fit()
    assert (pickle.loads(pickle.dumps(model)).predict(few[1]) == model.predict(few[1])).all()


def refused(client):
    """The error of a model that is not there: 0.4.1 has no class of its own for it."""
    return getattr(client, "FittedModelNotFoundError", Exception)


def test_a_deleted_model_is_not_found(client, few, fit):
    model = fit()
    (dataset,) = client.UserDataClient.get_data_summary()["datasets"]
    assert client.UserDataClient.delete_dataset(dataset["dataset_uid"]) == [dataset["dataset_uid"]]
    with pytest.raises(refused(client), match=r"not found|does not exist"):
        model.predict(few[1])


def test_an_unknown_model_is_not_found(client, few):
    model = client.TabPFNClassifier()
    model.model_id_ = uuid.uuid4()
    with pytest.raises(refused(client), match=r"not found|does not exist"):
        model.predict(few[1])


def test_a_model_of_another_account_is_not_found(client, few, fit):
    model = fit()
    client.set_access_token(f"token-{uuid.uuid4()}")
    with pytest.raises(refused(client), match=r"not found|does not exist"):
        model.predict(few[1])


@pytest.mark.needs("FittedModelNotFoundError")
def test_a_missing_model_has_an_error_of_its_own(client, few, fit):
    model = fit()
    client.UserDataClient.delete_all_datasets()
    with pytest.raises(client.FittedModelNotFoundError, match=f"{model.model_id_} was not found.*trace ID"):
        model.predict(few[1])


@pytest.mark.needs("FittedModelNotFoundError")
def test_a_model_whose_training_data_is_gone_is_fitted_anew(client, few, fit):
    model = fit()
    client.UserDataClient.delete_all_datasets()
    assert model.fit(few[0], few[2]).predict(few[1]).shape == (len(few[1]),)
