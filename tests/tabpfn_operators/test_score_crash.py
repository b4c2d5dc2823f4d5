"""kill -9 at every step of a scoring, then the same call again: what was sent, charged, written, and left alone.

The kills are tests/tabpfn_operators/score_crash_driver.py's; the product has no hook for them. Five of the points are
drawn from CRASH_SEED, and for each one the shard, the client, the shards in flight and whether rows are moved as bytes:
set it to what a failed run has printed. `--all` tries every point with both clients.
"""

import hashlib
import json
import os
import random
import signal
import time
import uuid
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tabpfn_assets import ScoringManifest
from tabpfn_operators import Client
from tabpfn_operators.errors import DestinationBusyError, OutcomeUnknownError

PREPARE = "/tabpfn/prepare_test_set_upload"
PREDICT = "/tabpfn/predict"
ROWS = 25
#: Seconds of a lease in a test in which a process is killed, and by which clocks may differ: the rerun waits as long.
LEASE, SKEW = 0.8, 0.1
#: A lease that does not end while a test lasts.
LONG = 120.0
#: Seconds that a test waits for what has to come.
PATIENCE = 20.0


@dataclass(frozen=True)
class Point:
    """Where a process is killed, and what is true of the shard that it was at.

    Args:
        at: The step, as in `score_crash_driver.SharedKill`.
        when: `before` it, `after` it, in the `half`, or `received` by the server.
        once: Whether a scoring has one such step, and not one for each shard.
        in_doubt: Whether the ledger has it as sent.
        carried_out: Whether the server has carried it out.
    """

    at: str
    when: str = "after"
    once: bool = False
    in_doubt: bool = False
    carried_out: bool = False


PAID = {"in_doubt": True, "carried_out": True}
POINTS = {
    "destination entered": Point("enter", once=True),
    "taken": Point("take"),
    "upload asked": Point(f"send {PREPARE}"),
    "half of the rows sent": Point("send PUT", "half"),
    "rows sent": Point("send PUT"),
    "sending to be written": Point("sending", "before"),
    "sending written": Point("sent", in_doubt=True),
    "prediction received": Point(f"send {PREDICT}", "received", **PAID),
    "prediction answered": Point(f"send {PREDICT}", **PAID),
    "refused for now": Point("unsend"),
    "half of the part copied": Point("copy", "half", **PAID),
    "part in place": Point("put", **PAID),
    "shard done": Point("finish", carried_out=True),
    "record written": Point("manifest", "before", once=True),
    "manifest written": Point("manifest", once=True),
}
DRAWN = 5


@dataclass(frozen=True)
class Scene:
    """One scoring by an account of its own, and the task that does it."""

    task: dict
    shards: int
    control: object

    @property
    def folder(self):
        return Path(self.task["destination"])

    def at(self, destination, **options):
        """Say the same of another destination, or with other options."""
        path = str(self.folder.parent / destination)
        return replace(self, task={**self.task, "destination": path, "options": {**self.task["options"], **options}})

    def killed_at(self, point, nth, **how):
        return {**self.task, "kill": {"at": point.at, "nth": nth, "when": point.when, **how}}

    def settle(self):
        """Wait until the server has ended what a process that is gone has asked for."""
        ends = time.monotonic() + PATIENCE
        while any(row["seconds"] is None for row in self._rows()):
            assert time.monotonic() < ends
            time.sleep(0.01)

    def _rows(self):
        return self.control.journal(route=PREDICT, account=self.task["account"])

    def accepted(self):
        """Count the predictions that the server has booked, by test set."""
        made = self.control.creations(kind="predict_run", account=self.task["account"])
        return Counter(each["ids"]["test_set_upload_id"] for each in made)

    def phases(self):
        """Read the phase of each shard, and what is written down of those that are done, from the newest entries."""
        newest = {}
        for entry in sorted(self.folder.glob("_claims/*/[0-9]*/*.json")):
            newest[int(entry.parent.name)] = json.loads(entry.read_text())
        return newest

    def owners(self):
        return Counter(entry["owner"] for entry in self.phases().values() if entry["phase"] == "done")

    def manifest(self):
        return ScoringManifest.model_validate_json((self.folder / "_manifest.json").read_text())

    def parts(self):
        return {path.name: seen(path) for path in sorted(self.folder.glob("part-*.parquet"))}


