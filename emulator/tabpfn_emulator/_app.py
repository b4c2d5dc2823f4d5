"""The ASGI application: routes, and around them the books and the injected faults."""

import asyncio

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tabpfn_emulator._bodies import openapi
from tabpfn_emulator._connections import close, close_when_idle
from tabpfn_emulator._emulator import ROW, Emulator
from tabpfn_emulator._envelopes import (
    ApiError,
    StorageError,
    api_error_response,
    crash_response,
    http_error_response,
    storage_error_response,
)
from tabpfn_emulator._faults import covers
from tabpfn_emulator._fits import resume_fits
from tabpfn_emulator._misbehaviour import Call, misbehave
from tabpfn_emulator._reasoning_jobs import ReasoningJobs
from tabpfn_emulator._routes import account, auth, legacy, prediction, reasoning, storage, training
from tabpfn_emulator._routes import control as control_routes
from tabpfn_emulator._turns import Turns

_CONTROL = "/_emulator/"
_STORAGE = "/storage"


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
            HTTPException: http_error_response,
            Exception: crash_response,
        },
    )
    routes.state.emulator = emulator
    return _Books(routes, emulator, reasoning.install(routes, emulator), control=control)


class _Books:
    """Journals every request and lets the injected faults happen.

    Plain ASGI and outermost, because it must see the bytes that go over the wire, crashes included.
    """

    def __init__(self, app: ASGIApp, emulator: Emulator, jobs: ReasoningJobs, *, control: bool) -> None:
        self._app = app
        self._emulator = emulator
        self._jobs = jobs
        self._control = control
        self._turns = Turns()

    def resume(self) -> None:
        """Work again on the fits and jobs that have not ended; call it on the event loop."""
        resume_fits(self._emulator)
        self._jobs.resume()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (self._control and scope["path"].startswith(_CONTROL)):
            await self._app(scope, receive, send)
            return
        route = _STORAGE if scope["path"].startswith(f"{_STORAGE}/") else scope["path"]
        close_when_idle(scope, self._emulator.settings.idle_close_secs)
        journal = self._emulator.journal
        authorization = dict(scope["headers"]).get(b"authorization")
        row = journal.open_row(scope["method"], route, bearer=authorization is not None)
        if route != _STORAGE and authorization is not None:
            row["account"] = self._emulator.account_of_header(authorization.decode("latin-1"))
        scope[ROW] = row

        async def counting_receive() -> Message:
            if route == _STORAGE:
                await self._turns.wait()
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
            await self._lag(route)
            if fault is None:
                await self._app(scope, counting_receive, counting_send)
            else:
                row["fault"] = fault.kind
                await misbehave(Call(self._emulator, self._app, fault, scope, counting_receive, counting_send))
        except asyncio.CancelledError:
            # The server ends while it still owes an answer: what the caller sees is a closed connection.
            close(scope)
            await asyncio.sleep(0)
        finally:
            journal.close_row(row)

    async def _lag(self, route: str) -> None:
        latency = self._emulator.settings.latency
        if latency:
            await asyncio.sleep(max((secs for pattern, secs in latency.items() if covers(pattern, route)), default=0))
