"""Objects on S3 (moto's server, read through s3fs): ranges, and what another client does meanwhile."""

import numpy as np
import pytest

from tabpfn_operators.errors import InvalidInputError, SourceChangedError
from tabpfn_operators.sources import find_objects
from tabpfn_operators.splice import _ranges, _virtual
from tabpfn_operators.splice._ranges import Segments
from tabpfn_operators.splice._virtual import VirtualParquet
from tabpfn_operators.storage import look_up

CONTENT = np.random.default_rng(4).bytes(300_000)
TAIL = b"footer" + (6).to_bytes(4, "little") + b"PAR1"


def over(stored, pieces):
    numbers, offsets, lengths = (np.array(column, np.int64) for column in zip(*pieces, strict=True))
    segments = Segments(lengths, offsets, numbers.astype(np.int32))
    return VirtualParquet(sources=stored, segments=segments, tail=TAIL, schema=None, num_rows=1)


@pytest.fixture
def small_blocks(monkeypatch):
    """Requests of at most 40,000 bytes, so that a small object takes many."""
    monkeypatch.setattr(_virtual, "into_blocks", lambda pieces: _ranges.into_blocks(pieces, gap=5000, size=40_000))


@pytest.fixture
def warm(options, second, bucket):
    """A first client, its listings cache turned on by the user and filled; options that give it."""
    options = {**options, "use_listings_cache": True}
    second.pipe_file(f"{bucket}/t/a.parquet", b"before")
    (stored,) = find_objects(f"{bucket}/t", options)
    stored.fs.find(stored.fs._parent(stored.path))
    stored.fs.ls(stored.fs._parent(stored.path))
    assert stored.fs.dircache
    return options


def test_ranges_are_the_objects_bytes(options, second, bucket, small_blocks):
    second.pipe_file(f"{bucket}/a.parquet", CONTENT)
    second.pipe_file(f"{bucket}/b.parquet", CONTENT[::-1])
    stored = find_objects(bucket, options)
    assert [one.url for one in stored] == [f"{bucket}/a.parquet", f"{bucket}/b.parquet"]
    pieces = [(0, 10, 90_000), (0, 91_000, 50_000), (1, 0, 300_000), (0, 200_000, 7), (0, 150_000, 100)]
    contents = (CONTENT, CONTENT[::-1])
    whole = b"PAR1" + b"".join(contents[source][at : at + size] for source, at, size in pieces) + TAIL
    file = over(stored, pieces)
    assert file.size == len(whole)
    assert b"".join(file.chunks(1 << 20)) == whole
    seed = np.random.SeedSequence().entropy
    print("seed", seed)
    random = np.random.default_rng(seed)
    for offset, length in random.integers(0, len(whole), (10, 2)).tolist():
        assert file.read(offset, length) == whole[offset : offset + length]
    chunks = list(file.chunks(33_333, 1000, 200_000))
    assert b"".join(chunks) == whole[1000:200_000]
    assert {len(chunk) for chunk in chunks[:-1]} == {33_333}
    file.check_unchanged()


def test_closing_early(options, second, bucket, small_blocks):
    second.pipe_file(f"{bucket}/a.parquet", CONTENT)
    file = over([look_up(f"{bucket}/a.parquet", options)], [(0, 0, len(CONTENT))])
    chunks = file.chunks(1000)
    assert next(chunks) == b"PAR1" + CONTENT[:996]
    chunks.close()
    assert file.read(4, 1000) == CONTENT[:1000]


def test_an_object_that_another_client_rewrites_is_seen(warm, second, bucket):
    url = f"{bucket}/t/a.parquet"
    stored = look_up(url, warm)
    file = over([stored], [(0, 0, 6)])
    assert file.read(4, 6) == b"before"
    stored.fs.ls(stored.fs._parent(stored.path))
    second.pipe_file(url, b"after!")
    with pytest.raises(SourceChangedError, match=r"t/a\.parquet changed while it was read"):
        stored.check_unchanged()
    stored.fs.ls(stored.fs._parent(stored.path))
    with pytest.raises(SourceChangedError):
        file.check_unchanged()
    now = look_up(url, warm)
    assert now.fs is stored.fs
    assert now.identity != stored.identity
    assert over([now], [(0, 0, 6)]).read(4, 6) == b"after!"
    assert find_objects(url, warm)[0].identity == now.identity


def test_an_object_that_another_client_shortens_is_no_mixed_file(warm, second, bucket):
    url = f"{bucket}/t/a.parquet"
    second.pipe_file(url, CONTENT)
    file = over([look_up(url, warm)], [(0, 0, 100_000), (0, 200_000, 100_000)])
    second.pipe_file(url, CONTENT[:150_000])
    with pytest.raises(SourceChangedError, match=r"t/a\.parquet changed"):
        list(file.chunks(1 << 20))
    second.rm_file(url)
    with pytest.raises(InvalidInputError, match=r"t/a\.parquet does not exist"):
        list(file.chunks(1 << 20))


@pytest.mark.parametrize("source", ["t", "t/*.parquet", "**/*.parquet", "t/d=*", "t/*/*.parquet"])
def test_a_listing_sees_what_another_client_adds_and_removes(warm, second, bucket, source):
    second.pipe_file(f"{bucket}/t/d=1/p.parquet", b"one")
    names = {
        "t": ["t/a.parquet", "t/d=1/p.parquet"],
        "t/*.parquet": ["t/a.parquet"],
        "**/*.parquet": ["t/a.parquet", "t/d=1/p.parquet"],
        "t/d=*": ["t/d=1/p.parquet"],
        "t/*/*.parquet": ["t/d=1/p.parquet"],
    }[source]

    def found():
        return [stored.url.removeprefix(f"{bucket}/") for stored in find_objects(f"{bucket}/{source}", warm)]

    assert found() == names
    folder = "t/d=1" if source in {"t/d=*", "t/*/*.parquet"} else "t"
    second.pipe_file(f"{bucket}/{folder}/b.parquet", b"new")
    assert found() == sorted([*names, f"{folder}/b.parquet"])
    second.rm_file(f"{bucket}/{folder}/b.parquet")
    assert found() == names


def test_a_version_id_is_the_identity_however_the_object_was_found(options, second, bucket):
    second.call_s3("put_bucket_versioning", Bucket=bucket[5:], VersioningConfiguration={"Status": "Enabled"})
    second.pipe_file(f"{bucket}/t/a.parquet", b"same")
    by_name, by_folder = find_objects(f"{bucket}/t/a.parquet", options) + find_objects(f"{bucket}/t", options)
    assert by_name.identity == by_folder.identity
    assert by_name.identity.startswith("VersionId=")
    by_folder.check_unchanged()
    second.pipe_file(f"{bucket}/t/a.parquet", b"same")
    with pytest.raises(SourceChangedError):
        by_folder.check_unchanged()


def test_what_is_not_there(options, bucket):
    with pytest.raises(InvalidInputError, match=r"none\.parquet does not exist"):
        find_objects(f"{bucket}/none.parquet", options)
    with pytest.raises(InvalidInputError, match="Nothing matches"):
        find_objects(f"{bucket}/none*.parquet", options)
    with pytest.raises(InvalidInputError, match="does not exist"):
        find_objects("s3://no-such-bucket-here/t", options)
