"""The manifest of a scoring: whole or refused, held against the files, and what it makes superfluous is removed."""

import hashlib
import logging
import time
from datetime import UTC, datetime

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabpfn_assets import PartFile, Resend, ScoredShard, ScoringManifest, ScoringPlan, SourceRef
from tabpfn_operators.errors import (
    DestinationError,
    InvalidInputError,
    RecordTooNewError,
    RecordUnreadableError,
    StorageError,
)
from tabpfn_operators.scoring import _manifest
from tabpfn_operators.scoring._ledger import Ledger
from tabpfn_operators.scoring._manifest import build, read_manifest, tidy, verified, write_manifest
from tabpfn_operators.scoring._plan import Shard
from tabpfn_operators.storage import folder

PLAN, OTHER = "a" * 32, "b" * 32
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
LATER = datetime(2026, 11, 21, 13, tzinfo=UTC)


@pytest.fixture(params=["local", "memory"])
def target(request, tmp_path):
    if request.param == "local":
        yield folder(tmp_path / "scores", None)
    else:
        yield folder(f"memory://{tmp_path.name}/scores", None)
        fs = fsspec.filesystem("memory")
        fs.store.clear()
        fs.pseudo_dirs[:] = [""]


def make_plan(shards=3, rows=30, **fields):
    return ScoringPlan(
        plan_id=PLAN,
        fitted_train_set_id="fitted-1",
        source=SourceRef(uris=("s3://lake/a.parquet",), rows=rows),
        output_type="probas",
        rows=rows,
        shards=shards,
        rows_per_shard=10,
        spliced=shards,
        **fields,
    )


def make_shard(index, start=None, rows=10, **fields):
    part = PartFile(name=f"part-{index}.parquet", rows=rows, size_bytes=100, sha256="0" * 64)
    return ScoredShard(
        **{
            "index": index,
            "start": index * 10 if start is None else start,
            "rows": rows,
            "files": (part,),
            "test_set_upload_id": f"upload-{index}",
            "scored_at": NOON,
            **fields,
        }
    )


def make_manifest(plan=None, shards=None, **fields):
    plan = plan or make_plan()
    shards = [make_shard(index) for index in range(plan.shards)] if shards is None else shards
    return build(plan, ["prediction"], shards, started_at=NOON, finished_at=LATER, **fields)


def write_part(target, name, rows=50, group=5):
    """Write a part file and tell what a shard would."""
    sink = pa.BufferOutputStream()
    table = pa.table({"prediction": pa.array([float(n) for n in range(rows)])})
    pq.write_table(table, sink, row_group_size=group)
    content = sink.getvalue().to_pybytes()
    target.fs.makedirs(target.fs._parent(f"{target.path}/{name}"), exist_ok=True)
    target.fs.pipe_file(f"{target.path}/{name}", content)
    return PartFile(name=name, rows=rows, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def names(target):
    target.fs.invalidate_cache()
    return sorted(path.removeprefix(f"{target.path}/") for path in target.fs.find(target.path))


def test_a_manifest_of_all_shards():
    shards = [
        make_shard(2, estimated_cost=7, resends=2),
        make_shard(0, estimated_cost=5),
        make_shard(1, estimated_cost=6, resends=1),
    ]
    manifest = make_manifest(shards=shards, charged=24)
    assert [shard.index for shard in manifest.shards] == [0, 1, 2]
    assert (manifest.rows, manifest.estimated_cost, manifest.charged) == (30, 18, 24)
    assert manifest.resends == (
        Resend(shard=1, estimated_cost=6),
        Resend(shard=2, estimated_cost=7),
        Resend(shard=2, estimated_cost=7),
    )
    assert make_manifest(shards=[*shards[:2], make_shard(1)]).estimated_cost is None
    assert make_manifest().resends == ()


@pytest.mark.parametrize(
    ("shards", "message"),
    [
        ([0, 2], r"1 of 3 shards are not scored \(1\); score them first"),
        ([], r"3 of 3 shards are not scored \(0, 1, 2\)"),
        ([0, 1, 2, 2], "There are 4 shards for a plan of 3"),
        ([0, 1, 2, 3], "There are 4 shards for a plan of 3"),
    ],
)
def test_a_manifest_has_every_shard_once(shards, message):
    with pytest.raises(InvalidInputError, match=message):
        make_manifest(shards=[make_shard(index) for index in shards])


def test_many_that_are_missing_are_counted():
    with pytest.raises(InvalidInputError, match=r"99 of 100 shards are not scored \(1, 2, .* 10, \.\.\.\)"):
        make_manifest(make_plan(100, 1000), [make_shard(0)])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (make_shard(1, start=11), "Shard 1 has 10 rows in its files and begins at row 11; 10 rows from row 10 on"),
        (make_shard(1, files=make_shard(1, rows=9).files), "Shard 1 has 9 rows in its files"),
        (make_shard(1, rows=9), "Shard 2 has 10 rows in its files and begins at row 20; 10 rows from row 19 on"),
        (make_shard(2, rows=9), "The shards have 29 rows, and the plan 30"),
    ],
)
def test_a_manifest_has_every_row_once(wrong, message):
    shards = [make_shard(index) if index != wrong.index else wrong for index in range(3)]
    with pytest.raises(InvalidInputError, match=message):
        make_manifest(shards=shards)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=8), st.data())
