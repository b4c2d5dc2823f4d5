"""Another account's ids, on every route that takes one: they do not exist, and nothing of theirs is told or changed."""

import http.client
import io
import json
import time
import uuid
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

from tabpfn_emulator.testing import EmulatorAccount, EmulatorControl

ROWS = "".join(f"{i % 7},{i % 5},{'yes' if i % 7 > 3 else 'no'}\n" for i in range(60))
TABLE = f"a,b,outcome\n{ROWS}".encode()
TEST_ROWS = b"a,b\n" + b"".join(b"%d,%d\n" % (i % 7, i % 5) for i in range(6))
IDS = ("train", "fitted", "test", "spare", "legacy_model", "upload", "dataset", "job", "model")


class Belongings:
    """An account and one of everything that it can own."""

    def __init__(self, url, helpers):
        self.api = helpers.api(url)
        self.file_info = helpers.file_info

    def post(self, path, body):
        return self.api.post(path, body).raise_for_status().json()

    @cached_property
    def train(self):
        x = b"\n".join(line.rpartition(b",")[0] for line in TABLE.splitlines())
        y = b"\n".join(line.rpartition(b",")[2] for line in TABLE.splitlines())
        return self.api.upload_train(x, y, "csv")

    @cached_property
    def fitted(self):
        return self.post("/tabpfn/fit", {"train_set_upload_id": self.train, "task": "classification"})[
            "fitted_train_set_id"
        ]

    @cached_property
    def test(self):
        return self.api.upload_test(self.fitted, TEST_ROWS, "csv")

    @property
    def spare(self):
        """An upload that may be deleted: a new one each time."""
        return self.post("/tabpfn/prepare_train_set_upload", dict.fromkeys(("x_train_info", "y_train_info"), CSV))[
            "train_set_upload_id"
        ]

    @cached_property
    def legacy_model(self):
        data = {"task": "classification", "schema": {"target": "outcome"}}
        parts = {"data": (None, json.dumps(data)), "dataset_file": ("train.csv", TABLE)}
        return self.api.http.post("/v1/fit", files=parts).raise_for_status().json()["model_id"]

    @cached_property
    def upload(self):
        opened = self.post("/v1/uploads", {"file_format": "csv"})
        headers = {"content-type": opened["content_type"]}
        self.api.storage.put(opened["upload_url"], content=TABLE, headers=headers).raise_for_status()
        return opened["connection_config"]["id"]

    @cached_property
    def dataset(self):
        return self.post("/v1/datasets", inline(self.upload))["id"]

    @cached_property
    def job(self):
        return self.post("/v1/reasoning/fit", {"dataset_id": self.dataset, "task": TASK})["job_id"]

    @cached_property
    def model(self):
        return self.finished(self.job)["result_data"]["model_id"]

    @cached_property
    def artifact(self):
        """The signed URL of a prediction."""
        job = self.post(f"/v1/models/{self.model}/predict", {"dataset": inline(self.upload)})["job_id"]
        return self.finished(job)["result_data"]["presigned_url"]

    def finished(self, job):
        for _ in range(600):
            answer = self.api.http.get(f"/v1/results/{job}")
            if answer.status_code == 200:
                return answer.json()
            assert answer.status_code == 409
            time.sleep(0.05)
        raise AssertionError("the job has not ended within 30 s")

    def books(self):
        """Everything that the account is told of itself."""
        summary = self.api.http.get("/get_data_summary/").raise_for_status().json()
        usage = self.api.http.post("/get_api_usage/").raise_for_status().json()
        return summary, {name: value for name, value in usage.items() if "reset" not in name}


CSV = {"format": "csv"}
TASK = {"task_kind": "binclass", "label_column": "outcome"}
TASK_CONFIG = {"task": "classification"}


def inline(upload):
    columns = [{"name": name} for name in ("a", "b", "outcome")]
    return {"columns": columns, "connection_config": {"connector_type": "file_upload", "id": upload}}


def legacy_predict(model):
    data = json.dumps({"model_id": model, "task": "classification"})
    return {"files": {"data": (None, data), "file": ("test.csv", TEST_ROWS)}}


