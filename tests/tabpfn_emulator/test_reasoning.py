"""The reasoning API, generation A (contract section 11), from the upload of a file to the artifact of a prediction."""

import asyncio
import time
import uuid
from contextlib import closing

import httpx
import numpy as np
import pandas as pd
import pytest

from tabpfn_emulator._app import build_app
from tabpfn_emulator._emulator import open_emulator
from tabpfn_emulator._reasoning_jobs import begin_job
from tabpfn_emulator._settings import Settings
from tabpfn_emulator.testing import EmulatorControl, running_emulator

REGRESSION = {"task_kind": "regression", "label_column": "outcome"}


def table(rows=200):
    generator = np.random.default_rng(7)
    x, group = generator.uniform(-1, 1, rows), generator.choice(["red", "blue"], rows)
    outcome = np.where(x > 0, 10.0, -10.0) + np.where(group == "red", 1.0, 0.0)
    return pd.DataFrame({"x": x, "group": group, "noise": generator.normal(size=rows), "outcome": outcome})


def upload(api, frame, file_format="csv", helpers=None):
    opened = api.post("/v1/uploads", {"file_format": file_format}).raise_for_status().json()
    content = helpers.parquet(frame) if file_format == "parquet" else frame.to_csv(index=False).encode()
    headers = {"Content-Type": opened["content_type"]}
    api.storage.put(opened["upload_url"], content=content, headers=headers).raise_for_status()
    return opened["connection_config"]


def dataset(frame, connection, **more):
    return {"columns": [{"name": name} for name in frame.columns], "connection_config": connection, **more}


def register(api, frame, connection, **more):
    return api.post("/v1/datasets", dataset(frame, connection, **more)).raise_for_status().json()["id"]


def wait(api, job_id, url=""):
    for _ in range(600):
        status = api.http.get(f"{url}/v1/status/{job_id}").raise_for_status().json()
        if status["status"] in {"completed", "failed"}:
            return status
        time.sleep(0.05)
    raise AssertionError(status)


def result(api, job_id):
    wait(api, job_id)
    return api.http.get(f"/v1/results/{job_id}").raise_for_status().json()


def fit(api, dataset_id, task=None, **more):
    body = {"dataset_id": dataset_id, "task": task or REGRESSION, **more}
    return api.post("/v1/reasoning/fit", body).raise_for_status().json()["job_id"]


def predictions(api, model, frame, connection, **more):
    body = {"dataset": dataset(frame, connection, **more)}
    job = api.post(f"/v1/models/{model}/predict", body).raise_for_status().json()["job_id"]
    data = result(api, job)["result_data"]
    return api.storage.get(data["presigned_url"]).raise_for_status().json()


@pytest.fixture
def frame():
    return table()


@pytest.fixture
def uploaded_csv(api, frame):
    return upload(api, frame)


@pytest.fixture
def dataset_id(api, frame, uploaded_csv):
    return register(api, frame, uploaded_csv)


@pytest.fixture
def model(api, dataset_id):
    return result(api, fit(api, dataset_id))["result_data"]["model_id"]


def test_the_answer_of_a_fit_is_the_one_of_the_stored_page(api, dataset_id):
    body = {
        "dataset_id": dataset_id,
        "filter": {"col": "x", "kind": "cmp", "op": "ge", "value": -0.9},
        "task": {"label_column": "outcome", "task_kind": "regression"},
        "model_types": ["tabm"],
        "n_hyperopt_steps": 200,
        "random_state": 42,
        "teacher_model_id": None,
        "teacher_predict_url": None,
        "teacher_predict_headers": {},
        "teacher_get_grads_url": None,
    }
    answer = api.post("/v1/reasoning/fit", body)
    assert answer.status_code == 200
    assert set(answer.json()) == {"job_id", "status", "message", "dataset_id"}
    assert answer.json()["dataset_id"] == dataset_id
    assert answer.json()["status"] in {"pending", "running", "completed", "failed"}
    assert wait(api, answer.json()["job_id"])["status"] == "completed"


def test_a_fitted_model_has_learnt_and_its_artifact_is_behind_a_url(api, model, frame, uploaded_csv):
    artifact = predictions(api, model, frame, uploaded_csv)
    assert set(artifact) == {"model_id", "predictions"}
    assert artifact["model_id"] == model
    found = np.array(artifact["predictions"])
    assert found.shape == (len(frame), 1)
    assert np.abs(found[:, 0] - frame["outcome"]).mean() < 1.5


