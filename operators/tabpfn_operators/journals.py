"""All places of a journal's folder: what they remember, and what may be forgotten."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tabpfn_assets import JobRecord
from tabpfn_operators._stored import decoded, display, read_fresh
from tabpfn_operators.claims import FolderClaims
from tabpfn_operators.errors import DestinationError, RecordUnreadableError
from tabpfn_operators.journal import key_part
from tabpfn_operators.places import CLAIMS_FOLDER, JOBS_FOLDER, LEASE_SECONDS, new_owner
from tabpfn_operators.resume import is_open
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
        older_than: Seconds since it was delivered, or failed.
        now: Epoch seconds.

    Returns:
        Whether it has ended (delivered or failed), leaves no other fit open, and is that old. One that is open is never
        forgotten: the fit could be created twice.
    """
    ended = (record.delivered or record.phase == "failed") and not any(map(is_open, record.superseded))
    since = record.delivered_at or record.submitted_at
    return ended and since is not None and now - since >= older_than


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
        self.url = display(self._fs, self._root)
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

    def forget(self, entry: JournalEntry, *, older_than: float) -> bool:
        """Remove the record of a place and the log of its claim, if it is still over and nobody is there.

        Args:
            entry: The entry; a rerun in its place starts anew.
            older_than: As in `is_over`, which is asked again of what the place remembers now.

        Returns:
            Whether it was removed.

        Raises:
            RecordUnreadableError: What the place remembers now cannot be read; see the message.
            DestinationError: It cannot be removed; correct path or credentials.
            StorageError: The storage did not answer; run again.
        """
        claim, owner = key_part(entry.key), new_owner()
        if self._claims.acquire(claim, owner, LEASE_SECONDS) is None:
            return False
        path = f"{self._root}/{JOBS_FOLDER}/{entry.key}{_SUFFIX}"
        record = self._entry(path, entry.key).record
        if record is None or not is_over(record, older_than=older_than, now=time.time()):
            self._claims.release(claim, owner)
            return False
        try:
            self._fs.rm_file(path)
            self._fs.rm(f"{self._root}/{CLAIMS_FOLDER}/{claim}", recursive=True)
        except FileNotFoundError:
            return False  # another has done it
        except Exception as error:
            raise trouble(display(self._fs, path), error, "removed", DestinationError) from None
        return True

    def _entry(self, path: str, key: str) -> JournalEntry:
        try:
            content = read_fresh(self._fs, path)
            if content is None:
                return JournalEntry(key, None, "It was removed while the folder was read.")
            return JournalEntry(key, decoded(content, JobRecord, display(self._fs, path)))
        except RecordUnreadableError as error:
            return JournalEntry(key, None, error.message)
