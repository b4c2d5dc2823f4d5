"""Fits that are made once, against the emulator: whatever is repeated, changed, lost or deleted between two calls."""

import logging
import re
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tabpfn_assets import FitParameters, JobRecord, Thinking
from tabpfn_emulator.testing import account_of
from tabpfn_operators.claims import MemoryClaims
from tabpfn_operators.durable import _submission
from tabpfn_operators.errors import (
    ConfigurationError,
    FitFailedError,
    FittedModelNotFoundError,
    FitTimeoutError,
    ModelGoneError,
    OutcomeUnknownError,
    StorageError,
    TabPFNError,
)
from tabpfn_operators.journal import MemoryJournal
from tabpfn_operators.lineage import LineageStore
from tabpfn_operators.places import Place, folder_place

FIT = "/tabpfn/fit"
SUBMIT = "/tabpfn/submit_fit_job"
LOOK = "/tabpfn/get_fit_status"
PREPARE = "/tabpfn/prepare_train_set_upload"
BILLED = FitParameters(task="classification", thinking=Thinking(timeout_secs=1))
OTHER = FitParameters(task="classification", config={"n_estimators": 2})


@pytest.fixture
def home(tmp_path):
    """The arguments that give a fit a place."""
    return {"journal": str(tmp_path / "jobs"), "run_key": "churn/2026-11-21T00:00:00+00:00"}


@pytest.fixture
def place(home):
    """The same place, in a generation."""

    def open_place(generation=0):
        return folder_place(home["journal"], home["run_key"], generation=generation)

    return open_place


@pytest.fixture
def fit(client, classification, control):
    """Fit the 60 rows; any argument may be another."""
    control.configure(retry_in_secs=0.05)

    def call(source=classification.train, target="outcome", *, parameters=classification.parameters, **options):
        return client.fit(source, target, parameters=parameters, **options)

    return call


class Since:
    """What has reached the emulator since the last time this was asked."""

    def __init__(self, journal):
        self._journal = journal
        self._seen = 0

    def __call__(self):
        rows = self._journal.rows()
        new, self._seen = rows[self._seen :], len(rows)
        return new


@pytest.fixture
def since(journal):
    return Since(journal)


def routes(rows):
    return [row["route"] for row in rows]


def sent(rows):
    """Bytes of data that reached the storage."""
    return sum(row["bytes_in"] for row in rows if row["route"] == "/storage")


def created(rows):
    posts = [row for row in rows if row["route"] in {SUBMIT, FIT} and row["method"] == "POST"]
    return sum(row["status"] in {200, None} for row in posts)  # None: the answer was withheld


# The same call again


@pytest.mark.parametrize("streamed", [False, True], ids=["job", "stream"])
def test_an_unchanged_rerun_asks_one_question(fit, home, since, streamed):
    first = fit(streamed=streamed, **home)
    assert created(since()) == 1
    again = fit(streamed=streamed, **home)
    rows = since()
    assert again == first
    assert routes(rows) == [LOOK]
    assert sent(rows) == 0


def test_a_rerun_elsewhere_is_one_too(fit, connect, classification, home, since):
    first = fit(**home)
    since()
    there = connect()
    assert there.fit(classification.train, "outcome", parameters=classification.parameters, **home) == first
    assert routes(since()) == [LOOK]


def test_a_billed_fit_is_charged_once(fit, home, since, client):
    first = fit(parameters=BILLED, **home)
    used = client.get_api_usage()
    since()
    assert fit(parameters=BILLED, **home).fitted_train_set_id == first.fitted_train_set_id
    assert client.get_api_usage() == used
    assert created(since()) == 0


def test_a_table_in_memory_is_known_by_its_values(fit, classification, home, since):
    frame = pd.read_parquet(classification.train)
    first = fit(frame, **home)
    assert sent(since()) > 0
    assert fit(frame.copy(), **home) == first
    assert routes(since()) == [LOOK]
    frame.loc[0, "x"] = 17.0
    assert fit(frame, **home).fitted_train_set_id != first.fitted_train_set_id
    assert sent(since()) > 0


