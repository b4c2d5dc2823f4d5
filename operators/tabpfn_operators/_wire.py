"""HTTP, and nothing else: the only module that imports httpx.

HTTP/1.1, because HTTP/2 pings broke long fits behind the vendor's load balancer (contract 1.0).
"""

import contextlib
import contextvars
import functools
import logging
import os
import ssl
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import httpx

from tabpfn_assets import __version__
from tabpfn_operators._group import ThreadGroup, pause
from tabpfn_operators._messages import Body, Intake, Request, Response
from tabpfn_operators._run import Flow, NoAnswerError, run
from tabpfn_operators.errors import ConfigurationError, SourceChangedError
from tabpfn_operators.settings import Settings, is_loopback

T = TypeVar("T")

CHUNK_SIZE = 1 << 20
#: Reused connections are dropped before common servers drop them (75 s at the vendor's, contract 1.5).
KEEPALIVE_SECONDS = 20.0
#: Anything shorter is a test's token; replacing it would garble words.
_SHORTEST_SECRET = 8
#: Failures before the first byte was sent.
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.UnsupportedProtocol)

#: The last two: an address or a header from a server that HTTP has no place for.
_FAILURES = (httpx.HTTPError, httpx.InvalidURL, UnicodeError)

#: Whether the address of what is being sent is a secret; None while nothing of ours is sent.
_hide_url: contextvars.ContextVar[bool | None] = contextvars.ContextVar("tabpfn_hide_url", default=None)


class _HideSignedUrls(logging.Filter):
    """httpx logs whole URLs at INFO; a signed one is a secret, in its path as well as its query.

    httpcore logs answers' headers at DEBUG; a redirect's holds an address too.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if _hide_url.get() and isinstance(record.args, tuple):
            record.args = tuple(f"{a.scheme}://{a.host}/…" if isinstance(a, httpx.URL) else a for a in record.args)
        if _hide_url.get() is not None and isinstance(record.msg, str):
            record.msg = record.msg.partition(" return_value=(")[0]
        return True


_FILTER = _HideSignedUrls()


class _Connections:
    """What both wires share: settings, headers, TLS, and how an httpx failure reads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._pid: int | None = None

    def options(self) -> dict[str, Any]:
        settings = self.settings
        for name in ("httpx", "httpcore.http11"):
            logging.getLogger(name).addFilter(_FILTER)  # adding it twice is a no-op
        return {
            "verify": _tls_context(settings.verify),
            "proxy": settings.proxy.get_secret_value() if settings.proxy else None,
            "follow_redirects": False,
            # A proxy of the environment is for other hosts; an emulator on this machine is not behind it.
            "trust_env": not is_loopback(settings.base_url),
            "headers": {"user-agent": user_agent(settings), "accept": "application/json"},
            "limits": httpx.Limits(keepalive_expiry=KEEPALIVE_SECONDS),
        }

    def forked(self) -> bool:
        """Whether the process is another one than last time (Airflow forks tasks); sockets must not be shared."""
        changed, self._pid = self._pid not in {None, os.getpid()}, os.getpid()
        return changed

    def arguments(self, request: Request, bearer: str) -> dict[str, Any]:
        settings = self.settings
        headers = dict(request.headers)
        url = request.url
        if request.bearer:
            url = settings.base_url + url
            headers["authorization"] = f"Bearer {bearer}"
        if request.body is not None:
            headers["content-length"] = str(request.body.size)
        if request.billed:
            headers["connection"] = "close"
        read = request.read_timeout or settings.read_timeout
        timeout = httpx.Timeout(read, connect=settings.connect_timeout, pool=None)
        return {"method": request.method, "url": url, "headers": headers, "json": request.json, "timeout": timeout}


@functools.lru_cache(maxsize=8)
def _tls_context(verify: bool | str) -> ssl.SSLContext:
    """Make the context once in a process: it costs more than a call does, and a triggerer opens many clients."""
    if isinstance(verify, str):
        try:
            return ssl.create_default_context(cafile=verify)
        except OSError:
            raise ConfigurationError(f"verify: {verify} is no readable CA bundle.") from None
    return httpx.create_ssl_context(verify=verify)


def user_agent(settings: Settings) -> str:
    """Name this package, and the engine it runs in (design.md, Names)."""
    return " ".join(part for part in (f"tabpfn-providers/{__version__}", settings.user_agent) if part)


