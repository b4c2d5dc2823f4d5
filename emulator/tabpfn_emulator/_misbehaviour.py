"""What an injected fault does to one request."""

import asyncio
import json
import math
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tabpfn_emulator._connections import close, drain, hang_up, until_gone
from tabpfn_emulator._emulator import ROW, Emulator
from tabpfn_emulator._envelopes import storage_error_response
from tabpfn_emulator._faults import Fault
from tabpfn_emulator._storage.object_stores import STORES

_DRIPS = 20
_GARBAGE = '}{ "prediction": [0.1, '
# The three headers that the vendor's client reads (contract 1.0).
_DEPRECATION = {
    "deprecation": "true",
    "sunset": "Sun, 28 Feb 2027 00:00:00 GMT",
    "link": '<https://docs.example.com/deprecations>; rel="deprecation"',
}


@dataclass(frozen=True)
class Call:
    """A request that a fault has met.

    Attributes:
        emulator: The emulator that it came to.
        app: What would answer it.
        fault: The fault.
        scope: The request.
        receive: Its body.
        send: Its answer.
    """

    emulator: Emulator
    app: ASGIApp
    fault: Fault
    scope: Scope
    receive: Receive
    send: Send


@dataclass
class _Caught:
    """An answer that was caught on its way."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in message["headers"]}
        self.body += message.get("body", b"")

    def json_object(self) -> dict[str, Any] | None:
        """Return the body; None when it is no JSON object, as an archive or an empty answer of the storage."""
        try:
            answer = json.loads(self.body)
        except ValueError:
            return None
        return answer if isinstance(answer, dict) else None


async def misbehave(call: Call) -> None:
    """Let a fault happen to a request.

    Args:
        call: The request and its fault.
    """
    await _HANDLERS[call.fault.kind](call)


async def _status(call: Call) -> None:
    await _work_or_drain(call)
    fault = call.fault
    await _answer(call.send, fault.status, _status_body(fault), fault.headers)


async def _redirect(call: Call) -> None:
    await drain(call.receive)
    location = call.fault.location or _other_origin(call.scope)
    await _answer(call.send, call.fault.status, b"", {**call.fault.headers, "location": location})


async def _deprecation(call: Call) -> None:
    added = {name.lower(): value for name, value in (call.fault.headers or _DEPRECATION).items()}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *_raw(added)]}
        await call.send(message)

    await call.app(call.scope, call.receive, send)


async def _delay(call: Call) -> None:
    await asyncio.sleep(call.fault.seconds)
    await call.app(call.scope, call.receive, call.send)


async def _drip(call: Call) -> None:
    caught = await _catch(call)
    await call.send(_start(caught.status, {**caught.headers, "content-length": str(len(caught.body))}))
    size = max(1, math.ceil(len(caught.body) / _DRIPS))
    for begin in range(0, len(caught.body), size):
        await asyncio.sleep(call.fault.seconds / _DRIPS)
        await call.send(_body(bytes(caught.body[begin : begin + size]), more=True))
    await call.send(_body(b""))


async def _hang(call: Call) -> None:
    await _work_or_drain(call)
    await until_gone(call.receive)


async def _drop(call: Call) -> None:
    if call.fault.when == "middle":
        await call.app(call.scope, call.receive, _headers_only(call.send))
    elif call.fault.when == "keepalive":
        await call.app(call.scope, call.receive, _headers_and_spaces(call))
    elif call.fault.when == "after":
        await call.app(call.scope, call.receive, _swallow)
    else:
        # Closing with bytes unread would be a reset, which callers see as another error than a closed connection.
        await drain(call.receive)
    await hang_up(call.scope, call.receive)


def _headers_only(send: Send) -> Send:
    async def first_then_silence(message: Message) -> None:
        if message["type"] == "http.response.start":
            await send(message)

    return first_then_silence


def _headers_and_spaces(call: Call) -> Send:
    broken = False

    async def spaces_then_silence(message: Message) -> None:
        nonlocal broken
        if message["type"] == "http.response.start":
            kept = [(name, value) for name, value in message["headers"] if name.lower() != b"content-length"]
            await call.send({**message, "headers": kept})
        elif not broken:
            broken = True
            await call.send(_body(b" " * 3, more=True))
            # At once: a fit that goes on for minutes would else keep the connection that long.
            close(call.scope)

    return spaces_then_silence


async def _streamed_error(call: Call) -> None:
    await _work_or_drain(call)
    body = call.fault.body or {"_streamed_error": True, "message": call.fault.error}
    await _answer(call.send, 200, b" " * 3 + json.dumps(body).encode(), {})


async def _missing_status(call: Call) -> None:
    caught = await _catch(call)
    answer = caught.json_object()
    if answer is not None and "status" in answer:
        del answer["status"]
        caught.body = bytearray(json.dumps(answer).encode())
    await _answer(call.send, caught.status, bytes(caught.body), caught.headers)


async def _truncated(call: Call) -> None:
    caught = await _catch(call)
    await _answer(call.send, caught.status, bytes(caught.body[: len(caught.body) // 2]), caught.headers)


async def _garbage(call: Call) -> None:
    await _work_or_drain(call)
    text = call.fault.body if isinstance(call.fault.body, str) else _GARBAGE
    await _answer(call.send, 200, text.encode(), {})


async def _prediction_uri(call: Call) -> None:
    caught = await _catch(call)
    answer = caught.json_object()
    if answer is not None and "prediction" in answer:
        answer |= _put_behind_url(call, answer.pop("prediction"))
        caught.body = bytearray(json.dumps(answer).encode())
    await _answer(call.send, caught.status, bytes(caught.body), caught.headers)


def _put_behind_url(call: Call, prediction: Any) -> dict[str, Any]:
    download_id = str(uuid.uuid4())
    call.emulator.documents.add("download", download_id, call.scope[ROW]["account"], prediction)
    url, _ = call.emulator.signed_url(str(Request(call.scope).base_url), "GET", f"/storage/downloads/{download_id}", {})
    return {
        "prediction_uri": url,
        "prediction_uri_expires_in_secs": int(call.emulator.settings.url_ttl_secs),
    }


async def _expired_url(call: Call) -> None:
    await drain(call.receive)
    now = time.time()
    error = STORES[call.emulator.settings.storage].expired(int(now) - 1, now)
    response = storage_error_response(Request(call.scope), error)
    await response(call.scope, call.receive, call.send)


async def _cut_upload(call: Call) -> None:
    length = dict(call.scope["headers"]).get(b"content-length", b"0")
    left = int(length) // 2

    async def half() -> Message:
        nonlocal left
        if left <= 0:
            return {"type": "http.disconnect"}
        message = await call.receive()
        body = message.get("body", b"")[:left]
        left -= len(body)
        return {**message, "body": body, "more_body": True}

    await call.app(call.scope, half, _swallow)
    await hang_up(call.scope, call.receive)


_HANDLERS: Mapping[str, Callable[[Call], Awaitable[None]]] = {
    "status": _status,
    "rate_limit": _status,
    "quota": _status,
    "redirect": _redirect,
    "deprecation": _deprecation,
    "delay": _delay,
    "drip": _drip,
    "hang": _hang,
    "drop": _drop,
    "streamed_error": _streamed_error,
    "missing_status": _missing_status,
    "truncated": _truncated,
    "garbage": _garbage,
    "prediction_uri": _prediction_uri,
    "expired_url": _expired_url,
    "cut_upload": _cut_upload,
}


async def _work_or_drain(call: Call) -> None:
    if call.fault.when == "after":
        await call.app(call.scope, call.receive, _swallow)
    else:
        await drain(call.receive)


async def _catch(call: Call) -> _Caught:
    caught = _Caught()
    await call.app(call.scope, call.receive, caught.send)
    return caught


async def _swallow(message: Message) -> None:
    """Withhold an answer."""


def _other_origin(scope: Scope) -> str:
    url = Request(scope).url
    return str(url.replace(hostname="127.0.0.1" if url.hostname == "localhost" else "localhost"))


def _status_body(fault: Fault) -> bytes:
    if isinstance(fault.body, str):
        return fault.body.encode()
    envelope = {"message": fault.error, "error_code": fault.error_code, "trace_id": str(uuid.uuid4())}
    return json.dumps(envelope if fault.body is None else fault.body).encode()


async def _answer(send: Send, status: int, body: bytes, headers: Mapping[str, str]) -> None:
    named = {name.lower(): value for name, value in headers.items()}
    await send(_start(status, {"content-type": "application/json", **named, "content-length": str(len(body))}))
    await send(_body(body))


def _start(status: int, headers: Mapping[str, str]) -> Message:
    return {"type": "http.response.start", "status": status, "headers": _raw(headers)}


def _raw(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


def _body(body: bytes, *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}
