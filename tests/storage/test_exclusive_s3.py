"""Exclusive creation on object stores: moto's S3, and endpoints that answer in other words or not at all."""

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
import s3fs

from tabpfn_assets import JobRecord
from tabpfn_operators import exclusive
from tabpfn_operators.claims import FolderClaims, Lease
from tabpfn_operators.errors import DestinationError, RecordUnreadableError, StorageError, StoreNotExclusiveError
from tabpfn_operators.exclusive import create_exclusive, is_exclusive
from tabpfn_operators.journal import FolderJournal

RACE = """
import json, multiprocessing, sys
from tabpfn_operators.claims import FolderClaims

url, workers, rounds, options = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])
context = multiprocessing.get_context("fork")
barrier, queue = context.Barrier(workers), context.Queue()

def work(number):
    now, won = [0.0], []
    claims = FolderClaims(url, options, clock=lambda: now[0])
    for n in range(rounds):
        now[0] = 1000.0 * n
        barrier.wait(60)
        if claims.acquire("key", f"worker-{number}", 30):
            won.append(n)
        barrier.wait(60)
    queue.put([number, won])

started = [context.Process(target=work, args=(number,)) for number in range(workers)]
for process in started: process.start()
print(json.dumps([queue.get(timeout=60) for _ in started]))
for process in started: process.join(60)
"""

CONFLICT = 409
LOST = -1  # carried out, and the connection closed without an answer
REFUSALS = {
    412: ("PreconditionFailed", "At least one of the pre-conditions you specified did not hold"),
    409: ("ConditionalRequestConflict", "A conflicting conditional operation is currently in progress"),
    403: ("AccessDenied", "Access Denied"),
}


class Answers(BaseHTTPRequestHandler):
    """What an object store of a `Store` answers: S3 and Azure by PUT, Google by POST."""

    protocol_version = "HTTP/1.1"

    @property
    def is_azure(self):
        return "x-ms-version" in self.headers

    def do_PUT(self):
        self.create(urlsplit(self.path).path, self.body(), self.headers.get("If-None-Match") == "*")

    def do_POST(self):
        body = self.body()
        query = parse_qs(urlsplit(self.path).query)
        self.create(json.loads(body.split(b"\n\n")[1].split(b"\n")[0])["name"], body, "ifGenerationMatch" in query)

    def do_DELETE(self):
        self.server.store.seen.append((self.command, self.path, dict(self.headers)))
        self.server.store.objects.pop(urlsplit(self.path).path, None)
        self.answer(204)

    def create(self, name, body, only_new):
        store = self.server.store
        store.seen.append((self.command, self.path, dict(self.headers)))
        status = store.next_answers.pop(0) if store.next_answers else 200
        if status == 200 and store.conditional and only_new and name in store.objects:
            status = 409 if self.is_azure else 412
        if status in {200, LOST}:
            store.objects[name] = body
        if status == LOST:
            self.close_connection = True
        else:
            self.answer(201 if status == 200 and self.is_azure else status)

    def body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        found = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def answer(self, status):
        code, text = REFUSALS.get(status, ("", ""))
        content = f"<Error><Code>{code}</Code><Message>{text}</Message></Error>".encode() if code else b""
        if self.is_azure or self.command == "POST":
            content = b"" if self.is_azure else b"{}"
        self.send_response(status)
        if self.is_azure:
            self.send_header("x-ms-error-code", "BlobAlreadyExists")
            self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        """Stay silent."""


class Store:
    """A small object store: one dictionary, and answers that a test may put before its own.

    Args:
        conditional: Whether it heeds `If-None-Match` or `ifGenerationMatch`.
    """

    def __init__(self, *, conditional=True):
        self.conditional = conditional
        self.objects = {}
        self.seen = []
        self.next_answers = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self._server.store = self
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


@pytest.fixture
def object_store():
    opened = []

    def start(**options):
        opened.append(Store(**options))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def s3_of(store):
    return s3fs.S3FileSystem(
        key="a-key",
        secret="a-secret",
        client_kwargs={"endpoint_url": store.url, "region_name": "eu-central-1"},
        skip_instance_cache=True,
    )


def test_an_object_is_created_once_and_the_endpoint_tested_once(second, bucket):
    path = f"{bucket[5:]}/k/1.json"
    assert is_exclusive(second, path)
    assert create_exclusive(second, path, b"first")
    assert not create_exclusive(second, path, b"second")
    assert second.cat_file(path) == b"first"
    assert second.find(bucket[5:]) == [path]


def test_an_endpoint_that_overwrites_is_refused(object_store):
    store = object_store(conditional=False)
    fs = s3_of(store)
    with pytest.raises(StoreNotExclusiveError, match=r"s3://bucket/k/1\.json .*two writers may both succeed"):
        create_exclusive(fs, "bucket/k/1.json", b"x")
    assert [method for method, _, _ in store.seen] == ["PUT", "PUT", "DELETE"]
    assert {path.rpartition("-")[0] for _, path, _ in store.seen} == {"/bucket/k/tabpfn-exclusive-check"}
    assert not is_exclusive(fs, "bucket/another/2.json")
    assert len(store.seen) == 3
    assert store.objects == {}


def test_an_endpoint_that_does_not_name_the_condition(object_store):
    fs = s3_of(object_store())
    assert create_exclusive(fs, "bucket/k/1.json", b"first")
    assert not create_exclusive(fs, "bucket/k/1.json", b"second")


