"""Journals: what one place (a task of a run, a caller's `run_key`) has done, so that a rerun goes on from there."""

import hashlib
import os
import re
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from pydantic import BaseModel

from tabpfn_operators._stored import checked_name, decoded, display, read_fresh, replace
from tabpfn_operators.errors import ConfigurationError
from tabpfn_operators.storage import StorageOptions, source_filesystem

R = TypeVar("R", bound=BaseModel)

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_SLUG_LENGTH = 100
_DIGITS = 16


class Journal(Protocol[R]):
    """The newest record of one place; engines bind it to their own store."""

    def read(self) -> R | None:
        """Return the record; None only where the store says that there is none.

        Raises:
            RecordTooNewError: A newer version of this package wrote it; upgrade.
            RecordUnreadableError: There may be a record, and it cannot be read; see the message.
            StorageError: The storage did not answer; run again.
        """
        ...

    def write(self, record: R) -> None:
        """Put a record in the place of the one before.

        Args:
            record: The record.

        Raises:
            DestinationError: The store cannot be written to; correct path or credentials.
            StorageError: The storage did not answer; run again.
        """
        ...


def key_part(text: str) -> str:
    """Make one part of a journal's key of any text, such as a run id with colons or a destination URL.

    Args:
        text: Any text; it must hold no secret, since its beginning stays legible.

    Returns:
        The text itself where it is a name, otherwise its legible part and 16 hex digits of its SHA-256.
    """
    try:
        return checked_name(text)
    except ConfigurationError:
        slug = _UNSAFE.sub("_", text)[:_SLUG_LENGTH].lstrip(".") or "_"
        return f"{slug}-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:_DIGITS]}"


class FolderJournal(Generic[R]):
    """The journal of one place, as one small JSON file in a folder on any fsspec storage.

    Replaced by renaming on local disk and by one PUT on object stores, so that a reader sees the old record or the new
    one. It keeps no two writers apart; a `Claim` does.

    Args:
        url: fsspec URL or plain path of the folder.
        key: Names of the place from the outside in, such as dag, run, task and map index (`key_part` makes a name of
            any text).
        model: Class of the record; its `schema_version` is the newest that can be read.
        options: fsspec storage options; never recorded.

    Raises:
        ConfigurationError: The URL cannot be opened, or a part of the key is no name; the message says which.
    """

    def __init__(
        self, url: str | os.PathLike[str], key: Sequence[str], model: type[R], *, options: StorageOptions | None = None
    ) -> None:
        if isinstance(key, str) or not key:
            raise ConfigurationError("The key of a journal is one name or more, such as ('dag', 'run', 'task').")
        *above, last = [checked_name(part) for part in key]
        self._fs, path = source_filesystem(url, options)
        self._path = "/".join([path.rstrip("/"), *above, f"{last}.json"])
        self._model = model

    def read(self) -> R | None:
        """As `Journal.read`."""
        content = read_fresh(self._fs, self._path)
        return None if content is None else decoded(content, self._model, display(self._fs, self._path))

    def write(self, record: R) -> None:
        """As `Journal.write`."""
        replace(self._fs, self._path, record.model_dump_json().encode())


class MemoryJournal(Generic[R]):
    """A journal that ends with its process, for tests; a record comes back as it would from storage.

    Args:
        model: Class of the record.
    """

    def __init__(self, model: type[R]) -> None:
        self._model = model
        self._content: bytes | None = None

    def read(self) -> R | None:
        """As `Journal.read`."""
        return None if self._content is None else decoded(self._content, self._model, "The journal in memory")

    def write(self, record: R) -> None:
        """As `Journal.write`."""
        self._content = record.model_dump_json().encode()
