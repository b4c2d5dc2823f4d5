"""The books of a scoring at its destination: their entries, what these mean, and the logs that hold them."""

from typing import Any, Generic, Literal, Self, TypeVar
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tabpfn_assets import ScoredShard
from tabpfn_operators._stored import decoded, display, names_in, read_fresh
from tabpfn_operators.claims import SKEW_SECONDS
from tabpfn_operators.errors import RecordUnreadableError, StorageError
from tabpfn_operators.exclusive import create_exclusive
from tabpfn_operators.storage import trouble

CLAIMS_FOLDER = "_claims"
#: Which plan writes here; no plan's id has that form.
DESTINATION_LOG = "_destination"
WORKERS_FOLDER = "_workers"
RESENDS_FOLDER = "_resends"

Phase = Literal["taken", "sent", "done", "free"]
State = Literal["free", "busy", "unknown", "done"]


def _nonce() -> str:
    return uuid4().hex


class _Entry(BaseModel):
    """What a worker writes once; the nonce tells it its own, where the answer to the write was lost."""

    model_config = ConfigDict(frozen=True, extra="allow", ser_json_inf_nan="strings")

    schema_version: int = 1
    owner: str
    nonce: str = Field(default_factory=_nonce)


class ShardEntry(_Entry):
    """One entry of a shard's log.

    Args:
        owner: Who wrote it; of one start of one process, never of two.
        expires_at: Epoch seconds of the owner's clock until which it may act; 0 where it has given the shard back.
        phase: `taken` before anything was sent, `sent` from right before the request on, `done` when the files are
            there, `free` where nothing was carried out.
        resends: Sendings before this one whose outcome nobody knows.
        scored: What was done, in phase `done`.
    """

    expires_at: float
    phase: Phase
    resends: int = 0
    scored: ScoredShard | None = None

    @model_validator(mode="after")
    def _done_is_told(self) -> Self:
        if self.phase == "done" and self.scored is None:
            raise ValueError("phase done names what was done")
        return self


class PlanEntry(_Entry):
    """One entry of the destination's log: which plan writes there.

    Args:
        plan_id: The plan.
        after: The plan before it, until it is sure that no worker of that one is alive.
    """

    plan_id: str
    after: str | None = None


class Worker(_Entry):
    """That a process works on a plan; replaced while it lives, removed when it leaves.

    Args:
        expires_at: Epoch seconds of its own clock until which it may act.
    """

    expires_at: float


class ResendSlot(_Entry):
    """One of the resends that a plan may have.

    Args:
        shard: Which shard was to be sent again.
        resends: Earlier sendings of it whose outcome nobody knew, without the last.
    """

    shard: int
    resends: int


def shard_state(last: ShardEntry | None, *, now: float, owner: str, skew: float = SKEW_SECONDS) -> State:
    """Decide what may be done with a shard.

    Args:
        last: The newest entry of its log; None where there is none.
        now: Epoch seconds of the reader's clock.
        owner: Who asks.
        skew: Seconds by which the reader's clock may be ahead of the owner's.

    Returns:
        `free` to take, also where the one who asks has taken it and not sent it; `busy` while another may be at work on
        it, and while a sending of one's own is under way; `unknown` where it was sent by one who is gone or does not
        know the outcome; `done`.
    """
    if last is None or last.phase == "free":
        return "free"
    if last.phase == "done":
        return "done"
    if now < last.expires_at + skew:
        return "free" if last.owner == owner and last.phase == "taken" else "busy"
    return "unknown" if last.phase == "sent" else "free"


def earlier_sendings(last: ShardEntry | None, *, owner: str) -> int:
    """Count the sendings of unknown outcome of a shard that one who had sent it has just finished.

    Args:
        last: The newest entry of its log.
        owner: Who has finished it.

    Returns:
        Sendings beside that one.
    """
    if last is None or last.owner == owner:
        return last.resends if last is not None else 0
    # Another took over and counted that sending, whose outcome is known now; theirs is not if they have sent.
    return last.resends if last.phase == "sent" else max(last.resends - 1, 0)


def uncached(fs: Any) -> Any:
    """Return the filesystem behind those that keep copies of objects (`simplecache::`)."""
    from fsspec.implementations.cached import CachingFileSystem

    while isinstance(fs, CachingFileSystem):
        fs = fs.fs
    return fs


E = TypeVar("E", bound=_Entry)