def test_a_conflict_is_asked_again(object_store):
    store = object_store()
    fs = s3_of(store)
    assert is_exclusive(fs, "bucket/k/1.json")
    store.next_answers[:] = [CONFLICT, CONFLICT]
    assert create_exclusive(fs, "bucket/k/1.json", b"first")
    store.next_answers[:] = [CONFLICT]
    assert not create_exclusive(fs, "bucket/k/1.json", b"second")
    store.next_answers[:] = [CONFLICT] * 50
    with pytest.raises(StorageError, match="run again"):
        create_exclusive(fs, "bucket/k/2.json", b"x")
    assert len(store.next_answers) == 50 - exclusive._CONFLICTS


def test_a_store_that_may_not_be_written_to(object_store):
    store = object_store()
    store.next_answers[:] = [403]
    with pytest.raises(DestinationError, match="PermissionError"):
        create_exclusive(s3_of(store), "bucket/k/1.json", b"x")


def test_a_lost_answer_is_sent_again_by_the_client_and_refused(object_store):
    """Why a claim reads its entry back: the creation succeeded, and its writer is told that it did not."""
    store = object_store()
    fs = s3_of(store)
    assert is_exclusive(fs, "bucket/k/1.json")
    store.next_answers[:] = [LOST]
    assert not create_exclusive(fs, "bucket/k/1.json", b"ours")
    assert "/bucket/k/1.json" in store.objects


def test_amazon_is_not_tested(monkeypatch):
    monkeypatch.setattr(exclusive, "_refuses_a_second", None)
    for region in ("eu-central-1", "cn-north-1"):
        fs = s3fs.S3FileSystem(key="k", secret="s", client_kwargs={"region_name": region}, skip_instance_cache=True)
        assert is_exclusive(fs, "bucket/k/1.json")


def test_google_is_one_conditional_request(object_store):
    import gcsfs
    from gcsfs.core import GCSFileSystem

    assert is_exclusive(gcsfs.GCSFileSystem(token="anon", skip_instance_cache=True), "bucket/k/1.json")
    store = object_store()
    # The class of today's package first asks Google, not the endpoint, what kind of bucket it is.
    fs = GCSFileSystem(token="anon", endpoint_url=store.url, skip_instance_cache=True, project="p")
    assert create_exclusive(fs, "bucket/k/1.json", b"first")
    assert not create_exclusive(fs, "bucket/k/1.json", b"second")
    uploads = [path for method, path, _ in store.seen if method == "POST"]
    assert ["ifGenerationMatch=0" in path for path in uploads] == [True, True]
    assert b"first" in store.objects["k/1.json"]


def test_azure_is_one_conditional_request(object_store):
    import adlfs

    store = object_store()
    connection = f"AccountName=devaccount;AccountKey=a2V5;BlobEndpoint={store.url}/devaccount"
    fs = adlfs.AzureBlobFileSystem(connection_string=connection, skip_instance_cache=True)
    assert create_exclusive(fs, "box/k/1.json", b"first")
    assert not create_exclusive(fs, "box/k/1.json", b"second")
    assert [(method, headers["If-None-Match"]) for method, _, headers in store.seen] == [("PUT", "*")] * 2
    assert list(store.objects.values()) == [b"first"]


def test_of_two_processes_one_takes_over(options, second, bucket):
    workers, rounds = 2, 20
    done = subprocess.run(
        [sys.executable, "-c", RACE, f"{bucket}/claims", str(workers), str(rounds), json.dumps(options)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    won = dict(json.loads(done.stdout))
    assert sorted(n for rounds_won in won.values() for n in rounds_won) == list(range(rounds))
    entries = sorted(second.ls(f"{bucket}/claims/key", detail=False))
    assert len(entries) == rounds
    owners = [Lease.model_validate_json(second.cat_file(path)).owner for path in entries]
    assert owners == [f"worker-{next(w for w, r in won.items() if n in r)}" for n in range(rounds)]


def test_a_claim_that_another_client_takes_is_seen_through_a_warm_cache(options, bucket):
    warm = FolderClaims(f"{bucket}/claims", {**options, "use_listings_cache": True})
    cold = FolderClaims(f"{bucket}/claims", options)
    assert warm.acquire("fit", "a", 30)
    assert cold.acquire("fit", "b", 30) is None
    warm._fs.ls(warm._path)
    warm._fs.find(warm._path)
    assert warm._fs.dircache
    cold.release("fit", "a")
    assert cold.acquire("fit", "b", 30)
    assert warm.holder("fit").owner == "b"
    assert warm.renew("fit", "a", 30) is None


def test_a_journal_that_another_client_writes_is_seen(options, bucket):
    intent = JobRecord(kind="tabpfn_async", phase="intent", owner="a")
    warm = FolderJournal(f"{bucket}/j", ["dag", "run"], JobRecord, options={**options, "use_listings_cache": True})
    cold = FolderJournal(f"{bucket}/j", ["dag", "run"], JobRecord, options=options)
    assert warm.read() is None
    cold.write(intent)
    assert warm.read() == intent
    warm._fs.ls(warm._fs._parent(warm._path))
    assert warm._fs.dircache
    cold.write(intent.model_copy(update={"owner": "b" * 100}))
    assert warm.read().owner == "b" * 100


def test_a_journal_behind_a_store_that_does_not_answer_is_not_empty(object_store):
    store = object_store()  # it knows no GET and answers 501
    options = {"key": "k", "secret": "s", "client_kwargs": {"endpoint_url": store.url, "region_name": "eu-central-1"}}
    with pytest.raises(RecordUnreadableError, match="cannot be read"):
        FolderJournal("s3://bucket/j", ["run"], JobRecord, options=options).read()
