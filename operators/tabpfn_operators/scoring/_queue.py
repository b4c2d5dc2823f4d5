"""Which shard is next, for several workers of one process beside those of others."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tabpfn_assets import ScoredShard
from tabpfn_operators.errors import TabPFNError
from tabpfn_operators.scoring._plan import Shard

#: Seconds between two looks at the shards that other processes have; one listing tells of all of them.
LOOK_SECONDS = 5.0


@dataclass(frozen=True)
class Next:
    """What a worker does next; nothing, where there is nothing left to do.

    Args:
        shard: The shard to look at.
        others: The shards that other processes have, to be looked at together.
        wait: Seconds to wait before asking again.
    """

    shard: Shard | None = None
    others: tuple[Shard, ...] = ()
    wait: float | None = None


class Queue:
    """The shards that are not done, and what went wrong; safe for use from several threads.

    Args:
        shards: Shards to do, in the order wanted.
        clock: Seconds that only go forward.
    """

    def __init__(self, shards: Iterable[Shard], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting = deque(shards)
        self._others: dict[int, Shard] = {}
        self._look_at = 0.0
        self._lock = threading.Lock()
        self.done: dict[int, ScoredShard] = {}
        self.rows_done = 0
        self.failed: dict[int, TabPFNError] = {}
        self.error: TabPFNError | None = None

    def next(self) -> Next:
        """Take the next shard; where only other processes have some, look at those now and then."""
        with self._lock:
            if self.error is not None or not (self._waiting or self._others):
                return Next()
            if self._waiting:
                return Next(self._waiting.popleft())
            wait = self._look_at - self._clock()
            if wait > 0:
                return Next(wait=wait)
            self._look_at = self._clock() + LOOK_SECONDS
            return Next(others=tuple(self._others.values()))

    def later(self, shard: Shard) -> None:
        """Put a shard back: another process has it."""
        with self._lock:
            if not self._others:
                self._look_at = self._clock() + LOOK_SECONDS
            self._others[shard.index] = shard

    def again(self, shard: Shard) -> None:
        """Put a shard back to be looked at at once."""
        with self._lock:
            self._others.pop(shard.index, None)
            self._waiting.append(shard)

    def freed(self, shard: Shard) -> None:
        """Put a shard back that another process had and has no more; once, however many have looked at it."""
        with self._lock:
            if self._others.pop(shard.index, None) is not None:
                self._waiting.append(shard)

    def finish(self, scored: ScoredShard) -> None:
        """Note that a shard is done."""
        with self._lock:
            self.done[scored.index] = scored
            self.rows_done += scored.rows

    def fail(self, shard: Shard, error: TabPFNError) -> None:
        """Note what keeps one shard from being done; the others go on."""
        with self._lock:
            self.failed[shard.index] = error

    def stop(self, error: TabPFNError) -> None:
        """Note what ends the call: no further shard is begun, and those under way are finished."""
        with self._lock:
            self.error = self.error or error
