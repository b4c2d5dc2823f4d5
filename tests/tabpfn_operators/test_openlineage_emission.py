"""Sending OpenLineage events: over HTTP by OpenLineage's own client, and never at the cost of what they tell of."""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from importlib.machinery import PathFinder

import anyio
import pytest

from tabpfn_assets import EngineRun, FitParameters, PredictionSet
from tabpfn_operators import openlineage as ol
from tabpfn_operators._run import run as run_flow
from tabpfn_operators._wire import AsyncWire, SyncWire
from tabpfn_operators.errors import ConfigurationError, FitFailedError
from tabpfn_operators.openlineage import _emitter
from tabpfn_operators.settings import Settings

SECRET = "canary-7d0be1"
PARAMETERS = FitParameters(task="classification")


class Kept:
    """A client of somebody's own."""

    def __init__(self):
        self.events = []

    def emit(self, event):
        self.events.append(event)


@pytest.fixture(autouse=True)
def no_settings(tmp_path, monkeypatch):
    """No settings of the person who runs this, and none that OpenLineage's client writes into the environment."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("OPENLINEAGE")]:
        del os.environ[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield
    monkeypatch.undo()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def warnings_logged(caplog):
    caplog.set_level(logging.INFO, logger="tabpfn_operators")

    def found():
        return [r.getMessage() for r in caplog.records if r.name == "tabpfn_operators" and r.levelname == "WARNING"]

    return found


@pytest.fixture
def lineage_server(loopback):
    """A server that takes events."""
    return loopback(lambda seen: (201, {}))


@pytest.fixture
def emitter():
    opened = ol.Emitter()
    yield opened
    opened.close()


@pytest.fixture
def run_on():
    """Run a flow over one of the wires, which it sends nothing by."""

    def run(flow, kind="sync"):
        settings = Settings.resolve("token", base_url="http://127.0.0.1:9", verify=False)
        if kind == "sync":
            return run_flow(flow(SyncWire(settings)))
        return anyio.run(lambda: flow(AsyncWire(settings)))

    return run


@pytest.fixture
def fit_of(build_model, run_on):
    """Report a fit that makes a model, or raises."""

    def fit(emitter, outcome=None, kind="sync", engine_run=None):
        def flow(wire):
            return ol.reported_fit(
                wire,
                emitter,
                returning(outcome or build_model(name="churn", rows=60)),
                source="s3://b/a.parquet",
                target="y",
                parameters=PARAMETERS,
                name="churn",
                run=engine_run,
            )

        return run_on(flow, kind)

    return fit


def returning(outcome):
    async def flow():
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return flow


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_fit_is_told_of_over_http(monkeypatch, lineage_server, emitter, fit_of, kind):
    monkeypatch.setenv("OPENLINEAGE_URL", lineage_server.url)
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "lineage-key")
    monkeypatch.setenv("OPENLINEAGE_NAMESPACE", "prod")
    parent = "00000000-0000-0000-0000-000000000007"
    monkeypatch.setenv("OPENLINEAGE_PARENT_ID", f"airflow/dag.task/{parent}")
    assert fit_of(emitter, kind=kind).name == "churn"
    assert lineage_server.paths() == ["/api/v1/lineage"] * 2
    assert {seen.headers["authorization"] for seen in lineage_server.seen} == {"Bearer lineage-key"}
    first, last = (seen.json() for seen in lineage_server.seen)
    assert (first["eventType"], last["eventType"]) == ("START", "COMPLETE")
    assert first["run"]["runId"] == last["run"]["runId"]
    assert (last["job"]["namespace"], last["job"]["name"]) == ("prod", "churn.fit")
    assert last["run"]["facets"]["parent"]["run"]["runId"] == parent
    assert [each["name"] for each in first["inputs"]] == ["a.parquet"]
    assert last["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"] == 60


def test_what_arrives_is_what_was_built(monkeypatch, lineage_server, emitter, build_model):
    """But for the tag with which OpenLineage's client names its version."""
    monkeypatch.setenv("OPENLINEAGE_URL", lineage_server.url)
    from datetime import UTC, datetime

    event = ol.run_event("START", ol.run_identity("fit"), ol.fit_lineage(build_model()), time=datetime.now(UTC))
    before = json.dumps(event, sort_keys=True)
    assert emitter.emit(event)
    assert json.dumps(event, sort_keys=True) == before
    arrived = lineage_server.seen[0].json()
    arrived["run"]["facets"].pop("tags", None)
    assert arrived["schemaURL"].endswith("#/$defs/RunEvent")
    for each in (arrived, event):
        each.pop("schemaURL")
        for side in ("inputs", "outputs"):
            each[side] = [{name: value for name, value in one.items() if value != {}} for one in each[side]]
    assert arrived == event


