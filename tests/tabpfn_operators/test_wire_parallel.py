"""Parts of one upload in flight together, and an interrupt that ends them."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from tabpfn_operators import _messages as messages
from tabpfn_operators.progress import ignore
from tabpfn_operators.spool import SpoolFile
from tabpfn_operators.transfer import PARALLEL_PARTS, Opening, transfer

CONTENT = bytes(range(256)) * 4096 + b"rest"
OPENING = Opening(lambda infos, force: messages.post("/prepare", {"force": force}), "upload_id", ("x",))


def storing(handler, parts):
    """Answer the call that opens an upload with so many URLs, and leave the PUTs to the handler."""

    def handle(seen):
        if seen.path != "/prepare":
            return handler(seen)
        urls = [f"http://{seen.headers['host']}/part/{number}?sig=hidden" for number in range(parts)]
        return 200, {"upload_id": "u", "x": {"signed_urls": urls, "required_headers": {"x-store": "v"}}}

    return handle


def put(driver, body, progress=ignore):
    session = driver.client._session
    return driver.flow(
        lambda: transfer(
            session,
            OPENING,
            (body,),
            force_reupload=False,
            checksum=None,
            check_unchanged=None,
            progress=progress,
        )
    )


def puts(server):
    return [seen for seen in server.seen if seen.method == "PUT"]


@pytest.fixture
def spooled(tmp_path):
    path = tmp_path / "0.parquet"
    path.write_bytes(CONTENT)
    return SpoolFile(path, len(CONTENT), "hash", num_rows=1)


def test_four_parts_are_in_flight_together(loopback, drive, spooled):
    assert PARALLEL_PARTS == 4
    barrier = threading.Barrier(4)

    def handler(seen):
        barrier.wait(60)  # nobody is answered before all four are here
        return 200, b""

    server = loopback(storing(handler, 4))
    progress = []
    assert put(drive(server.url), spooled, progress.append).bytes_sent == len(CONTENT)
    assert not barrier.broken
    sent = {seen.path: seen for seen in puts(server)}
    assert b"".join(sent[path].body for path in sorted(sent)) == CONTENT
    assert len(puts(server)) == 4
    assert progress[-1].done == len(CONTENT)
    assert [seen.headers["x-store"] for seen in puts(server)] == ["v"] * 4
    assert all("authorization" not in seen.headers for seen in puts(server))


def test_never_more_than_four(loopback, drive, spooled):
    lock, running, most = threading.Lock(), [0], [0]

    def handler(seen):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.02)
        with lock:
            running[0] -= 1
        return 200, b""

    server = loopback(storing(handler, 11))
    put(drive(server.url), spooled)
    assert most[0] <= 4
    assert len(puts(server)) == 11


def test_more_parts_than_bytes(loopback, drive, tmp_path):
    path = tmp_path / "0.parquet"
    path.write_bytes(b"ab")
    server = loopback(storing(lambda seen: (200, b""), 3))
    put(drive(server.url), SpoolFile(path, 2, "h", num_rows=1))
    sent = {seen.path: seen.body for seen in puts(server)}
    assert [sent[path] for path in sorted(sent)] == [b"", b"", b"ab"]


def test_a_duplicate_moves_no_byte(loopback, drive, spooled):
    server = loopback(lambda seen: (409, {"upload_id": "known"}))
    sent = put(drive(server.url), spooled)
    assert (sent.upload_id, sent.bytes_sent, sent.duplicate) == ("known", 0, True)
    assert puts(server) == []


INTERRUPTED = """
import asyncio, pathlib, signal, sys, threading, time

from tabpfn_operators import AsyncClient, Client
from tabpfn_operators import _messages as messages
from tabpfn_operators._run import run
from tabpfn_operators.progress import ignore
from tabpfn_operators.spool import SpoolFile
from tabpfn_operators.transfer import Opening, transfer

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with it ignored
kind, url, path = sys.argv[1:]
body = SpoolFile(pathlib.Path(path), pathlib.Path(path).stat().st_size, "hash", num_rows=1)
opening = Opening(lambda infos, force: messages.post("/prepare", {}), "upload_id", ("x",))
options = {"force_reupload": False, "checksum": None, "check_unchanged": None, "progress": ignore}

async def put():
    async with AsyncClient("token-1234", base_url=url) as client:
        await transfer(client._session, opening, (body,), **options)

try:
    if kind == "sync":
        with Client("token-1234", base_url=url) as client:
            run(transfer(client._session, opening, (body,), **options))
    else:
        asyncio.run(put())
except KeyboardInterrupt:
    # A loop tells its idle worker threads to end and does not wait for them.
    patience = time.monotonic() + 30
    while threading.active_count() > 1 and time.monotonic() < patience:
        time.sleep(0.01)
    # The clock is the machine's, so the test can compare it with the moment of its signal.
    print(time.monotonic(), [thread.name for thread in threading.enumerate()])
"""


def seconds_to_end(loopback, path, kind):
    """Interrupt an upload whose four parts all wait for an answer; return how long it lived on."""
    release = threading.Event()
    server = loopback(storing(lambda seen: release.wait(120) and None, 4))
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(INTERRUPTED), kind, server.url, str(path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        patience = time.monotonic() + 60
        while len(puts(server)) < 4:
            assert process.poll() is None
            assert time.monotonic() < patience
            time.sleep(0.02)
        signalled = time.monotonic()
        os.kill(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    finally:
        release.set()
        process.kill()
        process.wait()
        process.stdout.close()
    ended, threads = output.split(" ", 1)
    assert threads.strip() == "['MainThread']"
    assert process.returncode == 0
    return float(ended) - signalled


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_interrupt_ends_all_parts_within_a_second(loopback, spooled, kind):
    # A machine that is busy elsewhere may hold one process back; what waits for a socket would do so every time.
    assert any(seconds_to_end(loopback, spooled.path, kind) < 1.0 for _ in range(3))
