"""Exclusive creation: of any number of writers one succeeds, and what it wrote is whole."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading

import fsspec
import pytest

from tabpfn_operators.errors import ConfigurationError, DestinationError, StoreNotExclusiveError
from tabpfn_operators.exclusive import create_exclusive, is_exclusive, require_exclusive

LOCAL = fsspec.filesystem("file")

#: Forked before any thread exists; each round starts at a barrier.
RACE = """
import json, multiprocessing, sys
import fsspec
from tabpfn_operators.exclusive import create_exclusive

folder, workers, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
context = multiprocessing.get_context("fork")
barrier, queue = context.Barrier(workers), context.Queue()

def work(number):
    fs, won = fsspec.filesystem("file"), []
    for n in range(rounds):
        barrier.wait(60)
        if create_exclusive(fs, f"{folder}/{n}.json", str(number).encode() * 1000):
            won.append(n)
    queue.put([number, won])

started = [context.Process(target=work, args=(number,)) for number in range(workers)]
for process in started: process.start()
print(json.dumps([queue.get(timeout=60) for _ in started]))
for process in started: process.join(60)
"""


KILLED = """
import os, signal, sys
import fsspec
from tabpfn_operators.exclusive import create_exclusive

os.link = lambda source, target: os.kill(os.getpid(), signal.SIGKILL)
create_exclusive(fsspec.filesystem("file"), sys.argv[1], b"x" * 100_000)
"""


@pytest.fixture
def memory(tmp_path):
    fs = fsspec.filesystem("memory")
    yield fs, f"/{tmp_path.name}/a.json"
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


@pytest.fixture
def linkless(monkeypatch):
    """A filesystem that has no hard links, such as FAT or many FUSE mounts."""

    def refuse(source, target):
        raise OSError(errno.EPERM, "Operation not permitted", source, None, target)

    monkeypatch.setattr(os, "link", refuse)


def test_a_local_file_is_created_once(tmp_path):
    path = tmp_path / "new" / "folder" / "1.json"
    assert create_exclusive(LOCAL, str(path), b"first")
    assert not create_exclusive(LOCAL, str(path), b"second")
    assert path.read_bytes() == b"first"
    assert [found.name for found in path.parent.iterdir()] == ["1.json"]


def test_an_object_in_memory_is_created_once(memory):
    fs, path = memory
    assert create_exclusive(fs, path, b"first")
    assert not create_exclusive(fs, path, b"second")
    assert fs.cat_file(path) == b"first"


def test_of_eight_processes_one_creates_each_file(tmp_path):
    workers, rounds = 8, 100
    done = subprocess.run(
        [sys.executable, "-c", RACE, str(tmp_path), str(workers), str(rounds)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    won = dict(json.loads(done.stdout))
    assert sorted(n for rounds_won in won.values() for n in rounds_won) == list(range(rounds))
    for number, rounds_won in won.items():
        for n in rounds_won:
            assert (tmp_path / f"{n}.json").read_bytes() == str(number).encode() * 1000
    assert len(list(tmp_path.iterdir())) == rounds


@pytest.fixture
def eager_threads():
    """Threads that take turns far more often than they would."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_of_four_threads_one_creates_in_memory(memory, eager_threads):
    fs, path = memory
    barrier, won = threading.Barrier(4), []

    def work(number):
        for n in range(50):
            barrier.wait(60)
            if create_exclusive(fs, f"{path}-{n}", str(number).encode()):
                won.append(n)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(won) == list(range(50))


def test_a_writer_that_is_killed_leaves_the_name_free(tmp_path):
    path = tmp_path / "1.json"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert not path.exists()
    assert all(found.name.startswith(".") for found in tmp_path.iterdir())
    assert create_exclusive(LOCAL, str(path), b"ours")
    assert path.read_bytes() == b"ours"


def test_a_link_that_was_made_though_refused_is_ours(tmp_path, monkeypatch):
    """NFS sends a call again whose answer was lost, and then finds its own link."""
    real = os.link

    def twice(source, target):
        real(source, target)
        real(source, target)

    monkeypatch.setattr(os, "link", twice)
    assert create_exclusive(LOCAL, str(tmp_path / "1.json"), b"ours")
    assert (tmp_path / "1.json").read_bytes() == b"ours"


def test_a_file_that_appears_meanwhile_is_not_ours(tmp_path, monkeypatch):
    path, real = tmp_path / "1.json", os.link

    def late(source, target):
        path.write_bytes(b"theirs")
        real(source, target)

    monkeypatch.setattr(os, "link", late)
    assert not create_exclusive(LOCAL, str(path), b"ours")
    assert [found.read_bytes() for found in tmp_path.iterdir()] == [b"theirs"]


def test_a_folder_without_hard_links_is_refused(tmp_path, linkless):
    with pytest.raises(StoreNotExclusiveError, match=r"1\.json .* no hard links.* allow_unsafe_store=True"):
        create_exclusive(LOCAL, str(tmp_path / "1.json"), b"x")
    assert list(tmp_path.iterdir()) == []
    assert create_exclusive(LOCAL, str(tmp_path / "1.json"), b"x", allow_unsafe_store=True)
    assert not create_exclusive(LOCAL, str(tmp_path / "1.json"), b"y", allow_unsafe_store=True)
    assert [found.read_bytes() for found in tmp_path.iterdir()] == [b"x"]


@pytest.mark.parametrize("kind", ["dir", "simplecache", "zip"])
def test_any_other_class_is_not_exclusive(tmp_path, kind):
    fs = {
        "dir": lambda: fsspec.filesystem("dir", path=str(tmp_path), fs=LOCAL),
        "simplecache": lambda: fsspec.filesystem("simplecache", fs=LOCAL, cache_storage=str(tmp_path / "cache")),
        "zip": lambda: fsspec.filesystem("zip", fo=str(tmp_path / "a.zip"), mode="w"),
    }[kind]()
    assert not is_exclusive(fs, "1.json")
    with pytest.raises(StoreNotExclusiveError, match="two writers may both succeed") as caught:
        create_exclusive(fs, "1.json", b"x")
    assert isinstance(caught.value, ConfigurationError)
    with pytest.raises(StoreNotExclusiveError):
        require_exclusive(fs, "1.json")
    if kind == "zip":
        fs.close()


def test_an_unsafe_store_looks_first(tmp_path):
    fs = fsspec.filesystem("dir", path=str(tmp_path), fs=LOCAL)
    assert create_exclusive(fs, "k/1.json", b"first", allow_unsafe_store=True)
    assert not create_exclusive(fs, "k/1.json", b"second", allow_unsafe_store=True)
    assert (tmp_path / "k" / "1.json").read_bytes() == b"first"


def test_local_and_memory_are_exclusive(tmp_path, memory):
    assert is_exclusive(LOCAL, str(tmp_path))
    assert is_exclusive(*memory)
    require_exclusive(LOCAL, str(tmp_path))


def test_a_folder_that_is_a_file_is_a_destination_error(tmp_path):
    (tmp_path / "taken").write_bytes(b"a file")
    with pytest.raises(DestinationError, match=r"taken/1\.json cannot be written to"):
        create_exclusive(LOCAL, str(tmp_path / "taken" / "1.json"), b"x")
