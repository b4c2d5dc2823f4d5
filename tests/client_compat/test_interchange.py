"""One model, two clients: fitted by either, it is opened by the other, which asks the same and gets the same."""

import json
from datetime import UTC, datetime

import numpy as np
import pyarrow.parquet as pq
import pytest

from tabpfn_assets import Feature, FitParameters, Thinking
from tabpfn_operators import Client
from tabpfn_operators import _messages as messages
from tabpfn_operators.interchange import CLIENT_VERSION, from_tabpfn_client, to_tabpfn_client

pytestmark = pytest.mark.needs("save_model")

FITS = {
    "plain": {},
    "configured": {
        "config": {
            "n_estimators": 2,
            "softmax_temperature": 0.7,
            "random_state": 7,
            "ignore_pretraining_limits": True,
            "inference_config": {"SUBSAMPLE_SAMPLES": 30, "POLYNOMIAL_FEATURES": None},
            "categorical_features_indices": [1],
            "fit_mode": "fit_with_cache",
            "model_path": "v3_default",
        },
        "text_handling": "simple",
    },
    "papers_version": {"systems": ()},
    "thinking": {"thinking": Thinking(effort="high", timeout_secs=30.0), "config": {"random_state": 1}},
}
OPTIONS = {
    "plain": {},
    "configured": {
        "n_estimators": 2,
        "softmax_temperature": 0.7,
        "random_state": None,
        "inference_config": {"SUBSAMPLE_SAMPLES": 30},
        "categorical_features_indices": [1],
        "text_handling": "simple",
    },
    "papers_version": {"paper_version": True},
    "thinking": {"thinking_effort": "high", "thinking_timeout_s": 30.0},
    "thinking_by_the_flag": {"thinking_mode": True, "random_state": np.int64(3)},
}


@pytest.fixture
def ours(client, emulator, token):
    """This package's client, as the account of the vendor's."""
    with Client(token, base_url=emulator) as opened:
        yield opened


@pytest.fixture
def asked(client):
    """The bodies of the vendor's predict requests."""
    bodies = []

    def note(request):
        if request.url.path == "/tabpfn/predict":
            bodies.append(json.loads(request.content))

    hooks = client.client.ServiceClient.httpx_client.event_hooks
    client.client.ServiceClient.httpx_client.event_hooks = {**hooks, "request": [*hooks["request"], note]}
    yield bodies
    client.client.ServiceClient.httpx_client.event_hooks = hooks


@pytest.fixture(params=["classification", "regression"])
def task(request):
    return request.param


@pytest.fixture
def tables(task, few, diabetes):
    """Train and test features, and the target, small."""
    if task == "classification":
        return few[0], few[1], few[2].rename("outcome")
    train, test, y_train, _ = diabetes
    return train.iloc[:40, :4], test.iloc[:10, :4], y_train[:40].rename("outcome")


@pytest.fixture
def estimator(client, task):
    return client.TabPFNClassifier if task == "classification" else client.TabPFNRegressor


def predicted(client, model, test, folder):
    """Our prediction of a table: the numbers and what the server said of the call."""
    record = client.predict(model, test, str(folder))
    return pq.read_table(folder / "predictions.parquet").to_pandas(), record.metadata


def theirs(model, test):
    """The same of the vendor's estimator, in the same order of columns."""
    return model.predict_proba(test) if hasattr(model, "predict_proba") else model.predict(test)


def assert_equal_predictions(frame, values):
    columns = [name for name in frame.columns if name.startswith("probability_")] or ["prediction"]
    assert np.array_equal(np.squeeze(frame[columns].to_numpy()), values)


def our_request(model, body):
    """What this package sends for the model, beside what was sent for another upload of the same rows."""
    params = body["task_config"]["predict_params"]
    request = messages.predict(
        body["test_set_upload_id"],
        model.fitted_train_set_id,
        model.parameters,
        output_type=params["output_type"],
        quantiles=params.get("quantiles"),
    )
    return without_nothing(request.json)


def without_nothing(body):
    """A request without an empty config, which the vendor's client sends where ours leaves it out."""
    task = {key: value for key, value in body["task_config"].items() if (key, value) != ("tabpfn_config", {})}
    return {**body, "task_config": task}


@pytest.mark.parametrize("kind", FITS)
def test_a_model_fitted_here_is_loaded_there(ours, asked, estimator, tables, task, kind, tmp_path):
    train, test, y_train = tables
    parameters = FitParameters(task=task, **FITS[kind])
    model = ours.fit(train.assign(outcome=y_train), "outcome", parameters=parameters, streamed=True, durable=False)
    frame, metadata = predicted(ours, model, test, tmp_path / "out")

    (tmp_path / "model.json").write_text(json.dumps(to_tabpfn_client(model)))
    loaded = estimator.load_model(tmp_path / "model.json")
    assert_equal_predictions(frame, theirs(loaded, test))
    (body,) = asked
    assert without_nothing(body) == our_request(model, body)
    same = ("tabpfn_config", "execution_mode", "billing_model_version", "n_estimators")
    assert {key: loaded._last_meta.get(key) for key in same} == {key: metadata.get(key) for key in same}
    assert getattr(loaded, "classes_", None) is None or loaded.classes_.tolist() == list(model.classes)


