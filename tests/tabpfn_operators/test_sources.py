"""What a source names: files, lists, patterns, folders."""

import os
import zipfile

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabpfn_operators.errors import ConfigurationError, InvalidInputError, SourceChangedError, StorageError
from tabpfn_operators.sources import find_objects, hive_partitions, is_pattern, natural_order


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


def put(base, *names, content=b"x"):
    fs, path = fsspec.url_to_fs(base)
    for name in names:
        fs.makedirs(f"{path}/{name}".rpartition("/")[0], exist_ok=True)
        fs.pipe_file(f"{path}/{name}", content)


def found(base, source):
    """Names of what is found, below the base."""
    return [stored.url.removeprefix(base).lstrip("/") for stored in find_objects(source)]


def test_one_file(base):
    put(base, "a.txt", content=b"12345")
    (stored,) = find_objects(f"{base}/a.txt")
    assert (stored.url, stored.size, stored.partitions) == (f"{base}/a.txt", 5, ())
    with stored.open() as file:
        assert file.read() == b"12345"
    put(base, "a.txt", content=b"123456")
    with pytest.raises(SourceChangedError):
        stored.check_unchanged()


def test_a_list_keeps_its_order(base):
    put(base, "b.parquet", "a.parquet", "more/2.pq", "more/10.pq")
    assert found(base, [f"{base}/b.parquet", f"{base}/more", f"{base}/a.parquet"]) == [
        "b.parquet",
        "more/2.pq",
        "more/10.pq",
        "a.parquet",
    ]
    assert found(base, (f"{base}/a.parquet",)) == ["a.parquet"]


def test_a_folder_in_natural_order_without_what_is_hidden(base):
    put(base, "t/part-10.parquet", "t/part-9.parquet", "t/inner/part-1.PARQUET", "t/a.parq", "t/b.pq")
    put(base, "t/_SUCCESS", "t/_temporary/0/p.parquet", "t/.p.parquet.crc", "t/.hidden/p.parquet", "t/_p.parquet")
    put(base, "t/readme.txt", "t/notparquet", "u/other.parquet", "t/_year=2024/p.parquet", "tt.parquet")
    everything = [
        "t/_year=2024/p.parquet",
        "t/a.parq",
        "t/b.pq",
        "t/inner/part-1.PARQUET",
        "t/part-9.parquet",
        "t/part-10.parquet",
    ]
    assert found(base, f"{base}/t") == everything
    assert found(base, f"{base}/t/") == everything


def test_a_folder_that_is_itself_called_a_file(base):
    put(base, "out.parquet/part-0.parquet", "out.parquet/_SUCCESS")
    assert found(base, f"{base}/out.parquet") == ["out.parquet/part-0.parquet"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("t/*.parquet", ["t/p2.parquet", "t/p10.parquet"]),
        ("t/p?.parquet", ["t/p2.parquet"]),
        ("t/p[0-9].parquet", ["t/p2.parquet"]),
        ("t/*", ["t/notes.csv", "t/p2.parquet", "t/p10.parquet"]),
        ("t/_*.parquet", ["t/_old.parquet"]),
        ("*/p2.parquet", ["t/p2.parquet", "u/p2.parquet"]),
        ("**/p2.parquet", ["t/p2.parquet", "u/p2.parquet", "u/v/p2.parquet"]),
        ("d=*", ["d=1/p.parquet", "d=2/p.parquet"]),
    ],
)
def test_a_pattern(base, pattern, names):
    put(base, "t/p10.parquet", "t/p2.parquet", "t/notes.csv", "t/_old.parquet", "t/_SUCCESS", "t/in/p3.parquet")
    put(base, "u/p2.parquet", "u/v/p2.parquet", "d=1/p.parquet", "d=2/p.parquet", "d=2/_SUCCESS")
    assert found(base, f"{base}/{pattern}") == names


def test_a_file_of_exactly_that_name_wins_over_the_pattern(base):
    put(base, "a[1].parquet", content=b"literal")
    put(base, "a1.parquet")
    (stored,) = find_objects(f"{base}/a[1].parquet")
    assert stored.size == len(b"literal")
    assert found(base, f"{base}/a[12].parquet") == ["a1.parquet"]


