"""Bodies to signed URLs: what is sent again, what is not, and when it is given up."""

import asyncio
import base64
import logging
import signal
import socket
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import format_datetime
from itertools import pairwise
from pathlib import Path

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request as StarletteRequest

from tabpfn_emulator._envelopes import storage_error_response
from tabpfn_emulator._storage.object_stores import STORES
from tabpfn_operators import AsyncClient, Client
from tabpfn_operators import _messages as messages
from tabpfn_operators import transfer as transferring
from tabpfn_operators._call import call
from tabpfn_operators._envelopes import says_expired
from tabpfn_operators._messages import Response, UploadTicket
from tabpfn_operators._puts import Tally, part_requests
from tabpfn_operators._retry import RetryPolicy
from tabpfn_operators._run import run
from tabpfn_operators.errors import RequestRejectedError, SourceChangedError, UploadError, UploadTooSlowError
from tabpfn_operators.progress import ignore
from tabpfn_operators.transfer import Opening, is_too_short, seconds_left, transfer, wants_hash

PREPARE = "/tabpfn/prepare_train_set_upload"
TRAIN_SET = Opening(
    lambda infos, force: messages.prepare_train_set_upload(*infos, force_reupload=force),
    "train_set_upload_id",
    ("x_train_info", "y_train_info"),
)
X, Y = bytes(range(256)) * 4096 + b"rest", b"target" * 1000


class Recorded:
    """A body that knows how often it was opened, and whether it still is."""

    def __init__(self, content, crc32c=None):
        self.content = content
        self.size = len(content)
        self.opened = []
        self.still_open = 0
        self.read = 0
        self._lock = threading.Lock()
        if crc32c is not None:
            self.crc32c = crc32c

    def chunks(self, chunk_size, start=0, stop=None):
        stop = self.size if stop is None else stop
        with self._lock:
            self.opened.append((start, stop))
            self.still_open += 1
        try:
            for at in range(start, stop, chunk_size):
                chunk = self.content[at : min(at + chunk_size, stop)]
                with self._lock:
                    self.read += len(chunk)
                yield chunk
        finally:
            with self._lock:
                self.still_open -= 1


@pytest.fixture
def bodies():
    return Recorded(X), Recorded(Y)


def send(driver, bodies, **options):
    given_ = {"force_reupload": False, "checksum": False, "check_unchanged": None, "progress": ignore, **options}
    session = driver.client._session
    return driver.flow(lambda: transfer(session, TRAIN_SET, bodies, **given_))


@pytest.fixture
def driver(drive, emulator, bearer, control):
    return drive(emulator, token=bearer)


@pytest.fixture
def stored(emulator_folder):
    """The bytes of one file as the emulator's storage holds them."""

    def read(upload_id, name):
        parts = sorted(Path(emulator_folder, "uploads", upload_id, name).glob("*.part"))
        return b"".join(part.read_bytes() for part in parts)

    return read


def prepared_ids(journal):
    return [row["ids"].get("train_set_upload_id") for row in journal.rows(PREPARE)]


# Decisions


@given(st.integers(0, 1 << 40), st.none() | st.booleans())
def test_hashes_are_computed_where_asked_for_or_cheap(size, checksum):
    assert wants_hash(size, checksum) is (size <= 32 * 2**20 if checksum is None else checksum)


EPOCH = st.integers(1_700_000_000, 2_000_000_000)


@given(server=EPOCH, here=EPOCH, lifetime=st.integers(-1000, 100_000))
def test_a_wrong_clock_here_does_no_harm(server, here, lifetime):
    headers = {"date": format_datetime(datetime.fromtimestamp(server, UTC), usegmt=True)}
    assert seconds_left(server + lifetime, headers, here) == lifetime


@given(here=EPOCH, lifetime=st.integers(-1000, 100_000), date=st.none() | st.text(max_size=40))
def test_without_a_date_the_clock_here_must_do(here, lifetime, date):
    headers = {} if date is None else {"date": date}
    assert seconds_left(here + lifetime, headers, here) == lifetime
    assert seconds_left(None, headers, here) is None


@given(size=st.integers(0, 1 << 43), lifetime=st.floats(-100, 1e6))
def test_five_megabytes_in_a_second_are_expected(size, lifetime):
    assert is_too_short(size, lifetime) == (lifetime * 5e6 < size)
    assert is_too_short(size, lifetime) <= is_too_short(size + 1, lifetime)
    assert not is_too_short(size, None)


