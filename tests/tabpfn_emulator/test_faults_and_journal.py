"""Faults on demand, settings, and the books."""

import json
import subprocess
import sys
import uuid

import httpx
import pytest

from tabpfn_emulator._books.journal import read_books
from tabpfn_emulator.testing import EmulatorControl, running_emulator


@pytest.fixture
def fitted(api, cancer):
    frame, target = cancer
    return api.fit(frame.head(40), target.head(40), "classification")


@pytest.fixture
def predict_body(api, fitted, cancer, helpers):
    upload = api.upload_test(fitted, helpers.parquet(cancer[0].tail(2)))
    return helpers.predict_body(fitted, upload, "classification")


def test_a_status_is_given_as_often_as_asked(api, control):
    control.inject(
        {
            "route": "/protected/",
            "kind": "status",
            "status": 429,
            "times": 2,
            "body": {"message": "slow down", "error_code": "RATE_LIMIT_EXCEEDED"},
            "headers": {"Retry-After": "7"},
        }
    )
    answers = [api.http.get("/protected/") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 429, 200]
    assert answers[0].json()["error_code"] == "RATE_LIMIT_EXCEEDED"
    assert answers[0].headers["retry-after"] == "7"


def test_a_status_without_a_body_is_envelope_b_and_text_is_sent_as_it_is(api, control):
    control.inject(
        {"kind": "status", "status": 503, "error": "busy", "error_code": "BUSY"},
        {"kind": "status", "status": 502, "body": "<html>", "headers": {"content-type": "text/html"}},
    )
    answer = api.http.get("/protected/").json()
    assert (answer["message"], answer["error_code"]) == ("busy", "BUSY")
    assert uuid.UUID(answer["trace_id"])
    text = api.http.get("/protected/")
    assert (text.status_code, text.text, text.headers["content-type"]) == (502, "<html>", "text/html")


def test_faults_meet_their_route_method_and_turn_only(api, control):
    control.inject({"route": "/get_api_usage/", "method": "POST", "kind": "status", "status": 500, "skip": 1})
    assert api.http.get("/protected/").status_code == 200
    assert [api.http.post("/get_api_usage/").status_code for _ in range(3)] == [200, 500, 200]
    assert control.faults() == []


def test_a_fault_for_ever_lasts_until_cleared(api, control):
    control.inject({"route": "/protected/", "kind": "status", "status": 500, "times": None})
    assert {api.http.get("/protected/").status_code for _ in range(4)} == {500}
    control.clear()
    assert api.http.get("/protected/").status_code == 200


def test_a_status_after_the_work_withholds_the_answer(api, control, predict_body):
    control.inject({"route": "/tabpfn/predict", "kind": "status", "status": 504, "when": "after"})
    assert api.post("/tabpfn/predict", predict_body).status_code == 504
    (row,) = control.journal(route="/tabpfn/predict", account=api.account)
    assert row["charge"] == 10_000


@pytest.mark.parametrize(("when", "charge"), [("before", 0), ("after", 10_000)])
def test_a_dropped_connection(api, control, predict_body, when, charge):
    control.inject({"route": "/tabpfn/predict", "kind": "drop", "when": when})
    # Closed, or reset where the body was still on its way: either is a dropped connection.
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)):
        api.post("/tabpfn/predict", predict_body)
    (row,) = control.journal(route="/tabpfn/predict", account=api.account)
    assert (row["status"], row["fault"], row["charge"]) == (None, "drop", charge)
    assert api.post("/tabpfn/predict", predict_body).status_code == 200


def test_a_connection_dropped_in_the_middle_of_an_answer(api, control, predict_body):
    control.inject({"route": "/tabpfn/predict", "kind": "drop", "when": "middle"})
    with api.http.stream("POST", "/tabpfn/predict", json=predict_body) as answer:
        assert answer.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            answer.read()


def test_a_dropped_put(api, control):
    control.inject({"route": "/storage", "kind": "drop"})
    body = {"x_train_info": {"format": "parquet"}, "y_train_info": {"format": "parquet"}}
    info = api.post("/tabpfn/prepare_train_set_upload", body).json()["x_train_info"]
    with pytest.raises(httpx.HTTPError):
        api.put(info, b"0" * 3_000_000)
    assert [put.status_code for put in api.put(info, b"0" * 3_000_000)] == [200]


