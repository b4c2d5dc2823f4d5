"""`TabPFNFitOperator` against the emulator: on the worker, deferred, and what goes wrong."""

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, TaskDeferred
from airflow.sdk import Asset
from airflow.sdk._shared.secrets_masker import redact

from airflow_provider_tabpfn.assets import model_asset
from airflow_provider_tabpfn.operators.fit import PENDING_MODEL_KEY, TabPFNFitOperator
from tabpfn_assets import FittedModel

MODEL = model_asset("toy", store="tests")


@pytest.fixture
def operator(tables):
    def operator(**changes):
        arguments = {
            "task_id": "fit",
            "source": tables.train,
            "target": "label",
            "task": "classification",
            "exclude": ["amount", "half"],
            "config": {"n_estimators": 2},
            "name": "toy",
            "outlets": [MODEL, Asset("other")],
        }
        return TabPFNFitOperator(**(arguments | changes))

    return operator


def deferred_by(operator, context):
    with pytest.raises(TaskDeferred) as raised:
        operator.execute(context)
    return raised.value


def check_finished(result, context, control):
    model = FittedModel.model_validate(result)
    assert (model.status, model.name, model.target, model.rows) == ("completed", "toy", "label", 60)
    assert model.feature_names == ("a", "b")
    assert model.classes == ("no", "yes")
    assert model.parameters.config == {"n_estimators": 2}
    assert model.run.engine == "airflow"
    assert (model.run.run_id, model.run.task_id) == ("manual__2026-11-21", "dag.fit")
    assert model.run.url == "http://localhost:8080/dags/dag/runs/r/tasks/fit"
    assert model.timings
    extra = context["outlet_events"][MODEL].extra
    assert extra["fitted_train_set_id"] == model.fitted_train_set_id
    assert (extra["rows"], extra["feature_count"], extra["class_count"]) == (60, 2, 2)
    assert extra["source"] == list(model.source.uris)
    assert "yes" not in str(extra)
    assert context["outlet_events"][Asset("other")].extra == extra


def test_fit_on_the_worker(connection, control, operator, context, token):
    from tabpfn_emulator.testing import account_of

    check_finished(operator(deferrable=False).execute(context), context, control)
    assert len(control.fits(account=account_of(token))) == 1


def test_fit_deferred(connection, control, operator, context, resume, token):
    from tabpfn_emulator.testing import account_of

    control.configure(fit_seconds=0.5)
    deferred = deferred_by(operator(deferrable=True, timeout=100), context)
    assert deferred.timeout > 100
    assert PENDING_MODEL_KEY in context["ti"].xcoms
    # Nothing is said of the model before it is there.
    assert context["outlet_events"][MODEL].extra == {}
    outcome = resume(deferred, operator(deferrable=True), context)
    assert outcome.error is None
    check_finished(outcome.result, context, control)
    assert len(control.fits(account=account_of(token))) == 1


def test_nothing_secret_is_stored(connection, control, operator, context, resume, token):
    outcome = resume(deferred_by(operator(deferrable=True), context), operator(), context)
    assert outcome.error is None
    stored = f"{outcome.row}{outcome.event}{outcome.result}{context['ti'].xcoms}{context['outlet_events'][MODEL].extra}"
    assert token not in stored
    assert "Signature" not in stored
    assert outcome.result["fitted_train_set_id"] in stored


def test_without_waiting_the_pending_model_is_returned(connection, control, operator, context):
    control.configure(fit_seconds=60)
    result = operator(deferrable=True, wait_for_completion=False).execute(context)
    assert result["status"] == "pending"
    assert context["outlet_events"][MODEL].extra["status"] == "pending"


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_failed_fit_is_not_retried(connection, control, operator, context, resume, deferrable):
    control.inject({"kind": "fail_fit", "error": "Too few rows of class x.", "error_code": "BAD_DATA"})
    if deferrable:
        error = resume(deferred_by(operator(deferrable=True), context), operator(), context).error
    else:
        with pytest.raises(AirflowFailException) as raised:
            operator(deferrable=False).execute(context)
        error = raised.value
    assert isinstance(error, AirflowFailException)
    assert "Too few rows of class x." in str(error)
    assert context["outlet_events"][MODEL].extra == {}


