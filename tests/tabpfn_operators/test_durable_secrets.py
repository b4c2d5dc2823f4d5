"""Canaries of fits that are remembered: no secret is in a journal, a store, a log, an error or a pickle."""

import json
import logging
import pickle
import re

import attr
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tabpfn_assets import FitParameters, JobRecord, Thinking
from tabpfn_operators import Client
from tabpfn_operators.errors import FitFailedError, FitTimeoutError, ModelGoneError, OutcomeUnknownError, TabPFNError
from tabpfn_operators.evaluation import render_png, render_report
from tabpfn_operators.lineage import LineageStore
from tabpfn_operators.places import folder_place
from tabpfn_operators.promotion import PromotionRule, promote

KEY, SECRET, SIGNATURE, OPTION = (f"canary-{word}-4711" for word in ("key", "secret", "signature", "option"))
SUBMIT = "/tabpfn/submit_fit_job"
BILLED = FitParameters(task="classification", thinking=Thinking(timeout_secs=1))


class LockedFileSystem(MemoryFileSystem):
    """Storage that takes its credentials from the URL and from options, as s3fs and adlfs can."""

    protocol = ("locked",)
    cachable = False

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(re.sub(r"^locked://([^/@]*@)?", "memory://", path.partition("?")[0]))


@pytest.fixture
def everything(caplog, capfd, tmp_path, bearer):
    """Collect what a fit leaves behind, and look for canaries in it."""
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore", "tabpfn_operators"):
        caplog.set_level(logging.DEBUG, name)
    kept = []

    def check(*more):
        kept.extend(more)
        files = {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        stored = {f"memory {path}": MemoryFileSystem.store[path].getvalue() for path in MemoryFileSystem.store}
        texts = {"log": caplog.text.encode(), "streams": "".join(capfd.readouterr()).encode()}
        for number, thing in enumerate(kept):
            texts[f"repr {number}"] = f"{thing!r} {thing}".encode()
            texts[f"pickle {number}"] = pickle.dumps(thing)
            if isinstance(thing, BaseException):
                texts[f"chain {number}"] = " ".join(f"{e!r} {e} {vars(e)}" for e in chain(thing)).encode()
        names = [name for name in {**files, **stored} if "/jobs/" in name or "/models/" in name]
        assert names, "nothing was written, so nothing was looked at"
        for name, content in {**files, **stored, **texts}.items():
            for canary in (KEY, SECRET, SIGNATURE, OPTION, bearer):
                assert canary.encode() not in content, (canary, name)
                assert canary not in name

    return check


def chain(error):
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


@pytest.fixture
def fit(client, classification, control, tmp_path, bearer):
    """Fit a source whose URL and options hold secrets, in a place whose URL holds them too."""
    fsspec.register_implementation("locked", LockedFileSystem, clobber=True)
    control.configure(retry_in_secs=0.05)
    folder = f"/bucket/{bearer[-8:]}"
    with open(classification.train, "rb") as file:
        MemoryFileSystem().pipe_file(f"{folder}/train.parquet", file.read())
    options = {"client_kwargs": {"secret": OPTION}}
    source = f"locked://{KEY}:{SECRET}@{folder[1:]}/train.parquet?sig={SIGNATURE}"
    homes = {
        "local": {"journal": str(tmp_path / "home"), "lineage": str(tmp_path / "store")},
        "remote": {
            "journal": f"locked://{KEY}:{SECRET}@{folder[1:]}/home",
            "lineage": f"locked://{KEY}:{SECRET}@{folder[1:]}/store",
        },
    }

    def call(where="local", **asked):
        asked = {
            "parameters": classification.parameters,
            "name": "churn",
            "run_key": "nightly",
            **homes[where],
            **asked,
        }
        return client.fit(source, "outcome", storage_options=options, **asked)

    yield call
    MemoryFileSystem().rm(folder, recursive=True)


@pytest.mark.parametrize("where", ["local", "remote"])
def test_what_is_remembered_of_a_fit(fit, client, everything, tmp_path, bearer, where):
    heard = []
    model = fit(where, on_submitted=heard.append, progress=heard.append)
    again = fit(where)
    assert again == model
    assert model.source.uris == (f"locked://bucket/{bearer[-8:]}/train.parquet",)
    asked = {"local": tmp_path, "remote": f"locked://{KEY}:{SECRET}@bucket/{bearer[-8:]}"}[where]
    record = folder_place(f"{asked}/home", "nightly").journal.read()
    assert record.delivered
    store = LineageStore(f"{asked}/store")
    everything(model, again, record, store.get("churn"), store.url, *heard)


def failing(kind):
    return {
        "failed": ([{"kind": "fail_fit", "route": SUBMIT, "error": "constant"}], {}, FitFailedError),
        "unknown": ([{"kind": "drop", "route": SUBMIT, "when": "after"}], {"parameters": BILLED}, OutcomeUnknownError),
        "timeout": ([{"kind": "endless_fit", "route": SUBMIT}], {"timeout": 0.1}, FitTimeoutError),
    }[kind]


@pytest.mark.parametrize("kind", ["failed", "unknown", "timeout"])
def test_what_is_said_of_a_fit_that_did_not_work(fit, control, everything, kind):
    faults, asked, error = failing(kind)
    control.inject(*faults)
    for _ in range(2):
        with pytest.raises(error) as caught:
            fit(**asked)
        everything(caught.value)


@pytest.mark.parametrize("where", ["local", "remote"])
def test_the_call_that_fits_again(fit, client, everything, where):
    model = fit(where)
    client.delete_dataset(model.train_set_upload_id)
    with pytest.raises(ModelGoneError) as caught:
        fit(where)
    everything(model, caught.value, caught.value.refit)


def test_a_journal_that_cannot_be_read(fit, everything, bearer):
    fit("remote")
    memory = MemoryFileSystem()
    memory.pipe_file(f"/bucket/{bearer[-8:]}/home/jobs/nightly.json", b"[]")
    with pytest.raises(TabPFNError, match=f"locked:/+bucket/{bearer[-8:]}/home/jobs/nightly.json") as caught:
        fit("remote")
    everything(caught.value)


def test_an_adopted_fit(fit, client, classification, everything, tmp_path):
    model = fit()
    adopted = client.adopt_fit(
        model.fitted_train_set_id,
        classification.train,
        "outcome",
        parameters=classification.parameters,
        journal=tmp_path / "home",
        run_key="adopted",
    )
    everything(model, adopted)


class Told:
    """An OpenLineage client of somebody's own."""

    def __init__(self):
        self.events = []

    def emit(self, event):
        self.events.append(event)


LABEL, COLUMN = "<script>alert(1)</script>", "<img src=x onerror=alert(2)>"


def test_a_whole_life(connect, everything, tmp_path, bearer):
    """Fit, evaluate, report, predict, tell: markup in the data is data everywhere, and no secret is anywhere."""
    fsspec.register_implementation("locked", LockedFileSystem, clobber=True)
    folder = f"/bucket/{bearer[-8:]}-life"
    table = pa.table(
        {COLUMN: [float(i % 7) for i in range(60)], "y": [LABEL if i % 7 < 3 else "fine" for i in range(60)]}
    )
    content = pa.BufferOutputStream()
    pq.write_table(table, content)
    MemoryFileSystem().pipe_file(f"{folder}/t.parquet", content.getvalue().to_pybytes())
    options = {"client_kwargs": {"secret": OPTION}}
    source = f"locked://{KEY}:{SECRET}@{folder[1:]}/t.parquet?sig={SIGNATURE}"
    remote = f"locked://{KEY}:{SECRET}@{folder[1:]}"
    told = Told()
    client = connect(openlineage=told)
    try:
        model = client.fit(
            source,
            "y",
            parameters=FitParameters(task="classification"),
            storage_options=options,
            journal=f"{remote}/home",
            run_key="life",
            lineage=str(tmp_path / "store"),
            name="churn",
        )
        evaluation = client.evaluate(model, source, storage_options=options, scores=str(tmp_path / "scores"))
        store = LineageStore(tmp_path / "store")
        store.add_evaluation("churn", "latest", evaluation)
        decision = promote(store, "churn", rule=PromotionRule(must_beat_baseline=False))
        report = render_report(evaluation, model=model, decision=decision)
        (tmp_path / "report.html").write_text(report, encoding="utf-8")
        (tmp_path / "report.png").write_bytes(render_png(evaluation))
        predictions = client.predict(model, source, f"{remote}/out", storage_options=options)
        events = [json.dumps(attr.asdict(event), default=str) for event in told.events]
        assert len(events) == 6
        assert LABEL in model.classes
        assert not re.search(r"<script|<img src=x", report)
        assert "&lt;script" in report
        everything(model, evaluation, decision, predictions, report, *events)
    finally:
        MemoryFileSystem().rm(folder, recursive=True)


def test_a_server_that_redirects(loopback, classification, everything, tmp_path):
    elsewhere = loopback(lambda seen: (200, {}))
    server = loopback(lambda seen: (307, {}, {"location": f"{elsewhere.url}{seen.path}"}))
    place = folder_place(tmp_path / "home", "redirected")
    place.journal.write(JobRecord(kind="tabpfn_async", phase="uploaded"))
    with Client(f"sk-{SECRET}", base_url=server.url) as client, pytest.raises(TabPFNError) as caught:
        client.fit(classification.train, "outcome", parameters=classification.parameters, journal=place)
    assert server.seen
    assert elsewhere.seen == []
    everything(caught.value)