def test_a_failure_is_told_and_raised(monkeypatch, lineage_server, emitter, fit_of):
    monkeypatch.setenv("OPENLINEAGE_URL", lineage_server.url)
    error = FitFailedError(f"see https://store/x?sig={SECRET}", fitted_train_set_id="f")
    with pytest.raises(FitFailedError) as raised:
        fit_of(emitter, error)
    assert raised.value is error
    last = lineage_server.seen[-1].json()
    assert last["eventType"] == "FAIL"
    assert last["run"]["facets"]["errorMessage"]["message"] == "FitFailedError: see https://store/x"
    assert [each["name"] for each in last["inputs"]] == ["a.parquet"]
    assert not [seen for seen in lineage_server.seen if SECRET.encode() in seen.body]


def test_an_interrupt_waits_for_nothing(monkeypatch, lineage_server, emitter, fit_of):
    monkeypatch.setenv("OPENLINEAGE_URL", lineage_server.url)
    with pytest.raises(KeyboardInterrupt):
        fit_of(emitter, KeyboardInterrupt())
    assert [seen.json()["eventType"] for seen in lineage_server.seen] == ["START"]


@pytest.mark.parametrize(
    "answer",
    [lambda seen: (500, {}), lambda seen: (401, {}), lambda seen: None, lambda seen: b"not HTTP at all\r\n\r\n"],
    ids=["500", "401", "dropped", "garbage"],
)
def test_a_server_that_fails_fails_no_fit(monkeypatch, loopback, emitter, fit_of, warnings_logged, answer):
    server = loopback(answer)
    monkeypatch.setenv("OPENLINEAGE_URL", server.url.replace("http://", f"http://user:{SECRET}@"))
    assert fit_of(emitter).name == "churn"
    (line,) = warnings_logged()
    assert "OPENLINEAGE_URL" in line
    assert SECRET not in line
    tries = len(server.seen)
    assert 1 <= tries <= 2
    assert fit_of(emitter).name == "churn"
    assert len(server.seen) == tries  # nothing is tried for a minute
    monkeypatch.setattr(emitter, "_quiet_until", 0.0)
    fit_of(emitter)
    assert len(server.seen) > tries
    assert len(warnings_logged()) == 1


def test_a_server_that_is_down_fails_no_fit(monkeypatch, emitter, fit_of, warnings_logged):
    monkeypatch.setenv("OPENLINEAGE_URL", "http://127.0.0.1:9")
    assert fit_of(emitter).name == "churn"
    assert len(warnings_logged()) == 1


def test_a_server_that_does_not_answer_delays_little(monkeypatch, loopback, emitter, fit_of, warnings_logged):
    monkeypatch.setattr(_emitter, "_HTTP_SECONDS", 0.2)
    released = threading.Event()
    server = loopback(lambda seen: released.wait(60) and None)
    monkeypatch.setenv("OPENLINEAGE_URL", server.url)
    try:
        assert fit_of(emitter).name == "churn"
        assert not released.is_set()  # it came back although the server still holds the request
        assert len(server.seen) <= 2
        assert len(warnings_logged()) == 1
    finally:
        released.set()


