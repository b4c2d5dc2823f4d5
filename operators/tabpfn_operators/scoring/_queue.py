"""Which shard is next, for several workers of one process beside those of others."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tabpfn_assets import ScoredShard
from tabpfn_operators.errors import TabPFNError
from tabpfn_operators.scoring._plan import Shard

#: Seconds between two looks at a shard that another process has.
LOOK_SECONDS = 5.0


@dataclass(frozen=True)
class Next:
    """What a worker does next.

    Args:
        shard: The shard to look at; None where there is none now.
        wait: Seconds to wait before asking again; None where there is nothing left to do.
    """

    shard: Shard | None = None
    wait: float | None = None


class Queue:
    """The shards that are not done, and what went wrong; safe for use from several threads.

    Args:
        shards: Shards to do, in the order wanted.
        clock: Seconds that only go forward.
    """

    def __init__(self, shards: Iterable[Shard], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting = deque((0.0, shard) for shard in shards)
        self._lock = threading.Lock()
        self.done: dict[int, ScoredShard] = {}
        self.failed: dict[int, TabPFNError] = {}
        self.error: TabPFNError | None = None

    def next(self) -> Next:
        """Take the next shard; one that another process had is not due before some seconds are over."""
        with self._lock:
            if self.error is not None or not self._waiting:
                return Next()
            due, shard = min(self._waiting, key=lambda each: each[0])
            wait = due - self._clock()
            if wait > 0:
                return Next(wait=wait)
            self._waiting.remove((due, shard))
            return Next(shard)

    def later(self, shard: Shard) -> None:
        """Put a shard back: another process has it."""
        with self._lock:
            self._waiting.append((self._clock() + LOOK_SECONDS, shard))

    def again(self, shard: Shard) -> None:
        """Put a shard back to be looked at at once."""
        with self._lock:
            self._waiting.append((0.0, shard))

    def finish(self, scored: ScoredShard) -> None:
        """Note that a shard is done."""
        with self._lock:
            self.done[scored.index] = scored

    def fail(self, shard: Shard, error: TabPFNError) -> None:
        """Note what keeps one shard from being done; the others go on."""
        with self._lock:
            self.failed[shard.index] = error

    def stop(self, error: TabPFNError) -> None:
        """Note what ends the call: no further shard is begun, and those under way are finished."""
        with self._lock:
            self.error = self.error or error
