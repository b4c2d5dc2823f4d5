"""`evaluate` and `models promote --rule`: from a shell, with a store and without."""

import json

import pytest


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def fitted(cli, classification, store):
    ran = cli(
        *("fit", classification.train, "--target", "outcome", "--task", "classification"),
        *("--name", "churn", "--store", store, "--json"),
    )
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def evaluated(cli, *options):
    ran = cli("evaluate", *options, "--headline", "accuracy")
    assert ran.code == 0, ran.err
    return ran


def test_a_model_of_the_store_is_evaluated_and_the_evaluation_filed(cli, classification, fitted, store, tmp_path):
    report = tmp_path / "reports" / "monday.html"
    ran = evaluated(cli, "churn@latest", classification.train, "--store", store, "--report", report)
    assert "accuracy" in ran.out
    assert str(report) in ran.out
    assert report.read_text().lstrip().lower().startswith("<!doctype html")
    shown = json.loads(cli("models", "show", "churn", "--store", store, "--json").out)
    assert shown["model"]["evaluation"]["headline"] == "accuracy"


def test_a_record_file_and_a_champion(cli, classification, fitted, store, tmp_path):
    record = tmp_path / "model.json"
    record.write_text(json.dumps(fitted))
    assert cli("models", "promote", "churn", "latest", "--store", store).code == 0
    other = cli(
        *("fit", classification.train, "--target", "outcome", "--task", "classification", "--name", "churn"),
        *("--config", '{"n_estimators": 2}', "--store", store, "--json"),
    )
    ran = evaluated(
        cli, "churn@latest", classification.train, "--champion", "churn@champion", "--store", store, "--json"
    )
    found = json.loads(ran.out)
    assert found["fitted_train_set_id"] == json.loads(other.out)["fitted_train_set_id"]
    assert found["comparison"]["fitted_train_set_id"] == fitted["fitted_train_set_id"]
    assert "nowhere" not in evaluated(cli, str(record), classification.train, "--store", store).out
    assert "nowhere" in evaluated(cli, str(record), classification.train, "--store", tmp_path / "empty").out


def test_predictions_that_are_kept_are_paid_once(cli, classification, fitted, store, tmp_path, control):
    options = ("churn@latest", classification.train, "--store", store, "--scores", tmp_path / "scores")
    before = len(control.creations(kind="predict_run"))
    evaluated(cli, *options)
    evaluated(cli, *options)
    assert len(control.creations(kind="predict_run")) - before == 1


def test_a_rule_decides(cli, classification, fitted, store):
    evaluated(cli, "churn@latest", classification.train, "--store", store)
    promote = ("models", "promote", "churn", "latest", "--store", store, "--rule")
    refused = cli(*promote, '{"max_latency": 1e-9}')
    assert refused.code == 1, refused.err
    assert "failed" in refused.out
    assert cli("models", "show", "churn", "@champion", "--store", store).code == 2
    ran = cli(*promote, '{"must_beat_baseline": true}', "--json")
    assert (ran.code, json.loads(ran.out)["promote"]) == (0, True)
    assert cli("models", "show", "churn", "@champion", "--store", store).code == 0


@pytest.mark.parametrize(
    ("rule", "told"), [("{", "JSON"), ('{"min_improvment": 1}', "min_improvment"), ("[]", "--rule")]
)
def test_a_rule_that_is_none(cli, fitted, store, rule, told):
    ran = cli("models", "promote", "churn", "latest", "--store", store, "--rule", rule)
    assert ran.code == 2
    assert told in ran.err


def test_a_model_that_is_not_there(cli, classification, store, fitted):
    ran = cli("evaluate", "chrun@latest", classification.train, "--store", store)
    assert ran.code == 2
    assert "churn" in ran.err
    ran = cli("evaluate", "churn@latest", classification.train)
    assert ran.code == 2
