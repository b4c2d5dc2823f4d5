"""The deprecated multipart routes /v1/fit and /v1/predict (contract section 1.11), as their stored pages call them."""

import json
import time
from http.client import HTTPConnection

import httpx
import numpy as np
import pytest

from tabpfn_emulator._books.rates import RATES
from tabpfn_emulator.testing import running_emulator

SUPPORT = "https://discord.com/invite/VJRuU3bSxt"
UNKNOWN = "123e4567-e89b-12d3-a456-426614174000"
PARAMS = {
    "average_before_softmax",
    "categorical_features_indices",
    "device",
    "differentiable_input",
    "fit_mode",
    "ignore_pretraining_limits",
    "inference_config",
    "inference_precision",
    "memory_saving_mode",
    "model_path",
    "n_estimators",
    "n_jobs",
    "n_preprocessing_jobs",
    "random_state",
    "softmax_temperature",
}


def csv(frame):
    return frame.to_csv(index=False).encode()


def send(api, path, data, **files):
    parts = {"data": (None, data if isinstance(data, str) else json.dumps(data), "application/json")}
    parts |= {name: (f"{name}.csv", content) for name, content in files.items()}
    return api.http.post(path, files=parts)


@pytest.fixture
def churn(cancer):
    """A table with its target, and the two apart; labels are words."""
    frame, target = cancer
    labels = target.map({0: "stays", 1: "goes"}).rename("churn")
    return frame.join(labels), frame, labels


@pytest.fixture
def model(api, churn):
    table, _, _ = churn
    answer = send(
        api,
        "/v1/fit",
        {"task": "classification", "schema": {"target": "churn", "description": "Customer churn dataset"}},
        dataset_file=csv(table.head(200)),
    )
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == {"model_id", "task"}
    return answer.json()["model_id"]


def predict(api, model, frame, **more):
    data = {"model_id": model, "task": "classification", **more}
    return send(api, "/v1/predict", data, file=csv(frame))


def test_one_file_with_the_target_makes_a_model_that_has_learnt(api, model, churn):
    _, frame, labels = churn
    answer = predict(api, model, frame.tail(100), params={"output_type": "preds"}).json()
    assert np.mean(np.array(answer["prediction"]) == labels.tail(100).to_numpy()) > 0.85
    assert answer["task"] == "classification"


def test_features_and_labels_make_the_same_model_as_one_file(api, model, churn):
    _, frame, labels = churn
    data = {"task": "classification"}
    halves = send(
        api, "/v1/fit", data, features_file=csv(frame.head(200)), labels_file=csv(labels.head(200).to_frame())
    ).json()["model_id"]
    assert halves != model
    one, other = (predict(api, each, frame.tail(10)).json()["prediction"] for each in (model, halves))
    assert one == other


def test_the_answer_of_a_prediction_is_the_documented_one(api, model, churn):
    answer = predict(api, model, churn[1].tail(3), config={"n_estimators": 10, "softmax_temperature": 0.75}).json()
    assert set(answer) == {"duration_seconds", "prediction", "task", "params", "used_credits", "remaining_quota"}
    assert set(answer["params"]) == PARAMS
    assert (answer["params"]["n_estimators"], answer["params"]["softmax_temperature"]) == (10, 0.75)
    assert isinstance(answer["duration_seconds"], int)
    rows = answer["prediction"]
    assert len(rows) == 3
    assert all(len(row) == 2 and sum(row) == pytest.approx(1) for row in rows)


def test_columns_in_another_order_are_found_by_their_names(api, model, churn):
    rows = churn[1].tail(5)
    expected = predict(api, model, rows).json()["prediction"]
    assert predict(api, model, rows[rows.columns[::-1]]).json()["prediction"] == expected


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows.drop(columns="mean area"), "it lacks ['mean area']."),
        (lambda rows: rows.assign(churn="goes"), "it has besides ['churn']."),
        (
            lambda rows: rows.rename(columns={"mean area": "area", "mean texture": "texture"}),
            "it lacks ['mean area', 'mean texture'] and it has besides ['area', 'texture'].",
        ),
        (lambda rows: rows.rename(columns={"mean area": "mean texture"}), "lacks ['mean area'] and it has besides ['m"),
    ],
)
@pytest.mark.parametrize("mode", ["model", "constant"])
def test_other_columns_than_those_of_the_fit_are_named_and_not_charged(api, model, control, churn, change, said, mode):
    control.configure(predict=mode)
    answer = predict(api, model, change(churn[1].tail(5)))
    assert (answer.status_code, answer.json()["code"]) == (422, "validation.failed")
    (problem,) = answer.json()["errors"]
    assert problem["field"] == "file"
    assert said in problem["message"]
    assert api.http.post("/get_api_usage/").json()["current_usage"] == 0


