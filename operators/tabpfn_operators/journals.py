"""All places of a journal's folder: what they remember, and what may be forgotten."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from tabpfn_assets import JobRecord
from tabpfn_operators._stored import decoded, display, read_fresh
from tabpfn_operators.claims import FolderClaims
from tabpfn_operators.errors import DestinationError, RecordUnreadableError
from tabpfn_operators.journal import key_part
from tabpfn_operators.places import CLAIMS_FOLDER, JOBS_FOLDER
from tabpfn_operators.storage import StorageOptions, source_filesystem, trouble

_SUFFIX = ".json"


@dataclass(frozen=True)
class JournalEntry:
    """What one place remembers.

    Args:
        key: Names of the place, joined by slashes.
        record: Its record; None where it cannot be read.
        problem: Why it cannot be read.
    """

    key: str
    record: JobRecord | None
    problem: str | None = None


def is_over(record: JobRecord, *, older_than: float, now: float) -> bool:
    """Tell whether a record may be forgotten.

    Args:
        record: The record.
        older_than: Seconds since its job was submitted.
        now: Epoch seconds.

    Returns:
        Whether it has ended (delivered or failed) and is that old. One that is open is never forgotten: the fit could
        be created twice.
    """
    ended = record.delivered or record.phase == "failed"
    return ended and record.submitted_at is not None and now - record.submitted_at >= older_than


class JournalFolder:
    """The places of one journal's folder (`folder_place`).

    Args:
        url: fsspec URL or plain path of the folder.
        options: fsspec storage options; never recorded.

    Raises:
        ConfigurationError: The URL cannot be opened; the message names what is missing.
    """

    def __init__(self, url: str | os.PathLike[str], options: StorageOptions | None = None) -> None:
        self._fs, path = source_filesystem(url, options)
        self._root = path.rstrip("/")
        self._claims = FolderClaims(f"{os.fspath(url).rstrip('/')}/{CLAIMS_FOLDER}", options)

    def entries(self) -> Iterator[JournalEntry]:
        """Read every place, in the order of their names; one that cannot be read says why.

        Raises:
            RecordUnreadableError: The folder may not be listed; check path and credentials.
            StorageError: The storage did not answer; run again.
        """
        folder = f"{self._root}/{JOBS_FOLDER}"
        try:
            self._fs.invalidate_cache()
            paths = sorted(str(path) for path in self._fs.find(folder))
        except FileNotFoundError:
            return
        except Exception as error:
            raise trouble(display(self._fs, folder), error, "listed", RecordUnreadableError) from None
        for path in paths:
            _, found, key = path.partition(f"{folder.lstrip('/')}/")
            if found and key.endswith(_SUFFIX) and not key.rpartition("/")[2].startswith("."):
                yield self._entry(path, key.removesuffix(_SUFFIX))

    def forget(self, entry: JournalEntry) -> None:
        """Remove the record of a place, and the log of its claim where nobody holds it.

        Args:
            entry: The entry; a rerun in its place starts anew.

        Raises:
            DestinationError: It cannot be removed; correct path or credentials.
            StorageError: The storage did not answer; run again.
        """
        path = f"{self._root}/{JOBS_FOLDER}/{entry.key}{_SUFFIX}"
        claim = key_part(entry.key)
        free = self._claims.holder(claim) is None
        try:
            self._fs.rm_file(path)
            log = f"{self._root}/{CLAIMS_FOLDER}/{claim}"
            if free and self._fs.exists(log):
                self._fs.rm(log, recursive=True)
        except FileNotFoundError:
            return  # another has done it
        except Exception as error:
            raise trouble(display(self._fs, path), error, "removed", DestinationError) from None

    def _entry(self, path: str, key: str) -> JournalEntry:
        try:
            content = read_fresh(self._fs, path)
            if content is None:
                return JournalEntry(key, None, "It was removed while the folder was read.")
            return JournalEntry(key, decoded(content, JobRecord, display(self._fs, path)))
        except RecordUnreadableError as error:
            return JournalEntry(key, None, error.message)
