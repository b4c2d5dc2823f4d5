"""Which request a fault meets, and what each further kind does to it."""

import json
import subprocess
import sys
import time
from http.client import HTTPConnection

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tabpfn_emulator._faults import Fault, Faults
from tabpfn_emulator._patterns import covers
from tabpfn_emulator.testing import EmulatorControl, running_emulator

settings.register_profile("emulator", derandomize=True, deadline=None)
settings.load_profile("emulator")

LEAVING = {
    "deprecation": "true",
    "sunset": "Sun, 28 Feb 2027 00:00:00 GMT",
    "link": '<https://docs.example.com/deprecations>; rel="deprecation"',
}


@pytest.fixture
def upload(api, cancer, helpers):
    frame, target = cancer
    return api.upload_train(helpers.parquet(frame.head(40)), helpers.parquet(target.head(40).to_frame()))


@pytest.fixture
def fit_body(upload, helpers):
    return helpers.nested(upload, "classification")


def open_upload(api):
    body = {"x_train_info": {"format": "parquet"}, "y_train_info": {"format": "parquet"}}
    return api.post("/tabpfn/prepare_train_set_upload", body).raise_for_status().json()["x_train_info"]


@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 15))
def test_nth_and_times_meet_a_run_of_requests(nth, times, calls):
    faults = Faults()
    faults.waiting.append(Fault(kind="drop", route="/a", nth=nth, times=times))
    met = [faults.take("GET", "/a") is not None for _ in range(calls)]
    assert met == [nth <= call < nth + times for call in range(1, calls + 1)]


def kinds(calls, *waiting):
    faults = Faults()
    faults.waiting += waiting
    found = [faults.take("GET", "/a") for _ in range(calls)]
    return [fault and fault.kind for fault in found]


@given(st.integers(2, 9), st.booleans())
def test_a_fault_counts_the_requests_that_another_one_spoils(nth, later):
    waiting = [Fault(kind="status"), Fault(kind="drop", nth=nth)]
    expected = ["status"] + [None] * (nth - 2) + ["drop", None]
    assert kinds(nth + 1, *(reversed(waiting) if later else waiting)) == expected


@given(st.integers(0, 9), st.integers(0, 2**32))
def test_a_share_stays_the_same_where_another_fault_has_spoilt_some(times, seed):
    share = {"kind": "drop", "times": None, "probability": 0.5, "seed": seed}
    alone = kinds(30, Fault(**share))
    both = kinds(30, *([Fault(kind="status", times=times)] if times else []), Fault(**share))
    assert both == ["status"] * times + alone[times:]


@given(st.integers(0, 2**32), st.floats(0.05, 1))
def test_chances_depend_on_the_seed_alone(seed, probability):
    def met():
        faults = Faults()
        faults.waiting.append(Fault(kind="drop", times=None, probability=probability, seed=seed))
        return [faults.take("GET", route) is not None for route in ["/a", "/b"] * 50]

    assert met() == met()


def test_chances_are_as_large_as_asked():
    faults = Faults()
    faults.waiting.append(Fault(kind="drop", times=None, probability=0.3, seed=7))
    met = [faults.take("GET", "/a") is not None for _ in range(2000)]
    assert 500 < sum(met) < 700
    faults.waiting[:] = [Fault(kind="drop", times=5, probability=0.3, seed=7)]
    assert sum(faults.take("GET", "/a") is not None for _ in range(2000)) == 5


