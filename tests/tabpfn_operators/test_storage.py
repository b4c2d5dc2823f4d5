"""Objects and folders on storage: identity, and nothing half-written."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import fsspec
import pytest

from tabpfn_operators import storage
from tabpfn_operators.errors import (
    ConfigurationError,
    DestinationError,
    InvalidInputError,
    SourceChangedError,
    StorageError,
)
from tabpfn_operators.storage import filesystem, folder, look_up, read_text, source_fingerprint


@pytest.fixture(params=["local", "memory"])
def base(request, tmp_path):
    """URL of an empty place, as a path of this machine or in memory."""
    if request.param == "local":
        yield str(tmp_path)
        return
    memory = fsspec.filesystem("memory")
    yield f"memory://{tmp_path.name}"
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


def tree(url):
    """Everything below a place, folders too."""
    fs, path = filesystem(url, None)
    found = fs.find(path, withdirs=True) if fs.exists(path) else []
    return sorted(name.rstrip("/").removeprefix(path).strip("/") for name in found if name.rstrip("/") != path)


def write(url, content=b"x"):
    fs, path = filesystem(url, None)
    fs.makedirs(path.rpartition("/")[0], exist_ok=True)
    fs.pipe_file(path, content)


def read(url):
    fs, path = filesystem(url, None)
    return fs.cat_file(path)


# Folders


def write_half(out, kind):
    with out.replacing("p.parquet") as file:
        file.write(b"half")
        raise kind("stop")


def test_a_file_is_there_only_when_it_is_whole(base):
    out = folder(f"{base}/a/b", None)
    with out.replacing("p.parquet") as file:
        file.write(b"half")
        assert "a/b/p.parquet" not in tree(base)
        file.write(b" and half")
    assert tree(base) == ["a", "a/b", "a/b/p.parquet"]
    assert read(f"{base}/a/b/p.parquet") == b"half and half"


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, OSError])
def test_nothing_half_written_stays_after_an_exception(base, kind):
    out = folder(f"{base}/out", None)
    with pytest.raises(DestinationError if kind is OSError else kind):
        write_half(out, kind)
    assert [name for name in tree(base) if name != "out"] == []


def test_the_file_before_stays_as_it_was_after_an_exception(base):
    write(f"{base}/out/p.parquet", b"before")
    out = folder(f"{base}/out", None)
    with pytest.raises(ValueError, match="stop"):
        write_half(out, ValueError)
    assert tree(base) == ["out", "out/p.parquet"]
    assert read(f"{base}/out/p.parquet") == b"before"


def test_a_file_is_replaced(base):
    out = folder(f"{base}/out", None)
    for content in (b"first", b"second"):
        with out.replacing("p.parquet") as file:
            file.write(content)
    assert tree(base) == ["out", "out/p.parquet"]
    assert read(f"{base}/out/p.parquet") == b"second"


def test_two_writers_leave_one_whole_file(base):
    contents = [bytes([65 + n]) * 100_000 for n in range(4)]

    def put(content):
        with folder(f"{base}/out", None).replacing("p.parquet") as file:
            for at in range(0, len(content), 1000):
                file.write(content[at : at + 1000])

    threads = [threading.Thread(target=put, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tree(base) == ["out", "out/p.parquet"]
    assert read(f"{base}/out/p.parquet") in contents


def test_removing_what_is_not_there(base):
    out = folder(f"{base}/out", None)
    out.remove("_lineage.json")
    write(f"{base}/out/_lineage.json")
    out.remove("_lineage.json")
    assert "out/_lineage.json" not in tree(base)


@pytest.mark.parametrize("place", ["out", "deep/er/out"])
def test_the_write_check_leaves_nothing_behind(base, place):
    folder(f"{base}/{place}", None).check_writable()
    assert tree(base) == []


def test_the_write_check_touches_nothing_that_is_there(base):
    write(f"{base}/out/kept", b"kept")
    before = tree(base)
    folder(f"{base}/out", None).check_writable()
    assert tree(base) == before
    assert read(f"{base}/out/kept") == b"kept"


def test_the_write_check_leaves_an_empty_folder_there(tmp_path):
    (tmp_path / "out").mkdir()
    folder(str(tmp_path / "out"), None).check_writable()
    assert tree(str(tmp_path)) == ["out"]


def test_workers_that_begin_at_once_find_the_folder_there(tmp_path):
    places = [f"{tmp_path}/{number}/out" for number in range(100)]
    begin = threading.Barrier(4)

    def check(_):
        for place in places:
            begin.wait(10)
            folder(place, None).check_writable(keep=True)

    with ThreadPoolExecutor(4) as workers:
        list(workers.map(check, range(4)))
    assert tree(str(tmp_path)) == sorted([*(str(number) for number in range(100)), *(f"{n}/out" for n in range(100))])


def test_a_destination_below_a_file(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    out = folder(str(tmp_path / "file" / "out"), None)
    with pytest.raises(DestinationError, match="check path and credentials"):
        out.check_writable()
    with pytest.raises(DestinationError), out.replacing("p"):
        raise AssertionError("unreachable")
    assert tree(str(tmp_path)) == ["file"]


def test_a_destination_without_permission(base, monkeypatch):
    out = folder(f"{base}/out", None)

    def refuse(*args, **kwargs):
        raise PermissionError("no")

    monkeypatch.setattr(type(out.fs), "pipe_file", refuse)
    with pytest.raises(DestinationError, match="PermissionError"):
        out.check_writable()
    assert tree(base) == []


def test_storage_that_does_not_answer_is_no_wrong_path(base, monkeypatch):
    out = folder(f"{base}/out", None)

    def fail(*args, **kwargs):
        raise TimeoutError("s3://KEY:SECRET@bucket")

    monkeypatch.setattr(type(out.fs), "pipe_file", fail)
    with pytest.raises(StorageError) as caught:
        out.check_writable()
    assert "SECRET" not in str(caught.value)
    assert not caught.value.terminal


def test_a_folders_address_holds_no_secret():
    out = folder("memory://a/b/", None)
    assert out.file_url("p.parquet") == "memory://a/b/p.parquet"


# Objects


def test_an_object_is_found(base):
    write(f"{base}/a.parquet", b"12345")
    found = look_up(f"{base}/a.parquet", None)
    assert found.size == 5
    with found.open() as file:
        assert file.read() == b"12345"
    found.check_unchanged()


@pytest.mark.parametrize(
    ("name", "words"),
    [("missing.parquet", "does not exist; check the path"), ("", "is a folder; name one file")],
)
def test_an_object_that_is_none(base, name, words):
    write(f"{base}/a.parquet")
    with pytest.raises(InvalidInputError, match=words):
        look_up(f"{base}/{name}".rstrip("/"), None)


def test_an_object_that_was_written_to_has_changed(base):
    write(f"{base}/a.parquet", b"before")
    found = look_up(f"{base}/a.parquet", None)
    write(f"{base}/a.parquet", b"after it")
    with pytest.raises(SourceChangedError, match="changed while it was read"):
        found.check_unchanged()


def test_an_object_of_equal_size_that_was_written_to_has_changed(base):
    write(f"{base}/a.parquet", b"before")
    found = look_up(f"{base}/a.parquet", None)
    write(f"{base}/a.parquet", b"aftery")
    if not base.startswith("memory"):
        os.utime(f"{base}/a.parquet", (1, 1))
    with pytest.raises(SourceChangedError):
        found.check_unchanged()


def test_an_object_that_was_removed(base):
    write(f"{base}/a.parquet", b"before")
    found = look_up(f"{base}/a.parquet", None)
    found.fs.rm_file(found.path)
    with pytest.raises(InvalidInputError, match="does not exist"):
        found.check_unchanged()


@pytest.mark.parametrize(
    ("info", "other"),
    [
        ({"version_id": "1", "mtime": 1}, {"version_id": "2", "mtime": 1}),
        ({"VersionId": "1"}, {"VersionId": "2"}),
        ({"generation": "1"}, {"generation": "2"}),
        ({"ETag": '"a"', "LastModified": 1}, {"ETag": '"b"', "LastModified": 1}),
        ({"etag": "a"}, {"etag": "b"}),
        ({"md5Hash": "a"}, {"md5Hash": "b"}),
        ({"mtime": 1.0, "size": 5}, {"mtime": 2.0, "size": 5}),
        ({"mtime": 1.0, "size": 5}, {"mtime": 1.0, "size": 6}),
    ],
)
def test_identity_is_what_changes_with_the_object(info, other):
    assert storage._identity(info) == storage._identity(dict(info))
    assert storage._identity(info) != storage._identity(other)


def test_identity_is_the_same_on_another_machine():
    here = {"ETag": '"a"', "LastModified": 1, "name": "bucket/a", "mtime": 1.5}
    there = {"ETag": '"a"', "LastModified": 2, "name": "other/a", "mtime": 9.5}
    assert storage._identity(here) == storage._identity(there)


def test_a_fingerprint_tells_what_was_selected(base):
    write(f"{base}/a.parquet", b"12345")
    found = look_up(f"{base}/a.parquet", None)
    other = write(f"{base}/b.parquet", b"1234567") or look_up(f"{base}/b.parquet", None)
    one = source_fingerprint((found,), ("footer",), ("a", "b"), "y")
    assert one == source_fingerprint((look_up(f"{base}/a.parquet", None),), ("footer",), ("a", "b"), "y")
    others = [
        source_fingerprint((found,), ("other",), ("a", "b"), "y"),
        source_fingerprint((other,), ("footer",), ("a", "b"), "y"),
        source_fingerprint((found, other), ("footer", "footer"), ("a", "b"), "y"),
        source_fingerprint((found,), ("footer",), ("b", "a"), "y"),
        source_fingerprint((found,), ("footer",), ("a",), "y"),
        source_fingerprint((found,), ("footer",), ("a", "b"), None),
        source_fingerprint((found,), ("footer",), ("ab",), "y"),
        source_fingerprint((found,), ("footer",), ("a", "b"), "y", refinement="a > 3"),
    ]
    assert len({one, *others}) == 9


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("nothing://a/b", "unknown storage protocol"),
        ("s3://KEY:SECRET@bucket/a", r'pip install "tabpfn-providers\[storage\]"'),
    ],
)
def test_a_storage_that_cannot_be_opened(url, words):
    with pytest.raises(ConfigurationError, match=words) as caught:
        filesystem(url, None)
    assert "SECRET" not in str(caught.value)


def test_a_storages_own_words_are_not_repeated(monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    def fail(self, path, **kwargs):
        raise RuntimeError("https://host/a?sig=SECRET")

    monkeypatch.setattr(MemoryFileSystem, "info", fail)
    with pytest.raises(StorageError) as caught:
        look_up("memory://a/b.parquet", None)
    assert "SECRET" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_options_are_used_and_never_shown(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    found = look_up(f"file://{tmp_path}/a", {"auto_mkdir": True})
    assert found.fs.auto_mkdir
    assert "auto_mkdir" not in found.url


def test_a_relative_path_becomes_absolute_in_records(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.parquet").write_bytes(b"x")
    assert look_up("a.parquet", None).url == str(tmp_path / "a.parquet")
    assert folder("out", None).file_url("p") == str(tmp_path / "out" / "p")


def test_text_is_read(base):
    write(f"{base}/m.json", "größe".encode())
    assert read_text(f"{base}/m.json", None) == "größe"
    with pytest.raises(InvalidInputError, match="does not exist"):
        read_text(f"{base}/none.json", None)
