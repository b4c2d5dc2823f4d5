"""The OpenAPI document against the routes, and schemathesis holding the emulator against the document.

Every run sends the same requests (fixed seed). No answer may be a 5xx, have a status that is not documented for its
operation, or differ from the documented schema; the server's own books are searched for a 5xx at the end.
"""

import json
import time

import hypothesis
import pandas as pd
import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    negative_data_rejection,
    positive_data_acceptance,
)

from tabpfn_emulator._app import build_app
from tabpfn_emulator._bodies.openapi import document
from tabpfn_emulator._bodies.operations import OPERATIONS
from tabpfn_emulator._emulator import open_emulator
from tabpfn_emulator._settings import Settings
from tabpfn_emulator.testing import EmulatorControl, running_emulator

SEED = 20261121
# Rules that a schema cannot say: fields that exclude each other, a limit, a password, an address in use, JSON in text.
RULES_BEYOND_SCHEMA = {
    "get_auth_verify_email",
    "post_auth_register",
    "post_auth_validate_email",
    "post_tabpfn_fit",
    "post_tabpfn_prepare_train_set_upload",
    "post_tabpfn_submit_fit_job",
    "post_v1_fit",
    "post_v1_predict",
    "post_v1_reasoning_fit",
}
# It also takes GET, so that it can play a server without the route.
MORE_METHODS = {"post_tabpfn_submit_fit_job"}

SCHEMA = schemathesis.openapi.from_dict(document())
FUZZING_ONLY = SchemathesisConfig.from_dict(
    {"phases": {"coverage": {"enabled": False}, "examples": {"enabled": False}}}
)
AIMED = schemathesis.openapi.from_dict(document(), config=FUZZING_ONLY).include(
    path_regex=r"^/tabpfn/(fit|submit_fit_job|get_fit_status|prepare_test_set_upload|predict)$|^/v1/"
)


def bounded(examples):
    return hypothesis.settings(
        max_examples=examples,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    )


def operation_id(case):
    return case.operation.definition.raw["operationId"]


def bearer(name):
    return {"Authorization": f"Bearer token-of-{name}"}


def excluded(case):
    # The models read "0" as 0 and 0 as False, as FastAPI's do; unknown keys are tested below.
    checks = [negative_data_rejection]
    if operation_id(case) in RULES_BEYOND_SCHEMA:
        checks.append(positive_data_acceptance)
    if operation_id(case) in MORE_METHODS:
        checks.append(allow_header_conformance)
    return checks


@pytest.fixture(scope="module")
def server():
    """An emulator that knows a token for each operation, so that what one deletes another still has."""
    names = [
        "known",
        *(value["operationId"] for path in document()["paths"].values() for value in path.values()),
    ]
    with running_emulator(extra_args=[f"--token=token-of-{name}" for name in names]) as url:
        yield url
        failures = [row for row in EmulatorControl(url).journal() if row["status"] is None or row["status"] >= 500]
        assert not failures


@SCHEMA.parametrize()
@bounded(10)
@hypothesis.seed(SEED)
def test_schemathesis_finds_nothing(case, server):
    case.call_and_validate(base_url=server, headers=bearer(operation_id(case)), excluded_checks=excluded(case))


@AIMED.parametrize()
@bounded(8)
@hypothesis.seed(SEED)
def test_schemathesis_finds_nothing_behind_ids_that_exist(case, server, known):
    for name in case.path_parameters or {}:
        case.path_parameters[name] = known[name]
    if isinstance(case.body, dict):
        case.body = aim(case.body, known)
        if "data" in case.body:
            case.body["data"] = known["data"][case.operation.path]
    checks = [*excluded(case), positive_data_acceptance]
    case.call_and_validate(base_url=server, headers=bearer("known"), excluded_checks=checks)


def aim(value, known):
    if isinstance(value, list):
        return [aim(each, known) for each in value]
    if not isinstance(value, dict):
        return value
    aimed = {
        key: known[key] if key in known and isinstance(each, str) else aim(each, known) for key, each in value.items()
    }
    if value.get("connector_type") == "file_upload":
        aimed["id"] = known["upload_id"]
    return aimed


def frame():
    return pd.DataFrame({"a": range(30), "b": [number % 3 for number in range(30)]})


def csv(table):
    return table.to_csv(index=False).encode()


