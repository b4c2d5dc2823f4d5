"""The rows of shards, cut out of their source: as bytes, or as local copies that go with their shard."""

import json
import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tabpfn_assets import FitParameters
from tabpfn_operators import Client
from tabpfn_operators._run import run
from tabpfn_operators.errors import InvalidInputError, SourceChangedError
from tabpfn_operators.plan import fingerprint_of
from tabpfn_operators.reading import Reading, is_spliceable
from tabpfn_operators.scoring import _segment as segments
from tabpfn_operators.scoring._cutter import Cutter
from tabpfn_operators.scoring._plan import cut
from tabpfn_operators.scoring._rows import count_rows, group_rows
from tabpfn_operators.upload import upload_test_set

MIB = 2**20
BOUND = 210 * MIB  # measured: 168 MiB long, 130 wide, of which 48 are the row group that is written
FEATURES = ("x", "kind")
KEEP = ("n", "x", "list")


def numbered(start, rows):
    numbers = range(start, start + rows)
    return pa.table(
        {
            "n": pa.array(numbers, pa.int64()),
            "kind": pa.array([None if n % 7 == 0 else f"k{n % 3}" for n in numbers], pa.string()),
            "list": pa.array([[n, n] for n in numbers], pa.list_(pa.int64())),
            "x": pa.array([n / 3 for n in numbers], pa.float64()),
        }
    )


def write_parts(folder, layout):
    """Write part files of the row groups in `layout`, and return their rows."""
    folder.mkdir(parents=True)
    tables = [numbered(0, 0)]
    for number, groups in enumerate(layout):
        with pq.ParquetWriter(folder / f"part-{number:03d}.parquet", tables[0].schema) as writer:
            for rows in groups:
                tables.append(numbered(sum(map(len, tables)), rows))
                writer.write_table(tables[-1], row_group_size=max(rows, 1))
    return pa.concat_tables(tables)


def planned(source, most):
    return cut(group_rows(source), source.rows, most)


def sent(rows):
    """Read what an upload of a shard would send."""
    table = rows.reading.open()
    assert is_spliceable(table)
    assert table.rows == rows.rows
    assert rows.reading.open() is table
    virtual = table.virtual(FEATURES)
    assert virtual.num_rows == rows.rows
    return pq.read_table(pa.BufferReader(b"".join(virtual.chunks(1 << 20))))


