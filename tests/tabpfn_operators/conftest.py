"""A loopback HTTP server whose every answer a test decides, and one way to drive both clients."""

import asyncio
import contextlib
import inspect
import io
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings

from tabpfn_assets import Evaluation, FittedModel
from tabpfn_operators import AsyncClient, Client

settings.register_profile("tabpfn", derandomize=True, deadline=None)
settings.load_profile("tabpfn")

TOKEN = "sk-loopback-0123456789abcdef"


@dataclass(frozen=True)
class Seen:
    """One request as the server saw it.

    Args:
        method: HTTP method.
        path: Path with query.
        headers: Names in lower case.
        body: Body bytes.
        connection: Number of the connection, from 0.
        nth: Number of the request on that connection, from 1.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    connection: int
    nth: int

    def json(self) -> Any:
        """Parse the body."""
        return json.loads(self.body)


class LoopbackServer:
    """Serves what `handler` returns: (status, JSON or bytes[, headers]), raw bytes, or None to drop the connection."""

    def __init__(self, handler: Callable[[Seen], Any], *, idle_seconds: float | None = None) -> None:
        self.seen: list[Seen] = []
        self._handler = handler
        self._idle_seconds = idle_seconds
        self._failures: list[BaseException] = []
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()

    def paths(self) -> list[str]:
        """Return the paths asked for, in order."""
        return [seen.path for seen in self.seen]

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with self._lock:
                    number = len(self._connections)
                    self._connections.append(connection)
                    thread = threading.Thread(target=self._serve, args=(connection, number))
                    self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with connection, connection.makefile("rb") as stream:
            try:
                nth = 0
                while (seen := self._read(connection, stream, number, nth + 1)) is not None:
                    nth += 1
                    with self._lock:
                        self.seen.append(seen)
                    reply = self._handler(seen)
                    if reply is None:
                        return
                    connection.sendall(reply if isinstance(reply, bytes) else _encoded(*reply))
                    if isinstance(reply, bytes) or seen.headers.get("connection") == "close":
                        return
            except OSError:
                return  # the client went away, or the idle time is over
            except BaseException as error:
                self._failures.append(error)
            finally:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _read(self, connection: socket.socket, stream: io.BufferedReader, number: int, nth: int) -> Seen | None:
        connection.settimeout(self._idle_seconds)
        start = stream.readline()
        connection.settimeout(None)
        if not start:
            return None
        method, path, _ = start.decode().split(" ", 2)
        headers = {}
        while line := stream.readline().strip():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        body = stream.read(int(headers.get("content-length", 0)))
        return Seen(method, path, headers, body, number, nth)

    def close(self) -> None:
        """Close everything, join every thread, and raise what a handler raised."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        if self._failures:
            raise self._failures[0]