@pytest.fixture
def sources(classification, tmp_path):
    """The 60 rows in other forms; each is made anew, as a rerun would."""
    table = pq.read_table(classification.train)
    csv, folder = tmp_path / "train.csv", tmp_path / "parts"
    table.to_pandas().to_csv(csv, index=False)
    folder.mkdir()
    for number in range(3):
        pq.write_table(table.slice(20 * number, 20), folder / f"part-{number}.parquet")
    return {
        "reader": lambda: pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=7)),
        "table": lambda: pa.concat_tables([table.slice(0, 11), table.slice(11)]),
        "csv": lambda: str(csv),
        "folder": lambda: str(folder),
        "glob": lambda: f"{folder}/*.parquet",
        "list": lambda: [str(folder / f"part-{number}.parquet") for number in range(3)],
    }


@pytest.mark.parametrize("form", ["reader", "table", "csv", "folder", "glob", "list"])
def test_any_source_is_known_again(fit, sources, home, since, form):
    first = fit(sources[form](), **home)
    assert (first.rows, created(since())) == (60, 1)
    assert fit(sources[form](), **home) == first
    assert routes(since()) == [LOOK]


def test_a_part_more_is_another_source(fit, sources, home, tmp_path, since):
    fit(sources["folder"](), **home)
    pq.write_table(pq.read_table(tmp_path / "parts" / "part-0.parquet"), tmp_path / "parts" / "part-3.parquet")
    since()
    assert fit(sources["folder"](), **home).rows == 80
    assert created(since()) == 1


def test_what_is_read_of_a_source_counts(fit, home, since):
    asked = {"filters": [("other", ">", 1)], "casts": {"other": "int32"}}
    first = fit(**asked, **home)
    since()
    assert fit(**asked, **home) == first
    assert routes(since()) == [LOOK]
    assert first.rows < 60
    for changed in ({**asked, "filters": [("other", ">", 2)]}, {**asked, "casts": {"other": "double"}}):
        assert fit(**changed, **home).fitted_train_set_id != first.fitted_train_set_id
        assert sent(since()) > 0


def test_another_run_is_another_fit_of_the_same_upload(fit, home, since):
    first = fit(**home)
    since()
    second = fit(**{**home, "run_key": "tomorrow"})
    rows = since()
    assert second.fitted_train_set_id != first.fitted_train_set_id
    assert second.train_set_upload_id == first.train_set_upload_id
    assert (created(rows), sent(rows)) == (1, 0)


# Which earlier fit will do


def test_never_makes_a_new_one_of_the_same_bytes(fit, home, since):
    ids = [fit(reuse="never", **home).fitted_train_set_id for _ in range(3)]
    rows = since()
    assert len(set(ids)) == created(rows) == 3
    assert routes(rows).count(PREPARE) == 1
    assert fit(**home).fitted_train_set_id == ids[-1]


def test_never_takes_up_what_was_interrupted(fit, home, control, since):
    control.configure(fit_seconds=1.0)
    with pytest.raises(FitTimeoutError) as caught:
        fit(reuse="never", timeout=0.1, **home)
    assert fit(reuse="never", **home).fitted_train_set_id == caught.value.fitted_train_set_id
    assert created(since()) == 1


def test_always_finds_it_in_the_store(fit, home, tmp_path, since):
    store = str(tmp_path / "store")
    first = fit(lineage=store, name="churn", **home)
    since()
    elsewhere = {"journal": str(tmp_path / "elsewhere"), "run_key": "other"}
    assert fit(lineage=store, name="churn", reuse="always", **elsewhere) == first
    rows = since()
    assert routes(rows) == [LOOK]
    assert fit(lineage=store, name="churn", reuse="always") == first
    assert routes(since()) == [LOOK]


def test_what_was_found_is_remembered_here(fit, home, tmp_path, since):
    first = fit(lineage=tmp_path / "store", name="churn", **home)
    elsewhere = {"journal": tmp_path / "other", "run_key": "monday"}
    assert fit(lineage=tmp_path / "store", name="churn", reuse="always", **elsewhere) == first
    since()
    assert fit(**elsewhere) == first
    assert routes(since()) == [LOOK]


