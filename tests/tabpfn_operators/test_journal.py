"""Journals: a record comes back as it went, and what cannot be read is never taken for no record."""

import json
import os
import signal
import subprocess
import sys

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabpfn_assets import FittedModel, JobRecord
from tabpfn_operators.errors import (
    ConfigurationError,
    DestinationError,
    RecordTooNewError,
    RecordUnreadableError,
)
from tabpfn_operators.journal import FolderJournal, MemoryJournal, key_part

#: Killed when the new record is written and has not yet the old one's name.
KILLED = """
import os, signal, sys
from tabpfn_assets import JobRecord
from tabpfn_operators.journal import FolderJournal

journal = FolderJournal(sys.argv[1], sys.argv[2:], JobRecord)
record = journal.read().model_copy(update={"phase": "submitted", "job_id": "fit-2"})
os.replace = lambda source, target: os.kill(os.getpid(), signal.SIGKILL)
journal.write(record)
"""

KEY = ("dag", "run-1", "task", "-1")
INTENT = JobRecord(kind="tabpfn_async", phase="intent", owner="host-1", lease_expires_at=30.5, fingerprint="f" * 64)
SUBMITTED = JobRecord(kind="tabpfn_async", phase="submitted", job_id="fit-1", generation=2)


@pytest.fixture(params=["local", "fsspec-memory", "memory"])
def journal(request, tmp_path):
    if request.param == "local":
        yield FolderJournal(tmp_path / "not" / "yet", KEY, JobRecord)
    elif request.param == "memory":
        yield MemoryJournal(JobRecord)
    else:
        yield FolderJournal(f"memory://{tmp_path.name}", KEY, JobRecord)
        fs = fsspec.filesystem("memory")
        fs.store.clear()
        fs.pseudo_dirs[:] = [""]


@pytest.fixture
def local(tmp_path):
    return FolderJournal(tmp_path, KEY, JobRecord)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "dag" / "run-1" / "task" / "-1.json"
    path.parent.mkdir(parents=True)
    return path


def test_the_newest_record_comes_back(journal):
    assert journal.read() is None
    for record in (INTENT, SUBMITTED, SUBMITTED.model_copy(update={"delivered": True})):
        journal.write(record)
        assert journal.read() == record


def test_it_is_of_one_place(tmp_path):
    FolderJournal(tmp_path, KEY, JobRecord).write(INTENT)
    assert FolderJournal(str(tmp_path), KEY, JobRecord).read() == INTENT
    assert FolderJournal(tmp_path, (*KEY[:-1], "0"), JobRecord).read() is None
    assert FolderJournal(tmp_path, KEY[:-1], JobRecord).read() is None


def test_it_holds_any_record(tmp_path):
    journal = FolderJournal(tmp_path, ["model"], FittedModel)
    assert journal.read() is None
    FolderJournal(tmp_path, ["model"], JobRecord).write(INTENT)
    with pytest.raises(RecordUnreadableError, match=r"is no FittedModel: .*fitted_train_set_id"):
        journal.read()


def test_nothing_half_written_stays(local, file, monkeypatch):
    local.write(INTENT)

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(DestinationError, match=r"-1\.json cannot be written to"):
        local.write(SUBMITTED)
    monkeypatch.undo()
    assert local.read() == INTENT
    assert [found.name for found in file.parent.iterdir()] == ["-1.json"]


def test_a_writer_that_is_killed_leaves_the_record_before(local, tmp_path):
    local.write(INTENT)
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), *KEY], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert local.read() == INTENT
    local.write(SUBMITTED)
    assert local.read() == SUBMITTED


def test_fields_of_a_newer_version_stay(local, file):
    file.write_text(json.dumps({**INTENT.model_dump(mode="json"), "added_later": [1]}))
    record = local.read()
    local.write(record.model_copy(update={"phase": "submitted", "job_id": "fit-1"}))
    assert json.loads(file.read_text())["added_later"] == [1]


def test_a_newer_schema_names_the_remedy(local, file):
    file.write_text(json.dumps({"schema_version": 7, "what": "ever"}))
    with pytest.raises(RecordTooNewError, match=r"-1\.json is a JobRecord of schema 7, .* up to 1; upgrade"):
        local.read()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "holds no JSON"),
        (b'{"kind": "tabpfn_as', "holds no JSON"),
        (b"\xff\xfe\x00", "holds no JSON"),
        (b"[]", "holds no JobRecord"),
        (b"null", "holds no JobRecord"),
        (b"{}", "is no JobRecord: kind, phase cannot"),
        (b'{"kind": "tabpfn_async", "phase": "canary-7"}', "is no JobRecord: phase cannot"),
        (b'{"kind": "tabpfn_async", "phase": "submitted"}', "is no JobRecord: the record cannot"),
        (b'{"schema_version": "x", "kind": "tabpfn_async", "phase": "intent"}', "is no JobRecord: schema_version"),
    ],
)
def test_a_damaged_record_is_not_no_record(local, file, content, told):
    file.write_bytes(content)
    with pytest.raises(RecordUnreadableError, match=told) as caught:
        local.read()
    assert "move it away" in str(caught.value)
    assert "canary-7" not in str(caught.value)


@given(
    st.binary(max_size=60)
    | st.recursive(st.none() | st.integers() | st.text(max_size=5), st.lists).map(
        lambda value: json.dumps(value).encode()
    )
)
def test_any_content_is_a_record_or_a_typed_error(content):
    journal = MemoryJournal(JobRecord)
    journal._content = content
    with pytest.raises(RecordUnreadableError):
        journal.read()


def test_a_place_that_cannot_be_read_is_not_no_record(local, file):
    file.mkdir()
    with pytest.raises(RecordUnreadableError, match="cannot be read"):
        local.read()
    with pytest.raises(DestinationError, match="cannot be written to"):
        local.write(INTENT)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_record_of_another_user(local, file):
    local.write(INTENT)
    file.chmod(0)
    with pytest.raises(RecordUnreadableError, match="PermissionError"):
        local.read()


@pytest.mark.parametrize("key", [(), "dag", ("dag", "../x"), ("a/b",), ("",), (".",), ("a\n",), ("run:1",)])
def test_the_key_moves_no_path(tmp_path, key):
    with pytest.raises(ConfigurationError, match="name"):
        FolderJournal(tmp_path, key, JobRecord)


@given(st.text(min_size=1) | st.sampled_from(["manual__2026-11-21T00:00:00+00:00", "s3://b/out", "...", "a\n", "é"]))
def test_any_text_makes_a_part_of_a_key(text):
    part = key_part(text)
    FolderJournal("/nowhere", [part], JobRecord)
    assert key_part(part) == part
    assert key_part(f"{text}:") != part


def test_parts_stay_legible_and_apart():
    assert key_part("scheduled-1") == "scheduled-1"
    assert key_part("manual__2026-11-21T00:00:00+00:00").startswith("manual__2026-11-21T00_00_00_00_00-")
    assert key_part("a:b") != key_part("a/b")
    assert len(key_part("x" * 1000)) <= 128


def test_a_copying_filesystem_is_looked_through(tmp_path):
    key, url = ["job"], f"simplecache::file://{tmp_path}"
    copying = FolderJournal(url, key, JobRecord)
    FolderJournal(tmp_path, key, JobRecord).write(INTENT)
    assert copying.read() == INTENT
    FolderJournal(tmp_path, key, JobRecord).write(SUBMITTED)
    assert copying.read() == SUBMITTED
