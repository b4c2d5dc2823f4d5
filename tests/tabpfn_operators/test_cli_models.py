"""`tabpfn-providers models`: what it prints, what it refuses, and its exit codes."""

import json
import os
import pty
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tabpfn_operators import Client
from tabpfn_operators.errors import FittedModelNotFoundError
from tabpfn_operators.lineage import LineageStore

SCRIPT = Path(sys.executable).with_name("tabpfn-providers")
LATER = datetime(2026, 12, 1, tzinfo=UTC)
HOSTILE = ("<script>alert(1)</script>", "[bold red]:smile:[/bold red]", "\x1b]0;owned\x07\x1b[31m")


@pytest.fixture
def store(tmp_path, monkeypatch):
    store = LineageStore(tmp_path / "store")
    monkeypatch.setenv("TABPFN_LINEAGE_STORE", store.url)
    return store


@pytest.fixture
def versions(store, build_model, build_evaluation):
    """Two versions of churn, the first of them the champion."""
    first = build_model(name="churn", source={"uris": ["s3://bucket/train.parquet"], "rows": 100})
    second = first.model_copy(update={"fitted_train_set_id": "fitted-2", "rows": 200, "created_at": LATER})
    found = store.add(first), store.add(second)
    store.add_evaluation("churn", found[0], build_evaluation())
    store.promote("churn", found[0])
    return found


@pytest.fixture
def fitted(cli, store, bearer, emulator, classification):
    """A model of this test's account, on the server and in the store."""
    with Client(bearer, base_url=emulator) as client:
        model = client.fit(
            classification.train, "outcome", parameters=classification.parameters, streamed=True, name="churn"
        )
        yield model, store.add(model)


