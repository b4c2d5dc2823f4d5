"""The ledger of a scoring: each shard is sent once unless somebody takes the risk, and one plan writes at a time."""

import json
import os
import signal
import subprocess
import sys
import time

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tabpfn_assets import ScoredShard
from tabpfn_operators.claims import SKEW_SECONDS
from tabpfn_operators.errors import (
    ConfigurationError,
    DestinationBusyError,
    RecordTooNewError,
    RecordUnreadableError,
    StorageError,
    StoreNotExclusiveError,
)
from tabpfn_operators.scoring import _entries
from tabpfn_operators.scoring._entries import ShardEntry, shard_state
from tabpfn_operators.scoring._ledger import Ledger
from tabpfn_operators.scoring._plan import Shard
from tabpfn_operators.storage import folder

PLAN, OTHER = "a" * 32, "b" * 32
LEASE = 60.0
OVER = LEASE + SKEW_SECONDS
SHARDS = tuple(Shard(index, index * 10, 10) for index in range(30))
ONE = SHARDS[3]

#: Two processes go through all shards in opposite orders and score what they get.
RACE = """
import json, multiprocessing, sys
from datetime import UTC, datetime
from tabpfn_assets import ScoredShard
from tabpfn_operators.scoring._ledger import Ledger
from tabpfn_operators.scoring._plan import Shard
from tabpfn_operators.storage import folder

url, options = sys.argv[1], json.loads(sys.argv[2])

def work(owner, barrier, queue):
    ledger = Ledger(folder(url, options), "a" * 32, owner)
    shards = [Shard(index, index * 10, 10) for index in range(30)]
    ledger.enter()
    sent = []
    barrier.wait(60)
    for shard in shards if owner == "first" else shards[::-1]:
        if ledger.look(shard).state != "free" or not ledger.take(shard) or not ledger.send(shard):
            continue
        sent.append(shard.index)
        ledger.finish(shard, ScoredShard.model_validate({
            "index": shard.index, "start": shard.start, "rows": 10, "test_set_upload_id": owner,
            "files": [{"name": "part.parquet", "rows": 10, "size_bytes": 1, "sha256": "0" * 64}],
            "scored_at": datetime.now(UTC),
        }))
    ledger.leave()
    queue.put([owner, sent])

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(2), context.Queue()
    started = [context.Process(target=work, args=(owner, barrier, queue)) for owner in ("first", "second")]
    for process in started: process.start()
    print(json.dumps([queue.get(timeout=90) for _ in started]))
    for process in started: process.join(60)
"""

#: Each of several processes enters as often as it can, and looks whether one of another plan is in there with it.
RIVALS = """
import json, multiprocessing, os, sys, time
from tabpfn_operators.errors import DestinationBusyError
from tabpfn_operators.scoring._ledger import Ledger
from tabpfn_operators.storage import folder

path, inside, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])

def work(plan, number, barrier, queue):
    entered, met = 0, []
    barrier.wait(60)
    for n in range(rounds):
        ledger = Ledger(folder(path, None), plan * 32, f"{plan}-{number}-{n}")
        try:
            ledger.enter()
        except DestinationBusyError:
            time.sleep(0.001)
            continue
        entered += 1
        mine = f"{plan}-{number}"
        with open(os.path.join(inside, mine), "x"):
            pass
        met += [name for name in os.listdir(inside) if name[0] != plan]
        os.unlink(os.path.join(inside, mine))
        ledger.leave()
    queue.put([plan, entered, met])

if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    who = [("a", 0), ("a", 1), ("b", 0), ("c", 0)]
    barrier, queue = context.Barrier(len(who)), context.Queue()
    started = [context.Process(target=work, args=(*each, barrier, queue)) for each in who]
    for process in started: process.start()
    print(json.dumps([queue.get(timeout=90) for _ in started]))
    for process in started: process.join(60)
"""