def test_columns_of_one_name_are_known_by_their_place(api):
    rows = "".join(f"{i % 5},{i % 3},{i % 2},{i % 5}\n" for i in range(40))
    parts = {"dataset_file": f"a,a,b,target\n{rows}".encode()}
    fitted = send(api, "/v1/fit", {"task": "regression"}, **parts).raise_for_status().json()["model_id"]
    data = {"model_id": fitted, "task": "regression"}
    assert send(api, "/v1/predict", data, file=b"a,a,b\n1,2,0\n").is_success
    answer = send(api, "/v1/predict", data, file=b"b,a,a\n0,1,2\n")
    assert answer.status_code == 422
    assert "Several columns are named ['a']" in answer.json()["detail"]


@pytest.mark.parametrize(("older", "newer"), [("probabilities", "probas"), ("predictions", "preds")])
def test_both_spellings_of_an_output_type_mean_the_same(api, model, churn, older, newer):
    one, other = (
        predict(api, model, churn[1].tail(4), params={"output_type": spelling}).json()["prediction"]
        for spelling in (older, newer)
    )
    assert one == other


def test_a_regression_answers_numbers_or_the_full_distribution(api, diabetes):
    frame, target = diabetes
    table = frame.join(target.rename("target"))
    fitted = send(api, "/v1/fit", {"task": "regression"}, dataset_file=csv(table.head(150))).json()["model_id"]
    data = {"model_id": fitted, "task": "regression"}
    mean = send(api, "/v1/predict", data, file=csv(frame.tail(5))).json()["prediction"]
    full = send(api, "/v1/predict", {**data, "params": {"output_type": "full"}}, file=csv(frame.tail(5))).json()
    assert len(mean) == 5
    assert full["prediction"]["mean"] == mean
    assert {"quantiles", "logits", "borders"} <= set(full["prediction"])


def test_predictions_are_charged_and_fits_are_not(api, model, control, churn):
    before = api.http.post("/get_api_usage/").json()
    assert before["current_usage"] == 0
    answer = predict(api, model, churn[1].tail(3)).json()
    after = api.http.post("/get_api_usage/").json()
    assert answer["used_credits"] == after["current_usage"] > 0
    assert answer["remaining_quota"] == after["usage_limit"] - after["current_usage"]
    (row,) = control.journal(route="/v1/predict", account=api.account)
    assert row["charge"] == answer["used_credits"]
    assert row["ids"]["fitted_train_set_id"] == model


def test_a_used_up_quota_answers_429_in_envelope_a(api, model, control, churn):
    control.configure(daily_tokens=5)
    answer = predict(api, model, churn[1].tail(3))
    assert answer.status_code == 429
    assert answer.json()["code"] == "rate.limit.exceeded"
    assert answer.json()["retryable"] is False


def test_a_legacy_model_is_a_fit_like_any_other(api, model, churn):
    _, frame, _ = churn
    assert api.predict(model, frame.tail(3), "classification").status_code == 200
    assert len(api.http.get("/get_data_summary/").json()["datasets"]) == 2
    api.http.delete("/delete_all_datasets/").raise_for_status()
    gone = predict(api, model, frame.tail(3))
    assert (gone.status_code, gone.json()["code"]) == (404, "error.not_found")


def test_without_a_token_the_answer_is_the_documented_401(bare, emulator):
    answer = bare.post(f"{emulator}/v1/fit")
    assert answer.status_code == 401
    assert answer.json() == {
        "code": "auth.unauthorized",
        "detail": "Not authenticated",
        "retryable": False,
        "support": SUPPORT,
    }


def test_another_accounts_model_does_not_exist(other_api, model, churn):
    answer = predict(other_api, model, churn[1].tail(3))
    assert (answer.status_code, answer.json()["detail"]) == (404, f"Fitted model with ID {model} not found")


