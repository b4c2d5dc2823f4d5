"""Places: where one piece of work is remembered, so that a retry, a restart or another machine goes on from there."""

import os
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self
from uuid import uuid4

from tabpfn_assets import JobRecord
from tabpfn_operators._call import log
from tabpfn_operators.claims import Claim, FolderClaims, Lease
from tabpfn_operators.errors import ConfigurationError, TabPFNError
from tabpfn_operators.journal import FolderJournal, Journal, key_part
from tabpfn_operators.storage import StorageOptions

#: Seconds that a lease lives; it is renewed at a third of that (design.md, Where the Journal lives).
LEASE_SECONDS = 30.0
#: Seconds that the end of a hold waits for the storage.
_RELEASE_SECONDS = 5.0
JOBS_FOLDER = "jobs"
CLAIMS_FOLDER = "claims"


@dataclass(frozen=True)
class Place:
    """Where one logical fit is remembered: one task of one run, or one `run_key`.

    Args:
        name: What messages call it, and the key of its claim; it holds no secret.
        journal: What was done there.
        claim: Keeps two workers from doing it at once; without one a lease in the journal's record does so nearly.
        generation: How often a person asked for it anew: `ti.max_tries` in Airflow, None where nothing counts.
        lease_seconds: Seconds after which a worker that was killed counts as gone.
    """

    name: str
    journal: Journal[JobRecord] = field(repr=False)
    claim: Claim | None = field(default=None, repr=False)
    generation: int | None = None
    lease_seconds: float = LEASE_SECONDS


def folder_place(
    url: str | os.PathLike[str],
    key: str | Sequence[str],
    *,
    generation: int | None = None,
    options: StorageOptions | None = None,
    allow_unsafe_store: bool = False,
    lease_seconds: float = LEASE_SECONDS,
) -> Place:
    """Keep a place in a folder on any storage that creates exclusively: local disk, S3, Google Cloud Storage, Azure.

    Args:
        url: fsspec URL or plain path of the folder; all places may share one.
        key: Names the place: a `run_key`, or parts from the outside in such as dag, run, task, map index. Any text
            without secrets will do; parts that are empty do not count.
        generation: As in `Place`.
        options: fsspec storage options; never recorded.
        allow_unsafe_store: Take a store on which two workers may both get the claim.
        lease_seconds: As in `Place`.

    Returns:
        The place; nothing is written yet.

    Raises:
        ConfigurationError: The URL cannot be opened, or the key is empty; the message says which.
    """
    named: Any = key  # these come from configurations, and may be anything
    names = [named] if isinstance(named, str) else list(named) if isinstance(named, Sequence) else []
    parts = [key_part(str(part)) for part in names if part != ""]
    if not parts:
        raise ConfigurationError("A place needs a key, for instance run_key='churn/2026-11-21'.")
    given: Any = url  # a configuration may hold anything
    if not isinstance(given, str | os.PathLike) or not str(given).strip():
        raise ConfigurationError("A journal needs a folder: pass its path or fsspec URL.")
    root = os.fspath(url).rstrip("/")
    return Place(
        name=key_part("/".join(parts)),
        journal=FolderJournal(f"{root}/{JOBS_FOLDER}", parts, JobRecord, options=options),
        claim=FolderClaims(f"{root}/{CLAIMS_FOLDER}", options, allow_unsafe_store=allow_unsafe_store),
        generation=generation,
        lease_seconds=lease_seconds,
    )


