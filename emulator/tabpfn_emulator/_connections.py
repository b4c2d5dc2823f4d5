"""Closing connections on purpose, which ASGI has no word for."""

import asyncio

from starlette.types import Receive, Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

_OPEN: dict[tuple[str, int], asyncio.BaseTransport] = {}


class KnownConnectionProtocol(H11Protocol):
    """uvicorn's HTTP protocol, remembering the transport of each client address."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows it too
        """Remember the connection."""
        _OPEN[transport.get_extra_info("peername")[:2]] = transport
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self.client is not None:
            _OPEN.pop(self.client, None)
        super().connection_lost(exc)


def close(scope: Scope) -> None:
    """Close the connection of a request, if it is still open."""
    transport = _OPEN.get(tuple(scope["client"]))
    if transport is not None:
        transport.close()


async def hang_up(scope: Scope, receive: Receive) -> None:
    """Close the connection of a request without another byte.

    Args:
        scope: The request.
        receive: Its channel; read until the server has noticed, so that it does not answer in our place.
    """
    close(scope)
    while (await receive())["type"] != "http.disconnect":
        continue
