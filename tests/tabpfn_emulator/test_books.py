"""The books are exact: sums, rows, creations, and what callers have counted, under load from many sides."""

import json
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tabpfn_emulator._books.journal import Journal, read_books
from tabpfn_emulator._state.database import Database
from tabpfn_emulator.testing import EmulatorControl, running_emulator

KINDS = ("fit_created", "predict_run", "upload_created")


class Caller:
    """Does what it is told and counts what it was answered."""

    def __init__(self, url, helpers, cancer):
        self.helpers = helpers
        self.api = helpers.api(url)
        self.frame, self.target = cancer[0].head(30), cancer[1].head(30)
        self.requests, self.created, self.charge, self.bytes_out = 0, Counter(), 0, 0
        self.fitted = self.test_set = None

    def run(self, actions):
        for action in actions:
            getattr(self, action)()

    def _ask(self, method, path, body=None):
        answer = self.api.http.request(method, path, json=body)
        self.requests += 1
        self.bytes_out += len(answer.content)
        return answer

    def look(self):
        self._ask("GET", "/protected/").raise_for_status()

    def nonsense(self):
        assert self._ask("POST", "/tabpfn/predict", {"colour": "blue"}).status_code == 422

    def upload(self):
        x, y = self.helpers.parquet(self.frame), self.helpers.parquet(self.target.to_frame())
        infos = {"x_train_info": self.helpers.file_info(x), "y_train_info": self.helpers.file_info(y)}
        answer = self._ask("POST", "/tabpfn/prepare_train_set_upload", {**infos, "force_reupload": True}).json()
        self.created["upload_created"] += 1
        for info, content in ((answer["x_train_info"], x), (answer["y_train_info"], y)):
            self._put(info, content)
        return answer["train_set_upload_id"]

    def _put(self, info, content):
        (answer,) = self.api.put(info, content)
        self.requests += 1
        self.bytes_out += len(answer.raise_for_status().content)

    def fit(self):
        body = self.helpers.nested(self.upload(), "classification")
        self.fitted = self._ask("POST", "/tabpfn/fit", body).json()["fitted_train_set_id"]
        self.created["fit_created"] += 1
        content = self.helpers.parquet(self.frame.head(2))
        info = {"fitted_train_set_id": self.fitted, "x_test_info": self.helpers.file_info(content)}
        answer = self._ask("POST", "/tabpfn/prepare_test_set_upload", info).json()
        self.created["upload_created"] += 1
        self._put(answer["x_test_info"], content)
        self.test_set = answer["test_set_upload_id"]

    def think(self):
        body = {**self.helpers.nested(self.upload(), "classification"), "thinking_config": {"effort": "medium"}}
        self._ask("POST", "/tabpfn/submit_fit_job", body).raise_for_status()
        self.created["fit_created"] += 1
        dimensions = {"train_rows": 30, "raw_columns": 30, "operation": "thinking_fit"}
        self.charge += self._ask("POST", "/tabpfn/estimate_cost", dimensions).json()["estimated_cost"]

    def predict(self):
        if self.fitted is None:
            self.fit()
        body = self.helpers.predict_body(self.fitted, self.test_set, "classification")
        self._ask("POST", "/tabpfn/predict", body).raise_for_status()
        self.created["predict_run"] += 1
        self.charge += 10_000


ACTIONS = st.lists(st.sampled_from(["look", "nonsense", "upload", "fit", "think", "predict"]), min_size=1, max_size=6)


@settings(max_examples=5, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ACTIONS, min_size=2, max_size=6))
def test_sums_are_the_sums_of_the_rows_and_what_callers_counted(control, helpers, cancer, plans):
    control.configure(predict="constant")
    before = control.totals()
    seen = max((row["seq"] for row in control.journal()), default=0)
    callers = [Caller(control.url, helpers, cancer) for _ in plans]
    with ThreadPoolExecutor(len(callers)) as threads:
        list(threads.map(Caller.run, callers, plans))
    rows, totals = control.journal(after=seen), control.totals()
    creations = [each for each in control.creations() if each["seq"] > seen]
    grown = {key: totals[key] - before[key] for key in ("requests", "bytes_in", "bytes_out", "charge")}
    assert grown == {
        "requests": len(rows),
        **{key: sum(row[key] for row in rows) for key in ("bytes_in", "bytes_out", "charge")},
    }
    for caller in callers:
        account = caller.api.account
        mine = [row for row in rows if row["account"] == account]
        made = [each for each in creations if each["account"] == account]
        assert len(mine) == caller.requests
        assert sum(row["bytes_out"] for row in mine) == caller.bytes_out
        assert Counter(each["kind"] for each in made) == caller.created
        assert sum(row["charge"] for row in mine) == sum(each["charge"] for each in made) == caller.charge
        assert totals["charges"].get(account, 0) == caller.charge
        caller.api.close()
    made_before = Counter(before["creations"])
    assert Counter(totals["creations"]) - made_before == sum((caller.created for caller in callers), Counter())


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
