"""Claims: one live worker per key, by leases in a log whose every entry is created exclusively.

Entry n+1 of a key is a new lease, a renewal or a release; each decides on what entry n says, and only one writer can
create n+1. So two that take over an expired lease at once, or a take-over and a late renewal, cannot both succeed
(docs/design/exclusive.md).
"""

import os
import re
import threading
import time
from abc import abstractmethod
from collections.abc import Callable
from typing import Protocol
from uuid import uuid4

from pydantic import BaseModel, ConfigDict

from tabpfn_operators._stored import checked_name, decoded, display, names_in, read_fresh
from tabpfn_operators.errors import ConfigurationError, StorageError
from tabpfn_operators.exclusive import create_exclusive
from tabpfn_operators.storage import StorageOptions, source_filesystem

#: Others wait this many seconds past the end of a lease: the difference between two machines' clocks that is forgiven.
SKEW_SECONDS = 5.0

_ENTRY = re.compile(r"(\d{8})\.json")


class Lease(BaseModel):
    """One entry of a key's log.

    Args:
        owner: Who holds it; of one start of one process, never of two.
        expires_at: Epoch seconds of the owner's clock until which it may act.
        released: Whether the owner has given it back.
        nonce: Tells the writer its own entry, where the answer to the write was lost.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    schema_version: int = 1
    owner: str
    expires_at: float
    released: bool = False
    nonce: str


def holder_of(last: Lease | None, *, now: float, skew: float = SKEW_SECONDS) -> str | None:
    """Decide who holds a key.

    Args:
        last: The newest entry; None where there is none.
        now: Epoch seconds of the reader's clock.
        skew: Seconds by which the reader's clock may be ahead of the owner's.

    Returns:
        The owner, also for `skew` seconds after the end of the lease; None when the key is free.
    """
    if last is None or last.released or now >= last.expires_at + skew:
        return None
    return last.owner


class Claim(Protocol):
    """One live worker per key. Reading it never comes from a cache; not being able to read it is an error."""

    def acquire(self, key: str, owner: str, ttl: float) -> Lease | None:
        """Take a key that is free, expired, or the owner's already.

        Args:
            key: What is to be done once: a name of 1 to 128 of `A-Za-z0-9._-`.
            owner: Unique to this start of this process, for instance host, process id and random digits.
            ttl: Seconds until the lease expires, unless renewed.

        Returns:
            The lease, to be acted on before `expires_at` only; None where another holds the key.

        Raises:
            StoreNotExclusiveError: The store cannot hold claims; the message names those that can.
            RecordUnreadableError: The log is there and cannot be read; see the message.
            StorageError: The storage did not answer; ask again, as the same owner.
        """
        ...

    def renew(self, key: str, owner: str, ttl: float) -> Lease | None:
        """Extend a lease, at a third of its life; one that has expired too, if nobody has taken it over.

        Args:
            key: The key.
            owner: As in `acquire`.
            ttl: Seconds from now.

        Returns:
            The new lease; None where it is lost, and the owner must stop.

        Raises:
            RecordUnreadableError: The log cannot be read; see the message.
            StorageError: The storage did not answer; ask again.
        """
        ...

    def release(self, key: str, owner: str) -> None:
        """Give a key back; one that another holds by now stays as it is.

        Args:
            key: The key.
            owner: As in `acquire`.

        Raises:
            RecordUnreadableError: The log cannot be read; the lease will expire.
            StorageError: The storage did not answer; the lease will expire.
        """
        ...

    def holder(self, key: str) -> Lease | None:
        """Return the lease that is in force; None when the key is free.

        Args:
            key: The key.

        Raises:
            RecordUnreadableError: The log cannot be read; see the message.
            StorageError: The storage did not answer; ask again.
        """
        ...


class _LeaseLog(Claim):
    """The operations over a log of which only the newest entry can be read, and one more be created."""

    def __init__(self, clock: Callable[[], float], skew: float) -> None:
        self._clock = clock
        self._skew = skew

    @abstractmethod
    def _last(self, key: str) -> tuple[int, Lease | None]:
        """Return number and content of the newest entry, 0 and None where there is none."""

    @abstractmethod
    def _append(self, key: str, number: int, lease: Lease) -> bool:
        """Create an entry; False where another has."""

    def acquire(self, key: str, owner: str, ttl: float) -> Lease | None:
        number, last = self._last(checked_name(key))
        if holder_of(last, now=self._clock(), skew=self._skew) not in {None, owner}:
            return None
        return self._extend(key, number, owner, ttl)

    def renew(self, key: str, owner: str, ttl: float) -> Lease | None:
        number, last = self._last(checked_name(key))
        if last is None or last.released or last.owner != owner:
            return None
        return self._extend(key, number, owner, ttl)

    def release(self, key: str, owner: str) -> None:
        number, last = self._last(checked_name(key))
        if last is not None and last.owner == owner and not last.released:
            self._append(key, number + 1, last.model_copy(update={"released": True, "nonce": uuid4().hex}))

    def holder(self, key: str) -> Lease | None:
        _, last = self._last(checked_name(key))
        return None if holder_of(last, now=self._clock(), skew=self._skew) is None else last

    def _extend(self, key: str, number: int, owner: str, ttl: float) -> Lease | None:
        if not ttl > 0:
            raise ConfigurationError(f"A lease of {ttl} s has no life; pass a ttl above 0 seconds.")
        # The life begins before the write: however long that takes, nobody may take over earlier than the owner stops.
        lease = Lease(owner=owner, expires_at=self._clock() + ttl, nonce=uuid4().hex)
        return lease if self._append(key, number + 1, lease) else None


class FolderClaims(_LeaseLog):
    """Claims in a folder on local disk, S3, Google Cloud Storage or Azure: entries `<key>/<n>.json`.

    Entries are never changed and never removed here: a late writer of a number that was removed would succeed.

    Args:
        url: fsspec URL or plain path of the folder.
        options: fsspec storage options; never recorded.
        clock: Epoch seconds.
        skew: Seconds by which two machines' clocks may differ.
        allow_unsafe_store: Take a store on which two may get the same claim.

    Raises:
        ConfigurationError: The URL cannot be opened; the message names what is missing.
    """

    def __init__(
        self,
        url: str | os.PathLike[str],
        options: StorageOptions | None = None,
        *,
        clock: Callable[[], float] = time.time,
        skew: float = SKEW_SECONDS,
        allow_unsafe_store: bool = False,
    ) -> None:
        super().__init__(clock, skew)
        self._fs, path = source_filesystem(url, options)
        self._path = path.rstrip("/")
        self._allow_unsafe_store = allow_unsafe_store

    def _last(self, key: str) -> tuple[int, Lease | None]:
        folder = f"{self._path}/{key}"
        number = max(
            (int(found[1]) for name in names_in(self._fs, folder) if (found := _ENTRY.fullmatch(name))), default=0
        )
        return number, self._read(key, number) if number else None

    def _read(self, key: str, number: int) -> Lease:
        path = self._entry(key, number)
        content = read_fresh(self._fs, path)
        if content is None:
            raise StorageError(f"{display(self._fs, path)} was removed while its folder was read; run again.")
        return decoded(content, Lease, display(self._fs, path))

    def _append(self, key: str, number: int, lease: Lease) -> bool:
        data = lease.model_dump_json().encode()
        path = self._entry(key, number)
        if create_exclusive(self._fs, path, data, allow_unsafe_store=self._allow_unsafe_store):
            return True
        # A storage client that lost the answer to its write sends it again, and is refused by its own entry.
        return self._read(key, number).nonce == lease.nonce

    def _entry(self, key: str, number: int) -> str:
        return f"{self._path}/{key}/{number:08d}.json"


class MemoryClaims(_LeaseLog):
    """Claims of one process, for tests.

    Args:
        clock: Epoch seconds.
        skew: Seconds by which the clocks of owners may differ.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time, skew: float = SKEW_SECONDS) -> None:
        super().__init__(clock, skew)
        self._logs: dict[str, list[Lease]] = {}
        self._lock = threading.Lock()

    def _last(self, key: str) -> tuple[int, Lease | None]:
        log = self._logs.get(key, [])
        return len(log), log[-1] if log else None

    def _append(self, key: str, number: int, lease: Lease) -> bool:
        with self._lock:
            log = self._logs.setdefault(key, [])
            if len(log) != number - 1:
                return False
            log.append(lease)
            return True