class Log(Generic[E]):
    """A log on storage: entries `<n>.json`, each created exclusively and never changed.

    It remembers the newest entry it knows, so that asking again and appending are one request each.

    Args:
        fs: The fsspec filesystem.
        path: Path of its folder.
        kind: Class of the entries.
        allow_unsafe_store: Take a store on which two may create the same entry.
    """

    def __init__(self, fs: Any, path: str, kind: type[E], *, allow_unsafe_store: bool = False) -> None:
        self._fs = fs
        self._path = path
        self._kind = kind
        self._allow_unsafe_store = allow_unsafe_store
        self.number: int | None = None
        self.entry: E | None = None

    def known(self) -> E | None:
        """Return the newest entry that is known; the storage is asked only where nothing is.

        Raises:
            RecordUnreadableError: The log is there and cannot be read; see the message.
            StorageError: The storage did not answer; run again.
        """
        return self.newest() if self.number is None else self.entry

    def newest(self) -> E | None:
        """Ask the storage, never a cache, for the newest entry; None where there is none.

        Raises:
            RecordUnreadableError: The log is there and cannot be read; see the message.
            StorageError: The storage did not answer; run again.
        """
        if self.number is None or read_fresh(self._fs, self._entry_path(self.number + 1)) is not None:
            self.prime(max((_number_of(name) for name in names_in(self._fs, self._path)), default=0))
        return self.entry

    def prime(self, number: int) -> None:
        """Take a number for that of the newest entry, as a listing had it; 0 for none.

        Args:
            number: The number.

        Raises:
            RecordUnreadableError: The entry cannot be read; see the message.
            StorageError: The storage did not answer; run again.
        """
        entry = self._read(number) if number else None
        self.number, self.entry = number, entry

    def append(self, entry: E) -> bool:
        """Create the entry behind the newest known one.

        Args:
            entry: The entry.

        Returns:
            Whether it is there; otherwise another's is, which is known now.

        Raises:
            StoreNotExclusiveError: The store cannot hold logs; the message names those that can.
            DestinationError: It cannot be written there; correct path or credentials.
            RecordUnreadableError: Another's entry cannot be read; see the message.
            StorageError: The storage did not answer, and the entry may be there.
        """
        self.known()
        number = (self.number or 0) + 1
        data = entry.model_dump_json().encode()
        path = self._entry_path(number)
        if create_exclusive(self._fs, path, data, allow_unsafe_store=self._allow_unsafe_store):
            self.number, self.entry = number, entry
            return True
        self.prime(number)
        return self.entry is not None and self.entry.nonce == entry.nonce

    def _read(self, number: int) -> E:
        path = self._entry_path(number)
        content = read_fresh(self._fs, path)
        if content is None:
            raise StorageError(f"{display(self._fs, path)} was removed while its folder was read; run again.")
        return decoded(content, self._kind, display(self._fs, path))

    def _entry_path(self, number: int) -> str:
        return f"{self._path}/{number:08d}.json"


def newest_numbers(fs: Any, path: str) -> dict[str, int]:
    """Find the newest entry of each shard by one listing.

    Args:
        fs: The fsspec filesystem.
        path: Path of the plan's folder; one that is not there is empty.

    Returns:
        Name of the shard to the number; shards without entries are not in it.

    Raises:
        RecordUnreadableError: It may not be listed; check path and credentials.
        StorageError: The storage did not answer; run again.
    """
    try:
        fs.invalidate_cache(path)
        found: list[str] = fs.find(path)
    except FileNotFoundError:
        return {}
    except Exception as error:
        raise trouble(display(fs, path), error, "listed", RecordUnreadableError) from None
    newest: dict[str, int] = {}
    for each in found:
        *_, shard, name = ["", *each.split("/")]
        newest[shard] = max(newest.get(shard, 0), _number_of(name))
    return newest


def use_slot(fs: Any, path: str, wanted: ResendSlot, most: int, *, allow_unsafe_store: bool) -> bool:
    """Use one of a plan's resends, unless all are used; the same one twice is once.

    Args:
        fs: The fsspec filesystem.
        path: Path of their folder.
        wanted: What is to be sent again.
        most: How many there are.
        allow_unsafe_store: Take a store on which two may get the same.

    Returns:
        Whether it is counted.

    Raises:
        DestinationError: It cannot be written there; correct path or credentials.
        RecordUnreadableError: One of those used cannot be read; see the message.
        StorageError: The storage did not answer; run again.
    """
    for number in range(1, most + 1):
        name = f"{path}/{number:08d}.json"
        content = read_fresh(fs, name)
        if content is None:
            if create_exclusive(fs, name, wanted.model_dump_json().encode(), allow_unsafe_store=allow_unsafe_store):
                return True
            content = read_fresh(fs, name)
        if content is None:
            raise StorageError(f"{display(fs, name)} was removed while it was read; run again.")
        slot = decoded(content, ResendSlot, display(fs, name))
        if (slot.shard, slot.resends) == (wanted.shard, wanted.resends):
            return True
    return False


def _number_of(name: str) -> int:
    digits, _, suffix = name.partition(".")
    return int(digits) if suffix == "json" and len(digits) == 8 and digits.isascii() and digits.isdigit() else 0
