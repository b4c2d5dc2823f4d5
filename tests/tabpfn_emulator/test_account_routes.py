"""Who may ask, and what the service says about itself (contract sections 1.0, 1.6, 1.10, 6)."""

import asyncio
import uuid

import httpx
import pytest

from tabpfn_emulator._app import build_app
from tabpfn_emulator._emulator import open_emulator
from tabpfn_emulator._settings import Settings
from tabpfn_emulator.testing import account_of, running_emulator

VERSIONS = {"v2", "v2.5", "v2.6", "v3", "v3.5", "v3.5-fast"}
LIMITS = {
    "train_set_max_rows",
    "train_set_max_cells",
    "train_set_max_upload_cells",
    "test_set_max_rows",
    "max_classes",
    "max_cols",
    "test_set_max_rows_w_full_regression_output",
    "predict_row_pairs_budget",
    "test_set_max_cells",
}
PROTECTED = [
    ("GET", "/protected/"),
    ("GET", "/retrieve_greeting_messages/"),
    ("POST", "/get_api_usage/"),
    ("GET", "/tabpfn/get_settings"),
    ("GET", "/tabpfn/get_model_limits"),
    ("POST", "/tabpfn/prepare_train_set_upload"),
    ("POST", "/tabpfn/prepare_test_set_upload"),
    ("POST", "/tabpfn/fit"),
    ("POST", "/tabpfn/submit_fit_job"),
    ("POST", "/tabpfn/get_fit_status"),
    ("POST", "/tabpfn/predict"),
    ("POST", "/tabpfn/estimate_cost"),
    ("GET", "/get_data_summary/"),
    ("DELETE", "/delete_dataset/"),
    ("DELETE", "/delete_all_datasets/"),
    ("GET", "/download_all_data/"),
    ("DELETE", "/delete_user_account/"),
    ("POST", "/auth/send_verification_email/"),
]


@pytest.mark.parametrize(("method", "path"), PROTECTED)
@pytest.mark.parametrize("authorization", [None, "Bearer", "Basic abc", "token"])
def test_without_a_usable_token_every_route_answers_401_in_envelope_b(bare, emulator, method, path, authorization):
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = bare.request(method, emulator + path, headers=headers)
    assert answer.status_code == 401
    assert set(answer.json()) == {"message", "error_code", "trace_id"}
    assert answer.json()["error_code"] == "UNAUTHORIZED"


def test_the_root_needs_no_token(bare, emulator):
    assert bare.get(f"{emulator}/").status_code == 200


def test_any_token_opens_an_account_of_its_own(api, other_api):
    assert api.http.get("/protected/").status_code == 200
    assert other_api.http.get("/protected/").status_code == 200
    assert api.account != other_api.account


def test_with_configured_tokens_others_are_refused(bare):
    with running_emulator(extra_args=("--token", "one", "--token", "two")) as url:

        def status(token):
            return bare.get(f"{url}/protected/", headers={"Authorization": f"Bearer {token}"}).status_code

        assert [status(token) for token in ("one", "two", "three")] == [200, 200, 401]


def test_settings_hold_all_nine_limits_of_all_versions(api):
    settings = api.http.get("/tabpfn/get_settings").json()
    assert set(settings["model_limits"]) == VERSIONS
    for limit in [*settings["model_limits"].values(), settings["max_model_limit"]]:
        assert set(limit) == LIMITS
        assert all(isinstance(value, int) for value in limit.values())
    assert settings["default_model_version"] in settings["model_limits"]
    assert set(settings["async_settings"]) == {"use_above_trainset_size_bytes", "poll_timeout_secs"}
    v3 = settings["model_limits"]["v3"]
    assert (v3["train_set_max_rows"], v3["max_classes"], v3["max_cols"]) == (1_000_000, 160, 2_000)
    assert settings["max_model_limit"]["train_set_max_rows"] == 1_000_000


def test_the_older_limits_route_says_the_same_without_async_settings(api):
    settings = api.http.get("/tabpfn/get_settings").json()
    del settings["async_settings"]
    assert api.http.get("/tabpfn/get_model_limits").json() == settings


def test_settings_can_be_switched_off_so_that_clients_fall_back(api, control):
    control.configure(get_settings=False)
    answer = api.http.get("/tabpfn/get_settings")
    assert (answer.status_code, answer.json()["error_code"]) == (404, "NOT_FOUND")
    assert api.http.get("/tabpfn/get_model_limits").status_code == 200


def test_lowered_limits_hold_for_all_versions(api, control):
    control.configure(limits={"max_cols": 7})
    limits = api.http.get("/tabpfn/get_settings").json()["model_limits"].values()
    assert {limit["max_cols"] for limit in limits} == {7}


def test_greetings_are_empty(api):
    assert api.http.get("/retrieve_greeting_messages/").json() == {"messages": []}


def test_usage_grows_with_predictions(api, cancer):
    frame, target = cancer
    before = api.http.post("/get_api_usage/").json()
    fitted = api.fit(frame.head(50), target.head(50), "classification")
    api.predict(fitted, frame.tail(3), "classification").raise_for_status()
    after = api.http.post("/get_api_usage/").json()
    assert before["current_usage"] == 0
    assert after["current_usage"] == after["daily_tokens_used"] >= 10_000
    assert {"usage_limit", "reset_time", "daily_token_limit", "monthly_token_limit"} <= set(after)


def test_unknown_routes_and_methods_answer_envelope_b(api):
    assert api.http.get("/tabpfn/nothing").json()["error_code"] == "NOT_FOUND"
    wrong = api.http.get("/tabpfn/fit")
    assert (wrong.status_code, wrong.json()["error_code"]) == (405, "METHOD_NOT_ALLOWED")