# A request for each id of each route: what the caller owns, and the ids that it names.
CASES = {
    "POST /tabpfn/prepare_test_set_upload fitted": lambda mine, named: {
        "json": {"fitted_train_set_id": named.fitted, "x_test_info": CSV}
    },
    "POST /tabpfn/fit train": lambda mine, named: {
        "json": {"train_set_upload_id": named.train, "task": "classification"}
    },
    "POST /tabpfn/fit train nested": lambda mine, named: {
        "json": {"train_set_upload_id": named.train, "task_config": TASK_CONFIG}
    },
    "POST /tabpfn/submit_fit_job train": lambda mine, named: {
        "json": {"train_set_upload_id": named.train, "task_config": TASK_CONFIG}
    },
    "POST /tabpfn/get_fit_status fitted": lambda mine, named: {"json": {"fitted_train_set_id": named.fitted}},
    "POST /tabpfn/predict fitted": lambda mine, named: {
        "json": {"fitted_train_set_id": named.fitted, "test_set_upload_id": mine.test, "task_config": TASK_CONFIG}
    },
    "POST /tabpfn/predict test": lambda mine, named: {
        "json": {"fitted_train_set_id": mine.fitted, "test_set_upload_id": named.test, "task_config": TASK_CONFIG}
    },
    "POST /tabpfn/predict fitted and test": lambda mine, named: {
        "json": {"fitted_train_set_id": named.fitted, "test_set_upload_id": named.test, "task_config": TASK_CONFIG}
    },
    "DELETE /delete_dataset/ spare": lambda mine, named: {"params": {"dataset_uid": named.spare}},
    "POST /v1/predict legacy_model": lambda mine, named: legacy_predict(named.legacy_model),
    "POST /v1/datasets upload": lambda mine, named: {"json": inline(named.upload)},
    "POST /v1/reasoning/fit dataset": lambda mine, named: {"json": {"dataset_id": named.dataset, "task": TASK}},
    "POST /v1/reasoning/fit model": lambda mine, named: {
        "json": {"dataset_id": mine.dataset, "task": TASK, "teacher_model_id": named.model}
    },
    "GET /v1/status/{job_id} job": lambda mine, named: {"path": {"job_id": named.job}},
    "GET /v1/results/{job_id} job": lambda mine, named: {"path": {"job_id": named.job}},
    "POST /v1/models/{model_id}/predict model": lambda mine, named: {
        "path": {"model_id": named.model},
        "json": {"dataset": inline(mine.upload)},
    },
    "POST /v1/models/{model_id}/predict upload": lambda mine, named: {
        "path": {"model_id": mine.model},
        "json": {"dataset": inline(named.upload)},
    },
}
# Ids that are no key to anything of an account.
NO_ACCOUNT = {"POST /v1/predict dataset_id"}


@pytest.fixture(scope="module")
def mine(emulator, helpers):
    mine = Belongings(emulator, helpers)
    yield mine
    mine.api.close()


@pytest.fixture(scope="module")
def theirs(emulator, helpers):
    """Another account; its ids are read once, so that nothing is made after the books were looked at."""
    owner = Belongings(emulator, helpers)
    yield SimpleNamespace(owner=owner, artifact=owner.artifact, **{name: getattr(owner, name) for name in IDS})
    owner.api.close()


@dataclass(frozen=True)
class Unknown:
    """Ids that nobody has."""

    def __getattr__(self, name):
        return str(uuid.uuid5(uuid.NAMESPACE_OID, name))


def send(http_client, case, mine, named):
    method, path = case.split()[:2]
    request = dict(CASES[case](mine, named))
    return http_client.request(method, path.format(**request.pop("path", {})), **request)


def without_ids(answer, named):
    body = {name: value for name, value in answer.json().items() if name != "trace_id"}
    text = json.dumps(body)
    for name in IDS:
        text = text.replace(getattr(named, name), f"<{name}>")
    return answer.status_code, text


@pytest.mark.parametrize("case", CASES)
def test_an_id_of_another_account_does_not_exist(control, mine, theirs, case):
    before = theirs.owner.books()
    seen = control.journal(account=theirs.owner.api.account)
    foreign = send(mine.api.http, case, mine, theirs)
    assert foreign.status_code == 404
    assert without_ids(foreign, theirs) == without_ids(send(mine.api.http, case, mine, Unknown()), Unknown())
    # Nothing in their name, and nothing of theirs is different; only their own questions are new.
    new = control.journal(account=theirs.owner.api.account)[len(seen) :]
    assert new == []
    assert theirs.owner.books() == before


