"""One plan at a time in a destination: who works on it, and how another plan takes over.

A worker first writes that it is there, then looks which plan the destination is of. Who takes over first writes that it
does, then looks whether a worker of the plan before is there. So of the two at least one sees the other, whatever the
order: the destination's log holds the plans, `_claims/<plan>/_workers/` a file of each worker, replaced while it lives.
"""

import contextlib
import hashlib
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from tabpfn_operators._objects import side_by_side
from tabpfn_operators._stored import decoded, display, is_local, names_in, read_fresh, replace
from tabpfn_operators.claims import SKEW_SECONDS
from tabpfn_operators.errors import DestinationBusyError, DestinationError, StorageError
from tabpfn_operators.exclusive import is_exclusive, require_exclusive
from tabpfn_operators.scoring._entries import (
    CLAIMS_FOLDER,
    DESTINATION_LOG,
    WORKERS_FOLDER,
    Log,
    PlanEntry,
    Worker,
    uncached,
)
from tabpfn_operators.storage import Folder, trouble

#: Looks at a destination that others take at the same time.
_LOOKS = 20
#: Seconds that leaving waits for a renewal under way.
LEAVE_SECONDS = 5.0


def alive_leases(folder: Folder, plan_id: str, *, now: float, skew: float = SKEW_SECONDS) -> list[float]:
    """Find the workers of a plan at a destination.

    Args:
        folder: The destination.
        plan_id: The plan.
        now: Epoch seconds.
        skew: Seconds by which the clocks of two machines may differ.

    Returns:
        Epoch seconds when the lease of each one that is alive ends.

    Raises:
        RecordUnreadableError: What a worker wrote cannot be read; see the message.
        StorageError: The storage did not answer; run again.
    """
    fs = uncached(folder.fs)
    path = f"{folder.path}/{CLAIMS_FOLDER}/{plan_id}/{WORKERS_FOLDER}"

    def expires_at(name: str) -> float:
        content = read_fresh(fs, f"{path}/{name}")  # None where it has just left
        return decoded(content, Worker, display(fs, f"{path}/{name}")).expires_at if content else 0.0

    names = [name for name in names_in(fs, path) if name.endswith(".json")]
    return [ends for ends in side_by_side(expires_at, names, fs) if now < ends + skew]


