"""Which error an answer becomes (contract 1.0, 4.3)."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabpfn_operators._envelopes import choose_error, choose_storage_error, read_envelope, retry_after
from tabpfn_operators._messages import Response
from tabpfn_operators.errors import (
    AccessDeniedError,
    ApiError,
    AuthenticationError,
    NotFoundError,
    QuotaExceededError,
    RateLimitedError,
    RequestRejectedError,
    ServerError,
    TabPFNError,
    UpgradeRequiredError,
    UploadError,
)


def response(status, body=b"", **headers):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(status, {name.replace("_", "-"): value for name, value in headers.items()}, content)


A = {"code": "auth.unauthorized", "detail": "Not authenticated", "retryable": False, "support": "https://s"}
B = {"message": "No such upload", "error_code": "NOT_FOUND", "trace_id": "t-1"}
INVALID = {
    "code": "validation.failed",
    "detail": "Validation error for FitRequest",
    "errors": [{"field": "task", "message": "field required"}, {"field": "systems", "message": "Invalid system: x"}],
}
FASTAPI = {"detail": [{"loc": ["body", "task"], "msg": "Field required", "type": "missing"}]}


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (401, A, AuthenticationError, "Not authenticated"),
        (404, {**A, "code": "error.not_found", "detail": "gone"}, NotFoundError, "gone"),
        (400, {**A, "code": "error.bad_request", "detail": "no file"}, RequestRejectedError, "no file"),
        (403, {**A, "code": "auth.forbidden", "detail": "not verified"}, AccessDeniedError, "not verified"),
        (422, INVALID, RequestRejectedError, "task: field required; systems: Invalid system: x"),
        (404, B, NotFoundError, "No such upload"),
        (401, {**B, "error_code": "UNAUTHORIZED"}, AuthenticationError, "No such upload"),
        (422, {**B, "error_code": "REQUEST_VALIDATION_ERROR"}, RequestRejectedError, "No such upload"),
        (500, {**B, "error_code": "USER_ERROR"}, ServerError, "No such upload"),
        (401, {"detail": "Could not validate credentials"}, AuthenticationError, "Could not validate"),
        (422, FASTAPI, RequestRejectedError, "body.task: Field required"),
        (403, b"", AccessDeniedError, "gave no reason"),
        (409, {}, RequestRejectedError, "gave no reason"),
        (413, b"<html>too large</html>", RequestRejectedError, "gave no reason"),
        (502, b"<html>Bad gateway</html>", ServerError, "gave no reason"),
        (503, b"upstream connect error", ServerError, "upstream connect error"),
        (418, {"detail": "teapot"}, ApiError, "teapot"),
        (302, b"", ApiError, "gave no reason"),
        (426, {"message": "Upgrade to 9.9"}, UpgradeRequiredError, "Upgrade to 9.9"),
        (426, {"message": "Upgrade", "error_code": "NOT_FOUND"}, UpgradeRequiredError, "Upgrade tabpfn-providers"),
    ],
)
def test_error_of_an_answer(status, body, kind, words):
    error = choose_error(response(status, body), "POST /tabpfn/fit")
    assert type(error) is kind
    assert error.status == status
    assert words in str(error)
    assert str(error).startswith("POST /tabpfn/fit: ")


def test_the_code_decides_not_the_status():
    assert type(choose_error(response(400, {**B, "error_code": "UNAUTHORIZED"}), "x")) is AuthenticationError


def test_code_and_trace_id_are_kept():
    error = choose_error(response(404, B), "x")
    assert (error.code, error.trace_id) == ("NOT_FOUND", "t-1")
    assert "t-1" in str(error)


@pytest.mark.parametrize(
    ("body", "headers", "kind"),
    [
        ({"error_code": "RATE_LIMIT_EXCEEDED", "message": "slow"}, {"retry_after": "7"}, RateLimitedError),
        ({"error_code": "RATE_LIMIT_EXCEEDED", "message": "slow"}, {"retry_after": "3000"}, RateLimitedError),
        ({"error_code": "RATE_LIMIT_EXCEEDED", "message": "slow"}, {}, RateLimitedError),
        ({"code": "rate.limit.exceeded", "detail": "slow"}, {"retry_after": "1"}, RateLimitedError),
        ({"error_code": "INSUFFICIENT_QUOTA", "message": "daily"}, {}, QuotaExceededError),
        ({"error_code": "INSUFFICIENT_QUOTA", "message": "daily"}, {"retry_after": "1"}, QuotaExceededError),
        ({"error": "API_LIMIT_REACHED", "message": "monthly"}, {}, QuotaExceededError),
        ({"error": "API_LIMIT_REACHED", "message": "monthly"}, {"retry_after": "1"}, QuotaExceededError),
        ({"message": "who knows"}, {}, QuotaExceededError),
        ({"message": "who knows"}, {"retry_after": "60"}, RateLimitedError),
        ({"message": "who knows"}, {"retry_after": "61"}, QuotaExceededError),
        (b"", {"retry_after": "2"}, RateLimitedError),
    ],
)
def test_two_kinds_of_429(body, headers, kind):
    error = choose_error(response(429, body, **headers), "x")
    assert type(error) is kind
    if kind is RateLimitedError:
        assert error.retry_after == (float(headers["retry_after"]) if headers else None)
    assert error.terminal is (kind is QuotaExceededError)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("²", None),
        ("٣", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
    ],
)
def test_retry_after_is_whole_seconds(value, seconds):
    assert retry_after(response(503, retry_after=value)) == seconds


@pytest.mark.parametrize("status", [400, 403, 404, 412, 500, 503])
def test_an_object_stores_text_is_not_quoted(status):
    body = b"<Error><Code>SignatureDoesNotMatch</Code><StringToSign>hidden</StringToSign></Error>"
    error = choose_storage_error(response(status, body), "PUT of part 1 of 2")
    assert type(error) is UploadError
    assert "hidden" not in repr(vars(error)) + str(error)
    assert "PUT of part 1 of 2" in str(error)
    assert not error.terminal


def test_long_text_is_cut():
    assert len(read_envelope(response(500, b"x" * 10_000)).text) <= 500
    assert len(read_envelope(response(500, {"detail": "x" * 10_000})).text) <= 500


KEYS = ["message", "detail", "error", "errors", "code", "error_code", "trace_id", "field", "loc", "msg"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=12,
)


@given(status=st.integers(300, 599), body=JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=30))
def test_any_refusal_becomes_an_error(status, body):
    error = choose_error(response(status, body), "POST /x")
    assert isinstance(error, TabPFNError)
    assert error.code is None or isinstance(error.code, str)
    assert error.trace_id is None or isinstance(error.trace_id, str)
    assert str(error).startswith("POST /x: ")
