"""One request, as both wires send it, and what a call makes of its answers."""

import json
import logging
import subprocess
import sys
import threading
import time

import pytest

from tabpfn_assets import FitParameters, TrainSet
from tabpfn_operators._call import call
from tabpfn_operators._messages import Request
from tabpfn_operators.errors import (
    ApiError,
    AsyncFitUnsupportedError,
    AuthenticationError,
    ConfigurationError,
    ConnectionFailedError,
    FitFailedError,
    OutcomeUnknownError,
    QuotaExceededError,
    RateLimitedError,
    RequestRejectedError,
    ServerError,
)

SETTINGS = {"max_model_limit": {"max_cols": 7}}
FITTED = {"fitted_train_set_id": "f-1", "status": "completed"}
REGRESSION = FitParameters(task="regression")


@pytest.fixture
def train_set():
    return TrainSet(
        train_set_upload_id="u",
        task="regression",
        target="y",
        features=(),
        rows=2,
        source={"uris": ["a.parquet"], "rows": 2},
    )


def fit(driver, train_set, **options):
    return driver("fit_train_set", train_set, parameters=REGRESSION, **options)


def submit(driver, train_set, **options):
    return driver("submit_fit_job", train_set, parameters=REGRESSION, **options)


# What is sent


def test_headers_of_a_call(loopback, drive, token):
    server = loopback(lambda seen: (200, {}))
    drive(server.url, user_agent="airflow/3.3.2")("check_token")
    (seen,) = server.seen
    assert seen.headers["authorization"] == f"Bearer {token}"
    assert seen.headers["user-agent"].startswith("tabpfn-providers/")
    assert seen.headers["user-agent"].endswith(" airflow/3.3.2")
    assert (seen.method, seen.path) == ("GET", "/protected/")


def test_a_base_url_with_a_path_keeps_it(loopback, drive):
    server = loopback(lambda seen: (200, {}))
    drive(f"{server.url}/gateway/")("check_token")
    assert server.paths() == ["/gateway/protected/"]


def test_a_token_function_is_asked_for_each_call(loopback, drive):
    tokens = iter(["token-one-1", "token-two-2"])
    server = loopback(lambda seen: (200, {}))
    driver = drive(server.url, token=lambda: next(tokens))
    driver("check_token")
    driver("check_token")
    assert [seen.headers["authorization"] for seen in server.seen] == ["Bearer token-one-1", "Bearer token-two-2"]


def test_a_proxy_is_used(loopback, drive):
    proxy = loopback(lambda seen: (200, {}))
    drive("http://api.example", allow_http=True, proxy=proxy.url)("check_token")
    assert proxy.paths() == ["http://api.example/protected/"]


def test_nothing_is_opened_before_the_first_call_and_close_is_no_end(loopback, drive):
    server = loopback(lambda seen: (200, {}))
    driver = drive(server.url)
    driver("close")
    driver("check_token")
    driver("close")
    driver("check_token")
    assert [seen.connection for seen in server.seen] == [0, 1]


def test_short_calls_share_a_connection_and_billed_ones_open_their_own(loopback, drive, train_set):
    server = loopback(lambda seen: (200, FITTED if seen.method == "POST" else {}))
    driver = drive(server.url)
    driver("check_token")
    fit(driver, train_set)
    submit(driver, train_set)
    driver("check_token")
    assert [seen.connection for seen in server.seen] == [0, 1, 2, 0]
    assert [seen.headers["connection"] for seen in server.seen] == ["keep-alive", "close", "close", "keep-alive"]


