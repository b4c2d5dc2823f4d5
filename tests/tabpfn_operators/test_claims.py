"""Claims: at every instant at most one owner may act, whatever the clocks, the order and the crashes."""

import json
import os
import subprocess
import sys

import fsspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tabpfn_operators.claims import SKEW_SECONDS, FolderClaims, Lease, MemoryClaims, holder_of
from tabpfn_operators.errors import (
    ConfigurationError,
    DestinationError,
    RecordTooNewError,
    RecordUnreadableError,
    StorageError,
    StoreNotExclusiveError,
)

#: Every round all processes find the lease of the round before expired, and try to take it over.
RACE = """
import json, multiprocessing, sys
from tabpfn_operators.claims import FolderClaims

folder, workers, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
context = multiprocessing.get_context("fork")
barrier, queue = context.Barrier(workers), context.Queue()

def work(number):
    now, won = [0.0], []
    claims = FolderClaims(folder, clock=lambda: now[0])
    for n in range(rounds):
        now[0] = 1000.0 * n
        barrier.wait(60)
        if claims.acquire("key", f"worker-{number}", 30):
            won.append(n)
        barrier.wait(60)
    queue.put([number, won])

started = [context.Process(target=work, args=(number,)) for number in range(workers)]
for process in started: process.start()
print(json.dumps([queue.get(timeout=60) for _ in started]))
for process in started: process.join(60)
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


@pytest.fixture(params=["local", "fsspec-memory", "memory"])
def claims(request, tmp_path, clock):
    if request.param == "local":
        yield FolderClaims(tmp_path / "claims", clock=clock)
    elif request.param == "memory":
        yield MemoryClaims(clock=clock)
    else:
        yield FolderClaims(f"memory://{tmp_path.name}", clock=clock)
        fs = fsspec.filesystem("memory")
        fs.store.clear()
        fs.pseudo_dirs[:] = [""]


def test_one_owner_at_a_time(claims, clock):
    assert claims.holder("fit") is None
    lease = claims.acquire("fit", "a", 30)
    assert (lease.owner, lease.expires_at) == ("a", clock.now + 30)
    assert claims.acquire("fit", "b", 30) is None
    assert claims.renew("fit", "b", 30) is None
    assert claims.holder("fit") == lease
    assert claims.acquire("another", "b", 30).owner == "b"
    claims.release("fit", "b")
    assert claims.holder("fit") == lease
    claims.release("fit", "a")
    assert claims.holder("fit") is None
    assert claims.renew("fit", "a", 30) is None
    assert claims.acquire("fit", "b", 30).owner == "b"


def test_renewed_while_the_owner_lives(claims, clock):
    claims.acquire("fit", "a", 30)
    for _ in range(5):
        clock.now += 25
        assert claims.renew("fit", "a", 30).expires_at == clock.now + 30
        assert claims.acquire("fit", "b", 30) is None


def test_taken_over_when_the_owner_is_gone(claims, clock):
    claims.acquire("fit", "a", 30)
    clock.now += 30 + SKEW_SECONDS - 0.001
    assert claims.acquire("fit", "b", 30) is None
    clock.now += 0.002
    assert claims.holder("fit") is None
    assert claims.acquire("fit", "b", 30).owner == "b"
    assert claims.renew("fit", "a", 30) is None
    claims.release("fit", "a")
    assert claims.holder("fit").owner == "b"


def test_a_late_renewal_counts_if_nobody_took_over(claims, clock):
    claims.acquire("fit", "a", 30)
    clock.now += 1000
    assert claims.renew("fit", "a", 30).owner == "a"
    assert claims.acquire("fit", "b", 30) is None


def test_the_owner_may_ask_again(claims):
    first = claims.acquire("fit", "a", 30)
    again = claims.acquire("fit", "a", 60)
    assert again.expires_at > first.expires_at
    assert claims.holder("fit") == again


@pytest.mark.parametrize("key", ["", ".", "..", "../x", "a/b", ".hidden", "a\n", "a" * 129])
def test_a_key_is_a_name(claims, key):
    for call in (
        lambda: claims.acquire(key, "a", 30),
        lambda: claims.renew(key, "a", 30),
        lambda: claims.release(key, "a"),
        lambda: claims.holder(key),
    ):
        with pytest.raises(ConfigurationError, match="is no name"):
            call()


@pytest.mark.parametrize("ttl", [0, -1, float("nan")])
def test_a_lease_lives(claims, ttl):
    with pytest.raises(ConfigurationError, match="above 0 seconds"):
        claims.acquire("fit", "a", ttl)
    assert claims.holder("fit") is None


LEASES = st.builds(
    Lease,
    owner=st.sampled_from("ab"),
    expires_at=st.floats(0, 1e6),
    released=st.booleans(),
    nonce=st.just("n"),
)


@given(LEASES | st.none(), st.floats(0, 1e6), st.floats(0, 1e3), st.floats(0, 1e3))
def test_who_holds_it(last, now, skew, later):
    holder = holder_of(last, now=now, skew=skew)
    assert holder in {None, last and last.owner}
    if last is None or last.released:
        assert holder is None
    elif now < last.expires_at:
        assert holder == last.owner
    elif now >= last.expires_at + skew:
        assert holder is None
    if holder is None:  # what has become free stays free until somebody writes
        assert holder_of(last, now=now + later, skew=skew) is None


class LateClaims(MemoryClaims):
    """An owner may decide on what it read long ago, as after a pause of its process."""

    read_before = None

    def _last(self, key):
        return self.read_before or super()._last(key)


OWNERS = "abc"
STEPS = st.lists(
    st.tuples(
        st.sampled_from(OWNERS),
        st.sampled_from(["look", "acquire", "renew", "release"]),
        st.sampled_from([0, 1, SKEW_SECONDS / 2, SKEW_SECONDS, 28, 30, 32]) | st.floats(0, 40),  # that pass before
    ),
    max_size=40,
)


OFFSETS = st.sampled_from([-SKEW_SECONDS / 2, 0, SKEW_SECONDS / 2]) | st.floats(-SKEW_SECONDS / 2, SKEW_SECONDS / 2)


@settings(max_examples=300)
@given(STEPS, st.tuples(*[OFFSETS for _ in OWNERS]))
@example([("a", "acquire", 0), ("b", "acquire", 28)], (-SKEW_SECONDS / 2, SKEW_SECONDS / 2, 0))
def test_no_two_owners_may_act_at_once(steps, offsets):
    ahead = dict(zip(OWNERS, offsets, strict=True))
    true_time, acting = 1000.0, ["a"]
    claims = LateClaims(clock=lambda: true_time + ahead[acting[0]])
    looked, held = {}, {}
    for owner, step, passes in steps:
        true_time += passes
        acting[0] = owner
        claims.read_before = None
        if step == "look":
            looked[owner] = claims._last("key")
            continue
        claims.read_before = looked.pop(owner, None)
        if step == "release":
            claims.release("key", owner)
            held.pop(owner, None)
        elif lease := getattr(claims, step)("key", owner, 30):
            held[owner] = lease
        able = [one for one, lease in held.items() if true_time + ahead[one] < lease.expires_at]
        assert len(able) <= 1


def test_of_eight_processes_one_takes_over(tmp_path):
    workers, rounds = 8, 40
    done = subprocess.run(
        [sys.executable, "-c", RACE, str(tmp_path), str(workers), str(rounds)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    won = dict(json.loads(done.stdout))
    assert sorted(n for rounds_won in won.values() for n in rounds_won) == list(range(rounds))
    names = sorted(os.listdir(tmp_path / "key"))
    assert names == [f"{n:08d}.json" for n in range(1, rounds + 1)]
    owners = [Lease.model_validate_json((tmp_path / "key" / name).read_bytes()).owner for name in names]
    assert owners == [f"worker-{next(w for w, r in won.items() if n in r)}" for n in range(rounds)]


def test_a_write_whose_answer_was_lost_is_recognised(tmp_path, monkeypatch):
    """The link was made, the client asked again and was told that the name is taken."""
    claims = FolderClaims(tmp_path)
    real = os.link

    def lost(source, target):
        os.rename(source, target)  # so that the count of links does not tell
        os.close(os.open(source, os.O_CREAT))
        real(source, target)

    monkeypatch.setattr(os, "link", lost)
    lease = claims.acquire("fit", "a", 30)
    monkeypatch.undo()
    assert claims.holder("fit") == lease
    assert claims.acquire("fit", "b", 30) is None


def test_a_log_that_cannot_be_read_is_never_a_free_key(tmp_path):
    claims = FolderClaims(tmp_path)
    claims.acquire("fit", "a", 30)
    entry = tmp_path / "fit" / "00000001.json"
    entry.write_bytes(b"{")
    with pytest.raises(RecordUnreadableError, match=r"00000001\.json holds no JSON"):
        claims.acquire("fit", "b", 30)
    entry.write_text(json.dumps({"schema_version": 2, "holder": "a"}))
    with pytest.raises(RecordTooNewError, match="upgrade tabpfn-providers"):
        claims.acquire("fit", "b", 30)
    (tmp_path / "taken").write_bytes(b"a file where a log should be")
    with pytest.raises(DestinationError, match=r"taken/00000001\.json cannot be written to"):
        claims.acquire("taken", "b", 30)


def test_an_entry_that_vanishes_meanwhile_is_never_a_free_key(tmp_path, monkeypatch):
    monkeypatch.setattr("tabpfn_operators.claims.names_in", lambda fs, path: ["00000007.json"])
    with pytest.raises(StorageError, match=r"00000007\.json was removed while"):
        FolderClaims(tmp_path).acquire("fit", "a", 30)


def test_what_is_no_entry_is_passed_over(tmp_path):
    claims = FolderClaims(tmp_path)
    claims.acquire("fit", "a", 30)
    for name in (".00000002.json.0.tmp", "tabpfn-exclusive-check-0", "2.json", "notes.txt"):
        (tmp_path / "fit" / name).write_bytes(b"")
    assert claims.holder("fit").owner == "a"


def test_a_store_that_is_not_exclusive_holds_no_claims(tmp_path):
    unsafe = {"url": "dir://", "options": {"path": str(tmp_path), "target_protocol": "file"}}
    with pytest.raises(StoreNotExclusiveError, match="allow_unsafe_store=True"):
        FolderClaims(**unsafe).acquire("fit", "a", 30)
    allowed = FolderClaims(**unsafe, allow_unsafe_store=True)
    assert allowed.acquire("fit", "a", 30).owner == "a"
    assert allowed.acquire("fit", "b", 30) is None
