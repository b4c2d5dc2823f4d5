"""Bodies on the wire: sent whole, sent again from their start, and side by side."""

import socket
import threading
import time

import pytest

from tabpfn_operators import _messages as messages
from tabpfn_operators._call import call
from tabpfn_operators._run import NoAnswerError
from tabpfn_operators.errors import SourceChangedError, UploadError


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def answers(*replies):
    left = list(replies)
    return lambda seen: left.pop(0) if len(left) > 1 else left[0]


class Odd:
    """A body whose bytes are not as many as it says."""

    def __init__(self, size, content):
        self.size = size
        self._content = content

    def chunks(self, chunk_size, start=0, stop=None):
        yield self._content[start:stop]


@pytest.mark.parametrize("content", [b"short", b"much too long for that"])
def test_a_source_that_yields_another_size_has_changed(loopback, drive, no_waiting, content):
    server = loopback(lambda seen: (200, {}))
    driver = drive(server.url)
    request = messages.put_part(f"{server.url}/part", {}, Odd(10, content), label="PUT of part 1 of 1")
    with pytest.raises(SourceChangedError):
        driver.flow(lambda: call(driver.client._session, request))


def test_a_part_is_put_again_from_its_start(loopback, drive, no_waiting):
    server = loopback(answers((503, b""), None, (200, b"")))
    driver = drive(server.url)
    request = messages.put_part(f"{server.url}/part", {"x-k": "v"}, Odd(4, b"abcd"), label="PUT of part 1 of 1")
    driver.flow(lambda: call(driver.client._session, request))
    assert [seen.body for seen in server.seen] == [b"abcd"] * 3
    assert [seen.headers["x-k"] for seen in server.seen] == ["v"] * 3


def test_a_store_that_is_not_there(drive, no_waiting):
    driver = drive("http://127.0.0.1:9")
    request = messages.put_part(f"{closed_port()}/part?sig=hidden", {}, Odd(1, b"a"), label="PUT of part 1 of 1")
    with pytest.raises(UploadError, match="PUT of part 1 of 1: no answer") as caught:
        driver.flow(lambda: call(driver.client._session, request))
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://[::1", "http://host:port/x?sig=hidden", "nonsense", ""])
def test_an_upload_address_that_is_none(drive, no_waiting, url):
    driver = drive("http://127.0.0.1:9")
    request = messages.put_part(url, {}, Odd(1, b"a"), label="PUT of part 1 of 1")
    with pytest.raises(UploadError, match="PUT of part 1 of 1") as caught:
        driver.flow(lambda: call(driver.client._session, request))
    assert "hidden" not in str(caught.value)


def test_a_header_that_http_has_no_place_for(loopback, drive, no_waiting):
    server = loopback(lambda seen: (200, b""))
    driver = drive(server.url)
    for value in ("a\r\nx-evil: 1", "größe €"):
        request = messages.put_part(f"{server.url}/x", {"x-k": value}, Odd(1, b"a"), label="PUT of part 1 of 1")
        with pytest.raises(UploadError, match="PUT of part 1 of 1"):
            driver.flow(lambda request=request: call(driver.client._session, request))
    assert all("x-evil" not in seen.headers for seen in server.seen)


# Side by side


def test_gather_keeps_the_order_and_the_limit(drive):
    driver = drive("http://127.0.0.1:9")
    wire = driver.client._session.wire
    lock, running, most = threading.Lock(), [0], [0]

    def work(number):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.01 * (5 - number % 5))
        with lock:
            running[0] -= 1
        return number

    async def one(number):
        return await wire.call(work, number)

    found = driver.flow(lambda: wire.gather([lambda n=n: one(n) for n in range(12)], 3))
    assert found == list(range(12))
    assert 1 < most[0] <= 3


def test_gather_of_nothing_and_of_one(drive):
    driver = drive("http://127.0.0.1:9")
    wire = driver.client._session.wire

    async def one():
        return 1

    assert driver.flow(lambda: wire.gather([], 4)) == []
    assert driver.flow(lambda: wire.gather([one], 4)) == [1]


def test_the_first_error_ends_the_others(drive):
    driver = drive("http://127.0.0.1:9")
    wire = driver.client._session.wire
    before = set(threading.enumerate())

    async def one(number):
        if number == 2:
            raise UploadError("number two")
        await wire.sleep(60)

    started = time.monotonic()
    with pytest.raises(UploadError, match="number two"):
        driver.flow(lambda: wire.gather([lambda n=n: one(n) for n in range(8)], 4))
    assert time.monotonic() - started < 30  # nobody slept to the end
    assert [t for t in set(threading.enumerate()) - before if t.name.startswith("tabpfn")] == []


def test_a_failed_part_ends_parts_that_wait_for_an_answer(loopback, drive):
    release = threading.Event()

    def handler(seen):
        if seen.path == "/2":
            return (403, b"<Error>expired</Error>")
        release.wait(60)
        return None

    server = loopback(handler)
    driver = drive(server.url)
    session = driver.client._session
    requests = [messages.put_part(f"{server.url}/{n}", {}, Odd(1, b"a"), label=f"PUT of part {n}") for n in range(4)]
    try:
        with pytest.raises(UploadError, match="PUT of part 2"):
            driver.flow(lambda: session.wire.gather([lambda r=r: call(session, r) for r in requests], 4))
        assert not release.is_set()
    finally:
        release.set()


def test_no_answer_holds_no_address():
    assert vars(NoAnswerError("ReadError", unsent=False)) == {"reason": "ReadError", "unsent": False}