class Walk:
    """A caller of every operation, in an order that makes sense; holds each answer against its model."""

    def __init__(self, client, url, name):
        self.client, self.url, self.headers = client, url, bearer(name)
        self.answered = set()

    def call(self, method, path, *, at=None, **options):
        answer = self.client.request(method, self.url + (at or path), headers=self.headers, **options)
        assert answer.status_code == 200, answer.text
        self.answered.add((method.lower(), path))
        (operation,) = [each for each in OPERATIONS if (each.method, each.path) == (method.lower(), path)]
        if operation.answer is None:
            return answer
        return operation.answer.model_validate_json(answer.content).model_dump(mode="json")

    def post(self, path, body=None, **options):
        return self.call("POST", path, **({"json": body} if body is not None else {}), **options)

    def put(self, info, content):
        self.client.put(info["signed_urls"][0], content=content, headers=info["required_headers"]).raise_for_status()

    def fit(self):
        x, y, info = csv(frame()), csv(frame()[["b"]]), {"format": "csv"}
        prepared = self.post("/tabpfn/prepare_train_set_upload", {"x_train_info": info, "y_train_info": info})
        self.put(prepared["x_train_info"], x)
        self.put(prepared["y_train_info"], y)
        body = {"train_set_upload_id": prepared["train_set_upload_id"], "task_config": {"task": "classification"}}
        fitted = self.post("/tabpfn/fit", body)["fitted_train_set_id"]
        test = self.post("/tabpfn/prepare_test_set_upload", {"fitted_train_set_id": fitted, "x_test_info": info})
        self.put(test["x_test_info"], x)
        return {**body, "fitted_train_set_id": fitted, "test_set_upload_id": test["test_set_upload_id"]}

    def reason(self):
        opened = self.post("/v1/uploads", {"file_format": "csv"})
        headers = {"Content-Type": opened["content_type"]}
        self.client.put(opened["upload_url"], content=csv(frame()), headers=headers).raise_for_status()
        spec = {"columns": [{"name": "a"}, {"name": "b"}], "connection_config": opened["connection_config"]}
        dataset_id = self.post("/v1/datasets", spec)["id"]
        task = {"task_kind": "multiclass", "label_column": "b"}
        job = self.post("/v1/reasoning/fit", {"dataset_id": dataset_id, "task": task})["job_id"]
        model = self.result(job)["model_id"]
        at = f"/v1/models/{model}/predict"
        job = self.post("/v1/models/{model_id}/predict", {"dataset": spec}, at=at)["job_id"]
        self.result(job)
        upload = opened["connection_config"]["id"]
        return {"upload_id": upload, "dataset_id": dataset_id, "model_id": model, "job_id": job}

    def result(self, job):
        for _ in range(600):
            if self.call("GET", "/v1/status/{job_id}", at=f"/v1/status/{job}")["status"] == "completed":
                return self.call("GET", "/v1/results/{job_id}", at=f"/v1/results/{job}")["result_data"]
            time.sleep(0.05)
        raise AssertionError(job)

    def legacy(self):
        files = {"data": (None, json.dumps({"task": "regression", "schema": {"target": "b"}}))}
        fitted = self.post("/v1/fit", files={**files, "dataset_file": ("t.csv", csv(frame()))})["model_id"]
        files = {"data": (None, json.dumps({"task": "regression", "model_id": fitted}))}
        self.post("/v1/predict", files={**files, "file": ("t.csv", csv(frame()[["a"]]))})
        return {"/v1/fit": '{"task": "regression"}', "/v1/predict": files["data"][1]}


@pytest.fixture(scope="module")
def known(server, helpers):
    """Ids of things that are there, by the names that bodies and paths have for them."""
    with helpers.client() as client:
        walk = Walk(client, server, "known")
        reasoning = walk.reason()
        return {**walk.fit(), **reasoning, "teacher_model_id": reasoning["model_id"], "data": walk.legacy()}


