"""Taking turns, so that large bodies do not keep small requests waiting."""

import asyncio
from collections import deque

PER_PASS = 2
"""Bodies that go on in one pass of the event loop; a piece of a body is at most 256 KiB, asyncio's own size."""


class Turns:
    """Lets a few waiters go on in each pass of the event loop, in the order in which they came.

    Fifty uploads at once are no faster than four; but without turns every pass of the loop moves a piece of each of
    them, and an answer that needs several passes waits for hundreds of pieces (benchmarks/emulator_load.py).
    """

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._running = False

    async def wait(self) -> None:
        """Return when it is the caller's turn, which costs nobody anything if the caller then has nothing to do."""
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._waiting.append(turn)
        if not self._running:
            self._running = True
            loop.call_soon(self._give, loop)
        await turn

    def _give(self, loop: asyncio.AbstractEventLoop) -> None:
        for _ in range(min(PER_PASS, len(self._waiting))):
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
        self._running = bool(self._waiting)
        if self._running:
            loop.call_soon(self._give, loop)