def test_the_trace_of_the_caller_is_used(api):
    trace = uuid.uuid4()
    answer = api.http.get("/tabpfn/nothing", headers={"sentry-trace": trace.hex})
    assert answer.json()["trace_id"] == str(trace)


def test_deleting_a_train_set_takes_its_models_and_test_sets(api, other_api, control, cancer, helpers):
    frame, target = cancer
    fitted = api.fit(frame.head(40), target.head(40), "classification")
    test_upload = api.upload_test(fitted, helpers.parquet(frame.tail(5)))
    train_upload = control.fits(account=api.account)[0]["train_set_upload_id"]
    summary = api.http.get("/get_data_summary/").json()
    assert {row["dataset_uid"] for row in summary["datasets"]} == {train_upload, test_upload}
    assert summary["fitted_train_set_ids"] == [fitted]

    foreign = other_api.http.delete("/delete_dataset/", params={"dataset_uid": train_upload})
    assert foreign.status_code == 404
    gone = api.http.delete("/delete_dataset/", params={"dataset_uid": train_upload}).json()
    assert set(gone["deleted_dataset_uids"]) == {train_upload, test_upload}
    assert api.post("/tabpfn/get_fit_status", {"fitted_train_set_id": fitted}).status_code == 404
    again = api.http.delete("/delete_dataset/", params={"dataset_uid": train_upload})
    assert (again.status_code, again.json()["error_code"]) == (404, "NOT_FOUND")


def test_deleting_a_test_set_leaves_the_model(api, cancer, helpers):
    frame, target = cancer
    fitted = api.fit(frame.head(40), target.head(40), "classification")
    test_upload = api.upload_test(fitted, helpers.parquet(frame.tail(5)))
    gone = api.http.delete("/delete_dataset/", params={"dataset_uid": test_upload}).json()
    assert gone == {"deleted_dataset_uids": [test_upload]}
    assert api.predict(fitted, frame.tail(5), "classification").status_code == 200


def test_deleting_everything_is_limited_to_the_account(api, other_api, cancer):
    frame, target = cancer
    mine = api.fit(frame.head(40), target.head(40), "classification")
    theirs = other_api.fit(frame.head(40), target.head(40), "classification")
    assert len(api.http.delete("/delete_all_datasets/").json()["deleted_dataset_uids"]) == 1
    assert api.post("/tabpfn/get_fit_status", {"fitted_train_set_id": mine}).status_code == 404
    assert other_api.post("/tabpfn/get_fit_status", {"fitted_train_set_id": theirs}).status_code == 200


def test_a_prediction_behind_a_url_goes_with_its_account_and_with_no_other(api, other_api, control, cancer, bare):
    frame, target = cancer
    uris = []
    for each in (api, other_api):
        fitted = each.fit(frame.head(40), target.head(40), "classification")
        control.inject({"kind": "prediction_uri"})
        uris.append(each.predict(fitted, frame.tail(2), "classification").json()["prediction_uri"])
    assert [bare.get(uri).status_code for uri in uris] == [200, 200]
    api.http.delete("/delete_user_account/").raise_for_status()
    gone, kept = (bare.get(uri) for uri in uris)
    assert (gone.status_code, kept.status_code) == (404, 200)
    assert "NoSuchKey" in gone.text


def test_delete_without_an_id_is_refused(api):
    assert api.http.delete("/delete_dataset/").status_code == 422


@pytest.mark.parametrize(
    ("body", "cost"),
    [
        ({"train_rows": 10, "raw_columns": 2, "model_version": "v2.6"}, 5_000),
        ({"train_rows": 1000, "raw_columns": 10, "test_rows": 500, "model_version": "v2.5"}, 120_000),
        ({"train_rows": 1000, "raw_columns": 10, "model_version": "v2", "n_estimators": 4}, 40_000),
        ({"train_rows": 10, "raw_columns": 2}, 10_000),
    ],
)
def test_cost_estimates_follow_the_published_formula_and_minimum(api, body, cost):
    answer = api.post("/tabpfn/estimate_cost", body).json()
    assert answer["estimated_cost"] == cost
    assert answer["pricing_version"] == "quota_v3"
    assert {name: answer["inputs"][name] for name in body} == body


def test_a_cost_estimate_resolves_the_defaults(api):
    body = {"train_rows": 600, "raw_columns": 3, "operation": "thinking_fit"}
    inputs = api.post("/tabpfn/estimate_cost", body).json()["inputs"]
    assert (inputs["model_version"], inputs["n_estimators"], inputs["thinking_effort"]) == ("v3", 8, "medium")


def test_accounts_are_named_by_a_hash():
    assert account_of("secret") == account_of("secret") != account_of("Secret")
    assert "secret" not in account_of("secret")


def test_an_account_whose_deletion_was_cut_can_be_deleted_again(tmp_path, monkeypatch):
    emulator = open_emulator(tmp_path, (), Settings())
    delete = emulator.store.delete_many

    def cut(*arguments):
        raise OSError("killed")

    async def statuses():
        transport = httpx.ASGITransport(build_app(emulator, control=False), raise_app_exceptions=False)
        headers = {"Authorization": "Bearer secret"}
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as client:
            for step in (cut, delete):
                monkeypatch.setattr(emulator.store, "delete_many", step)
                yield (await client.delete("/delete_user_account/")).status_code
                yield (await client.get("/protected/")).status_code

    async def collected():
        return [status async for status in statuses()]

    try:
        assert asyncio.run(collected()) == [500, 200, 200, 401]
    finally:
        emulator.database.close()
        emulator.workers.shutdown()