@pytest.mark.parametrize("store", STORES.values(), ids=STORES)
def test_an_expired_url_is_told_from_any_other_refusal(store):
    refusals = {
        "expired": store.expired(1_700_000_000, 1_700_000_001.0),
        "mismatch": store.mismatch(),
        "too_large": store.too_large(2, 1),
        "incomplete": store.incomplete(),
        "no_length": store.no_length(),
        "sealed": store.sealed(),
        "no_bucket": store.no_bucket(),
    }
    scope = {"type": "http", "headers": []}
    answers = {name: storage_error_response(StarletteRequest(scope), error) for name, error in refusals.items()}
    found = {name: says_expired(Response(answer.status_code, {}, answer.body)) for name, answer in answers.items()}
    assert [name for name, expired in found.items() if expired] == ["expired"]


def test_azure_says_it_in_other_words():
    body = b"<Error><Code>AuthenticationFailed</Code>Signature not valid in the specified time frame: ...</Error>"
    assert says_expired(Response(403, {}, body))
    assert not says_expired(Response(500, {}, body))


@given(st.data())
def test_bytes_that_are_sent_again_count_once(data):
    content = bytes(data.draw(st.integers(0, 300), label="size"))
    seen = []
    tally = Tally(len(content))
    tally.report_to(seen.append)
    count = data.draw(st.integers(1, 5), label="parts")
    requests = list(part_requests(Recorded(content), UploadTicket(("u",) * count, None, {}), tally))
    furthest = [0] * count
    for _ in range(data.draw(st.integers(0, 8), label="attempts")):
        number = data.draw(st.integers(0, count - 1), label="part")
        # A chunk counts when the next one is asked for: by then the wire has taken it.
        taken = data.draw(st.integers(0, 12), label="chunks taken")
        chunks = requests[number].body.chunks(10)
        got = [len(chunk) for _, chunk in zip(range(taken), chunks, strict=False)]
        chunks.close()
        done = sum(got) if len(got) < taken else sum(got[:-1])
        furthest[number] = max(furthest[number], done)
    assert tally.done == sum(furthest)
    assert [step.done for step in seen] == sorted(step.done for step in seen)
    assert all(step.done <= step.total == len(content) for step in seen)


# In the emulator's journal


def test_a_cut_part_is_sent_again_alone_and_under_one_prepare(driver, bodies, control, journal, stored):
    control.configure(upload_parts=4)
    control.inject(kind="cut_upload", nth=3)
    sent = send(driver, bodies)
    assert prepared_ids(journal) == [sent.upload_id]
    (cut,) = [row for row in journal.puts() if row["fault"]]
    whole = [row for row in journal.puts() if row["status"] == 200]
    assert (len(whole), len(journal.puts())) == (8, 9)
    assert sum(row["bytes_in"] for row in whole) == sent.bytes_sent == len(X) + len(Y)
    again = [span for body in bodies for span in body.opened if body.opened.count(span) > 1]
    assert len(again) == 2
    assert again[0] == again[1]
    assert again[0] in bodies[0 if cut["ids"]["file"] == "x_train" else 1].opened
    assert (stored(sent.upload_id, "x_train"), stored(sent.upload_id, "y_train")) == (X, Y)


@pytest.mark.parametrize("storage", ["gcs", "s3"])
def test_a_url_that_expires_on_the_way_makes_one_fresh_upload(
    driver, bodies, control, journal, stored, caplog, storage
):
    control.configure(upload_parts=4, storage=storage)
    control.inject(kind="expired_url", nth=6)
    looks, seen = [], []
    with caplog.at_level(logging.WARNING, "tabpfn_operators"):
        sent = send(
            driver, bodies, check_unchanged=lambda: looks.append(len(journal.rows(PREPARE))), progress=seen.append
        )
    first, second = prepared_ids(journal)
    assert sent.upload_id == second != first
    assert (stored(second, "x_train"), stored(second, "y_train")) == (X, Y)
    assert [row["bearer"] for row in journal.puts()] == [False] * len(journal.puts())
    assert looks == [1, 2]  # before the second upload, and after its last byte
    total = len(X) + len(Y)
    (line,) = [record.getMessage() for record in caplog.records if "expired" in record.getMessage()]
    assert f"of {total:,} bytes are lost" in line
    done = [step.done for step in seen]
    assert done[-1] == total >= max(done)
    assert sum(later < earlier for earlier, later in pairwise(done)) <= 1
    assert {step.note for step in seen} == {"bytes", "bytes, sent again"}


