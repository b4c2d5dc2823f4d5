"""The JSON of the vendor's `save_model()`, told from our records and back; with its client itself in client_compat."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabpfn_assets import Feature, FitParameters, FittedModel, SourceRef, Thinking
from tabpfn_operators.errors import InvalidInputError
from tabpfn_operators.interchange import from_tabpfn_client, to_tabpfn_client
from tabpfn_operators.preflight import schema_problems

MODEL_ID = "8c9a5f0e-1c7a-4a39-9d0b-5a3d9e1f7c11"
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
SECRET = "Bearer sk-loopback-0123456789abcdef"
# What `TabPFNClassifier().fit(...).save_model()` of 0.6.1 returns.
SAVED = {
    "tabpfn_client_version": "0.6.1",
    "task": "classification",
    "model_id": MODEL_ID,
    "params": {
        "api_mode": "auto",
        "average_before_softmax": None,
        "balance_probabilities": False,
        "categorical_features_indices": None,
        "fit_mode": None,
        "group_col": None,
        "group_time_col": None,
        "ignore_pretraining_limits": False,
        "inference_config": None,
        "inference_precision": None,
        "model_path": None,
        "n_estimators": None,
        "paper_version": False,
        "random_state": 0,
        "softmax_temperature": None,
        "text_handling": "advanced",
        "thinking_effort": None,
        "thinking_metric": None,
        "thinking_mode": False,
        "thinking_timeout_s": None,
        "time_col": None,
    },
    "n_train_rows": 40,
    "classes": [0, 1],
}


def made(parameters=None, **changes):
    facts = {
        "fitted_train_set_id": MODEL_ID,
        "train_set_upload_id": None,
        "status": "completed",
        "target": "y",
        "features": (Feature(name="a"), Feature(name="b", dtype="double")),
        "classes": (0, 1),
        "rows": 40,
        "source": SourceRef(uris=(), rows=40),
        "parameters": parameters or FitParameters(task="classification"),
        "created_at": NOON,
    }
    return FittedModel(**{**facts, **changes})


def taken(record=SAVED, **options):
    return from_tabpfn_client(record, **{"target": "y", "features": ["a", "b"], "created_at": NOON, **options})


def saved(**params):
    return {**SAVED, "params": {**SAVED["params"], **params}}


def test_a_plain_model_is_written_so_that_nothing_unasked_is_sent():
    record = to_tabpfn_client(made())
    assert json.loads(json.dumps(record)) == record
    assert {key: record[key] for key in record if key != "params"} == {
        key: SAVED[key] for key in SAVED if key != "params"
    }
    unset = {"random_state": None, "ignore_pretraining_limits": None, "balance_probabilities": None}
    assert record["params"] == {**{k: v for k, v in SAVED["params"].items() if k != "api_mode"}, **unset}


def test_a_saved_model_is_taken_over():
    model = taken()
    config = {"random_state": 0, "ignore_pretraining_limits": False, "balance_probabilities": False}
    assert model == made(
        FitParameters(task="classification", config=config),
        features=(Feature(name="a"), Feature(name="b")),
        packages={"tabpfn-client": "0.6.1"},
    )


def test_what_the_caller_knows_goes_into_the_record(tmp_path):
    path = tmp_path / "model.json"
    path.write_text(json.dumps({**SAVED, "classes": None, "n_train_rows": None, "of_a_newer_client": 1}))
    source = SourceRef(uris=("s3://lake/train.parquet",), rows=7)
    features = [Feature(name="a", dtype="int64")]
    told = {"name": "churn", "source": source, "api_url": "https://api.example", "account": "team"}
    model = from_tabpfn_client(str(path), target="y", features=features, rows=7, classes=("no", "yes"), **told)
    assert {key: getattr(model, key) for key in told} == told
    assert (model.rows, model.classes, model.features) == (7, ("no", "yes"), tuple(features))
    assert model.created_at.utcoffset() is not None


def test_a_record_without_some_parameters_means_the_constructors_own():
    assert taken({**SAVED, "params": {}}) == taken()
    regression = taken({**SAVED, "task": "regression", "params": {}, "classes": None})
    assert regression.parameters.config == {"random_state": 0, "ignore_pretraining_limits": False}
    assert regression.classes is None


PARAMETERS = st.builds(
    FitParameters,
    task=st.sampled_from(["classification", "regression"]),
    config=st.fixed_dictionaries(
        {},
        optional={
            "n_estimators": st.integers(1, 8),
            "random_state": st.integers(0, 9),
            "softmax_temperature": st.floats(0.1, 2),
            "ignore_pretraining_limits": st.booleans(),
            "inference_config": st.dictionaries(st.text(max_size=5), st.none() | st.integers(), max_size=2),
            "categorical_features_indices": st.lists(st.integers(0, 5), max_size=3),
            "model_path": st.sampled_from(["auto", "v3_default"]),
            "fit_mode": st.sampled_from(["fit_preprocessors", "fit_with_cache"]),
        },
    ),
    text_handling=st.sampled_from([None, "simple"]),
    thinking=st.none()
    | st.builds(
        Thinking,
        effort=st.sampled_from(["medium", "high"]),
        timeout_secs=st.none() | st.floats(1, 2400),
        metric=st.sampled_from([None, "log_loss"]),
        group_col=st.just("a"),
        group_time_col=st.sampled_from([None, "b"]),
    )
    | st.builds(Thinking, time_col=st.sampled_from([None, "b"])),
)


@given(PARAMETERS)
def test_parameters_come_back_as_they_went(parameters):
    labels = {"classes": (0, 1) if parameters.task == "classification" else None}
    record = json.loads(json.dumps(to_tabpfn_client(made(parameters, **labels))))
    assert taken(record).parameters == parameters


def test_the_papers_version_goes_there_and_back():
    parameters = FitParameters(task="classification", systems=())
    record = to_tabpfn_client(made(parameters))
    assert record["params"]["paper_version"] is True
    assert taken(record).parameters == parameters


def test_the_servers_own_text_preset_is_the_one_that_nobody_sends():
    for text_handling in (None, "advanced"):
        record = to_tabpfn_client(made(FitParameters(task="classification", text_handling=text_handling)))
        assert record["params"]["text_handling"] == "advanced"
        assert taken(record).parameters.text_handling is None


@pytest.mark.parametrize(
    ("params", "thinking"),
    [
        ({"thinking_mode": True}, Thinking()),
        ({"thinking_effort": "high"}, Thinking(effort="high")),
        (
            {"thinking_mode": True, "group_col": ["a"], "group_time_col": "b"},
            Thinking(group_col="a", group_time_col="b"),
        ),
        ({"thinking_timeout_s": 5.0, "thinking_metric": "log_loss"}, None),
    ],
)
def test_thinking_is_read_as_that_client_resolves_it(params, thinking):
    assert taken(saved(**params)).parameters.thinking == thinking


NEWER = FittedModel.model_validate(
    {
        **made().model_dump(mode="json"),
        "parameters": {"task": "regression", "horizon": 5, "thinking": {"budget_tokens": 5}},
    }
)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (made(status="pending"), ["its fit is pending; wait for it"]),
        (made().redacted(), ["hashes; take the record that is not redacted"]),
        (made(fitted_train_set_id="fit-1"), ["its fitted id is no UUID"]),
        (made(FitParameters(task="classification", config={"device": "cpu"})), ["config 'device' has no counterpart"]),
        (
            made(FitParameters(task="regression", config={"balance_probabilities": True}), classes=None),
            ["config 'balance_probabilities' has no counterpart"],
        ),
        (
            made(FitParameters(task="classification", systems=("text",))),
            ["systems ['text'] is neither [] nor ['preprocessing', 'text']"],
        ),
        (
            made(FitParameters(task="classification", systems=(), thinking=Thinking())),
            ["systems [] with thinking is refused there"],
        ),
        (NEWER, ["parameter 'horizon' has no counterpart", "thinking 'budget_tokens' has no counterpart"]),
    ],
    ids=["pending", "redacted", "id", "config", "task", "systems", "paper", "newer"],
)
def test_what_that_client_has_no_place_for_is_named(model, words):
    with pytest.raises(InvalidInputError) as caught:
        to_tabpfn_client(model)
    assert [word for word in words if word not in str(caught.value)] == []
    assert len(caught.value.problems) == len(words)
    assert MODEL_ID in str(caught.value) or "fit-1" in str(caught.value)


@pytest.mark.parametrize(
    ("record", "options", "words"),
    [
        (saved(new_knob=1), {}, ["parameter 'new_knob' is not known here; upgrade tabpfn-providers"]),
        (saved(client_options={"headers": {"x": SECRET}}), {}, ["parameter 'client_options' is not known"]),
        (saved(group_col=["a", "b"], thinking_mode=True), {}, ["parameter 'group_col' names several columns"]),
        (saved(time_col="a"), {}, ["parameter 'time_col' needs thinking mode"]),
        (saved(paper_version=True, thinking_mode=True), {}, ["paper_version and thinking_mode exclude each other"]),
        (saved(n_estimators=0), {}, ["n_estimators must be a whole number"]),
        (saved(text_handling="none"), {}, ["text_handling"]),
        (saved(thinking_effort="low"), {}, ["effort"]),
        ({**SAVED, "task": "regression"}, {}, ["parameter 'balance_probabilities' is not known"]),
        ({**SAVED, "classes": None}, {}, ["it names no classes; pass classes="]),
        ({**SAVED, "classes": [[1]]}, {}, ["classes.0"]),
        ({**SAVED, "n_train_rows": None}, {}, ["does not say how many rows it was fitted on; pass rows="]),
        ({**SAVED, "n_train_rows": 0}, {}, ["rows"]),
        (SAVED, {"features": []}, ["features is the list of feature columns"]),
        (SAVED, {"features": "ab"}, ["features is the list of feature columns"]),
        (SAVED, {"name": "../champion"}, ["name"]),
        ({**SAVED, "model_id": "fit-1"}, {}, ["is no record of tabpfn-client (model_id)", "pass what save_model()"]),
        ({}, {}, ["(tabpfn_client_version, task, model_id, params)"]),
        ([], {}, ["(not a JSON object)"]),
        (made().model_dump(mode="json"), {}, ["is no record of tabpfn-client"]),
    ],
)
def test_what_cannot_be_taken_over_is_named(record, options, words):
    with pytest.raises(InvalidInputError) as caught:
        taken(record, **options)
    assert [word for word in words if word not in str(caught.value)] == []
    assert SECRET not in repr(caught.value)
    assert SECRET not in repr(caught.value.problems)


@pytest.mark.parametrize("content", ["", "no json", "[1]", '{"task": "regression"}', "\x00"])
def test_a_file_that_is_none_is_named(tmp_path, content):
    path = tmp_path / "model.json"
    path.write_text(content)
    with pytest.raises(InvalidInputError, match="is no record of tabpfn-client") as caught:
        taken(Path(path))
    assert str(path) in str(caught.value)


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(InvalidInputError, match=r"nowhere\.json does not exist"):
        taken(tmp_path / "nowhere.json")


def test_a_type_that_is_not_known_is_not_compared():
    model = taken()
    assert schema_problems(model, [Feature(name="a", dtype="string"), Feature(name="b")]) == []
    assert schema_problems(model, [Feature(name="b", dtype="int64")]) == ["feature 'a' of the model is missing"]
    assert schema_problems(made(), [Feature(name="a", dtype="string"), Feature(name="b", dtype="string")]) == [
        "feature 'b' is string, the model was fitted with double; cast it"
    ]