def test_always_takes_no_model_that_is_gone(client, fit, tmp_path, since):
    store = str(tmp_path / "store")
    first = fit(lineage=store, name="churn", durable=False)
    client.delete_dataset(first.train_set_upload_id)
    since()
    second = fit(lineage=store, name="churn", reuse="always")
    rows = since()
    assert second.fitted_train_set_id != first.fitted_train_set_id
    assert created(rows) == 1
    assert sent(rows) > 0, "the upload that the store names is gone with it"
    assert fit(lineage=store, name="churn", reuse="always") == second


def test_a_store_knows_what_was_uploaded(fit, home, tmp_path, since):
    store = str(tmp_path / "store")
    first = fit(lineage=store, name="churn", **home)
    since()
    second = fit(lineage=store, name="churn", parameters=OTHER, reuse="always", journal=tmp_path / "b", run_key="b")
    rows = since()
    assert second.train_set_upload_id == first.train_set_upload_id
    assert PREPARE not in routes(rows)
    assert (created(rows), sent(rows)) == (1, 0)


# Generations


def test_a_redo_of_what_was_delivered_is_a_new_fit(fit, place, since):
    first = fit(journal=place())
    since()
    second = fit(journal=place(1))
    rows = since()
    assert second.fitted_train_set_id != first.fitted_train_set_id
    assert (created(rows), sent(rows), PREPARE in routes(rows)) == (1, 0, False)
    assert fit(journal=place(1)) == second
    with pytest.raises(ConfigurationError, match="generation 0 is over: generation 1 has begun"):
        fit(journal=place())


def test_a_redo_of_what_is_unfinished_takes_it_up(fit, place, control, since):
    control.configure(fit_seconds=1.0)
    with pytest.raises(FitTimeoutError) as caught:
        fit(journal=place(), timeout=0.1)
    assert fit(journal=place(1)).fitted_train_set_id == caught.value.fitted_train_set_id
    assert created(since()) == 1
    assert place().journal.read().generation == 1
    second = fit(journal=place(2))
    assert second.fitted_train_set_id != caught.value.fitted_train_set_id


# What changed


def test_other_parameters_are_another_fit_of_the_same_upload(fit, home, since):
    first = fit(**home)
    since()
    second = fit(parameters=OTHER, **home)
    rows = since()
    assert second.fitted_train_set_id != first.fitted_train_set_id
    assert second.train_set_upload_id == first.train_set_upload_id
    assert (created(rows), sent(rows), PREPARE in routes(rows)) == (1, 0, False)


@pytest.mark.parametrize("change", ["rewritten", "columns"])
def test_another_source_is_another_upload(fit, classification, home, since, change):
    first = fit(**home)
    since()
    options = {"features": ["x"]} if change == "columns" else {}
    if change == "rewritten":
        table = pq.read_table(classification.train)
        pq.write_table(pa.concat_tables([table, table.slice(0, 10)]), classification.train)
    second = fit(**options, **home)
    rows = since()
    assert second.fitted_train_set_id != first.fitted_train_set_id
    assert created(rows) == 1
    assert sent(rows) > 0
    assert second.rows == (70 if change == "rewritten" else 60)


# Failures


def test_a_failed_fit_is_final_in_its_generation(fit, control, place, since):
    control.inject({"kind": "fail_fit", "route": SUBMIT, "error": "constant target", "error_code": "USER_ERROR"})
    errors = []
    for _ in range(3):
        with pytest.raises(FitFailedError, match="constant target") as caught:
            fit(journal=place())
        errors.append(caught.value)
    assert created(since()) == 1
    assert len({error.fitted_train_set_id for error in errors}) == 1
    assert {error.code for error in errors} == {"USER_ERROR"}
    assert [str(error).count("constant target") for error in errors] == [1, 1, 1]
    assert len({str(error) for error in errors[1:]}) == 1
    assert str(errors[1]).count("Correct the data") == 1
    assert fit(journal=place(1)).status == "completed"
    assert created(since()) == 1


