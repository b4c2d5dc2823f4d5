"""Poll the emulator with many clients while others upload, and see how long a poll takes.

1,000 clients ask for the status of a fit, each on a connection of its own, each every 5 seconds; 50 more upload files
of 20 MB in a loop, as fast as the server takes them. The journal is on. ::

    python benchmarks/emulator_load.py --check

Prints one row for each goal. With `--check` the exit code is 1 when one is missed.
"""

import argparse
import asyncio
import http.client
import json
import math
import multiprocessing
import random
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tabpfn_emulator.testing import EmulatorControl, running_emulator

GOAL_P99_MS = 250.0
POLL_EVERY_SECONDS = 5.0
FILE_BYTES = 20_000_000
_STATUS = "/tabpfn/get_fit_status"
_TOKEN = "load-test"
_HEADERS = {"Authorization": f"Bearer {_TOKEN}", "Content-Type": "application/json"}


@dataclass
class Seen:
    """What the clients have seen.

    Attributes:
        polls: Seconds from the sending of a poll to the last byte of its answer.
        lags: Seconds that polls were sent late: the share of the clients themselves.
        errors: What went wrong, by client.
    """

    polls: list[float] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def call(url: str, method: str, path: str, body: Any = None) -> Any:
    """Call the API once, on a connection of its own."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)
    try:
        connection.request(method, path, None if body is None else json.dumps(body), _HEADERS)
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise RuntimeError(f"{method} {path}: {answer.status} {text[:200]!r}")
    return json.loads(text)


def put(info: dict[str, Any], content: bytes) -> None:
    """Put a file behind its signed URL."""
    target = urlsplit(info["signed_urls"][0])
    connection = http.client.HTTPConnection(target.netloc, timeout=120)
    try:
        connection.request("PUT", f"{target.path}?{target.query}", content, info["required_headers"])
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise RuntimeError(f"PUT: {answer.status} {text[:200]!r}")


def open_upload(url: str) -> dict[str, Any]:
    """Open the upload of a train set; without hashes, so none is a duplicate."""
    info = {"format": "csv"}
    opened: dict[str, Any] = call(
        url, "POST", "/tabpfn/prepare_train_set_upload", {"x_train_info": info, "y_train_info": info}
    )
    return opened


def pending_fit(url: str) -> str:
    """Submit a fit that never ends; return its id."""
    EmulatorControl(url).inject(kind="endless_fit")
    opened = open_upload(url)
    put(opened["x_train_info"], b"a\n" + b"1\n2\n" * 20)
    put(opened["y_train_info"], b"y\n" + b"no\nyes\n" * 20)
    body = {"train_set_upload_id": opened["train_set_upload_id"], "task_config": {"task": "classification"}}
    return str(call(url, "POST", "/tabpfn/submit_fit_job", body)["fitted_train_set_id"])


def upload_until(url: str, clients: int, ends: float) -> tuple[int, list[str]]:
    """Upload files with many clients; runs in a process of its own, so that the pollers keep theirs.

    Returns:
        How many files arrived, and what went wrong.
    """
    content = random.Random(7).randbytes(FILE_BYTES)

    def loop() -> tuple[int, list[str]]:
        done = 0
        while time.time() < ends:
            try:
                opened = open_upload(url)
                put(opened["x_train_info"], content)
                # Else a minute of this fills the disk.
                call(url, "DELETE", f"/delete_dataset/?dataset_uid={opened['train_set_upload_id']}")
            except (OSError, RuntimeError, http.client.HTTPException) as error:
                return done, [f"upload: {error!r}"]
            done += 1
        return done, []

    with ThreadPoolExecutor(max(1, clients)) as pool:
        results = [job.result() for job in [pool.submit(loop) for _ in range(clients)]]
    return sum(done for done, _ in results), [error for _, errors in results for error in errors]


async def poll_until(url: str, fitted_id: str, first: float, ends: float, seen: Seen) -> None:
    """Poll on one connection, at fixed moments from `first` on."""
    host = urlsplit(url)
    body = json.dumps({"fitted_train_set_id": fitted_id})
    headers = {**_HEADERS, "Host": host.netloc, "Content-Length": str(len(body))}
    request = f"POST {_STATUS} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items()) + f"\r\n{body}"
    reader, writer = await asyncio.open_connection(host.hostname, host.port)
    due = first
    try:
        while due < ends:
            await asyncio.sleep(max(0.0, due - time.time()))
            seen.lags.append(max(0.0, time.time() - due))
            began = time.perf_counter()
            writer.write(request.encode())
            async with asyncio.timeout(30):
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.split("content-length:")[1].split("\r\n")[0])
                answer = json.loads(await reader.readexactly(length))
            seen.polls.append(time.perf_counter() - began)
            if " 200 " not in head.split("\r\n")[0] or answer["status"] != "pending":
                seen.errors.append(f"poll: {answer}")
            due += POLL_EVERY_SECONDS
    except (OSError, EOFError, TimeoutError, IndexError, ValueError, KeyError) as error:
        seen.errors.append(f"poll: {error!r}")
    finally:
        writer.close()


async def poll_with_all(url: str, fitted_id: str, clients: int, begins: float, ends: float) -> Seen:
    """Poll with all clients, spread evenly over the time between two polls."""
    seen = Seen()
    starts = [begins + POLL_EVERY_SECONDS * number / clients for number in range(clients)]
    await asyncio.gather(*(poll_until(url, fitted_id, first, ends, seen) for first in starts))
    return seen


def percentile(values: list[float], share: float) -> float:
    """Return the smallest value that so large a share of the values does not exceed; nan without values."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def measure(options: argparse.Namespace, folder: Path) -> list[tuple[str, str, str, bool]]:
    """Run the load; return rows of figure, goal, value, and whether the goal is met."""
    spawn = multiprocessing.get_context("spawn")
    with running_emulator(folder) as url, spawn.Pool(1) as other:
        fitted_id = pending_fit(url)
        begins = time.time() + 3.0
        ends = begins + options.seconds
        uploading = other.apply_async(upload_until, (url, options.uploaders, ends))
        seen = asyncio.run(poll_with_all(url, fitted_id, options.pollers, begins, ends))
        uploads, upload_errors = uploading.get(timeout=600)
        rate = uploads * FILE_BYTES / (time.time() - begins) / 1e6
        rows = EmulatorControl(url).totals()["routes"].get(_STATUS, 0)
    errors = seen.errors + upload_errors
    for error in errors[:5]:
        print(error, file=sys.stderr)
    p99 = percentile(seen.polls, 0.99) * 1000
    return [
        ("poll p99", f"<= {GOAL_P99_MS:.0f} ms", f"{p99:.0f} ms", p99 <= GOAL_P99_MS),
        ("errors", "0", str(len(errors)), not errors),
        ("rows in the journal", f"{len(seen.polls)} polls", str(rows), rows == len(seen.polls)),
        ("uploads of 20 MB", "> 0", f"{uploads} ({rate:.0f} MB/s)", uploads > 0),
        ("poll median", "-", f"{percentile(seen.polls, 0.5) * 1000:.0f} ms", True),
        ("poll longest", "-", f"{max(seen.polls, default=math.nan) * 1000:.0f} ms", True),
        ("clients late, p99", "-", f"{percentile(seen.lags, 0.99) * 1000:.0f} ms", True),
    ]


def main() -> int:
    """Run the benchmark; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (default 60)")
    parser.add_argument("--pollers", type=int, default=1000, help="clients that poll (default 1000)")
    parser.add_argument("--uploaders", type=int, default=50, help="clients that upload (default 50)")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a goal is missed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tabpfn-load-") as folder:
        rows = measure(options, Path(folder))
    print(f"{'':<22}{'goal':<18}{'figure':<22}")
    for name, goal, figure, met in rows:
        print(f"{name:<22}{goal:<18}{figure:<22}{'' if met else 'MISSED'}".rstrip())
    return int(options.check and not all(met for *_, met in rows))


if __name__ == "__main__":
    sys.exit(main())
