"""Uploads and the storage behind the signed URLs (contract sections 1.1, 1.2, 1.7, 2.2, 3)."""

import socket
import time
import uuid
import xml.etree.ElementTree as ET

import httpx
import pytest

from tabpfn_emulator._bodies.requests import FileInfo
from tabpfn_emulator._envelopes import ApiError
from tabpfn_emulator._state.database import Database
from tabpfn_emulator._state.documents import Documents
from tabpfn_emulator._state.store import Store


@pytest.fixture
def prepared(api, cancer, helpers):
    frame, target = cancer
    x, y = helpers.parquet(frame.head(60)), helpers.parquet(target.head(60).to_frame())
    body = {"x_train_info": helpers.file_info(x), "y_train_info": helpers.file_info(y)}
    answer = api.post("/tabpfn/prepare_train_set_upload", body)
    assert answer.status_code == 200
    return body, answer.json(), x, y


def error_code(response):
    assert response.headers["content-type"].startswith("application/xml")
    return ET.fromstring(response.text).findtext("Code")


def test_a_prepared_upload_names_urls_expiry_and_headers(prepared):
    _, answer, _, _ = prepared
    assert uuid.UUID(answer["train_set_upload_id"])
    for name in ("x_train_info", "y_train_info"):
        assert len(answer[name]["signed_urls"]) == 1
        assert answer[name]["expires_at"] > time.time()
        assert answer[name]["required_headers"]


def test_a_put_needs_no_bearer_and_the_journal_says_whether_one_came(api, bare, control, prepared):
    _, answer, x, y = prepared
    api.put(answer["x_train_info"], x)
    with_bearer = {**answer["y_train_info"]["required_headers"], "Authorization": "Bearer x"}
    put = bare.put(answer["y_train_info"]["signed_urls"][0], content=y, headers=with_bearer)
    assert put.status_code == 200
    assert put.headers["etag"]
    rows = control.journal(route="/storage", account=api.account)
    assert [(row["bearer"], row["bytes_in"], row["ids"]["file"]) for row in rows] == [
        (False, len(x), "x_train"),
        (True, len(y), "y_train"),
    ]


@pytest.mark.parametrize("parts", [1, 3, 7])
def test_parts_are_joined_in_url_order(api, control, cancer, helpers, parts):
    control.configure(upload_parts=parts)
    frame, target = cancer
    fitted = api.fit(frame.head(60), target.head(60), "classification")
    assert len(control.journal(route="/storage", account=api.account)) == 2 * parts
    assert api.predict(fitted, frame.tail(5), "classification").status_code == 200


def test_chunks_are_used_when_the_request_asks(api, helpers):
    info = {"format": "parquet", "size_bytes": 130 * 1024**2, "use_chunks": True}
    body = {"x_train_info": info, "y_train_info": {"format": "parquet"}}
    answer = api.post("/tabpfn/prepare_train_set_upload", body).json()
    assert len(answer["x_train_info"]["signed_urls"]) == 3
    assert len(answer["y_train_info"]["signed_urls"]) == 1


def test_a_part_may_be_sent_again(api, prepared):
    _, answer, x, y = prepared
    api.put(answer["x_train_info"], b"cut short")
    api.put(answer["x_train_info"], x)
    api.put(answer["y_train_info"], y)
    body = {"train_set_upload_id": answer["train_set_upload_id"], "task": "classification"}
    assert api.post("/tabpfn/fit", body).status_code == 200


@pytest.mark.parametrize("storage", ["gcs", "s3"])
def test_the_bytes_of_a_fitted_train_set_cannot_be_changed(api, control, cancer, helpers, prepared, storage):
    _, answer, x, y = prepared
    api.put(answer["x_train_info"], x)
    api.put(answer["y_train_info"], y)
    fit = {"train_set_upload_id": answer["train_set_upload_id"], "task": "classification"}
    api.post("/tabpfn/fit", fit).raise_for_status()
    control.configure(storage=storage)
    (put,) = api.put(answer["x_train_info"], b"x")
    assert (put.status_code, error_code(put)) == (403, "AccessDenied")
    assert api.post("/tabpfn/fit", fit).status_code == 200


