"""The ledger of a plan: who works on which shard, and that each is sent once unless the user takes the risk.

Each shard has a log whose every entry is created exclusively (as `claims` do): taken, sent, done or given back.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tabpfn_assets import ScoredShard
from tabpfn_operators._call import log
from tabpfn_operators._objects import side_by_side
from tabpfn_operators._stored import checked_name, display
from tabpfn_operators.claims import SKEW_SECONDS
from tabpfn_operators.errors import ConfigurationError, DestinationBusyError, StorageError, TabPFNError
from tabpfn_operators.scoring._entries import (
    CLAIMS_FOLDER,
    RESENDS_FOLDER,
    Log,
    Phase,
    ResendSlot,
    ShardEntry,
    State,
    earlier_sendings,
    newest_numbers,
    uncached,
    use_slot,
)
from tabpfn_operators.scoring._page import APPENDS, Page
from tabpfn_operators.scoring._plan import Shard
from tabpfn_operators.scoring._presence import LEAVE_SECONDS, Presence
from tabpfn_operators.storage import Folder

#: Seconds that a lease lives unless it is renewed, as it is at a third of that (issue 6).
LEASE_SECONDS = 60.0
#: As many are listed one by one, since a plan may have thousands of others.
_FEW = 8


@dataclass(frozen=True)
class Look:
    """What a shard's log says.

    Args:
        state: What may be done with it.
        entry: The newest entry; None where there is none. In state `done` it has `scored`.
    """

    state: State
    entry: ShardEntry | None


class Ledger:
    """The books of one plan at its destination, as one start of one process keeps them; its methods may be threaded.

    Args:
        folder: The destination.
        plan_id: The plan.
        owner: This start of this process, see `places.new_owner`.
        lease_seconds: Seconds after which a worker that was killed counts as gone.
        clock: Epoch seconds.
        skew: Seconds by which the clocks of two machines may differ.
        allow_unsafe_store: Take a store on which two workers may both get a shard.

    Raises:
        ConfigurationError: A lease without life, or a plan id that is no name.
    """

    def __init__(
        self,
        folder: Folder,
        plan_id: str,
        owner: str,
        *,
        lease_seconds: float = LEASE_SECONDS,
        clock: Callable[[], float] = time.time,
        skew: float = SKEW_SECONDS,
        allow_unsafe_store: bool = False,
    ) -> None:
        if not lease_seconds > 0:
            raise ConfigurationError(f"A lease of {lease_seconds} s has no life; pass seconds above 0.")
        self.owner = owner
        self._fs: Any = uncached(folder.fs)
        self._path = f"{folder.path}/{CLAIMS_FOLDER}/{checked_name(plan_id)}"
        self._lease_seconds = lease_seconds
        self._margin = min(SKEW_SECONDS, lease_seconds / 6)
        self._clock = clock
        self._skew = skew
        self._allow_unsafe_store = allow_unsafe_store
        self._presence = Presence(
            folder,
            plan_id,
            owner,
            lease_seconds=lease_seconds,
            clock=clock,
            skew=skew,
            allow_unsafe_store=allow_unsafe_store,
        )
        self._pages: dict[str, Page] = {}
        self._pages_lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="tabpfn-lease", daemon=True)

    def enter(self) -> None:
        """Take the destination for the plan, beside its other workers, and renew what is held from now on.

        Raises:
            DestinationBusyError: Another plan's worker is alive there; wait for it, or choose another folder.
            StoreNotExclusiveError: The store cannot keep two workers apart; the message names those that can.
            DestinationError: It cannot be written there; correct path or credentials.
            RecordUnreadableError: What stands there cannot be read; see the message.
            StorageError: The storage did not answer; run again.
        """
        self._presence.enter()
        self._thread.start()

    def leave(self) -> None:
        """Give back what is held, except what is sent: of that the outcome is not known. What fails is logged.

        Another plan may enter at once, unless other workers of this one are alive.
        """
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(LEAVE_SECONDS)
        for name, page in self._all_pages():
            if not page.lock.acquire(timeout=LEAVE_SECONDS):
                continue  # a request to the storage that hangs; the lease will expire
            try:
                if page.log.entry is not None and page.log.entry.phase == "sent":
                    page.held = False
                page.give_back("free")
            except TabPFNError as error:
                log.warning("The lease of shard %s was not given back and will expire: %s", name, error)
            finally:
                page.lock.release()
        try:
            self._presence.leave()
        except TabPFNError as error:
            log.warning("The destination was not given back, and the lease of it will expire: %s", error)

    def confirm(self) -> None:
        """Make sure that the destination is the plan's, right before something is put there; errors are `take`'s."""
        self._presence.require(self._margin)

    def look(self, shard: Shard) -> Look:
        """Ask the storage what may be done with a shard.

        Args:
            shard: The shard.

        Raises:
            RecordUnreadableError: Its log cannot be read; see the message.
            StorageError: The storage did not answer; run again.
        """
        page = self._page(shard)
        with page.lock:
            last = page.log.newest()
            return Look(page.state(last), last)

    def survey(self, shards: Sequence[Shard]) -> list[Look]:
        """Ask the storage about several shards; about more than a few by one listing of all.

        Args:
            shards: The shards.

        Returns:
            What `look` would, in order.

        Raises:
            RecordUnreadableError: A log cannot be read; see the message.
            StorageError: The storage did not answer; run again.
        """
        if len(shards) <= _FEW:
            return side_by_side(self.look, shards, self._fs)
        numbers = newest_numbers(self._fs, self._path)

        def look(shard: Shard) -> Look:
            page = self._page(shard)
            with page.lock:
                number = numbers.get(shard.name, 0)
                if page.log.number is None or page.log.number < number:
                    page.log.prime(number)
                return Look(page.state(page.log.entry), page.log.entry)

        return side_by_side(look, shards, self._fs)

    def take(self, shard: Shard, *, resend: bool = False) -> bool:
        """Take a shard that is free, by the newest entry known; `look` at it before.

        Args:
            shard: The shard.
            resend: Take it in state `unknown` too: it is then possibly charged twice.

        Returns:
            Whether it is held now; otherwise look again.

        Raises:
            DestinationBusyError: Another plan has taken the destination over; run again.
            DestinationError: It cannot be written there any more; correct path or credentials.
            RecordUnreadableError: Its log cannot be read; see the message.
            StorageError: The storage did not answer; look again.
        """
        self.confirm()
        page = self._page(shard)
        with page.lock:
            if not self._presence.lasts():
                return False
            last = page.log.known()
            state = page.state(last)
            if page.held:
                return False  # by another thread
            resends = last.resends if last is not None else 0
            if state == "unknown" and resend:
                resends += 1
            elif state != "free":
                return False
            page.held = page.append("taken", resends)
            return page.held

    def count_resend(self, shard: Shard, most: int) -> bool:
        """Use one of the resends that the plan may have, for the shard's last sending; twice for one is once.

        Args:
            shard: A shard in state `unknown`.
            most: How many the plan may have, over all its workers and reruns.

        Returns:
            Whether it may be sent again; False where all are used up.

        Raises:
            DestinationError: It cannot be written there; correct path or credentials.
            RecordUnreadableError: What stands there cannot be read; see the message.
            StorageError: The storage did not answer; run again.
        """
        last = self._page(shard).log.known()
        wanted = ResendSlot(owner=self.owner, shard=shard.index, resends=last.resends if last is not None else 0)
        path = f"{self._path}/{RESENDS_FOLDER}"
        return use_slot(self._fs, path, wanted, most, allow_unsafe_store=self._allow_unsafe_store)

    def send(self, shard: Shard) -> bool:
        """Write down that the request is about to be sent; it must be sent right then, or `free` be called.

        Args:
            shard: A shard that is held.

        Returns:
            Whether it may be sent. Not where the lease was lost or was over, as after this process stood still: look
            again then.

        Raises:
            DestinationError: It cannot be written there any more; nothing may be sent, and `free` be called.
            RecordUnreadableError: Its log cannot be read; as above.
            StorageError: The storage did not answer; as above.
        """
        page = self._page(shard)
        with page.lock:
            if not self._lasts(page):
                page.held = False
                return False
            if not page.write("sent"):
                return False
            if self._lasts(page):
                return True
            # However long the write took, nobody may act on a lease that is over; and nothing was sent yet.
            page.write("free")
            page.held = False
            return False

    def unsend(self, shard: Shard) -> bool:
        """Write down that what was sent was certainly not carried out; the shard stays in hand, to be sent again.

        Args:
            shard: A shard that is held.

        Returns:
            Whether it is still in hand.

        Raises:
            DestinationError: It cannot be written there any more; nothing may be sent, and `free` be called.
            RecordUnreadableError: Its log cannot be read; as above.
            StorageError: The storage did not answer; as above.
        """
        page = self._page(shard)
        with page.lock:
            return page.held and page.write("taken")

    def free(self, shard: Shard) -> None:
        """Give a shard back of which it is certain that nothing was carried out.

        Args:
            shard: The shard; one that is not held stays as it is.

        Raises:
            DestinationError: It cannot be written there any more; the lease will expire.
            RecordUnreadableError: Its log cannot be read; the lease will expire.
            StorageError: The storage did not answer; the lease will expire.
        """
        self._part(shard, "free")

    def doubt(self, shard: Shard) -> None:
        """Give a shard back that was sent and whose outcome is not known: at once its state is `unknown`.

        Arguments and errors are those of `free`.
        """
        self._part(shard, "sent")

    def finish(self, shard: Shard, scored: ScoredShard) -> ScoredShard:
        """Write down that a shard is done and its files are there, also where the lease was lost meanwhile.

        Args:
            shard: The shard.
            scored: What was done; `resends` is filled in from the log.

        Returns:
            What the log has: another's, where that was faster.

        Raises:
            DestinationError: It cannot be written there any more; finish again, as the shard was charged.
            RecordUnreadableError: Its log cannot be read; as above.
            StorageError: The storage did not answer; as above.
        """
        page = self._page(shard)
        with page.lock:
            for _ in range(APPENDS):
                last = page.log.known()
                if last is not None and last.scored is not None:
                    page.held = False
                    return last.scored
                resends = earlier_sendings(last, owner=self.owner)
                told = scored.model_copy(update={"resends": resends})
                page.append("done", resends, lives=False, scored=told)
        raise StorageError(f"The log of shard {shard.name} in {display(self._fs, self._path)} is written to by many.")

    def redo(self, shard: Shard) -> bool:
        """Give a shard free that is done, because its files are no longer what was written down of them.

        Args:
            shard: A shard in state `done`, as it was last looked at.

        Returns:
            Whether this call did; otherwise another has done something since, and a new look says what.

        Raises:
            DestinationError: It cannot be written there any more; correct path or credentials.
            RecordUnreadableError: Its log cannot be read; see the message.
            StorageError: The storage did not answer; look again.
        """
        page = self._page(shard)
        with page.lock:
            last = page.log.known()
            # Charged, and soon once more: the manifest names it as it does a sending of unknown outcome.
            return last is not None and last.phase == "done" and page.append("free", last.resends + 1, lives=False)

    def holds(self, shard: Shard) -> bool:
        """Tell whether a shard is in this worker's hands, by this machine's clock."""
        page = self._page(shard)
        with page.lock:
            return page.lasts() and self._presence.lasts()

    def _page(self, shard: Shard) -> Page:
        with self._pages_lock:
            if shard.name not in self._pages:
                path = f"{self._path}/{shard.name}"
                shard_log = Log(self._fs, path, ShardEntry, allow_unsafe_store=self._allow_unsafe_store)
                self._pages[shard.name] = Page(shard_log, self.owner, self._lease_seconds, self._clock, self._skew)
            return self._pages[shard.name]

    def _all_pages(self) -> list[tuple[str, Page]]:
        with self._pages_lock:
            return list(self._pages.items())

    def _lasts(self, page: Page) -> bool:
        return page.lasts(self._margin) and self._presence.lasts(self._margin)

    def _part(self, shard: Shard, phase: Phase) -> None:
        page = self._page(shard)
        with page.lock:
            page.give_back(phase)

    def _keep(self) -> None:
        present = True
        while not self._ended.wait(self._lease_seconds / 3):
            try:
                if present:
                    self._presence.renew()
            except DestinationBusyError as error:
                present = False
                log.warning("%s", error)
            except TabPFNError as error:
                log.warning("The lease of the destination could not be renewed: %s", error)
            for name, page in self._all_pages():
                try:
                    with page.lock:
                        if page.held and page.log.entry is not None:
                            page.write(page.log.entry.phase)
                except TabPFNError as error:
                    log.warning("The lease of shard %s could not be renewed: %s", name, error)