@pytest.mark.parametrize("case", CASES)
def test_the_owner_gets_what_others_do_not(mine, case):
    assert mine.model  # its job has ended, so that there are results
    assert send(mine.api.http, case, mine, mine).is_success


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Basic dTpw", "token"])
def test_without_a_token_there_is_nothing(bare, emulator, mine, theirs, case, authorization):
    bare.base_url = emulator
    if authorization is not None:
        bare.headers["Authorization"] = authorization
    assert send(bare, case, mine, theirs).status_code == 401


@pytest.mark.parametrize("case", CASES)
def test_a_token_that_opens_no_account_gets_nothing(strict_emulator, helpers, mine, case):
    with helpers.client(base_url=strict_emulator, headers={"Authorization": "Bearer the-wrong-token"}) as stranger:
        assert send(stranger, case, mine, Unknown()).status_code == 401


@pytest.fixture(scope="module")
def late(emulator, helpers):
    """An account that owns one of everything, and whose token has expired."""
    owner = Belongings(emulator, helpers)
    ids = {name: getattr(owner, name) for name in IDS}
    EmulatorAccount(emulator, owner.api.token, EmulatorControl(emulator)).expire_token()
    yield SimpleNamespace(api=owner.api, **ids)
    owner.api.close()


@pytest.mark.parametrize("case", CASES)
def test_an_expired_token_gets_nothing_of_its_own_account(control, late, case):
    assert_refused(control, late.api, lambda: send(late.api.http, case, late, late))


def test_an_expired_token_opens_no_route(control, bare, emulator, late):
    document = bare.get(f"{emulator}/openapi.json").raise_for_status().json()
    wanting = [
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if operation["security"]
    ]
    assert len(wanting) > 20
    for method, path in wanting:
        assert_refused(control, late.api, lambda sent=(method, path): late.api.http.request(*sent))


def assert_refused(control, api, call):
    """401 in the route's envelope, in nobody's name, and booked."""
    before = control.totals()["requests"]
    answer = call()
    (row,) = control.journal(after=before)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert (row["route"], row["status"], row["account"], row["bearer"]) == (answer.url.path, 401, None, True)
    body = answer.json()
    if answer.url.path.startswith("/v1/"):
        assert body["code"] == "auth.unauthorized"
        assert body["detail"] == "Could not validate credentials"
        assert body["retryable"] is False
    else:
        assert body["error_code"] == "UNAUTHORIZED"
        assert body["message"] == "Could not validate credentials"
        assert uuid.UUID(body["trace_id"])


def test_what_an_account_is_told_of_itself_is_its_own(mine, theirs):
    train = mine.train
    summary = mine.api.http.get("/get_data_summary/").raise_for_status().text
    archive = mine.api.http.get("/download_all_data/").raise_for_status().content
    names = zipfile.ZipFile(io.BytesIO(archive)).namelist()
    for told in (summary, "\n".join(names)):
        assert train in told
        assert not [name for name in IDS if getattr(theirs, name) in told]


def test_deleting_everything_deletes_nothing_of_others(emulator, helpers, theirs):
    before = theirs.owner.books()
    leaver = Belongings(emulator, helpers)
    test = leaver.test
    gone = leaver.api.http.delete("/delete_all_datasets/").raise_for_status().json()["deleted_dataset_uids"]
    assert sorted(gone) == sorted([leaver.train, test])
    assert leaver.api.http.delete("/delete_user_account/").is_success
    assert theirs.owner.books() == before
    leaver.api.close()


def takes_an_id(parameter):
    return parameter.endswith(("_id", "_uid")) or parameter == "id"


def properties(schema, components, seen=()):
    """The names of all properties of a schema, those of its parts included."""
    if isinstance(schema, list):
        for each in schema:
            yield from properties(each, components, seen)
    elif isinstance(schema, dict):
        name = schema.get("$ref", "").rpartition("/")[2]
        if name and name not in seen:
            yield from properties(components[name], components, (*seen, name))
        yield from schema.get("properties", {})
        for each in schema.values():
            if isinstance(each, dict | list):
                yield from properties(each, components, seen)