@pytest.mark.parametrize("kind", ["binclass", "multiclass"])
def test_a_classification_answers_probabilities(api, frame, kind, helpers):
    frame["outcome"] = np.where(frame["x"] > 0, "high", "low")
    connection = upload(api, frame, "parquet", helpers)
    task = {"task_kind": kind, "label_column": "outcome"}
    fitted = result(api, fit(api, register(api, frame, connection), task))["result_data"]["model_id"]
    shares = np.array(predictions(api, fitted, frame, connection)["predictions"])
    assert shares.shape == (len(frame), 2)
    assert np.allclose(shares.sum(axis=1), 1)
    assert np.mean((shares[:, 0] > 0.5) == (frame["outcome"] == "high")) > 0.95


def test_filters_of_data_set_and_fit_both_hold(api, frame, uploaded_csv):
    only_red = {"kind": "cmp", "col": "group", "op": "eq", "value": "red"}
    positive = {"kind": "not", "arg": {"kind": "cmp", "col": "x", "op": "le", "value": 0}}
    red = register(api, frame, uploaded_csv, filter=only_red)
    fitted = result(api, fit(api, red, filter=positive))["result_data"]["model_id"]
    rows = {"kind": "bool", "op": "or", "args": [only_red, positive]}
    found = np.array(predictions(api, fitted, frame, uploaded_csv, filter=rows)["predictions"])
    assert len(found) == ((frame["group"] == "red") | (frame["x"] > 0)).sum()
    assert np.allclose(found, 11.0)


def test_only_the_columns_of_the_data_set_are_learnt_from(api, frame, uploaded_csv):
    narrow = frame[["noise", "outcome"]]
    fitted = result(api, fit(api, register(api, narrow, uploaded_csv)))["result_data"]["model_id"]
    found = np.array(predictions(api, fitted, narrow, uploaded_csv)["predictions"])[:, 0]
    assert np.abs(found - frame["outcome"]).mean() > 5


def test_a_teacher_of_the_same_server_gives_the_target(api, model, frame, uploaded_csv):
    frame["outcome"] = 0.0
    blank = register(api, frame, upload(api, frame))
    taught = result(api, fit(api, blank, teacher_model_id=model))["result_data"]["model_id"]
    found = np.array(predictions(api, taught, frame, uploaded_csv)["predictions"])[:, 0]
    assert np.ptp(found) > 15


def test_a_foreign_teacher_is_honestly_refused_by_the_job_and_never_kept(api, dataset_id, emulator_folder):
    secret = f"secret-{uuid.uuid4()}"
    job = fit(
        api,
        dataset_id,
        teacher_predict_url=f"http://127.0.0.1:9/{secret}",
        teacher_predict_headers={"authorization": secret},
    )
    status = wait(api, job)
    assert status["status"] == "failed"
    assert "calls no foreign URL" in status["error_message"]
    ended = result(api, job)
    assert (ended["status"], "result_data" in ended) == ("failed", False)
    assert not [path for path in emulator_folder.glob("emulator.sqlite3*") if secret.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"task": {"task_kind": "forecasting", "label_column": "outcome"}}, "task.task_kind"),
        ({"n_hyperopt_steps": 0}, "n_hyperopt_steps"),
        ({"n_hyperopt_steps": 201}, "n_hyperopt_steps"),
        ({"model_types": ["tabm", "xrfm"]}, "model_types"),
        ({"teacher_model_id": str(uuid.uuid4()), "teacher_predict_url": "http://127.0.0.1:9"}, "body"),
        ({"teacher_get_grads_url": "http://127.0.0.1:9"}, "body"),
        ({"filter": {"kind": "cmp", "col": "x", "op": "like"}}, "filter.cmp.op"),
        ({"colour": "red"}, "colour"),
        ({"dataset_id": "seven"}, "dataset_id"),
    ],
)
def test_what_the_page_does_not_allow_is_refused_in_envelope_a_prime(api, dataset_id, change, field):
    answer = api.post("/v1/reasoning/fit", {"dataset_id": dataset_id, "task": REGRESSION, **change})
    assert answer.status_code == 422
    assert set(answer.json()) == {"code", "detail", "errors", "retryable", "support"}
    assert [problem["field"] for problem in answer.json()["errors"]] == [field]


def test_every_fit_is_another_job_and_another_model(api, dataset_id):
    jobs = {fit(api, dataset_id) for _ in range(2)}
    models = {result(api, job)["result_data"]["model_id"] for job in jobs}
    assert len(jobs) == len(models) == 2


