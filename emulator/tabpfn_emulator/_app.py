"""The ASGI application: routes, and around them the books and the injected faults."""

import asyncio
import json
import uuid
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tabpfn_emulator import (
    _routes_account,
    _routes_control,
    _routes_prediction,
    _routes_storage,
    _routes_training,
)
from tabpfn_emulator._connections import close, hang_up
from tabpfn_emulator._emulator import ROW, Emulator
from tabpfn_emulator._envelopes import (
    ApiError,
    StorageError,
    api_error_response,
    crash_response,
    http_error_response,
    storage_error_response,
)
from tabpfn_emulator._faults import Fault

_CONTROL = "/_emulator/"
_STORAGE = "/storage"


def build_app(emulator: Emulator) -> ASGIApp:
    """Return the ASGI application of an emulator.

    Args:
        emulator: Its state.
    """
    routes = Starlette(
        routes=[
            *_routes_account.ROUTES,
            *_routes_training.ROUTES,
            *_routes_prediction.ROUTES,
            *_routes_storage.ROUTES,
            *_routes_control.ROUTES,
        ],
        exception_handlers={
            ApiError: api_error_response,
            StorageError: storage_error_response,
            HTTPException: http_error_response,
            Exception: crash_response,
        },
    )
    routes.state.emulator = emulator
    return _Books(routes, emulator)


class _Books:
    """Journals every request and lets the injected faults happen.

    Plain ASGI and outermost, because it must see the bytes that go over the wire, crashes included.
    """

    def __init__(self, app: ASGIApp, emulator: Emulator) -> None:
        self._app = app
        self._emulator = emulator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(_CONTROL):
            await self._app(scope, receive, send)
            return
        route = _STORAGE if scope["path"].startswith(f"{_STORAGE}/") else scope["path"]
        journal = self._emulator.journal
        authorization = dict(scope["headers"]).get(b"authorization")
        row = journal.open_row(scope["method"], route, bearer=authorization is not None)
        if route != _STORAGE and authorization is not None:
            row["account"] = self._emulator.account_of_header(authorization.decode("latin-1"))
        scope[ROW] = row

        async def counting_receive() -> Message:
            message = await receive()
            row["bytes_in"] += len(message.get("body", b""))
            return message

        async def counting_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                row["status"] = message["status"]
            row["bytes_out"] += len(message.get("body", b""))
            await send(message)

        fault = self._emulator.faults.take(scope["method"], route)
        try:
            if fault is None:
                await self._app(scope, counting_receive, counting_send)
            else:
                row["fault"] = fault.kind
                await self._misbehave(fault, scope, counting_receive, counting_send)
        except asyncio.CancelledError:
            # The server ends while it still owes an answer: what the caller sees is a closed connection.
            close(scope)
            await asyncio.sleep(0)
        finally:
            journal.close_row(row)

    async def _misbehave(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        if fault.kind == "delay":
            await asyncio.sleep(fault.seconds)
            await self._app(scope, receive, send)
        elif fault.kind == "drop":
            await self._drop(fault, scope, receive, send)
        elif fault.kind in {"missing_status", "prediction_uri"}:
            await self._rewrite(fault, scope, receive, send)
        else:
            if fault.when == "after":
                await self._app(scope, receive, _swallow)
            else:
                await _drain(receive)
            if fault.kind == "status":
                await _answer(send, fault.status, _status_body(fault), fault.headers)
            else:
                body = fault.body or {"_streamed_error": True, "message": fault.error}
                await _answer(send, 200, b" " * 3 + json.dumps(body).encode(), {})

    async def _drop(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        if fault.when == "middle":

            async def first_then_silence(message: Message) -> None:
                if message["type"] == "http.response.start":
                    await send(message)

            await self._app(scope, receive, first_then_silence)
        elif fault.when == "after":
            await self._app(scope, receive, _swallow)
        await hang_up(scope, receive)

    async def _rewrite(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        status, chunks = 0, bytearray()

        async def collect(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            chunks.extend(message.get("body", b""))

        await self._app(scope, receive, collect)
        answer = json.loads(bytes(chunks))
        if fault.kind == "missing_status":
            answer.pop("status", None)
        elif "prediction" in answer:
            answer |= self._put_behind_url(scope, answer.pop("prediction"))
        await _answer(send, status, json.dumps(answer).encode(), {})

    def _put_behind_url(self, scope: Scope, prediction: Any) -> dict[str, Any]:
        download_id = str(uuid.uuid4())
        self._emulator.downloads[download_id] = prediction
        url, _ = self._emulator.signed_url(
            str(Request(scope).base_url), "GET", f"{_STORAGE}/downloads/{download_id}", {}
        )
        return {
            "prediction_uri": url,
            "prediction_uri_expires_in_secs": int(self._emulator.settings.url_ttl_secs),
        }


async def _swallow(message: Message) -> None:
    """Withhold an answer."""


async def _drain(receive: Receive) -> None:
    while (message := await receive())["type"] == "http.request" and message.get("more_body"):
        continue


def _status_body(fault: Fault) -> bytes:
    if isinstance(fault.body, str):
        return fault.body.encode()
    envelope = {"message": fault.error, "error_code": fault.error_code, "trace_id": str(uuid.uuid4())}
    return json.dumps(envelope if fault.body is None else fault.body).encode()


async def _answer(send: Send, status: int, body: bytes, headers: dict[str, str]) -> None:
    all_headers = {"content-type": "application/json", "content-length": str(len(body))}
    all_headers |= {name.lower(): value for name, value in headers.items()}
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in all_headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
