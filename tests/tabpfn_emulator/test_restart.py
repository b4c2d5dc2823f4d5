"""kill -9 at moments of a seeded clock, while clients work: after a restart nothing is lost that was answered."""

import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field

import httpx
import pandas as pd
import pytest

from tabpfn_emulator._state.database import Database
from tabpfn_emulator.testing import EmulatorControl

CLIENTS = 3
LATEST_KILL_SECONDS = 1.5


class Server:
    """An emulator that is killed and started again, on the same folder and port."""

    def __init__(self, folder, *options):
        self._folder = folder
        self._options = options
        self._port = "0"
        self.start()

    def start(self):
        command = [sys.executable, "-m", "tabpfn_emulator", "--faults", "--data-dir", str(self._folder)]
        self.process = subprocess.Popen(
            [*command, "--port", self._port, *self._options], stdout=subprocess.PIPE, text=True
        )
        self.url = self.process.stdout.readline().split()[-1]
        self._port = self.url.rsplit(":", 1)[1]
        self.control = EmulatorControl(self.url)

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def restart(self):
        self.kill()
        self.start()


@pytest.fixture
def server(tmp_path):
    servers = []

    def begin(*options):
        servers.append(Server(tmp_path / "data", *options))
        return servers[0]

    yield begin
    for each in servers:
        each.kill()


@dataclass
class Acknowledged:
    """What a client was answered, and nothing that it only hopes for."""

    uploads: list = field(default_factory=list)
    complete: list = field(default_factory=list)
    open_urls: list = field(default_factory=list)
    fits: list = field(default_factory=list)
    completed: list = field(default_factory=list)
    predictions: list = field(default_factory=list)
    charged: int = 0


class Client:
    """Uploads, fits and predicts until its server is gone."""

    def __init__(self, number, rng, url, helpers):
        self.helpers = helpers
        self.rng = rng
        self.api = helpers.api(url, token=f"restart-{number}")
        self.got = Acknowledged()
        self.problem = None

    def run(self):
        try:
            while True:
                self._once()
        except httpx.TransportError:
            pass  # the kill, which is what this waits for
        except Exception as problem:
            self.problem = problem

    def _once(self):
        frame, target = table(self.rng)
        fitted = self._fit(self._upload(frame, target))
        content = self.helpers.parquet(frame.head(3))
        prepared = self._post(
            "/tabpfn/prepare_test_set_upload",
            {"fitted_train_set_id": fitted, "x_test_info": self.helpers.file_info(content)},
        )
        upload = prepared["test_set_upload_id"]
        self.got.uploads.append(upload)
        self._put(upload, [(prepared["x_test_info"], content)])
        body = self.helpers.predict_body(fitted, upload, "classification")
        answer = self._post("/tabpfn/predict", body)
        self.got.predictions.append((body, answer["prediction"]))
        self.got.charged += 10_000

    def _upload(self, frame, target):
        x, y = self.helpers.parquet(frame), self.helpers.parquet(target)
        infos = {"x_train_info": self.helpers.file_info(x), "y_train_info": self.helpers.file_info(y)}
        prepared = self._post("/tabpfn/prepare_train_set_upload", infos)
        upload = prepared["train_set_upload_id"]
        self.got.uploads.append(upload)
        self._put(upload, [(prepared["x_train_info"], x), (prepared["y_train_info"], y)])
        return upload

    def _put(self, upload, files):
        self.got.open_urls.append((upload, files))
        for info, content in files:
            for answer in self.api.put(info, content):
                answer.raise_for_status()
        self.got.open_urls.pop()
        self.got.complete.append(upload)

    def _fit(self, upload):
        job = self._post("/tabpfn/submit_fit_job", self.helpers.nested(upload, "classification", random_state=3))
        fitted = job["fitted_train_set_id"]
        self.got.fits.append(fitted)
        wait_for(self.api, fitted)
        self.got.completed.append(fitted)
        return fitted

    def _post(self, path, body):
        return self.api.post(path, body).raise_for_status().json()

    def check(self):
        """Everything that was answered is still there and still works."""
        summary = self.api.http.get("/get_data_summary/").raise_for_status().json()
        known = {entry["dataset_uid"]: entry["complete"] for entry in summary["datasets"]}
        assert set(self.got.uploads) <= set(known)
        assert all(known[upload] for upload in self.got.complete)
        for upload, files in self.got.open_urls:
            for info, content in files:
                for answer in self.api.put(info, content):
                    answer.raise_for_status()
            self.got.complete.append(upload)
        self.got.open_urls.clear()
        for fitted in self.got.completed:
            assert status_of(self.api, fitted) == "completed"
        for fitted in set(self.got.fits) - set(self.got.completed):
            wait_for(self.api, fitted)
            self.got.completed.append(fitted)
        for body, prediction in self.got.predictions[-2:]:
            assert self._post("/tabpfn/predict", body)["prediction"] == prediction
            self.got.charged += 10_000