def test_results_mint_a_fresh_url_and_old_ones_expire(api, control, model, frame, uploaded_csv):
    body = {"dataset": dataset(frame, uploaded_csv)}
    job = api.post(f"/v1/models/{model}/predict", body).json()["job_id"]
    wait(api, job)
    control.configure(url_ttl_secs=-5)
    expired = api.http.get(f"/v1/results/{job}").json()["result_data"]["presigned_url"]
    assert api.storage.get(expired).status_code in {400, 403}
    control.configure(url_ttl_secs=60)
    fresh = api.http.get(f"/v1/results/{job}").json()["result_data"]["presigned_url"]
    assert fresh != expired
    assert api.storage.get(fresh).status_code == 200
    assert api.storage.put(fresh, content=b"x").status_code == 403


def test_an_upload_wants_its_content_type_and_its_own_url(api, frame):
    opened = api.post("/v1/uploads", {"file_format": "csv"}).json()
    assert set(opened) == {"connection_config", "upload_url", "content_type", "expires_in"}
    assert set(opened["connection_config"]) == {"uri", "id", "connector_type", "state"}
    wrong = api.storage.put(opened["upload_url"], content=b"a\n1\n", headers={"Content-Type": "text/plain"})
    other = api.storage.put(
        opened["upload_url"].replace(opened["connection_config"]["id"], str(uuid.uuid4())),
        content=b"a\n1\n",
        headers={"Content-Type": "text/csv"},
    )
    assert (wrong.status_code, other.status_code) == (403, 403)
    early = api.post("/v1/datasets", dataset(frame, opened["connection_config"]))
    assert (early.status_code, early.json()["code"]) == (422, "validation.failed")


def test_a_result_before_the_end_is_a_conflict(api, dataset_id):
    job = fit(api, dataset_id)
    answer = api.http.get(f"/v1/results/{job}")
    if answer.status_code != 200:
        assert (answer.status_code, answer.json()["code"]) == (409, "error.conflict")
    assert result(api, job)["status"] == "completed"


@pytest.mark.parametrize("columns", [["x", "nothing"], ["x", "noise"]])
def test_a_data_set_that_does_not_fit_its_file_fails_the_job(api, frame, uploaded_csv, columns):
    spec = {"columns": [{"name": name} for name in columns], "connection_config": uploaded_csv}
    job = fit(api, api.post("/v1/datasets", spec).json()["id"])
    assert wait(api, job)["status"] == "failed"
    assert result(api, job)["error_message"]


def test_pickles_are_taken_and_never_read(api, frame):
    opened = api.post("/v1/uploads", {"file_format": "pkl"}).json()
    headers = {"Content-Type": opened["content_type"]}
    api.storage.put(opened["upload_url"], content=b"\x80\x04.", headers=headers).raise_for_status()
    job = fit(api, register(api, frame, opened["connection_config"]))
    assert "no pickles" in wait(api, job)["error_message"]


def test_another_accounts_things_do_not_exist(api, other_api, model, dataset_id, frame, uploaded_csv):
    job = fit(api, dataset_id)
    own = upload(other_api, frame)
    answers = [
        other_api.http.get(f"/v1/status/{job}"),
        other_api.http.get(f"/v1/results/{job}"),
        other_api.post("/v1/datasets", dataset(frame, uploaded_csv)),
        other_api.post("/v1/reasoning/fit", {"dataset_id": dataset_id, "task": REGRESSION}),
        other_api.post(f"/v1/models/{model}/predict", {"dataset": dataset(frame, own)}),
    ]
    assert [answer.status_code for answer in answers] == [404] * 5
    assert {answer.json()["code"] for answer in answers} == {"error.not_found"}
    wait(api, job)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/uploads"),
        ("POST", "/v1/datasets"),
        ("POST", "/v1/reasoning/fit"),
        ("GET", "/v1/status/x"),
        ("GET", "/v1/results/x"),
        ("POST", "/v1/models/x/predict"),
    ],
)
def test_without_a_token_every_route_answers_401_in_envelope_a(bare, emulator, method, path):
    answer = bare.request(method, emulator + path)
    assert (answer.status_code, answer.json()["code"]) == (401, "auth.unauthorized")


def test_creations_are_in_the_books(api, control, dataset_id, model, frame, uploaded_csv):
    predictions(api, model, frame, uploaded_csv)
    kinds = [row["kind"] for row in control.creations(account=api.account)]
    assert kinds == ["upload_created", "fit_created", "predict_run"]


def test_deleting_the_account_takes_its_files(api, emulator_folder, model, uploaded_csv):
    folder = emulator_folder / "reasoning" / "uploads" / uploaded_csv["id"]
    assert folder.exists()
    api.http.delete("/delete_user_account/").raise_for_status()
    assert not folder.exists()


