"""Virtual files over real ones: their bytes, their errors, and that nothing stays open."""

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import fsspec
import numpy as np
import pytest
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from tabpfn_operators.errors import InvalidInputError, SourceChangedError, StorageError
from tabpfn_operators.splice import _ranges, _virtual
from tabpfn_operators.splice._ranges import Segments
from tabpfn_operators.splice._virtual import VirtualParquet
from tabpfn_operators.storage import StoredObject, look_up

SOURCES = [np.random.default_rng(seed).bytes(5000) for seed in (1, 2, 3)]
TAIL = b"the new footer" + (14).to_bytes(4, "little") + b"PAR1"
PIECES = [(0, 40, 700), (0, 800, 1200), (2, 0, 5000), (1, 4000, 1000), (0, 10, 30), (1, 0, 0), (1, 100, 2500)]
WHOLE = b"PAR1" + b"".join(SOURCES[s][at : at + n] for s, at, n in PIECES) + TAIL


class SlowStore(MemoryFileSystem):
    """A store whose answers wait for `go`, and which counts those it is giving."""

    protocol = "slowstore"
    store = {}
    pseudo_dirs = [""]
    go = threading.Event()
    asked = []

    def cat_file(self, path, start=None, end=None, **kwargs):
        type(self).asked.append((start, end))
        assert self.go.wait(60)
        return super().cat_file(path, start, end, **kwargs)


class AsyncStore(AsyncFileSystem):
    """A store on fsspec's event loop, which gives a number of answers and then no more."""

    protocol = "asyncstore"
    store = {}
    answers = float("inf")
    asked = []
    ended = []

    async def _info(self, path, **kwargs):
        if path not in self.store:
            raise FileNotFoundError(path)
        return {"name": path, "size": len(self.store[path]), "type": "file", "etag": str(hash(self.store[path]))}

    async def _cat_file(self, path, start=None, end=None, **kwargs):
        self.asked.append((start, end))
        try:
            await asyncio.sleep(0 if len(self.asked) <= self.answers else 60)
            return self.store[path][start:end]
        finally:
            self.ended.append((start, end))

    async def _pipe_file(self, path, value, **kwargs):
        self.store[path] = value


@pytest.fixture
def stores():
    """The two stores, fresh, known to fsspec."""
    for kind in (SlowStore, AsyncStore):
        fsspec.register_implementation(kind.protocol, kind, clobber=True)
        kind.store.clear()
        kind.asked = []
        kind.clear_instance_cache()
    SlowStore.go.set()
    AsyncStore.answers, AsyncStore.ended = float("inf"), []


@pytest.fixture(params=["local", "memory", "asyncstore"])
def place(request, tmp_path, stores):
    """URL of an empty place."""
    if request.param != "memory":
        yield str(tmp_path) if request.param == "local" else f"asyncstore://{tmp_path.name}"
        return
    memory = fsspec.filesystem("memory")
    yield f"memory://{tmp_path.name}"
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


def put(url, content):
    fs, path = fsspec.url_to_fs(url)
    fs.pipe_file(path, content)


def virtual(place, *, sources=SOURCES, pieces=PIECES, tail=TAIL):
    for index, content in enumerate(sources):
        put(f"{place}/{index}", content)
    return over([look_up(f"{place}/{index}", None) for index in range(len(sources))], pieces, tail)


def over(stored, pieces, tail=TAIL):
    numbers, offsets, lengths = (np.array(column, np.int64) for column in zip(*pieces, strict=True))
    segments = Segments(lengths, offsets, numbers.astype(np.int32))
    return VirtualParquet(sources=stored, segments=segments, tail=tail, schema=None, num_rows=1)


@pytest.fixture
def small_blocks(monkeypatch):
    """Requests of at most 500 bytes, so that a small file takes many."""
    monkeypatch.setattr(_virtual, "into_blocks", lambda pieces: _ranges.into_blocks(pieces, gap=100, size=500))


def reading_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("tabpfn-read")]


def open_files():
    return {
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{fd}")
    }


def test_every_range_is_the_slice_of_the_whole(place, small_blocks):
    file = virtual(place)
    assert file.size == len(WHOLE)
    assert file.read(0, file.size + 1) == WHOLE

    @given(offset=st.integers(0, len(WHOLE) + 10), length=st.integers(0, len(WHOLE)))
    def check(offset, length):
        assert file.read(offset, length) == WHOLE[offset : offset + length]

    check()