KILLED = """
import sys, time
from tabpfn_operators.scoring._ledger import Ledger
from tabpfn_operators.scoring._plan import Shard
from tabpfn_operators.storage import folder

ledger = Ledger(folder(sys.argv[1], None), "a" * 32, "killed", lease_seconds=1.0, skew=0.5)
ledger.enter()
for index, sends in enumerate([True, False]):
    shard = Shard(index, index * 10, 10)
    assert ledger.take(shard)
    assert not sends or ledger.send(shard)
print("ready", flush=True)
time.sleep(120)
"""


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.now = 1_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=["local", "memory"])
def url(request, tmp_path):
    if request.param == "local":
        yield str(tmp_path / "scores")
    else:
        yield f"memory://{tmp_path.name}/scores"
        fs = fsspec.filesystem("memory")
        fs.store.clear()
        fs.pseudo_dirs[:] = [""]


@pytest.fixture
def make(url, clock):
    """Make a worker that has not entered; what has is left in the end."""
    made = []

    def make(owner, plan=PLAN, **settings):
        made.append(Ledger(folder(url, None), plan, owner, **{"clock": clock, **settings}))
        return made[-1]

    yield make
    for ledger in made:
        ledger.leave()


@pytest.fixture
def enter(make):
    def enter(owner, plan=PLAN, **settings):
        ledger = make(owner, plan, **settings)
        ledger.enter()
        return ledger

    return enter


def scored(shard, by="upload", **fields):
    return ScoredShard.model_validate(
        {
            "index": shard.index,
            "start": shard.start,
            "rows": shard.rows,
            "files": [{"name": "part.parquet", "rows": shard.rows, "size_bytes": 1, "sha256": "0" * 64}],
            "test_set_upload_id": by,
            "scored_at": "2026-11-21T12:00:00Z",
            **fields,
        }
    )


def entries(url, shard=ONE):
    fs, path = fsspec.core.url_to_fs(f"{url}/_claims/{PLAN}/{shard.name}")
    return [ShardEntry.model_validate_json(fs.cat_file(each)) for each in sorted(fs.ls(path, detail=False))]


def test_a_shard_that_goes_well(enter, url):
    first, second = enter("first"), enter("second")
    assert first.look(ONE).state == "free"
    assert first.take(ONE)
    assert first.holds(ONE)
    assert second.look(ONE).state == "busy"
    assert not second.take(ONE)
    assert first.send(ONE)
    assert second.look(ONE).state == "busy"
    assert first.finish(ONE, scored(ONE, "first")) == scored(ONE, "first")
    assert not first.holds(ONE)
    assert second.look(ONE).entry.scored == scored(ONE, "first")
    assert second.look(ONE).state == "done"
    assert not second.take(ONE, resend=True)
    assert [entry.phase for entry in entries(url)] == ["taken", "sent", "done"]


def test_what_was_taken_and_not_sent_is_free_when_its_owner_is_gone(enter, clock):
    first, second = enter("first"), enter("second")
    assert first.take(ONE)
    assert second.look(ONE).state == "busy"
    clock.now += OVER - 0.001
    assert second.look(ONE).state == "busy"
    clock.now += 0.002
    assert second.look(ONE).state == "free"
    assert second.take(ONE)
    assert second.look(ONE).entry.resends == 0
    assert not first.send(ONE)
    assert second.send(ONE)


def test_what_was_sent_is_of_unknown_outcome_when_its_owner_is_gone(enter, clock):
    first, second = enter("first"), enter("second")
    assert first.take(ONE)
    assert first.send(ONE)
    clock.now += OVER + 0.001
    assert second.look(ONE).state == "unknown"
    assert not second.take(ONE)
    assert second.look(ONE).state == "unknown"
    assert second.take(ONE, resend=True)
    assert second.look(ONE).entry.resends == 1
    assert second.send(ONE)
    clock.now += OVER + 0.001
    third = enter("third")
    assert third.look(ONE).state == "unknown"
    assert third.take(ONE, resend=True)
    assert third.send(ONE)
    assert third.finish(ONE, scored(ONE)).resends == 2


