"""A full disk, played by real limits: on the size of files (a process of its own), and on the pages of the database."""

import asyncio
import subprocess
import sys
import uuid
from contextlib import closing, contextmanager
from xml.etree import ElementTree as ET

import httpx
import pytest

from tabpfn_emulator import _emulator
from tabpfn_emulator._app import build_app
from tabpfn_emulator._bodies.answers import ErrorA, ErrorB
from tabpfn_emulator._bodies.openapi import document
from tabpfn_emulator._emulator import open_emulator
from tabpfn_emulator._settings import Settings
from tabpfn_emulator.testing import EmulatorControl

LIMIT = 8 << 20
# The write-ahead log of the database stays below the limit: SQLite begins anew after 1,000 pages of 4 KiB.
LIMITED = f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, ({LIMIT}, {LIMIT}))
from tabpfn_emulator.cli import app
app()
"""


@contextmanager
def limited(folder, *options):
    """An emulator that can write no file larger than `LIMIT`."""
    command = [sys.executable, "-c", LIMITED, "--port", "0", "--faults", "--data-dir", str(folder), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()
            _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")


def elements(answer):
    return {element.tag: element.text for element in ET.fromstring(answer.content)}


@pytest.mark.parametrize("mode", ["gcs", "s3"])
def test_an_upload_that_the_disk_does_not_hold_is_refused_and_the_next_one_is_taken(tmp_path, helpers, cancer, mode):
    with limited(tmp_path / "data", "--storage", mode) as url:
        api = helpers.api(url)
        info = {"format": "parquet"}
        prepared = api.post("/tabpfn/prepare_train_set_upload", {"x_train_info": info, "y_train_info": info}).json()
        (put,) = api.put(prepared["x_train_info"], bytes(2 * LIMIT))
        assert (put.status_code, put.headers["content-type"]) == (507, "application/xml")
        found = elements(put)
        assert found["Code"] == "InsufficientStorage"
        assert str(tmp_path / "data") in found["Message"] + found.get("Details", "")
        assert [path for path in (tmp_path / "data" / "uploads").rglob("*") if path.is_file()] == []
        row = EmulatorControl(url).journal(route="/storage")[-1]
        assert (row["status"], row["bytes_in"]) == (507, 2 * LIMIT)
        fitted = api.fit(cancer[0].head(40), cancer[1].head(40), "classification")
        assert api.predict(fitted, cancer[0].tail(2), "classification").status_code == 200
        api.close()


def test_parts_that_cannot_be_joined_are_refused_in_the_envelope_of_the_route(tmp_path, helpers):
    with limited(tmp_path / "data", "--upload-parts", "3") as url:
        api = helpers.api(url)
        upload = api.upload_train(bytes(3 * LIMIT // 2), b"y")
        for route in ("/tabpfn/fit", "/tabpfn/submit_fit_job"):
            answer = api.post(route, helpers.nested(upload, "classification"))
            assert (answer.status_code, answer.json()["error_code"]) == (507, "INSUFFICIENT_STORAGE")
            assert str(tmp_path / "data") in answer.json()["message"]
        assert EmulatorControl(url).fits() == []
        api.close()


def test_a_legacy_fit_that_the_disk_does_not_hold_is_refused_in_its_envelope(tmp_path, helpers):
    with limited(tmp_path / "data") as url:
        api = helpers.api(url)
        files = {
            "data": (None, '{"task": "regression", "schema": {"target": "a"}}'),
            "dataset_file": ("t.csv", b"a,b\n" + b"1,2\n" * (LIMIT // 2)),
        }
        answer = api.http.post("/v1/fit", files=files)
        assert (answer.status_code, answer.json()["code"]) == (507, "error.insufficient_storage")
        assert str(tmp_path / "data") in answer.json()["detail"]
        assert api.http.get("/get_data_summary/").json()["datasets"] == []
        api.close()


REQUESTS = (("GET", "/"), ("PUT", "/storage/x"), ("GET", "/v1/x"))


class Shop:
    """An emulator in this process, whose database has no page left when told so."""

    def __init__(self, folder):
        self.emulator = open_emulator(folder, (), Settings())
        transport = httpx.ASGITransport(build_app(self.emulator, control=False), raise_app_exceptions=False)
        headers = {"Authorization": "Bearer mine"}
        self.http = httpx.AsyncClient(transport=transport, base_url="http://emulator", headers=headers)

    def pages(self, more):
        ((now,),) = self.emulator.database.rows("PRAGMA page_count")
        self.emulator.database.rows(f"PRAGMA max_page_count = {now + more}")

    async def prepare(self):
        info = {"format": "csv"}
        body = {"x_train_info": info, "y_train_info": info, "description": "long " * 5000}
        return await self.http.post("/tabpfn/prepare_train_set_upload", json=body)

    def known(self):
        """What memory, documents and books know of uploads: three times the same."""
        memory = [upload.upload_id for upload in self.emulator.store.account_uploads(self.account())]
        documents = [upload_id for upload_id, _, _ in self.emulator.documents.all("upload")]
        books = [each["ids"]["train_set_upload_id"] for each in self.emulator.journal.creations(kind="upload_created")]
        assert memory == documents == books
        return memory

    def account(self):
        return self.emulator.account_of_header("Bearer mine")


@pytest.fixture
def shop(tmp_path):
    shop = Shop(tmp_path)
    with closing(shop.emulator.database), shop.emulator.workers:
        yield shop


def test_a_full_database_refuses_and_forgets_nothing_and_serves_again(shop, tmp_path):
    async def walk():
        accepted = [(await shop.prepare()).json()["train_set_upload_id"]]
        shop.pages(20)
        for _ in range(100):
            answer = await shop.prepare()
            if answer.status_code != 200:
                break
            accepted.append(answer.json()["train_set_upload_id"])
        assert (answer.status_code, answer.json()["error_code"]) == (507, "INSUFFICIENT_STORAGE")
        assert str(tmp_path) in answer.json()["message"]
        assert "--data-dir" in answer.json()["message"]
        assert shop.known() == accepted
        # Row by row the books fill the last page, too; then every request is refused, in the words of its route.
        for _ in range(1000):
            refusals = [await shop.http.request(*each) for each in REQUESTS]
            if [refusal.status_code for refusal in refusals] == [507] * len(REQUESTS):
                break
        assert ErrorB.model_validate_json(refusals[0].content).error_code == "INSUFFICIENT_STORAGE"
        assert elements(refusals[1])["Code"] == "InsufficientStorage"
        assert ErrorA.model_validate_json(refusals[2].content).code == "error.insufficient_storage"
        shop.pages(1000)
        accepted.append((await shop.prepare()).json()["train_set_upload_id"])
        assert shop.known() == accepted
        stored = shop.emulator.database.rows("SELECT status, seconds FROM journal")
        assert {200, 507} <= {status for status, _ in stored} <= {200, 403, 404, 507}
        assert all(seconds is not None for _, seconds in stored)

    asyncio.run(walk())


def test_every_operation_says_that_the_disk_may_be_full():
    operations = [operation for path in document()["paths"].values() for operation in path.values()]
    assert all("full" in operation["responses"]["507"]["description"] for operation in operations)


def test_what_a_fit_has_come_to_is_written_once_there_is_room(shop, monkeypatch):
    monkeypatch.setattr(_emulator, "_RETRY_SECONDS", 0.01)
    tries, tried = [], asyncio.Event()

    def write():
        tries.append(len(tries))
        if len(tries) == 3:
            tried.set()
        shop.emulator.documents.add("note", str(uuid.uuid4()), "mine", "long " * 50_000)

    async def walk():
        shop.pages(0)
        writing = asyncio.create_task(shop.emulator.commit(write))
        await tried.wait()
        assert not writing.done()
        assert shop.emulator.documents.all("note") == []
        shop.pages(1000)
        await asyncio.wait_for(writing, 30)

    asyncio.run(asyncio.wait_for(walk(), 60))
    assert len(shop.emulator.documents.all("note")) == 1


def test_a_start_without_room_is_refused_in_one_line(tmp_path):
    script = LIMITED.replace(str(LIMIT), "4096")
    command = [sys.executable, "-c", script, "--port", "0", "--data-dir", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert str(tmp_path) in ran.stderr
    assert "full" in ran.stderr
    assert "Traceback" not in ran.stderr