def _encoded(status: int, body: Any, headers: Mapping[str, str] | None = None) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = {"content-length": str(len(content)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status} X\r\n{head}\r\n".encode("latin-1") + content


@pytest.fixture
def loopback() -> Iterator[Callable[..., LoopbackServer]]:
    """Start servers that end with the test."""
    with contextlib.ExitStack() as stack:

        def start(handler: Callable[[Seen], Any], **options: Any) -> LoopbackServer:
            server = LoopbackServer(handler, **options)
            stack.callback(server.close)
            return server

        yield start


class Driver:
    """A client of either kind, called in one way."""

    def __init__(self, kind: str, **settings: Any) -> None:
        self._runner = asyncio.Runner() if kind == "async" else None
        self.client: Any = (AsyncClient if self._runner else Client)(**settings)

    def __call__(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the client."""
        return self.flow(lambda: getattr(self.client, method)(*args, **kwargs))

    def flow(self, start: Callable[[], Any]) -> Any:
        """Run what `start` returns: a value, or a coroutine over the client's wire."""
        if self._runner is not None:
            return self._runner.run(_started(start))
        result = start()
        if not inspect.iscoroutine(result):
            return result
        try:
            result.send(None)
        except StopIteration as stop:
            return stop.value
        raise AssertionError("a flow over the sync wire suspended")

    def close(self) -> None:
        """Close the client, and its loop."""
        self("close")
        if self._runner is not None:
            self._runner.close()


async def _started(start: Callable[[], Any]) -> Any:
    return await start()


@pytest.fixture(params=["sync", "async"])
def drive(request: pytest.FixtureRequest) -> Iterator[Callable[..., Driver]]:
    """Open clients of one kind; each test runs once with `Client` and once with `AsyncClient`."""
    with contextlib.ExitStack() as stack:

        def start(base_url: str, token: Any = TOKEN, **settings: Any) -> Driver:
            # Loopback is plain http: loading certificates would only take time.
            settings = {"verify": False, **settings}
            driver = Driver(request.param, token=token, base_url=base_url, **settings)
            stack.callback(driver.close)
            return driver

        yield start


@pytest.fixture
def token() -> str:
    """The token that `drive` uses."""
    return TOKEN


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let the wires note how long they were to sleep instead of sleeping."""
    from tabpfn_operators import _wire

    waits: list[float] = []

    async def sleep(self: Any, seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(_wire.SyncWire, "sleep", sleep)
    monkeypatch.setattr(_wire.AsyncWire, "sleep", sleep)
    return waits


@pytest.fixture
def build_model() -> Callable[..., FittedModel]:
    """Build a completed model; any field may be another."""

    def build(**fields: Any) -> FittedModel:
        record = {
            "fitted_train_set_id": "fitted-1",
            "train_set_upload_id": "upload-1",
            "status": "completed",
            "target": "y",
            "features": [{"name": "a", "dtype": "double"}, {"name": "b", "dtype": "string"}],
            "classes": ["no", "yes"],
            "rows": 100,
            "source": {"uris": ["train.parquet"], "rows": 100},
            "parameters": {"task": "classification"},
            "created_at": "2026-11-21T00:00:00Z",
        }
        return FittedModel.model_validate({**record, **fields})

    return build


@pytest.fixture
def build_evaluation() -> Callable[..., Evaluation]:
    """Build an evaluation of the model that `build_model` builds; any field may be another."""

    def build(**fields: Any) -> Evaluation:
        record = {
            "fitted_train_set_id": "fitted-1",
            "task": "classification",
            "target": "y",
            "headline": "log_loss",
            "metrics": {"log_loss": 0.5},
            "rows": 10,
            "rows_scored": 10,
            "rows_evaluated": 10,
            "seed": 0,
            "classes": ["no", "yes"],
            "created_at": "2026-11-21T01:00:00Z",
        }
        return Evaluation.model_validate({**record, **fields})

    return build


@pytest.fixture
def build_judged() -> Callable[..., Evaluation]:
    """Build an evaluation of the model of `build_model`, with every plot its task has; any field may be another."""

    def build(task: str = "classification", **fields: Any) -> Evaluation:
        steps = [step / 20 for step in range(21)]
        record: dict[str, Any] = {
            "fitted_train_set_id": "fitted-1",
            "task": task,
            "target": "y",
            "rows": 1200,
            "rows_scored": 1200,
            "rows_evaluated": 1000,
            "seed": 7,
            "created_at": "2026-11-21T00:00:00Z",
        }
        if task == "regression":
            record |= {
                "headline": "rmse",
                "metrics": {"rmse": 2.5, "mae": 1.9, "r2": 0.8, "pinball": 0.7, "coverage_80": 0.78},
                "baseline": {"rmse": 6.0, "mae": 4.8, "r2": 0.0},
                "interval": {"low": 2.3, "high": 2.7, "resamples": 1000},
                "curves": {
                    "residuals": [(-8 + 0.4 * i, -7.6 + 0.4 * i, float(400 - (i - 20) ** 2)) for i in range(40)],
                    "predicted_actual": [(i / 10, i / 10 + i % 7 - 3) for i in range(500)],
                    "coverage": [(0.2, 0.18), (0.4, 0.41), (0.6, 0.57), (0.8, 0.78)],
                },
            }
        else:
            record |= {
                "headline": "log_loss",
                "metrics": {"log_loss": 0.31, "accuracy": 0.88, "ece": 0.02},
                "baseline": {"log_loss": 0.69, "accuracy": 0.55, "ece": 0.0},
                "interval": {"low": 0.28, "high": 0.34, "resamples": 1000},
                "classes": ["no", "yes"],
                "confusion": [(480, 70), (50, 400)],
                "curves": {
                    "reliability": [(0.55, 0.5, 100.0), (0.75, 0.78, 300.0), (0.95, 0.97, 600.0)],
                    "roc:1": [(step, step**0.25) for step in steps],
                    "pr:1": [(step, 1 - 0.5 * step**4) for step in steps],
                },
            }
        return Evaluation.model_validate({**record, **fields})

    return build