def test_doubt_is_known_at_once_and_what_was_not_carried_out_is_free(enter):
    first, second = enter("first"), enter("second")
    assert first.take(ONE)
    assert first.send(ONE)
    first.doubt(ONE)
    assert not first.holds(ONE)
    assert first.look(ONE).state == second.look(ONE).state == "unknown"
    assert second.take(ONE, resend=True)
    assert second.send(ONE)
    second.free(ONE)
    assert first.look(ONE).state == "free"
    assert first.take(ONE)
    assert first.send(ONE)
    assert first.finish(ONE, scored(ONE)).resends == 1


def test_what_waits_to_be_sent_again_is_in_no_doubt(enter, clock, url):
    """As after an answer 429: it stays in hand, and a kill while it waits leaves it free."""
    first, second = enter("first"), enter("second")
    assert not first.unsend(ONE)
    assert first.take(ONE)
    assert first.send(ONE)
    assert first.unsend(ONE)
    assert first.holds(ONE)
    assert second.look(ONE).state == "busy"
    assert first.send(ONE)
    assert first.unsend(ONE)
    clock.now += OVER + 0.001
    assert second.look(ONE).state == "free"
    assert second.take(ONE)
    assert not first.unsend(ONE)
    assert not first.send(ONE)
    assert [entry.phase for entry in entries(url)] == ["taken", "sent", "taken", "sent", "taken", "taken"]


def test_what_is_done_and_damaged_is_done_again(enter, clock):
    first, second, third = enter("first"), enter("second"), enter("third")
    assert not first.redo(ONE)
    assert first.take(ONE)
    assert not first.redo(ONE)
    assert first.send(ONE)
    first.finish(ONE, scored(ONE, "first"))
    assert second.look(ONE).state == third.look(ONE).state == "done"
    assert second.redo(ONE)
    assert second.take(ONE)
    assert second.send(ONE)
    again = scored(ONE, "second", resends=1)  # it was charged twice
    assert second.finish(ONE, scored(ONE, "second")) == again
    assert not third.redo(ONE)  # it decides on what it saw, and that is over
    assert third.look(ONE).entry.scored == first.look(ONE).entry.scored == again


def test_leaving_gives_back_what_was_not_sent(enter, make):
    first, second = enter("first"), enter("second")
    for shard in SHARDS[:3]:
        assert first.take(shard)
    assert first.send(SHARDS[1])
    assert first.send(SHARDS[2])
    first.finish(SHARDS[2], scored(SHARDS[2]))
    first.leave()
    assert [look.state for look in second.survey(SHARDS[:4])] == ["free", "busy", "done", "free"]
    assert not first.holds(SHARDS[0])
    first.leave()


def test_nothing_is_taken_or_renewed_by_one_that_has_left(enter, url):
    first, second = enter("first"), enter("second")
    assert first.take(SHARDS[0])
    first.leave()
    assert not first.take(ONE)
    assert not first.send(SHARDS[0])
    assert second.look(ONE).entry is None
    second.leave()
    fs, path = fsspec.core.url_to_fs(f"{url}/_claims/{PLAN}/_workers")
    assert fs.find(path) == []


def test_a_process_that_stood_still_sends_nothing(enter, clock, url):
    first = enter("first")
    assert first.take(ONE)
    clock.now += LEASE - SKEW_SECONDS / 2
    assert first.holds(ONE)
    assert not first.send(ONE)
    assert [entry.phase for entry in entries(url)] == ["taken"]  # a kill in between would leave it unknown
    assert first.look(ONE).state == "free"
    assert first.take(ONE)
    assert first.send(ONE)


def test_a_process_that_stood_still_while_it_wrote_sends_nothing(enter, clock, monkeypatch):
    first, second = enter("first"), enter("second")
    assert first.take(ONE)
    real = _entries.create_exclusive

    def slow(*args, **kwargs):
        clock.now += 2 * OVER
        return real(*args, **kwargs)

    monkeypatch.setattr(_entries, "create_exclusive", slow)
    assert not first.send(ONE)
    monkeypatch.undo()
    assert second.look(ONE).state == "free"