def test_a_streamed_fit_that_fails_is_final_too(fit, control, place, since):
    """It fails before the server has named it, so nothing but the journal knows of it."""
    control.inject({"kind": "streamed_error", "route": FIT, "when": "after", "error": "constant target"})
    for _ in range(3):
        with pytest.raises(FitFailedError, match="constant target") as caught:
            fit(journal=place(), streamed=True, parameters=BILLED)
    assert created(since()) == 1
    assert "None" not in str(caught.value)
    assert "reuse='never'" in str(caught.value)
    assert fit(journal=place(), streamed=True, parameters=BILLED, reuse="never").status == "completed"
    assert created(since()) == 1


def test_a_failure_that_passes_is_fitted_again(fit, control, home, since):
    control.inject({"kind": "fail_fit", "route": SUBMIT, "error": "busy", "error_code": "RATE_LIMIT_EXCEEDED"})
    with pytest.raises(FitFailedError):
        fit(**home)
    assert fit(**home).status == "completed"
    assert created(since()) == 2


def test_what_the_server_refuses_leaves_nothing_in_doubt(fit, control, home, place, since):
    control.inject(
        {"kind": "status", "route": SUBMIT, "status": 422, "error_code": "USER_ERROR", "error": "no such metric"}
    )
    with pytest.raises(TabPFNError, match="no such metric"):
        fit(parameters=BILLED, **home)
    assert place().journal.read().phase == "uploaded"
    since()
    assert fit(parameters=BILLED, **home).status == "completed"
    assert sent(since()) == 0


def test_a_billed_fit_in_doubt_stays_in_doubt_until_somebody_decides(fit, control, home, place, since):
    control.inject({"kind": "drop", "route": SUBMIT, "when": "after"})
    for _ in range(3):
        with pytest.raises(OutcomeUnknownError):
            fit(parameters=BILLED, **home)
    assert created(since()) == 1
    assert place().journal.read().phase == "intent"
    model = fit(parameters=BILLED, on_unknown="resubmit", **home)
    assert (model.possible_orphans, created(since())) == (1, 1)
    assert fit(parameters=BILLED, **home) == model


def test_a_free_fit_in_doubt_is_sent_once_more_and_says_so(fit, control, home, since):
    control.inject({"kind": "drop", "route": SUBMIT, "when": "after"})
    model = fit(**home)
    assert (model.possible_orphans, created(since())) == (1, 2)
    assert fit(**home) == model


def test_a_deadline_loses_nothing(fit, client, control, home, since):
    control.configure(fit_seconds=1.0)
    with pytest.raises(FitTimeoutError) as caught:
        fit(timeout=0.1, **home)
    model = client.resume_fit(**home)
    assert (model.fitted_train_set_id, model.status) == (caught.value.fitted_train_set_id, "completed")
    assert created(since()) == 1
    assert fit(**home) == model
    assert client.resume_fit(**home) == model


def test_an_upload_that_is_gone_is_sent_again(fit, client, home, since):
    first = fit(**home)
    client.delete_dataset(first.train_set_upload_id)
    since()
    second = fit(parameters=OTHER, **home)
    rows = since()
    assert second.train_set_upload_id != first.train_set_upload_id
    assert [row["status"] for row in rows if row["route"] == SUBMIT and row["method"] == "POST"] == [404, 200]
    assert sent(rows) > 0
    assert fit(parameters=OTHER, **home) == second


# Gone


@pytest.mark.parametrize(
    "parameters", [FitParameters(task="classification"), OTHER, BILLED], ids=["", "config", "billed"]
)
def test_a_model_that_is_gone_names_the_call_that_fits_it_again(fit, client, home, since, parameters):
    first = fit(parameters=parameters, name="churn", features=["other", "x"], **home)
    client.delete_dataset(first.train_set_upload_id)
    since()
    with pytest.raises(ModelGoneError, match=re.escape(first.fitted_train_set_id)) as caught:
        fit(parameters=parameters, name="churn", features=["other", "x"], **home)
    assert created(since()) == 0, "nobody asked for another one"
    assert caught.value.refit in str(caught.value)
    assert caught.value.terminal
    again = eval(caught.value.refit, {"client": client, "FitParameters": FitParameters})
    assert again.fitted_train_set_id != first.fitted_train_set_id
    same = {"name", "parameters", "features", "target", "classes", "rows", "source", "fingerprint"}
    assert again.model_dump(include=same) == first.model_dump(include=same)


