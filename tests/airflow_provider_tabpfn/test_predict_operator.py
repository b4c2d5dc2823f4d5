"""`TabPFNPredictOperator` against the emulator: completed and pending models, on the worker and deferred."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, TaskDeferred
from airflow.sdk import Asset

from airflow_provider_tabpfn.operators.fit import TabPFNFitOperator
from airflow_provider_tabpfn.operators.predict import TabPFNPredictOperator
from tabpfn_assets import PredictionSet

PREDICTIONS = Asset("predictions")


@pytest.fixture
def fit(tables, connection, control, context):
    def fit(**changes):
        arguments = {
            "task_id": "fit",
            "source": tables.train,
            "target": "label",
            "task": "classification",
            "features": ["a", "b"],
        }
        return TabPFNFitOperator(**(arguments | changes)).execute(context)

    return fit


@pytest.fixture
def operator(tables, tmp_path):
    def operator(model, **changes):
        arguments = {"task_id": "predict", "source": tables.score, "destination": str(tmp_path / "out")}
        return TabPFNPredictOperator(model=model, outlets=[PREDICTIONS], **(arguments | changes))

    return operator


def check_manifest(manifest, tables, context):
    assert manifest["rows"] == 20
    assert manifest["columns"] == ["prediction", "probability_no", "probability_yes"]
    predicted = pq.read_table(manifest["uri"])
    assert predicted.column_names == manifest["columns"]
    labels = predicted["prediction"].to_pylist()
    assert sum(a == b for a, b in zip(labels, tables.labels, strict=True)) >= 16
    record = PredictionSet.model_validate_json(Path(manifest["lineage_uri"]).read_bytes())
    assert record.model.fitted_train_set_id == manifest["fitted_train_set_id"]
    assert record.run.engine == "airflow"
    assert context["outlet_events"][PREDICTIONS].extra == {
        "fitted_train_set_id": manifest["fitted_train_set_id"],
        "uri": manifest["uri"],
        "rows": 20,
    }
    assert len(json.dumps(manifest)) < 1000


def test_predict_with_a_completed_model(fit, operator, tables, context):
    check_manifest(operator(fit(), deferrable=True).execute(context), tables, context)


def test_a_model_may_be_json_text(fit, operator, tables, context):
    check_manifest(operator(json.dumps(fit())).execute(context), tables, context)


def test_a_pending_model_is_waited_for_on_the_worker(fit, operator, control, tables, context):
    control.configure(fit_seconds=0.5)
    pending = fit(wait_for_completion=False)
    assert pending["status"] == "pending"
    check_manifest(operator(pending, deferrable=False).execute(context), tables, context)


def test_a_pending_model_is_waited_for_in_the_triggerer(fit, operator, control, tables, context, resume, token):
    from tabpfn_emulator.testing import account_of

    control.configure(fit_seconds=0.5)
    pending = fit(wait_for_completion=False)
    with pytest.raises(TaskDeferred) as raised:
        operator(pending, deferrable=True).execute(context)
    assert control.journal(route="/tabpfn/predict", account=account_of(token)) == []
    outcome = resume(raised.value, operator(pending, deferrable=True), context)
    assert outcome.error is None
    check_manifest(outcome.result, tables, context)


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_pending_model_that_fails_is_not_retried(fit, operator, control, context, resume, tmp_path, deferrable):
    control.inject({"kind": "fail_fit", "error": "No luck."})
    pending = fit(wait_for_completion=False)
    error = None
    try:
        operator(pending, deferrable=deferrable).execute(context)
    except TaskDeferred as deferred:
        error = resume(deferred, operator(pending), context).error
    except AirflowFailException as failed:
        error = failed
    assert isinstance(error, AirflowFailException)
    assert "No luck." in str(error)
    assert not (tmp_path / "out").exists()


def test_an_unknown_event_is_refused(fit, operator, context, tmp_path):
    pending = fit(wait_for_completion=False)
    with pytest.raises(AirflowException, match="unknown event"):
        operator(pending).execute_complete(context, event=None)
    assert not (tmp_path / "out").exists()


def test_quantiles_of_a_regression(fit, operator, context):
    model = fit(target="amount", task="regression")
    manifest = operator(model, output_type="quantiles", quantiles=[0.1, 0.9]).execute(context)
    assert {"quantile_0.1", "quantile_0.9"} <= set(manifest["columns"])


def test_labels_can_be_hashed_in_the_record(fit, operator, context):
    manifest = operator(fit(), redact_labels=True).execute(context)
    record = Path(manifest["lineage_uri"]).read_text()
    assert '"yes"' not in record
    assert json.loads(record)["model"]["redacted_fields"]


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ("{'fitted_train_set_id': 1}", "tojson"),
        ({"fitted_train_set_id": "x"}, "FittedModel: "),
        (None, "FittedModel: "),
    ],
)
def test_what_is_no_model_is_refused(operator, context, model, text):
    with pytest.raises(AirflowFailException, match=text):
        operator(model).execute(context)


def test_a_failed_model_cannot_predict(fit, operator, context):
    with pytest.raises(AirflowFailException, match="has failed"):
        operator({**fit(), "status": "failed"}).execute(context)


def test_a_source_without_a_feature_is_not_retried(fit, operator, tables, context, tmp_path):
    short = tmp_path / "short.parquet"
    pq.write_table(pq.read_table(tables.score).drop_columns(["b"]), short)
    with pytest.raises(AirflowFailException, match="feature 'b'"):
        operator(fit(), source=str(short)).execute(context)
    assert not (tmp_path / "out").exists()
