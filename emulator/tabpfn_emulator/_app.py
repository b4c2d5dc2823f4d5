"""The ASGI application: routes, and around them the books and the injected faults."""

import asyncio
import sqlite3
from collections import deque
from contextlib import suppress
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tabpfn_emulator._bodies import openapi
from tabpfn_emulator._connections import close, close_when_idle, drain
from tabpfn_emulator._emulator import ROW, Emulator
from tabpfn_emulator._envelopes import (
    CALLER_GONE,
    ApiError,
    StorageError,
    api_error_response,
    crash_response,
    http_error_response,
    storage_error_response,
)
from tabpfn_emulator._fits import resume_fits
from tabpfn_emulator._misbehaviour import Call, misbehave
from tabpfn_emulator._patterns import covers
from tabpfn_emulator._reasoning_jobs import resume_jobs
from tabpfn_emulator._routes import account, auth, legacy, prediction, reasoning, storage, training
from tabpfn_emulator._routes import control as control_routes
from tabpfn_emulator._state.full_disk import is_full, remedy
from tabpfn_emulator._storage.uploads import object_store
from tabpfn_emulator._turns import Turns

_CONTROL = "/_emulator/"
_STORAGE = "/storage"
_FULL = 507


def build_app(emulator: Emulator, *, control: bool) -> "_Books":
    """Return the ASGI application of an emulator, whose `resume` goes on with what an earlier process has left.

    Args:
        emulator: Its state.
        control: Whether the control routes are there; without them a caller can inject nothing and read no books.
    """
    routes = Starlette(
        routes=[
            *account.ROUTES,
            *training.ROUTES,
            *prediction.ROUTES,
            *auth.ROUTES,
            *legacy.ROUTES,
            *reasoning.ROUTES,
            *storage.ROUTES,
            *openapi.ROUTES,
            *(control_routes.ROUTES if control else ()),
            storage.FALLBACK,
        ],
        exception_handlers={
            ApiError: api_error_response,
            StorageError: storage_error_response,
            ClientDisconnect: _gone_response,
            HTTPException: http_error_response,
            OSError: partial(_full_disk_response, emulator),
            sqlite3.OperationalError: partial(_full_disk_response, emulator),
            Exception: crash_response,
        },
    )
    routes.state.emulator = emulator
    return _Books(routes, emulator, control=control)


async def _gone_response(request: Request, gone: Exception) -> Response:  # noqa: ARG001  # Starlette's signature
    """End a request whose caller has hung up before its body was there: that is no failure of the emulator."""
    return Response(status_code=CALLER_GONE)


async def _full_disk_response(emulator: Emulator, request: Request, problem: Exception) -> Response:
    """Answer an error of a full disk in the words of the route; any other is a crash."""
    if not is_full(problem):
        raise problem
    text = remedy(emulator.data_dir, problem)
    if request.url.path.startswith(f"{_STORAGE}/"):
        return storage_error_response(request, object_store(emulator).full(text))
    return api_error_response(request, ApiError(_FULL, "INSUFFICIENT_STORAGE", text))


class _Wire:
    """The two channels of a request, its bytes counted into its row."""

    def __init__(self, row: dict[str, Any], receive: Receive, send: Send, turns: Turns | None) -> None:
        self._row = row
        self._receive = receive
        self._send = send
        self._turns = turns
        self._unread = True

    async def receive(self) -> Message:
        if self._turns is not None:
            await self._turns.wait()
        message = await self._receive()
        self._unread = message.get("more_body", False)
        self._row["bytes_in"] += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._row["status"] = message["status"]
            if message["status"] == _FULL and self._unread:
                # A caller that is still writing would find the connection reset, and not this answer.
                await drain(self.receive)
        if self._row["method"] != "HEAD":  # whose body the server takes off
            self._row["bytes_out"] += len(message.get("body", b""))
        await self._send(message)


class _Books:
    """Journals every request and lets the injected faults happen.

    Plain ASGI and outermost, because it must see the bytes that go over the wire, crashes included.
    """

    def __init__(self, app: ASGIApp, emulator: Emulator, *, control: bool) -> None:
        self._app = app
        self._emulator = emulator
        self._control = control
        self._turns = Turns()
        self._ended: deque[dict[str, Any]] = deque()

    def resume(self) -> None:
        """Work again on the fits and jobs that have not ended; call it on the event loop."""
        resume_fits(self._emulator)
        resume_jobs(self._emulator)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (self._control and scope["path"].startswith(_CONTROL)):
            await self._app(scope, receive, send)
            return
        route = _STORAGE if scope["path"].startswith(f"{_STORAGE}/") else scope["path"]
        close_when_idle(scope, self._emulator.settings.idle_close_secs)
        authorization = dict(scope["headers"]).get(b"authorization")
        account = None
        if route == _STORAGE:
            account = storage.owner_of(self._emulator, Request(scope))
        elif authorization is not None:
            account = self._emulator.account_of_header(authorization.decode("latin-1"))
        try:
            row = self._emulator.journal.open_row(
                scope["method"], route, bearer=authorization is not None, account=account
            )
        except sqlite3.OperationalError as problem:
            # What cannot be booked does not happen.
            response = await _full_disk_response(self._emulator, Request(scope), problem)
            await drain(receive)
            await response(scope, receive, send)
            return
        scope[ROW] = row
        wire = _Wire(row, receive, send, self._turns if route == _STORAGE else None)
        fault = self._emulator.faults.take(scope["method"], route)
        try:
            await self._lag(route)
            if fault is None:
                await self._app(scope, wire.receive, wire.send)
            else:
                row["fault"] = fault.kind
                await misbehave(Call(self._emulator, self._app, fault, scope, wire.receive, wire.send))
        except asyncio.CancelledError:
            # The server ends while it still owes an answer: what the caller sees is a closed connection.
            close(scope)
            # One turn of the loop, for the server to see it; in which it may cancel this once more.
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        finally:
            self._close(row)

    def _close(self, row: dict[str, Any]) -> None:
        self._ended.append(row)
        try:
            while self._ended:
                self._emulator.journal.close_row(self._ended[0])
                self._ended.popleft()
        except sqlite3.OperationalError as problem:
            # On a full disk the rows wait for the next request that ends when there is room.
            if not is_full(problem):
                raise

    async def _lag(self, route: str) -> None:
        latency = self._emulator.settings.latency
        if latency:
            await asyncio.sleep(max((secs for pattern, secs in latency.items() if covers(pattern, route)), default=0))