def test_a_model_that_is_gone_can_be_fitted_again_in_its_place(fit, client, home):
    first = fit(**home)
    client.delete_dataset(first.train_set_upload_id)
    with pytest.raises(ModelGoneError):
        fit(**home)
    second = fit(reuse="never", **home)
    assert second.fitted_train_set_id != first.fitted_train_set_id
    assert fit(**home) == second


def test_an_unfinished_fit_that_is_gone_too(fit, client, control, home, place):
    control.configure(fit_seconds=1.0)
    with pytest.raises(FitTimeoutError):
        fit(timeout=0.1, **home)
    client.delete_dataset(place().journal.read().model.train_set_upload_id)
    for call in (lambda: fit(**home), lambda: client.resume_fit(**home)):
        with pytest.raises(ModelGoneError):
            call()
    assert fit(reuse="never", **home).status == "completed"


# Accounts


def test_a_new_key_of_the_same_account_changes_nothing(fit, connect, classification, control, bearer, home, since):
    first = fit(**home)
    control.change_account(account_of(bearer), add_tokens=[f"{bearer}-new"], revoke_tokens=[bearer])
    rotated = connect(f"{bearer}-new")
    since()
    assert rotated.fit(classification.train, "outcome", parameters=classification.parameters, **home) == first
    assert routes(since()) == [LOOK]


def test_the_key_of_another_account_finds_nothing(fit, connect, classification, bearer, home, since):
    fit(**home)
    stranger = connect(f"{bearer}-stranger")
    since()
    with pytest.raises(ModelGoneError, match="belongs to another account"):
        stranger.fit(classification.train, "outcome", parameters=classification.parameters, **home)
    assert routes(since()) == [LOOK]


def test_a_label_finds_the_fits_of_an_old_key(connect, classification, control, bearer, tmp_path, since):
    asked = {"parameters": classification.parameters, "lineage": str(tmp_path), "name": "churn", "reuse": "always"}
    first = connect(account="finance").fit(classification.train, "outcome", **asked)
    control.change_account(account_of(bearer), add_tokens=[f"{bearer}-new"])
    since()
    rotated = connect(f"{bearer}-new", account="finance")
    assert rotated.fit(classification.train, "outcome", **asked) == first
    assert created(since()) == 0
    unlabelled = connect(f"{bearer}-new").fit(classification.train, "outcome", **asked)
    assert unlabelled.fitted_train_set_id != first.fitted_train_set_id


# Without a journal


def test_a_fit_without_a_journal_says_so_once(fit, caplog):
    fit(streamed=True)
    assert caplog.text.count("This fit has no journal") == 1
    assert "Pass journal= and run_key=" in caplog.text


