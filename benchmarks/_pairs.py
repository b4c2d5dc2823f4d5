"""The splice against a ready-made file of the same bytes, through the same code, to the same server."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from _tables import TARGET

from tabpfn_operators import Client
from tabpfn_operators import _messages as messages
from tabpfn_operators._messages import Body
from tabpfn_operators._run import run
from tabpfn_operators._wire import SyncWire
from tabpfn_operators.settings import Settings
from tabpfn_operators.splice import split

_TOKEN = "benchmark"
_COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class ReadyFile:
    """A plain file as a body.

    Args:
        path: The file.
    """

    path: Path

    @property
    def size(self) -> int:
        """Bytes."""
        return self.path.stat().st_size

    def chunks(self, chunk_size: int, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Open the file anew and yield the bytes of [start, stop)."""
        left = (self.size if stop is None else min(stop, self.size)) - start
        with self.path.open("rb", buffering=0) as file:
            file.seek(start)
            while left > 0 and (chunk := file.read(min(chunk_size, left))):
                left -= len(chunk)
                yield chunk


class EmulatorPuts:
    """PUTs of X to the emulator, each to an upload of its own.

    Args:
        base_url: Its base URL.
    """

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._settings = Settings.resolve(_TOKEN, base_url=base_url)

    def time(self, make: Callable[[], Body]) -> tuple[float, str]:
        """Return seconds from the making of a body to the store's answer, and the CRC32C that the store found."""
        wire = SyncWire(self._settings)
        info = messages.file_info(1, None)
        request = messages.prepare_train_set_upload(info, info, force_reupload=True)
        prepared = messages.read_prepared(
            run(wire.send(request)), request.label, "train_set_upload_id", "x_train_info", "y_train_info"
        )
        ticket = prepared.tickets[0]
        try:
            return put(wire, ticket.signed_urls[0], ticket.required_headers, make)
        finally:
            wire.close()
            with Client(_TOKEN, base_url=self._base_url) as client:
                client.delete_dataset(prepared.upload_id)


class SinkPuts:
    """PUTs of X to a server that drops the bytes.

    Args:
        url: Its address.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._settings = Settings.resolve(_TOKEN, base_url=url)

    def time(self, make: Callable[[], Body]) -> tuple[float, str]:
        """Return seconds from the making of a body to the answer, and nothing of a checksum."""
        wire = SyncWire(self._settings)
        try:
            return put(wire, f"{self._url}/x", {}, make)
        finally:
            wire.close()


def put(wire: SyncWire, url: str, headers: Mapping[str, str], make: Callable[[], Body]) -> tuple[float, str]:
    """Make a body and put it; return the seconds of both, and the CRC32C of the answer."""
    started = time.perf_counter()
    answer = run(wire.send(messages.put_part(url, headers, make(), label="PUT")))
    seconds = time.perf_counter() - started
    if answer.status != 200:
        raise RuntimeError(f"the server answered {answer.status}: {answer.body[:500]!r}")
    hashes = dict(part.split("=", 1) for part in answer.headers.get("x-goog-hash", "").split(",") if "=" in part)
    return seconds, hashes.get("crc32c", "")


@contextmanager
def running_sink() -> Iterator[str]:
    """Run a server that drops bodies; yield its address."""
    command = [sys.executable, str(Path(__file__).with_name("_sink.py"))]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as server:
        try:
            yield (server.stdout.readline() if server.stdout else "").strip()
        finally:
            server.terminate()


@dataclass(frozen=True)
class Pairs:
    """Seconds of the splice and of the ready-made file, pair by pair, for the same bytes."""

    size: int
    spliced: tuple[float, ...]
    ready: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Median share of the ready-made file's throughput that the splice reaches."""
        return median(ready / spliced for ready, spliced in zip(self.ready, self.spliced, strict=True))

    def rates(self) -> str:
        """Return the median rates."""
        spliced, ready = (self.size / median(seconds) / 1e6 for seconds in (self.spliced, self.ready))
        return f"{spliced:,.0f} of {ready:,.0f} MB/s"


def compare(puts: EmulatorPuts | SinkPuts, source: Path, ready: Path, pairs: int) -> Pairs:
    """Put X both ways in turn, the order changing from pair to pair, after one pair that warms up.

    Args:
        puts: The server.
        source: The table.
        ready: X of it as a file; the splicing of the table is timed, the writing of this one is not.
        pairs: How many.

    Raises:
        RuntimeError: The store got other bytes from the splice than from the file.
    """
    makes: list[Callable[[], Body]] = [lambda: split(str(source), TARGET)[0], lambda: ReadyFile(ready)]
    files = (source, ready)
    seconds: tuple[list[float], list[float]] = ([], [])
    hashes = set()
    for number in range(pairs + 1):
        for way in (0, 1) if number % 2 else (1, 0):
            warm(files[way])
            took, found = puts.time(makes[way])
            hashes.add(found)
            if number:
                seconds[way].append(took)
    if len(hashes) > 1:
        raise RuntimeError(f"the store has found several checksums: {sorted(hashes)}")
    return Pairs(ready.stat().st_size, tuple(seconds[0]), tuple(seconds[1]))


def warm(path: Path) -> None:
    """Read a file, so that it is in the page cache: some machines give pages back that were idle for seconds."""
    with path.open("rb", buffering=0) as file:
        while file.read(_COPY_BYTES):
            pass


def write_ready(source: Path, ready: Path) -> Path:
    """Write X of a table as a plain file."""
    x, _ = split(str(source), TARGET)
    with ready.open("wb") as file:
        for chunk in x.chunks(_COPY_BYTES):
            file.write(chunk)
    return ready