def test_a_forked_process_opens_its_own_connection(loopback):
    server = loopback(lambda seen: (200, {}))
    code = f"""
import os
from tabpfn_operators import Client
client = Client("token-1234", base_url={server.url!r})
client.check_token()
pid = os.fork()
client.check_token()
if pid == 0:
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
client.check_token()
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert sorted(seen.connection for seen in server.seen) == [0, 0, 0, 1]


# What comes back


def test_keepalive_whitespace_before_a_long_fits_answer(loopback, drive, train_set):
    def handler(seen):
        chunks = [b" " * 1000, b"\n  ", json.dumps(FITTED).encode()]
        framed = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
        return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"

    assert fit(drive(loopback(handler).url), train_set).fitted_train_set_id == "f-1"


def test_a_failure_after_keepalive_whitespace(loopback, drive, train_set):
    body = b"   " + json.dumps({"_streamed_error": True, "message": "worker lost"}).encode()
    with pytest.raises(FitFailedError, match="worker lost"):
        fit(drive(loopback(lambda seen: (200, body)).url), train_set)


def test_settings_fall_back_to_the_older_route(loopback, drive):
    def handler(seen):
        return (200, SETTINGS) if seen.path == "/tabpfn/get_model_limits" else (404, {"detail": "Not Found"})

    server = loopback(handler)
    assert drive(server.url)("get_settings").max_model_limit.max_cols == 7
    assert server.paths() == ["/tabpfn/get_settings", "/tabpfn/get_model_limits"]


@pytest.mark.parametrize("body", [{"max_model_limit": {"max_cols": "many"}}, {"max_model_limit": None}, [], b"<html>"])
def test_settings_of_another_shape_are_no_settings(loopback, drive, body):
    with pytest.raises(ServerError, match="GET /tabpfn/get_settings"):
        drive(loopback(lambda seen: (200, body)).url)("get_settings")


# No answer


def closed_port():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_server_that_is_not_there(drive, no_waiting, train_set):
    driver = drive(closed_port())
    for start in (lambda: driver("check_token"), lambda: fit(driver, train_set), lambda: submit(driver, train_set)):
        with pytest.raises(ConnectionFailedError, match="Check base_url, proxy and network"):
            start()
    assert len(no_waiting) == 3 * 4


@pytest.mark.parametrize("cut", [None, b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n  ", b"HTTP/1.1 2"])
def test_a_lost_answer_of_a_billed_call_is_unknown_and_sent_once(loopback, drive, no_waiting, train_set, cut):
    server = loopback(lambda seen: cut)
    driver = drive(server.url)
    for start in (fit, submit):
        with pytest.raises(OutcomeUnknownError, match="may have been carried out") as caught:
            start(driver, train_set, on_unknown="raise")
        assert caught.value.terminal
    assert server.paths() == ["/tabpfn/fit", "/tabpfn/submit_fit_job"]
    assert no_waiting == []


@pytest.mark.parametrize("cut", [None, b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n  "])
def test_a_lost_answer_of_a_free_call_is_asked_for_again(loopback, drive, no_waiting, cut):
    server = loopback(lambda seen: (200, SETTINGS) if len(server.seen) == 3 else cut)
    assert drive(server.url)("get_settings").max_model_limit.max_cols == 7
    assert len(server.seen) == 3


def test_a_free_call_that_is_never_answered_gives_up(loopback, drive, no_waiting):
    server = loopback(lambda seen: None)
    with pytest.raises(ConnectionFailedError, match="no answer"):
        drive(server.url)("check_token")
    assert len(server.seen) == 5


def test_a_read_timeout_of_a_billed_call_is_unknown(loopback, drive):
    release = threading.Event()
    server = loopback(lambda seen: release.wait(30) and None)
    driver = drive(server.url)
    request = Request("POST", "/tabpfn/predict", "POST /tabpfn/predict", json={}, billed=True, read_timeout=0.2)
    try:
        with pytest.raises(OutcomeUnknownError, match="ReadTimeout"):
            driver.flow(lambda: call(driver.client._session, request))
    finally:
        release.set()
    assert len(server.seen) == 1


# Idle connections


def test_connections_that_the_server_closed_meanwhile_are_no_unknown_outcome(loopback, drive, train_set, caplog):
    caplog.set_level(logging.WARNING, logger="tabpfn_operators")
    server = loopback(lambda seen: (200, FITTED if seen.method == "POST" else SETTINGS), idle_seconds=0.05)
    driver = drive(server.url)
    for _ in range(4):
        driver("get_settings")
        time.sleep(0.15)
        fit(driver, train_set, on_unknown="raise")
        submit(driver, train_set, on_unknown="raise")
        time.sleep(0.15)
    assert [path for path in server.paths() if path != "/tabpfn/get_settings"] == [
        "/tabpfn/fit",
        "/tabpfn/submit_fit_job",
    ] * 4
    assert "unknown" not in caplog.text
    assert "may have been carried out" not in caplog.text


def test_connections_that_close_as_the_request_arrives_are_none_either(loopback, drive, train_set, no_waiting):
    def handler(seen):
        if seen.nth > 1:
            return None  # the server's keep-alive time ended just now
        return (200, FITTED if seen.method == "POST" else SETTINGS)

    server = loopback(handler)
    driver = drive(server.url)
    for _ in range(4):
        driver("get_settings")
        fit(driver, train_set, on_unknown="raise")
        submit(driver, train_set, on_unknown="raise")
        driver("get_fit_status", "f-1")
    billed = [path for path in server.paths() if path in {"/tabpfn/fit", "/tabpfn/submit_fit_job"}]
    assert billed == ["/tabpfn/fit", "/tabpfn/submit_fit_job"] * 4
    assert len(server.seen) > 16  # it did close under a request


# Answers that ask for patience


def answers(*replies):
    left = list(replies)
    return lambda seen: left.pop(0) if len(left) > 1 else left[0]


LIMITED = (429, {"error_code": "RATE_LIMIT_EXCEEDED", "message": "slow down"}, {"retry-after": "7"})
BUSY = (503, {"message": "starting"}, {"retry-after": "3"})


def test_a_billed_call_is_sent_again_after_a_rate_limit_and_a_refusal_that_names_a_time(
    loopback, drive, no_waiting, train_set
):
    server = loopback(answers(LIMITED, BUSY, LIMITED, (200, FITTED)))
    assert fit(drive(server.url), train_set).status == "completed"
    assert all(wait >= hint for wait, hint in zip(no_waiting, (7, 3, 7), strict=True))


def test_a_rate_limit_does_not_use_up_attempts(loopback, drive, no_waiting):
    server = loopback(answers(*[LIMITED] * 12, (200, SETTINGS)))
    drive(server.url)("get_settings")
    assert len(no_waiting) == 12


def test_an_empty_pool_is_told_at_once(loopback, drive, no_waiting, train_set):
    quota = (429, {"error_code": "INSUFFICIENT_QUOTA", "message": "daily pool, resets 00:00 UTC"}, {"retry-after": "1"})
    server = loopback(lambda seen: quota)
    driver = drive(server.url)
    for start in (lambda: fit(driver, train_set), lambda: driver("get_settings")):
        with pytest.raises(QuotaExceededError, match="resets 00:00 UTC"):
            start()
    assert len(server.seen) == 2
    assert no_waiting == []


@pytest.mark.parametrize("status", [408, 502, 503, 504])
def test_a_gateways_answer_to_a_billed_call_is_unknown(loopback, drive, no_waiting, train_set, status):
    server = loopback(lambda seen: (status, b"<html>"))
    with pytest.raises(OutcomeUnknownError, match=f"HTTP {status}"):
        fit(drive(server.url), train_set, on_unknown="raise")
    assert len(server.seen) == 1


def test_a_server_that_stays_busy_is_no_unknown_outcome(loopback, drive, no_waiting, train_set):
    server = loopback(lambda seen: BUSY)
    with pytest.raises(ServerError, match="starting"):
        fit(drive(server.url), train_set, on_unknown="raise")
    assert len(server.seen) == 5


def test_a_failed_billed_call_is_not_repeated(loopback, drive, no_waiting, train_set):
    server = loopback(lambda seen: (500, {"error_code": "USER_ERROR", "message": "worker failed"}))
    with pytest.raises(ServerError, match="worker failed"):
        fit(drive(server.url), train_set)
    assert len(server.seen) == 1


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504])
def test_a_free_call_is_repeated(loopback, drive, no_waiting, status):
    server = loopback(answers((status, b""), (status, b""), (200, SETTINGS)))
    drive(server.url)("get_settings")
    assert len(server.seen) == 3


@pytest.mark.parametrize(
    ("status", "kind"), [(400, RequestRejectedError), (401, AuthenticationError), (422, RequestRejectedError)]
)
def test_what_is_wrong_is_asked_once(loopback, drive, no_waiting, status, kind):
    server = loopback(lambda seen: (status, {"message": "no"}))
    with pytest.raises(kind):
        drive(server.url)("get_settings")
    assert len(server.seen) == 1


def test_a_rate_limit_that_outlasts_the_budget(loopback, drive, no_waiting):
    far = (429, LIMITED[1], {"retry-after": "3600"})
    with pytest.raises(RateLimitedError) as caught:
        drive(loopback(lambda seen: far).url)("get_settings")
    assert caught.value.retry_after == 3600
    assert no_waiting == []


@pytest.mark.parametrize("status", [404, 405])
def test_a_server_without_jobs(loopback, drive, train_set, status):
    server = loopback(lambda seen: (status, {"detail": "no such route"}))
    with pytest.raises(AsyncFitUnsupportedError, match="streamed=True"):
        submit(drive(server.url), train_set)


def test_a_flat_wire_refuses_what_it_cannot_carry(loopback, drive, train_set):
    server = loopback(lambda seen: (200, FITTED))
    parameters = FitParameters(task="regression", text_handling="simple")
    with pytest.raises(ConfigurationError, match="wire=flat cannot carry text_handling"):
        drive(server.url, wire="flat")("fit_train_set", train_set, parameters=parameters)
    assert server.seen == []


# Redirects


def test_a_redirect_on_the_same_origin_is_followed(loopback, drive, token):
    def handler(seen):
        if seen.path == "/protected/":
            return (307, {}, {"location": "/moved/?a=1"})
        return (200, {})

    server = loopback(handler)
    drive(server.url)("check_token")
    assert server.paths() == ["/protected/", "/moved/?a=1"]
    assert server.seen[1].headers["authorization"] == f"Bearer {token}"


def test_a_redirect_to_another_origin_is_not(loopback, drive):
    other = loopback(lambda seen: (200, {}))
    server = loopback(lambda seen: (302, {}, {"location": f"{other.url}/protected/"}))
    with pytest.raises(ApiError, match="GET /protected/"):
        drive(server.url)("check_token")
    assert other.seen == []


def test_a_redirect_of_a_post_is_not(loopback, drive, train_set):
    server = loopback(lambda seen: (307, {}, {"location": "/elsewhere"}))
    with pytest.raises(ApiError):
        fit(drive(server.url), train_set)
    assert server.paths() == ["/tabpfn/fit"]


def test_redirects_end(loopback, drive):
    server = loopback(lambda seen: (301, {}, {"location": seen.path}))
    with pytest.raises(ApiError):
        drive(server.url)("check_token")
    assert len(server.seen) == 4
