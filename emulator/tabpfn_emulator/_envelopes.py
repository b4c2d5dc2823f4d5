"""Error answers. Envelope B on the API, XML on the storage host (contract sections 1.0 and 3)."""

import uuid
from typing import Any, cast
from xml.sax.saxutils import escape

from starlette.requests import Request
from starlette.responses import JSONResponse, Response


class ApiError(Exception):
    """An answer that is not a success.

    Args:
        status: HTTP status, 400 to 599.
        error_code: Machine-readable code of envelope B.
        message: Text for a person.
        extra: More keys of the body, for example the id of a duplicate.
    """

    def __init__(self, status: int, error_code: str, message: str, extra: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.error_code = error_code
        self.message = message
        self.extra = extra or {}


class StorageError(Exception):
    """A refusal of the storage host.

    Args:
        status: HTTP status, 400 to 599.
        code: Code of the XML body.
        message: Text for a person.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


class DataError(Exception):
    """The uploaded data cannot be used; the text says why."""


def not_found(what: str) -> ApiError:
    """Return the 404 for an id that is unknown, deleted, or another account's."""
    return ApiError(404, "NOT_FOUND", f"{what} does not exist or has expired.")


def invalid(message: str) -> ApiError:
    """Return the 422 for a request that is understood and refused."""
    return ApiError(422, "REQUEST_VALIDATION_ERROR", message)


def trace_id(request: Request) -> str:
    """Return the id of the request's trace: the caller's `sentry-trace` if it is one, else a new one."""
    try:
        return str(uuid.UUID(request.headers["sentry-trace"].split("-")[0]))
    except (KeyError, ValueError):
        return str(uuid.uuid4())


def api_error_response(request: Request, error: Exception) -> Response:
    """Answer an `ApiError` with envelope B `{message, error_code, trace_id}`."""
    refusal = cast("ApiError", error)
    body = {
        "message": refusal.message,
        "error_code": refusal.error_code,
        "trace_id": trace_id(request),
        **refusal.extra,
    }
    headers = {"WWW-Authenticate": "Bearer"} if refusal.status == 401 else None
    return JSONResponse(body, status_code=refusal.status, headers=headers)


def storage_error_response(request: Request, error: Exception) -> Response:  # noqa: ARG001  # Starlette's signature
    """Answer a `StorageError` the way object stores do, with an XML body."""
    refusal = cast("StorageError", error)
    body = (
        "<?xml version='1.0' encoding='UTF-8'?>"
        f"<Error><Code>{escape(refusal.code)}</Code><Message>{escape(refusal.message)}</Message></Error>"
    )
    return Response(body, status_code=refusal.status, media_type="application/xml")


def http_error_response(request: Request, error: Exception) -> Response:
    """Answer an unknown route or method with envelope B."""
    status = getattr(error, "status_code", 500)
    code = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}.get(status, "REQUEST_ERROR")
    return api_error_response(request, ApiError(status, code, str(getattr(error, "detail", error))))


def crash_response(request: Request, error: Exception) -> Response:
    """Answer an error of the emulator itself: HTTP 500, envelope B."""
    message = f"The emulator failed ({type(error).__name__}); its stderr has the traceback."
    return api_error_response(request, ApiError(500, "INTERNAL_ERROR", message))