def test_a_prediction_without_its_file_answers_the_documented_400(api, model):
    answer = send(api, "/v1/predict", {"model_id": model, "task": "classification"})
    assert answer.status_code == 400
    assert answer.json()["code"] == "error.bad_request"
    assert answer.json()["detail"] == "You must upload a dataset `file` for prediction."


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"task": "clustering"}, "task"),
        ({}, "task"),
        ({"task": "classification", "config": {"n_estimators": 11}}, "config.n_estimators"),
        ({"task": "classification", "config": {"n_estimators": 0}}, "config.n_estimators"),
        ({"task": "classification", "systems": ["thinking"]}, "systems.0"),
        ({"task": "classification", "colour": "red"}, "colour"),
        ({"task": "classification", "config": {"model_path": "auto"}}, "config.model_path"),
        ({"task": "classification", "schema": {"target": "nothing"}}, "schema.target"),
        ("not json", "body"),
    ],
)
def test_a_fit_that_is_refused_names_the_field_in_envelope_a_prime(api, churn, data, field):
    answer = send(api, "/v1/fit", data, dataset_file=csv(churn[0].head(20)))
    assert answer.status_code == 422
    body = answer.json()
    assert set(body) == {"code", "detail", "errors", "retryable", "support"}
    assert body["code"] == "validation.failed"
    assert [problem["field"] for problem in body["errors"]] == [field]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"model_id": "seven"}, "model_id"),
        ({"task": "regression"}, "task"),
        ({"params": {"output_type": "mean"}}, "params"),
        ({"params": {"output_type": "other"}}, "params.output_type"),
        ({"config": {"n_estimators": 12}}, "config.n_estimators"),
    ],
)
def test_a_prediction_that_is_refused_names_the_field(api, model, churn, change, field):
    answer = predict(api, model, churn[1].tail(2), **change)
    assert answer.status_code == 422
    assert [problem["field"] for problem in answer.json()["errors"]] == [field]


@pytest.mark.parametrize(
    "names",
    [(), ("features_file",), ("labels_file",), ("dataset_file", "labels_file"), ("dataset_file", "features_file")],
)
def test_a_fit_needs_one_file_or_two_halves(api, churn, names):
    data = {"task": "classification", "schema": {"target": "churn"}}
    answer = send(api, "/v1/fit", data, **dict.fromkeys(names, csv(churn[0].head(20))))
    assert (answer.status_code, answer.json()["code"]) == (400, "error.bad_request")


@pytest.mark.parametrize("content", [b"a,target\n1,2,3\n", b"a,target\n\xff\xfe,1\n", b'a,target\n"1,2\n'])
def test_a_malformed_dataset_answers_400_and_leaves_nothing(api, content):
    answer = send(api, "/v1/fit", {"task": "regression"}, dataset_file=content)
    assert (answer.status_code, answer.json()["code"]) == (400, "error.bad_request")
    assert api.http.get("/get_data_summary/").json()["datasets"] == []


def test_data_that_cannot_be_fitted_answers_422(api):
    answer = send(api, "/v1/fit", {"task": "regression"}, dataset_file=b"a,target\n1,x\n2,y\n")
    assert (answer.status_code, answer.json()["code"]) == (422, "validation.failed")


def test_text_with_commas_quotes_and_line_ends_survives_the_cut(api, emulator_folder):
    content = b'a,target,b\n"x, ""y""\nz",1,\n,0,"2"\n' * 1 + b"p,1,q\n"
    send(api, "/v1/fit", {"task": "classification"}, dataset_file=content).raise_for_status()
    (dataset,) = api.http.get("/get_data_summary/").json()["datasets"]
    folder = emulator_folder / "uploads" / dataset["dataset_uid"]
    written = {name: next((folder / name).glob("*.part")).read_text() for name in ("x_train", "y_train")}
    assert written["x_train"].replace("\r\n", "\n") == 'a,b\n"x, ""y""\nz",\n,2\np,q\n'
    assert written["y_train"].split() == ["target", "1", "0", "1"]


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b"{}", "application/json"),
        (b"", None),
        (b"--x--", "multipart/form-data"),
        (b"nonsense", "multipart/form-data; boundary=x"),
    ],
)
def test_a_body_that_is_no_form_is_refused(api, content, content_type):
    headers = {} if content_type is None else {"Content-Type": content_type}
    for path in ("/v1/fit", "/v1/predict"):
        answer = api.http.post(path, content=content, headers=headers)
        assert answer.status_code in {400, 422}
        assert set(answer.json()) >= {"code", "detail", "retryable", "support"}


