"""One shard's log as one process knows it, and what it writes there."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from tabpfn_assets import ScoredShard
from tabpfn_operators.errors import StorageError
from tabpfn_operators.scoring._entries import Log, Phase, ShardEntry, State, shard_state

#: Entries of one's own, of which nobody was told, that an append gets over; and of others that finishing does.
APPENDS = 20


@dataclass
class Page:
    """A shard's log; whoever uses it has its lock.

    Args:
        log: The log.
        owner: Who writes.
        lease_seconds: Seconds that a lease lives.
        clock: Epoch seconds.
        skew: Seconds by which the clocks of two machines may differ.
        held: Whether the shard is in the owner's hands, as far as it knows.
    """

    log: Log[ShardEntry]
    owner: str
    lease_seconds: float
    clock: Callable[[], float]
    skew: float
    held: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)

    def state(self, last: ShardEntry | None) -> State:
        """Say what may be done with the shard, by its newest entry; it is lost where that is another's."""
        self.held = self.held and last is not None and last.owner == self.owner
        return shard_state(last, now=self.clock(), owner=self.owner, skew=self.skew)

    def lasts(self, margin: float = 0.0) -> bool:
        """Tell whether the lease is in force by this machine's clock, and for how many seconds more at least."""
        last = self.log.entry
        if not self.held or last is None or last.owner != self.owner:
            return False
        return self.clock() + margin < last.expires_at

    def append(self, phase: Phase, resends: int, *, lives: bool = True, scored: ScoredShard | None = None) -> bool:
        """Write an entry; errors are those of `Log.append`.

        Args:
            phase: What the owner says of the shard.
            resends: Sendings before whose outcome nobody knows.
            lives: Whether the lease begins anew; otherwise it is given back.
            scored: What was done, in phase `done`.

        Returns:
            Whether it is there; otherwise another's is.
        """
        # The life begins before the write: however long that takes, nobody may take over earlier than the owner stops.
        expires_at = self.clock() + self.lease_seconds if lives else 0.0
        entry = ShardEntry(owner=self.owner, expires_at=expires_at, phase=phase, resends=resends, scored=scored)
        return self.log.append(entry)

    def write(self, phase: Phase, *, lives: bool = True) -> bool:
        """Append to the log of a shard that is held.

        Arguments are those of `append`.

        Returns:
            Whether it is there; otherwise the shard is lost, for good.

        Raises:
            StorageError: The storage did not answer, or another process writes as the same owner.
        """
        for _ in range(APPENDS):
            last = self.log.entry
            if last is None or last.owner != self.owner or last.phase == "done":
                self.held = False
                return False
            # What is refused by an entry of one's own had been written by a request that had no answer.
            if self.append(phase, last.resends, lives=lives):
                return True
        raise StorageError(f"The log of a shard is written to by many as {self.owner}; run again.")

    def give_back(self, phase: Phase) -> None:
        """Let go of a shard that is held, whatever comes of writing that down; errors are those of `write`."""
        held, self.held = self.held, False
        if held:
            self.write(phase, lives=False)