def on_terminal(*arguments, **variables):
    """Run the command on a terminal of 300 columns; return what it showed."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "300", "TERM": "xterm-256color", **variables}
    with subprocess.Popen(
        [SCRIPT, "models", *map(str, arguments)], stdout=theirs, stderr=subprocess.STDOUT, env=environment
    ) as started:
        os.close(theirs)
        shown = b""
        try:
            while block := os.read(ours, 65536):
                shown += block
        except OSError:
            pass  # the terminal's other end is closed
        finally:
            os.close(ours)
        started.wait(60)
    return shown.decode()


# Reading


def test_list(cli, store, versions):
    ran = cli("models", "list")
    assert (ran.code, ran.err) == (0, "")
    rows = [line.split() for line in ran.out.splitlines()]
    assert rows[0] == ["model", "version", "aliases", "rows", "score", "state"]
    assert ["churn", versions[0], "@champion", "100", "log_loss", "0.5", "completed"] in rows
    assert ["churn", versions[1], "200", "completed"] in rows
    assert cli("models", "list", "--store", store.url).out == ran.out
    listed = json.loads(cli("models", "list", "churn", "--json").out)
    assert [(each["version"], each["aliases"]) for each in listed] == [(versions[0], ["champion"]), (versions[1], [])]
    assert [each["model"]["fitted_train_set_id"] for each in listed] == ["fitted-1", "fitted-2"]


def test_list_names_what_cannot_be_read_and_shows_the_rest(cli, store, versions):
    damaged = Path(store.url, "models", "churn", f"{versions[1]}.json")
    damaged.write_text("{")
    ran = cli("models", "list")
    assert ran.code == 1
    assert "@champion" in ran.out
    assert "unreadable" in ran.out
    assert f"{damaged} holds no JSON" in ran.err
    problems = {each["version"]: each["problem"] for each in json.loads(cli("models", "list", "--json").out)}
    assert problems[versions[0]] is None
    assert str(damaged) in problems[versions[1]]


def test_show(cli, versions):
    ran = cli("models", "show", "churn", "@champion")
    assert (ran.code, ran.err) == (0, "")
    for text in (f"churn {versions[0]}", "fitted-1", "@champion", "log_loss 0.5", "s3://bucket/train.parquet"):
        assert text in ran.out
    shown = json.loads(cli("models", "show", "churn", versions[0], "--json").out)
    assert shown["aliases"]["champion"]["version"] == shown["version"] == versions[0]
    assert shown["model"]["evaluation"]["metrics"] == {"log_loss": 0.5}
    assert shown["erased"] is None


def test_diff(cli, versions):
    ran = cli("models", "diff", "churn", *versions)
    assert ran.code == 0
    rows = [line.split() for line in ran.out.splitlines()]
    assert rows[0] == ["field", *versions]
    assert ["rows", "100", "200"] in rows
    changes = json.loads(cli("models", "diff", "churn", *versions, "--json").out)["changes"]
    assert {"path": ["fitted_train_set_id"], "before": "fitted-1", "after": "fitted-2"} in changes


# Aliases


def test_promote_and_rollback(cli, store, versions):
    ran = cli("models", "promote", "churn", versions[1], "--expected", versions[0])
    assert ran.code == 0
    assert f"points to  {versions[1]}" in ran.out
    moved = cli("models", "promote", "churn", versions[0], "--expected", versions[0])
    assert moved.code == 2
    assert f"churn@champion points to {versions[1]}, not to {versions[0]}" in moved.err
    back = json.loads(cli("models", "rollback", "churn", "--json").out)
    assert (back["version"], back["number"], back["action"]) == (versions[0], 3, "rollback")
    new = ("models", "promote", "churn", versions[1], "--alias", "next", "--expected", "none")
    assert cli(*new).code == 0
    assert store.alias("churn", "next").version == versions[1]
    assert "nothing before that could serve" in cli("models", "rollback", "churn", "--alias", "next").err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["show", "chrun"], "it holds churn"),
        (["show", "churn", "2027"], "there is no version '2027'"),
        (["show", "../churn"], "is no name"),
        (["diff", "churn", "@next"], "it has champion"),
        (["promote", "churn", "latest", "--alias", "latest"], "cannot be an alias"),
        (["promote", "churn", "latest", "--alias", "@x"], "is no name"),
        (["delete", "churn"], "NAME VERSION, or --source FILE"),
        (["delete", "--yes"], "NAME VERSION, or --source FILE"),
        (["delete", "churn", "latest", "--source", "x"], "NAME VERSION, or --source FILE"),
        (["delete", "--source", "never.parquet"], "no model that was trained on"),
        (["verify", "chrun"], "it holds churn"),
        (["verify", "--concurrency", "0"], "pass 1 or more"),
    ],
)
def test_bad_input_names_the_remedy(cli, versions, arguments, text):
    ran = cli("models", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert text in ran.err


def test_no_store(cli, monkeypatch):
    monkeypatch.delenv("TABPFN_LINEAGE_STORE", raising=False)
    ran = cli("models", "list")
    assert (ran.code, ran.out) == (2, "")
    assert "pass --store or set TABPFN_LINEAGE_STORE" in ran.err


# Verify and delete, with the emulator


def test_verify(cli, fitted, store, bearer, emulator):
    model, version = fitted
    ran = cli("models", "verify")
    assert ran.code == 0
    assert ["churn", version, model.fitted_train_set_id, "present"] in [line.split() for line in ran.out.splitlines()]
    with Client(bearer, base_url=emulator) as client:
        client.delete_dataset(model.train_set_upload_id)
    for marker in Path(store.url).glob("index/uploads/*/*"):
        marker.unlink()
    gone = cli("models", "verify", "churn", "latest")
    assert gone.code == 1
    assert "gone (deleted, or another account's)" in gone.out
    assert "1 index markers are missing" in gone.err
    repaired = cli("models", "verify", "--repair", "--json")
    assert repaired.code == 1
    found = json.loads(repaired.out)
    assert (found["ok"], found["problems"], len(found["repaired"])) == (False, [], 1)
    assert found["models"][0]["state"] == "gone"


def test_delete_says_first_and_does_on_yes(cli, fitted, store, bearer, emulator, journal, monkeypatch):
    model, version = fitted
    store.promote("churn", version)
    asked = len(journal.rows())
    with monkeypatch.context() as without:
        without.delenv("TABPFN_TOKEN")
        dry = cli("models", "delete", "churn", version)
    assert dry.code == 0
    assert model.train_set_upload_id in dry.out
    assert "would be deleted" in dry.out
    assert "--yes does it" in dry.err
    assert "churn@champion would lose its model" in dry.err
    assert "3 column names and 2 class labels" in dry.err
    assert len(journal.rows()) == asked
    refused = cli("models", "delete", "churn", version, "--yes")
    assert (refused.code, refused.out) == (2, "")
    assert "--force" in refused.err
    done = cli("models", "delete", "--source", model.source.uris[0], "--yes", "--force", "--forget-names", "--json")
    assert (done.code, done.err) == (0, "")
    (upload,) = json.loads(done.out)["uploads"]
    assert (upload["outcome"], upload["deleted"]) == ("deleted", [model.train_set_upload_id])
    with Client(bearer, base_url=emulator) as client, pytest.raises(FittedModelNotFoundError):
        client.get_fit_status(model.fitted_train_set_id)
    assert "erased" in cli("models", "list").out
    assert "its training data is gone" in cli("models", "show", "churn", version).out
    verified = cli("models", "verify")
    assert (verified.code, "which is erased; promote another version" in verified.err) == (1, True)
    again = cli("models", "delete", "churn", version, "--yes")
    assert again.code == 0
    assert "gone before" in again.out


def test_delete_that_leaves_something_exits_with_1(cli, fitted, store, bearer, emulator):
    model, version = fitted
    with Client(bearer, base_url=emulator) as client:
        client.delete_dataset(model.train_set_upload_id)
    ran = cli("models", "delete", "churn", version, "--yes")
    assert ran.code == 1
    assert "not found" in ran.out
    assert "--accept-gone" in ran.err
    assert not store.is_erased("churn", version)
    assert cli("models", "delete", "churn", version, "--yes", "--accept-gone").code == 0
    assert store.is_erased("churn", version)


# What a terminal shows


def test_a_terminal_shows_tables_and_no_markup_of_data(store, build_model):
    model = build_model(
        name="churn",
        target=HOSTILE[1],
        classes=HOSTILE,
        features=[{"name": name, "dtype": "double"} for name in HOSTILE],
    )
    first = store.add(model)
    second = store.add(model.model_copy(update={"fitted_train_set_id": "fitted-2", "classes": HOSTILE[:2]}))
    for arguments in (["show", "churn", first], ["diff", "churn", first, second]):
        shown = on_terminal(*arguments, TABPFN_LINEAGE_STORE=store.url)
        assert "<script>alert(1)</script>" in shown
        assert "[bold red]:smile:[/bold red]" in shown
        assert "\x1b]0;owned" not in shown
        assert "\x1b[31m" not in shown
        assert "owned" in shown
    listed = on_terminal("list", TABPFN_LINEAGE_STORE=store.url)
    assert first in listed
    assert second in listed


def test_no_secret_of_a_url_is_shown(cli, tmp_path, monkeypatch):
    canary = "S3CR3T-canary"
    for url in (f"s3://KEY:{canary}@bucket/store?x={canary}", f"nope://KEY:{canary}@host/x?{canary}", ""):
        monkeypatch.setenv("TABPFN_LINEAGE_STORE", url)
        ran = cli("models", "list")
        assert (ran.code, ran.out) == (2, "")
        assert canary not in ran.err
    ran = cli("models", "delete", "--source", f"https://u:{canary}@host/x?sig={canary}", "--store", tmp_path)
    assert ran.code == 2
    assert canary not in ran.err
