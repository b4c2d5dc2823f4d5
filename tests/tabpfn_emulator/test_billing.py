"""Prices, pools and rate limits: what is charged, what is refused, and how (contract sections 4.2 and 4.3)."""

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tabpfn_emulator._books.rates import RATES, RateLimiter

MINIMUM = 10_000
THINKING = {"thinking_config": {"effort": "high"}}


@pytest.fixture
def fitted(api, cancer):
    frame, target = cancer
    return api.fit(frame.head(40), target.head(40), "classification")


@pytest.fixture
def predict(api, fitted, cancer, helpers):
    upload = api.upload_test(fitted, helpers.parquet(cancer[0].tail(2)))
    body = helpers.predict_body(fitted, upload, "classification")
    return lambda: api.post("/tabpfn/predict", body)


@pytest.fixture
def think(api, cancer, helpers):
    frame, target = cancer
    upload = api.upload_train(helpers.parquet(frame.head(40)), helpers.parquet(target.head(40).to_frame()))

    def post(route="/tabpfn/fit", upload=upload, **config):
        return api.post(route, {**helpers.nested(upload, "classification", **config), **THINKING})

    return post


def usage(api):
    return api.http.post("/get_api_usage/").raise_for_status().json()


def refusal(answer):
    return answer.status_code, answer.json()["error_code"]


def estimate(api, **dimensions):
    return api.post("/tabpfn/estimate_cost", dimensions).raise_for_status().json()["estimated_cost"]


def test_a_thinking_fit_costs_its_estimate_when_it_is_accepted(api, control, think):
    control.configure(fit_seconds=60.0)
    job = think("/tabpfn/submit_fit_job").json()
    expected = estimate(api, train_rows=40, raw_columns=30, operation="thinking_fit", thinking_effort="high")
    (creation,) = [each for each in control.creations(account=api.account) if each["kind"] == "fit_created"]
    assert (creation["charge"], creation["route"]) == (expected, "/tabpfn/submit_fit_job")
    assert creation["ids"]["fitted_train_set_id"] == job["fitted_train_set_id"]
    assert usage(api)["daily_tokens_used"] == expected > 0
    (row,) = control.journal(route="/tabpfn/submit_fit_job", account=api.account)
    assert row["charge"] == expected


def test_a_prediction_costs_its_estimate(api, control, predict):
    predict().raise_for_status()
    expected = estimate(api, train_rows=40, test_rows=2, raw_columns=30)
    assert usage(api)["current_usage"] == expected
    (creation,) = [each for each in control.creations(account=api.account) if each["kind"] == "predict_run"]
    assert creation["charge"] == expected


def test_a_hit_of_the_cache_costs_its_estimate_which_is_less(api, control, cancer, helpers):
    frame, target = cancer
    config = {"fit_mode": "fit_with_cache", "model_path": "v2.5_default"}
    fitted = api.fit(frame, target, "classification", **config)
    body = helpers.predict_body(fitted, api.upload_test(fitted, helpers.parquet(frame.tail(30))), "classification")
    body["task_config"]["tabpfn_config"] = config
    assert api.post("/tabpfn/predict", body).raise_for_status().json()["metadata"]["cache_outcome"] == "hit"
    dimensions = {"train_rows": len(frame), "test_rows": 30, "raw_columns": 30, "model_version": "v2.5"}
    (creation,) = control.creations(kind="predict_run", account=api.account)
    assert creation["charge"] == estimate(api, operation="cache_predict", **dimensions) == 7_200
    assert estimate(api, **dimensions) > 7_200


def test_a_failed_thinking_fit_is_free(api, control, think):
    control.inject({"kind": "fail_fit"})
    assert think().status_code == 500
    (creation,) = [each for each in control.creations(account=api.account) if each["kind"] == "fit_created"]
    assert creation["charge"] == 0
    assert control.journal(route="/tabpfn/fit", account=api.account)[0]["charge"] == 0
    assert usage(api)["current_usage"] == 0
    assert control.fits(account=api.account)[0]["charge"] == 0


def test_a_refused_prediction_is_free_and_no_creation(api, control, fitted, cancer, helpers):
    upload = api.upload_test(fitted, helpers.parquet(cancer[0].iloc[:2, :5]))
    assert api.post("/tabpfn/predict", helpers.predict_body(fitted, upload, "classification")).status_code == 422
    assert usage(api)["current_usage"] == 0
    assert "predict_run" not in {each["kind"] for each in control.creations(account=api.account)}


