"""Closing connections on purpose, which ASGI has no word for."""

import asyncio

from starlette.types import Receive, Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

_OPEN: dict[tuple[str, int], "KnownConnectionProtocol"] = {}


class KnownConnectionProtocol(H11Protocol):
    """uvicorn's HTTP protocol, remembered by the client's address."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows it too
        """Remember the connection."""
        _OPEN[transport.get_extra_info("peername")[:2]] = self
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self.client is not None:
            _OPEN.pop(self.client, None)
        super().connection_lost(exc)


def close_when_idle(scope: Scope, seconds: float) -> None:
    """Let the server close the connection of a request when it has been idle for that long after the answer."""
    connection = _OPEN.get(tuple(scope["client"]))
    if connection is not None:
        connection.timeout_keep_alive = seconds  # type: ignore[assignment]  # uvicorn hands it to loop.call_later


def close(scope: Scope) -> None:
    """Close the connection of a request, if it is still open."""
    connection = _OPEN.get(tuple(scope["client"]))
    if connection is not None:
        connection.transport.close()


async def until_gone(receive: Receive) -> None:
    """Wait until the connection of a request is closed, reading whatever still comes."""
    while (await receive())["type"] != "http.disconnect":
        continue


async def drain(receive: Receive) -> None:
    """Read the rest of a request's body, and forget it."""
    while (message := await receive())["type"] == "http.request" and message.get("more_body"):
        continue


async def hang_up(scope: Scope, receive: Receive) -> None:
    """Close the connection of a request without another byte.

    Args:
        scope: The request.
        receive: Its channel; read until the server has noticed, so that it does not answer in our place.
    """
    close(scope)
    await until_gone(receive)