def test_what_is_finished_late_is_kept_and_spares_the_other(enter, clock):
    first, second = enter("first"), enter("second")
    assert first.take(ONE)
    assert first.send(ONE)
    clock.now += OVER + 0.001
    assert second.look(ONE).state == "unknown"
    assert second.take(ONE, resend=True)
    assert first.finish(ONE, scored(ONE, "first")).resends == 0
    assert not second.send(ONE)
    assert second.look(ONE).entry.scored.test_set_upload_id == "first"


def test_of_two_that_finish_the_first_wins_and_the_other_is_named(enter, clock):
    first, second = enter("first"), enter("second")
    assert first.take(ONE)
    assert first.send(ONE)
    clock.now += OVER + 0.001
    second.look(ONE)
    assert second.take(ONE, resend=True)
    assert second.send(ONE)
    assert first.finish(ONE, scored(ONE, "first")).resends == 1
    assert second.finish(ONE, scored(ONE, "second")) == scored(ONE, "first", resends=1)
    assert not second.holds(ONE)


def test_what_is_held_is_renewed(enter, make, url):
    first = enter("first", clock=time.time, lease_seconds=0.6, skew=0.1)
    second = enter("second", clock=time.time, skew=0.1)
    assert first.take(ONE)
    assert first.take(SHARDS[4])
    assert first.send(SHARDS[4])
    deadline = time.monotonic() + 20
    while len(entries(url)) < 6 and time.monotonic() < deadline:
        assert second.look(ONE).state == "busy"
        time.sleep(0.05)
    assert first.holds(ONE)
    assert first.holds(SHARDS[4])
    with pytest.raises(DestinationBusyError):
        make("rival", OTHER, clock=time.time, skew=0.1).enter()
    assert {entry.phase for entry in entries(url)} == {"taken"}
    assert first.send(ONE)
    assert first.finish(ONE, scored(ONE)) == scored(ONE)


def test_another_plan_waits_for_all_workers(enter, make):
    first, second = enter("first"), enter("second")
    with pytest.raises(DestinationBusyError, match=f"plan {PLAN}.*1970-01-12T13:47:40.*another folder") as caught:
        make("rival", OTHER).enter()
    assert (caught.value.plan_id, caught.value.until) == (PLAN, 1_000_060.0)
    assert first.take(ONE)
    assert first.send(ONE)
    first.leave()
    with pytest.raises(DestinationBusyError):
        make("rival", OTHER).enter()
    second.leave()
    rival = enter("rival", OTHER)
    with pytest.raises(DestinationBusyError, match=f"plan {OTHER}"):
        make("third").enter()
    rival.leave()
    third = enter("third")
    assert third.look(ONE).state == "busy"


def test_another_plan_enters_when_the_workers_are_gone(enter, make, clock):
    first = enter("first")
    assert first.take(ONE)
    clock.now += OVER - 0.001
    with pytest.raises(DestinationBusyError):
        make("rival", OTHER).enter()
    clock.now += 0.002
    rival = enter("rival", OTHER)
    assert rival.look(ONE).state == "free"
    with pytest.raises(DestinationBusyError, match="taken over"):
        first.take(SHARDS[4])
    assert not first.send(ONE)
    rival.leave()
    with pytest.raises(DestinationBusyError, match="taken over"):
        first.take(SHARDS[4])


def test_who_has_a_shard_for_longer_than_the_destination_sends_nothing(enter, clock):
    first = enter("first")
    clock.now += LEASE - 10
    assert first.take(ONE)
    clock.now += 10 + SKEW_SECONDS + 0.001
    rival = enter("rival", OTHER)
    assert not first.holds(ONE)
    assert not first.send(ONE)
    with pytest.raises(DestinationBusyError, match="taken over"):
        first.take(ONE)
    assert rival.take(ONE)


def test_one_that_stood_still_goes_on_where_nobody_took_over(enter, clock):
    first = enter("first")
    clock.now += 10 * OVER
    enter("second")
    assert first.take(ONE)
    assert first.send(ONE)