@pytest.mark.parametrize("pool", ["daily", "monthly"])
def test_an_empty_pool_is_named_with_its_reset(api, control, predict, pool):
    control.configure(**{f"{pool}_tokens": 2 * MINIMUM})
    answers = [predict() for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert refusal(answers[2]) == (429, "INSUFFICIENT_QUOTA")
    assert "retry-after" not in answers[2].headers
    message = answers[2].json()["message"]
    assert pool in message
    reset = datetime.fromisoformat(re.search(r"resets at (\S+)\.$", message)[1])
    assert reset > datetime.now(UTC)
    assert (reset.hour, reset.minute, reset.second) == (0, 0, 0)
    assert pool == "daily" or reset.day == 1
    shown = usage(api)
    assert (shown[f"{pool}_tokens_used"], shown[f"{pool}_token_limit"]) == (2 * MINIMUM, 2 * MINIMUM)


def test_a_thinking_fit_that_the_pool_does_not_hold_is_not_accepted(api, control, think):
    control.configure(daily_tokens=MINIMUM)
    assert refusal(think()) == (429, "INSUFFICIENT_QUOTA")
    assert control.fits(account=api.account) == []


def test_a_standard_fit_needs_no_pool(api, control, cancer):
    control.configure(daily_tokens=0, monthly_tokens=0)
    assert api.fit(cancer[0].head(40), cancer[1].head(40), "classification")


def test_calls_at_the_same_time_do_not_overdraw_a_pool(api, control, predict):
    predict().raise_for_status()
    control.configure(daily_tokens=5 * MINIMUM)
    with ThreadPoolExecutor(8) as threads:
        statuses = Counter(threads.map(lambda _: predict().status_code, range(12)))
    assert statuses == {200: 4, 429: 8}
    assert usage(api)["daily_tokens_used"] == 5 * MINIMUM


def test_pools_are_per_account(api, other_api, control, predict, cancer):
    control.configure(daily_tokens=MINIMUM)
    predict().raise_for_status()
    assert predict().status_code == 429
    fitted = other_api.fit(cancer[0].head(40), cancer[1].head(40), "classification")
    assert other_api.predict(fitted, cancer[0].tail(2), "classification").status_code == 200


def test_rate_limits_are_off_unless_asked_for(api):
    body = {"x_train_info": {"format": "csv"}, "y_train_info": {"format": "csv"}}
    allowed = RATES["upload"][60]
    answers = [api.post("/tabpfn/prepare_train_set_upload", body).status_code for _ in range(allowed + 1)]
    assert set(answers) == {200}


def test_too_many_thinking_fits_are_told_how_long_to_wait(api, control, think):
    control.configure(rate_limits=True, predict="constant")
    answers = [think("/tabpfn/submit_fit_job") for _ in range(2 * RATES["thinking_fit"][60] + 1)]
    refused = [answer for answer in answers if answer.status_code != 200]
    # More than twice as many as a window takes: at most one window can end in between.
    assert refused
    assert {refusal(answer) for answer in refused} == {(429, "RATE_LIMIT_EXCEEDED")}
    assert all(1 <= int(answer.headers["retry-after"]) <= 3600 for answer in refused)
    accepted = [each for each in control.creations(account=api.account) if each["kind"] == "fit_created"]
    assert len(accepted) == len(answers) - len(refused)


GROUPS = ("predict", "fit", "thinking_fit", "upload")
CALLS = st.lists(st.tuples(st.sampled_from(GROUPS), st.floats(0, 90)), max_size=300)


@settings(derandomize=True, deadline=None)
@given(CALLS, st.floats(1e9, 2e9))
def test_no_window_takes_more_than_is_published(calls, start):
    limiter, now, taken = RateLimiter(), start, Counter()
    for group, pause in calls:
        now += pause
        wait = limiter.take("account", group, now)
        counted = ("fit", "thinking_fit") if group == "thinking_fit" else (group,)
        windows = [(name, size, now // size) for name in counted for size in RATES[name]]
        full = [size for name, size, number in windows if taken[name, size, number] >= RATES[name][size]]
        assert (wait is None) == (not full)
        if wait is None:
            taken.update(windows)
        else:
            assert wait >= max(size - now % size for size in full) - 1e-6


def test_after_the_wait_the_call_is_taken():
    limiter, now = RateLimiter(), 1_000_000_030.5
    assert [limiter.take("a", "thinking_fit", now) for _ in range(10)] == [None] * 10
    wait = limiter.take("a", "thinking_fit", now)
    assert 1 <= wait <= 60
    assert limiter.take("a", "fit", now) is None
    assert limiter.take("b", "thinking_fit", now) is None
    assert limiter.take("a", "thinking_fit", now + wait) is None