def test_partition_values_below_what_was_named(base):
    put(base, "t/day=1/hour=a%20b/p.parquet", f"t/day={'__HIVE_DEFAULT_PARTITION__'}/hour=c/p.parquet")
    by_folder = {stored.partitions for stored in find_objects(f"{base}/t")}
    assert by_folder == {(("day", "1"), ("hour", "a b")), (("day", None), ("hour", "c"))}
    assert {stored.partitions for stored in find_objects(f"{base}/t/day=*/*/*.parquet")} == by_folder
    assert [stored.partitions for stored in find_objects(f"{base}/t/day=1")] == [(("hour", "a b"),)]
    (alone,) = find_objects(f"{base}/t/day=1/hour=a%20b/p.parquet")
    assert alone.partitions == ()


def test_new_and_changed_files_are_seen(base):
    put(base, "t/a.parquet")
    (before,) = find_objects(f"{base}/t")
    put(base, "t/a.parquet", "t/b.parquet", content=b"more")
    assert found(base, f"{base}/t") == ["t/a.parquet", "t/b.parquet"]
    assert found(base, f"{base}/t/*.parquet") == ["t/a.parquet", "t/b.parquet"]
    assert find_objects(f"{base}/t")[0].identity != before.identity


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("none.parquet", "none.parquet does not exist; check the path"),
        ("none/", "none/? does not exist; check the path"),
        ("none*.parquet", r"Nothing matches .*none\*.parquet; check the pattern"),
        ("empty", "empty holds no Parquet file"),
    ],
)
def test_a_source_that_names_nothing(base, source, words):
    put(base, "empty/_SUCCESS", "empty/a.csv", "t/x")
    with pytest.raises(InvalidInputError, match=words):
        find_objects(f"{base}/{source}")
    with pytest.raises(InvalidInputError, match=words):
        find_objects([f"{base}/t/x", f"{base}/{source}"])


def test_an_empty_list():
    with pytest.raises(InvalidInputError, match="empty list"):
        find_objects([])


@pytest.mark.parametrize("source", [5, b"a", None, {"a": 1}, [5]])
def test_a_source_of_another_kind(source):
    with pytest.raises(ConfigurationError, match="Pass a path"):
        find_objects(source)


def test_two_storages_at_once(tmp_path):
    put(str(tmp_path), "a.parquet")
    with pytest.raises(InvalidInputError, match="lie on different storages") as caught:
        find_objects([str(tmp_path / "a.parquet"), "memory://b.parquet"])
    assert "a.parquet" in str(caught.value)
    assert "memory://b.parquet" in str(caught.value)


@pytest.mark.parametrize("twice", [["t/a.parquet", "t/a.parquet"], ["t", "t/a.parquet"], ["t/*.parquet", "t/a.*"]])
def test_a_file_named_twice(base, twice):
    put(base, "t/a.parquet")
    with pytest.raises(InvalidInputError, match=r"t/a\.parquet is named twice"):
        find_objects([f"{base}/{name}" for name in twice])


@pytest.mark.parametrize(
    ("inside", "kind"),
    [
        ("_delta_log/00000000000000000000.json", "a Delta table"),
        (".hoodie/hoodie.properties", "a Hudi table"),
        ("metadata/v1.metadata.json", "an Iceberg table"),
    ],
)
def test_a_folder_that_also_holds_old_versions(base, inside, kind):
    put(base, "t/a.parquet", f"t/{inside}")
    with pytest.raises(InvalidInputError, match=f"{kind}: beside its rows it holds files of older versions"):
        find_objects(f"{base}/t")
    assert found(base, f"{base}/t/a.parquet") == ["t/a.parquet"]


def test_relative_paths(tmp_path, monkeypatch):
    put(str(tmp_path), "t/a.parquet")
    monkeypatch.chdir(tmp_path)
    for source in ("t", "t/*.parquet", "t/a.parquet", "*/a.parquet"):
        assert [stored.url for stored in find_objects(source)] == [str(tmp_path / "t/a.parquet")]
    monkeypatch.chdir(tmp_path / "t")
    assert [stored.url for stored in find_objects("*.parquet")] == [str(tmp_path / "t/a.parquet")]


