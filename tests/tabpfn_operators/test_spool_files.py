"""Spool files: temporary, hashed, read again in chunks."""

import base64
from pathlib import Path
from types import SimpleNamespace

import google_crc32c
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tabpfn_operators.errors import InvalidInputError
from tabpfn_operators.parquet import read_footer
from tabpfn_operators.spool import Spool, SpoolFile
from tabpfn_operators.storage import look_up

NUMBERS = pa.table({"a": pa.array(range(1000), pa.int64()), "b": [n / 7 for n in range(1000)]})


def stored(folder, table):
    path = folder / "source.parquet"
    pq.write_table(table, path)
    return read_footer(look_up(str(path), None))


def test_a_spool_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    source = stored(tmp_path, NUMBERS)
    spool = Spool(source, ("a",)).open()
    steps = spool.write()
    next(steps)
    assert len(list((tmp_path / "tmp").rglob("*.parquet"))) == 1
    steps.close()
    spool.close()
    spool.close()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_full_disk_is_told_before_it_is_filled(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(total=10, used=10, free=0))
    with pytest.raises(InvalidInputError, match="set TMPDIR to a larger disk"):
        Spool(stored(tmp_path, NUMBERS), ("a",)).open()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=400),
    chunk_size=st.integers(1, 50),
    start=st.integers(0, 400),
    stop=st.none() | st.integers(0, 400),
)
def test_chunks_join_back_to_the_file(tmp_path, content, chunk_size, start, stop):
    path = tmp_path / "file"
    path.write_bytes(content)
    file = SpoolFile(path, len(content), "h", num_rows=0)
    for _ in range(2):  # it can be read again
        chunks = list(file.chunks(chunk_size, start, stop))
        assert b"".join(chunks) == content[start : None if stop is None else max(start, stop)]
        assert all(0 < len(chunk) <= chunk_size for chunk in chunks)


def test_the_hash_is_what_the_api_wants(tmp_path):
    spool = Spool(stored(tmp_path, NUMBERS), ("a",)).open()
    try:
        list(spool.write())
        (file,) = spool.files()
        content = Path(file.path).read_bytes()
        assert file.size == len(content)
        assert base64.b64decode(file.crc32c) == google_crc32c.value(content).to_bytes(4, "big")
    finally:
        spool.close()


def test_equal_rows_give_equal_bytes(tmp_path):
    source = stored(tmp_path, NUMBERS)
    contents = []
    for _ in range(2):
        spool = Spool(source, ("a", "b")).open()
        list(spool.write())
        contents.append(spool.files()[0].crc32c)
        spool.close()
    assert contents[0] == contents[1]