@dataclass(frozen=True)
class Seen:
    """A file as it was."""

    inode: int
    changed: int
    digest: str


def seen(path):
    status = path.stat()
    return Seen(status.st_ino, status.st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.fixture
def scene(control, emulator, classification, tmp_path):
    """Open a scene; its rows are moved as bytes where each shard is a row group, and decoded where all are one."""

    def open_scene(*, shards=8, moved=True, concurrency=1, is_async=False, lease=LEASE, **options):
        name, token = f"score-{uuid.uuid4().hex}", f"key-{uuid.uuid4().hex}"
        control.change_account(name, add_tokens=[token])
        with Client(token, base_url=emulator) as client:
            model = client.fit(
                classification.train, classification.target, parameters=classification.parameters, streamed=True
            )
        source = tmp_path / f"{name}.parquet"
        rows = shards * ROWS
        columns = {
            "customer": [f"c{row:06}" for row in range(rows)],
            "x": [row / rows for row in range(rows)],
            "other": [row * 11 % 7 for row in range(rows)],
        }
        pq.write_table(pa.table(columns), source, row_group_size=ROWS if moved else rows)
        temporary = tmp_path / f"{name}-temporary"
        temporary.mkdir()
        task = {
            "url": emulator,
            "account": name,
            "token": token,
            "model": model.model_dump(mode="json"),
            "source": str(source),
            "destination": str(tmp_path / name),
            "temporary": str(temporary),
            "lease": lease,
            "skew": SKEW,
            "is_async": is_async,
            "options": {"rows_per_shard": ROWS, "keep": ["customer"], "concurrency": concurrency, **options},
        }
        return Scene(task, shards, control)

    return open_scene


@dataclass(frozen=True)
class Killed:
    """What a process that was killed has left."""

    phases: dict
    accepted: Counter
    parts: dict

    @property
    def in_doubt(self):
        return [index for index, entry in sorted(self.phases.items()) if entry["phase"] == "sent"]

    @property
    def done(self):
        return {index for index, entry in self.phases.items() if entry["phase"] == "done"}


def crash(scene, point, nth, score_at_once):
    """Kill a call at a point."""
    concurrency = scene.task["options"]["concurrency"]
    if point.when == "received":
        assert nth >= concurrency
        scene.control.inject(kind="hang", when="after", route=PREDICT, skip=nth - concurrency, times=concurrency)
    if point.at == "unsend":
        scene.control.inject(kind="rate_limit", seconds=1, route=PREDICT, nth=nth)
        nth = 1
    (killed,) = score_at_once(scene.killed_at(point, nth))
    assert killed == {"code": -signal.SIGKILL}
    scene.settle()
    assert scene.control.faults() == []
    return Killed(scene.phases(), scene.accepted(), scene.parts())


def rerun(scene, score_at_once, **options):
    (ran,) = score_at_once({**scene.task, "options": {**scene.task["options"], **options}})
    assert ran["code"] == 0
    return ran


def check_killed(scene, point, killed):
    """Hold what a process has left against the point at which it was killed."""
    assert (scene.folder / "_manifest.json").exists() == (point == POINTS["manifest written"])
    assert (scene.folder / "_lineage.json").exists() == (point.at == "manifest")
    in_doubt, doubted_runs = len(killed.in_doubt), killed.accepted.total() - len(killed.done)
    if scene.task["options"]["concurrency"] == 1 or point.once:
        assert in_doubt == int(point.in_doubt)
        assert doubted_runs == int(point.carried_out and point.in_doubt)
    else:
        assert in_doubt >= int(point.in_doubt)
        assert in_doubt >= doubted_runs >= int(point.carried_out and point.in_doubt)


def check_sent_once(scene, killed):
    """Hold the server's books against the ledger as it was, and the manifest against both."""
    manifest, accepted = scene.manifest(), scene.accepted()
    assert [resend.shard for resend in manifest.resends] == killed.in_doubt
    carried_out = 0
    for shard in manifest.shards:
        before, in_all = killed.accepted[shard.test_set_upload_id], accepted[shard.test_set_upload_id]
        if shard.index in killed.in_doubt:
            assert (before in {0, 1}, in_all) == (True, before + 1)
            carried_out += before
        else:
            assert (before, in_all) == (int(shard.index in killed.done), 1)
    assert accepted.total() == scene.shards + carried_out


def check_untouched(scene, killed):
    parts = scene.parts()
    for index in killed.done:
        for file in files_of(killed, index):
            assert parts[file["name"]] == killed.parts[file["name"]]


def check_closed(scene):
    """Look at a finished scoring as a reader does: complete, in order, nothing beside it, the manifest last."""
    manifest = scene.manifest()
    named = [file.name for shard in manifest.shards for file in shard.files]
    assert sorted(path.name for path in scene.folder.iterdir()) == [
        "_claims",
        "_lineage.json",
        "_manifest.json",
        *sorted(named),
    ]
    (closed,) = [path.stat().st_mtime_ns for path in scene.folder.glob("_manifest.json")]
    assert closed >= (scene.folder / "_lineage.json").stat().st_mtime_ns
    assert closed >= max(part.changed for part in scene.parts().values())
    table = pa.concat_tables(pq.read_table(scene.folder / name) for name in named)
    assert table.column("customer").to_pylist() == [f"c{row:06}" for row in range(scene.shards * ROWS)]
    assert {file.sha256 for shard in manifest.shards for file in shard.files} == {
        part.digest for part in scene.parts().values()
    }


def check_same(scene, score_at_once):
    """Hold the files against those of a scoring that nobody killed."""
    other = scene.at(f"undisturbed-{uuid.uuid4().hex}")
    (ran,) = score_at_once(other.task)
    assert (ran["code"], ran["resends"]) == (0, 0)
    assert contents(scene) == contents(other)


def contents(scene):
    return {name: part.digest for name, part in scene.parts().items()}


@pytest.fixture
def drawn(pytestconfig):
    """Draw points, and how each is tried; with `--all` every one, with both clients."""
    seed = int(os.environ.get("CRASH_SEED", random.SystemRandom().randrange(2**32)))
    print(f"CRASH_SEED={seed}")
    rng = random.Random(seed)
    every = pytestconfig.getoption("--all")
    clients = [(name, is_async) for name in POINTS for is_async in (False, True)]
    names = rng.sample(sorted(POINTS), DRAWN)
    chosen = clients if every else [(name, rng.random() < 0.5) for name in names]
    return [
        (
            name,
            1 if POINTS[name].once else rng.randrange(4, 37),
            {"is_async": is_async, "moved": rng.random() < 0.5, "concurrency": rng.choice([1, 4])},
        )
        for name, is_async in chosen
    ]


def test_a_killed_scoring_sends_what_is_missing(drawn, scene, score_at_once):
    for name, nth, how in drawn:
        print(f"{name}, of shard {nth}, {how}")
        point, one = POINTS[name], scene(shards=40, **how)
        killed = crash(one, point, nth, score_at_once)
        check_killed(one, point, killed)
        ran = rerun(one, score_at_once)
        assert (ran["rows"], ran["shards"], ran["resends"]) == (40 * ROWS, 40, len(killed.in_doubt))
        check_sent_once(one, killed)
        check_untouched(one, killed)
        check_closed(one)
        check_same(one, score_at_once)


def test_a_shard_of_several_files_is_killed_between_them(scene, score_at_once):
    one = scene(keep=["customer", "other"], partition_by=["other"])
    killed = crash(one, POINTS["half of the part copied"], 10, score_at_once)
    assert (len(killed.done), len(killed.in_doubt)) == (1, 1)
    left = {path: seen(path) for path in one.folder.glob("other=*/*")}
    assert len(left) == 7 + 3
    assert rerun(one, score_at_once)["resends"] == 1
    check_sent_once(one, killed)
    named = {one.folder / file.name for shard in one.manifest().shards for file in shard.files}
    assert set(one.folder.glob("other=*/*")) == named
    (done,) = killed.done
    assert all(left[one.folder / file["name"]] == seen(one.folder / file["name"]) for file in files_of(killed, done))


def files_of(killed, index):
    return killed.phases[index]["scored"]["files"]


# In doubt

AGAIN = {
    "resend counted": (Point("count resend", in_doubt=True), 1),
    "taken again": (Point("take again"), 1),
    "prediction answered again": (Point(f"send {PREDICT}", **PAID), 2),
}


def is_unknown(ran, message):
    return ran.get("error") == OutcomeUnknownError.__name__ and message in ran["message"]


@pytest.mark.parametrize("name", ["sending written", "prediction received"])
def test_what_is_in_doubt_stays_so_until_a_person_decides(name, scene, score_at_once):
    one = scene(is_async=name == "prediction received")
    killed = crash(one, POINTS[name], 5, score_at_once)
    for _ in range(2):
        assert is_unknown(rerun(one, score_at_once, on_unknown="raise"), "it was possibly charged")
        assert one.accepted().total() == one.shards - 1 + killed.accepted.total() - len(killed.done)
        assert not (one.folder / "_manifest.json").exists()
    assert rerun(one, score_at_once)["resends"] == 1
    check_sent_once(one, killed)
    check_untouched(one, killed)
    check_closed(one)


@pytest.mark.parametrize("name", AGAIN)
def test_each_sending_of_unknown_outcome_is_named(name, scene, score_at_once):
    (point, resends), one = AGAIN[name], scene(shards=4)
    first = crash(one, POINTS["prediction answered"], 2, score_at_once)
    assert is_unknown(rerun(one, score_at_once, on_unknown="raise"), "it was possibly charged")
    second = crash(one, point, 1, score_at_once)
    assert second.in_doubt == first.in_doubt * point.in_doubt
    assert second.accepted.total() == 4 + int(point.carried_out)
    if resends == 2:
        assert is_unknown(rerun(one, score_at_once), "all 1 resends of this scoring are used up")
        assert one.accepted() == second.accepted
    assert rerun(one, score_at_once, max_resends=resends)["resends"] == resends
    assert [resend.shard for resend in one.manifest().resends] == first.in_doubt * resends
    assert one.accepted().total() == second.accepted.total() + 1
    check_closed(one)


# Two at once


@pytest.fixture
def rounds(pytestconfig):
    """How often two race."""
    return 10 if pytestconfig.getoption("--all") else 2


def test_two_processes_share_a_scoring(scene, score_at_once, rounds, control):
    control.configure(latency={PREDICT: 0.05})
    for number in range(rounds):
        one = scene(shards=20, lease=LONG, concurrency=2, is_async=bool(number % 2), moved=bool(number // 2 % 2))
        first, second = score_at_once(one.task, one.task)
        assert (first["code"], second["code"], first["resends"], second["resends"]) == (0, 0, 0, 0)
        assert set(one.accepted().values()) == {1}
        assert one.accepted().total() == 20
        assert len(one.owners()) == 2
        check_closed(one)


def test_of_two_processes_one_is_killed(scene, score_at_once, tmp_path):
    one = scene(shards=20, concurrency=2, lease=2.0)
    kill = {"once": str(tmp_path / "killed")}
    ran = score_at_once(*[one.killed_at(POINTS["sending written"], 3, **kill) for _ in range(2)])
    assert sorted(each["code"] for each in ran) == [-signal.SIGKILL, 0]
    one.settle()
    manifest, accepted = one.manifest(), one.accepted()
    again = Counter(resend.shard for resend in manifest.resends)
    assert 1 <= again.total() <= 2
    for shard in manifest.shards:
        assert 1 <= accepted[shard.test_set_upload_id] <= 1 + again[shard.index]
    assert accepted.total() == sum(accepted[shard.test_set_upload_id] for shard in manifest.shards)
    check_closed(one)


#: Points at which a process sleeps through its lease, how often the other names its shard as sent again, and how often
#: it was sent.
STOPPED = {
    "rows sent": (Point("send PUT"), 0, 1),
    "sending to be written": (Point("sending", "before"), 0, 1),
    "sending being written": (Point("taken to sent", "before"), 0, 1),
    "sending just written": (Point("taken to sent"), 1, 1),
    "prediction answered": (Point(f"send {PREDICT}"), 1, 2),
    "half of the part copied": (Point("copy", "half"), 1, 2),
    "part in place": (Point("put"), 1, 2),
}


@pytest.mark.parametrize("name", STOPPED)
def test_one_that_wakes_up_sends_nothing_that_another_has_sent(name, scene, score_at_once):
    (point, named, sent), one = STOPPED[name], scene(is_async=name == "rows sent")
    stopped, other = score_at_once(one.killed_at(point, 4, stop=True), one.task)
    assert (stopped["code"], other["code"], stopped["stopped"]) == (0, 0, True)
    manifest, accepted = one.manifest(), one.accepted()
    again = [resend.shard for resend in manifest.resends]
    assert len(again) == stopped["resends"] == other["resends"] == named
    assert sorted(accepted.values()) == [1] * (one.shards - 1) + [sent]
    assert [accepted[manifest.shards[index].test_set_upload_id] for index in again] == [sent] * named
    check_closed(one)


# Another scoring in the same place


def another(scene):
    """Another scoring of the same rows into the same folder."""
    return scene.at(scene.folder.name, output_type="preds")


def check_only(scene, ran):
    assert ran["code"] == 0
    assert scene.manifest().plan.plan_id == ran["plan"]
    check_closed(scene)


def test_another_scoring_waits_until_one_has_ended(scene, score_at_once):
    one = scene(lease=LONG)
    stopped, other = score_at_once(one.killed_at(POINTS["sending written"], 4, stop=True), another(one).task)
    assert other["error"] == DestinationBusyError.__name__
    assert stopped["plan"] in other["message"]
    assert one.accepted().total() == one.shards
    check_only(one, stopped)
    check_only(one, rerun(another(one), score_at_once))


def test_another_scoring_waits_until_one_that_was_killed_is_given_up(scene, score_at_once):
    one = scene()
    killed = crash(one, POINTS["part in place"], 4, score_at_once)
    (other,) = score_at_once({**another(one).task, "patience": PATIENCE})
    assert one.accepted().total() == killed.accepted.total() + one.shards
    check_only(one, other)


def test_what_was_there_stays_until_another_scoring_is_complete(scene, score_at_once):
    one = scene()
    was = rerun(one, score_at_once)
    parts, manifest = one.parts(), one.manifest()
    for name in ("part in place", "record written"):
        other = crash(another(one), POINTS[name], 1 if POINTS[name].once else 4, score_at_once)
        assert one.manifest() == manifest
        assert {name: other.parts[name] for name in parts} == parts
    then = rerun(another(one), score_at_once)
    assert then["plan"] != was["plan"]
    check_only(one, then)


#: Points, and what the one that wakes up says: that it is refused, or that a shard was paid for in vain.
TAKEN_OVER = {
    "sending to be written": (Point("sending", "before"), 4, DestinationBusyError),
    "prediction answered": (Point(f"send {PREDICT}"), 4, OutcomeUnknownError),
    "half of the part copied": (Point("copy", "half"), 4, OutcomeUnknownError),
    "manifest to be written": (Point("confirm to close", "before"), 2, DestinationBusyError),
    "manifest written": (Point("confirm to close", "before"), 3, DestinationBusyError),
}


@pytest.mark.parametrize("name", TAKEN_OVER)
def test_one_that_wakes_up_leaves_what_another_scoring_has_written(name, scene, score_at_once):
    (point, nth, error), one = TAKEN_OVER[name], scene()
    killed = one.killed_at(point, nth, stop=True)
    stopped, other = score_at_once(killed, {**another(one).task, "patience": PATIENCE})
    assert (stopped["stopped"], stopped["error"]) == (True, error.__name__)
    assert other["plan"] in stopped["message"] or name == "half of the part copied"
    sent = one.shards if nth < 4 else 3 + (name != "sending to be written")
    assert one.accepted().total() == one.shards + sent
    check_only(one, other)


def test_a_manifest_that_came_too_late_costs_nothing(scene, score_at_once):
    one = scene()
    killed = one.killed_at(Point("manifest", "before"), 1, stop=True)
    stopped, other = score_at_once(killed, {**another(one).task, "patience": PATIENCE})
    assert (stopped["error"], other["code"]) == (DestinationBusyError.__name__, 0)
    assert one.manifest().plan.plan_id != other["plan"]
    accepted = one.accepted()
    check_only(one, rerun(another(one), score_at_once))
    assert (one.manifest().plan.plan_id, one.accepted()) == (other["plan"], accepted)