def test_links_are_what_they_point_to(tmp_path):
    put(str(tmp_path), "elsewhere/a", content=b"12345")
    (tmp_path / "t").mkdir()
    os.symlink(tmp_path / "elsewhere" / "a", tmp_path / "t" / "a.parquet")
    (stored,) = find_objects(str(tmp_path / "t"))
    assert stored.size == 5
    put(str(tmp_path), "elsewhere/a", content=b"123456")
    with pytest.raises(SourceChangedError):
        stored.check_unchanged()


def test_whole_stores_and_chained_urls(tmp_path):
    memory = fsspec.filesystem("memory")
    put("memory://here", "a.parquet", "d=1/b.parquet")
    with fsspec.open("memory://here/z.zip", "wb") as out, zipfile.ZipFile(out, "w") as archive:
        archive.writestr("in/a.parquet", b"x")
    here = ["memory://here/a.parquet", "memory://here/d=1/b.parquet"]
    assert [stored.url for stored in find_objects("memory://")] == here
    assert [stored.url for stored in find_objects("memory://**/*.parquet")] == here
    assert [stored.url for stored in find_objects("simplecache::memory://here")] == here
    assert [stored.url for stored in find_objects("simplecache::memory://here/*.parquet")] == here[:1]
    for inside in ("zip://in/*.parquet", "zip://in", "zip://in/a.parquet"):
        (stored,) = find_objects(f"{inside}::memory://here/z.zip")
        assert stored.url == "zip://in/a.parquet::memory://here/z.zip"
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


@pytest.mark.parametrize(
    ("error", "kind"), [(TimeoutError("SECRET"), StorageError), (PermissionError("SECRET"), InvalidInputError)]
)
@pytest.mark.parametrize(("method", "source"), [("find", "t"), ("glob", "t/*.parquet")])
def test_a_listing_that_fails(monkeypatch, error, kind, method, source):
    from fsspec.implementations.memory import MemoryFileSystem

    put("memory://listing", "t/a.parquet")

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(MemoryFileSystem, method, fail)
    with pytest.raises(kind, match="memory://listing/t") as caught:
        find_objects(f"memory://listing/{source}")
    assert "SECRET" not in str(caught.value)
    fsspec.filesystem("memory").store.clear()


# Names


@pytest.mark.parametrize(
    ("path", "partitions"),
    [
        ("part-0.parquet", ()),
        ("day=7/part-0.parquet", (("day", "7"),)),
        ("a/day=7/b/hour=x=y/p", (("day", "7"), ("hour", "x=y"))),
        ("day=__HIVE_DEFAULT_PARTITION__/p", (("day", None),)),
        ("city=K%C3%B6ln%2FS%C3%BCd/p", (("city", "Köln/Süd"),)),
        ("a%3Db=1/p", (("a=b", "1"),)),
        ("day=/p", (("day", ""),)),
        ("=7/day=7", ()),
    ],
)
def test_what_folders_spell(path, partitions):
    assert hive_partitions(path) == partitions


def test_natural_order():
    ordered = ["a/1.pq", "a/2.pq", "a/10.pq", "a1/1.pq", "a10/1.pq", "b.pq", "part-01-y.pq", "part-1-x.pq"]
    assert sorted(sorted(ordered, reverse=True), key=natural_order) == ordered


@given(st.lists(st.text(alphabet="a1٣²0-/. é", max_size=8), max_size=8))
def test_the_order_is_one_for_all_paths(paths):
    assert sorted(paths, key=natural_order) == sorted(sorted(paths), key=natural_order)
    assert all((natural_order(a) == natural_order(b)) == (a == b) for a in paths for b in paths)


@pytest.mark.parametrize(
    ("url", "pattern"),
    [
        ("s3://b/a*.parquet", True),
        ("/a/b?.parquet", True),
        ("a[1].parquet", True),
        ("https://host/a.parquet?sig=x*", False),
        ("https://host/*.parquet?sig=x", True),
        ("s3://b/a.parquet", False),
    ],
)
def test_what_a_pattern_is(url, pattern):
    assert is_pattern(url) is pattern