def test_only_shards_that_cover_every_row_once_make_one(sizes, data):
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    shards = [make_shard(index, start, rows) for index, (start, rows) in enumerate(zip(starts, sizes, strict=True))]
    plan = make_plan(len(sizes), sum(sizes))
    assert make_manifest(plan, data.draw(st.permutations(shards))).shards == tuple(shards)
    chosen = data.draw(st.lists(st.sampled_from(shards), max_size=9))
    moved = data.draw(st.sampled_from([-1, 0, 1]))
    if sorted(shard.index for shard in chosen) != list(range(len(sizes))) or moved:
        if chosen and moved:
            chosen[0] = chosen[0].model_copy(update={"start": chosen[0].start + moved})
        with pytest.raises(InvalidInputError):
            make_manifest(plan, chosen)


def test_there_and_back(target):
    assert read_manifest(target) is None
    manifest = make_manifest(shards=[make_shard(index, metadata={"n": [1]}) for index in range(3)])
    write_manifest(target, manifest)
    assert read_manifest(target) == manifest
    write_manifest(target, make_manifest(charged=1))
    assert read_manifest(target).charged == 1
    assert names(target) == ["_manifest.json"]


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"{", RecordUnreadableError, "_manifest.json holds no JSON"),
        (b"[]", RecordUnreadableError, "holds no ScoringManifest"),
        (b'{"schema_version": 1}', RecordUnreadableError, "is no ScoringManifest: columns, finished_at"),
        (b'{"schema_version": 2}', RecordTooNewError, "upgrade tabpfn-providers"),
    ],
)
def test_a_damaged_manifest_is_not_an_unfinished_set(target, content, error, message):
    target.fs.makedirs(target.path, exist_ok=True)
    target.fs.pipe_file(f"{target.path}/_manifest.json", content)
    with pytest.raises(error, match=message):
        read_manifest(target)


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../a", "a/../../b", "a//b", "./a", "a\\b", "a/", "a\0b"])
def test_a_part_file_is_inside_the_destination(name):
    with pytest.raises(ValueError, match="inside the destination"):
        PartFile(name=name, rows=1, size_bytes=1, sha256="0" * 64)


def test_files_that_are_right(target):
    files = (write_part(target, "part-0.parquet"), write_part(target, "day=7/part-1.parquet", 20))
    assert verified(target, make_shard(0, rows=70, files=files)) is None