class Presence:
    """That this process works on a plan at a destination.

    Args:
        folder: The destination.
        plan_id: The plan.
        owner: This start of this process.
        lease_seconds: Seconds after which a worker that was killed counts as gone.
        clock: Epoch seconds.
        skew: Seconds by which the clocks of two machines may differ.
        allow_unsafe_store: Take a store on which two plans may both get the destination.
    """

    def __init__(
        self,
        folder: Folder,
        plan_id: str,
        owner: str,
        *,
        lease_seconds: float,
        clock: Callable[[], float],
        skew: float,
        allow_unsafe_store: bool,
    ) -> None:
        self._folder = folder
        self._fs: Any = uncached(folder.fs)
        self._plan_id = plan_id
        self._owner = owner
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._skew = skew
        self._allow_unsafe_store = allow_unsafe_store
        claims = f"{folder.path}/{CLAIMS_FOLDER}"
        self._log = Log(self._fs, f"{claims}/{DESTINATION_LOG}", PlanEntry, allow_unsafe_store=allow_unsafe_store)
        self._file = f"{claims}/{plan_id}/{WORKERS_FOLDER}/{hashlib.sha256(owner.encode()).hexdigest()[:32]}.json"
        self._until = 0.0
        self._lost: DestinationBusyError | None = None
        self._left = False
        self._lock = threading.Lock()

    def enter(self) -> None:
        """Take the destination for the plan, beside its other workers.

        Raises:
            DestinationBusyError: Another plan's worker is alive there; wait for it, or choose another folder.
            StoreNotExclusiveError: The store cannot keep two plans apart; the message names those that can.
            DestinationError: It cannot be written there; correct path or credentials.
            RecordUnreadableError: What stands there cannot be read; see the message.
            StorageError: The storage did not answer; run again.
        """
        if not self._allow_unsafe_store:
            require_exclusive(self._fs, self._file)
        try:
            self._make_folder()
            self._settle()
        except BaseException:
            with contextlib.suppress(Exception):
                self.leave()
            raise

    def renew(self) -> None:
        """Extend the lease; after one that was over, only if the destination is still the plan's.

        Raises:
            DestinationBusyError: Another plan has taken the destination over meanwhile, for good; run again.
            DestinationError: It cannot be written there any more; correct path or credentials.
            RecordUnreadableError: What stands there cannot be read; see the message.
            StorageError: The storage did not answer; ask again.
        """
        with self._lock:
            if self._left:
                return
            if self._lost is not None:
                raise self._lost
            until = self._beat()
            if self._until <= self._clock():  # for a moment it looked dead, however long the write took
                entered = self._log.number
                newest = self._log.newest()
                if newest is not None and self._log.number != entered:
                    self._lost = self._taken_over(newest)
                    raise self._lost
            self._until = until

    def lasts(self, margin: float = 0.0) -> bool:
        """Tell whether the lease is in force by this machine's clock, and for how many seconds more at least."""
        return self._lost is None and not self._left and self._clock() + margin < self._until

    def require(self, margin: float) -> None:
        """Make sure that the lease is in force; errors are those of `renew`."""
        if not self.lasts(margin):
            self.renew()

    def leave(self) -> None:
        """Say that this worker has ended; nothing is written afterwards.

        Raises:
            DestinationError: The storage refused; the lease will expire.
            StorageError: The storage did not answer; the lease will expire.
        """
        self._left = True  # what waits for the lock sees it
        if not self._lock.acquire(timeout=LEAVE_SECONDS):
            raise StorageError(f"{display(self._fs, self._file)} is still being written to; its lease will expire.")
        try:
            self._fs.rm_file(self._file)
        except FileNotFoundError:
            pass
        except Exception as error:
            raise trouble(display(self._fs, self._file), error, "written to", DestinationError) from None
        finally:
            self._lock.release()

    def _make_folder(self) -> None:
        if is_local(self._fs) or is_exclusive(self._fs, self._file):
            return  # made as it is written, or no folder but a part of the name
        folder = self._fs._parent(self._file)  # noqa: SLF001 - fsspec's own
        try:
            self._fs.makedirs(folder, exist_ok=True)
        except Exception as error:
            raise trouble(display(self._fs, folder), error, "written to", DestinationError) from None

    def _settle(self) -> None:
        for _ in range(_LOOKS):
            until = self._beat()
            last = self._log.newest()
            if last is None:
                self._append(self._plan_id)
            elif last.plan_id != self._plan_id:
                self._refuse_if_alive(last.plan_id)
                if last.after not in {None, self._plan_id}:  # that one was refused, or killed before it knew
                    self._refuse_if_alive(str(last.after))
                self._append(self._plan_id, after=last.plan_id)
            elif last.after is not None:
                self._refuse_if_alive(last.after)
                self._append(self._plan_id)
            else:
                self._until = until
                return
        raise StorageError(f"{self._folder.url} is taken by many at the same time; run again.")

    def _beat(self) -> float:
        until = self._clock() + self._lease_seconds
        worker = Worker(owner=self._owner, expires_at=until)
        replace(self._fs, self._file, worker.model_dump_json().encode())
        return until

    def _append(self, plan_id: str, after: str | None = None) -> None:
        self._log.append(PlanEntry(owner=self._owner, plan_id=plan_id, after=after))

    def _refuse_if_alive(self, plan_id: str) -> None:
        alive = alive_leases(self._folder, plan_id, now=self._clock(), skew=self._skew)
        if alive:
            until = max(alive)
            raise DestinationBusyError(
                f"{self._folder.url} is being written to by another scoring (plan {plan_id}), whose lease ends at "
                f"{_time(until)} unless it is renewed. Wait until it has ended, or choose another folder.",
                plan_id=plan_id,
                until=until,
            )

    def _taken_over(self, newest: PlanEntry) -> DestinationBusyError:
        return DestinationBusyError(
            f"{self._folder.url} was taken over (plan {newest.plan_id}) while this process stood still for longer than "
            "its lease. What it had finished is kept; run again when the other has ended, or choose another folder.",
            plan_id=newest.plan_id,
            until=self._clock() + self._lease_seconds,
        )


def _time(epoch_seconds: float) -> str:
    return datetime.fromtimestamp(epoch_seconds, UTC).isoformat(timespec="seconds")