def test_timeouts_of_the_settings_are_kept_where_they_are_shorter(monkeypatch, lineage_server):
    monkeypatch.setenv(
        "OPENLINEAGE__TRANSPORT", json.dumps({"type": "http", "url": lineage_server.url, "timeout": 0.5})
    )
    assert _emitter._client_of_environment().transport.timeout == 0.5
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT", json.dumps({"type": "http", "url": lineage_server.url, "timeout": 99}))
    transport = _emitter._client_of_environment().transport
    assert transport.timeout == 2.0
    assert transport.config.retry["total"] == 1


def test_a_record_that_cannot_be_told_fails_no_fit(monkeypatch, lineage_server, emitter, fit_of, warnings_logged):
    monkeypatch.setenv("OPENLINEAGE_URL", lineage_server.url)

    def broken():
        raise ZeroDivisionError(SECRET)

    assert not emitter.report("START", emitter.identify("fit"), broken)
    (line,) = warnings_logged()
    assert "ZeroDivisionError" in line
    assert SECRET not in line


# Scoring and evaluating


@pytest.fixture
def predictions(build_model):
    return PredictionSet(
        uri="s3://out/predictions.parquet",
        lineage_uri="s3://out/_lineage.json",
        rows=5,
        columns=("prediction", "probability_label-canary"),
        output_type="probas",
        source={"uris": ["s3://in/score.parquet"], "rows": 5},
        test_set_upload_id="test-1",
        model=build_model(name="churn", target="target-canary"),
        created_at="2026-11-21T00:00:00Z",
    )


@pytest.mark.parametrize("redact", [False, True])
def test_scoring_and_evaluating_are_told_of(run_on, predictions, build_evaluation, redact):
    kept = Kept()
    emitter = ol.Emitter(kept, redact_labels=redact)
    model, evaluation = predictions.model, build_evaluation(target="target-canary", notes=["label-canary"])
    where = {"source": "s3://in/score.parquet", "destination": f"s3://K:{SECRET}@out"}
    scored = run_on(lambda w: ol.reported_score(w, emitter, returning(predictions), model=model, **where))
    judged = run_on(lambda w: ol.reported_evaluation(w, emitter, returning(evaluation), holdout="h.csv", model=model))
    assert (scored, judged) == (predictions, evaluation)  # what comes back is never redacted
    told = [(event.eventType.value, event.job.name, event.job.facets["jobType"]["jobType"]) for event in kept.events]
    assert told == [
        ("START", "churn.score", "SCORE"),
        ("COMPLETE", "churn.score", "SCORE"),
        ("START", "churn.evaluate", "EVALUATE"),
        ("COMPLETE", "churn.evaluate", "EVALUATE"),
    ]
    assert [each.name for each in kept.events[1].outputs] == ["predictions.parquet"]
    assert kept.events[3].run.facets["tabpfn_evaluation"]["headline"] == "log_loss"
    text = str(kept.events)
    assert SECRET not in text
    assert ("target-canary" in text) is not redact
    assert ("label-canary" in text) is not redact


@pytest.mark.parametrize("start", ["reported_fit", "reported_score", "reported_evaluation"])
def test_without_an_emitter_the_flow_is_all_that_runs(run_on, predictions, build_evaluation, start):
    outcome, options = {
        "reported_fit": (predictions.model, {"source": "a", "target": "y", "parameters": PARAMETERS}),
        "reported_score": (predictions, {"source": "a", "model": predictions.model, "destination": "out"}),
        "reported_evaluation": (build_evaluation(), {"holdout": "a", "model": predictions.model}),
    }[start]
    assert run_on(lambda wire: getattr(ol, start)(wire, None, returning(outcome), **options)) is outcome


# Whether and where


def test_without_settings_nothing_is_sent_and_one_line_says_so(emitter, fit_of, warnings_logged, capfd):
    for _ in range(2):
        assert fit_of(emitter).name == "churn"
    (line,) = warnings_logged()
    assert "OPENLINEAGE_URL" in line
    assert "eventType" not in "".join(capfd.readouterr())  # nor printed, as OpenLineage's client would


def test_disabled_is_disabled(monkeypatch, lineage_server, emitter, fit_of, warnings_logged):
    monkeypatch.setenv("OPENLINEAGE_URL", lineage_server.url)
    monkeypatch.setenv("OPENLINEAGE_DISABLED", "true")
    fit_of(emitter)
    assert lineage_server.seen == []
    assert warnings_logged() == []