def kept(rows, schema):
    return pa.Table.from_batches(rows.kept(), schema)


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """Let temporary files go where the test sees them."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture
def passes(monkeypatch):
    """Note the rows of each pass over a source."""
    rows_of = segments.rows_of
    noted = []

    def watched(table, start, stop, columns):
        noted.append((start, stop))
        return rows_of(table, start, stop, columns)

    monkeypatch.setattr(segments, "rows_of", watched)
    return noted


def files_in(folder):
    return sorted(path.name for path in folder.rglob("*.*"))


LAYOUTS = st.lists(st.lists(st.integers(0, 12), max_size=4), min_size=1, max_size=4).filter(
    lambda layout: any(map(sum, layout))
)


@settings(deadline=None, max_examples=40)
@given(
    layout=LAYOUTS,
    most=st.integers(1, 15),
    rng=st.randoms(use_true_random=False),
    whole=st.booleans(),
    aligned=st.booleans(),
)
def test_the_shards_of_any_layout_join_to_the_source(tmp_path_factory, layout, most, rng, whole, aligned):
    folder = tmp_path_factory.mktemp("cutter")
    table = write_parts(folder / "table", layout)
    for reading in (
        Reading(str(folder / "table")),
        Reading(str(folder / "table"), recompress="snappy"),
        Reading(table),
    ):
        source = reading.open()
        shards = planned(source, most) if aligned else cut(None, source.rows, most)
        wanted = list(shards) if whole else rng.sample(shards, rng.randint(1, len(shards)))
        opened = rng.sample(wanted, len(wanted))
        with Cutter(source, shards, wanted=[s.index for s in wanted], features=FEATURES, keep=KEEP) as cutter:
            for shard in opened:
                expected = table.slice(shard.start, shard.rows)
                with cutter.open(shard) as rows:
                    assert sent(rows).equals(expected.select(FEATURES))
                    schema = expected.select(KEEP).schema
                    assert kept(rows, schema).equals(kept(rows, schema))
                    assert kept(rows, schema).equals(expected.select(KEEP))


def test_whole_row_groups_are_moved_and_nothing_is_written(tmp_path, scratch):
    table = write_parts(tmp_path / "table", [[10, 10], [10, 10, 5]])
    source = Reading(str(tmp_path / "table")).open()
    shards = planned(source, 20)
    assert [shard.rows for shard in shards] == [20, 20, 5]
    with Cutter(source, shards, wanted=range(3), features=FEATURES, keep=KEEP) as cutter:
        for shard, file in zip(shards, ("part-000", "part-001", "part-001"), strict=True):
            with cutter.open(shard) as rows:
                found = rows.reading.open()
                assert [stored.path for stored in found.objects] == [str(tmp_path / "table" / f"{file}.parquet")]
                assert found.names == tuple(table.column_names)
                assert sent(rows).equals(table.select(FEATURES).slice(shard.start, shard.rows))
                assert kept(rows, table.select(KEEP).schema).num_rows == shard.rows
                assert files_in(scratch) == []


def test_a_large_row_group_is_read_once_for_the_shards_that_want_it(tmp_path, scratch, passes):
    table = write_parts(tmp_path / "table", [[5], [40], [5]])
    source = Reading(str(tmp_path / "table")).open()
    shards = planned(source, 10)
    with Cutter(source, shards, wanted=[0, 2, 3, 5], features=FEATURES, keep=KEEP) as cutter:
        first = cutter.open(shards[2])
        assert files_in(scratch / os.listdir(scratch)[0]) == [
            "00002.arrows",
            "00002.parquet",
            "00003.arrows",
            "00003.parquet",
        ]
        # Another file of the source is of no matter to these rows, and none is after they were copied.
        (tmp_path / "table" / "part-000.parquet").unlink()
        os.utime(tmp_path / "table" / "part-001.parquet", (1, 1))
        found = first.reading.open()
        assert [stored.path for stored in found.objects] == [str(tmp_path / "table" / "part-001.parquet")]
        assert found.url == str(tmp_path / "table" / "part-001.parquet")
        found.check_unchanged()
        second = cutter.open(shards[3])
        assert passes == [(15, 35)]
        assert fingerprint_of(found, FEATURES, None) != fingerprint_of(second.reading.open(), FEATURES, None)
        first.close()
        first.close()
        assert files_in(scratch / os.listdir(scratch)[0]) == ["00003.arrows", "00003.parquet"]
        assert kept(second, table.select(KEEP).schema).equals(table.select(KEEP).slice(25, 10))
        second.close()
        assert os.listdir(scratch) == []


def test_a_source_that_is_not_spliced_is_read_no_further_than_the_last_row_wanted(tmp_path, scratch):
    source = Reading(numbered(0, 100)).open()
    read = []

    class Watched:
        def __getattr__(self, name):
            return getattr(source, name)

        def batches(self, columns):
            for batch in source.batches(columns):
                for start in range(0, batch.num_rows, 10):
                    read.append(start)
                    yield batch.slice(start, 10)

    shards = cut(None, 100, 15)
    with Cutter(Watched(), shards, wanted=[1, 3], features=FEATURES, keep=()) as cutter:
        assert not hasattr(Watched(), "virtual")
        with cutter.open(shards[3]) as rows:
            assert sent(rows).num_rows == 15
            assert list(rows.kept()) == []
            assert read == [0, 10, 20, 30, 40, 50]
            assert files_in(scratch / os.listdir(scratch)[0]) == ["00001.parquet", "00003.parquet"]
        with cutter.open(shards[1]):
            assert len(read) == 6
        # One that nobody had named, and one that was closed: a pass of their own.
        with cutter.open(shards[0]) as rows, cutter.open(shards[1]) as again, cutter.open(shards[1]) as twice:
            assert sent(rows).num_rows == sent(again).num_rows == 15
            again.close()
            assert sent(twice).num_rows == 15
    assert os.listdir(scratch) == []


def test_types_that_parquet_changes_come_out_as_they_went_in(scratch):
    table = pa.table(
        {
            "few": pa.array(["a", "b", None] * 4).dictionary_encode().cast(pa.dictionary(pa.int8(), pa.string())),
            "view": pa.array([f"t{i}" for i in range(12)], pa.string_view()),
            "seconds": pa.array(range(12), pa.timestamp("s")),
        }
    )
    source = Reading(table).open()
    shards = cut(None, 12, 5)
    with Cutter(source, shards, wanted=range(3), features=("seconds", "few"), keep=table.column_names) as cutter:
        parts = []
        for shard in shards:
            with cutter.open(shard) as rows:
                parts += rows.kept()
                assert rows.reading.open().schema == pa.schema([table.schema.field(n) for n in ("seconds", "few")])
    assert pa.Table.from_batches(parts).equals(table)


def test_a_source_that_is_not_on_this_machine(tmp_path, scratch):
    table = write_parts(tmp_path / "table", [[8, 8], [20]])
    remote = fsspec.filesystem("memory")
    for path in sorted((tmp_path / "table").iterdir()):
        remote.pipe_file(f"/scoring-cutter/{path.name}", path.read_bytes())
    source = Reading("memory://scoring-cutter").open()
    shards = planned(source, 16)
    with Cutter(source, shards, wanted=range(3), features=FEATURES, keep=KEEP) as cutter:
        for shard in shards:
            with cutter.open(shard) as rows:
                assert sent(rows).equals(table.select(FEATURES).slice(shard.start, shard.rows))
                expected = table.select(KEEP).slice(shard.start, shard.rows)
                assert kept(rows, expected.schema).equals(expected)
    remote.rm("/scoring-cutter", recursive=True)


@pytest.mark.parametrize("layout", [[[40]], [[7] * 6]])
def test_threads_share_one_pass(tmp_path, scratch, passes, layout):
    table = write_parts(tmp_path / "table", layout)
    source = Reading(str(tmp_path / "table"), recompress="zstd" if len(layout[0]) > 1 else None).open()
    shards = planned(source, 6)
    failures = []
    with Cutter(source, shards, wanted=range(len(shards)), features=FEATURES, keep=KEEP) as cutter:

        def work(shard):
            try:
                with cutter.open(shard) as rows:
                    assert sent(rows).equals(table.select(FEATURES).slice(shard.start, shard.rows))
                    assert kept(rows, table.select(KEEP).schema).equals(
                        table.select(KEEP).slice(shard.start, shard.rows)
                    )
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(shard,)) for shard in shards]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert failures == []
    assert len(passes) == 1
    assert os.listdir(scratch) == []


@pytest.mark.parametrize("moved", [True, False])
def test_a_source_that_changes_is_found_out(tmp_path, scratch, moved):
    write_parts(tmp_path / "table", [[20]])
    source = Reading(str(tmp_path / "table")).open()
    shards = planned(source, 20 if moved else 6)
    os.utime(tmp_path / "table" / "part-000.parquet", (1, 1))
    with Cutter(source, shards, wanted=[0, 1], features=FEATURES, keep=KEEP) as cutter:
        if moved:
            with cutter.open(shards[0]) as rows:
                with pytest.raises(SourceChangedError):
                    rows.reading.open().check_unchanged()
                with pytest.raises(SourceChangedError):
                    list(rows.kept())
        else:
            for _ in range(2):
                with pytest.raises(SourceChangedError):
                    cutter.open(shards[0])
                assert os.listdir(scratch) == []


def test_a_source_that_has_become_shorter(scratch):
    shards = cut(None, 30, 10)
    source = Reading(numbered(0, 25)).open()
    with Cutter(source, shards, wanted=range(3), features=FEATURES, keep=KEEP) as cutter:
        with pytest.raises(SourceChangedError, match="Table has fewer rows than when it was planned; plan again"):
            cutter.open(shards[0])
        assert os.listdir(scratch) == []


class Slow:
    """A source whose batches come when the test says so."""

    def __init__(self, rows, failure=None):
        self.table = Reading(numbered(0, rows)).open()
        self.go = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)
        self.passes = 0
        self.failure = failure

    def __getattr__(self, name):
        if name == "virtual":
            raise AttributeError(name)
        return getattr(self.table, name)

    def batches(self, columns):
        self.passes += 1
        for batch in self.table.batches(columns):
            for start in range(0, batch.num_rows, 10):
                self.begun.release()
                assert self.go.acquire(timeout=60)
                if self.failure is not None and start:
                    raise self.failure
                yield batch.slice(start, 10)


def in_thread(call):
    """Call in a thread; returns the thread, and where its result or error will be."""
    outcome = []

    def run():
        try:
            outcome.append(call())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def test_one_failure_is_everyone_s_who_waited_and_the_next_may_try_again(scratch):
    source = Slow(30, InvalidInputError("the third page is damaged"))
    shards = cut(None, 30, 10)
    with Cutter(source, shards, wanted=range(3), features=FEATURES, keep=KEEP) as cutter:
        runner, raised = in_thread(lambda: cutter.open(shards[0]))
        assert source.begun.acquire(timeout=60)
        waiting = cutter.steps(shards[1])
        assert next(waiting) == 0  # it gives control back while it waits
        others = [in_thread(lambda shard=shard: cutter.open(shard)) for shard in shards[1:]]
        source.go.release(2)
        runner.join(60)
        with pytest.raises(InvalidInputError, match="damaged"):
            list(waiting)
        # The other two may have come too late to have waited: then they failed in a pass of their own.
        source.go.release(20)
        for thread, outcome in others:
            thread.join(60)
            assert str(outcome[0]) == "the third page is damaged"
        assert str(raised[0]) == "the third page is damaged"
        assert os.listdir(scratch) == []
        source.failure = None
        with cutter.open(shards[1]) as rows:
            assert sent(rows).num_rows == 10


def test_who_waits_takes_over_what_another_gave_up(scratch):
    source = Slow(30)
    shards = cut(None, 30, 10)
    with Cutter(source, shards, wanted=range(3), features=FEATURES, keep=KEEP) as cutter:
        source.go.release()
        steps = cutter.steps(shards[0])
        assert next(steps) == 10
        thread, outcome = in_thread(lambda: cutter.open(shards[1]))
        waiting = cutter.steps(shards[2])
        assert next(waiting) == 10
        steps.close()
        source.go.release(3)
        thread.join(60)
        with outcome[0] as rows:
            assert sent(rows).num_rows == 10
        assert list(waiting) == []
        assert source.passes == 2
    assert os.listdir(scratch) == []


def test_closing_stops_a_pass_and_removes_everything(scratch):
    source = Slow(30)
    shards = cut(None, 30, 10)
    cutter = Cutter(source, shards, wanted=range(3), features=FEATURES, keep=KEEP)
    thread, outcome = in_thread(lambda: cutter.open(shards[0]))
    assert source.begun.acquire(timeout=60)
    cutter.close()
    source.go.release(3)
    thread.join(60)
    assert "their cutter is closed" in str(outcome[0])
    assert os.listdir(scratch) == []
    with pytest.raises(RuntimeError, match="their cutter is closed"):
        cutter.open(shards[0])
    cutter.close()


def test_closing_removes_what_was_copied_and_never_opened(tmp_path, scratch):
    write_parts(tmp_path / "table", [[30]])
    source = Reading(str(tmp_path / "table")).open()
    shards = planned(source, 10)
    with Cutter(source, shards, wanted=range(3), features=FEATURES, keep=KEEP) as cutter:
        cutter.open(shards[0]).close()
        assert len(os.listdir(scratch)) == 1
    assert os.listdir(scratch) == []


def test_a_shard_that_another_did_is_not_copied_and_not_kept(tmp_path, scratch):
    write_parts(tmp_path / "table", [[40], [10]])
    source = Reading(str(tmp_path / "table")).open()
    shards = planned(source, 10)
    with Cutter(source, shards, wanted=range(5), features=FEATURES, keep=()) as cutter:
        cutter.discard(shards[0])
        cutter.discard(shards[4])
        with cutter.open(shards[1]) as rows:
            (folder,) = scratch.iterdir()
            assert files_in(folder) == ["00001.parquet", "00002.parquet", "00003.parquet"]
            cutter.discard(shards[1])
            cutter.discard(shards[2])
            assert files_in(folder) == ["00001.parquet", "00003.parquet"]
            assert sent(rows).num_rows == 10
        cutter.discard(shards[3])
        assert os.listdir(scratch) == []


def test_columns_that_are_not_there_are_all_named():
    table = pa.table([[1, 2], [3, 4], [5, 6]], names=["a", "twice", "twice"])
    source = Reading(table).open()
    with pytest.raises(InvalidInputError) as raised:
        Cutter(source, cut(None, 2, 1), wanted=[0], features=["a", "b"], keep=["twice"])
    assert raised.value.problems == (
        "column 'b' is not there; check the name",
        "column 'twice' is there more than once; rename one",
    )


def test_a_disk_without_room_is_told_before_it_is_filled(tmp_path, scratch, monkeypatch):
    write_parts(tmp_path / "table", [[30], [5]])
    source = Reading(str(tmp_path / "table")).open()
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(total=10, used=10, free=10))
    shards = planned(source, 10)
    with Cutter(source, shards, wanted=range(4), features=FEATURES, keep=()) as cutter:
        with pytest.raises(InvalidInputError, match="temporary folder has 10 free; set TMPDIR to a larger disk"):
            cutter.open(shards[0])
        cutter.open(shards[3]).close()  # moved: it takes no room
    assert os.listdir(scratch) == []


def test_a_disk_that_fills_up_on_the_way(tmp_path, scratch, monkeypatch):
    write_parts(tmp_path / "table", [[30]])
    source = Reading(str(tmp_path / "table")).open()

    def full(self, batch):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(segments._Files, "write", full)
    shards = planned(source, 10)
    with (
        Cutter(source, shards, wanted=range(3), features=FEATURES, keep=()) as cutter,
        pytest.raises(InvalidInputError, match=r"takes no more .*set TMPDIR to a larger disk"),
    ):
        cutter.open(shards[0])
    assert os.listdir(scratch) == []


def test_two_large_row_groups_are_not_copied_at_the_same_time(tmp_path, scratch, passes):
    table = write_parts(tmp_path / "table", [[20], [20]])
    source = Reading(str(tmp_path / "table")).open()
    shards = planned(source, 10)
    with Cutter(source, shards, wanted=range(4), features=FEATURES, keep=KEEP) as cutter:
        first, second = cutter.steps(shards[0]), cutter.steps(shards[2])
        assert next(first) == 10
        assert next(second) == 0
        assert next(second) == 0
        assert passes == [(0, 20)]
        assert list(first) == [20]
        assert list(second) == [10, 20]
        assert passes == [(0, 20), (20, 40)]
        for shard in shards:
            with cutter.open(shard) as rows:
                assert sent(rows).equals(table.select(FEATURES).slice(shard.start, shard.rows))
    assert len(passes) == 2
    assert os.listdir(scratch) == []


@pytest.mark.parametrize("kind", ["part files", "decoded", "table"])
def test_an_upload_takes_the_rows_of_a_shard(emulator, bearer, uploaded, tmp_path, scratch, kind):
    table = write_parts(tmp_path / "table", [[8, 8], [20]])
    train = table.select(FEATURES).append_column("y", pa.array([n % 2 for n in range(36)]))
    reading = {
        "part files": Reading(str(tmp_path / "table")),
        "decoded": Reading(str(tmp_path / "table"), filters=[["n", ">=", 0]]),
        "table": Reading(table),
    }[kind]
    source = reading.open()
    shards = cut(group_rows(source), count_rows(source), 16)
    assert len(shards) == 3
    with (
        Client(bearer, base_url=emulator) as client,
        Cutter(source, shards, wanted=range(3), features=("kind", "x"), keep=("n",)) as cutter,
    ):
        parameters = FitParameters(task="classification")
        model = client.fit(train, "y", parameters=parameters, features=["kind", "x"], streamed=True)
        for shard in shards:
            with cutter.open(shard) as rows:
                flow = upload_test_set(
                    client._session,
                    model,
                    rows.reading,
                    output_type="probas",
                    force_reupload=False,
                    checksum=None,
                    progress=lambda progress: None,
                )
                test_set = run(flow)
            assert test_set.rows == shard.rows
            expected = table.select(["kind", "x"]).slice(shard.start, shard.rows)
            assert uploaded(test_set.test_set_upload_id, "x_test").equals(expected)
            files = {"part files": 1, "decoded": 2, "table": 0}[kind]
            assert len(test_set.source.uris) == files
            assert not any(str(scratch) in uri for uri in test_set.source.uris)
    assert os.listdir(scratch) == []


PASS = """
import json, sys
import google_crc32c, pyarrow.compute, pyarrow.parquet
from tabpfn_operators.reading import Reading
from tabpfn_operators.scoring._cutter import Cutter
from tabpfn_operators.scoring._plan import cut
from tabpfn_operators.scoring._rows import group_rows

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))

