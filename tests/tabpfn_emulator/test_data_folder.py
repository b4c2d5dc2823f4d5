"""The data folder: what it keeps when the process is killed, who may use it, and what is no such folder."""

import random
import sqlite3
import subprocess
import sys
import time

import pandas as pd
import pytest

from tabpfn_emulator._state.database import Database


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


def test_a_pending_fit_goes_on_and_keeps_its_time(server, helpers):
    running = server("--fit-seconds", "3")
    api = running.api("a")
    frame, target = table(random.Random(1))
    upload = api.upload_train(helpers.parquet(frame), helpers.parquet(target))
    began = time.time()
    fitted = api.post("/tabpfn/submit_fit_job", helpers.nested(upload, "classification")).json()["fitted_train_set_id"]
    running.restart()
    wait_for(api, fitted)
    assert time.time() - began >= 2.9
    (fit,) = running.control.fits()
    assert (fit["status"], fit["train_rows"]) == ("completed", 30)


@pytest.mark.parametrize(
    ("fault", "status"), [({"kind": "fail_fit", "error": "bad luck"}, "failed"), ({"kind": "endless_fit"}, "pending")]
)
def test_the_fate_of_a_fit_outlives_the_process(server, helpers, fault, status):
    running = server("--fit-seconds", "1")
    running.control.inject(fault)
    api = running.api("a")
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


def test_a_deleted_train_set_stays_deleted_and_leaves_no_bytes(server, helpers, tmp_path):
    running = server()
    api = running.api("a")
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


def test_a_prediction_behind_a_url_outlives_the_process(server, helpers):
    running = server()
    api = running.api("a")
    frame, target = table(random.Random(1))
    fitted = api.fit(frame, target["y"], "classification")
    inline = api.predict(fitted, frame.head(2), "classification").json()
    running.control.inject({"kind": "prediction_uri"})
    uri = api.predict(fitted, frame.head(2), "classification").json()["prediction_uri"]
    running.restart()
    assert api.storage.get(running.moved(uri)).raise_for_status().json() == inline["prediction"]


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
    api = running.api("a")
    frame, target = table(random.Random(1))
    x, y = helpers.parquet(frame), helpers.parquet(target)
    body = {"x_train_info": helpers.file_info(x), "y_train_info": helpers.file_info(y)}
    prepared = api.post("/tabpfn/prepare_train_set_upload", body).json()
    api.put(prepared["x_train_info"], x)
    api.put(prepared["y_train_info"], y)
    upload = prepared["train_set_upload_id"]
    answer = api.post("/tabpfn/fit", helpers.nested(upload, "classification")).raise_for_status()
    running.restart()
    assert [put.status_code for put in api.put(running.moved_info(prepared["x_train_info"]), x)] == [403]
    (tmp_path / "data" / "uploads" / upload / "x_train" / "00000.part").write_bytes(b"damaged")
    predicted = api.predict(answer.json()["fitted_train_set_id"], frame.head(2), "classification")
    assert (predicted.status_code, predicted.json()["error_code"]) == (422, "REQUEST_VALIDATION_ERROR")


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
