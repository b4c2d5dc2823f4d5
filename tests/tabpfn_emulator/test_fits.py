"""Fits: both generations of the body, synchronous, streamed, asynchronous (contract sections 1.3 to 1.5, 2)."""

import json
import time
import uuid

import pandas as pd
import pytest


@pytest.fixture
def uploaded(api, cancer, helpers):
    frame, target = cancer
    return api.upload_train(helpers.parquet(frame.head(60)), helpers.parquet(target.head(60).to_frame()))


def wait(api, fitted):
    for _ in range(200):
        answer = api.post("/tabpfn/get_fit_status", {"fitted_train_set_id": fitted})
        assert answer.status_code == 200
        if answer.json()["status"] != "pending":
            return answer.json()
        time.sleep(0.05)
    raise AssertionError("the fit did not end")


FLAT = {"task": "classification"}
FLAT_THINKING = {
    "task": "classification",
    "tabpfn_systems": ["preprocessing", "text"],
    "thinking_effort": "high",
    "thinking_timeout_s": 300,
    "thinking_effort_metric": "log_loss",
    "force_refit": False,
}
NESTED = {
    "task_config": {
        "task": "classification",
        "tabpfn_config": {"random_state": 0, "ignore_pretraining_limits": False, "balance_probabilities": False},
    },
    "tabpfn_systems": ["preprocessing", "text"],
}
NESTED_THINKING = {
    "task_config": {"task": "classification"},
    "tabpfn_systems": ["preprocessing", "text", "thinking"],
    "thinking_config": {"effort": "medium", "timeout_secs": 60.0, "metric": "accuracy"},
    "text_handling": "simple",
}


@pytest.mark.parametrize("body", [FLAT, FLAT_THINKING, NESTED, NESTED_THINKING])
def test_both_generations_are_fitted(api, control, uploaded, body):
    answer = api.post("/tabpfn/fit", {"train_set_upload_id": uploaded, **body})
    assert answer.status_code == 200
    assert uuid.UUID(answer.json()["fitted_train_set_id"])
    assert answer.json()["status"] == "completed"
    assert {"elapsed_s", "queue_wait_s", "train_set_transform_s", "fit_s"} == set(answer.json()["timings"])
    (fit,) = control.fits(account=api.account)
    assert fit["wire"] == ("flat" if "task" in body else "nested")
    assert (fit["thinking"] is None) == ("thinking" not in str(body))


@pytest.mark.parametrize(
    "marker",
    [
        {**FLAT, "tabpfn_systems": ["thinking"]},
        {**FLAT, "thinking_effort": "medium"},
        {**NESTED, "tabpfn_systems": ["thinking"]},
        {**NESTED, "thinking_config": {}},
    ],
)
def test_any_marker_turns_thinking_on_and_it_is_charged(api, control, uploaded, marker):
    api.post("/tabpfn/fit", {"train_set_upload_id": uploaded, **marker}).raise_for_status()
    (fit,) = control.fits(account=api.account)
    assert fit["thinking"]["effort"] == "medium"
    assert fit["charge"] > 0
    assert api.http.post("/get_api_usage/").json()["current_usage"] == fit["charge"]


def test_a_standard_fit_is_free(api, uploaded):
    api.post("/tabpfn/fit", {"train_set_upload_id": uploaded, **NESTED}).raise_for_status()
    assert api.http.post("/get_api_usage/").json()["current_usage"] == 0


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({**FLAT, **NESTED}, "mixes"),
        ({**FLAT, "thinking_config": {"effort": "high"}}, "mixes"),
        ({**NESTED, "force_refit": True}, "mixes"),
        ({**NESTED, "thinking_effort": "high"}, "mixes"),
        ({**NESTED, "colour": "blue"}, "colour"),
        ({**FLAT, "colour": "blue"}, "colour"),
        ({}, "task_config"),
        ({"task": "clustering"}, "task"),
        ({"task_config": {"task": "clustering"}}, "task_config"),
        ({"task_config": {"task": "regression", "tabpfn_config": {"balance_probabilities": True}}}, "balance"),
        ({"task_config": {"task": "regression", "tabpfn_config": {"n_estimators": 9}}}, "n_estimators"),
        ({**NESTED, "tabpfn_systems": ["magic"]}, "tabpfn_systems"),
        ({**NESTED, "text_handling": "odd"}, "text_handling"),
        ({**NESTED, "thinking_config": {"effort": "low"}}, "effort"),
        ({**NESTED, "thinking_config": {"timeout_s": 3}}, "timeout_s"),
        ({**NESTED, "thinking_config": {"group_col": "a", "time_col": "b"}}, "exclude"),
        ({**NESTED, "thinking_config": {"group_time_col": "b"}}, "needs group_col"),
        ({**NESTED, "thinking_config": {"group_col": ["no such column"]}}, "no such column"),
        ({**FLAT, "thinking_effort": "high", "tabpfn_config": {"model_path": "v2.6_default"}}, "v3"),
    ],
)
def test_bodies_that_the_contract_does_not_know_are_refused(api, uploaded, body, words):
    answer = api.post("/tabpfn/fit", {"train_set_upload_id": uploaded, **body})
    assert (answer.status_code, answer.json()["error_code"]) == (422, "REQUEST_VALIDATION_ERROR")
    assert words in answer.json()["message"]


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"null"])
def test_a_body_that_is_no_object_is_refused(api, content):
    assert api.http.post("/tabpfn/fit", content=content).status_code == 422


