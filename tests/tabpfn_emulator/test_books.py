"""The books: rows, creations, refunds, the control routes and the command that show them."""

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tabpfn_emulator._books.journal import Journal, read_books
from tabpfn_emulator._state.database import Database
from tabpfn_emulator.testing import EmulatorControl, running_emulator

KINDS = ("fit_created", "predict_run", "upload_created")


def test_a_creation_whose_answer_is_lost_is_in_the_books(api, control, cancer, helpers):
    frame, target = cancer
    upload = api.upload_train(helpers.parquet(frame.head(40)), helpers.parquet(target.head(40).to_frame()))
    control.inject({"route": "/tabpfn/submit_fit_job", "kind": "drop", "when": "after"})
    with pytest.raises(httpx.RemoteProtocolError):
        api.post("/tabpfn/submit_fit_job", helpers.nested(upload, "classification"))
    made = control.creations(account=api.account)
    assert [each["kind"] for each in made] == ["upload_created", "fit_created"]
    (fit,) = control.fits(account=api.account)
    assert made[1]["ids"] == {"fitted_train_set_id": fit["fitted_train_set_id"], "train_set_upload_id": upload}
    (row,) = control.journal(route="/tabpfn/submit_fit_job", account=api.account)
    assert (row["seq"], row["status"]) == (made[1]["seq"], None)


def test_what_was_refused_or_there_already_is_no_creation(api, control, cancer, helpers):
    content = helpers.parquet(cancer[0].head(5))
    upload = api.upload_train(content, content)
    assert api.upload_train(content, content) == upload
    assert api.post("/tabpfn/fit", {"train_set_upload_id": upload, "task": "clustering"}).status_code == 422
    assert [each["kind"] for each in control.creations(account=api.account)] == ["upload_created"]


def test_a_row_says_when_the_model_has_learnt_from_less_than_all(api, control, cancer):
    control.configure(predict="constant")
    api.fit(cancer[0].head(40), cancer[1].head(40), "classification")
    (row,) = control.journal(route="/tabpfn/fit", account=api.account)
    assert "40 rows" in row["note"]


@pytest.fixture
def journal(tmp_path):
    database = Database(tmp_path / "emulator.sqlite3")
    yield Journal(database)
    database.close()


ENTRIES = st.lists(
    st.tuples(st.sampled_from(KINDS), st.integers(0, 10**9), st.sampled_from(["a", "b"]), st.booleans()), max_size=20
)


@settings(max_examples=50, derandomize=True, deadline=None)
@given(ENTRIES)
def test_every_order_of_creations_and_refunds_adds_up(tmp_path_factory, entries):
    path = tmp_path_factory.mktemp("books") / "emulator.sqlite3"
    database = Database(path)
    journal = Journal(database)
    expected = Counter()
    for kind, charge, account, refunded in entries:
        row = journal.open_row("POST", "/tabpfn/x", bearer=True)
        row["account"] = account
        creation = journal.created(row, kind, charge, some_id="1")
        if refunded:
            journal.refund(creation)
            assert row["charge"] == 0
        else:
            expected[account] += charge
        journal.close_row(row)
    rows, creations, totals = journal.rows(), journal.creations(), journal.totals()
    for books in (rows, creations):
        assert sum(each["charge"] for each in books) == totals["charge"] == expected.total()
    assert {account: journal.used(account, "2000-01-01") for account in "ab"} == {
        account: expected[account] for account in "ab"
    }
    assert totals["requests"] == len(rows) == len(entries)
    assert totals["creations"] == Counter(kind for kind, *_ in entries)
    database.close()
    assert read_books(path, creations=False) == rows
    assert read_books(path, creations=True) == creations


def test_a_refund_goes_back_to_the_day_of_its_charge(journal, monkeypatch):
    row = journal.open_row("POST", "/tabpfn/fit", bearer=True)
    row["account"] = "ann"
    midnight = 1_767_225_600.0
    clock = iter([midnight - 0.1, midnight + 0.1])
    monkeypatch.setattr("tabpfn_emulator._books.journal.time.time", lambda: next(clock, midnight + 1))
    creation = journal.created(row, "fit_created", charge=7)
    assert (journal.used("ann", "2025-12-31"), journal.used("ann", "2026-01-01")) == (7, 0)
    journal.refund(creation)
    assert (journal.used("ann", "2025-12-31"), journal.used("ann", "2026-01-01")) == (0, 0)


def test_a_transaction_that_fails_leaves_nothing(journal):
    row = journal.open_row("POST", "/tabpfn/fit", bearer=True)
    with pytest.raises(TypeError, match="serializable"):
        journal.created(row, "fit_created", 5, some_id=object())
    assert journal.creations() == []
    assert journal.rows()[0]["charge"] == 0