def test_who_took_over_half_way_and_was_killed_is_in_nobodys_way(enter, make, clock, monkeypatch):
    """It had written that it takes the destination, and had not looked yet whether the plan before is at work."""
    first = enter("first")
    clock.now += OVER + 0.001
    rival = make("rival", OTHER)
    looks = iter([[], KeyboardInterrupt()])

    def look(*args, **kwargs):
        found = next(looks)
        if isinstance(found, BaseException):
            raise found
        return found

    monkeypatch.setattr("tabpfn_operators.scoring._presence.alive_leases", look)
    monkeypatch.setattr(rival._presence, "leave", lambda: None)
    with pytest.raises(KeyboardInterrupt):
        rival.enter()
    monkeypatch.undo()
    clock.now += 1
    enter_again = make("second")
    with pytest.raises(DestinationBusyError, match=f"plan {OTHER}"):
        enter_again.enter()
    clock.now += OVER
    third = enter("third")
    with pytest.raises(DestinationBusyError):
        make("fourth", "c" * 32).enter()
    assert third.take(ONE)
    with pytest.raises(DestinationBusyError, match="taken over"):
        first.take(SHARDS[4])


def test_whose_takeover_is_refused_leaves_the_destination_to_the_other(enter, make, clock, monkeypatch):
    """A worker of the plan before entered between the look and the take-over."""
    enter("first").leave()
    from tabpfn_operators.scoring import _presence

    real, met = _presence.alive_leases, []

    def look(*args, **kwargs):
        found = real(*args, **kwargs)
        if not met:
            met.append(enter("second"))
        return found

    monkeypatch.setattr(_presence, "alive_leases", look)
    with pytest.raises(DestinationBusyError, match=f"plan {PLAN}"):
        make("rival", OTHER).enter()
    monkeypatch.undo()
    assert met[0].take(ONE)
    with pytest.raises(DestinationBusyError, match=f"plan {PLAN}"):
        make("third", "c" * 32).enter()
    met[0].leave()
    enter("third", "c" * 32)


def test_resends_are_counted_over_all_workers(enter, clock):
    workers = [enter("first"), enter("second")]
    for shard in SHARDS[:4]:
        assert workers[0].take(shard)
        assert workers[0].send(shard)
        workers[0].doubt(shard)
    assert workers[0].count_resend(SHARDS[0], 2)
    assert workers[1].count_resend(SHARDS[1], 2)
    assert workers[1].count_resend(SHARDS[0], 2)  # the same sending, so the same slot
    assert not workers[1].count_resend(SHARDS[2], 2)
    assert not enter("third").count_resend(SHARDS[2], 2)
    assert workers[0].look(SHARDS[0]).state == "unknown"
    assert workers[0].take(SHARDS[0], resend=True)
    assert workers[0].send(SHARDS[0])
    workers[0].doubt(SHARDS[0])
    assert not workers[0].count_resend(SHARDS[0], 2)
    assert workers[0].count_resend(SHARDS[0], 3)
    assert not workers[0].count_resend(SHARDS[3], 0)


ENTRIES = st.builds(
    ShardEntry,
    owner=st.sampled_from("ab"),
    expires_at=st.just(0.0) | st.floats(0, 1e6),
    phase=st.sampled_from(["taken", "sent", "free"]),
) | st.builds(
    ShardEntry, owner=st.just("a"), expires_at=st.just(0.0), phase=st.just("done"), scored=st.just(scored(ONE))
)


@given(ENTRIES | st.none(), st.floats(0, 1e6), st.floats(0, 1e3), st.floats(0, 1e3), st.sampled_from("ab"))
def test_what_may_be_done_with_a_shard(last, now, skew, later, owner):
    state = shard_state(last, now=now, owner=owner, skew=skew)
    assert (state == "done") == (last is not None and last.phase == "done")
    if last is not None and last.phase == "sent":
        assert state in {"busy", "unknown"}  # what may have been charged is never free
    if state == "busy":
        assert now < last.expires_at + skew
        assert last.phase == "sent" or last.owner != owner
    if last is not None and last.owner != owner and last.phase in {"taken", "sent"} and now < last.expires_at:
        assert state == "busy"
    if state != "busy":  # it stays so until somebody writes
        assert shard_state(last, now=now + later, owner=owner, skew=skew) == state