def test_every_route_that_takes_an_id_is_in_the_table(bare, emulator):
    document = bare.get(f"{emulator}/openapi.json").raise_for_status().json()
    components = document.get("components", {}).get("schemas", {})
    taking = set()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            names = {parameter["name"] for parameter in operation.get("parameters", [])}
            names |= set(properties(operation.get("requestBody", {}), components))
            if any(map(takes_an_id, names)) and not path.startswith("/storage"):
                taking.add(f"{method.upper()} {path}")
    assert taking == {" ".join(case.split()[:2]) for case in CASES}


def exactly(method, base, target, headers, body=b""):
    """Send a request whose target no client has tidied up."""
    connection = http.client.HTTPConnection(urlsplit(base).netloc, timeout=30)
    connection.putrequest(method, target)
    for name, value in {**headers, "content-length": str(len(body))}.items():
        connection.putheader(name, value)
    connection.endheaders(body)
    response = connection.getresponse()
    answer = response.status, response.read()
    connection.close()
    return answer


def every_file(folder):
    return {path: path.read_bytes() for path in Path(folder, "uploads").rglob("*") if path.is_file()}


TRICKS = {
    "their upload": lambda path, mine, theirs: path.replace(mine, theirs),
    "up and down": lambda path, mine, theirs: path.replace("/x_train/", f"/../../{theirs}/x_train/"),
    "up and down with me": lambda path, mine, theirs: f"/storage/{mine}/../{theirs}/x_train/0",
    "encoded dots": lambda path, mine, theirs: path.replace(mine, f"{mine}/%2e%2e/{theirs}"),
    "encoded slash": lambda path, mine, theirs: path.replace(f"{mine}/", f"{mine}%2F"),
    "encoded way up": lambda path, mine, theirs: path.replace("x_train", f"..%2F..%2F{theirs}%2Fx_train"),
    "encoded twice": lambda path, mine, theirs: path.replace("x_train", f"..%252F..%252F{theirs}%252Fx_train"),
    "backslashes": lambda path, mine, theirs: path.replace("x_train", f"..%5C..%5C{theirs}%5Cx_train"),
    "double slash": lambda path, mine, theirs: path.replace("/x_train", "//x_train"),
    "double slash in front": lambda path, mine, theirs: f"/{path}",
    "slash behind": lambda path, mine, theirs: f"{path}/",
    "another letter case": lambda path, mine, theirs: path.upper(),
    "encoded letter": lambda path, mine, theirs: path.replace("x_train", "%78_train"),
    "null byte": lambda path, mine, theirs: f"{path}%00",
    "another file": lambda path, mine, theirs: path.replace("x_train", "y_train"),
    "another part": lambda path, mine, theirs: path[:-1] + "1",
    "the same part": lambda path, mine, theirs: path[:-1] + "00",
    "whole": lambda path, mine, theirs: path[:-1] + "whole",
    "absolute": lambda path, mine, theirs: f"http://storage{path}",
    "dot": lambda path, mine, theirs: path.replace("/x_train", "/./x_train"),
    "parameters": lambda path, mine, theirs: f"{path};{theirs}",
    "without storage": lambda path, mine, theirs: path.removeprefix("/storage"),
    "a file outside": lambda path, mine, theirs: "/storage/..%2F..%2F..%2Fetc/passwd/0",
}


@pytest.fixture
def my_url(control, mine):
    """Path and query of a signed URL of my own, the headers that it needs, and the id of my upload."""

    def prepare():
        answer = mine.post("/tabpfn/prepare_train_set_upload", {"x_train_info": CSV, "y_train_info": CSV})
        url = urlsplit(answer["x_train_info"]["signed_urls"][0])
        return url.path, url.query, answer["x_train_info"]["required_headers"], answer["train_set_upload_id"]

    return prepare