def test_settings_of_a_worker_alone_send_nothing(monkeypatch, lineage_server, fit_of):
    monkeypatch.setenv("OPENLINEAGE_URL", lineage_server.url)
    assert fit_of(ol.emitter_of(False)).name == "churn"
    assert fit_of(ol.emitter_of(None)).name == "churn"
    assert lineage_server.seen == []


def test_settings_from_a_file(tmp_path, monkeypatch, emitter, fit_of):
    events = tmp_path / "events.jsonl"
    settings = {"transport": {"type": "file", "log_file_path": str(events), "append": True}}
    tmp_path.joinpath("openlineage.yml").write_text(json.dumps(settings))
    fit_of(emitter)
    assert [json.loads(line)["eventType"] for line in events.read_text().splitlines()] == ["START", "COMPLETE"]


def test_settings_by_variables_of_a_transport(monkeypatch, lineage_server, emitter, fit_of):
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "http")
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__URL", lineage_server.url)
    fit_of(emitter)
    assert len(lineage_server.seen) == 2


def test_a_client_of_ones_own_is_used(fit_of):
    kept = Kept()
    emitter = ol.emitter_of(kept)
    run = EngineRun(engine="prefect", engine_version="3.8", run_id="r", task_id="train")
    fit_of(emitter, engine_run=run)
    fit_of(emitter, engine_run=run)
    assert {event.job.name for event in kept.events} == {"train.fit"}
    assert len({event.run.runId for event in kept.events}) == 1
    emitter.close()  # it is not ours to close: `Kept` has no such method


def test_what_the_argument_takes(monkeypatch, lineage_server):
    emitter = ol.Emitter(Kept())
    assert ol.emitter_of(emitter) is emitter
    assert isinstance(ol.emitter_of(True), ol.Emitter)
    with pytest.raises(ConfigurationError, match="not str"):
        ol.emitter_of(lineage_server.url)


def test_without_the_extra_one_error_names_it(monkeypatch):
    found = PathFinder.find_spec
    monkeypatch.setattr(
        PathFinder, "find_spec", lambda name, *args: None if name.startswith("openlineage") else found(name, *args)
    )
    for name in [name for name in sys.modules if name.split(".")[0] == "openlineage"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ConfigurationError, match=r"tabpfn-providers\[openlineage\]"):
        ol.emitter_of(True)
    assert ol.emitter_of(False) is None


def test_a_parent_that_cannot_be_read_is_left_out(monkeypatch, warnings_logged):
    monkeypatch.setenv("OPENLINEAGE_PARENT_ID", "nonsense")
    assert ol.Emitter(Kept()).identify("fit").parent is None
    assert len(warnings_logged()) == 1


def test_no_thread_is_left_behind(monkeypatch, lineage_server, fit_of):
    before = set(threading.enumerate())
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "async_http")
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__URL", lineage_server.url)
    emitter = ol.Emitter()
    fit_of(emitter)
    emitter.close()
    assert len(lineage_server.seen) == 2
    serving = {thread for thread in threading.enumerate() if "_serve" in thread.name}
    deadline = time.monotonic() + 10
    while left := set(threading.enumerate()) - before - serving:
        assert time.monotonic() < deadline, left
        time.sleep(0.01)


def test_events_alone_load_neither_openlineage_nor_anything_heavy():
    code = """
import sys
from datetime import UTC, datetime
from tabpfn_assets import FitParameters
from tabpfn_operators import openlineage as ol
assert ol.emitter_of(False) is None
start = ol.fit_start("s3://b/a.parquet", "y", FitParameters(task="regression"), name="m")
ol.run_event("START", ol.run_identity("fit"), start, time=datetime.now(UTC))
ol.Emitter()
heavy = {"httpx", "pyarrow", "pandas", "numpy", "fsspec", "anyio", "requests", "attr", "yaml"}
print(sorted(name for name in sys.modules if name in heavy or name.startswith("openlineage.client")))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
