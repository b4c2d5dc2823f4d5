"""Calls that are paced: what both wires do under rate limits, against a loopback server and the emulator."""

import random
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tabpfn_operators import _messages as messages
from tabpfn_operators import _wire
from tabpfn_operators._call import call
from tabpfn_operators._messages import Request
from tabpfn_operators._retry import RetryPolicy
from tabpfn_operators.account import get_settings
from tabpfn_operators.errors import QuotaExceededError, RateLimitedError
from tabpfn_operators.pacing import WINDOW_SECONDS, Pacing
from tabpfn_operators.quota import with_reset

SETTINGS = (200, {"max_model_limit": {"max_cols": 7}})
ROUTE = "/tabpfn/get_settings"
NAMED = "2026-12-01T00:00:00+00:00"


def limited(hint):
    return (429, {"error_code": "RATE_LIMIT_EXCEEDED", "message": "slow down"}, {"retry-after": str(hint)})


def quota(message="the daily pool is empty"):
    return (429, {"error_code": "INSUFFICIENT_QUOTA", "message": message, "trace_id": "t-1"})


def answers(*replies):
    left = list(replies)
    return lambda seen: left.pop(0) if len(left) > 1 else left[0]


class Naps:
    """A clock that only sleeping moves."""

    def __init__(self):
        self.now = 0.0
        self.longest = 0.0


@pytest.fixture
def naps(monkeypatch):
    """Let the wires sleep on this clock instead of the real one."""
    naps = Naps()

    async def sleep(self, seconds):
        naps.now += seconds
        naps.longest = max(naps.longest, seconds)

    monkeypatch.setattr(_wire.SyncWire, "sleep", sleep)
    monkeypatch.setattr(_wire.AsyncWire, "sleep", sleep)
    return naps


def paced(driver, naps=None, **changes):
    pacing = Pacing() if naps is None else Pacing(clock=lambda: naps.now)
    return replace(driver.client._session, **{"pacing": pacing, "jitter": random.Random(7).random, **changes})


# What one call does


@pytest.mark.parametrize("hint", [1, 7, 60])
def test_a_refused_call_is_sent_again_when_the_hint_is_over(loopback, drive, naps, hint):
    server = loopback(answers(limited(hint), SETTINGS))
    driver = drive(server.url)
    session = paced(driver, naps)
    assert driver.flow(lambda: get_settings(session)).max_model_limit.max_cols == 7
    assert hint <= naps.now <= hint + 3.5
    assert naps.longest <= 0.2
    assert len(server.seen) == 2


def test_a_refusal_pauses_the_next_call_of_that_route_and_no_other(loopback, drive, naps):
    server = loopback(lambda seen: limited(30) if seen.path == ROUTE and naps.now < 30 else SETTINGS)
    driver = drive(server.url)
    session = paced(driver, naps)
    impatient = replace(session, policy=RetryPolicy(budget=5))
    for _ in range(2):
        with pytest.raises(RateLimitedError) as caught:
            driver.flow(lambda: get_settings(impatient))
        assert caught.value.retry_after == 30
    assert server.paths() == [ROUTE]  # the second was not sent
    driver.flow(lambda: call(session, messages.get("/tabpfn/other")))
    assert naps.now == 0
    driver.flow(lambda: get_settings(session))
    assert 30 <= naps.now <= 33.5
    assert server.paths() == [ROUTE, "/tabpfn/other", ROUTE]


def test_the_limit_of_an_hour_is_waited_for_where_the_budget_allows(loopback, drive, naps):
    server = loopback(answers(limited(3000), SETTINGS))
    driver = drive(server.url)
    session = paced(driver, naps, policy=RetryPolicy(budget=4000))
    driver.flow(lambda: get_settings(session))
    assert 3000 <= naps.now <= 3003.5


def test_the_limit_of_an_hour_is_an_error_where_it_does_not(loopback, drive, naps):
    server = loopback(lambda seen: limited(3000))
    driver = drive(server.url)
    session = paced(driver, naps)
    with pytest.raises(RateLimitedError) as caught:
        driver.flow(lambda: get_settings(session))
    assert caught.value.retry_after == 3000
    assert naps.now == 0