def test_a_streamed_error(api, control, predict_body):
    control.inject(
        {"route": "/tabpfn/predict", "kind": "streamed_error", "error": "worker failed"},
        {"route": "/tabpfn/predict", "kind": "streamed_error", "body": {"detail": "worker failed"}},
    )
    answer = api.post("/tabpfn/predict", predict_body)
    assert (answer.status_code, answer.text[0]) == (200, " ")
    assert answer.json() == {"_streamed_error": True, "message": "worker failed"}
    assert api.post("/tabpfn/predict", predict_body).json() == {"detail": "worker failed"}


def test_a_delay_is_longer_than_an_impatient_caller_waits(api, control):
    control.inject({"route": "/protected/", "kind": "delay", "seconds": 1.0})
    with pytest.raises(httpx.ReadTimeout):
        api.http.get("/protected/", timeout=0.2)
    assert api.http.get("/protected/").status_code == 200


def test_a_missing_status(api, control, cancer, helpers):
    frame, target = cancer
    control.inject({"kind": "missing_status"})
    upload = api.upload_train(helpers.parquet(frame.head(40)), helpers.parquet(target.head(40).to_frame()))
    answer = api.post("/tabpfn/fit", helpers.nested(upload, "classification"))
    assert answer.status_code == 200
    assert "status" not in answer.json()
    assert answer.json()["fitted_train_set_id"]


def test_a_prediction_behind_a_url(api, bare, control, predict_body):
    inline = api.post("/tabpfn/predict", predict_body).json()
    control.inject({"kind": "prediction_uri"})
    answer = api.post("/tabpfn/predict", predict_body).json()
    assert "prediction" not in answer
    assert answer["prediction_uri_expires_in_secs"] > 0
    assert answer["metadata"] == inline["metadata"]
    assert bare.get(answer["prediction_uri"]).json() == inline["prediction"]
    assert bare.get(answer["prediction_uri"].split("?")[0]).status_code == 403


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "earthquake"},
        {"kind": "drop", "colour": "blue"},
        {"kind": "delay", "when": "middle"},
        {"kind": "delay", "when": "after"},
        {"kind": "drop", "times": 0},
        {"kind": "status", "headers": {"x": "a\r\nSet-Cookie: b"}},
        {"kind": "deprecation", "headers": {"x": "€"}},
        {"kind": "quota", "headers": {"two words": "a"}},
        {"kind": "rate_limit", "headers": {"x": " a"}},
        {"kind": "redirect", "location": "http://localhost/\n"},
    ],
)
def test_a_fault_that_is_not_understood_is_refused(control, bare, fault):
    answer = bare.post(f"{control.url}/_emulator/faults", json=[fault])
    assert answer.status_code == 422
    assert control.faults() == []


@pytest.mark.parametrize("change", [{"colour": "blue"}, {"upload_parts": 0}, {"limits": {"max_colums": 3}}, []])
def test_a_setting_that_is_not_understood_is_refused(control, bare, change):
    assert bare.post(f"{control.url}/_emulator/config", json=change).status_code == 422


def test_settings_add_up_until_cleared(control, bare):
    before = bare.get(f"{control.url}/_emulator/config").json()
    control.configure(fit_seconds=1.5)
    control.configure(upload_parts=3)
    now = bare.get(f"{control.url}/_emulator/config").json()
    assert now == {**before, "fit_seconds": 1.5, "upload_parts": 3}
    control.clear()
    assert bare.get(f"{control.url}/_emulator/config").json() == before


