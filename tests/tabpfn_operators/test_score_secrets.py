"""Canaries of batch scoring: no secret at the destination, in a log or an error; no name where names are redacted."""

import json
import logging
import re

import attr
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tabpfn_assets import FitParameters, PredictionSet, ScoringManifest
from tabpfn_operators.errors import ConfigurationError, OutcomeUnknownError, QuotaExceededError, TabPFNError
from tabpfn_operators.scoring import _shard

KEY, SECRET, SIGNATURE, OPTION = (f"canary-{word}-4711" for word in ("key", "secret", "signature", "option"))
PREDICT = "/tabpfn/predict"


class LockedFileSystem(MemoryFileSystem):
    """Storage that takes its credentials from the URL and from options, as s3fs and adlfs can."""

    protocol = ("locked",)
    cachable = False
    refuses = None

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(re.sub(r"^locked://([^/@]*@)?", "memory://", path.partition("?")[0]))

    def mv(self, path1, path2, **options):
        if self.refuses is not None and "/part-" in path2:
            raise type(self).refuses
        super().mv(path1, path2, **options)


class Told:
    """An OpenLineage client of somebody's own."""

    def __init__(self):
        self.events = []

    def emit(self, event):
        self.events.append(event)


@pytest.fixture
def locked(classification, bearer, write):
    """A folder on the locked storage with rows to score in it."""
    fsspec.register_implementation("locked", LockedFileSystem, clobber=True)
    folder = f"/bucket/{bearer[-8:]}"
    memory = MemoryFileSystem()
    table = pq.read_table(classification.score).append_column("row", pa.array(range(25)))
    with memory.open(f"{folder}/rows.parquet", "wb") as file:
        pq.write_table(table, file)
    yield folder
    LockedFileSystem.refuses = None
    memory.rm(folder, recursive=True)


@pytest.fixture
def run(locked, classification):
    """Score with secrets in both URLs and both options."""
    secrets = {"client_kwargs": {"secret": OPTION}}

    def score(client, model, **options):
        home = f"locked://{KEY}:{SECRET}@{locked[1:]}"
        return client.score(
            model,
            f"{home}/rows.parquet?sig={SIGNATURE}",
            f"{home}/out",
            **{
                "storage_options": secrets,
                "destination_options": secrets,
                "keep": ["row"],
                "rows_per_shard": 10,
                "concurrency": 1,
                **options,
            },
        )

    return score


@pytest.fixture
def everything(caplog, capfd, locked, bearer):
    """Look for canaries in what a scoring leaves behind, and in what it says."""
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore", "tabpfn_operators"):
        caplog.set_level(logging.DEBUG, name)

    def check(*said):
        memory = MemoryFileSystem()
        stored = {path: memory.cat_file(path) for path in memory.find(f"{locked}/out")}
        assert [path for path in stored if "/_claims/" in path], "nothing was written, so nothing was looked at"
        texts = {"log": caplog.text.encode(), "streams": "".join(capfd.readouterr()).encode()}
        for number, thing in enumerate(said):
            texts[f"said {number}"] = f"{thing!r} {thing} {getattr(thing, '__dict__', '')}".encode()
        for name, content in {**stored, **texts}.items():
            for canary in (KEY, SECRET, SIGNATURE, OPTION, bearer, "/storage/"):
                assert canary.encode() not in content, (canary, name)
                assert canary not in name
        return stored

    return check


def test_what_is_left_of_a_scoring(connect, classification, run, everything, locked):
    told, steps = Told(), []
    client = connect(openlineage=told)
    model = client.fit(classification.train, "outcome", parameters=classification.parameters, streamed=True)
    record = run(client, model, progress=steps.append)
    again = run(client, model)
    assert again == record
    assert record.source.uris == (f"locked://{locked[1:]}/rows.parquet",)
    assert record.uri == f"locked://{locked[1:]}/out"
    events = [json.dumps(attr.asdict(event), default=str) for event in told.events]
    stored = everything(record, *events, *steps)
    assert len([path for path in stored if "/part-" in path]) == 3


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"kind": "drop", "when": "after", "route": PREDICT, "times": None}, OutcomeUnknownError),
        ({"kind": "quota", "route": PREDICT, "skip": 1, "times": None}, QuotaExceededError),
        ({"kind": "prediction_uri", "times": None}, OutcomeUnknownError),
        ({"kind": "expired_url", "times": None}, TabPFNError),
    ],
    ids=["lost", "quota", "stored prediction", "expired"],
)
def test_what_is_said_of_one_that_did_not_work(
    client, fit_once, classification, run, everything, control, fault, error
):
    model = fit_once(classification)
    refused = {"kind": "status", "route": "/storage", "method": "GET", "status": 403, "times": None}
    control.inject(fault, *([refused] if fault["kind"] == "prediction_uri" else []))
    with pytest.raises(error) as caught:
        run(client, model)
    everything(caught.value, caught.value.__cause__, caught.value.__context__)


