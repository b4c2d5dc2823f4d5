"""The books of a scoring on S3: two processes share the shards, another plan is refused, no cache hides anything."""

import hashlib
import json
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tabpfn_assets import PartFile, ScoredShard, ScoringPlan, SourceRef
from tabpfn_operators.errors import DestinationBusyError, DestinationError, RecordUnreadableError
from tabpfn_operators.scoring import _manifest
from tabpfn_operators.scoring._ledger import Ledger
from tabpfn_operators.scoring._manifest import build, read_manifest, tidy, verified, write_manifest
from tabpfn_operators.scoring._plan import Shard
from tabpfn_operators.storage import folder

PLAN, OTHER = "a" * 32, "b" * 32
SHARDS = tuple(Shard(index, index * 10, 10) for index in range(30))
ONE = SHARDS[3]

RACE = """
import json, multiprocessing, sys
from datetime import UTC, datetime

url, options = sys.argv[1], json.loads(sys.argv[2])

def work(owner, barrier, queue):
    from tabpfn_assets import ScoredShard
    from tabpfn_operators.scoring._ledger import Ledger
    from tabpfn_operators.scoring._plan import Shard
    from tabpfn_operators.storage import folder
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
    print(json.dumps([queue.get(timeout=120) for _ in started]))
    for process in started: process.join(60)
"""


@pytest.fixture
def url(bucket):
    return f"{bucket}/scores/daily"


@pytest.fixture
def cold(url, options):
    return folder(url, options)


@pytest.fixture
def warm(url, options):
    """A destination whose user has turned a listings cache on."""
    return folder(url, {**options, "use_listings_cache": True})


def write_part(target, name, rows=10):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"prediction": pa.array([0.5] * rows)}), sink)
    content = sink.getvalue().to_pybytes()
    target.fs.pipe_file(f"{target.path}/{name}", content)
    return PartFile(name=name, rows=rows, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def scored(shard, file=None):
    file = file or PartFile(name="part.parquet", rows=10, size_bytes=1, sha256="0" * 64)
    return ScoredShard(
        index=shard.index,
        start=shard.start,
        rows=10,
        files=(file,),
        test_set_upload_id="upload",
        scored_at="2026-11-21T12:00:00Z",
    )


def test_of_two_processes_each_shard_is_scored_by_one(cold, url, options, tmp_path):
    script = tmp_path / "race.py"
    script.write_text(RACE)
    done = subprocess.run(
        [sys.executable, script, url, json.dumps(options)], capture_output=True, text=True, check=True, timeout=180
    )
    sent = dict(json.loads(done.stdout))
    assert sorted(sent["first"] + sent["second"]) == list(range(30))
    for shard, look in zip(SHARDS, Ledger(cold, PLAN, "reader").survey(SHARDS), strict=True):
        assert shard.index in sent[look.entry.scored.test_set_upload_id]


def test_what_another_client_does_is_seen_through_a_warm_cache(warm, cold):
    mine, theirs = Ledger(warm, PLAN, "mine"), Ledger(cold, PLAN, "theirs")
    mine.enter()
    theirs.enter()
    assert mine.look(ONE).state == "free"
    warm.fs.find(warm.path)
    warm.fs.ls(f"{warm.path}/_claims/{PLAN}")
    assert warm.fs.dircache
    assert theirs.take(ONE)
    assert theirs.send(ONE)
    assert mine.look(ONE).state == "busy"
    assert {look.state for look in mine.survey([ONE])} == {"busy"}
    theirs.doubt(ONE)
    assert mine.look(ONE).state == "unknown"
    assert mine.take(ONE, resend=True)
    assert mine.send(ONE)
    assert mine.finish(ONE, scored(ONE)).resends == 1
    assert theirs.look(ONE).state == "done"
    mine.leave()
    theirs.leave()


def test_another_plan_is_refused_while_one_is_at_work(cold, warm):
    first, rival = Ledger(cold, PLAN, "first"), Ledger(warm, OTHER, "rival")
    first.enter()
    with pytest.raises(DestinationBusyError, match=f"{cold.url} is being written to by another scoring"):
        rival.enter()
    first.leave()
    again = Ledger(warm, OTHER, "rival")
    again.enter()
    with pytest.raises(DestinationBusyError):
        Ledger(cold, PLAN, "first").enter()
    again.leave()


def test_a_scoring_is_closed_and_tidied_up(cold, warm, second, monkeypatch):
    monkeypatch.setattr(_manifest, "_READ_BYTES", 200)
    plan = ScoringPlan(
        plan_id=PLAN,
        fitted_train_set_id="fitted-1",
        source=SourceRef(uris=("s3://KEY:CANARY@lake/a.parquet?sig=CANARY",), rows=20),
        output_type="probas",
        rows=20,
        shards=2,
        spliced=2,
    )
    leaving = Ledger(cold, OTHER, "other")
    leaving.enter()
    assert leaving.take(ONE)
    leaving.leave()
    ledger = Ledger(cold, PLAN, "first")
    ledger.enter()
    files = [
        write_part(cold, f"part-aaaaaaaa-{n:05d}-{n:012d}.parquet" if n else "day=7/part-aaaaaaaa-00000-0.parquet")
        for n in range(2)
    ]
    left = write_part(cold, f"day=8/part-bbbbbbbb-00003-{'0' * 12}.parquet")
    warm.fs.find(warm.path)
    done = []
    for shard, file in zip(SHARDS, files, strict=False):
        assert ledger.take(shard)
        assert ledger.send(shard)
        done.append(ledger.finish(shard, scored(shard, file)))
        assert verified(warm, done[-1]) is None
    wrong = done[0].model_copy(update={"files": (left.model_copy(update={"sha256": "0" * 64}),)})
    assert verified(warm, wrong) == f"{left.name} has another content (SHA-256)"
    assert read_manifest(warm) is None
    manifest = build(plan, ["prediction"], done, started_at=done[0].scored_at, finished_at=done[0].scored_at)
    write_manifest(cold, manifest)
    assert read_manifest(warm) == manifest
    tidy(warm, manifest)
    ledger.leave()
    names = {path.removeprefix(f"{cold.path}/") for path in second.find(cold.path)}
    assert {name for name in names if not name.startswith("_claims/")} == {"_manifest.json", *(f.name for f in files)}
    assert {name.split("/")[1] for name in names if name.startswith("_claims/")} == {PLAN, "_destination"}
    second.rm_file(f"{cold.path}/{files[1].name}")
    assert verified(warm, done[1]) == f"{files[1].name} is missing"
    assert [
        p for p in second.find(cold.path) if b"CANARY" in second.cat_file(p) or b"a-secret" in second.cat_file(p)
    ] == []


def test_a_destination_that_may_not_be_read_is_not_empty(options):
    nowhere = folder("s3://no-such-bucket/scores", {**options, "client_kwargs": {"endpoint_url": "x"}})
    ledger = Ledger(nowhere, PLAN, "first")
    with pytest.raises(RecordUnreadableError, match="cannot be listed"):
        ledger.survey(SHARDS)
    with pytest.raises(RecordUnreadableError, match=r"cannot be (read|listed)"):
        ledger.look(ONE)
    with pytest.raises(RecordUnreadableError, match="cannot be read"):
        read_manifest(nowhere)
    with pytest.raises(DestinationError, match="cannot be written to"):
        ledger.enter()