def test_the_journal_has_a_row_for_every_request(api, control, cancer):
    frame, target = cancer
    fitted = api.fit(frame.head(40), target.head(40), "classification")
    api.predict(fitted, frame.tail(2), "classification").raise_for_status()
    rows = control.journal(account=api.account)
    assert [(row["method"], row["route"], row["status"], row["bearer"]) for row in rows] == [
        ("POST", "/tabpfn/prepare_train_set_upload", 200, True),
        ("PUT", "/storage", 200, False),
        ("PUT", "/storage", 200, False),
        ("POST", "/tabpfn/fit", 200, True),
        ("POST", "/tabpfn/prepare_test_set_upload", 200, True),
        ("PUT", "/storage", 200, False),
        ("POST", "/tabpfn/predict", 200, True),
    ]
    assert all(row["bytes_in"] > 0 for row in rows)
    assert [row["seq"] for row in rows] == sorted(row["seq"] for row in rows)
    assert rows[3]["ids"]["fitted_train_set_id"] == rows[6]["ids"]["fitted_train_set_id"] == fitted
    assert rows[0]["ids"]["train_set_upload_id"] == rows[3]["ids"]["train_set_upload_id"]
    assert [row["charge"] for row in rows] == [0] * 6 + [10_000]


def test_refused_requests_are_journalled_and_control_requests_are_not(control, bare):
    mark = len(control.journal())
    bare.get(f"{control.url}/protected/", headers={"Authorization": "Bearer"})
    bare.get(f"{control.url}/nowhere")
    control.fits()
    rows = [(row["route"], row["status"], row["bearer"], row["account"]) for row in control.journal(after=mark)]
    assert rows == [("/protected/", 401, True, None), ("/nowhere", 404, False, None)]


@pytest.mark.parametrize(
    ("route", "found"),
    [
        ("/v1/status/{job_id}", ["/v1/status/one", "/v1/status/two"]),
        ("/v1/{kind}/one", ["/v1/status/one", "/v1/results/one"]),
        ("/v1/status/two", ["/v1/status/two"]),
        ("/v1/results*", ["/v1/results/one"]),
        ("/v1/status", []),
    ],
)
def test_routes_with_an_id_are_found_by_path_and_by_template(api, control, emulator_folder, route, found):
    for path in ("/v1/status/one", "/v1/status/two", "/v1/results/one", "/protected/"):
        api.http.get(path)
    assert [row["route"] for row in control.journal(route=route, account=api.account)] == found
    command = [sys.executable, "-m", "tabpfn_emulator", "journal", "--json", "--data-dir", str(emulator_folder)]
    command += ["--account", api.account, "--route", route]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert [row["route"] for row in json.loads(printed)] == found


def test_a_fault_meets_a_route_with_an_id_by_its_template(api, control):
    control.inject(kind="status", status=503, route="/v1/status/{job_id}", times=None)
    assert [api.http.get(f"/v1/{path}/x").status_code for path in ("status", "results")] == [503, 404]


def test_the_file_holds_the_journal_and_nothing_secret(tmp_path, cancer, helpers):
    frame, target = cancer
    with running_emulator(tmp_path) as url:
        api = helpers.api(url, token="very-secret-token")
        fitted = api.fit(frame.head(40), target.head(40), "classification")
        answer = api.post(
            "/tabpfn/prepare_test_set_upload", {"fitted_train_set_id": fitted, "x_test_info": {"format": "csv"}}
        ).json()
        api.put(answer["x_test_info"], b"a\n1\n")
        shown = EmulatorControl(url).journal()
        api.close()
    assert read_books(tmp_path / "emulator.sqlite3", creations=False) == shown
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("emulator.sqlite3*"))
    assert api.account.encode() in kept
    assert b"very-secret-token" not in kept
    assert b"X-Signature" not in kept
    assert {row["account"] for row in shown} == {api.account}


@pytest.mark.parametrize(
    "change", [{"fit_seconds": float("inf")}, {"latency": {"*": float("inf")}}, {"latency": {"tabpfn": 1}}]
)
def test_a_setting_that_is_refused_is_not_kept(control, change):
    with pytest.raises(ValueError, match=r"finite|no route"):
        control.configure(**change)
    control.configure(retry_in_secs=0.1)


def test_a_fault_that_is_refused_is_not_kept(control):
    for fault in ({"kind": "delay", "seconds": float("inf")}, {"kind": "status", "status": 204}):
        with pytest.raises(ValueError, match=r"finite|no body"):
            control.inject({"kind": "drop"}, fault)
    assert control.faults() == []
