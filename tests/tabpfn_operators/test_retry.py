"""When a call is sent again: the rules of contract 2.3 as properties of one pure policy."""

import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tabpfn_operators import _messages as messages
from tabpfn_operators._messages import Request, Response
from tabpfn_operators._retry import Outcome, RetryPolicy, outcome_of

JITTER = st.floats(0, 1, exclude_max=True)
ELAPSED = st.floats(0, 1000)
ATTEMPTS = st.integers(1, 60)
POLICIES = st.builds(
    RetryPolicy,
    attempts=st.integers(1, 8),
    first_wait=st.floats(0.01, 5),
    longest_wait=st.floats(5, 60),
    budget=st.floats(1, 1000),
)
OUTCOMES = st.builds(
    Outcome,
    unsent=st.booleans(),
    answered=st.booleans(),
    passing=st.booleans(),
    rate_limited=st.booleans(),
    retry_after=st.none() | st.floats(0, 4000),
    billed=st.booleans(),
)
CODES = st.sampled_from([None, "RATE_LIMIT_EXCEEDED", "INSUFFICIENT_QUOTA", "API_LIMIT_REACHED", "USER_ERROR", "OTHER"])
STATUSES = st.sampled_from([400, 401, 403, 404, 405, 408, 409, 413, 422, 426, 429, 500, 501, 502, 503, 504, 599])


def answer(status, code=None, hint=None):
    body = json.dumps({"message": "m", "error_code": code}).encode()
    return Response(status, {} if hint is None else {"retry-after": str(hint)}, body)


BILLED = messages.post("/tabpfn/predict", {}, billed=True)
FREE = messages.get("/tabpfn/get_settings")
STORAGE = Request("PUT", "https://store/x", "PUT of part 1", bearer=False)


@given(OUTCOMES, POLICIES, ATTEMPTS, ELAPSED, JITTER)
def test_a_billed_call_is_never_resent_once_it_may_have_arrived(outcome, policy, attempt, elapsed, jitter):
    wait = policy.wait(attempt, outcome, elapsed=elapsed, jitter=jitter)
    refused_at_the_door = outcome.answered and outcome.passing and outcome.retry_after is not None
    if outcome.billed and not (outcome.unsent or outcome.rate_limited or refused_at_the_door):
        assert wait is None


@given(STATUSES, CODES, st.none() | st.integers(0, 4000), JITTER)
def test_answers_after_which_a_billed_call_is_sent_again(status, code, hint, jitter):
    outcome = outcome_of(BILLED, answer(status, code, hint))
    wait = RetryPolicy(budget=1e9).wait(1, outcome, elapsed=0, jitter=jitter)
    limited = status == 429 and code == "RATE_LIMIT_EXCEEDED"
    unknown = status == 429 and code in {None, "USER_ERROR", "OTHER"} and hint is not None and hint <= 60
    assert (wait is not None) == (limited or unknown or (status == 503 and hint is not None))


@given(STATUSES, CODES, st.none() | st.integers(0, 4000), JITTER)
def test_answers_after_which_a_free_call_is_sent_again(status, code, hint, jitter):
    outcome = outcome_of(FREE, answer(status, code, hint))
    wait = RetryPolicy(budget=1e9).wait(1, outcome, elapsed=0, jitter=jitter)
    if status != 429:
        assert (wait is not None) == (status in {408, 500, 502, 503, 504})


@given(st.sampled_from(["INSUFFICIENT_QUOTA", "API_LIMIT_REACHED"]), st.none() | st.integers(0, 60), JITTER)
def test_an_empty_pool_is_never_waited_for(code, hint, jitter):
    for request in (BILLED, FREE):
        assert RetryPolicy().wait(1, outcome_of(request, answer(429, code, hint)), elapsed=0, jitter=jitter) is None


@given(STATUSES, JITTER)
def test_an_object_store_is_asked_again_only_where_that_may_help(status, jitter):
    wait = RetryPolicy().wait(1, outcome_of(STORAGE, answer(status)), elapsed=0, jitter=jitter)
    assert (wait is not None) == (status in {408, 429, 500, 502, 503, 504})


@given(OUTCOMES, POLICIES, ATTEMPTS, ELAPSED, JITTER)
def test_the_servers_hint_is_the_earliest_time_and_jitter_only_adds(outcome, policy, attempt, elapsed, jitter):
    assume(outcome.retry_after)
    wait = policy.wait(attempt, outcome, elapsed=elapsed, jitter=jitter)
    if wait is not None:
        assert outcome.retry_after <= wait <= outcome.retry_after + min(30.0, outcome.retry_after / 2)


@given(POLICIES, ATTEMPTS, JITTER)
def test_without_a_hint_the_wait_grows_to_its_bound(policy, attempt, jitter):
    wait = policy.wait(attempt, Outcome(unsent=True), elapsed=0, jitter=jitter)
    if wait is not None:
        assert 0 <= wait <= min(policy.longest_wait, policy.first_wait * 2 ** (attempt - 1))


def test_full_jitter_spreads_many_workers():
    policy = RetryPolicy()
    waits = [policy.wait(4, Outcome(answered=True, passing=True), elapsed=0, jitter=n / 50) for n in range(50)]
    assert len(set(waits)) == 50
    assert max(waits) > 3


@given(OUTCOMES, POLICIES, ATTEMPTS, ELAPSED, JITTER)
def test_no_attempt_starts_past_the_budget(outcome, policy, attempt, elapsed, jitter):
    wait = policy.wait(attempt, outcome, elapsed=elapsed, jitter=jitter)
    assert wait is None or elapsed + wait <= policy.budget


@given(OUTCOMES, POLICIES, ATTEMPTS, ELAPSED, JITTER)
def test_attempts_are_counted_except_for_a_rate_limit(outcome, policy, attempt, elapsed, jitter):
    wait = policy.wait(attempt, outcome, elapsed=elapsed, jitter=jitter)
    if attempt >= policy.attempts and not outcome.rate_limited:
        assert wait is None


@given(POLICIES, st.integers(1, 10**6), JITTER, st.none() | st.just(0.0))
def test_a_rate_limit_counts_against_time_only_and_never_becomes_a_hot_loop(policy, attempt, jitter, hint):
    outcome = Outcome(answered=True, rate_limited=True, retry_after=hint)
    elapsed, waits = 0.0, 0
    while (wait := policy.wait(attempt, outcome, elapsed=elapsed, jitter=jitter)) is not None:
        assert wait >= 1.0
        elapsed += wait
        waits += 1
    assert elapsed <= policy.budget
    assert waits <= 210  # 1000 s in waits that grow to at least 5 s


@given(st.none() | st.floats(0, 60), st.booleans(), JITTER)
def test_what_never_left_may_always_be_sent_again(hint, billed, jitter):
    outcome = Outcome(unsent=True, billed=billed, retry_after=hint)
    assert RetryPolicy().wait(1, outcome, elapsed=0, jitter=jitter) is not None


def test_a_free_call_without_an_answer_is_sent_again_and_a_billed_one_is_not():
    assert RetryPolicy().wait(1, Outcome(), elapsed=0, jitter=0.5) is not None
    assert RetryPolicy().wait(1, Outcome(billed=True), elapsed=0, jitter=0.5) is None


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 426])
def test_what_waiting_cannot_cure_is_not_waited_for(status):
    for request in (BILLED, FREE, STORAGE):
        assert RetryPolicy().wait(1, outcome_of(request, answer(status, hint=1)), elapsed=0, jitter=0) is None
