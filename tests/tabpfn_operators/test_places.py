"""Places: one folder for all pieces of work, one worker in each, and a lease that lasts as long as its worker."""

import logging
import os
import threading
import time

import fsspec
import pytest
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from tabpfn_assets import JobRecord
from tabpfn_operators.claims import MemoryClaims
from tabpfn_operators.errors import ConfigurationError, StorageError, StoreNotExclusiveError
from tabpfn_operators.journal import MemoryJournal
from tabpfn_operators.places import Hold, Place, folder_place, new_owner

#: Seconds after which a wait for what must happen is given up.
PATIENCE = 30.0
UPLOADED = JobRecord(kind="tabpfn_async", phase="uploaded", fingerprint="f")
INTENT = UPLOADED.model_copy(update={"phase": "intent"})
HOSTILE = [
    "churn/2026-11-21T00:00:00+00:00",
    "../../etc/passwd",
    "..",
    ".",
    ".hidden",
    "/",
    "//",
    "a//b",
    "größe/日本",
    "\ud800",
    "with space",
    "nul\x00inside",
    "line\nbreak",
    "C:\\windows",
    "x" * 129,
    "x" * 5000,
    "%2e%2e%2f",
    "s3://bucket/out?versionId=1",
    "*?[a]",
    "~root",
    "-rf",
    "con",
]


class PlacedFileSystem(DirFileSystem):
    """Storage of which nothing is known."""

    protocol = ("placed",)

    def __init__(self, **_options):
        super().__init__("/placed", MemoryFileSystem())


fsspec.register_implementation("placed", PlacedFileSystem, clobber=True)