def test_chunks_are_full_but_the_last_and_can_be_had_again(place, small_blocks):
    file = virtual(place)

    @given(
        chunk_size=st.integers(1, 3000),
        start=st.integers(0, len(WHOLE) + 10),
        stop=st.none() | st.integers(0, len(WHOLE) + 10),
    )
    def check(chunk_size, start, stop):
        part = WHOLE[start:stop]
        expected = [part[at : at + chunk_size] for at in range(0, len(part), chunk_size)]
        for _ in range(2):
            chunks = list(file.chunks(chunk_size, start, stop))
            assert chunks == expected
            assert all(type(chunk) is bytes for chunk in chunks)

    check()


@pytest.mark.parametrize(
    "read",
    [
        lambda file: file.read(-1, 4),
        lambda file: file.read(0, -4),
        lambda file: file.chunks(0),
        lambda file: file.chunks(10, -1),
        lambda file: file.chunks(10, 0, -1),
    ],
)
def test_a_range_that_is_none(tmp_path, read):
    file = virtual(str(tmp_path))
    with pytest.raises(ValueError, match=r"-1|-4|of 0 bytes"):
        read(file)


def test_parts_are_read_from_several_threads_at_once(place, small_blocks):
    file = virtual(place)
    bounds = list(range(0, file.size, 777))
    with ThreadPoolExecutor(4) as threads:
        parts = list(threads.map(lambda start: b"".join(file.chunks(64, start, start + 777)), bounds))
    assert b"".join(parts) == WHOLE
    assert reading_threads() == []


def test_a_file_without_row_groups_is_its_literal_bytes(place):
    put(f"{place}/0", b"unused")
    empty = np.array([], np.int64)
    file = VirtualParquet(
        sources=(look_up(f"{place}/0", None),),
        segments=Segments(empty, empty, empty.astype(np.int32)),
        tail=TAIL,
        schema=None,
        num_rows=0,
    )
    assert file.read(0, 99) == b"PAR1" + TAIL


def test_closing_early_leaves_no_file_and_no_thread(place, small_blocks):
    file = virtual(place)
    chunks = file.chunks(100)
    assert next(chunks) == WHOLE[:100]
    assert (f"{place}/0" in open_files()) == place.startswith("/")
    assert bool(reading_threads()) == place.startswith("memory")
    chunks.close()
    assert f"{place}/0" not in open_files()
    assert reading_threads() == []


def test_no_more_is_asked_for_than_is_used_soon(stores, small_blocks):
    file = virtual("slowstore://place")
    chunks = file.chunks(100)
    for _ in range(3):
        next(chunks)
    got = 300
    SlowStore.asked.sort()
    assert len(SlowStore.asked) <= got // 500 + 1 + _virtual.BLOCKS_AHEAD
    chunks.close()
    asked = len(SlowStore.asked)
    assert asked < len(WHOLE) / 500
    assert list(file.chunks(len(WHOLE))) == [WHOLE]


def test_closing_waits_for_the_request_under_way_and_starts_no_other(stores, small_blocks):
    file = virtual("slowstore://place")
    chunks = file.chunks(4)
    assert next(chunks) == b"PAR1"
    list(zip(range(10), chunks, strict=False))  # the first block is here, others are asked for
    SlowStore.go.clear()
    threading.Timer(0.2, SlowStore.go.set).start()
    chunks.close()
    assert reading_threads() == []
    asked = list(SlowStore.asked)
    assert SlowStore.go.wait(60)
    assert SlowStore.asked == asked


def test_closing_calls_off_requests_on_the_loop(stores, small_blocks):
    file = virtual("asyncstore://place")
    loop = fsspec.filesystem("asyncstore").loop
    AsyncStore.answers = 1
    chunks = file.chunks(500)
    assert next(chunks) == WHOLE[:500]
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(60)
    assert len(AsyncStore.asked) == 1 + _virtual.BLOCKS_AHEAD
    assert len(AsyncStore.ended) == 1
    chunks.close()
    for _ in range(100):
        if len(AsyncStore.ended) == len(AsyncStore.asked):
            break
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0.05), loop).result(60)
    assert sorted(AsyncStore.ended) == sorted(AsyncStore.asked)