def _no_answer(error: Exception) -> NoAnswerError:
    unsent = isinstance(error, _UNSENT)
    reason = str(error) if unsent else ""
    return NoAnswerError(f"{type(error).__name__}{': ' if reason else ''}{reason}", unsent=unsent)


class _Collected:
    """The body of an answer, in memory."""

    def __init__(self) -> None:
        self._body = bytearray()

    def begin(self) -> None:
        """Begin anew."""
        self._body.clear()

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes."""
        # Forty minutes of keepalive whitespace (contract 1.3) must not add up in memory.
        self._body += chunk if self._body else chunk.lstrip(b" \r\n\t")

    def end(self) -> bytes:
        """Return the body."""
        return bytes(self._body)


def _intake(request: Request, status: int) -> Intake:
    intake = request.intake if request.intake is not None and status < 300 else _Collected()
    intake.begin()
    return intake


def _response(answer: httpx.Response, content: bytes, bearer: str) -> Response:
    if len(bearer) >= _SHORTEST_SECRET:
        # A server that quotes the token in an error must not carry it into exceptions and logs.
        content = content.replace(bearer.encode(), b"***")
    return Response(answer.status_code, {key.lower(): value for key, value in answer.headers.items()}, content)


class SyncWire:
    """A wire whose coroutines never suspend; safe for use from several threads.

    Args:
        settings: Where to connect, and as whom.
    """

    def __init__(self, settings: Settings) -> None:
        self._connections = _Connections(settings)
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None
        self._local = threading.local()

    async def send(self, request: Request) -> Response:
        """Send a request and read its answer."""
        token = _hide_url.set(not request.bearer)
        try:
            if request.billed:
                with httpx.Client(**self._connections.options()) as fresh:
                    return self._exchange(fresh, request)
            return self._exchange(self._pooled(), request)
        except _FAILURES as error:
            failure = _no_answer(error)
        finally:
            _hide_url.reset(token)
        # Raised out here, so that no httpx error (with the request and its bearer) hangs on it as context.
        self._look_at_stop()
        raise failure

    def _exchange(self, client: httpx.Client, request: Request) -> Response:
        bearer = self._connections.settings.bearer() if request.bearer else ""
        arguments = self._connections.arguments(request, bearer)
        group: ThreadGroup | None = getattr(self._local, "group", None)
        if group is not None:
            arguments["extensions"] = {"trace": group.trace}
        with contextlib.ExitStack() as stack:
            if request.body is not None:
                # Whatever ends the exchange, the source is closed now and not when the garbage is collected.
                arguments["content"] = stack.enter_context(contextlib.closing(self._chunks(request.body)))
            answer = stack.enter_context(client.stream(**arguments))
            intake = _intake(request, answer.status_code)
            for chunk in answer.iter_bytes():
                intake.feed(chunk)
            return _response(answer, intake.end(), bearer)

    def _chunks(self, body: Body) -> Generator[bytes, None, None]:
        with contextlib.closing(_generator(body)) as chunks:
            for chunk in chunks:
                self._look_at_stop()
                yield chunk

    def _pooled(self) -> httpx.Client:
        own: httpx.Client | None = getattr(self._local, "client", None)
        if own is not None:
            return own
        with self._lock:
            if self._connections.forked():
                self._client = None
            if self._client is None:
                self._client = httpx.Client(**self._connections.options())
            return self._client

    def _look_at_stop(self) -> None:
        group: ThreadGroup | None = getattr(self._local, "group", None)
        if group is not None:
            group.look_at_stop()

    async def sleep(self, seconds: float) -> None:
        """Wait; a worker thread wakes up when its group ends."""
        group: ThreadGroup | None = getattr(self._local, "group", None)
        if group is None:
            pause(seconds)
        else:
            group.pause(seconds)

    async def call(self, fn: Callable[..., T], *args: Any) -> T:
        """Run blocking work here and now."""
        return fn(*args)

    async def gather(self, thunks: Sequence[Callable[[], Flow[T]]], limit: int) -> list[T]:
        """Run flows in at most `limit` threads, which are gone when this returns or raises."""
        if len(thunks) == 1:
            return [await thunks[0]()]
        group = ThreadGroup()
        results: dict[int, T] = {}
        waiting = iter(enumerate(thunks))
        lock = threading.Lock()

        def work() -> None:
            with httpx.Client(**self._connections.options()) as self._local.client:
                self._local.group = group
                while True:
                    group.look_at_stop()
                    with lock:
                        index, thunk = next(waiting, (-1, None))
                    if thunk is None:
                        return
                    results[index] = run(thunk())

        group.run(work, threads=min(limit, len(thunks)))
        return [results[index] for index in range(len(thunks))]

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()


def _generator(body: Body) -> Generator[bytes, None, None]:
    """The body's chunks, exactly as many bytes as it said."""
    left = body.size
    for chunk in body.chunks(CHUNK_SIZE):
        left -= len(chunk)
        if left < 0:
            break
        yield chunk
    if left:
        raise SourceChangedError(
            "The source yielded another number of bytes than its size; was it written to meanwhile? Run again."
        )


