"""Upload one very large file to the emulator, three ways, and watch the memory of the server.

Run on Linux, with twice the file's size free in the folder for temporary files::

    python benchmarks/emulator_upload.py --gib 5 --check

Prints one row for each way: what was sent, how fast, what the server said of it, its peak of resident memory so far.
The content is pseudo-random and never whole in memory here either.
"""

import argparse
import base64
import http.client
import json
import os
import random
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import google_crc32c

from tabpfn_emulator.testing import EmulatorControl, running_emulator

GOAL_MB = 300
"""Most resident memory of the server, in MB of 1,000,000 bytes."""
_BLOCK = 1 << 20
_PARALLEL = 4
_NOISE = random.Random(20261121).randbytes(_BLOCK)


def content(start: int, end: int) -> Iterator[bytes]:
    """Yield bytes `start` to `end` of a file in which no block of 1 MiB is like another."""
    for number in range(start // _BLOCK, -(-end // _BLOCK)):
        block = number.to_bytes(8, "big") + _NOISE[8:]
        first = number * _BLOCK
        yield block[max(0, start - first) : end - first]


def crc32c(size: int) -> str:
    """Return the CRC32C of the whole file as the API writes it."""
    checksum = google_crc32c.Checksum()
    for block in content(0, size):
        checksum.update(block)
    return base64.b64encode(checksum.digest()).decode()


def peak_mb(pid: int) -> float:
    """Return a process's peak of resident memory, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    kib = next(line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(kib) * 1024 / 1e6


def only_child() -> int:
    """Return the process id of the emulator, the one process that this one has started."""
    pid = os.getpid()
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()[0])


def send(method: str, url: str, body: Any, headers: Mapping[str, str]) -> tuple[int, Any, bytes]:
    """Send one request on a connection of its own; return status, headers and body of the answer."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=600)
    try:
        # An iterable without a Content-Length goes out in chunked transfer encoding.
        connection.request(method, f"{parts.path}?{parts.query}", body, dict(headers))
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


@dataclass(frozen=True)
class Row:
    """What one way of uploading has shown."""

    way: str
    seconds: float
    accepted: bool
    verified: bool
    peak: float


class Uploader:
    """A caller with an account of its own.

    Args:
        url: Base URL of the emulator.
        pid: Its process id.
        size: Bytes of the file.
    """

    def __init__(self, url: str, pid: int, size: int) -> None:
        self.url, self.pid, self.size = url, pid, size
        self.hash = crc32c(size)
        self.headers = {"Authorization": f"Bearer {uuid.uuid4()}", "Content-Type": "application/json"}

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        """Call the API."""
        status, _, answer = send(method, self.url + path, json.dumps(body).encode(), self.headers)
        return status, json.loads(answer)

    def put(self, url: str, start: int, end: int, headers: Mapping[str, str], *, chunked: bool) -> bool:
        """Put one part; return whether the store took it and, where it says so, whether it found our checksum."""
        length = {} if chunked else {"Content-Length": str(end - start)}
        status, answer, _ = send("PUT", url, content(start, end), {**headers, **length})
        found = answer.get("x-goog-hash")
        whole = (start, end) == (0, self.size)
        return status == 200 and (found is None or not whole or f"crc32c={self.hash}" in found)

    def run(self, way: str, *, chunked: bool, many: bool) -> Row:
        """Upload the file and let the server join and verify it."""
        info = {"format": "csv", "hash": self.hash, "size_bytes": self.size, "use_chunks": many}
        # A target that cannot be what it says: the server verifies the features, then refuses, and learns nothing.
        target = {"format": "csv", "hash": "AAAAAA==", "size_bytes": 4}
        _, prepared = self.call(
            "POST", "/tabpfn/prepare_train_set_upload", {"x_train_info": info, "y_train_info": target}
        )
        features = prepared["x_train_info"]
        urls, headers = features["signed_urls"], features["required_headers"]
        step = self.size // len(urls)
        ends = [step * number for number in range(1, len(urls))] + [self.size]
        parts = zip(urls, [0, *ends[:-1]], ends, strict=True)
        started = time.monotonic()
        with ThreadPoolExecutor(_PARALLEL) as pool:
            puts = [pool.submit(self.put, url, start, end, headers, chunked=chunked) for url, start, end in parts]
            accepted = all(put.result() for put in puts)
        seconds = time.monotonic() - started
        y_url = prepared["y_train_info"]["signed_urls"][0]
        send("PUT", y_url, b"y\n1\n", prepared["y_train_info"]["required_headers"])
        upload = prepared["train_set_upload_id"]
        status, refusal = self.call("POST", "/tabpfn/fit", {"train_set_upload_id": upload, "task": "classification"})
        verified = status == 422 and refusal["message"].startswith("y_train: the CRC32C")
        self.call("DELETE", f"/delete_dataset/?dataset_uid={upload}")
        return Row(f"{way}, {len(urls)} URL(s)", seconds, accepted, verified, peak_mb(self.pid))


def measure(gib: float) -> list[Row]:
    """Upload the file in each way.

    Args:
        gib: Its size in GiB.
    """
    size = int(gib * 1024**3)
    # The largest file that the API takes, and no smaller one than that which is sent.
    with running_emulator() as url:
        control = EmulatorControl(url)
        control.configure(dataset_max_size_bytes=max(size, 5 * 1024**3))
        uploader = Uploader(url, only_child(), size)
        rows = [
            uploader.run("gcs, Content-Length", chunked=False, many=False),
            uploader.run("gcs, chunked encoding", chunked=True, many=False),
            uploader.run("gcs, in parts", chunked=False, many=True),
        ]
        control.configure(storage="s3")
        return [*rows, uploader.run("s3, Content-Length", chunked=False, many=False)]


def main() -> int:
    """Print goals and figures; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gib", type=float, default=5.0, help="size of the file in GiB (default: 5)")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a goal is missed")
    arguments = parser.parse_args()
    rows = measure(arguments.gib)
    megabytes = int(arguments.gib * 1024**3) / 1e6
    print(f"One file of {arguments.gib:g} GiB ({megabytes:,.0f} MB)\n")
    print("| way | goal | peak of the server so far | accepted | verified | MB/s |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        said = " | ".join("yes" if flag else "NO" for flag in (row.accepted, row.verified))
        speed = megabytes / row.seconds
        print(f"| {row.way} | <= {GOAL_MB} MB | {row.peak:.0f} MB | {said} | {speed:.0f} |")
    missed = [row.way for row in rows if row.peak > GOAL_MB or not row.accepted or not row.verified]
    print(f"\n{'Missed: ' + '; '.join(missed) if missed else 'All goals met.'}")
    return 1 if arguments.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