def test_everything_is_there_after_a_restart(helpers, tmp_path, frame):
    folder = tmp_path / "data"
    token = "the-same-token"
    with running_emulator(folder) as url:
        api = helpers.api(url, token)
        connection = upload(api, frame)
        known = register(api, frame, connection)
        trained = result(api, fit(api, known))["result_data"]["model_id"]
        before = predictions(api, trained, frame, connection)
        pending = fit(api, known)
        api.close()
    with running_emulator(folder) as url:
        api = helpers.api(url, token)
        assert wait(api, pending)["status"] == "completed"
        assert predictions(api, trained, frame, connection) == before
        assert result(api, fit(api, known))["status"] == "completed"
        api.close()


def test_a_fit_that_fails_on_demand(api, control, dataset_id):
    control.inject(kind="fail_fit", route="/v1/reasoning/fit", error="out of memory")
    doomed, sound = fit(api, dataset_id), fit(api, dataset_id)
    assert result(api, doomed)["error_message"] == "out of memory"
    assert result(api, sound)["status"] == "completed"


def test_a_fit_that_never_ends(api, control, dataset_id):
    control.inject(kind="endless_fit", route="/v1/reasoning/fit")
    endless = fit(api, dataset_id)
    assert result(api, fit(api, dataset_id))["status"] == "completed"
    assert api.http.get(f"/v1/status/{endless}").json()["status"] == "running"
    assert api.http.get(f"/v1/results/{endless}").status_code == 409


RECIPE = {"foreign_teacher": False, "dataset_id": str(uuid.uuid4()), "teacher_model_id": None}
JOB = {"status": "pending", "job_type": "reasoning_fit", "recipe": RECIPE}


@pytest.fixture
def closed_shop(tmp_path):
    """An emulator that nobody serves."""
    emulator = open_emulator(tmp_path, (), Settings())
    with closing(emulator.database), emulator.workers:
        yield emulator


def test_a_job_goes_on_after_a_restart_though_nobody_asked_for_it(tmp_path, helpers):
    with running_emulator(tmp_path) as url:
        api = helpers.api(url, "the-same-token")
        api.http.get("/protected/").raise_for_status()
        owner = EmulatorControl(url).journal()[-1]["account"]
        api.close()
    emulator = open_emulator(tmp_path, (), Settings())
    with closing(emulator.database), emulator.workers:
        job_id = emulator.reasoning.add("reasoning_job", owner, JOB)
    with running_emulator(tmp_path) as url:
        api = helpers.api(url, "the-same-token")
        assert wait(api, job_id)["status"] == "failed"
        api.close()


def test_an_upload_and_its_creation_are_kept_together_or_not_at_all(closed_shop, monkeypatch):
    emulator = closed_shop

    def die(*_, **__):
        raise OSError("killed")

    monkeypatch.setattr(emulator.journal, "created", die)

    async def call():
        transport = httpx.ASGITransport(build_app(emulator, control=False), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://emulator") as client:
            headers = {"Authorization": "Bearer mine"}
            return await client.post("/v1/uploads", json={"file_format": "csv"}, headers=headers)

    assert asyncio.run(call()).status_code == 500
    assert emulator.documents.all("reasoning_upload") == []


def run_job(emulator, monkeypatch, learn):
    monkeypatch.setattr("tabpfn_emulator._reasoning_jobs._learn", learn)

    async def run():
        begin_job(emulator, "mine", emulator.reasoning.add("reasoning_job", "mine", JOB))
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)

    asyncio.run(run())


def test_a_model_and_the_end_of_its_job_are_kept_together_or_not_at_all(closed_shop, monkeypatch):
    emulator = closed_shop
    change = emulator.reasoning.change_job

    def die_at_the_end(job_id, **fields):
        if "model_id" in fields:
            raise OSError("killed")
        return change(job_id, **fields)

    async def learn(*_):
        return object()

    monkeypatch.setattr(emulator.reasoning, "change_job", die_at_the_end)
    run_job(emulator, monkeypatch, learn)
    assert emulator.documents.all("reasoning_model") == []
    assert len(emulator.reasoning.unfinished_jobs()) == 1


def test_a_job_whose_account_was_deleted_leaves_no_model(closed_shop, monkeypatch):
    emulator = closed_shop

    async def learn(_, account, __):
        emulator.reasoning.delete_account(account)
        return object()

    run_job(emulator, monkeypatch, learn)
    assert emulator.documents.all("reasoning_job") == emulator.documents.all("reasoning_model") == []
