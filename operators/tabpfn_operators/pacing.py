"""Pacing: many callers, and many processes that know nothing of each other, share one account's rate limit.

The server counts calls in fixed windows (contract 4.3): a refusal tells when the window ends, and what a process got
through before it was refused is its share of the limit. So after a first refusal a process sends its share at the
beginning of each window, now and then tries for more, and is silent for the rest (docs/design/pacing.md).
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable

from tabpfn_operators._group import SLICE_SECONDS
from tabpfn_operators._messages import Request
from tabpfn_operators._run import Wire
from tabpfn_operators.errors import RateLimitedError

#: Seconds of a window of the published limits; those of an hour end with one of these (contract 4.3).
WINDOW_SECONDS = 60.0
#: Processes begin a window within this part of it, so that they do not all call in the same instant.
_SPREAD = 0.05
#: A trial for more than the share begins in this part of a window, when the shares of all have been sent.
_TRIAL_FROM, _TRIAL_TO = 0.2, 0.4
#: A trial goes on with a call for each of these parts of a window, until one is refused.
_TRIAL_STEP = 1 / 60
#: How probable a trial is after a refusal: less leaves freed capacity unused, more is refused too often (measured:
#: tests/tabpfn_operators/test_pacing.py). It doubles in each window that leaves calls waiting and refuses none.
_TRIAL = 0.45
#: A first refusal that leaves less than this part of a window says nothing of shares; it is only waited for.
_BRIEF = 1 / 60
#: How probable it is that a process leaves a window out after two or more that took none of its calls.
_SKIP = 0.5
#: After so many windows without a call a process forgets its share.
_FORGET_WINDOWS = 3
#: Calls that are counted together although their routes differ (contract 4.3).
_COUNTED_TOGETHER = {
    "/tabpfn/prepare_train_set_upload": "upload",
    "/tabpfn/prepare_test_set_upload": "upload",
    "/tabpfn/submit_fit_job": "fit",
    "/tabpfn/fit": "fit",
}

#: Source of random numbers in [0, 1).
Draw = Callable[[], float]


class Pace:
    """What one process knows of one rate limit; a state machine without a clock, without chance of its own.

    Args:
        window_seconds: Seconds of a window.
    """

    def __init__(self, window_seconds: float = WINDOW_SECONDS) -> None:
        self._window = window_seconds
        self._sent: deque[float] = deque()
        self._forget()

    def _forget(self) -> None:
        self._known = False
        self._ends = 0.0
        self._opens = 0.0
        self._trial_at = math.inf
        self._share = 0
        self._spread = 0.0
        self._refused = False
        self._brief = False
        self._pressed = False
        self._misses = 0
        self._skips = False
        self._trial = _TRIAL

    def wait(self, now: float, ahead: int, draw: Draw) -> float:
        """Tell how long a call has to wait.

        Args:
            now: Seconds of any clock that only goes forward.
            ahead: Calls that wait already and go first.
            draw: Source of random numbers.

        Returns:
            0.0 to send now (then call `sent`); else seconds after which to ask again, at most what the server's hint
            leaves, or one window.
        """
        if self._known and now >= self._ends:
            self._turn_window(now, draw)
        if not self._known:
            return 0.0
        if now < self._opens:
            return self._opens - now
        later = self._ends
        if not self._refused:
            trials = 0
            if now >= self._trial_at:
                step = self._window * _TRIAL_STEP
                trials = int((now - self._trial_at) / step) + 1
                later = self._trial_at + trials * step
            elif self._trial_at < self._ends:
                later = self._trial_at
            if self._counted(self._ends - self._window, math.inf) + ahead < self._room() + trials:
                return 0.0
        self._pressed = True
        # A float's distance to the end may round to nothing, which would mean "now".
        return max(min(later, self._ends) - now, self._window * 1e-6)

    def pause(self, now: float) -> float:
        """Return the seconds that are left of what the server asked to wait; 0.0 where it did not."""
        return max(0.0, self._ends - now) if self._known and self._refused else 0.0

    def sent(self, now: float) -> None:
        """Count a call that is being sent."""
        self._sent.append(now)
        while self._sent[0] < now - 2 * self._window:
            self._sent.popleft()

    def refused(self, now: float, sent_at: float, seconds: float, draw: Draw) -> None:
        """Learn from a refusal: when the window ends, and what came through of it.

        Args:
            now: Seconds of the clock.
            sent_at: What `sent` was told of the call that is refused.
            seconds: Seconds that the server asked to wait.
            draw: Source of random numbers.
        """
        if self._known and now >= self._ends:
            self._turn_window(now, draw)
        if sent_at in self._sent:
            self._sent.remove(sent_at)
        first = self._brief or not self._known
        self._known = self._refused = True
        self._brief = first and seconds <= self._window * _BRIEF
        if self._brief:
            self._ends = now + seconds * (1 + draw() / 2)
            return
        # Of two refusals in one window the earlier one may have been the exact one; either is late by a second at most.
        self._ends = now + seconds
        self._opens = now
        self._spread = min(self._window * _SPREAD, seconds / 2)
        if seconds > self._window:
            # The limit of an hour says nothing of the share of a minute, but the minute before it does.
            self._share = max(self._share, self._counted(now - self._window, math.inf))
        else:
            self._share = self._counted(self._ends - self._window, math.inf)
        if not first:
            self._trial = _TRIAL

    def _turn_window(self, now: float, draw: Draw) -> None:
        passed = int((now - self._ends) // self._window) + 1
        if passed >= _FORGET_WINDOWS or self._brief:
            self._forget()
            return
        got = self._counted(self._ends - self._window, self._ends)
        if self._refused:
            self._misses = 0 if self._share else self._misses + 1
            self._skips = self._misses > 1 and draw() < _SKIP
        else:
            self._share = max(self._share, got)
            self._misses = 0 if got else self._misses
            self._skips = False
            self._trial = min(1.0, 2 * self._trial) if self._pressed else self._trial
            self._spread = self._window * _SPREAD
        self._ends += passed * self._window
        self._refused = self._pressed = False
        start = self._ends - self._window
        # Who went without comes earlier, so that nobody goes without for long.
        self._opens = start + draw() * self._spread / (1 + self._misses)
        where = _TRIAL_FROM + (_TRIAL_TO - _TRIAL_FROM) * draw()
        tries = not self._skips and draw() < self._trial
        self._trial_at = start + self._window * where if tries else math.inf

    def _room(self) -> int:
        return 0 if self._skips else max(self._share, 1)

    def _counted(self, since: float, until: float) -> int:
        return sum(since <= at < until for at in self._sent)


class _Lane:
    """Pace and queue of the calls that are counted together."""

    def __init__(self, window_seconds: float, now: float) -> None:
        self.pace = Pace(window_seconds)
        self.queue: list[object] = []
        self.accepted_at = now


class Pacing:
    """The paces of one account, shared by all threads and tasks of a process; one refusal pauses all of them.

    Args:
        window_seconds: Seconds of the server's windows.
        clock: Seconds that only go forward.
    """

    def __init__(self, window_seconds: float = WINDOW_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._window = window_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._lanes: dict[str, _Lane] = {}

    async def turn(self, wire: Wire, request: Request, draw: Draw, *, patience: float) -> float:
        """Wait until a call may be sent, behind those that wait already.

        Args:
            wire: What waits; in slices, so that an interrupt or a sibling's failure ends the wait.
            request: The call.
            draw: Source of random numbers.
            patience: Seconds of a server's hint that are waited for, at most.

        Returns:
            When it is sent, for `refused`.

        Raises:
            RateLimitedError: An earlier call was told to wait for longer than that; run again later.
        """
        ticket = object()
        lane = self._lane(request)
        try:
            while True:
                with self._lock:
                    now = self._clock()
                    ahead = lane.queue.index(ticket) if ticket in lane.queue else len(lane.queue)
                    seconds = lane.pace.wait(now, ahead, draw)
                    if not seconds:
                        lane.pace.sent(now)
                        return now
                    pause = lane.pace.pause(now)
                    if ticket not in lane.queue:
                        lane.queue.append(ticket)
                if pause > patience:
                    raise RateLimitedError(
                        f"{request.label}: an earlier call was refused because there were too many, and the server "
                        f"takes none for {math.ceil(pause)} s. Run again later.",
                        retry_after=float(math.ceil(pause)),
                    )
                await wire.sleep(min(seconds, SLICE_SECONDS))
        finally:
            with self._lock:
                if ticket in lane.queue:
                    lane.queue.remove(ticket)

    def refused(self, request: Request, sent_at: float, seconds: float, draw: Draw) -> None:
        """Pause all callers of a route that refused one for its rate.

        Args:
            request: The call.
            sent_at: What `turn` returned.
            seconds: Seconds that the server asked to wait.
            draw: Source of random numbers.
        """
        lane = self._lane(request)
        with self._lock:
            lane.pace.refused(self._clock(), sent_at, seconds, draw)

    def accepted(self, request: Request) -> None:
        """Note that a route takes calls."""
        lane = self._lane(request)
        with self._lock:
            lane.accepted_at = self._clock()

    def stalled(self, request: Request) -> float:
        """Return the seconds since a route has last taken a call of this process."""
        lane = self._lane(request)
        with self._lock:
            return self._clock() - lane.accepted_at

    def _lane(self, request: Request) -> _Lane:
        path = request.url.partition("?")[0]
        key = _COUNTED_TOGETHER.get(path, f"{request.method} {path}")
        with self._lock:
            return self._lanes.setdefault(key, _Lane(self._window, self._clock()))