def test_a_store_that_never_answers(stores, monkeypatch):
    monkeypatch.setattr(_virtual, "READ_SECONDS", 0.05)
    for place in ("asyncstore://place", "slowstore://place"):
        file = virtual(place)
        AsyncStore.answers = 0
        SlowStore.go.clear()
        with pytest.raises(StorageError, match="no answer within") as caught:
            file.read(0, 100)
        assert not caught.value.terminal
        SlowStore.go.set()


def test_a_source_that_was_written_to(place):
    file = virtual(place)
    file.check_unchanged()
    put(f"{place}/1", b"other")
    with pytest.raises(SourceChangedError, match="1 changed while it was read"):
        file.check_unchanged()
    with pytest.raises(SourceChangedError, match="1 changed while it was read"):
        list(file.chunks(1 << 20))
    assert b"".join(file.chunks(100, 0, 1000)) == WHOLE[:1000]  # of another source


def test_a_source_that_is_gone(place, monkeypatch):
    file = virtual(place)
    stored = file.sources[2]
    if place.startswith("async"):
        AsyncStore.store.pop(stored.path)
    else:
        stored.fs.rm_file(stored.path)
    with pytest.raises(InvalidInputError, match="2 does not exist"):
        list(file.chunks(1 << 20))


def test_a_source_that_is_shorter_than_its_size_says(place):
    put(f"{place}/0", b"12345")
    found = look_up(f"{place}/0", None)
    lying = StoredObject(found.fs, found.path, found.url, 500, found.identity)
    with pytest.raises(SourceChangedError, match="0 is shorter than it was"):
        over([lying], [(0, 0, 500)]).read(0, 504)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(16, "SECRET busy"), StorageError),
        (TimeoutError("SECRET"), StorageError),
        (RuntimeError("SECRET"), StorageError),
        (PermissionError("SECRET"), InvalidInputError),
        (NotImplementedError("SECRET"), InvalidInputError),
    ],
)
@pytest.mark.parametrize("place", ["asyncstore://place", "slowstore://place"])
def test_a_storages_error_becomes_ours(stores, monkeypatch, place, error, kind):
    def fail(*args, **kwargs):
        raise error

    async def fail_later(*args, **kwargs):
        raise error

    file = virtual(place)
    monkeypatch.setattr(SlowStore, "cat_file", fail)
    monkeypatch.setattr(AsyncStore, "_cat_file", fail_later)
    with pytest.raises(kind, match=f"{place}/0") as caught:
        file.read(0, 100)
    assert "SECRET" not in str(caught.value)
    assert reading_threads() == []


def test_a_local_file_that_may_not_be_read(tmp_path, monkeypatch):
    file = virtual(str(tmp_path))

    def refuse(*args, **kwargs):
        raise PermissionError("no")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(InvalidInputError, match="check path and credentials"):
        file.read(0, 100)


def test_a_server_without_ranges(stores, monkeypatch):
    file = virtual("slowstore://place")
    monkeypatch.setattr(SlowStore, "cat_file", lambda self, *args, **kwargs: SOURCES[0])
    with pytest.raises(InvalidInputError, match="does not serve byte ranges"):
        file.read(0, 100)


def test_reads_larger_than_the_system_gives_at_once(tmp_path, monkeypatch):
    file = virtual(str(tmp_path))
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, length, offset: pread(fd, min(length, 7), offset))
    assert file.read(0, len(WHOLE)) == WHOLE


def test_a_copy_of_an_old_version_is_never_read(stores, tmp_path):
    place = f"memory://{tmp_path.name}"
    cached = f"simplecache::{place}/a"
    for content in (b"1" * 100, b"2" * 100):
        put(f"{place}/a", content)
        assert over([look_up(cached, None)], [(0, 0, 100)]).read(4, 100) == content
        with look_up(cached, None).open() as file:
            assert file.read() == content
    fsspec.filesystem("memory").store.clear()


def test_its_text_holds_no_bytes(tmp_path):
    assert repr(virtual(str(tmp_path))) == f"VirtualParquet(size={len(WHOLE)}, num_rows=1, sources=3)"