def test_a_flat_body_is_no_fit_job(api, uploaded):
    answer = api.post("/tabpfn/submit_fit_job", {"train_set_upload_id": uploaded, **FLAT})
    assert answer.status_code == 422


@pytest.mark.parametrize("route", ["/tabpfn/fit", "/tabpfn/submit_fit_job"])
def test_an_unknown_or_foreign_upload_is_404(api, other_api, uploaded, route):
    for caller, upload in ((api, str(uuid.uuid4())), (other_api, uploaded)):
        answer = caller.post(route, {"train_set_upload_id": upload, **NESTED})
        assert (answer.status_code, answer.json()["error_code"]) == (404, "NOT_FOUND")


def test_every_fit_call_makes_another_model(api, control, uploaded):
    body = {"train_set_upload_id": uploaded, **NESTED}
    ids = {api.post("/tabpfn/fit", body).json()["fitted_train_set_id"] for _ in range(2)}
    ids.add(api.post("/tabpfn/submit_fit_job", body).json()["fitted_train_set_id"])
    assert len(ids) == 3
    assert {fit["fitted_train_set_id"] for fit in control.fits(account=api.account)} == ids


def test_a_job_is_pending_then_completed(api, control, uploaded):
    control.configure(fit_seconds=2.0, retry_in_secs=0.25)
    answer = api.post("/tabpfn/submit_fit_job", {"train_set_upload_id": uploaded, **NESTED})
    assert set(answer.json()) == {"fitted_train_set_id"}
    fitted = answer.json()["fitted_train_set_id"]
    pending = api.post("/tabpfn/get_fit_status", {"fitted_train_set_id": fitted}).json()
    assert (pending["status"], pending["retry_in_secs"]) == ("pending", 0.25)
    ended = wait(api, fitted)
    assert ended["status"] == "completed"
    assert "retry_in_secs" not in ended
    assert ended["timings"]["elapsed_s"] > 1.9


def test_the_polling_hint_can_be_left_out(api, control, uploaded):
    control.configure(fit_seconds=60.0, retry_in_secs=None)
    answer = api.post("/tabpfn/submit_fit_job", {"train_set_upload_id": uploaded, **NESTED})
    status = api.post("/tabpfn/get_fit_status", answer.json()).json()
    assert status["status"] == "pending"
    assert "retry_in_secs" not in status


def test_a_failed_job_is_http_200_with_status_failed(api, control, uploaded):
    control.inject({"kind": "fail_fit", "error": "worker lost", "error_code": "WORKER_LOST"})
    answer = api.post("/tabpfn/submit_fit_job", {"train_set_upload_id": uploaded, **NESTED}).json()
    ended = wait(api, answer["fitted_train_set_id"])
    assert (ended["status"], ended["error"], ended["error_code"]) == ("failed", "worker lost", "WORKER_LOST")
    again = api.post("/tabpfn/submit_fit_job", {"train_set_upload_id": uploaded, **NESTED}).json()
    assert wait(api, again["fitted_train_set_id"])["status"] == "completed"


def test_without_asynchronous_fits_the_route_is_not_there(api, control, uploaded):
    control.configure(async_fit=False)
    answer = api.post("/tabpfn/submit_fit_job", {"train_set_upload_id": uploaded, **NESTED})
    assert answer.status_code == 404
    assert control.fits(account=api.account) == []


def test_the_status_of_an_unknown_or_foreign_fit_is_404(api, other_api, cancer):
    frame, target = cancer
    theirs = other_api.fit(frame.head(40), target.head(40), "classification")
    for fitted in (str(uuid.uuid4()), theirs):
        assert api.post("/tabpfn/get_fit_status", {"fitted_train_set_id": fitted}).status_code == 404


def test_a_long_fit_streams_whitespace_before_its_json(api, control, uploaded):
    control.configure(fit_seconds=0.6, keepalive_after_secs=0.1, keepalive_every_secs=0.1)
    body = {"train_set_upload_id": uploaded, **NESTED}
    with api.http.stream("POST", "/tabpfn/fit", json=body) as answer:
        chunks = list(answer.iter_raw())
    assert answer.headers["transfer-encoding"] == "chunked"
    text = b"".join(chunks)
    assert text.startswith(b" ")
    assert json.loads(text)["status"] == "completed"