def soon(condition):
    """Wait until something is so; a test that would wait for ever fails."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        threading.Event().wait(0.005)


def files_under(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# Keys


@pytest.mark.parametrize("key", HOSTILE, ids=lambda key: ascii(key)[:24])
def test_any_key_stays_in_its_folder(tmp_path, key):
    outside = tmp_path / "outside"
    outside.mkdir()
    home = tmp_path / "home"
    for each in (folder_place(home, key), folder_place(home, ["dag", key, "0"])):
        each.journal.write(UPLOADED)
        assert each.journal.read() == UPLOADED
        assert each.claim.acquire(each.name, "me", 10) is not None
        assert each.claim.holder(each.name).owner == "me"
    assert {path.split("/")[0] for path in files_under(home)} == {"jobs", "claims"}
    assert len(files_under(home)) == 4
    assert [path.name for path in tmp_path.iterdir() if path.name not in {"home", "outside"}] == []
    assert list(outside.iterdir()) == []
    assert all(len(os.fsencode(part)) <= 255 for path in files_under(home) for part in path.split("/"))


def test_each_key_is_a_place_of_its_own(tmp_path):
    keys = [*HOSTILE, "churn/2026-11-21T00:00:00-00:00", "CHURN", "churn", "x" * 130, "x" * 5001, "a/b"]
    places = [folder_place(tmp_path, key) for key in keys]
    for number, each in enumerate(places):
        each.journal.write(UPLOADED.model_copy(update={"fingerprint": str(number)}))
    assert [each.journal.read().fingerprint for each in places] == [str(number) for number in range(len(keys))]
    assert len({each.name for each in places}) == len(keys)


@given(st.lists(st.text(min_size=1), min_size=1, max_size=4), st.lists(st.text(min_size=1), min_size=1, max_size=4))
def test_two_keys_are_one_place_when_they_are_equal(one, other):
    places = [folder_place("memory://places", key) for key in (one, other)]
    paths = [each.journal._path for each in places]
    assert (paths[0] == paths[1]) == (one == other)


def test_the_same_key_is_the_same_place_in_another_client(tmp_path):
    folder_place(str(tmp_path) + "/", "run").journal.write(UPLOADED)
    assert folder_place(tmp_path, "run").journal.read() == UPLOADED
    assert folder_place(tmp_path, ["run"]).journal.read() == UPLOADED
    assert folder_place(tmp_path.as_uri(), "run").journal.read() == UPLOADED


@pytest.mark.parametrize("key", ["", [], [""], ["", ""], ()], ids=repr)
def test_a_key_must_say_something(tmp_path, key):
    with pytest.raises(ConfigurationError, match="run_key="):
        folder_place(tmp_path, key)


@pytest.mark.parametrize("url", ["", "  ", "nosuch://bucket/folder", None, 7], ids=repr)
def test_a_folder_must_be_one(url):
    with pytest.raises(ConfigurationError):
        folder_place(url, "run")


def test_nothing_is_written_before_it_is_needed(tmp_path):
    place = folder_place(tmp_path / "home", "run", generation=3, lease_seconds=7)
    assert place.journal.read() is None
    assert (place.generation, place.lease_seconds) == (3, 7)
    assert folder_place(tmp_path, "run").generation is None
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_keeps_nobody_apart_is_refused():
    place = folder_place("placed://jobs", "run")
    with pytest.raises(StoreNotExclusiveError):
        Hold.take(place, "me")
    unsafe = folder_place("placed://jobs", "run", allow_unsafe_store=True)
    assert Hold.take(unsafe, "me") is not None


def test_no_place_shows_its_options_or_its_key(tmp_path):
    place = folder_place("placed://KEY:canary-4711@bucket/x", "run", options={"secret": "canary-4711"})
    assert "canary-4711" not in repr(place) + str(place) + place.name


def test_owners_differ_from_start_to_start():
    owners = {new_owner() for _ in range(100)}
    assert len(owners) == 100
    assert all(f"-{os.getpid()}-" in owner for owner in owners)


# Holding a place


class Clock:
    """Epoch seconds that a test moves."""

    def __init__(self):
        self.now = time.time()

    def __call__(self):
        return self.now


class Failing:
    """A journal or a claim whose storage does not answer as long as `down` says so; it counts its calls."""

    def __init__(self, inner):
        self._inner = inner
        self.down = False
        self.calls = []

    def __getattr__(self, name):
        def call(*args):
            self.calls.append(name)
            if self.down:
                raise StorageError(f"{name}: the storage could not be reached; run again.")
            return getattr(self._inner, name)(*args)

        return call


@pytest.fixture
def journal():
    return Failing(MemoryJournal(JobRecord))


@pytest.fixture
def claims():
    return Failing(MemoryClaims())


@pytest.fixture
def held(journal, claims):
    """Take places in hand, and give them back in the end."""
    holds = []

    def take(owner="me", *, claim=claims, lease_seconds=0.03):
        place = Place("work", journal, claim, lease_seconds=lease_seconds)
        hold = Hold.take(place, owner)
        if hold is not None:
            hold.begin()
            holds.append(hold)
        return hold

    yield take
    for hold in holds:
        hold.end()


def renewed(claims, times=3):
    before = claims.calls.count("renew")
    soon(lambda: claims.calls.count("renew") >= before + times)


def lease_threads():
    return [thread for thread in threading.enumerate() if thread.name == "tabpfn-lease"]


def test_one_worker_at_a_time(held):
    first = held("me", lease_seconds=60)
    assert first.lasts
    assert held("you") is None
    first.end()
    assert held("you").lasts


def test_the_lease_outlasts_its_length(held, claims):
    hold = held()
    lease = claims.holder("work")
    soon(lambda: claims.holder("work").expires_at > lease.expires_at + 0.06 and hold.lasts)
    assert claims.holder("work").owner == "me"


def test_a_hold_that_has_ended_is_given_back_at_once(held, claims):
    hold = held(lease_seconds=600)
    hold.end()
    assert claims.holder("work") is None
    soon(lambda: lease_threads() == [])


def test_a_hold_can_end_twice(held, claims):
    hold = held(lease_seconds=600)
    hold.end()
    hold.end()
    assert claims.calls.count("release") == 1


def test_a_hold_that_is_abandoned_is_given_back_soon(held, claims):
    held(lease_seconds=600).abandon()
    soon(lambda: claims.holder("work") is None)


def test_nobody_waits_for_storage_that_does_not_take_the_lease_back(held, claims, caplog):
    hold = held(lease_seconds=600)
    claims.down = True
    hold.end()
    assert "was not given back and will expire" in caplog.text


def test_a_lease_that_was_taken_over_is_lost(held, claims):
    clock = Clock()
    shared = Failing(MemoryClaims(clock=clock, skew=0))
    hold = held(claim=shared, lease_seconds=0.3)
    clock.now += 1000
    assert shared.acquire("work", "you", 600) is not None
    soon(lambda: not hold.lasts)
    hold.end()
    assert shared.holder("work").owner == "you"
    assert "release" not in shared.calls


def test_a_lease_that_cannot_be_renewed_runs_out(held, claims, caplog):
    hold = held()
    renewed(claims)
    claims.down = True
    soon(lambda: not hold.lasts)
    assert "could not be renewed: renew: the storage could not be reached" in caplog.text


def test_an_outage_that_passes_costs_nothing(held, claims):
    hold = held()
    claims.down = True
    soon(lambda: not hold.lasts)
    claims.down = False
    soon(lambda: hold.lasts)
    assert claims.holder("work").owner == "me"


def test_a_worker_that_is_killed_loses_the_place_in_time(journal):
    clock = Clock()
    claims = MemoryClaims(clock=clock, skew=5)
    place = Place("work", journal, claims, lease_seconds=30)
    assert Hold.take(place, "killed") is not None  # never begun: its thread is gone with its process
    clock.now += 34.9
    assert Hold.take(place, "next") is None
    clock.now += 0.2
    assert Hold.take(place, "next") is not None


# Stopped for longer than a lease


@pytest.fixture
def stopped(journal):
    """A worker whose lease has run out while its process was stopped; `overtaken()` lets another one go on."""
    clock = Clock()
    claims = MemoryClaims(clock=clock, skew=0)
    hold = Hold.take(Place("work", journal, claims, lease_seconds=0.01), "me")
    hold.intend(INTENT)
    clock.now += 1000
    soon(lambda: not hold.lasts)

    def overtaken():
        other = Hold.take(Place("work", journal, claims, lease_seconds=600), "you")
        assert other is not None
        return other

    return hold, overtaken


def test_who_was_stopped_goes_on_if_nobody_has_taken_over(stopped, journal):
    hold, _ = stopped
    assert hold.confirm()
    assert hold.settle(UPLOADED)
    assert journal.read() == UPLOADED


def test_who_was_overtaken_has_lost_for_good(stopped):
    hold, overtaken = stopped
    other = overtaken()
    assert not hold.confirm()
    other.begin()
    other.end()
    assert not hold.confirm()
    assert not hold.lasts


def test_who_was_overtaken_writes_over_nothing(stopped, journal):
    hold, overtaken = stopped
    theirs = UPLOADED.model_copy(update={"fingerprint": "theirs"})
    assert overtaken().settle(theirs)
    assert not hold.settle(UPLOADED)
    assert journal.read() == theirs


def test_who_was_overtaken_may_end_the_doubt_that_it_left(stopped, journal):
    """Whoever took over has found the intent, and waits for a person to decide: the id is what is missing."""
    hold, overtaken = stopped
    overtaken()
    assert hold.settle(UPLOADED)
    assert journal.read() == UPLOADED


def test_storage_that_does_not_answer_is_no_lost_lease(held, claims):
    hold = held()
    claims.down = True
    soon(lambda: not hold.lasts)
    with pytest.raises(StorageError):
        hold.confirm()
    claims.down = False
    assert hold.confirm()


# The lease in the record


def test_an_intent_is_signed_and_renewed_until_it_is_settled(held, journal):
    hold = held(claim=None)
    hold.intend(INTENT)
    first = journal.read()
    assert (first.phase, first.owner) == ("intent", "me")
    soon(lambda: journal.read().lease_expires_at > first.lease_expires_at + 0.06)
    hold.settle(UPLOADED)
    assert journal.read() == UPLOADED
    calls = journal.calls.count("write")
    threading.Event().wait(0.1)
    assert journal.calls.count("write") == calls
    assert journal.read() == UPLOADED


def test_a_place_without_a_claim_is_held_by_the_record(held, journal):
    hold = held(claim=None)
    assert hold.lasts
    hold.intend(INTENT)
    first = journal.read().lease_expires_at
    soon(lambda: journal.read().lease_expires_at > first + 0.06)
    hold.end()
    last = journal.read()
    assert last.phase == "intent", "what came of it nobody knows"
    soon(lambda: lease_threads() == [])


def test_the_request_is_not_sent_when_the_intent_cannot_be_written(held, journal):
    hold = held()
    journal.down = True
    with pytest.raises(StorageError):
        hold.intend(INTENT)


def test_an_intent_that_cannot_be_renewed_is_tried_again(held, journal, caplog):
    hold = held(claim=None)
    hold.intend(INTENT)
    journal.down = True
    soon(lambda: "could not be renewed: " in caplog.text)
    journal.down = False
    before = journal.read().lease_expires_at
    soon(lambda: journal.read().lease_expires_at > before)


def test_a_settled_record_stays_settled(held, journal):
    """Even where its write fails: a renewal that came later would hide that it was submitted."""
    hold = held(claim=None)
    hold.intend(INTENT)
    journal.down = True
    with pytest.raises(StorageError):
        hold.settle(UPLOADED)
    journal.down = False
    writes = journal.calls.count("write")
    threading.Event().wait(0.1)
    assert journal.calls.count("write") == writes


def test_settling_and_renewing_never_cross(held, journal):
    """The last word of a hundred rounds is always the settled record."""
    hold = held(claim=None, lease_seconds=0.003)
    for number in range(100):
        hold.intend(INTENT)
        settled = UPLOADED.model_copy(update={"resubmissions": number})
        hold.settle(settled)
        assert journal.read() == settled


def test_the_thread_does_not_keep_its_process_alive(held):
    held(lease_seconds=600)
    assert lease_threads()
    assert all(thread.daemon for thread in lease_threads())


def test_no_thread_before_it_is_begun(journal, claims):
    place = Place("work", journal, claims)
    before = lease_threads()
    assert Hold.take(place, "me") is not None
    assert set(lease_threads()) <= set(before)


def test_what_is_renewed_is_not_logged(held, claims, caplog):
    caplog.set_level(logging.DEBUG, "tabpfn_operators")
    held()
    renewed(claims)
    assert caplog.text == ""
