"""What both clients are built from: settings, a wire, a session."""

from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

from tabpfn_operators._call import Session
from tabpfn_operators._run import Wire
from tabpfn_operators._wire import AsyncWire, SyncWire
from tabpfn_operators.openlineage import Emitter, EventClient, emitter_of
from tabpfn_operators.settings import Settings, Token, WireForm

C = TypeVar("C", bound=type)


def same_docstrings(twin: type) -> Callable[[C], C]:
    """Give a class's methods the docstrings of their twins, so that each is written once."""

    def document(cls: C) -> C:
        for name, method in vars(cls).items():
            if not name.startswith("_") and callable(method):
                method.__doc__ = getattr(twin, name).__doc__
        return cls

    return document


class _Base:
    """Settings and a session over a wire."""

    def __init__(
        self,
        token: Token | None = None,
        *,
        base_url: str | None = None,
        account: str | None = None,
        wire: WireForm = "nested",
        connect_timeout: float = 10.0,
        read_timeout: float = 120.0,
        proxy: str | None = None,
        verify: bool | str = True,
        allow_http: bool = False,
        user_agent: str | None = None,
        openlineage: bool | Emitter | EventClient = False,
    ) -> None:
        self.settings = Settings.resolve(
            token,
            base_url=base_url,
            account=account,
            wire=wire,
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            proxy=proxy,
            verify=verify,
            allow_http=allow_http,
            user_agent=user_agent,
        )
        emitter = emitter_of(openlineage)
        # An emitter of the caller's own is shared, so it is the caller's to close.
        self._own_emitter = emitter if emitter is not openlineage else None
        self._session = Session(self.settings, self._open_wire(), emitter=emitter)

    def _close_emitter(self) -> None:
        if self._own_emitter is not None:
            self._own_emitter.close()

    def _open_wire(self) -> Wire:
        raise TypeError("use Client or AsyncClient")


class SyncBase(_Base):
    """A session over a sync wire."""

    def _open_wire(self) -> Wire:
        self._wire = SyncWire(self.settings)
        return self._wire

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        self._wire.close()
        self._close_emitter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncBase(_Base):
    """A session over an async wire."""

    def _open_wire(self) -> Wire:
        self._wire = AsyncWire(self.settings)
        return self._wire

    async def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        await self._wire.close()
        self._close_emitter()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