def new_owner() -> str:
    """Name this start of this process, as a lease needs it."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:12]}"


class Hold:
    """A place in hand: its lease is renewed in a thread of its own, whatever else goes on, from `begin` to `end`.

    Args:
        place: The place.
        owner: Who holds it, see `new_owner`.
        lease: The claim's lease; None where the place has no claim.
    """

    def __init__(self, place: Place, owner: str, lease: Lease | None) -> None:
        self.owner = owner
        self._place = place
        self._expires_at = None if lease is None else lease.expires_at
        self._intent: JobRecord | None = None
        self._seen: JobRecord | None = None
        self._has_read = False
        self._lock = threading.RLock()
        self._renewing = threading.Lock()
        self._ended = threading.Event()
        self._lost = False
        self._thread = threading.Thread(target=self._keep, name="tabpfn-lease", daemon=True)

    @classmethod
    def take(cls, place: Place, owner: str) -> Self | None:
        """Take a place in hand.

        Args:
            place: The place.
            owner: Who asks.

        Returns:
            The hold; None where another has it.

        Raises:
            StoreNotExclusiveError: The store cannot keep two workers apart; the message names those that can.
            StorageError: The storage did not answer; run again.
        """
        if place.claim is None:
            return cls(place, owner, None)
        lease = place.claim.acquire(place.name, owner, place.lease_seconds)
        return None if lease is None else cls(place, owner, lease)

    def begin(self) -> None:
        """Renew the lease from now on."""
        self._thread.start()

    def end(self) -> None:
        """Give the lease back, and wait a little for that; one that is not given back expires."""
        self.abandon()
        self._thread.join(_RELEASE_SECONDS)

    def abandon(self) -> None:
        """Give the lease back without waiting for it."""
        self._ended.set()

    @property
    def lasts(self) -> bool:
        """Whether the lease is still in force by this machine's clock."""
        return not self._lost and (self._expires_at is None or time.time() < self._expires_at)

    def read(self) -> JobRecord | None:
        """As `Journal.read`."""
        self._seen, self._has_read = self._place.journal.read(), True
        return self._seen

    def confirm(self) -> bool:
        """Tell whether the place is still in hand, and ask the claim where the clock says that the lease is over.

        A process that was stopped for longer than a lease goes on with its work if nobody has taken that over. Without
        a claim the place is in hand until another has written there.

        Raises:
            RecordUnreadableError: There may be a record, and it cannot be read; see the message.
            StorageError: The storage did not answer; run again.
        """
        if self._place.claim is None:
            return self._is_unchanged()
        return self.lasts or self._renew()

    def intend(self, record: JobRecord) -> None:
        """Write down that the request is about to be sent; without a claim its lease is renewed until `settle`.

        Args:
            record: The record in phase `intent`.
        """
        with self._lock:
            intent = record.model_copy(update={"owner": self.owner})
            self._write_intent(intent)
            self._intent = intent

    def settle(self, record: JobRecord) -> bool:
        """Write down what came of it.

        Args:
            record: The record in any other phase.

        Returns:
            Whether it was written; not where another has taken the place over and gone on there.

        Raises:
            DestinationError: The journal cannot be written to; correct path or credentials.
            StorageError: The storage did not answer; run again.
        """
        with self._lock:
            self._intent = None
            if not self.confirm() and not self._has_intent():
                return False
            self._write(record)
            return True

    def doubt_if_lost(self, record: JobRecord) -> None:
        """Put in doubt what was settled by a process that was stopped until another had taken the place over.

        Its record may have come over one of the other's, and would have a fit submitted that is there already.

        Args:
            record: What was settled.

        Raises:
            DestinationError: The journal cannot be written to; correct path or credentials.
            StorageError: The storage did not answer; run again.
        """
        if not self.confirm() and self._place.journal.read() == record:
            self.intend(record.model_copy(update={"phase": "intent"}))

    def _is_unchanged(self) -> bool:
        with self._lock:  # a renewal in between would look like another's record
            return (
                not self._has_read
                or self._place.journal.read() == self._seen
                or (self._intent is not None and self._has_intent())
            )

    def _has_intent(self) -> bool:
        """Tell whether the intent written here is still the newest record: whoever took over has left it in doubt."""
        record = self._place.journal.read()
        return record is not None and record.phase == "intent" and record.owner == self.owner

    def _write_intent(self, intent: JobRecord) -> None:
        expires_at = time.time() + self._place.lease_seconds
        self._write(intent.model_copy(update={"lease_expires_at": expires_at}))

    def _write(self, record: JobRecord) -> None:
        self._place.journal.write(record)
        self._seen, self._has_read = record, True

    def _renew(self) -> bool:
        """Extend the lease; False where it is lost, for good."""
        claim = self._place.claim
        # One at a time: of two renewals at once the second is refused, which looks like a loss.
        with self._renewing:
            if claim is None or self._lost:
                return not self._lost
            lease = claim.renew(self._place.name, self.owner, self._place.lease_seconds)
            if lease is None:
                self._lost = True
            else:
                self._expires_at = lease.expires_at
            return not self._lost

    def _keep(self) -> None:
        claim, name = self._place.claim, self._place.name
        while not self._ended.wait(self._place.lease_seconds / 3):
            try:
                if not self._renew():
                    return
                with self._lock:
                    # With a claim nobody looks at the record's lease, and each write is one that may come late.
                    if claim is None and self._intent is not None and self.confirm():
                        self._write_intent(self._intent)
            except TabPFNError as error:
                log.warning("The lease of %s could not be renewed: %s", name, error)
        try:
            if claim is not None:
                claim.release(name, self.owner)
        except TabPFNError as error:
            log.warning("The lease of %s was not given back and will expire: %s", name, error)