class AsyncWire:
    """A wire for one event loop.

    Args:
        settings: Where to connect, and as whom.
    """

    def __init__(self, settings: Settings) -> None:
        self._connections = _Connections(settings)
        self._client: httpx.AsyncClient | None = None

    async def send(self, request: Request) -> Response:
        """Send a request and read its answer."""
        token = _hide_url.set(not request.bearer)
        try:
            if request.billed:
                async with httpx.AsyncClient(**self._connections.options()) as fresh:
                    return await self._exchange(fresh, request)
            if self._client is None:
                self._client = httpx.AsyncClient(**self._connections.options())
            return await self._exchange(self._client, request)
        except _FAILURES as error:
            failure = _no_answer(error)
        finally:
            _hide_url.reset(token)
        raise failure

    async def _exchange(self, client: httpx.AsyncClient, request: Request) -> Response:
        bearer = self._connections.settings.bearer() if request.bearer else ""
        arguments = self._connections.arguments(request, bearer)
        async with contextlib.AsyncExitStack() as stack:
            if request.body is not None:
                # Left to itself, a cancelled async generator ends some turns of the loop later.
                chunks = contextlib.aclosing(_async_chunks(request.body))
                arguments["content"] = await stack.enter_async_context(chunks)
            answer = await stack.enter_async_context(client.stream(**arguments))
            intake = _intake(request, answer.status_code)
            if request.intake is None:
                async for chunk in answer.aiter_bytes():
                    intake.feed(chunk)
                return _response(answer, intake.end(), bearer)
            async for chunk in answer.aiter_bytes(CHUNK_SIZE):
                await _in_thread(intake.feed, chunk)
            return _response(answer, await _in_thread(intake.end), bearer)

    async def sleep(self, seconds: float) -> None:
        """Wait, giving the loop to others."""
        await anyio.sleep(seconds)

    async def call(self, fn: Callable[..., T], *args: Any) -> T:
        """Run blocking work in a thread."""
        return await _in_thread(fn, *args)

    async def gather(self, thunks: Sequence[Callable[[], Flow[T]]], limit: int) -> list[T]:
        """Run flows as tasks; the first error cancels the others and is raised as it is."""
        limiter = anyio.CapacityLimiter(limit)
        results: dict[int, T] = {}
        errors: list[Exception] = []

        async def work(index: int) -> None:
            try:
                async with limiter:
                    results[index] = await thunks[index]()
            except Exception as error:  # raised again below, outside the task group's own grouping
                errors.append(error)
                group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            for index in range(len(thunks)):
                group.start_soon(work, index)
        if errors:
            raise errors[0]
        return [results[index] for index in range(len(thunks))]

    async def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()


async def _async_chunks(body: Body) -> AsyncGenerator[bytes, None]:
    chunks = _generator(body)
    try:
        while (chunk := await _in_thread(next, chunks, None)) is not None:
            yield chunk
    finally:
        chunks.close()


async def _in_thread(fn: Callable[..., T], *args: Any) -> T:
    """Run blocking work to its end: whoever is cancelled closes what it works on, which a thread must not be using."""
    outcome: Future[T] = Future()

    def work() -> None:
        if outcome.set_running_or_notify_cancel():
            try:
                outcome.set_result(fn(*args))
            except BaseException as error:
                outcome.set_exception(error)

    try:
        await anyio.to_thread.run_sync(work)
    except BaseException:
        # anyio would wait for the thread, but `Task.cancel` does not ask it (asyncio.timeout, wait_for).
        while not (outcome.cancel() or outcome.done()):  # noqa: ASYNC110  # a thread sets no event of the loop
            await anyio.sleep(0.01)
        raise
    return outcome.result()
