"""`fit --journal` and `journal`: what a rerun finds, what is listed, what is forgotten and what never is."""

import json
import time

import pytest

from tabpfn_assets import JobRecord
from tabpfn_operators.cli.journal import read_age
from tabpfn_operators.errors import ConfigurationError
from tabpfn_operators.journals import JournalFolder, is_over
from tabpfn_operators.places import folder_place

DAY = 86400.0


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "journal"


@pytest.fixture
def fit(cli, classification, folder):
    def fit(*options):
        ran = cli("fit", classification.train, "--target", "outcome", "--task", "classification", *options, "--json")
        assert ran.code == 0, ran.err
        return json.loads(ran.out)["fitted_train_set_id"]

    return fit


def record(phase="completed", *, age=0.0, delivered=False, **more):
    if phase not in {"uploaded", "intent"}:
        more = {"job_id": "f", "submitted_at": time.time() - age} | more
    return JobRecord(kind="tabpfn_async", phase=phase, delivered=delivered, **more)


def keys(folder):
    return [entry.key for entry in JournalFolder(folder).entries()]


def test_a_rerun_prints_the_same_model(fit, folder):
    options = ("--journal", folder, "--run-key", "churn/monday")
    first = fit(*options)
    assert fit(*options) == first
    assert fit("--journal", folder, "--run-key", "churn/tuesday") != first


def test_the_destination_names_the_run_where_nothing_else_does(fit, folder, tmp_path):
    first = fit("--journal", folder, "--output", tmp_path / "a")
    assert fit("--journal", folder, "--output", tmp_path / "a") == first
    assert fit("--journal", folder, "--output", tmp_path / "b") != first
    assert len(keys(folder)) == 2


def test_a_fit_of_which_a_log_tells_is_taken_over(cli, client, classification, control, folder, fit):
    control.inject({"route": "/tabpfn/submit_fit_job", "kind": "drop", "when": "after", "times": None})
    options = ("--journal", folder, "--run-key", "monday", "--on-unknown", "raise")
    ran = cli("fit", classification.train, "--target", "outcome", "--task", "classification", *options)
    assert ran.code == 4
    assert "--adopt" in ran.err
    control.clear()
    (lost,) = [row["fitted_train_set_id"] for row in control.fits()][-1:]
    assert fit("--journal", folder, "--run-key", "monday", "--adopt", lost) == lost
    assert fit("--journal", folder, "--run-key", "monday") == lost


def test_a_journal_without_any_name_for_the_run(cli, classification, folder):
    ran = cli("fit", classification.train, "--target", "outcome", "--task", "classification", "--journal", str(folder))
    assert ran.code == 2
    assert "run_key" in ran.err
    assert not folder.exists()


def test_list_shows_every_place_and_names_what_cannot_be_read(cli, fit, folder):
    fitted = fit("--journal", folder, "--run-key", "churn/monday")
    folder_place(folder, ["dag", "run 1", "task"]).journal.write(record("intent", owner="[red]host-1"))
    (folder / "jobs" / "broken.json").write_text("{")
    ran = cli("journal", "list", "--journal", folder)
    assert ran.code == 1
    assert fitted in ran.out
    assert "intent" in ran.out
    assert "broken" in ran.err
    listed = json.loads(cli("journal", "list", "--journal", folder, "--json").out)
    assert [each["record"] and each["record"]["phase"] for each in listed] == [None, "completed", "intent"]
    assert all("model" not in each["record"] for each in listed if each["record"])


def test_an_empty_journal(cli, folder):
    assert cli("journal", "list", "--journal", folder, "--json").out.strip() == "[]"


def test_gc_forgets_what_is_over_and_old_and_nothing_else(cli, folder):
    kept = {
        "open intent": record("intent"),
        "open upload": record("uploaded"),
        "waiting": record("submitted", age=400 * DAY),
        "not delivered": record(age=400 * DAY),
        "young": record(age=29 * DAY, delivered=True),
    }
    over = {"delivered": record(age=31 * DAY, delivered=True), "failed": record("failed", age=31 * DAY)}
    for key, value in (kept | over).items():
        place = folder_place(folder, ["jobs", key])
        place.claim.acquire(place.name, "somebody", 30.0)
        place.claim.release(place.name, "somebody")
        place.journal.write(value)
    before = keys(folder)
    ran = cli("journal", "gc", "--journal", folder, "--dry-run", "--json")
    assert (len(json.loads(ran.out)["over"]), json.loads(ran.out)["forgotten"]) == (2, [])
    assert keys(folder) == before
    ran = cli("journal", "gc", "--journal", folder)
    assert ran.code == 0
    assert "2 forgotten" in ran.err
    gone = set(before) - set(keys(folder))
    assert {key.partition("/")[2].partition("-")[0] for key in gone} == {"delivered", "failed"}
    assert len(list((folder / "claims").iterdir())) == len(kept)
    assert "0 forgotten" in cli("journal", "gc", "--journal", folder).err


def test_gc_leaves_a_place_where_somebody_is(cli, folder):
    place = folder_place(folder, "run")
    over = record(age=31 * DAY, delivered=True)
    place.journal.write(over)
    lease = place.claim.acquire(place.name, "somebody", 60.0)
    ran = cli("journal", "gc", "--journal", folder)
    assert (ran.code, "0 forgotten" in ran.err) == (0, True)
    assert place.journal.read() == over
    assert place.claim.holder(place.name) == lease


def test_gc_leaves_what_has_begun_since_it_looked(folder):
    place = folder_place(folder, "run")
    place.journal.write(record(age=31 * DAY, delivered=True))
    opened = JournalFolder(folder)
    (entry,) = opened.entries()
    place.journal.write(record("intent", generation=1))
    assert not opened.forget(entry, older_than=30 * DAY)
    assert place.journal.read().phase == "intent"
    assert place.claim.holder(place.name) is None


def test_gc_leaves_a_place_that_has_left_a_fit_open(cli, folder):
    left = record("submitted", job_id="paid", fingerprint="a")
    folder_place(folder, "run").journal.write(record(age=31 * DAY, delivered=True, superseded=(left,)))
    assert "0 forgotten" in cli("journal", "gc", "--journal", folder).err


def test_gc_names_what_it_could_not_read(cli, folder):
    folder_place(folder, "run").journal.write(record())
    (folder / "jobs" / "broken.json").write_text("{")
    assert "broken" in cli("journal", "gc", "--journal", folder).err


def test_the_journal_must_be_named(cli, monkeypatch, folder):
    ran = cli("journal", "list")
    assert ran.code == 2
    assert "TABPFN_JOURNAL" in ran.err
    monkeypatch.setenv("TABPFN_JOURNAL", str(folder))
    assert cli("journal", "list").code == 0


@pytest.mark.parametrize(
    ("text", "seconds"), [("30d", 30 * DAY), ("12h", 43200.0), ("90m", 5400.0), ("1.5w", 10.5 * DAY)]
)
def test_ages(text, seconds):
    assert read_age(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "30 days", "1e3d"])
def test_what_is_no_age(text):
    with pytest.raises(ConfigurationError, match="30d"):
        read_age(text)


@pytest.mark.parametrize("phase", ["uploaded", "intent", "submitted", "completed"])
def test_what_is_open_is_never_over(phase):
    assert not is_over(record(phase, age=1e9), older_than=0.0, now=time.time() + 1e9)