def test_rows_after_a_number_are_the_last_ones_and_open_ones_are_current(journal):
    rows = [journal.open_row("GET", f"/{number}", bearer=False) for number in range(3)]
    rows[1]["bytes_in"] = 7
    journal.close_row(rows[0])
    assert [(row["route"], row["bytes_in"]) for row in journal.rows(after=1)] == [("/1", 7), ("/2", 0)]
    assert journal.totals()["bytes_in"] == 7
    assert journal.rows()[0]["seconds"] >= 0


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "tabpfn_emulator", "journal", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_prints_the_books_of_a_running_and_of_a_stopped_emulator(tmp_path, cancer, helpers):
    with running_emulator(tmp_path) as url:
        api, other = helpers.api(url), helpers.api(url)
        api.fit(cancer[0].head(40), cancer[1].head(40), "classification")
        assert other.http.get("/protected/").status_code == 200
        shown, made = EmulatorControl(url).journal(), EmulatorControl(url).creations()
        running = command("--data-dir", tmp_path, "--json")
        api.close()
        other.close()
    stopped = command("--data-dir", tmp_path, "--json")
    assert json.loads(running.stdout) == json.loads(stopped.stdout) == shown
    one = command("--data-dir", tmp_path, "--json", "--account", api.account, "--route", "/storage")
    assert [row["method"] for row in json.loads(one.stdout)] == ["PUT", "PUT"]
    assert json.loads(command("--data-dir", tmp_path, "--json", "--creations").stdout) == made
    text = command("--data-dir", tmp_path, "--creations").stdout.splitlines()
    assert [line.split()[2] for line in text[:-1]] == ["upload_created", "fit_created"]
    assert text[-1] == "2 rows, 0 tokens"
    lines = command("--data-dir", tmp_path).stdout.splitlines()
    assert len(lines) == len(shown) + 1
    assert "/protected/" in lines[-2]


def test_no_route_makes_a_line_of_its_own(tmp_path):
    with running_emulator(tmp_path) as url:
        httpx.get(f"{url}/x%0A%1B%5B2J     9  2026-01-01  fit_created", trust_env=False)
    shown = command("--data-dir", tmp_path).stdout
    assert "/x\\n\\x1b[2J" in shown
    assert len(shown.splitlines()) == 2


@pytest.fixture
def nobody():
    """Makes the test a user who may not write everywhere, as root may."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    yield
    os.seteuid(before)


@pytest.fixture
def archived():
    """A folder of books that everybody may read and nobody may change; pytest's own are not for everybody."""
    with tempfile.TemporaryDirectory() as folder:
        database = Database(Path(folder, "emulator.sqlite3"))
        Journal(database).open_row("GET", "/x", bearer=False)
        for suffix in ("", "-wal", "-shm"):
            Path(folder, f"emulator.sqlite3{suffix}").chmod(0o444)
        Path(folder).chmod(0o555)
        yield Path(folder), database
        database.close()
        Path(folder).chmod(0o700)


@pytest.mark.parametrize("ended", [True, False], ids=["ended", "killed"])
def test_books_in_a_folder_that_is_read_only_can_be_read(archived, nobody, ended):
    folder, database = archived
    if ended:
        database._connection.close()
    assert [row["route"] for row in read_books(folder / "emulator.sqlite3", creations=False)] == ["/x"]


@pytest.mark.parametrize("content", [None, b"no database at all, but long enough to be one" * 50])
def test_a_folder_without_books_is_one_clear_line(tmp_path, content):
    if content is not None:
        (tmp_path / "emulator.sqlite3").write_bytes(content)
    done = command("--data-dir", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "emulator.sqlite3" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_books_are_filtered_where_they_are_kept(api, other_api, control, bare, helpers, cancer):
    for caller in (api, other_api):
        caller.fit(cancer[0].head(30), cancer[1].head(30), "classification")

    def shown(what, **query):
        return bare.get(f"{control.url}/_emulator/{what}", params=query).raise_for_status().json()

    rows = shown("journal", account=api.account, route="/tabpfn/fit")
    assert [(row["account"], row["route"]) for row in rows] == [(api.account, "/tabpfn/fit")]
    assert shown("journal", account=api.account, after=rows[-1]["seq"]) == []
    made = shown("creations", account=api.account, kind="fit_created")
    assert [(row["account"], row["kind"]) for row in made] == [(api.account, "fit_created")]
    assert [row["account"] for row in shown("fits", account=other_api.account)] == [other_api.account]


@pytest.mark.parametrize("digits", [19, 30, 5000])
@pytest.mark.parametrize("what", ["journal", "creations"])
def test_nothing_comes_after_a_huge_number(control, bare, what, digits):
    assert bare.get(f"{control.url}/_emulator/{what}?after={'9' * digits}").json() == []


def test_an_open_row_is_found_by_its_account(journal):
    row = journal.open_row("GET", "/x", bearer=True)
    row["account"] = "ann"
    journal.open_row("GET", "/x", bearer=True)["account"] = "bob"
    assert journal.rows(account="ann") == [row]
    journal.close_row(row)
    assert [each["seq"] for each in journal.rows(account="ann", route="/x")] == [row["seq"]]