def test_a_second_expiry_is_the_end(driver, bodies, control, journal):
    control.inject(kind="expired_url", times=None)
    with pytest.raises(UploadTooSlowError, match="Send fewer columns, recompress") as caught:
        send(driver, bodies)
    error = caught.value
    assert error.terminal
    assert error.size == len(X) + len(Y)
    assert error.bytes_per_second >= 0
    assert 3590 < error.lifetime <= 3601
    assert f"{error.size:,} bytes" in str(error)
    assert len(journal.rows(PREPARE)) == 2


def test_urls_that_are_dead_on_arrival_are_tried_all_the_same(driver, bodies, control, journal, caplog):
    control.configure(url_ttl_secs=-10)
    with pytest.raises(UploadTooSlowError), caplog.at_level(logging.WARNING, "tabpfn_operators"):
        send(driver, bodies)
    # The first looks too short and is not used, the second is tried, the third is the fresh one.
    assert len(journal.rows(PREPARE)) == 3
    assert [row["status"] for row in journal.puts()] == [400] * len(journal.puts())
    assert "going on all the same" in caplog.text


def test_the_last_prepare_may_cure_it(driver, bodies, control, journal, stored):
    control.configure(url_ttl_secs=-10)
    sent = send(driver, bodies, check_unchanged=lambda: control.configure(url_ttl_secs=3600))
    assert sent.upload_id == prepared_ids(journal)[2]
    assert len(journal.rows(PREPARE)) == 3
    assert stored(sent.upload_id, "x_train") == X


def test_urls_that_live_too_short_are_asked_for_twice(driver, bodies, journal, stored, monkeypatch, caplog):
    monkeypatch.setattr(transferring, "SLOWEST_RATE", 1)
    with caplog.at_level(logging.WARNING, "tabpfn_operators"):
        sent = send(driver, bodies, checksum=True)
    assert prepared_ids(journal)[1:] == [sent.upload_id]
    assert len(journal.puts()) == 2
    assert stored(sent.upload_id, "x_train") == X
    assert "going on all the same" in caplog.text


def test_a_refusal_that_is_no_expiry_is_told_at_once(driver, bodies, control, journal):
    body = "<Error><Code>SignatureDoesNotMatch</Code></Error>"
    control.inject(kind="status", status=403, route="/storage", method="PUT", body=body)
    with pytest.raises(UploadError, match="the signed URL is refused") as caught:
        send(driver, bodies)
    assert not isinstance(caught.value, UploadTooSlowError)
    assert len(journal.rows(PREPARE)) == 1


def test_a_source_that_changed_is_told_after_the_last_byte(driver, bodies, journal):
    def changed():
        raise SourceChangedError("train.parquet changed while it was read")

    with pytest.raises(SourceChangedError):
        send(driver, bodies, check_unchanged=changed)
    assert [row["status"] for row in journal.puts()] == [200, 200]


def test_a_source_that_changed_is_not_sent_again(driver, bodies, control, journal):
    def changed():
        raise SourceChangedError("train.parquet changed while it was read")

    control.inject(kind="expired_url")
    with pytest.raises(SourceChangedError):
        send(driver, bodies, check_unchanged=changed)
    assert len(journal.rows(PREPARE)) == 1


# Hashes


def crc32c(content):
    return base64.b64encode(google_crc32c.Checksum(content).digest()).decode()


def test_small_bodies_are_hashed_and_sent_once(driver, bodies, journal):
    first, second = (send(driver, bodies, checksum=None) for _ in range(2))
    assert (first.duplicate, second.duplicate) == (False, True)
    assert (second.upload_id, second.bytes_sent) == (first.upload_id, 0)
    assert bodies[0].opened == [(0, len(X))] * 3  # hashed, sent, hashed
    assert len(journal.puts()) == 2


@pytest.mark.parametrize("checksum", [None, False])
def test_large_bodies_are_read_once(driver, bodies, monkeypatch, checksum):
    monkeypatch.setattr(transferring, "HASHED_UP_TO", len(X))  # the files of an upload count together
    assert [send(driver, bodies, checksum=checksum).duplicate for _ in range(2)] == [False, False]
    assert bodies[0].opened == [(0, len(X))] * 2


def test_a_hash_that_is_known_is_used_without_a_pass(driver, monkeypatch):
    monkeypatch.setattr(transferring, "HASHED_UP_TO", 0)
    known = Recorded(X, crc32c(X)), Recorded(Y, crc32c(Y))
    assert [send(driver, known, checksum=None).duplicate for _ in range(2)] == [False, True]
    assert known[0].opened == [(0, len(X))]
    assert not send(driver, known, checksum=False).duplicate


def test_a_large_body_is_hashed_on_request(driver, bodies, monkeypatch):
    monkeypatch.setattr(transferring, "HASHED_UP_TO", 0)
    assert [send(driver, bodies, checksum=True).duplicate for _ in range(2)] == [False, True]