source = Reading(sys.argv[1]).open()
features = [name for name in source.names if name != "id"]
shards = cut(group_rows(source), source.rows, source.rows // 4)
before = peak()
rows = 0
with Cutter(source, shards, wanted=range(len(shards)), features=features, keep=["id"]) as cutter:
    for shard in shards:
        with cutter.open(shard) as opened:
            table = opened.reading.open()
            size = sum(len(chunk) for chunk in table.virtual(features).chunks(1 << 20))
            rows += sum(batch.num_rows for batch in opened.kept())
print(json.dumps({"rows": rows, "shards": len(shards), "grown": peak() - before}))
"""


@pytest.mark.parametrize(("columns", "rows"), [(10, 4_000_000), (600, 60_000)])
def test_a_pass_over_one_huge_row_group_stays_within_the_bound(tmp_path, columns, rows):
    random = np.random.default_rng(11)
    noise = [pa.array(random.random(rows)) for _ in range(4)]
    table = pa.table({"id": pa.array(range(rows))} | {f"x{i}": noise[i % 4] for i in range(columns)})
    pq.write_table(table, tmp_path / "large.parquet", row_group_size=rows)
    decoded = table.nbytes
    del table, noise
    done = subprocess.run(
        [sys.executable, "-c", PASS, str(tmp_path / "large.parquet")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert decoded > 1.25 * BOUND
    assert (found["rows"], found["shards"]) == (rows, 4)
    assert found["grown"] < BOUND, f"{found['grown'] / MIB:.0f} MiB of {decoded / MIB:.0f}"