def test_a_request_larger_than_an_upload_may_be_is_refused(api, control):
    control.configure(dataset_max_size_bytes=1000)
    answer = send(api, "/v1/fit", {"task": "regression"}, dataset_file=b"a,target\n" + b"1,2\n" * 500_000)
    assert (answer.status_code, answer.json()["code"]) == (413, "error.too_large")


def test_unknown_parts_are_refused(api, churn):
    answer = send(api, "/v1/fit", {"task": "classification"}, other_file=csv(churn[0].head(5)))
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "other_file")


def test_wrong_methods_and_paths_below_v1_answer_envelope_a(api):
    wrong, unknown = api.http.get("/v1/fit"), api.http.get("/v1/nothing")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "error.method_not_allowed")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "error.not_found")


def kept(api):
    return api.http.get("/get_data_summary/").raise_for_status().json()["datasets"]


SMALL = b"a,target\n1,2\n2,3\n"


def test_a_fit_that_is_refused_leaves_no_upload(api, control):
    control.configure(rate_limits=True, predict="constant")
    accepted = 0
    # More than the 60 of a window, because a minute may begin meanwhile.
    while (answer := send(api, "/v1/fit", {"task": "regression"}, dataset_file=SMALL)).status_code == 200:
        accepted += 1
        assert accepted <= 120
    assert answer.status_code == 429
    assert len(kept(api)) == accepted


def test_a_fit_that_fails_leaves_no_upload(api, control):
    control.inject(kind="fail_fit", route="/v1/fit")
    assert send(api, "/v1/fit", {"task": "regression"}, dataset_file=SMALL).status_code == 500
    assert send(api, "/v1/fit", {"task": "regression"}, dataset_file=b"a,target\n1,x\n2,y\n").status_code == 422
    assert kept(api) == []


def test_a_fit_is_one_creation(api, control, model):
    assert [row["kind"] for row in control.creations(account=api.account)] == ["fit_created"]


def test_a_request_ends_with_its_caller_and_the_fit_goes_on(api, control):
    control.inject(kind="endless_fit", route="/v1/fit")
    parts = {"data": (None, '{"task": "regression"}'), "dataset_file": ("d.csv", SMALL)}
    request = api.http.build_request("POST", "/v1/fit", files=parts)
    connection = HTTPConnection(httpx.URL(control.url).netloc.decode(), timeout=30)
    connection.request("POST", "/v1/fit", request.read(), dict(request.headers))
    until(lambda: control.fits(account=api.account))
    connection.close()
    until(lambda: [row for row in control.journal(account=api.account) if row["status"] == 499])
    assert [fit["status"] for fit in control.fits(account=api.account)] == ["pending"]
    assert len(kept(api)) == 1


@pytest.mark.parametrize(("path", "group"), [("/v1/fit", "fit"), ("/v1/predict", "predict")])
def test_one_call_too_many_is_refused_before_its_body_is_read(api, control, path, group):
    control.configure(rate_limits=True)
    # More than twice as many as a window takes: at most one window can end in between.
    answers = {api.http.post(path, json={}).status_code for _ in range(2 * RATES[group][60] + 1)}
    assert answers == {422, 429}
    connection = HTTPConnection(httpx.URL(control.url).netloc.decode(), timeout=30)
    headers = {"Authorization": f"Bearer {api.token}", "Content-Type": "multipart/form-data; boundary=x"}
    # Only the headers: whoever waited for the body would never answer.
    connection.request("POST", path, headers={**headers, "Content-Length": "1000"})
    answer = connection.getresponse()
    assert (answer.status, json.load(answer)["code"]) == (429, "rate.limit.exceeded")
    connection.close()


def test_a_model_that_cannot_be_learnt_again_is_no_internal_error(tmp_path, helpers, churn):
    table, frame, _ = churn
    with running_emulator(tmp_path) as url:
        api = helpers.api(url, token="the-same")
        parts = {"dataset_file": csv(table.head(40))}
        answer = send(api, "/v1/fit", {"task": "classification", "schema": {"target": "churn"}}, **parts)
        fitted = answer.raise_for_status().json()["model_id"]
        api.close()
    (part,) = tmp_path.glob("uploads/*/x_train/00000.part")
    part.write_bytes(b"a\n1\n")
    with running_emulator(tmp_path) as url:
        api = helpers.api(url, token="the-same")
        data = {"task": "classification", "model_id": fitted}
        refused = send(api, "/v1/predict", data, file=csv(frame.tail(2)))
        assert (refused.status_code, refused.json()["code"]) == (422, "validation.failed")
        api.close()


def until(condition):
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it never came to that")