def test_a_part_that_is_on_its_way_while_the_fit_is_accepted_is_refused(api, prepared):
    _, answer, x, y = prepared
    info = answer["x_train_info"]
    api.put(info, x)
    api.put(answer["y_train_info"], y)
    fit = {"train_set_upload_id": answer["train_set_upload_id"], "task": "classification"}

    def slow():
        yield b"not what"
        api.post("/tabpfn/fit", fit).raise_for_status()
        yield b" was fitted"

    put = api.storage.put(info["signed_urls"][0], content=slow(), headers=info["required_headers"])
    assert (put.status_code, error_code(put)) == (403, "AccessDenied")
    assert api.post("/tabpfn/fit", fit).status_code == 200


def test_parts_that_come_again_after_a_refused_fit_are_read_again(api, control, cancer, helpers):
    control.configure(upload_parts=3)
    frame, target = cancer
    x, y = helpers.parquet(frame.head(60)), helpers.parquet(target.head(60).to_frame())
    body = {"x_train_info": helpers.file_info(x), "y_train_info": helpers.file_info(y)}
    answer = api.post("/tabpfn/prepare_train_set_upload", body).json()
    fit = {"train_set_upload_id": answer["train_set_upload_id"], "task": "classification"}
    api.put(answer["y_train_info"], y)
    api.put(answer["x_train_info"], x)
    control.configure(upload_parts=3, daily_tokens=1)
    # Read, found to be what was announced, and refused all the same.
    assert api.post("/tabpfn/fit", {**fit, "thinking_effort": "high"}).status_code == 429
    control.configure(upload_parts=3, daily_tokens=5_000_000)
    statuses = []
    for content in (bytes(len(x)), x):
        api.put(answer["x_train_info"], content)
        statuses.append(api.post("/tabpfn/fit", fit).status_code)
    assert statuses == [422, 200]


def test_what_was_deleted_is_no_duplicate_any_more(api, prepared):
    body, first, x, y = prepared
    second = api.post("/tabpfn/prepare_train_set_upload", body).json()
    for answer in (first, second):
        api.put(answer["x_train_info"], x)
        api.put(answer["y_train_info"], y)
    for answer in (second, first):
        upload = answer["train_set_upload_id"]
        duplicate = api.post("/tabpfn/prepare_train_set_upload", body)
        assert (duplicate.status_code, duplicate.json()["train_set_upload_id"]) == (409, upload)
        api.http.delete("/delete_dataset/", params={"dataset_uid": upload}).raise_for_status()
    assert api.post("/tabpfn/prepare_train_set_upload", body).status_code == 200


def test_many_uploads_are_deleted_at_once_or_none_of_them(tmp_path):
    database = Database(tmp_path / "emulator.sqlite3")
    folder = tmp_path / "uploads"
    folder.mkdir()
    store = Store(folder, Documents(database))
    one, two, foreign = (
        store.add_upload(owner, {"x_train": FileInfo(format="csv")}, {"x_train": 1}).upload_id
        for owner in ("mine", "mine", "theirs")
    )
    for upload_id in (one, two, foreign):
        (folder / upload_id / "x_train").mkdir(parents=True)
    with pytest.raises(ApiError):
        store.delete_many("mine", [one, foreign])
    assert len(list(folder.iterdir())) == 3
    assert store.delete_many("mine", [two, one, two]) == [two, one]
    assert store.delete_many("mine", []) == []
    assert [path.name for path in folder.iterdir()] == [foreign]
    again = Store(folder, Documents(database))
    assert [again.account_uploads("mine"), len(again.account_uploads("theirs"))] == [[], 1]
    database.close()


@pytest.mark.parametrize("missing", ["content-type", "x-goog-content-length-range"])
def test_a_missing_required_header_is_refused(bare, prepared, missing):
    _, answer, x, _ = prepared
    info = answer["x_train_info"]
    headers = {name: value for name, value in info["required_headers"].items() if name != missing}
    put = bare.put(info["signed_urls"][0], content=x, headers=headers)
    assert (put.status_code, error_code(put)) == (403, "SignatureDoesNotMatch")