def test_a_route_that_takes_nothing_any_more_is_given_up(loopback, drive, naps, monkeypatch):
    # The budget's clock is the real one; a server that refuses for ever must meet the end of it.
    monkeypatch.setattr("tabpfn_operators._call.time", SimpleNamespace(monotonic=lambda: naps.now))
    server = loopback(lambda seen: limited(20))
    driver = drive(server.url)
    session = paced(driver, naps)
    with pytest.raises(RateLimitedError):
        driver.flow(lambda: get_settings(session))
    assert 500 <= naps.now <= 600 + 2 * WINDOW_SECONDS
    assert len(server.seen) > 2


def test_a_refusal_without_a_time_is_waited_for_too(loopback, drive, naps):
    refusal = (429, {"error_code": "RATE_LIMIT_EXCEEDED", "message": "slow down"})
    server = loopback(answers(refusal, refusal, SETTINGS))
    driver = drive(server.url)
    session = paced(driver, naps)
    driver.flow(lambda: get_settings(session))
    assert naps.now >= 2
    assert len(server.seen) == 3


def test_the_watch_is_told_when_the_turn_has_come_and_not_before(loopback, drive, naps):
    class Notes:
        def __init__(self):
            self.told = []

        async def sending(self):
            self.told.append(("sending", naps.now >= 30))

        async def not_carried_out(self):
            self.told.append(("not carried out", naps.now >= 30))

    notes = Notes()
    driver = drive(loopback(answers(limited(30), SETTINGS)).url)
    session = paced(driver, naps)
    driver.flow(lambda: call(session, messages.get(ROUTE), watch=notes))
    assert notes.told == [("sending", False), ("not carried out", False), ("sending", True)]


def test_other_failures_wait_as_they_did(loopback, drive, naps):
    server = loopback(answers((503, {"message": "busy"}), SETTINGS))
    driver = drive(server.url)
    session = paced(driver, naps, jitter=lambda: 0.5)
    driver.flow(lambda: get_settings(session))
    assert naps.now == 0.25  # half of the first wait, by one sleep of the policy
    assert naps.longest == 0.25
    driver.flow(lambda: get_settings(session))
    assert naps.now == 0.25


def test_storage_is_not_paced_and_its_address_not_kept(loopback, drive, naps):
    server = loopback(answers((429, b""), (200, b"")))
    driver = drive(server.url)
    session = paced(driver, naps, jitter=lambda: 0.5)
    driver.flow(lambda: call(session, Request("GET", f"{server.url}/signed-secret", "GET", bearer=False)))
    assert len(server.seen) == 2
    assert "signed-secret" not in str(vars(session.pacing))


# An empty pool


def test_an_empty_pool_is_no_rate_limit(loopback, drive, naps):
    server = loopback(answers(quota(), SETTINGS))
    driver = drive(server.url)
    session = paced(driver, naps)
    with pytest.raises(QuotaExceededError):
        driver.flow(lambda: get_settings(session))
    driver.flow(lambda: get_settings(session))
    assert naps.now == 0


def empty(driver, session):
    with pytest.raises(QuotaExceededError) as caught:
        driver.flow(lambda: get_settings(session))
    assert caught.value.reset_at is None
    return driver.flow(lambda: with_reset(session, caught.value))


def usage(seen, answer, message="the daily pool is empty"):
    return answer if seen.path == "/get_api_usage/" else quota(message)


def test_the_usage_tells_when_the_pool_resets(loopback, drive, naps):
    server = loopback(lambda seen: usage(seen, (200, {"current_usage": 5, "reset_time": NAMED})))
    driver = drive(server.url)
    session = paced(driver, naps)
    error = empty(driver, session)
    assert error.reset_at == NAMED
    assert error.message.endswith(f"It resets at {NAMED}.")
    assert (error.status, error.code, error.trace_id) == (429, "INSUFFICIENT_QUOTA", "t-1")
    assert driver.flow(lambda: with_reset(session, error)) is error
    assert server.paths() == [ROUTE, "/get_api_usage/"]