class Race:
    """Three workers and one shard, on clocks of their own; `sent` are the requests that may have been charged."""

    OWNERS = ("first", "second", "third")

    def __init__(self, offsets):
        self.now = 1_000_000.0
        self.sent = 0
        self.risks = 0
        self.under_way = set()
        self.workers = {}
        for owner, ahead in zip(self.OWNERS, offsets, strict=True):
            ledger = Ledger(folder("memory://race", None), PLAN, owner, clock=lambda ahead=ahead: self.now + ahead)
            ledger._presence.enter()  # without the thread
            self.workers[owner] = ledger

    def step(self, owner, verb):
        ledger = self.workers[owner]
        if owner in self.under_way:
            if verb in {"free", "doubt", "finish", "unsend"}:
                self.under_way.remove(owner)
                getattr(self, verb)(owner, ledger)
        elif verb in {"take", "resend"}:
            unknown = ledger.look(ONE).state == "unknown"
            self.risks += ledger.take(ONE, resend=verb == "resend") and unknown
        elif verb == "send" and ledger.send(ONE):
            self.sent += 1
            self.under_way.add(owner)

    def free(self, owner, ledger):
        held = ledger._pages[ONE.name].held
        ledger.free(ONE)
        newest = ledger.look(ONE).entry
        self.sent -= held and (newest.owner, newest.phase) == (owner, "free")

    def unsend(self, owner, ledger):
        self.sent -= ledger.unsend(ONE)

    def doubt(self, owner, ledger):
        ledger.doubt(ONE)

    def finish(self, owner, ledger):
        assert ledger.finish(ONE, scored(ONE, owner)) == ledger.look(ONE).entry.scored


STEPS = st.lists(
    st.tuples(
        st.sampled_from(Race.OWNERS),
        st.sampled_from(["take", "resend", "send", "unsend", "free", "doubt", "finish"]),
        st.sampled_from([0, 0, 1, LEASE / 2, LEASE, OVER, OVER + SKEW_SECONDS]),  # seconds that pass before
    ),
    max_size=40,
)


@settings(max_examples=200)
@given(STEPS, st.tuples(*[st.floats(-SKEW_SECONDS / 2, SKEW_SECONDS / 2) for _ in Race.OWNERS]))
def test_every_sending_beyond_the_first_is_counted(steps, offsets):
    """Whatever the order, the clocks and the pauses: requests = the one that is done + the resends that it names."""
    fs = fsspec.filesystem("memory")
    try:
        race = Race(offsets)
        for owner, verb, passes in steps:
            race.now += passes
            race.step(owner, verb)
        last = race.workers["first"].look(ONE).entry
        if last is None:
            assert race.sent == 0
        elif last.phase == "done":
            assert race.sent == 1 + last.scored.resends
        else:
            assert race.sent == last.resends + (last.phase == "sent")
        assert race.sent <= 1 + race.risks
    finally:
        fs.store.clear()
        fs.pseudo_dirs[:] = [""]


