"""Many processes under one rate limit: a simulation of the goals, and what holds for any history of one of them."""

import heapq
import itertools
import math
import random
import types
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabpfn_operators import _messages as messages
from tabpfn_operators._retry import Outcome, RetryPolicy
from tabpfn_operators._run import run
from tabpfn_operators.errors import RateLimitedError
from tabpfn_operators.pacing import WINDOW_SECONDS, Pace, Pacing

A_MINUTE = 60
HALF_A_ROUND_TRIP = 0.02
PREDICT = messages.post("/tabpfn/predict", {}, billed=True)


# A simulation: processes that know nothing of each other, and a server with fixed windows (contract 4.3)


@dataclass
class Server:
    """Counts calls in windows of a minute, the first of which began `phase` seconds before the simulation."""

    phase: float
    allowed: int = A_MINUTE
    taken: dict[int, int] = field(default_factory=dict)

    def refuses(self, now):
        """Count a call, or return the whole seconds to wait."""
        window = int((now + self.phase) // WINDOW_SECONDS)
        if self.taken.get(window, 0) >= self.allowed:
            return max(1, math.ceil((window + 1) * WINDOW_SECONDS - self.phase - now))
        self.taken[window] = self.taken.get(window, 0) + 1
        return None


@dataclass
class Told:
    """What became of a simulation: seconds after the last start, all requests, and waits that the policy refused."""

    seconds: float = 0.0
    shards: int = 0
    requests: int = 0
    failed: int = 0


def simulate(seed, *, processes, shards, predict_seconds, starts_within):
    """Let each process predict its shards one after the other; all numbers come from the seed."""
    dice = random.Random(seed)
    draw = dice.random
    server = Server(phase=dice.uniform(0, WINDOW_SECONDS))
    paces = [Pace() for _ in range(processes)]
    left = [dice.randint(*shards) for _ in range(processes)]
    told, accepted_at, order = Told(shards=sum(left)), [0.0] * processes, itertools.count()
    events = [(dice.uniform(0, starts_within), next(order), "ask", number, None) for number in range(processes)]
    heapq.heapify(events)

    def later(seconds, what, number, fact=None):
        heapq.heappush(events, (now + seconds, next(order), what, number, fact))

    while events:
        now, _, what, number, fact = heapq.heappop(events)
        if what == "ask":
            wait = paces[number].wait(now, 0, draw)
            if wait:
                later(wait, "ask", number)
            else:
                paces[number].sent(now)
                later(HALF_A_ROUND_TRIP * draw(), "arrive", number, now)
        elif what == "arrive":
            told.requests += 1
            hint = server.refuses(now)
            if hint is None:
                accepted_at[number] = now
                later(dice.uniform(*predict_seconds), "done", number)
            else:
                later(HALF_A_ROUND_TRIP * draw(), "refused", number, (fact, hint))
        elif what == "refused":
            sent_at, hint = fact
            outcome = Outcome(answered=True, rate_limited=True, retry_after=hint, billed=True)
            wait = RetryPolicy().wait(1, outcome, elapsed=now - accepted_at[number], jitter=draw())
            told.failed += wait is None
            paces[number].refused(now, sent_at, hint, draw)
            later(0, "ask", number)
        else:
            told.seconds = now - starts_within
            left[number] -= 1
            if left[number]:
                later(0, "ask", number)
    assert not any(left)
    return told


SHARDS = [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (8, 8), (20, 20), (1, 20)]


def simulations(processes, shards):
    """Yield (name, outcome) for slow and fast predictions, and for starts at once or over half a minute."""
    durations, starts = [(0.2, 0.2), (5.0, 5.0), (0.2, 5.0)], [0.0, 3.0, 30.0]
    for seed, predict_seconds, starts_within in itertools.product(range(3), durations, starts):
        facts = {"processes": processes, "shards": shards, "predict_seconds": predict_seconds}
        name = f"simulate({seed}, {facts}, starts_within={starts_within})"
        yield name, simulate(seed, **facts, starts_within=starts_within)


@pytest.mark.parametrize("shards", SHARDS, ids=lambda shards: "-".join(map(str, shards)))
def test_fifty_processes_use_what_the_account_may_and_little_more(shards):
    for name, told in simulations(50, shards):
        print(name, told)
        assert told.failed == 0
        assert told.seconds <= 1.2 * WINDOW_SECONDS * told.shards / A_MINUTE
        assert told.requests <= 1.5 * told.shards


@pytest.mark.parametrize("shards", [(1, 1), (3, 3), (20, 20), (1, 20)], ids=lambda shards: "-".join(map(str, shards)))
def test_more_processes_than_calls_a_minute_ask_oftener_but_none_is_left_behind(shards):
    for name, told in simulations(100, shards):
        print(name, told)
        assert told.failed == 0
        assert told.seconds <= 1.25 * WINDOW_SECONDS * told.shards / A_MINUTE
        assert told.requests <= 2.25 * told.shards


def test_one_process_alone_has_the_whole_limit():
    told = simulate(1, processes=1, shards=(600, 600), predict_seconds=(0.1, 0.1), starts_within=0)
    assert told.failed == 0
    assert told.seconds <= WINDOW_SECONDS * (600 / A_MINUTE + 1)
    # One refusal in a window is what tells that it is full.
    assert told.requests <= 600 + 600 / A_MINUTE + 1


# One pace, whatever happens to it

DRAWS = st.integers(0, 2**32).map(random.Random)
STEPS = st.lists(
    st.tuples(st.floats(0, 400), st.sampled_from(["ask", "refuse"]), st.integers(1, 3600)), min_size=1, max_size=60
)
LONGEST_REST = 2 * WINDOW_SECONDS


def lived(steps, dice):
    """Let a pace send as it likes and be refused as the steps say; return it, the time, and the last hint's end."""
    pace, now, ends = Pace(), 0.0, 0.0
    for seconds, what, hint in steps:
        now += seconds
        wait = pace.wait(now, 0, dice.random)
        assert 0 <= wait <= max(ends - now, 0) + WINDOW_SECONDS
        if not wait:
            pace.sent(now)
            if what == "refuse":
                pace.refused(now, now, float(hint), dice.random)
                ends = now + hint
    return pace, now, ends


@given(STEPS, DRAWS)
def test_no_wait_is_negative_or_longer_than_the_hint_and_a_window(steps, dice):
    lived(steps, dice)


@given(STEPS, DRAWS)
def test_no_call_is_sent_before_the_servers_hint_is_over(steps, dice):
    pace, now, ends = lived(steps, dice)
    wait = pace.wait(now, 0, dice.random)
    assert now + wait >= ends - 1e-6
    assert pace.pause(now) <= 1.5 * max(ends - now, 0) + 1


@given(STEPS, DRAWS, st.integers(0, 8))
def test_every_call_has_its_turn(steps, dice, ahead):
    pace, now, ends = lived(steps, dice)
    bound = max(ends - now, 0) + (ahead + 1) * LONGEST_REST + WINDOW_SECONDS
    began = now
    for _ in range(ahead + 1):
        asked = 0
        while wait := pace.wait(now, 0, dice.random):
            now, asked = now + wait, asked + 1
            assert asked < 1000
        pace.sent(now)
    assert now - began <= bound


@given(STEPS, DRAWS)
def test_a_process_that_was_idle_for_long_begins_anew(steps, dice):
    pace, now, ends = lived(steps, dice)
    later = max(now, ends) + 4 * WINDOW_SECONDS
    assert [pace.wait(later, ahead, dice.random) for ahead in (0, 5, 500)] == [0, 0, 0]


def test_an_hours_limit_is_waited_for_and_leaves_the_share_as_it_was():
    pace, dice = Pace(), random.Random(5)
    for number in range(7):
        pace.sent(float(number))
    pace.refused(7.0, 6.0, 3600.0, dice.random)
    assert pace.wait(7.0, 0, dice.random) == 3600
    assert pace.pause(107.0) == 3500
    reset = 3607.0
    assert 0 < pace.wait(reset, 0, dice.random) <= WINDOW_SECONDS / 10
    then = reset + WINDOW_SECONDS / 10
    assert [pace.wait(then, ahead, dice.random) == 0 for ahead in range(7)] == [True] * 6 + [False]


def test_a_first_refusal_of_a_second_is_waited_for_and_says_no_more():
    pace, draw = Pace(), random.Random(5).random
    pace.sent(0.0)
    pace.refused(0.1, 0.0, 1.0, draw)
    assert 1.0 <= pace.wait(0.1, 0, draw) <= 1.5
    assert [pace.wait(1.7, ahead, draw) for ahead in (0, 500)] == [0, 0]


# The paces of one process


class Clocked:
    """A wire that only sleeps, on a clock of its own."""

    def __init__(self):
        self.now = 1000.0
        self.slept = []

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


def test_a_refusal_pauses_all_calls_that_are_counted_together_and_no_other():
    wire = Clocked()
    pacing = Pacing(clock=lambda: wire.now)
    train = messages.post("/tabpfn/prepare_train_set_upload", {})
    test = messages.post("/tabpfn/prepare_test_set_upload", {})
    draw = random.Random(3).random
    sent_at = run(pacing.turn(wire, train, draw, patience=600))
    pacing.refused(train, sent_at, 30.0, draw)
    assert run(pacing.turn(wire, PREDICT, draw, patience=600)) == 1000
    assert run(pacing.turn(wire, messages.get("/tabpfn/get_settings"), draw, patience=600)) == 1000
    assert wire.slept == []
    assert 1030 <= run(pacing.turn(wire, test, draw, patience=600)) <= 1034
    assert max(wire.slept) <= 0.2  # an interrupt is noticed in between


def test_what_follows_the_path_makes_no_rate_limit_of_its_own():
    wire, draw = Clocked(), random.Random(3).random
    pacing = Pacing(clock=lambda: wire.now)
    one, other = (messages.get(f"/tabpfn/thing?uid={number}") for number in "12")
    pacing.refused(one, run(pacing.turn(wire, one, draw, patience=600)), 5.0, draw)
    assert run(pacing.turn(wire, other, draw, patience=600)) >= 1005


def test_a_hint_beyond_the_patience_is_an_error_at_once():
    wire, draw = Clocked(), random.Random(3).random
    pacing = Pacing(clock=lambda: wire.now)
    sent_at = run(pacing.turn(wire, PREDICT, draw, patience=600))
    pacing.refused(PREDICT, sent_at, 3000.0, draw)
    with pytest.raises(RateLimitedError, match=r"takes none for 3000 s\. Run again later") as caught:
        run(pacing.turn(wire, PREDICT, draw, patience=600))
    assert caught.value.retry_after == 3000
    assert wire.slept == []
    assert 4000 <= run(pacing.turn(wire, PREDICT, draw, patience=3600)) <= 4004


def test_a_call_that_is_given_up_in_the_queue_leaves_it():
    wire, draw = Clocked(), random.Random(3).random
    pacing = Pacing(clock=lambda: wire.now)
    pacing.refused(PREDICT, run(pacing.turn(wire, PREDICT, draw, patience=600)), 50.0, draw)

    class Stopping(Clocked):
        async def sleep(self, seconds):
            raise KeyboardInterrupt

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            run(pacing.turn(Stopping(), PREDICT, draw, patience=600))
    assert 1050 <= run(pacing.turn(wire, PREDICT, draw, patience=600)) <= 1054


class Suspending:
    """A wire on which a test decides who wakes up when."""

    @types.coroutine
    def sleep(self, seconds):
        yield


def test_nobody_is_overtaken_by_a_call_that_came_later():
    now = [1000.0]
    pacing, wire = Pacing(clock=lambda: now[0]), Suspending()

    def never_more_than_the_share():
        return 0.99

    def turn():
        return pacing.turn(wire, PREDICT, never_more_than_the_share, patience=600)

    pacing.refused(PREDICT, run(turn()), 50.0, never_more_than_the_share)
    waiting = {number: turn() for number in range(3)}
    for each in waiting.values():
        each.send(None)
    served = []
    for _ in range(4 * 60 * 5):
        now[0] += 0.2
        for number in sorted(waiting, reverse=True):
            try:
                waiting[number].send(None)
            except StopIteration:
                served.append(number)
                del waiting[number]
    assert served == [0, 1, 2]