def test_a_changed_required_header_is_refused(bare, prepared):
    _, answer, x, _ = prepared
    info = answer["x_train_info"]
    headers = {**info["required_headers"], "content-type": "text/plain"}
    assert bare.put(info["signed_urls"][0], content=x, headers=headers).status_code == 403


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_another_method_is_refused(bare, prepared, method):
    _, answer, _, _ = prepared
    info = answer["x_train_info"]
    sent = bare.request(method, info["signed_urls"][0], headers=info["required_headers"])
    assert (sent.status_code, error_code(sent)) == (403, "SignatureDoesNotMatch")


@pytest.mark.parametrize(
    "tamper",
    [
        lambda url: url.replace("/x_train/", "/y_train/"),
        lambda url: url.replace("/x_train/", "/x_train/../y_train/"),
        lambda url: url.replace("/x_train/", "/x_train%2F..%2Fy_train/"),
        lambda url: url.replace("X-Expires=1", "X-Expires=2"),
        lambda url: url[:-1] + ("0" if url[-1] != "0" else "1"),
        lambda url: url.split("?")[0],
        lambda url: url.replace("content-type", "accept"),
        lambda url: url + "%C3%A9",
    ],
    ids=["file", "dots", "encoded", "expiry", "signature", "bare", "headers", "not-ascii"],
)
def test_a_changed_url_is_refused(bare, prepared, tamper):
    _, answer, x, _ = prepared
    info = answer["x_train_info"]
    url = tamper(info["signed_urls"][0])
    assert url != info["signed_urls"][0]
    put = bare.put(url, content=x, headers=info["required_headers"])
    assert put.status_code in {403, 404}


def test_an_expired_url_is_refused_and_a_new_one_works(api, control, helpers):
    control.configure(url_ttl_secs=-1)
    body = {"x_train_info": {"format": "parquet"}, "y_train_info": {"format": "parquet"}}
    expired = api.post("/tabpfn/prepare_train_set_upload", body).json()["x_train_info"]
    (put,) = api.put(expired, b"late")
    assert (put.status_code, error_code(put)) == (400, "ExpiredToken")
    control.clear()
    (put,) = api.put(api.post("/tabpfn/prepare_train_set_upload", body).json()["x_train_info"], b"in time")
    assert put.status_code == 200


def test_more_bytes_than_the_limit_are_refused(api, control):
    control.configure(dataset_max_size_bytes=10)
    body = {"x_train_info": {"format": "csv"}, "y_train_info": {"format": "csv"}}
    info = api.post("/tabpfn/prepare_train_set_upload", body).json()["x_train_info"]
    assert [put.status_code for put in api.put(info, b"0123456789")] == [200]
    (put,) = api.put(info, b"0123456789+")
    assert (put.status_code, error_code(put)) == (400, "EntityTooLarge")
    body["x_train_info"]["size_bytes"] = 11
    assert api.post("/tabpfn/prepare_train_set_upload", body).status_code == 422


def test_the_same_bytes_are_a_duplicate_once_they_have_arrived(api, other_api, prepared):
    body, first, x, y = prepared
    unfinished = api.post("/tabpfn/prepare_train_set_upload", body)
    assert unfinished.status_code == 200
    api.put(first["x_train_info"], x)
    api.put(first["y_train_info"], y)
    duplicate = api.post("/tabpfn/prepare_train_set_upload", body)
    assert duplicate.status_code == 409
    assert duplicate.json()["error_code"] == "DUPLICATE_TRAIN_SET_UPLOAD"
    assert duplicate.json()["train_set_upload_id"] == first["train_set_upload_id"]
    assert uuid.UUID(duplicate.json()["trace_id"])
    assert api.post("/tabpfn/prepare_train_set_upload", {**body, "force_reupload": True}).status_code == 200
    assert other_api.post("/tabpfn/prepare_train_set_upload", body).status_code == 200