def test_a_billed_fit_needs_a_journal(fit, since):
    with pytest.raises(ConfigurationError, match=r"billed, and without a journal .* or durable=False"):
        fit(parameters=BILLED)
    assert since() == []
    assert fit(parameters=BILLED, durable=False).status == "completed"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"journal": "jobs"}, "name this one with run_key="),
        ({"run_key": "nightly"}, "pass journal="),
        ({"journal": Place("p", MemoryJournal(JobRecord)), "run_key": "nightly"}, "run_key names a place"),
        ({"journal": "jobs", "run_key": ""}, "needs a key"),
        ({"journal": "", "run_key": "nightly"}, "needs a folder"),
        ({"journal": 7, "run_key": "nightly"}, "needs a folder"),
        ({"journal": "nosuch://jobs", "run_key": "nightly"}, "unknown storage protocol"),
        ({"reuse": "always"}, "looks into a lineage store: pass lineage="),
        ({"reuse": "always", "journal": "jobs", "run_key": "nightly"}, "pass lineage="),
        ({"lineage": "store"}, "files models by name: pass name="),
        ({"name": "../up"}, "not usable"),
        ({"timeout": -1.0}, "not usable"),
        ({"parameters": {"task": "classification"}}, "must be FitParameters"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_arguments_that_contradict_themselves(fit, since, tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=re.escape(words)):
        fit(**options)
    assert since() == []
    assert not (tmp_path / "jobs").exists()
    assert not (tmp_path / "store").exists()


# The store


def test_a_model_is_filed_once(fit, home, tmp_path):
    store = LineageStore(tmp_path / "store")
    first = fit(lineage=store, name="churn", **home)
    assert fit(lineage=store, name="churn", **home) == first
    (version,) = store.versions("churn")
    assert store.get("churn", version) == first
    assert store.find(first.fingerprint) == [first]


def test_a_kill_before_it_is_filed_costs_a_line(fit, home, tmp_path):
    """A rerun of what was delivered files it where that is still to be done."""
    first = fit(name="churn", **home)
    store = LineageStore(tmp_path / "store")
    fit(lineage=store, name="churn", **home)
    assert [model.fitted_train_set_id for model in store.find(first.fingerprint)] == [first.fitted_train_set_id]


def test_what_is_not_completed_is_not_filed(client, classification, control, home, tmp_path, since):
    control.configure(fit_seconds=1.0, retry_in_secs=0.05)
    store = LineageStore(tmp_path / "store")
    asked = {"parameters": classification.parameters, "name": "churn"}
    pending = client.start_fit(classification.train, "outcome", lineage=store, **asked, **home)
    assert pending.status == "pending"
    assert store.names() == []
    assert client.start_fit(classification.train, "outcome", lineage=store, **asked, **home) == pending
    done = client.resume_fit(lineage=store, **home)
    assert [done] == store.find(done.fingerprint)
    assert (done.fitted_train_set_id, done.status) == (pending.fitted_train_set_id, "completed")
    assert client.start_fit(classification.train, "outcome", lineage=store, **asked, **home) == done
    assert created(since()) == 1


# Taken over


def test_a_fit_is_adopted_by_its_id(client, fit, home, classification, tmp_path, since):
    lost = fit(durable=False)
    since()
    adopted = client.adopt_fit(
        lost.fitted_train_set_id,
        classification.train,
        "outcome",
        parameters=classification.parameters,
        name="churn",
        lineage=tmp_path / "store",
        **home,
    )
    rows = since()
    assert (created(rows), sent(rows)) == (0, 0)
    assert (adopted.fitted_train_set_id, adopted.train_set_upload_id) == (lost.fitted_train_set_id, None)
    same = {"parameters", "features", "target", "classes", "rows", "fingerprint", "status", "api_url"}
    assert adopted.model_dump(include=same) == lost.model_dump(include=same)
    assert adopted.source.fingerprint == lost.source.fingerprint
    since()
    assert fit(name="churn", **home) == adopted
    assert routes(since()) == [LOOK]
    assert LineageStore(tmp_path / "store").get("churn") == adopted


def test_nobody_adopts_what_the_server_does_not_know(client, classification, home, place):
    with pytest.raises(FittedModelNotFoundError):
        client.adopt_fit(
            "00000000-0000-4000-8000-000000000000",
            classification.train,
            "outcome",
            parameters=classification.parameters,
            **home,
        )
    assert place().journal.read() is None


def test_adopting_ends_the_doubt(client, fit, control, classification, home, bearer, since):
    control.inject({"kind": "drop", "route": SUBMIT, "when": "after"})
    with pytest.raises(OutcomeUnknownError):
        fit(parameters=BILLED, **home)
    with pytest.raises(OutcomeUnknownError, match="adopt_fit"):
        fit(parameters=BILLED, **home)
    (known,) = control.fits(account=account_of(bearer))
    adopted = client.adopt_fit(known["fitted_train_set_id"], classification.train, "outcome", parameters=BILLED, **home)
    assert fit(parameters=BILLED, **home) == adopted
    assert created(since()) == 1


def test_there_is_nothing_to_resume(client, home, place, since):
    with pytest.raises(ConfigurationError, match=r"No fit was submitted in .*; call fit"):
        client.resume_fit(**home)
    place().journal.write(JobRecord(kind="tabpfn_async", phase="uploaded", fingerprint="f"))
    with pytest.raises(ConfigurationError, match="No fit was submitted"):
        client.resume_fit(**home)
    place().journal.write(JobRecord(kind="tabpfn_async", phase="intent", fingerprint="f", owner="gone"))
    with pytest.raises(OutcomeUnknownError):
        client.resume_fit(**home)
    place().journal.write(JobRecord(kind="tabpfn_async", phase="submitted", job_id="fit-1"))
    with pytest.raises(ConfigurationError, match="adopt_fit"):
        client.resume_fit(**home)
    assert since() == []


def test_a_failed_fit_stays_failed_when_it_is_resumed(client, fit, control, home, since):
    control.inject({"kind": "fail_fit", "route": SUBMIT, "error": "constant target", "error_code": "USER_ERROR"})
    with pytest.raises(FitFailedError):
        fit(**home)
    since()
    with pytest.raises(FitFailedError, match="constant target") as caught:
        client.resume_fit(**home)
    assert str(caught.value).count("Correct the data") == 1
    assert since() == []


# Storage that fails


class FlakyJournal:
    """A journal in memory that does not take records of some phase."""

    def __init__(self, *phases, after_intent=()):
        self._inner = MemoryJournal(JobRecord)
        self.phases = set(phases)
        self._after_intent = after_intent

    def read(self):
        return self._inner.read()

    def write(self, record):
        if record.phase in self.phases:
            raise StorageError("jobs/nightly.json could not be written to; run again.")
        if record.phase == "intent":
            self.phases.update(self._after_intent)
        self._inner.write(record)


def test_a_journal_that_fails_after_the_request_ends_nothing(fit, caplog, since, monkeypatch):
    """The id is in hand, so the fit goes on, and in the log, should this process end now."""
    monkeypatch.setattr(_submission, "RECORD_AGAIN_SECONDS", (0.01, 0.01))
    model = fit(journal=Place("nightly", FlakyJournal("submitted"), MemoryClaims()))
    assert model.status == "completed"
    assert created(since()) == 1
    (said,) = [entry for entry in caplog.records if entry.levelno == logging.ERROR]
    assert model.fitted_train_set_id in said.getMessage()
    assert "adopt_fit" in said.getMessage()


def test_a_refusal_is_told_whatever_the_journal_does(fit, control, since):
    control.inject(
        {"kind": "status", "route": SUBMIT, "status": 422, "error_code": "USER_ERROR", "error": "no such metric"}
    )
    place = Place("nightly", FlakyJournal(after_intent={"uploaded"}), MemoryClaims())
    with pytest.raises(TabPFNError, match="no such metric"):
        fit(parameters=BILLED, journal=place)
    assert place.journal.read().phase == "intent"


def test_a_journal_that_fails_before_the_request_stops_it(fit, since):
    place = Place("nightly", FlakyJournal("intent"), MemoryClaims())
    with pytest.raises(StorageError):
        fit(parameters=BILLED, journal=place)
    assert created(since()) == 0
    place.journal.phases.clear()
    assert fit(parameters=BILLED, journal=place).status == "completed"
    assert sent(since()) == 0, "the upload was written down"


def test_a_journal_that_cannot_be_read_is_no_empty_one(fit, home, since):
    fit(**home)
    since()
    (path,) = Path(home["journal"], "jobs").rglob("*.json")
    path.write_text("{ not JSON")
    with pytest.raises(TabPFNError, match="holds no JSON"):
        fit(**home)
    assert since() == []


def test_the_caller_hears_of_the_id_at_once(fit, home):
    heard = []
    model = fit(on_submitted=heard.append, **home)
    assert [(told.fitted_train_set_id, told.status) for told in heard] == [(model.fitted_train_set_id, "pending")]