@pytest.mark.parametrize("kind", OPTIONS)
def test_a_model_fitted_there_is_taken_over_here(ours, asked, estimator, tables, kind, tmp_path):
    train, test, y_train = tables
    fitted = estimator(**OPTIONS[kind]).fit(train, y_train)
    values = theirs(fitted, test)
    fitted.save_model(tmp_path / "model.json")
    model = from_tabpfn_client(tmp_path / "model.json", target="outcome", features=list(train.columns))

    frame, metadata = predicted(ours, model, test, tmp_path / "out")
    assert_equal_predictions(frame, values)
    (body,) = asked
    assert without_nothing(body) == our_request(model, body)
    assert metadata["tabpfn_config"] == fitted._last_meta["tabpfn_config"]
    assert model.rows == len(train)
    assert model.train_set_upload_id is None


@pytest.mark.parametrize("kind", FITS)
def test_a_refit_there_asks_for_what_was_fitted_here(ours, control, account, estimator, tables, task, kind):
    train, _, y_train = tables
    parameters = FitParameters(task=task, **FITS[kind])
    model = ours.fit(train.assign(outcome=y_train), "outcome", parameters=parameters, streamed=True, durable=False)
    estimator.load_model(to_tabpfn_client(model)).fit(train, y_train)
    here, there = control.fits(account=account)
    same = ("task", "config", "systems", "thinking", "text_handling", "train_rows")
    assert {key: there[key] for key in same} == {key: here[key] for key in same}


def test_a_model_comes_back_from_there_as_it_went(ours, estimator, tables, task):
    train, _, y_train = tables
    parameters = FitParameters(task=task, **FITS["thinking"])
    model = ours.fit(train.assign(outcome=y_train), "outcome", parameters=parameters, streamed=True, durable=False)
    record = estimator.load_model(to_tabpfn_client(model)).save_model()
    back = from_tabpfn_client(record, target="outcome", features=model.features, created_at=datetime.now(UTC))
    same = ("fitted_train_set_id", "parameters", "classes", "rows", "target", "features", "status")
    assert {key: getattr(back, key) for key in same} == {key: getattr(model, key) for key in same}


def test_group_columns_of_thinking_travel_both_ways(ours, asked, estimator, tables, task, tmp_path):
    train, test, y_train = tables
    group, moment = train.columns[:2]
    thinking = Thinking(group_col=group, group_time_col=moment)
    parameters = FitParameters(task=task, thinking=thinking)
    model = ours.fit(train.assign(outcome=y_train), "outcome", parameters=parameters, streamed=True, durable=False)
    loaded = estimator.load_model(to_tabpfn_client(model))
    frame, _ = predicted(ours, model, test, tmp_path / "out")
    assert_equal_predictions(frame, theirs(loaded, test))
    assert without_nothing(asked[0]) == our_request(model, asked[0])
    fitted = estimator(thinking_mode=True, group_col=[group], group_time_col=moment).fit(train, y_train)
    back = from_tabpfn_client(fitted.save_model(), target="outcome", features=list(train.columns))
    assert back.parameters.thinking == thinking


def test_labels_keep_their_type(ours, client, few):
    train, test, y_train = few[:3]
    for labels in (["no", "yes"], [False, True], [3, 11], [0.5, 1.5]):
        target = np.array(labels)[y_train.to_numpy()]
        model = ours.fit(
            train.assign(outcome=target),
            "outcome",
            parameters=FitParameters(task="classification"),
            streamed=True,
            durable=False,
        )
        loaded = client.TabPFNClassifier.load_model(to_tabpfn_client(model))
        assert loaded.classes_.tolist() == labels
        assert set(loaded.predict(test)) <= set(labels)
        back = from_tabpfn_client(loaded.save_model(), target="outcome", features=list(train.columns))
        assert [(type(label), label) for label in back.classes] == [(type(label), label) for label in labels]


def test_types_of_columns_are_compared_where_they_are_known(ours, client, few, tmp_path):
    fitted = client.TabPFNClassifier().fit(few[0], few[2])
    names = list(few[0].columns)
    wrong = few[1].assign(**{names[0]: "text"})
    model = from_tabpfn_client(fitted.save_model(), target="outcome", features=[Feature(name=names[0], dtype="double")])
    with pytest.raises(ValueError, match="the model was fitted with double"):
        ours.predict(model, wrong, str(tmp_path / "out"))
    model = from_tabpfn_client(fitted.save_model(), target="outcome", features=names)
    with pytest.raises(ValueError, match=f"feature {names[1]!r} of the model is missing"):
        ours.predict(model, few[1].drop(columns=names[1]), str(tmp_path / "out"))


def test_the_version_we_write_for_is_the_one_that_is_tested(client):
    assert client.__version__ == CLIENT_VERSION


def test_every_parameter_of_the_constructors_is_known_here(estimator, task):
    record = {
        "tabpfn_client_version": CLIENT_VERSION,
        "task": task,
        "model_id": "8c9a5f0e-1c7a-4a39-9d0b-5a3d9e1f7c11",
        "params": {key: value for key, value in estimator().get_params().items() if key != "client_options"},
        "n_train_rows": 5,
        "classes": [0, 1],
    }
    model = from_tabpfn_client(record, target="y", features=["a"])
    assert set(to_tabpfn_client(model)["params"]) == set(record["params"]) - {"api_mode"}
