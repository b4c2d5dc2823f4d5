"""Flows are written once, as coroutines over a `Wire`; a sync wire never suspends, so one step runs a flow."""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from tabpfn_operators._messages import Request, Response

T = TypeVar("T")

Flow = Coroutine[Any, Any, T]


class NoAnswerError(Exception):
    """A request had no answer.

    Args:
        reason: What happened, without URLs or headers.
        unsent: Whether it provably never left this machine.
    """

    def __init__(self, reason: str, *, unsent: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.unsent = unsent


class Wire(Protocol):
    """The only four things a flow waits for."""

    async def send(self, request: Request) -> Response:
        """Send a request and read its answer; NoAnswerError where none came."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    async def call(self, fn: Callable[..., T], *args: Any) -> T:
        """Run blocking work: storage, Parquet, CPU."""

    async def gather(self, thunks: Sequence[Callable[[], Flow[T]]], limit: int) -> list[T]:
        """Run flows side by side, at most `limit` at a time; the first error ends the others."""


def run(flow: Flow[T]) -> T:
    """Run a flow over a sync wire.

    Raises:
        RuntimeError: The flow waited for something else than its wire: a bug in this package, report it.
    """
    try:
        flow.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    flow.close()
    raise RuntimeError("a flow over a sync wire suspended; it may wait for its wire only")