def status_of(api, fitted):
    answer = api.post("/tabpfn/get_fit_status", {"fitted_train_set_id": fitted}).raise_for_status()
    return answer.json()["status"]


def wait_for(api, fitted):
    for _ in range(1200):
        status = status_of(api, fitted)
        if status != "pending":
            assert status == "completed"
            return
        time.sleep(0.05)
    raise AssertionError("the fit did not end")


def table(rng):
    frame = pd.DataFrame({name: [rng.random() for _ in range(30)] for name in "ab"})
    return frame, pd.DataFrame({"y": ["high" if value > 0.5 else "low" for value in frame["a"]]})


def check_books(control, clients):
    """Every creation that a client was answered is in the books, once, and the sums are the sums of the rows."""
    creations, rows = control.creations(), control.journal()
    for client in clients:
        mine = [creation for creation in creations if creation["account"] == client.api.account]
        fits = [each["ids"]["fitted_train_set_id"] for each in mine if each["kind"] == "fit_created"]
        uploads = [next(iter(each["ids"].values())) for each in mine if each["kind"] == "upload_created"]
        assert len(set(fits)) == len(fits)
        assert set(client.got.fits) <= set(fits)
        assert set(client.got.uploads) <= set(uploads)
        charged = sum(creation["charge"] for creation in mine)
        # One predict more, when the kill came between its commit and its answer: accepted, and not known to be.
        usage = client.api.http.post("/get_api_usage/").json()
        # Of the month, because a test may run over midnight.
        assert client.got.charged <= charged == usage["monthly_tokens_used"]
    totals = control.totals()
    assert totals["charge"] == sum(row["charge"] for row in rows) == sum(each["charge"] for each in creations)
    assert totals["creations"] == {
        kind: len([each for each in creations if each["kind"] == kind]) for kind in totals["creations"]
    }


def test_nothing_is_lost_that_was_answered(server, helpers, pytestconfig):
    points = 50 if pytestconfig.getoption("--all") else 5
    seed = int(os.environ.get("KILL_SEED", random.SystemRandom().randrange(2**32)))
    print(f"KILL_SEED={seed} points={points}")
    clock = random.Random(seed)
    running = server()
    clients = [Client(number, random.Random(seed + number + 1), running.url, helpers) for number in range(CLIENTS)]
    for _ in range(points):
        threads = [threading.Thread(target=client.run) for client in clients]
        for thread in threads:
            thread.start()
        time.sleep(clock.uniform(0.02, LATEST_KILL_SECONDS))
        running.process.kill()
        for thread in threads:
            thread.join()
        assert [client.problem for client in clients] == [None] * CLIENTS
        running.restart()
        for client in clients:
            client.check()
        check_books(running.control, clients)
    for client in clients:
        client.api.close()
    assert sum(len(client.got.uploads) for client in clients) > 0


def test_a_pending_fit_goes_on_and_keeps_its_time(server, helpers):
    running = server("--fit-seconds", "3")
    api = helpers.api(running.url, token="a")
    frame, target = table(random.Random(1))
    upload = api.upload_train(helpers.parquet(frame), helpers.parquet(target))
    began = time.time()
    fitted = api.post("/tabpfn/submit_fit_job", helpers.nested(upload, "classification")).json()["fitted_train_set_id"]
    running.restart()
    wait_for(api, fitted)
    assert time.time() - began >= 2.9
    (fit,) = running.control.fits()
    assert (fit["status"], fit["train_rows"]) == ("completed", 30)
    api.close()


@pytest.mark.parametrize(
    ("fault", "status"), [({"kind": "fail_fit", "error": "bad luck"}, "failed"), ({"kind": "endless_fit"}, "pending")]
)
def test_the_fate_of_a_fit_outlives_the_process(server, helpers, fault, status):
    running = server("--fit-seconds", "1")
    running.control.inject(fault)
    api = helpers.api(running.url, token="a")
    frame, target = table(random.Random(1))
    upload = api.upload_train(helpers.parquet(frame), helpers.parquet(target))
    body = helpers.nested(upload, "classification")
    fitted = api.post("/tabpfn/submit_fit_job", body).json()["fitted_train_set_id"]
    running.restart()
    other = api.post("/tabpfn/submit_fit_job", body).json()["fitted_train_set_id"]
    wait_for(api, other)
    answer = api.post("/tabpfn/get_fit_status", {"fitted_train_set_id": fitted}).json()
    assert answer["status"] == status
    assert answer.get("error") == fault.get("error")
    api.close()