def test_of_two_processes_each_shard_is_scored_by_one(tmp_path):
    script = tmp_path / "race.py"
    script.write_text(RACE)
    done = subprocess.run(
        [sys.executable, script, str(tmp_path / "scores"), "null"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    sent = dict(json.loads(done.stdout))
    assert sorted(sent["first"] + sent["second"]) == list(range(30))
    reader = Ledger(folder(tmp_path / "scores", None), PLAN, "reader")
    looks = reader.survey(SHARDS)
    assert {look.state for look in looks} == {"done"}
    for shard, look in zip(SHARDS, looks, strict=True):
        assert shard.index in sent[look.entry.scored.test_set_upload_id]
        assert look == reader.look(shard)
        assert [entry.phase for entry in entries(tmp_path / "scores", shard)] == ["taken", "sent", "done"]


def test_of_rival_plans_only_one_is_in(tmp_path):
    script, inside = tmp_path / "rivals.py", tmp_path / "inside"
    script.write_text(RIVALS)
    inside.mkdir()
    done = subprocess.run(
        [sys.executable, script, str(tmp_path / "scores"), str(inside), "60"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    outcomes = json.loads(done.stdout)
    print(outcomes)
    assert [met for _, _, met in outcomes] == [[]] * 4
    assert sum(entered for _, entered, _ in outcomes) > 0
    assert not list((tmp_path / "scores" / "_claims").glob("*/_workers/*.json"))


def test_a_worker_that_is_killed(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        process.send_signal(signal.SIGKILL)
    ledger = Ledger(folder(tmp_path, None), PLAN, "next", lease_seconds=1.0, skew=0.5)
    rival = Ledger(folder(tmp_path, None), OTHER, "rival", lease_seconds=1.0, skew=0.5)
    with pytest.raises(DestinationBusyError):
        rival.enter()
    ledger.enter()
    try:
        deadline = time.monotonic() + 20
        while (states := [ledger.look(shard).state for shard in SHARDS[:2]]) != ["unknown", "free"]:
            assert set(states) <= {"busy", "unknown", "free"}
            assert time.monotonic() < deadline, states
            time.sleep(0.05)
        assert ledger.take(SHARDS[1])
        assert ledger.take(SHARDS[0], resend=True)
    finally:
        ledger.leave()
    rival.enter()
    rival.leave()


def test_a_write_whose_answer_was_lost_is_recognised(tmp_path, monkeypatch):
    """The link was made, the client asked again and was told that the name is taken."""
    ledger = Ledger(folder(tmp_path, None), PLAN, "first")
    ledger.enter()
    real = os.link

    def lost(source, target):
        os.rename(source, target)  # so that the count of links does not tell
        os.close(os.open(source, os.O_CREAT))
        real(source, target)

    monkeypatch.setattr(os, "link", lost)
    assert ledger.take(ONE)
    assert ledger.send(ONE)
    monkeypatch.undo()
    assert [entry.phase for entry in entries(tmp_path)] == ["taken", "sent"]
    assert ledger.finish(ONE, scored(ONE)) == scored(ONE)
    ledger.leave()


def test_a_write_that_failed_and_is_there_all_the_same(enter, url, monkeypatch):
    """Nothing was sent, so it can be given back for sure."""
    first, second = enter("first"), enter("second")
    assert first.take(ONE)
    real = _entries.create_exclusive

    def written_and_lost(*args, **kwargs):
        real(*args, **kwargs)
        raise StorageError("no answer")

    monkeypatch.setattr(_entries, "create_exclusive", written_and_lost)
    with pytest.raises(StorageError):
        first.send(ONE)
    monkeypatch.undo()
    assert second.look(ONE).state == "busy"
    first.free(ONE)
    assert second.look(ONE).state == "free"
    assert [entry.phase for entry in entries(url)] == ["taken", "sent", "free"]


def test_few_requests(enter, monkeypatch):
    """A fresh shard costs three writes after one listing of all; asking again is one read."""
    first, asked = enter("first"), []
    for name in ("create_exclusive", "read_fresh", "names_in"):
        real = getattr(_entries, name)
        monkeypatch.setattr(
            _entries, name, lambda *args, real=real, name=name, **more: asked.append(name) or real(*args, **more)
        )
    first.survey(SHARDS)
    assert asked == []
    assert first.take(ONE)
    assert first.send(ONE)
    first.finish(ONE, scored(ONE))
    assert asked == ["create_exclusive"] * 3
    asked.clear()
    assert first.look(ONE).state == "done"
    assert asked == ["read_fresh"]
    asked.clear()
    assert first.look(SHARDS[5]).state == "free"
    assert asked == ["read_fresh"]


def test_a_survey_says_what_looks_say(enter):
    first, second = enter("first"), enter("second")
    for shard in SHARDS[:6]:
        assert first.take(shard)
    for shard in SHARDS[1:4]:
        assert first.send(shard)
    first.finish(SHARDS[1], scored(SHARDS[1]))
    first.doubt(SHARDS[2])
    first.free(SHARDS[4])
    looks = second.survey(SHARDS)
    assert [look.state for look in looks[:7]] == ["busy", "done", "unknown", "busy", "free", "busy", "free"]
    assert looks == [second.look(shard) for shard in SHARDS] == second.survey(SHARDS)
    assert second.take(SHARDS[4])


def test_no_secret_is_written(tmp_path):
    options = {"CANARY": "CANARY-secret"}
    ledger = Ledger(folder(f"file://{tmp_path}", options), PLAN, "first")
    ledger.enter()
    assert ledger.take(ONE)
    assert ledger.send(ONE)
    ledger.doubt(ONE)
    assert ledger.count_resend(ONE, 4)
    assert ledger.take(ONE, resend=True)
    assert ledger.send(ONE)
    ledger.finish(ONE, scored(ONE))
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.parent.name for path in written} == {"_destination", "_workers", "_resends", ONE.name}
    assert [path for path in written if b"CANARY" in path.read_bytes() + str(path).encode()] == []
    ledger.leave()


def test_a_log_that_cannot_be_read_is_never_a_free_shard(tmp_path):
    ledger = Ledger(folder(tmp_path, None), PLAN, "first")
    log = tmp_path / "_claims" / PLAN / ONE.name
    log.mkdir(parents=True)
    (log / "00000001.json").write_bytes(b"{")
    for ask in (lambda: ledger.look(ONE), lambda: ledger.survey(SHARDS), lambda: ledger.finish(ONE, scored(ONE))):
        with pytest.raises(RecordUnreadableError, match=r"00000001\.json holds no JSON"):
            ask()
    (log / "00000001.json").write_text(json.dumps({"schema_version": 2, "owner": "a"}))
    with pytest.raises(RecordTooNewError, match="upgrade tabpfn-providers"):
        ledger.look(ONE)
    (log / "00000001.json").write_text(json.dumps({"owner": "a", "nonce": "n", "expires_at": 0, "phase": "done"}))
    with pytest.raises(RecordUnreadableError, match="is no ShardEntry"):
        ledger.look(ONE)
    destination = tmp_path / "_claims" / "_destination"
    destination.mkdir()
    (destination / "00000001.json").write_bytes(b"[]")
    with pytest.raises(RecordUnreadableError, match=r"_destination/00000001\.json holds no PlanEntry"):
        ledger.enter()
    assert not list((tmp_path / "_claims" / PLAN).glob("_workers/*.json"))


def test_what_is_no_entry_is_passed_over(enter, url):
    first = enter("first")
    assert first.take(ONE)
    fs, path = fsspec.core.url_to_fs(f"{url}/_claims/{PLAN}/{ONE.name}")
    for name in (".00000002.json.0.tmp", "2.json", "00000003.txt", "notes"):
        fs.pipe_file(f"{path}/{name}", b"")
    second = enter("second")
    assert second.look(ONE).state == second.survey([ONE])[0].state == "busy"
    assert first.send(ONE)


def test_a_store_that_is_not_exclusive_holds_no_ledger(tmp_path):
    unsafe = folder("dir://", {"path": str(tmp_path), "target_protocol": "file"})
    with pytest.raises(StoreNotExclusiveError, match="allow_unsafe_store=True"):
        Ledger(unsafe, PLAN, "first").enter()
    assert list(tmp_path.iterdir()) == []
    allowed = Ledger(unsafe, PLAN, "first", allow_unsafe_store=True)
    allowed.enter()
    assert allowed.take(ONE)
    allowed.leave()


@pytest.mark.parametrize("lease", [0, -1, float("nan")])
def test_a_lease_lives(tmp_path, lease):
    with pytest.raises(ConfigurationError, match="above 0"):
        Ledger(folder(tmp_path, None), PLAN, "first", lease_seconds=lease)


@pytest.mark.parametrize("plan", ["", "..", "a/b", ".hidden"])
def test_a_plan_id_is_a_name(tmp_path, plan):
    with pytest.raises(ConfigurationError, match="is no name"):
        Ledger(folder(tmp_path, None), plan, "first")