@pytest.mark.parametrize(
    "refuses",
    [PermissionError(f"{KEY} {SIGNATURE}"), TimeoutError(f"https://x/?sig={SIGNATURE}"), RuntimeError(OPTION)],
)
def test_what_is_said_of_a_storage_that_refuses(
    client, fit_once, classification, run, everything, monkeypatch, refuses
):
    monkeypatch.setattr(_shard, "_PUT_AGAIN", (0.01,))
    model = fit_once(classification)
    LockedFileSystem.refuses = refuses
    with pytest.raises(TabPFNError) as caught:
        run(client, model)
    everything(caught.value)


def test_redacted_records_hold_no_label_and_no_column_name(client, write, tmp_path):
    private = ("salary of Ann", "hired?", "Smith", "Jones", "customer", "cust-0007")
    train = write({"salary of Ann": [0.0, 1.0] * 10, "hired?": ["Smith", "Jones"] * 10})
    rows = write(
        {"customer": [f"cust-{i:04d}" for i in range(20)], "salary of Ann": [0.0, 1.0] * 10, "hired?": ["Smith"] * 20},
        "rows.parquet",
    )
    model = client.fit(train, "hired?", parameters=FitParameters(task="classification"), streamed=True)
    out = tmp_path / "out"
    options = {"keep": ["customer", "hired?"], "rows_per_shard": 6, "redact_labels": True}
    record = client.score(model, rows, str(out), **options)
    hidden = [path for path in out.rglob("*") if path.is_file() and path.suffix == ".json"]
    assert len(hidden) > 8
    for path in hidden:
        text = path.read_text()
        assert [word for word in private if word in text] == [], path
    assert PredictionSet.model_validate_json((out / "_lineage.json").read_bytes()) == record
    manifest = ScoringManifest.model_validate_json((out / "_manifest.json").read_bytes())
    assert manifest.columns == record.columns
    assert len(set(record.columns)) == 5
    assert record.model.redacted_fields
    table = pq.read_table(out)
    assert table.column_names == ["customer", "hired?", "prediction", "probability_Jones", "probability_Smith"]
    assert table["customer"].to_pylist() == [f"cust-{i:04d}" for i in range(20)]
    assert client.score(model, rows, str(out), **options) == record


@pytest.mark.parametrize("first", [True, False])
def test_a_finished_scoring_is_redacted_or_told_in_full_when_asked_again(
    client, fit_once, classification, tmp_path, first
):
    model, out = fit_once(classification), tmp_path / "out"
    options = {"keep": ["x"], "rows_per_shard": 10}
    record = client.score(model, classification.score, str(out), redact_labels=first, **options)
    parts = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
    other = client.score(model, classification.score, str(out), redact_labels=not first, **options)
    assert (record.plan_id, len(record.columns)) == (other.plan_id, len(other.columns))
    assert bool(record.model.redacted_fields) is first
    assert bool(other.model.redacted_fields) is not first
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")} == parts
    texts = [(out / name).read_text() for name in ("_lineage.json", "_manifest.json")]
    assert ["probability_yes" in text for text in texts] == [first, first]


def test_names_in_paths_cannot_be_redacted(client, fit_once, classification, tmp_path, journal):
    model, out = fit_once(classification), tmp_path / "out"
    with pytest.raises(ConfigurationError, match="partition_by writes the names and values of columns into paths"):
        client.score(model, classification.score, str(out), keep=["other"], partition_by=["other"], redact_labels=True)
    assert journal.posts(PREDICT) == 0
    assert not out.exists()