def test_every_operation_answers_what_its_model_says(emulator, bare):
    walk = Walk(bare, emulator, "walk")
    for path in (
        "/",
        "/protected/",
        "/retrieve_greeting_messages/",
        "/tabpfn/get_settings",
        "/tabpfn/get_model_limits",
    ):
        walk.call("GET", path)
    ids = walk.fit()
    task = ids["task_config"]
    walk.post("/tabpfn/submit_fit_job", {"train_set_upload_id": ids["train_set_upload_id"], "task_config": task})
    walk.post("/tabpfn/get_fit_status", {"fitted_train_set_id": ids["fitted_train_set_id"]})
    walk.post(
        "/tabpfn/predict", {key: ids[key] for key in ("fitted_train_set_id", "test_set_upload_id", "task_config")}
    )
    walk.post("/tabpfn/estimate_cost", {"train_rows": 10, "raw_columns": 2})
    walk.reason()
    walk.legacy()
    walk.post("/get_api_usage/")
    walk.call("GET", "/get_data_summary/")
    walk.call("GET", "/download_all_data/")
    walk.call("DELETE", "/delete_dataset/", params={"dataset_uid": ids["train_set_upload_id"]})
    walk.call("DELETE", "/delete_all_datasets/")
    walk.call("DELETE", "/delete_user_account/")
    walk.call("GET", "/auth/password_policy/")
    walk.post("/auth/validate_email/", params={"email": "walk@example.com"})
    form = {"email": "walk@example.com", "password": "Secret-1-word", "validation_link": "tabpfn-2023"}
    token = walk.post("/auth/register/", {**form, "password_confirm": form["password"]})["token"]
    walk.headers = {"Authorization": f"Bearer {token}"}
    verification = walk.post("/auth/send_verification_email/")["message"].split()[-2]
    walk.call("GET", "/auth/verify_email/", params={"token": verification, "access_token": token})
    assert walk.answered == {(operation.method, operation.path) for operation in OPERATIONS}


def test_a_failure_inside_a_200_is_documented_too(api, control, helpers):
    upload = api.upload_train(csv(frame()), csv(frame()[["b"]]), "csv")
    control.configure(keepalive_after_secs=0, fit_seconds=0.2)
    control.inject({"kind": "fail_fit", "route": "/tabpfn/fit"})
    answer = api.post("/tabpfn/fit", helpers.nested(upload, "classification"))
    assert answer.status_code == 200
    (operation,) = [each for each in OPERATIONS if each.path == "/tabpfn/fit"]
    assert operation.streamed.model_validate_json(answer.content).streamed_error
    schemas = document()["paths"]["/tabpfn/fit"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert {"$ref": "#/components/schemas/StreamedError"} in schemas["anyOf"]
    assert "_streamed_error" in document()["components"]["schemas"]["StreamedError"]["properties"]


def test_the_document_names_every_route_and_no_other(tmp_path):
    emulator = open_emulator(tmp_path, (), Settings())
    routes = build_app(emulator, control=False)._app.routes
    emulator.database.close()
    emulator.workers.shutdown()
    served = {
        (method.lower(), route.path)
        for route in routes
        for method in route.methods
        if method != "HEAD" and not route.path.startswith("/storage/") and route.path != "/openapi.json"
    }
    described = {(method, path) for path, methods in document()["paths"].items() for method in methods}
    assert served - described == {("get", "/tabpfn/submit_fit_job")}
    assert described <= served


def test_the_document_is_served_to_everyone(bare, emulator):
    answer = bare.get(f"{emulator}/openapi.json")
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json() == document()
    assert answer.json()["openapi"] == "3.1.0"


def test_every_operation_says_what_it_wants_and_how_it_refuses():
    for path, operations in document()["paths"].items():
        for operation in operations.values():
            assert operation["summary"]
            assert operation["description"]
            statuses = set(operation["responses"]) - {"200"}
            assert bool(operation["security"]) <= ({"401", "403"} <= statuses)
            assert ("requestBody" in operation) <= ("422" in statuses)
            for status in statuses:
                (content,) = operation["responses"][status]["content"].values()
                name = content["schema"]["$ref"].rpartition("/")[2]
                wanted = (
                    {"ErrorA", "ErrorAPrime"}
                    if path.startswith("/v1/")
                    else {"ErrorB", "DuplicateTrainSet", "DuplicateTestSet"}
                )
                assert name in wanted
                required = document()["components"]["schemas"][name]["required"]
                assert set(required) == set(content["example"])


BODIES = [operation for operation in OPERATIONS if operation.body]


@pytest.mark.parametrize("operation", BODIES, ids=lambda operation: operation.path)
def test_unknown_keys_are_refused(api, operation):
    path = operation.path.replace("{model_id}", "00000000-0000-4000-8000-000000000000")
    answer = api.post(path, {**operation.example, "colour": "red"})
    known = api.post(path, operation.example)
    if operation.path == "/auth/register/":
        # The client adds the fields of its profile form.
        assert answer.status_code in {200, 400}
    else:
        assert answer.status_code == 422
        assert "colour" in answer.text
        assert known.status_code in {200, 404}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 5000, b"1e999"])
@pytest.mark.parametrize("operation", BODIES, ids=lambda operation: operation.path)
def test_what_is_no_object_is_refused(api, operation, content):
    path = operation.path.replace("{model_id}", "00000000-0000-4000-8000-000000000000")
    assert api.http.post(path, content=content).status_code == 422