@pytest.mark.parametrize("piece", [64, 1000, 2**20])
def test_files_are_read_in_pieces(target, piece, monkeypatch):
    monkeypatch.setattr(_manifest, "_READ_BYTES", piece)
    file = write_part(target, "part-0.parquet")
    assert file.size_bytes > 1000
    assert verified(target, make_shard(0, rows=50, files=(file,))) is None
    wrong = file.model_copy(update={"rows": 49})
    found = verified(target, make_shard(0, rows=49, files=(wrong,)))
    assert found == "part-0.parquet has 50 rows instead of 49"


def test_files_that_are_wrong(target):
    good, file = write_part(target, "part-1.parquet"), write_part(target, "part-0.parquet")
    shard = make_shard(0, rows=100, files=(good, file))
    path = f"{target.path}/part-0.parquet"
    content = target.fs.cat_file(path)
    assert verified(target, shard) is None
    target.fs.pipe_file(path, content[:-1])
    assert verified(target, shard) == f"part-0.parquet has {len(content) - 1:,} bytes instead of {len(content):,}"
    for place in (5, len(content) // 2, len(content) - 20):
        flipped = bytearray(content)
        flipped[place] ^= 1
        target.fs.pipe_file(path, bytes(flipped))
        assert verified(target, shard) == "part-0.parquet has another content (SHA-256)"
    target.fs.rm_file(path)
    assert verified(target, shard) == "part-0.parquet is missing"
    assert verified(target, make_shard(0, rows=101, files=(good,))) == "shard 0 has not 101 rows in its files"


@pytest.mark.parametrize("content", [b"P", b"PAR1" + b"x" * 30 + b"PAR1", b"\x05\0\0\0PAR1", b"no Parquet at all"])
def test_what_is_no_parquet_is_wrong_whatever_its_hash(target, content):
    target.fs.makedirs(target.path, exist_ok=True)
    target.fs.pipe_file(f"{target.path}/part-0.parquet", content)
    file = PartFile(name="part-0.parquet", rows=10, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    assert verified(target, make_shard(0, files=(file,))) == "part-0.parquet has -1 rows instead of 10"


@pytest.mark.parametrize(
    ("raised", "error"), [(PermissionError("CANARY"), DestinationError), (TimeoutError("CANARY"), StorageError)]
)
def test_a_file_that_may_not_be_read_is_not_missing(tmp_path, monkeypatch, raised, error):
    target = folder(tmp_path, None)
    file = write_part(target, "part-0.parquet")

    def refuse(*args, **kwargs):
        raise raised

    monkeypatch.setattr(type(target.fs), "info", refuse)
    with pytest.raises(error) as caught:
        verified(target, make_shard(0, rows=50, files=(file,)))
    assert "CANARY" not in str(caught.value)


def part(plan, index=0, digits="0" * 12):
    return f"part-{plan[:8]}-{index:05d}-{digits}.parquet"


def touch(target, *paths):
    for path in paths:
        target.fs.makedirs(target.fs._parent(f"{target.path}/{path}"), exist_ok=True)
        target.fs.pipe_file(f"{target.path}/{path}", b"x")


def named_manifest():
    """A manifest that names two files, one of them in a partition."""
    files = [
        PartFile(name=name, rows=10, size_bytes=1, sha256="0" * 64) for name in (part(PLAN), f"day=7/{part(PLAN, 1)}")
    ]
    shards = [make_shard(index, files=(file,)) for index, file in enumerate(files)]
    return make_manifest(make_plan(2, 20), shards)


def test_tidying_removes_what_is_superfluous_and_nothing_else(target):
    temporary = f"{part(PLAN, 1)}.{'0' * 32}.tmp"
    kept = [
        "_claims/_destination/00000001.json",
        f"_claims/{PLAN}/00000/00000001.json",
        "_claims/notes/a.json",
        "_lineage.json",
        "_manifest.json",
        "day=7/notes.parquet",
        f"day=7/{part(PLAN, 1)}",
        "part-0.parquet",
        "part-00000-6c3f7a7e-c000.snappy.parquet",
        part(PLAN),
        f"private/{part(OTHER)}",
        f"x{part(OTHER)}",
        f"{part(OTHER)}.bak",
    ]
    superfluous = [
        f"_claims/{OTHER}/00000/00000001.json",
        f"_claims/{OTHER}/_resends/00000001.json",
        part(OTHER),
        part(PLAN, 0, "1" * 12),
        f"day=7/{part(OTHER)}",
        f"day=7/hour=1/{part(OTHER, 123456)}",
        temporary,
        f"{part(OTHER)}.{'0' * 32}.tmp",
    ]
    touch(target, *kept, *superfluous, "day=8.parquet")
    manifest = named_manifest()
    tidy(target, manifest)
    assert names(target) == sorted([*kept, "day=8.parquet"])
    tidy(target, manifest)
    assert names(target) == sorted([*kept, "day=8.parquet"])


def test_nothing_is_removed_while_another_plan_is_at_work(target, caplog):
    other = Ledger(target, OTHER, "other")
    other.enter()
    touch(target, part(OTHER), part(PLAN))
    before = names(target)
    with caplog.at_level(logging.WARNING, "tabpfn_operators"):
        tidy(target, named_manifest())
    assert names(target) == before
    assert "another scoring is at work there" in caplog.text
    tidy(target, named_manifest(), clock=lambda: time.time() + 1000)
    assert names(target) == ["_claims/_destination/00000001.json", part(PLAN)]
    other.leave()


def test_what_another_worker_of_the_plan_is_writing_stays(target):
    mine, second = Ledger(target, PLAN, "mine"), Ledger(target, PLAN, "second")
    mine.enter()
    second.enter()
    temporary = f"{part(PLAN, 1)}.{'0' * 32}.tmp"
    touch(target, temporary, part(PLAN), part(OTHER))
    tidy(target, named_manifest())
    assert temporary in names(target)
    assert part(OTHER) not in names(target)
    second.leave()
    tidy(target, named_manifest())
    assert temporary not in names(target)
    mine.leave()


def test_a_failure_to_tidy_is_logged_without_secrets(tmp_path, monkeypatch, caplog):
    target = folder(tmp_path, None)
    touch(target, part(OTHER), part(PLAN), f"_claims/{OTHER}/00000/00000001.json")

    def refuse(*args, **kwargs):
        raise PermissionError("CANARY")

    monkeypatch.setattr(type(target.fs), "rm_file", refuse)
    with caplog.at_level(logging.WARNING, "tabpfn_operators"):
        tidy(target, named_manifest())
    assert "could not be removed (PermissionError)" in caplog.text
    assert "CANARY" not in caplog.text
    assert len(names(target)) == 3


def test_what_is_there_and_what_the_ledger_says_become_the_manifest(target):
    """The whole way: take, send, write, finish, verify, close, tidy, leave."""
    ledger = Ledger(target, PLAN, "first")
    ledger.enter()
    done = []
    for index in range(3):
        shard = Shard(index, index * 10, 10)
        assert ledger.take(shard)
        assert ledger.send(shard)
        if index == 1:
            ledger.doubt(shard)
            assert ledger.count_resend(shard, 1)
            assert ledger.take(shard, resend=True)
            assert ledger.send(shard)
        file = write_part(target, part(PLAN, index), 10)
        done.append(ledger.finish(shard, make_shard(index, files=(file,), estimated_cost=5)))
    assert [verified(target, shard) for shard in done] == [None] * 3
    write_manifest(target, make_manifest(shards=done))
    touch(target, part(OTHER))
    tidy(target, read_manifest(target))
    ledger.leave()
    manifest = read_manifest(target)
    assert isinstance(manifest, ScoringManifest)
    assert manifest.resends == (Resend(shard=1, estimated_cost=5),)
    assert [look.entry.scored for look in ledger.survey([Shard(n, n * 10, 10) for n in range(3)])] == list(
        manifest.shards
    )
    assert [name for name in names(target) if not name.startswith("_")] == [part(PLAN, n) for n in range(3)]