def test_without_hashes_there_are_no_duplicates(api, cancer, helpers):
    frame, target = cancer
    x, y = helpers.parquet(frame.head(30)), helpers.parquet(target.head(30).to_frame())
    body = {"x_train_info": {"format": "parquet"}, "y_train_info": {"format": "parquet"}}
    for _ in range(2):
        answer = api.post("/tabpfn/prepare_train_set_upload", body)
        assert answer.status_code == 200
        api.put(answer.json()["x_train_info"], x)
        api.put(answer.json()["y_train_info"], y)


def test_a_duplicate_may_name_an_upload_that_never_finished(api, control, prepared):
    body, first, _, _ = prepared
    control.configure(duplicate_unfinished=True)
    duplicate = api.post("/tabpfn/prepare_train_set_upload", body)
    assert duplicate.json()["train_set_upload_id"] == first["train_set_upload_id"]
    fit = {"train_set_upload_id": first["train_set_upload_id"], "task": "classification"}
    assert api.post("/tabpfn/fit", fit).status_code == 422


def test_test_set_duplicates_are_bound_to_one_model(api, cancer, helpers):
    frame, target = cancer
    one = api.fit(frame.head(40), target.head(40), "classification")
    two = api.fit(frame.head(41), target.head(41), "classification")
    content = helpers.parquet(frame.tail(4))
    upload = api.upload_test(one, content)
    body = {"fitted_train_set_id": one, "x_test_info": helpers.file_info(content)}
    duplicate = api.post("/tabpfn/prepare_test_set_upload", body)
    assert (duplicate.status_code, duplicate.json()["error_code"]) == (409, "DUPLICATE_TEST_SET_UPLOAD")
    assert duplicate.json()["test_set_upload_id"] == upload
    assert api.post("/tabpfn/prepare_test_set_upload", {**body, "fitted_train_set_id": two}).status_code == 200


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [("hash", "AAAAAA==", "CRC32C"), ("size_bytes", 5, "5 were announced")],
)
def test_bytes_that_differ_from_what_was_announced_cannot_be_fitted(api, prepared, field, value, words):
    body, _, x, y = prepared
    body["x_train_info"][field] = value
    answer = api.post("/tabpfn/prepare_train_set_upload", body).json()
    api.put(answer["x_train_info"], x)
    api.put(answer["y_train_info"], y)
    refused = api.post("/tabpfn/fit", {"train_set_upload_id": answer["train_set_upload_id"], "task": "classification"})
    assert refused.status_code == 422
    assert words in refused.json()["message"]


def test_an_upload_cut_half_way_is_not_there(api, control, prepared):
    _, answer, x, y = prepared
    url = httpx.URL(answer["x_train_info"]["signed_urls"][0])
    headers = {**answer["x_train_info"]["required_headers"], "host": url.host, "content-length": str(len(x))}
    lines = [f"PUT {url.raw_path.decode()} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    with socket.create_connection((url.host, url.port)) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + x[: len(x) // 2])
    api.put(answer["y_train_info"], y)
    body = {"train_set_upload_id": answer["train_set_upload_id"], "task": "classification"}
    refused = api.post("/tabpfn/fit", body)
    assert (refused.status_code, "not complete" in refused.json()["message"]) == (422, True)


@pytest.mark.parametrize(
    "change",
    [
        {"x_train_info": {"format": "xlsx"}},
        {"x_train_info": {"format": "csv", "filename": "x.csv"}},
        {"y_train_info": None},
        {"colour": "blue"},
    ],
)
def test_bodies_that_the_contract_does_not_know_are_refused(api, change):
    body = {"x_train_info": {"format": "csv"}, "y_train_info": {"format": "csv"}, **change}
    refused = api.post("/tabpfn/prepare_train_set_upload", body)
    assert (refused.status_code, refused.json()["error_code"]) == (422, "REQUEST_VALIDATION_ERROR")


def test_a_test_set_for_an_unknown_or_foreign_model_is_404(api, other_api, cancer):
    frame, target = cancer
    theirs = other_api.fit(frame.head(40), target.head(40), "classification")
    for fitted in (str(uuid.uuid4()), theirs):
        body = {"fitted_train_set_id": fitted, "x_test_info": {"format": "csv"}}
        refused = api.post("/tabpfn/prepare_test_set_upload", body)
        assert (refused.status_code, refused.json()["error_code"]) == (404, "NOT_FOUND")