def test_a_deleted_train_set_stays_deleted_and_leaves_no_bytes(server, helpers, tmp_path):
    running = server()
    api = helpers.api(running.url, token="a")
    frame, target = table(random.Random(1))
    fitted = api.fit(frame, target["y"], "classification")
    kept = api.upload_train(helpers.parquet(frame.tail(9)), helpers.parquet(target.tail(9)))
    upload = running.control.fits()[0]["train_set_upload_id"]
    api.http.delete("/delete_dataset/", params={"dataset_uid": upload}).raise_for_status()
    # As a process leaves it that was killed after the promise and before the bytes were gone.
    left = tmp_path / "data" / "uploads" / upload / "x_train"
    left.mkdir(parents=True)
    running.restart()
    assert api.post("/tabpfn/get_fit_status", {"fitted_train_set_id": fitted}).status_code == 404
    assert [path.name for path in (tmp_path / "data" / "uploads").iterdir()] == [kept]
    api.close()


def test_a_prediction_behind_a_url_outlives_the_process(server, helpers):
    running = server()
    api = helpers.api(running.url, token="a")
    frame, target = table(random.Random(1))
    fitted = api.fit(frame, target["y"], "classification")
    inline = api.predict(fitted, frame.head(2), "classification").json()
    running.control.inject({"kind": "prediction_uri"})
    uri = api.predict(fitted, frame.head(2), "classification").json()["prediction_uri"]
    running.restart()
    assert api.storage.get(uri).raise_for_status().json() == inline["prediction"]
    api.close()


def refused(folder):
    done = subprocess.run(
        [sys.executable, "-m", "tabpfn_emulator", "--data-dir", str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_folder_in_use_is_refused_in_one_line(server, tmp_path):
    running = server()
    assert "in use" in refused(tmp_path / "data")
    assert running.control.totals()["requests"] == 0


def test_only_the_emulator_that_has_the_folder_removes_what_is_not_whole(server, tmp_path):
    running = server()
    uploads, results = tmp_path / "data" / "uploads" / "x_train", tmp_path / "data" / "reasoning" / "results"
    scratches = [folder / "content.0.incoming" for folder in (uploads, results)]
    for scratch in scratches:
        scratch.parent.mkdir(parents=True)
        scratch.write_bytes(b"on its way")
    refused(tmp_path / "data")
    assert [scratch.exists() for scratch in scratches] == [True, True]
    running.restart()
    assert [scratch.exists() for scratch in scratches] == [False, False]


def test_a_fitted_upload_stays_sealed_and_a_damaged_one_is_no_internal_error(server, helpers, tmp_path):
    running = server()
    api = helpers.api(running.url, token="a")
    frame, target = table(random.Random(1))
    x, y = helpers.parquet(frame), helpers.parquet(target)
    body = {"x_train_info": helpers.file_info(x), "y_train_info": helpers.file_info(y)}
    prepared = api.post("/tabpfn/prepare_train_set_upload", body).json()
    api.put(prepared["x_train_info"], x)
    api.put(prepared["y_train_info"], y)
    upload = prepared["train_set_upload_id"]
    answer = api.post("/tabpfn/fit", helpers.nested(upload, "classification")).raise_for_status()
    running.restart()
    assert [put.status_code for put in api.put(prepared["x_train_info"], x)] == [403]
    (tmp_path / "data" / "uploads" / upload / "x_train" / "00000.part").write_bytes(b"damaged")
    predicted = api.predict(answer.json()["fitted_train_set_id"], frame.head(2), "classification")
    assert (predicted.status_code, predicted.json()["error_code"]) == (422, "REQUEST_VALIDATION_ERROR")
    api.close()


def test_a_commit_that_fails_changes_nothing_and_the_next_one_works(tmp_path):
    database = Database(tmp_path / "emulator.sqlite3")
    database.execute("PRAGMA foreign_keys = ON")
    database.execute("CREATE TABLE parent (id INTEGER PRIMARY KEY)")
    database.execute("CREATE TABLE child (id REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")

    def insert(*tables):
        with database.transaction():
            for name in tables:
                database.execute(f"INSERT INTO {name} VALUES (1)")

    # Only COMMIT looks at a deferred foreign key, and SQLite leaves the transaction open then.
    with pytest.raises(sqlite3.IntegrityError):
        insert("child")
    assert database.rows("SELECT * FROM child") == []
    insert("child", "parent")
    assert len(database.rows("SELECT * FROM child")) == 1
    database.close()


def test_the_file_of_another_version_is_refused_in_one_line(tmp_path):
    path = tmp_path / "emulator.sqlite3"
    Database(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert "another version" in refused(tmp_path)


def test_nobody_else_may_read_the_file(server, tmp_path):
    server()
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "data").glob("emulator.sqlite3*")}
    assert modes == {0o600}


def test_a_file_that_is_no_database_is_refused_in_one_line(tmp_path):
    (tmp_path / "emulator.sqlite3").write_bytes(b"anything else" * 999)
    assert "emulator.sqlite3 cannot be used" in refused(tmp_path)
