"""Callers who hang up, lose their account half way, or come with nothing but a signed URL: what the books say then."""

import socket
import time
from http.client import HTTPConnection

import httpx
import pytest

from tabpfn_emulator._bodies.requests import FileInfo
from tabpfn_emulator._state.database import Database
from tabpfn_emulator._state.documents import Documents
from tabpfn_emulator._state.store import Store

PREPARE = {"x_train_info": {"format": "csv"}, "y_train_info": {"format": "csv"}}
SMALL = b"a,target\n1,2\n2,3\n"


def until(ask):
    for _ in range(600):
        if found := ask():
            return found
        time.sleep(0.05)
    raise AssertionError("it never came to that")


def form(api, content=SMALL):
    """A legacy fit as it goes over the wire: headers and body."""
    parts = {"data": (None, '{"task": "regression"}'), "dataset_file": ("d.csv", content)}
    request = api.http.build_request("POST", "/v1/fit", files=parts)
    return dict(request.headers), request.read()


def asks(api, path, headers, body):
    """Send a request of which only a half arrives; returns the connection and the other half."""
    connection = HTTPConnection(httpx.URL(str(api.http.base_url)).netloc.decode(), timeout=30)
    connection.putrequest("POST", path, skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    half = len(body) // 2
    connection.endheaders(body[:half])
    return connection, body[half:]


@pytest.mark.parametrize("path", ["/tabpfn/prepare_train_set_upload", "/v1/reasoning/fit", "/v1/fit"])
def test_a_caller_who_hangs_up_in_the_middle_of_a_body_is_no_failure_of_the_emulator(api, control, path):
    request = api.http.build_request("POST", path, json=PREPARE)
    headers, body = form(api) if path == "/v1/fit" else (dict(request.headers), request.read())
    connection, _ = asks(api, path, headers, body)
    until(lambda: control.journal(route=path, account=api.account))
    connection.close()
    (row,) = until(lambda: [each for each in control.journal(account=api.account) if each["seconds"] is not None])
    assert row["status"] == 499
    assert control.creations(account=api.account) == []


@pytest.mark.parametrize("path", ["/tabpfn/prepare_train_set_upload", "/v1/fit"])
def test_who_loses_the_account_while_the_body_is_on_its_way_makes_nothing_there(api, control, path):
    request = api.http.build_request("POST", path, json=PREPARE)
    headers, body = form(api) if path == "/v1/fit" else (dict(request.headers), request.read())
    connection, rest = asks(api, path, headers, body)
    until(lambda: control.journal(route=path, account=api.account))
    api.http.delete("/delete_user_account/").raise_for_status()
    connection.send(rest)
    assert connection.getresponse().status == 401
    connection.close()
    assert control.creations(account=api.account) == []
    assert control.fits(account=api.account) == []


def test_a_legacy_fit_that_fails_when_its_caller_has_gone_leaves_no_upload(api, control):
    control.configure(fit_seconds=2)
    control.inject(kind="fail_fit", route="/v1/fit")
    headers, body = form(api)
    connection, rest = asks(api, "/v1/fit", headers, body)
    connection.send(rest)
    until(lambda: control.fits(account=api.account))
    connection.close()
    until(lambda: [row for row in control.journal(account=api.account) if row["status"] == 499])
    until(lambda: [fit for fit in control.fits(account=api.account) if fit["status"] == "failed"])
    assert api.http.get("/get_data_summary/").json() == {"datasets": [], "fitted_train_set_ids": []}


def test_a_draft_is_listed_nowhere_and_swept_by_the_next_start(tmp_path):
    database = Database(tmp_path / "emulator.sqlite3")
    folder = tmp_path / "uploads"
    folder.mkdir()
    store = Store(folder, Documents(database))
    draft, kept = (
        store.draft("ann", {"x_train": FileInfo(format="csv")}, {"x_train": 1}, fitted_id=None) for _ in range(2)
    )
    for upload in (draft, kept):
        upload.files["x_train"].part_path(0).parent.mkdir(parents=True)
        upload.files["x_train"].part_path(0).write_bytes(SMALL)
    store.add(kept, "in words")
    for upload in (draft, kept):
        store.discard(upload)
    assert [path.name for path in folder.iterdir()] == [kept.upload_id]
    draft.files["x_train"].part_path(0).parent.mkdir(parents=True)
    again = Store(folder, Documents(database))
    assert [upload.upload_id for upload in again.account_uploads("ann")] == [kept.upload_id]
    assert [path.name for path in folder.iterdir()] == [kept.upload_id]
    database.close()


def storage_rows(control, api):
    return [(row["method"], row["status"]) for row in control.journal(route="/storage", account=api.account)]


def test_a_signed_url_says_whose_request_it_is_whatever_becomes_of_it(api, control, bare):
    control.inject(
        {"kind": "status", "status": 503, "route": "/storage"},
        {"kind": "drop", "route": "/storage"},
        {"kind": "expired_url"},
    )
    info = api.post("/tabpfn/prepare_train_set_upload", PREPARE).json()["x_train_info"]
    assert [put.status_code for put in api.put(info, SMALL)] == [503]
    with pytest.raises(httpx.HTTPError):
        api.put(info, SMALL)
    assert [put.status_code for put in api.put(info, SMALL)] == [400]
    bare.put(info["signed_urls"][0] + "x", content=SMALL, headers=info["required_headers"])
    control.configure(url_ttl_secs=0)
    late = api.post("/tabpfn/prepare_train_set_upload", PREPARE).json()["x_train_info"]
    assert [put.status_code for put in api.put(late, SMALL)] == [400]
    assert storage_rows(control, api) == [("PUT", 503), ("PUT", None), ("PUT", 400), ("PUT", 400)]


def test_a_download_is_its_owners(api, bare, control, cancer):
    fitted = api.fit(cancer[0].head(30), cancer[1].head(30), "classification")
    control.inject(kind="prediction_uri")
    answer = api.predict(fitted, cancer[0].tail(2), "classification").raise_for_status().json()
    before = storage_rows(control, api)
    bare.get(answer["prediction_uri"]).raise_for_status()
    assert storage_rows(control, api)[len(before) :] == [("GET", 200)]


def test_a_head_has_no_body_in_the_books(api, control):
    assert api.http.head("/protected/").status_code == 200
    assert api.http.get("/protected/").status_code == 200
    head, get = control.journal(route="/protected/", account=api.account)
    assert (head["bytes_out"], get["bytes_out"]) == (0, len(api.http.get("/protected/").content))


def test_a_half_closed_connection_is_a_caller_who_is_gone(api, control):
    url = httpx.URL(control.url)
    with socket.create_connection((url.host, url.port), timeout=30) as connection:
        head = (
            f"POST /tabpfn/fit HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.token}\r\nContent-Length: 9\r\n\r\n{{"
        )
        connection.sendall(head.encode())
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    (row,) = until(lambda: [each for each in control.journal(account=api.account) if each["seconds"] is not None])
    assert row["status"] == 499


def test_a_request_that_a_kill_has_interrupted_is_its_owners(server):
    running = server("--latency", "/protected/=60")
    api = running.api("a")
    connection = HTTPConnection(httpx.URL(running.url).netloc.decode(), timeout=30)
    connection.request("GET", "/protected/", headers={"Authorization": f"Bearer {api.token}"})
    until(lambda: running.control.journal(route="/protected/"))
    running.restart()
    connection.close()
    (row,) = running.control.journal(route="/protected/")
    assert (row["account"], row["status"]) == (api.account, None)
