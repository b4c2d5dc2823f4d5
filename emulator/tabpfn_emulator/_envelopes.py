"""Error answers: envelope B on /tabpfn/* and the account's routes, A and A' on /v1/*, XML on the storage host.

Contract sections 1.0 and 3; A and A' as the stored OpenAPI pages of /v1/predict have them.
"""

import uuid
from collections.abc import Mapping
from typing import Any, Final, cast
from xml.sax.saxutils import escape

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

V1: Final = "/v1/"
"""Paths below this one answer in envelope A."""
SUPPORT_URL: Final = "https://discord.com/invite/VJRuU3bSxt"
"""`support` of envelope A, as the stored pages show it."""

# Codes of the statuses that the stored pages or live answers show; the others are of the same pattern, not verified.
_V1_CODES: Final[dict[int, str]] = {
    400: "error.bad_request",
    401: "auth.unauthorized",
    403: "auth.forbidden",
    404: "error.not_found",
    405: "error.method_not_allowed",
    409: "error.conflict",
    413: "error.too_large",
    422: "validation.failed",
    429: "rate.limit.exceeded",
    500: "error.internal",
    507: "error.insufficient_storage",
}
_HTTP_CODES: Final[dict[int, str]] = {
    400: "BAD_REQUEST",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    413: "CONTENT_TOO_LARGE",
}
CALLER_GONE: Final = 499
"""Status in the journal where nobody was left to answer; as in nginx, it is on no wire."""


class ApiError(Exception):
    """An answer that is not a success.

    Args:
        status: HTTP status, 400 to 599.
        error_code: Machine-readable code of envelope B.
        message: Text for a person.
        extra: More keys of envelope B, for example the id of a duplicate.
        headers: More headers of the answer, for example `Retry-After`.
        problems: What is wrong with which field, for `errors` of envelope A'.
    """

    def __init__(
        self,
        status: int,
        error_code: str,
        message: str,
        extra: dict[str, Any] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        problems: list[tuple[str, str]] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error_code = error_code
        self.message = message
        self.extra = extra or {}
        self.headers = dict(headers or {})
        self.problems = problems or []


class StorageError(Exception):
    """A refusal of the storage host.

    Args:
        status: HTTP status, 400 to 599.
        code: Code of the XML body.
        message: Text for a person.
        elements: More elements of the XML body.
        headers: More headers of the answer.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        elements: Mapping[str, str] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.elements = dict(elements or {})
        self.headers = dict(headers or {})


class DataError(Exception):
    """The uploaded data cannot be used; the text says why."""


def not_found(what: str) -> ApiError:
    """Return the 404 for an id that is unknown, deleted, or another account's."""
    return ApiError(404, "NOT_FOUND", f"{what} does not exist or has expired.")


def invalid(message: str, problems: list[tuple[str, str]] | None = None) -> ApiError:
    """Return the 422 for a request that is understood and refused.

    Args:
        message: Text for a person.
        problems: Field and message of each thing that is wrong, where fields are.
    """
    return ApiError(422, "REQUEST_VALIDATION_ERROR", message, problems=problems)


def bad_request(message: str) -> ApiError:
    """Return the 400 for a request that is not understood: a file is missing or malformed."""
    return ApiError(400, "BAD_REQUEST", message)


def trace_id(request: Request) -> str:
    """Return the id of the request's trace: the caller's `sentry-trace` if it is one, else a new one."""
    try:
        return str(uuid.UUID(request.headers["sentry-trace"].split("-")[0]))
    except (KeyError, ValueError):
        return str(uuid.uuid4())


def api_error_response(request: Request, error: Exception) -> Response:
    """Answer an `ApiError` with the envelope of its route."""
    refusal = cast("ApiError", error)
    headers = {"WWW-Authenticate": "Bearer"} if refusal.status == 401 else {}
    body = _envelope_a(refusal) if request.url.path.startswith(V1) else _envelope_b(request, refusal)
    return JSONResponse(body, status_code=refusal.status, headers={**headers, **refusal.headers})


def _envelope_b(request: Request, refusal: ApiError) -> dict[str, Any]:
    return {
        "message": refusal.message,
        "error_code": refusal.error_code,
        "trace_id": trace_id(request),
        **refusal.extra,
    }


def _envelope_a(refusal: ApiError) -> dict[str, Any]:
    body: dict[str, Any] = {
        "code": _V1_CODES.get(refusal.status, "error.unknown"),
        "detail": refusal.message,
        # Waiting does not help an account whose quota is used up.
        "retryable": refusal.status in {408, 502, 503, 504} or refusal.error_code == "RATE_LIMIT_EXCEEDED",
        "support": SUPPORT_URL,
    }
    if refusal.status == 422:
        problems = refusal.problems or [("body", refusal.message)]
        body["errors"] = [{"field": field, "message": message} for field, message in problems]
    return body


def storage_error_response(request: Request, error: Exception) -> Response:  # noqa: ARG001  # Starlette's signature
    """Answer a `StorageError` the way object stores do, with an XML body."""
    refusal = cast("StorageError", error)
    elements = {"Code": refusal.code, "Message": refusal.message, **refusal.elements}
    content = "".join(f"<{name}>{escape(text)}</{name}>" for name, text in elements.items())
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{content}</Error>'
    return Response(body, status_code=refusal.status, headers=refusal.headers, media_type="application/xml")


def http_error_response(request: Request, error: Exception) -> Response:
    """Answer an unknown route or method, or a body that Starlette cannot parse."""
    status = getattr(error, "status_code", 500)
    code = _HTTP_CODES.get(status, "REQUEST_ERROR")
    refusal = ApiError(status, code, str(getattr(error, "detail", error)), headers=getattr(error, "headers", None))
    return api_error_response(request, refusal)


def crash_response(request: Request, error: Exception) -> Response:
    """Answer an error of the emulator itself: HTTP 500."""
    message = f"The emulator failed ({type(error).__name__}); its stderr has the traceback."
    return api_error_response(request, ApiError(500, "INTERNAL_ERROR", message))