def test_a_forced_upload_sends_what_the_server_has(driver, bodies, journal):
    first = send(driver, bodies, checksum=True)
    second = send(driver, bodies, checksum=True, force_reupload=True)
    assert not second.duplicate
    assert second.upload_id != first.upload_id
    assert len(journal.puts()) == 4


# Clocks, and servers that a test decides


def server_of(loopback, put, *answers):
    """A server that opens uploads with the given (seconds to live, Date) and leaves the PUTs to `put`."""
    prepared = []

    def handle(seen):
        if seen.method == "PUT":
            return put(seen, len(prepared))
        lifetime, date = answers[min(len(prepared), len(answers) - 1)]
        prepared.append(seen.json()["force_reupload"])
        now = time.time() if date is None else date
        end = None if lifetime is None else now + lifetime
        infos = {
            key: {"signed_urls": [f"http://{seen.headers['host']}/{len(prepared)}/{key}"], "expires_at": end}
            for key in TRAIN_SET.file_keys
        }
        headers = {} if date is None else {"date": format_datetime(datetime.fromtimestamp(date, UTC), usegmt=True)}
        return 200, {"train_set_upload_id": f"u{len(prepared)}", **infos}, headers

    server = loopback(handle)
    server.prepared = prepared
    return server


def test_a_longer_second_lifetime_is_taken(loopback, drive, bodies, monkeypatch, caplog):
    monkeypatch.setattr(transferring, "SLOWEST_RATE", 1000)
    server = server_of(loopback, lambda seen, n: (200, b""), (60, None), (7200, None))
    with caplog.at_level(logging.WARNING, "tabpfn_operators"):
        assert send(drive(server.url), bodies).upload_id == "u2"
    assert server.prepared == [False, True]
    assert [path for path in server.paths() if path.startswith("/1/")] == []
    assert caplog.text == ""


@pytest.mark.parametrize("offset", [-86_400, 86_400])
def test_a_clock_that_is_a_day_off_changes_nothing(loopback, drive, bodies, offset):
    server = server_of(loopback, lambda seen, n: (200, b""), (3600, int(time.time()) + offset))
    assert send(drive(server.url), bodies).upload_id == "u1"
    assert server.prepared == [False]


def test_urls_that_are_dead_by_a_wrong_clock_are_used(loopback, drive, bodies):
    server = server_of(loopback, lambda seen, n: (200, b""), (-3600, None))
    assert send(drive(server.url), bodies).upload_id == "u2"
    assert server.prepared == [False, True]


def test_a_server_that_names_no_end_is_believed(loopback, drive, bodies):
    server = server_of(loopback, lambda seen, n: (200, b""), (None, None))
    assert send(drive(server.url), bodies).upload_id == "u1"


@pytest.mark.parametrize("reply", [(403, b"<Error/>"), (400, b""), None], ids=["403", "400", "dropped"])
def test_a_refusal_after_the_end_is_an_expiry_in_any_words(loopback, drive, bodies, no_waiting, reply):
    def put(seen, prepared):
        if prepared == 2:
            return 200, b""
        time.sleep(0.6)
        return reply

    server = server_of(loopback, put, (0.5, None), (3600, None))
    assert send(drive(server.url), bodies).upload_id == "u2"
    assert server.prepared == [False, True]


def test_the_time_that_bytes_take_is_not_time_waited(loopback, drive, bodies):
    """A part that was cut after longer than the waiting budget is sent again all the same."""
    puts = []

    def put(seen, prepared):
        puts.append(seen)
        if len(puts) > 1:
            return 200, b""
        time.sleep(0.3)
        return None

    server = server_of(loopback, put, (3600, None))
    driver = drive(server.url)
    driver.client._session = replace(driver.client._session, policy=RetryPolicy(budget=0.1), jitter=lambda: 0.0)
    assert send(driver, bodies).upload_id == "u1"
    assert len(puts) == 3


def test_what_is_prepared_again_is_never_taken_for_a_duplicate(loopback, drive, bodies):
    def handle(seen):
        if seen.method == "PUT":
            return 400, b"<Error><Code>ExpiredToken</Code></Error>"
        if seen.json()["force_reupload"]:
            return 409, {"message": "known", "train_set_upload_id": "u1"}
        infos = {
            key: {"signed_urls": [f"http://{seen.headers['host']}/x"], "expires_at": time.time() + 3600}
            for key in TRAIN_SET.file_keys
        }
        return 200, {"train_set_upload_id": "u1", **infos}

    with pytest.raises(RequestRejectedError, match="known"):
        send(drive(loopback(handle).url), bodies)