@pytest.mark.parametrize("mode", ["gcs", "s3"])
@pytest.mark.parametrize("trick", TRICKS)
def test_no_trick_with_the_path_leads_anywhere(control, emulator, emulator_folder, my_url, theirs, mode, trick):
    control.configure(storage=mode)
    path, query, headers, upload = my_url()
    before = every_file(emulator_folder)
    tricky = TRICKS[trick](path, upload, theirs.train)
    assert tricky != path
    for method in ("PUT", "GET", "DELETE"):
        status, answer = exactly(method, emulator, f"{tricky}?{query}", headers, b"trick")
        assert status in {400, 401, 403, 404}
        assert theirs.train.encode() not in answer
    assert every_file(emulator_folder) == before
    assert exactly("PUT", emulator, f"{path}?{query}", headers, b"as signed")[0] == 200


@pytest.mark.parametrize(
    "change",
    [
        reversed,
        lambda parameters: [*parameters, parameters[0]],
        lambda parameters: [parameters[0], *parameters],
        lambda parameters: ["X-Expires=9999999999", *parameters],
        lambda parameters: [*parameters, "X-Expires=9999999999"],
        lambda parameters: [*parameters, "uploads="],
        lambda parameters: [*parameters, "versionId=1"],
        lambda parameters: parameters[:2],
        lambda parameters: parameters[1:],
        lambda parameters: [parameter.lower() for parameter in parameters],
        lambda parameters: [parameters[0], "X-SignedHeaders=", parameters[2]],
    ],
)
def test_no_change_of_the_query_is_accepted(emulator, emulator_folder, my_url, change):
    path, query, headers, _ = my_url()
    before = every_file(emulator_folder)
    changed = "&".join(change(query.split("&")))
    assert changed != query
    assert exactly("PUT", emulator, f"{path}?{changed}", headers, b"trick")[0] == 403
    assert every_file(emulator_folder) == before


def test_a_header_that_comes_twice_is_not_what_was_signed(emulator, emulator_folder, my_url):
    path, query, headers, _ = my_url()
    before = every_file(emulator_folder)
    for twice in ("x-goog-content-length-range", "X-Goog-Content-Length-Range"):
        connection = http.client.HTTPConnection(urlsplit(emulator).netloc, timeout=30)
        connection.putrequest("PUT", f"{path}?{query}")
        for name, value in [*headers.items(), (twice, "0,99999999999"), ("content-length", "1")]:
            connection.putheader(name, value)
        connection.endheaders(b"x")
        assert connection.getresponse().status == 403
        connection.close()
    assert every_file(emulator_folder) == before


def test_my_key_does_not_open_their_prediction(bare, mine, theirs):
    my_url, their_url = urlsplit(mine.artifact), urlsplit(theirs.artifact)
    assert bare.get(theirs.artifact).status_code == 200
    for path, query in [(their_url.path, my_url.query), (their_url.path, ""), (my_url.path, their_url.query)]:
        answer = bare.get(my_url._replace(path=path, query=query).geturl())
        assert answer.status_code == 403
        assert "predictions" not in answer.text


def test_my_key_does_not_open_their_download(bare, control, mine, theirs):
    def download(belongings):
        control.inject({"kind": "prediction_uri"})
        body = {
            "fitted_train_set_id": belongings.fitted,
            "test_set_upload_id": belongings.test,
            "task_config": TASK_CONFIG,
        }
        return urlsplit(belongings.post("/tabpfn/predict", body)["prediction_uri"])

    my_url, their_url = download(mine), download(theirs.owner)
    assert bare.get(their_url.geturl()).status_code == 200
    assert bare.get(their_url._replace(query=my_url.query).geturl()).status_code == 403
    assert bare.put(their_url.geturl(), content=b"[]").status_code == 403


def test_no_bearer_text_opens_a_registered_account(bare, emulator):
    email, password = f"{uuid.uuid4().hex}@example.com", "Correct-Horse-1"
    form = {"email": email, "password": password, "password_confirm": password, "validation_link": "tabpfn-2023"}
    bare.post(f"{emulator}/auth/register/", json=form).raise_for_status()
    # The account is not verified: whoever gets in is answered 403, a stranger's own account 200.
    texts = [email, f"{email} 0", f"{email} 1"]
    answers = [bare.get(f"{emulator}/protected/", headers={"Authorization": f"Bearer {text}"}) for text in texts]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
