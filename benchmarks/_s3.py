"""Reading X from S3, in an environment with s3fs and moto's server; started by upload.py.

Usage: `_s3.py read SOURCE TARGET PAIRS` or `_s3.py serve`
"""

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from _memory import answer

PARTS = 8
CHUNK_BYTES = 1 << 20
_KEY = "benchmark/table.parquet"

Range = tuple[int, int]


def serve() -> None:
    """Run moto's server until standard input ends."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    sys.stdout.write(f"http://{host}:{port}\n")
    sys.stdout.flush()
    sys.stdin.read()
    server.stop()


@contextmanager
def moto() -> Iterator[str]:
    """Run moto's server in a process of its own, where it shares no interpreter with what is measured."""
    command = [sys.executable, "-W", "ignore", __file__, "serve"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            yield (server.stdout.readline() if server.stdout else "").strip()
        finally:
            server.terminate()


def side_by_side(read: Callable[[Any], int], parts: Iterable[Any]) -> tuple[float, int]:
    """Read parts in threads of their own; return seconds and bytes."""
    started = time.perf_counter()
    with ThreadPoolExecutor(PARTS) as threads:
        count = sum(threads.map(read, parts))
    return time.perf_counter() - started, count


def get(url: str, ranges: Iterable[Range]) -> int:
    """Read ranges without any S3 client; the object is public."""
    count = 0
    parts = urlsplit(url)
    for start, stop in ranges:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=600)
        connection.request("GET", f"/{_KEY}", headers={"Range": f"bytes={start}-{stop - 1}"})
        count += len(connection.getresponse().read())
        connection.close()
    return count


def requests(x: Any, part: Any) -> list[Range]:
    """Return the ranges that the splice asks for, so that all ways make the same requests."""
    from tabpfn_operators.splice._ranges import LITERAL, into_blocks

    blocks = into_blocks(x._layout.pieces(part.start, part.stop))  # noqa: SLF001 - the very ranges
    return [(block.start, block.stop) for block in blocks if block.source != LITERAL]


def read(source: str, target: str, pairs: int) -> None:
    """Measure the splice, s3fs and plain GETs on the same ranges, in turn."""
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    import s3fs

    from tabpfn_operators._messages import split_into_parts
    from tabpfn_operators.splice import split

    with moto() as url:
        client = {"endpoint_url": url, "region_name": "eu-central-1"}
        options = {"key": "a-key", "secret": "a-secret", "client_kwargs": client}
        fs = s3fs.S3FileSystem(**options, s3_additional_kwargs={"ACL": "public-read"})
        fs.mkdir(_KEY.partition("/")[0])
        fs.put_file(source, _KEY)
        x, _ = split(f"s3://{_KEY}", target, storage_options=options)
        parts = split_into_parts(x, PARTS)
        ranges = [requests(x, part) for part in parts]
        stored = sum(size for number, _, size in x._layout.pieces(0, x.size) if number >= 0)  # noqa: SLF001 - as above
        ways: dict[str, tuple[Callable[[Any], int], Iterable[Any]]] = {
            "splice": (lambda part: sum(map(len, part.chunks(CHUNK_BYTES))), parts),
            "s3fs": (lambda some: sum(len(fs.cat_file(_KEY, start=start, end=stop)) for start, stop in some), ranges),
            "moto": (lambda some: get(url, some), ranges),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for number in range(pairs + 1):
            for way in list(ways) if number % 2 else list(ways)[::-1]:
                took, count = side_by_side(*ways[way])
                if count < stored:
                    raise RuntimeError(f"{way} has read only {count} bytes")
                if number:  # the first round warms up
                    seconds[way].append(took)
    answer(size=Path(source).stat().st_size, sent=x.size, **seconds)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    else:
        read(sys.argv[2], sys.argv[3], int(sys.argv[4]))