# Ends


class Endless(Recorded):
    """Large parts of zeros that wait for each other; the first of them breaks when told to."""

    def __init__(self, barrier, *, breaks):
        super().__init__(b"")
        self.size = 2 << 40
        self._barrier = barrier
        self._breaks = breaks

    def chunks(self, chunk_size, start=0, stop=None):
        with self._lock:
            self.opened.append((start, stop))
            self.still_open += 1
        try:
            yield bytes(chunk_size)
            self._barrier.wait(60)
            if self._breaks and start == 0:
                raise SourceChangedError("it changed")
            while True:
                yield bytes(chunk_size)
        finally:
            with self._lock:
                self.still_open -= 1


def sink():
    """A store that takes bytes without end and keeps none; returns its URL and what ends it."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads = []

    def swallow(connection):
        with connection:
            try:
                while connection.recv(1 << 16):
                    pass
            except OSError:
                return

    def accept():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=swallow, args=(connection,)))
            threads[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()

    def close():
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join()
        for thread in threads:
            thread.join()

    return f"http://127.0.0.1:{listener.getsockname()[1]}", close


@pytest.fixture
def endless(loopback):
    """A server whose upload never ends by itself: four URLs at a store that only reads."""
    url, close = sink()

    def handle(seen):
        infos = {key: {"signed_urls": [f"{url}/{key}/{n}" for n in range(2)]} for key in TRAIN_SET.file_keys}
        return 200, {"train_set_upload_id": "u", **infos}

    yield loopback(handle).url
    close()


def test_an_error_in_one_part_closes_the_sources_of_all(endless, drive):
    barrier = threading.Barrier(4)
    two = Endless(barrier, breaks=True), Endless(barrier, breaks=False)
    with pytest.raises(SourceChangedError):
        send(drive(endless), two)
    assert sum(len(body.opened) for body in two) == 4
    assert [body.still_open for body in two] == [0, 0]


class InterruptError(Exception):
    """What an engine raises in its signal handler."""


def interrupted(signum, frame):
    raise InterruptError


def test_an_interrupt_closes_the_source_of_a_blocked_put(bearer):
    body = Recorded(bytes(64 << 20))
    before = signal.signal(signal.SIGUSR1, interrupted)
    with socket.create_server(("127.0.0.1", 0)) as deaf, Client(bearer, base_url="http://127.0.0.1:9") as client:

        def interrupt():
            seen = -1
            while seen < body.read or not body.read:  # until the socket takes no more
                seen = body.read
                time.sleep(0.3)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

        watcher = threading.Thread(target=interrupt)
        watcher.start()
        request = messages.put_part(f"http://127.0.0.1:{deaf.getsockname()[1]}/x", {}, body, label="PUT")
        try:
            with pytest.raises(InterruptError) as caught:
                run(call(client._session, request))
            # While the error lives, so do its frames, and whatever only the garbage collector would close.
            assert caught.traceback
            assert (len(body.opened), body.still_open) == (1, 0)
        finally:
            watcher.join()
            signal.signal(signal.SIGUSR1, before)
    assert body.read < body.size


async def cancel_once(condition, task):
    """Cancel a task that waits for nothing that this loop could be told of."""
    patience = time.monotonic() + 60
    while not condition() and time.monotonic() < patience:  # noqa: ASYNC110  # threads set no asyncio.Event
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_cancelled_task_closes_its_sources(endless, bearer):
    barrier = threading.Barrier(4)
    two = Endless(barrier, breaks=False), Endless(barrier, breaks=False)
    options = {"force_reupload": False, "checksum": False, "check_unchanged": None, "progress": ignore}

    async def cancelled():
        async with AsyncClient(bearer, base_url=endless) as client:
            task = asyncio.create_task(transfer(client._session, TRAIN_SET, two, **options))
            await cancel_once(lambda: sum(body.still_open for body in two) == 4, task)
            return [body.still_open for body in two]

    assert asyncio.run(cancelled()) == [0, 0]


def test_a_cancelled_hash_closes_its_source(bearer):
    body = Endless(threading.Barrier(1), breaks=False)
    options = {"force_reupload": False, "checksum": True, "check_unchanged": None, "progress": ignore}

    async def cancelled():
        async with AsyncClient(bearer, base_url="http://127.0.0.1:9") as client:
            task = asyncio.create_task(transfer(client._session, TRAIN_SET, (body, body), **options))
            await cancel_once(lambda: body.still_open == 1, task)
            return body.still_open

    assert asyncio.run(cancelled()) == 0