def test_a_refusal_that_names_the_reset_needs_no_question(loopback, drive, naps):
    server = loopback(lambda seen: usage(seen, None, f"The monthly pool is empty. It resets at {NAMED}."))
    driver = drive(server.url)
    error = empty(driver, paced(driver, naps))
    assert error.reset_at == NAMED
    assert error.message.count(NAMED) == 1
    assert server.paths() == [ROUTE]


@pytest.mark.parametrize(
    "answer", [(500, {}), (200, {"current_usage": 5}), (200, b"<html>"), (429, {"message": "x"}), None]
)
def test_where_nobody_knows_the_reset_the_error_stays_as_it_is(loopback, drive, naps, answer):
    server = loopback(lambda seen: usage(seen, answer))
    driver = drive(server.url)
    error = empty(driver, paced(driver, naps))
    assert error.reset_at is None
    assert "resets at" not in error.message
    assert len(server.seen) == 2  # one look, no more
    assert naps.now == 0


# Against the emulator, in real time


def test_a_pool_of_the_emulator_names_its_reset(tabpfn_emulator, drive):
    driver = drive(tabpfn_emulator.url, tabpfn_emulator.token)
    session = paced(driver)
    tabpfn_emulator.control.inject(kind="quota", route=ROUTE)
    error = empty(driver, session)
    assert error.reset_at == driver("get_api_usage").reset_time
    assert f"It resets at {error.reset_at}." in str(error)


def test_many_callers_get_through_the_emulators_refusals(tabpfn_emulator, drive):
    driver = drive(tabpfn_emulator.url, tabpfn_emulator.token)
    session = paced(driver)
    tabpfn_emulator.control.inject(kind="rate_limit", seconds=1, route=ROUTE, skip=5, times=3)
    found = driver.flow(lambda: session.wire.gather([lambda: get_settings(session)] * 30, 4))
    assert len(found) == 30
    statuses = [row["status"] for row in tabpfn_emulator.journal(route=ROUTE)]
    assert sorted(statuses) == [200] * 30 + [429] * 3


def test_an_error_in_a_sibling_ends_a_paused_caller(loopback, drive):
    def reply(seen):
        if seen.path == "/tabpfn/broken":
            time.sleep(0.3)  # until the other has been refused
            return (400, {"message": "no"})
        return limited(300)

    server = loopback(reply)
    driver = drive(server.url)
    session = paced(driver)
    thunks = [lambda: call(session, messages.get("/tabpfn/broken")), lambda: get_settings(session)]
    with pytest.raises(Exception, match="no"):
        driver.flow(lambda: session.wire.gather(thunks, 2))
    assert server.paths().count(ROUTE) <= 1


def test_processes_that_know_nothing_of_each_other_share_small_windows(loopback, drive):
    """Six paces, one account: 8 calls in each window of 2 s, counted as the service counts (contract 4.3)."""
    window, allowed, taken, refused = 2.0, 8, {}, []

    def reply(seen):
        now = time.monotonic()
        number = int(now // window)
        if taken.setdefault(number, 0) >= allowed:
            refused.append(now)
            return limited(max(1, -int(-((number + 1) * window - now) // 1)))
        taken[number] += 1
        return SETTINGS

    server = loopback(reply)
    driver = drive(server.url)
    sessions = [replace(driver.client._session, pacing=Pacing(window_seconds=window)) for _ in range(6)]

    async def shards(session):
        return [await get_settings(session) for _ in range(2)]

    found = driver.flow(
        lambda: sessions[0].wire.gather([lambda session=session: shards(session) for session in sessions], 6)
    )
    print(taken, len(refused))
    assert [len(each) for each in found] == [2] * 6
    # Each may be refused once to learn of the limit, and once in a window that follows.
    assert len(refused) <= 6 * len(taken)
    assert max(taken.values()) <= allowed
