"""Errors chosen from an answer: five envelope shapes, the class from the server's code (contract 1.0)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tabpfn_operators._messages import Response, parse_json
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

#: A 429 of unknown code is waited for only up to this many seconds (contract 4.3: "small").
SMALL_RETRY_AFTER = 60.0
_MAX_TEXT = 500
_MAX_XML = 4096
_STORAGE_CODE = re.compile(rb"<Code>([A-Za-z]{1,40})</Code>")

_BY_CODE: dict[str, type[ApiError]] = {
    "UNAUTHORIZED": AuthenticationError,
    "auth.unauthorized": AuthenticationError,
    "auth.forbidden": AccessDeniedError,
    "NOT_FOUND": NotFoundError,
    "error.not_found": NotFoundError,
    "REQUEST_VALIDATION_ERROR": RequestRejectedError,
    "validation.failed": RequestRejectedError,
    "error.bad_request": RequestRejectedError,
    "INSUFFICIENT_QUOTA": QuotaExceededError,
    "API_LIMIT_REACHED": QuotaExceededError,
}
_RATE_CODES = frozenset({"RATE_LIMIT_EXCEEDED", "rate.limit.exceeded"})
_BY_STATUS: dict[int, type[ApiError]] = {
    400: RequestRejectedError,
    401: AuthenticationError,
    403: AccessDeniedError,
    404: NotFoundError,
    409: RequestRejectedError,
    413: RequestRejectedError,
    422: RequestRejectedError,
    426: UpgradeRequiredError,
}
_REMEDY: dict[type[TabPFNError], str] = {
    AuthenticationError: "Check the token (TABPFN_TOKEN, or the engine's secret).",
    AccessDeniedError: "The account may need its e-mail verified.",
    UpgradeRequiredError: "Upgrade tabpfn-providers.",
    QuotaExceededError: "Wait for the pool's reset, or buy more tokens.",
}


@dataclass(frozen=True)
class Envelope:
    """What an error body says.

    Args:
        text: Message for people.
        code: The server's code.
        trace_id: The server's id of the request.
    """

    text: str
    code: str | None = None
    trace_id: str | None = None


def read_envelope(response: Response) -> Envelope:
    """Read any of the five shapes (contract 1.0: A, A', B, C, E); text that no shape explains is kept, shortened."""
    data = parse_json(response.body)
    if not isinstance(data, dict):
        return Envelope(_plain_text(response.body))
    code = data.get("error_code") or data.get("code") or data.get("error")
    trace = data.get("trace_id")
    return Envelope(
        _message(data)[:_MAX_TEXT],
        code if isinstance(code, str) else None,
        trace if isinstance(trace, str) else None,
    )


def _message(data: Mapping[str, Any]) -> str:
    text = data.get("message") or data.get("detail") or data.get("error") or ""
    if isinstance(text, list):  # FastAPI's default 422
        text = "; ".join(_field_text(item) for item in text)
    fields = data.get("errors")
    if isinstance(fields, list) and fields:  # A'
        text = f"{text} ({'; '.join(_field_text(item) for item in fields)})"
    return str(text)


def _field_text(item: Any) -> str:
    if not isinstance(item, dict):
        return str(item)
    loc = item.get("loc")
    place = item.get("field") or ".".join(str(part) for part in (loc if isinstance(loc, list) else ()))
    return f"{place}: {item.get('message') or item.get('msg') or ''}"


def _plain_text(body: bytes) -> str:
    text = body[:_MAX_TEXT].decode("utf-8", "replace").strip()
    # A proxy's HTML page or a store's XML may quote the request; neither helps a reader.
    return "" if text.startswith("<") else text


def retry_after(response: Response) -> float | None:
    """Read Retry-After in whole seconds (contract 4.3); a date or nonsense counts as absent."""
    value = response.headers.get("retry-after", "").strip()
    return float(value) if value.isascii() and value.isdigit() else None


def is_rate_limit(response: Response, envelope: Envelope) -> bool:
    """Tell a 429 that passes by waiting from one that does not (contract 4.3)."""
    if response.status != 429:
        return False
    if envelope.code in _RATE_CODES:
        return True
    if _BY_CODE.get(envelope.code or "") is QuotaExceededError:
        return False
    hint = retry_after(response)
    return hint is not None and hint <= SMALL_RETRY_AFTER


def choose_error(response: Response, label: str) -> TabPFNError:
    """Choose the error of an API answer that is no success.

    Args:
        response: The answer.
        label: How texts name the call.

    Returns:
        The error to raise; the code decides, the status only where the code is unknown.
    """
    envelope = read_envelope(response)
    facts: dict[str, Any] = {"status": response.status, "code": envelope.code, "trace_id": envelope.trace_id}
    text = f"{label}: {envelope.text or 'the server gave no reason'}"
    if is_rate_limit(response, envelope):
        return RateLimitedError(f"{text} Run again later.", retry_after=retry_after(response), **facts)
    if response.status == 426:  # before any code: the client is too old to understand codes
        return UpgradeRequiredError(_with_remedy(text, UpgradeRequiredError), **facts)
    if response.status >= 500:
        return ServerError(text, **facts)
    kind = _BY_CODE.get(envelope.code or "") or _BY_STATUS.get(response.status)
    if kind is None:
        kind = QuotaExceededError if response.status == 429 else ApiError
    return kind(_with_remedy(text, kind), **facts)


def _with_remedy(text: str, kind: type[TabPFNError]) -> str:
    remedy = _REMEDY.get(kind)
    return f"{text.rstrip('. ')}. {remedy}" if remedy else text


def says_expired(response: Response) -> bool:
    """Tell an object store's refusal of a signed URL that is too old from any other.

    Google answers 400 `ExpiredToken`, Amazon 403 `AccessDenied` with only its message to tell, Azure 403
    `AuthenticationFailed` that speaks of the time frame.
    """
    if response.status not in {400, 403}:
        return False
    text = response.body[:_MAX_XML].decode("utf-8", "replace").lower()
    return any(words in text for words in ("expiredtoken", "has expired", "specified time frame"))


def choose_storage_error(response: Response, label: str) -> TabPFNError:
    """Choose the error of an object store's answer (shape E); of a body that may quote the signature, only the code."""
    reason = "the object store refused it"
    if response.status in {400, 403}:
        reason = "the signed URL has expired" if says_expired(response) else "the signed URL is refused"
    code = _STORAGE_CODE.search(response.body[:_MAX_XML])
    return UploadError(
        f"{label}: {reason}. Run again: a new URL is made.",
        status=response.status,
        code=code[1].decode() if code else None,
    )