def test_a_long_fit_that_fails_says_so_inside_the_200(api, control, uploaded):
    control.configure(fit_seconds=0.3, keepalive_after_secs=0.05, keepalive_every_secs=0.05)
    control.inject({"kind": "fail_fit", "route": "/tabpfn/fit", "error": "worker lost"})
    answer = api.post("/tabpfn/fit", {"train_set_upload_id": uploaded, **NESTED})
    assert answer.status_code == 200
    assert answer.json()["_streamed_error"] is True
    assert answer.json()["message"] == "worker lost"


def test_a_short_fit_that_fails_is_an_http_error(api, control, uploaded):
    control.inject({"kind": "fail_fit", "error": "worker lost", "error_code": "USER_ERROR"})
    answer = api.post("/tabpfn/fit", {"train_set_upload_id": uploaded, **NESTED})
    assert (answer.status_code, answer.json()["error_code"]) == (500, "USER_ERROR")


def test_other_requests_are_answered_while_fits_run(api, control, uploaded):
    control.configure(fit_seconds=60.0)
    for _ in range(10):
        api.post("/tabpfn/submit_fit_job", {"train_set_upload_id": uploaded, **NESTED}).raise_for_status()
    control.configure(fit_seconds=0.0)
    answer = api.post("/tabpfn/fit", {"train_set_upload_id": uploaded, **NESTED})
    assert answer.json()["status"] == "completed"
    assert [fit["status"] for fit in control.fits(account=api.account)].count("completed") == 1


def frame_of(rows):
    return pd.DataFrame({"a": range(rows), "b": range(rows)})


@pytest.mark.parametrize(
    ("x", "y", "task", "words"),
    [
        (frame_of(4), pd.DataFrame({"y": [0, 1, 0]}), "classification", "4 rows and y has 3"),
        (frame_of(4), pd.DataFrame({"y": [0, 1, 0, None]}), "classification", "1 missing"),
        (frame_of(4), pd.DataFrame({"y": list("abab")}), "regression", "finite numbers"),
        (frame_of(4), pd.DataFrame({"y": [1.0, 2.0, 3.0, float("inf")]}), "regression", "finite numbers"),
        (frame_of(4), pd.DataFrame({"y": [0, 1, 0, 1], "z": [0, 1, 0, 1]}), "classification", "one column"),
        (frame_of(0), pd.DataFrame({"y": []}), "classification", "empty"),
        (b"not parquet", pd.DataFrame({"y": [0, 1]}), "classification", "not readable as parquet"),
    ],
)
def test_data_that_cannot_be_fitted(api, helpers, x, y, task, words):
    content = x if isinstance(x, bytes) else helpers.parquet(x)
    upload = api.upload_train(content, helpers.parquet(y))
    answer = api.post("/tabpfn/fit", helpers.nested(upload, task))
    assert (answer.status_code, answer.json()["error_code"]) == (422, "REQUEST_VALIDATION_ERROR")
    assert words in answer.json()["message"]
    job = api.post("/tabpfn/submit_fit_job", helpers.nested(upload, task)).json()
    ended = wait(api, job["fitted_train_set_id"])
    assert ended["status"] == "failed"
    assert words in ended["error"]


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"train_set_max_rows": 59}, ["rows 60", "59"]),
        ({"max_cols": 29}, ["columns 30", "29"]),
        ({"train_set_max_upload_cells": 1799}, ["cells 1800"]),
        ({"max_classes": 1}, ["classes 2"]),
        ({"train_set_max_rows": 59, "max_cols": 29}, ["rows 60", "columns 30"]),
    ],
)
def test_more_than_the_limits_is_refused(api, control, uploaded, limits, words):
    control.configure(limits=limits)
    answer = api.post("/tabpfn/fit", {"train_set_upload_id": uploaded, **NESTED})
    assert answer.status_code == 422
    assert [word for word in words if word not in answer.json()["message"]] == []


def test_csv_is_taken_as_well_as_parquet(api, cancer, helpers):
    frame, target = cancer
    upload = api.upload_train(
        frame.head(80).to_csv(index=False).encode(), target.head(80).to_csv(index=False).encode(), "csv"
    )
    answer = api.post("/tabpfn/fit", {"train_set_upload_id": upload, **FLAT})
    fitted = answer.raise_for_status().json()["fitted_train_set_id"]
    test_upload = api.upload_test(fitted, frame.tail(7).to_csv(index=False).encode(), "csv")
    answer = api.post("/tabpfn/predict", helpers.predict_body(fitted, test_upload, "classification"))
    assert len(answer.json()["prediction"]) == 7