@pytest.mark.parametrize(
    ("pattern", "route", "covered"),
    [
        ("*", "/tabpfn/fit", True),
        ("/v1/*", "/v1/status/7", True),
        ("/v1/*", "/tabpfn/fit", False),
        ("/tabpfn/fit", "/tabpfn/fit", True),
        ("/tabpfn/fit", "/tabpfn/fit2", False),
        ("/tabpfn/fit", "/tabpfn", False),
        ("/v1/status/{job_id}", "/v1/status/7", True),
        ("/v1/status/{job_id}", "/v1/status/{job_id}", True),
        ("/v1/status/{job_id}", "/v1/status/", False),
        ("/v1/status/{job_id}", "/v1/status/7/8", False),
        ("/v1/status/{job_id}", "/v1/results/7", False),
        ("/v1/models/{model_id}/predict", "/v1/models/a-b.c/predict", True),
        ("/v1/models/{model_id}/*", "/v1/models/7/explain", True),
        ("/v1/models/{model_id}/*", "/v1/models/7", False),
        ("/v1/.*", "/v1/status", False),
    ],
)
def test_what_a_pattern_covers(pattern, route, covered):
    assert covers(pattern, route) is covered


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ({"kind": "drop", "nth": 2, "skip": 1}, "not both"),
        ({"kind": "drop", "nth": 0}, "nth"),
        ({"kind": "drop", "probability": 0}, "probability"),
        ({"kind": "status", "when": "keepalive"}, "keepalive"),
        ({"kind": "drip", "when": "after"}, "after"),
        ({"kind": "redirect", "status": 200}, "300 to 399"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_reason(control, fault, why):
    with pytest.raises(ValueError, match=why):
        control.inject(fault)
    assert control.faults() == []


@pytest.mark.parametrize("status", [408, 409, 422, 426, 500, 502, 503, 504])
def test_every_status_on_the_third_call(api, control, status):
    control.inject(kind="status", status=status, route="/protected/", nth=3)
    assert [api.http.get("/protected/").status_code for _ in range(4)] == [200, 200, status, 200]


def test_both_kinds_of_429(api, control):
    control.inject({"kind": "rate_limit", "seconds": 7}, {"kind": "quota"})
    limited, poor = api.http.get("/protected/"), api.http.get("/protected/")
    assert (limited.status_code, poor.status_code) == (429, 429)
    assert (limited.json()["error_code"], limited.headers["retry-after"]) == ("RATE_LIMIT_EXCEEDED", "7")
    assert (poor.json()["error_code"], poor.headers.get("retry-after")) == ("INSUFFICIENT_QUOTA", None)


def test_latency_is_a_setting(api, control):
    control.configure(latency={"/protected/": 0.3, "/auth/*": 9.0})
    began = time.monotonic()
    assert api.http.get("/protected/").status_code == 200
    assert time.monotonic() - began >= 0.3
    assert api.http.post("/get_api_usage/").status_code == 200


def test_latency_is_an_option():
    with running_emulator(extra_args=("--latency", "/=0.25", "--latency", "*=0.125")) as url:
        began = time.monotonic()
        assert httpx.get(url, trust_env=False).status_code == 200
        assert time.monotonic() - began >= 0.25
        assert EmulatorControl(url).journal()[0]["seconds"] >= 0.25


def test_an_answer_dropped_in_its_keepalive_leaves_the_fit_alone(api, control, fit_body):
    control.configure(fit_seconds=0.5, keepalive_after_secs=0.0, keepalive_every_secs=0.05)
    control.inject(kind="drop", route="/tabpfn/fit", when="keepalive")
    with api.http.stream("POST", "/tabpfn/fit", json=fit_body) as answer:
        assert answer.status_code == 200
        pieces = answer.iter_raw()
        assert set(next(pieces)) == set(b" ")
        with pytest.raises(httpx.RemoteProtocolError):
            b"".join(pieces)
    (fit,) = control.fits(account=api.account)
    for _ in range(600):
        if (status := api.post("/tabpfn/get_fit_status", id_of(fit)).json()["status"]) != "pending":
            break
        time.sleep(0.05)
    assert status == "completed"


def id_of(fit):
    return {"fitted_train_set_id": fit["fitted_train_set_id"]}


@pytest.mark.parametrize(("when", "fits"), [("before", 0), ("after", 1)])
def test_an_answer_that_never_comes(api, control, fit_body, when, fits):
    control.inject(kind="hang", route="/tabpfn/fit", when=when)
    with pytest.raises(httpx.ReadTimeout):
        api.http.post("/tabpfn/fit", json=fit_body, timeout=3.0)
    assert len(control.fits(account=api.account)) == fits
    assert api.http.get("/protected/").status_code == 200


@pytest.mark.parametrize(("when", "fits"), [("before", 0), ("after", 1)])
def test_a_streamed_error_before_and_after_the_work(api, control, fit_body, when, fits):
    control.inject(kind="streamed_error", route="/tabpfn/fit", when=when, body={"detail": "worker failed"})
    assert api.post("/tabpfn/fit", fit_body).json() == {"detail": "worker failed"}
    assert len(control.creations(kind="fit_created", account=api.account)) == fits


def test_half_of_an_answer_is_well_framed_and_no_json(api, control):
    whole = api.http.post("/get_api_usage/")
    control.inject(kind="truncated", route="/get_api_usage/")
    half = api.http.post("/get_api_usage/")
    assert half.status_code == 200
    assert whole.text.startswith(half.text[:10])
    assert 0 < len(half.content) < len(whole.content)
    with pytest.raises(json.JSONDecodeError):
        half.json()


@pytest.mark.parametrize("body", [None, "<html>maintenance</html>"])
def test_garbage(api, control, body):
    control.inject(kind="garbage", body=body)
    answer = api.http.get("/protected/")
    assert answer.status_code == 200
    assert body is None or answer.text == body
    with pytest.raises(json.JSONDecodeError):
        answer.json()


def test_an_answer_that_drips_is_whole_in_the_end(api, control):
    whole = api.http.post("/get_api_usage/").json()
    control.inject(kind="drip", seconds=0.5, route="/get_api_usage/")
    began = time.monotonic()
    with api.http.stream("POST", "/get_api_usage/") as answer:
        pieces = list(answer.iter_raw())
    assert time.monotonic() - began >= 0.4
    assert len(pieces) > 2
    assert json.loads(b"".join(pieces)).keys() == whole.keys()


def test_the_headers_of_a_route_that_goes_away(api, control):
    control.inject({"kind": "deprecation"}, {"kind": "deprecation", "headers": {"Deprecation": "soon"}})
    first, second, third = (api.http.get("/protected/") for _ in range(3))
    assert [answer.status_code for answer in (first, second, third)] == [200, 200, 200]
    assert {name: first.headers.get(name) for name in LEAVING} == LEAVING
    assert {name: second.headers.get(name) for name in LEAVING} == {"deprecation": "soon", "sunset": None, "link": None}
    assert {third.headers.get(name) for name in LEAVING} == {None}


def test_a_redirect_to_another_origin_is_seen_with_or_without_the_bearer(api, control):
    control.inject(kind="redirect", route="/protected/")
    answer = api.http.get("/protected/")
    assert answer.status_code == 307
    location = httpx.URL(answer.headers["location"])
    assert (location.host, location.port) == ("localhost", httpx.URL(control.url).port)
    mark = control.journal()[-1]["seq"]
    control.inject(kind="redirect", route="/protected/")
    followed = api.http.get("/protected/", follow_redirects=True)
    assert followed.url.host == "localhost"
    assert [(row["route"], row["bearer"]) for row in control.journal(after=mark)] == [
        ("/protected/", True),
        ("/protected/", False),
    ]


def test_a_redirect_goes_where_it_is_told(api, control):
    control.inject(kind="redirect", status=302, location="https://elsewhere.example.com/x")
    answer = api.http.get("/protected/")
    assert (answer.status_code, answer.headers["location"]) == (302, "https://elsewhere.example.com/x")


@pytest.mark.parametrize(("storage", "refusal"), [("gcs", 400), ("s3", 403)])
def test_an_expired_url_is_refused_as_the_storage_does(api, control, storage, refusal):
    control.configure(storage=storage)
    control.inject(kind="expired_url", nth=2)
    info = open_upload(api)
    answers = [api.put(info, b"0" * 1000)[0] for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, refusal, 200]
    assert answers[1].headers["content-type"] == "application/xml"
    assert "xpired" in answers[1].text


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_a_put_cut_half_way_leaves_nothing(api, control, size):
    control.inject(kind="cut_upload")
    info = open_upload(api)
    with pytest.raises(httpx.TransportError):
        api.put(info, b"0" * size)
    (row,) = [row for row in control.journal(account=api.account) if row["fault"] == "cut_upload"]
    assert (row["route"], row["status"]) == ("/storage", None)
    assert api.put(info, b"0" * size)[0].status_code == 200


def test_a_fit_that_never_ends(api, control, fit_body):
    control.inject(kind="endless_fit")
    answer = api.post("/tabpfn/submit_fit_job", fit_body).json()
    second = api.post("/tabpfn/fit", fit_body).json()
    assert second["status"] == "completed"
    assert api.post("/tabpfn/get_fit_status", answer).json()["status"] == "pending"


def test_a_fit_that_fails(api, control, fit_body):
    control.inject(kind="fail_fit", error="out of memory", error_code="USER_ERROR")
    answer = api.post("/tabpfn/fit", fit_body)
    assert (answer.status_code, answer.json()["message"]) == (500, "out of memory")


@pytest.mark.parametrize("kind", ["missing_status", "prediction_uri"])
def test_answers_that_are_no_json_objects_pass_unchanged(api, control, upload, kind):
    control.inject(kind=kind, route="/download_all_data/")
    archive = api.http.get("/download_all_data/")
    assert (archive.status_code, archive.content[:2]) == (200, b"PK")
    control.inject(kind=kind, route="/storage")
    assert api.put(open_upload(api), b"0")[0].status_code == 200
    assert control.faults() == []


def test_lowered_limits(api, control, fit_body):
    control.configure(limits={"train_set_max_rows": 39})
    assert api.http.get("/tabpfn/get_settings").json()["max_model_limit"]["train_set_max_rows"] == 39
    answer = api.post("/tabpfn/fit", fit_body)
    assert (answer.status_code, answer.json()["error_code"]) == (422, "REQUEST_VALIDATION_ERROR")


def test_idle_connections_are_closed(control):
    control.configure(idle_close_secs=0.2)
    connection = HTTPConnection(httpx.URL(control.url).netloc.decode(), timeout=30)
    connection.request("GET", "/")
    assert connection.getresponse().read()
    # What a server that hangs up sends: nothing. Without the setting this times out, 45 seconds early.
    assert connection.sock.recv(1) == b""
    connection.close()


def test_without_the_option_there_are_no_control_routes(tmp_path):
    command = [sys.executable, "-m", "tabpfn_emulator", "--port", "0", "--data-dir", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        url = process.stdout.readline().split()[-1]
        for method, path in (("POST", "faults"), ("GET", "journal"), ("GET", "accounts"), ("DELETE", "config")):
            assert httpx.request(method, f"{url}/_emulator/{path}", trust_env=False).status_code == 404
        with pytest.raises(RuntimeError, match="--faults"):
            EmulatorControl(url).clear()
    finally:
        process.terminate()
        process.communicate()