@pytest.mark.parametrize("deferrable", [False, True])
def test_the_deadline_names_the_fit_that_goes_on(connection, control, operator, context, resume, deferrable):
    control.configure(fit_seconds=60, retry_in_secs=0.3)
    if deferrable:
        error = resume(deferred_by(operator(deferrable=True, timeout=0.5), context), operator(), context).error
    else:
        with pytest.raises(AirflowFailException) as raised:
            operator(deferrable=False, timeout=0.5).execute(context)
        error = raised.value
    assert isinstance(error, AirflowFailException)
    assert "goes on at the server" in str(error)
    assert FittedModel.model_validate(context["ti"].xcom_pull(task_ids="fit", key=PENDING_MODEL_KEY, map_indexes=-1))


@pytest.mark.parametrize(
    "event",
    [
        None,
        {},
        {"status": "success"},
        {"status": "completed", "fitted_train_set_id": "another"},
        {"status": "completed", "fitted_train_set_id": "SELF"},
        {"status": "completed", "fitted_train_set_id": "SELF", "look": {"fitted_train_set_id": "SELF", "status": "x"}},
        {"status": "failed", "fitted_train_set_id": "SELF"},
        {"status": "failed", "fitted_train_set_id": "SELF", "error": "x", "surprise": 1},
    ],
)
def test_an_unknown_event_is_refused(connection, control, operator, context, event):
    fitted_id = deferred_by(operator(deferrable=True), context).trigger.job["job_id"]
    if event:
        import json

        event = json.loads(json.dumps(event).replace("SELF", fitted_id))
    with pytest.raises(AirflowException, match="resumed by an unknown event"):
        operator().execute_complete(context, event=event)
    assert context["outlet_events"][MODEL].extra == {}


def test_a_wait_that_failed_is_retried(connection, control, operator, context):
    fitted_id = deferred_by(operator(deferrable=True), context).trigger.job["job_id"]
    event = {"status": "failed", "fitted_train_set_id": fitted_id, "error": "ServerError: busy", "terminal": False}
    with pytest.raises(AirflowException, match="busy") as raised:
        operator().execute_complete(context, event=event)
    assert not isinstance(raised.value, AirflowFailException)


def test_a_resume_without_its_xcom_says_so(context, operator):
    with pytest.raises(AirflowException, match=PENDING_MODEL_KEY):
        operator().execute_complete(context, event={})


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"source": "/nowhere/train.parquet"}, "/nowhere/train.parquet"),
        ({"target": "absent"}, "absent"),
        ({"task": "clustering"}, "task"),
        ({"thinking": {"effort": "extreme"}}, "effort"),
        ({"name": "../x"}, "name"),
    ],
)
def test_bad_input_is_named_and_not_retried(connection, control, operator, context, token, changes, text):
    from tabpfn_emulator.testing import account_of

    with pytest.raises(AirflowFailException, match=text):
        operator(**changes).execute(context)
    assert control.fits(account=account_of(token)) == []


def test_a_refused_key_is_not_retried(connection, control, operator, context):
    control.inject({"kind": "status", "status": 401, "times": None})
    with pytest.raises(AirflowFailException, match="AuthenticationError"):
        operator().execute(context)


def test_a_server_without_jobs_says_what_to_do(connection, control, operator, context):
    control.configure(async_fit=False)
    with pytest.raises(AirflowFailException, match="AsyncFitUnsupportedError"):
        operator().execute(context)


def test_a_trigger_that_cannot_be_stored_stops_before_anything_is_sent(connection, control, operator, context, token):
    from tabpfn_emulator.testing import account_of

    with pytest.raises(AirflowFailException, match="tabpfn_conn_id"):
        operator(deferrable=True, tabpfn_conn_id=object()).execute(context)
    assert control.journal(account=account_of(token)) == []


def test_thinking_and_templated_text_reach_the_server(connection, control, operator, context):
    result = operator(thinking={"effort": "medium"}, systems=["preprocessing", "thinking"]).execute(context)
    parameters = FittedModel.model_validate(result).parameters
    assert parameters.thinking.effort == "medium"
    assert parameters.systems == ("preprocessing", "thinking")


def test_a_killed_wait_says_that_the_fit_goes_on(connection, control, operator, context, capsys):
    running = operator(deferrable=False)
    running.on_kill()
    assert "goes on" not in capsys.readouterr().out
    running.execute(context)
    running.on_kill()
    assert "goes on at the server" in capsys.readouterr().out


def test_secrets_in_a_url_are_masked_when_it_is_rendered(operator):
    rendered = operator(source="s3://key:{{ word }}@bucket/train.parquet?sig=url-signature-1")
    rendered.render_template_fields({"word": "url-password-1"})
    assert rendered.source == "s3://key:url-password-1@bucket/train.parquet?sig=url-signature-1"
    assert redact(rendered.source) == "s3://key:***@bucket/train.parquet?***"
