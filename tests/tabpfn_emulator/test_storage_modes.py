"""The two kinds of object store behind the signed URLs, and uploads in many parts (contract section 3)."""

import base64
import hashlib
import socket
import time
import uuid
import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabpfn_emulator._bodies.requests import FileInfo
from tabpfn_emulator._settings import Settings
from tabpfn_emulator._storage.incoming import remove_unfinished
from tabpfn_emulator._storage.uploads import MAX_PARTS, PART_BYTES, parts_of
from tabpfn_emulator.testing import running_emulator

CSV = b"a,b\n1,2\n"
NO_HASH = {"x_train_info": {"format": "csv"}, "y_train_info": {"format": "csv"}}


@pytest.fixture
def opened(api):
    """Open an upload: `opened()` is its id and the FileUploadInfo of x_train."""

    def open_upload(**x_train_info):
        body = {**NO_HASH, "x_train_info": {"format": "csv", **x_train_info}}
        answer = api.post("/tabpfn/prepare_train_set_upload", body).raise_for_status().json()
        return answer["train_set_upload_id"], answer["x_train_info"]

    return open_upload


@pytest.fixture
def kept(emulator_folder):
    """What is on disk of an upload's x_train, by file name."""

    def read(upload):
        folder = Path(emulator_folder, "uploads", upload, "x_train")
        return {path.name: path.read_bytes() for path in folder.glob("*")}

    return read


def error_of(response):
    """The elements of a refusal, and that it is one."""
    assert response.headers["content-type"].startswith("application/xml")
    root = ET.fromstring(response.text)
    assert root.tag == "Error"
    return {element.tag: element.text for element in root}


def chunked(content):
    yield from (content[:3], content[3:])


def half_sent(url, headers, length_header, content):
    """A connection on which the head of a PUT and `content` have been sent."""
    parts = httpx.URL(url)
    lines = [f"PUT {parts.raw_path.decode()} HTTP/1.1", f"host: {parts.host}", length_header]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    connection = socket.create_connection((parts.host, parts.port), timeout=30)
    connection.sendall("\r\n".join([*lines, "", ""]).encode() + content)
    return connection


def until(condition):
    """Wait for something that the server does when it gets to it."""
    for _ in range(600):
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    pytest.fail("it has not happened within 30 s")


def test_google_takes_a_body_of_unknown_length(opened, bare, kept):
    upload, info = opened()
    put = bare.put(info["signed_urls"][0], content=chunked(CSV), headers=info["required_headers"])
    assert "transfer-encoding" in put.request.headers
    assert put.status_code == 200
    assert kept(upload) == {"00000.part": CSV}


def test_google_answers_with_the_hashes_of_what_has_arrived(opened, api, helpers):
    _, info = opened()
    (put,) = api.put(info, CSV)
    md5 = hashlib.md5(CSV)
    assert put.headers["etag"] == f'"{md5.hexdigest()}"'
    expected = f"crc32c={helpers.crc32c(CSV)},md5={base64.b64encode(md5.digest()).decode()}"
    assert put.headers["x-goog-hash"] == expected
    assert put.headers["x-goog-stored-content-length"] == "8"


def test_s3_wants_to_know_the_length_first(control, opened, bare, kept):
    control.configure(storage="s3")
    upload, info = opened()
    put = bare.put(info["signed_urls"][0], content=chunked(CSV), headers=info["required_headers"])
    assert (put.status_code, error_of(put)["Code"]) == (411, "MissingContentLength")
    with half_sent(info["signed_urls"][0], info["required_headers"], "accept: */*", b"") as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 411 ")
    assert kept(upload) == {}
    assert bare.put(info["signed_urls"][0], content=b"", headers=info["required_headers"]).status_code == 200


def test_s3_answers_with_an_etag_and_a_request_id(control, opened, api):
    control.configure(storage="s3")
    _, info = opened()
    (put,) = api.put(info, CSV)
    assert put.status_code == 200
    assert put.headers["etag"] == f'"{hashlib.md5(CSV).hexdigest()}"'
    assert put.headers["x-amz-request-id"]
    assert not [name for name in put.headers if name.startswith("x-goog-")]


def test_s3_signs_headers_of_its_own(control, opened, bare):
    control.configure(storage="s3")
    _, info = opened()
    assert set(info["required_headers"]) == {"content-type", "x-amz-server-side-encryption"}
    for missing in info["required_headers"]:
        headers = {name: value for name, value in info["required_headers"].items() if name != missing}
        refused = bare.put(info["signed_urls"][0], content=b"x", headers=headers)
        assert (refused.status_code, error_of(refused)["Code"]) == (403, "SignatureDoesNotMatch")


def test_s3_says_of_an_expired_url_that_access_is_denied(control, opened, api):
    control.configure(storage="s3", url_ttl_secs=-5)
    _, info = opened()
    (put,) = api.put(info, b"late")
    refusal = error_of(put)
    assert (put.status_code, refusal["Code"], refusal["Message"]) == (403, "AccessDenied", "Request has expired")
    assert refusal["Expires"] < refusal["ServerTime"]
    assert refusal["RequestId"] == put.headers["x-amz-request-id"]
    assert refusal["HostId"]


def test_s3_says_how_much_would_have_been_allowed(control, opened, api):
    control.configure(storage="s3", dataset_max_size_bytes=10)
    _, info = opened()
    (put,) = api.put(info, b"0123456789+")
    refusal = error_of(put)
    assert (put.status_code, refusal["Code"]) == (400, "EntityTooLarge")
    assert (refusal["ProposedSize"], refusal["MaxSizeAllowed"]) == ("11", "10")


@pytest.mark.parametrize("mode", ["gcs", "s3"])
def test_every_refusal_of_the_storage_host_is_xml(control, bare, mode):
    control.configure(storage=mode)
    for method, path in [
        ("GET", "/storage/"),
        ("PUT", f"/storage/{uuid.uuid4()}/x_train/0"),
        ("OPTIONS", f"/storage/{uuid.uuid4()}/x_train/one"),
        ("DELETE", "/storage/downloads/1/2/3?X-Expires=1&X-SignedHeaders=&X-Signature="),
    ]:
        refused = bare.request(method, control.url + path)
        assert (refused.status_code, error_of(refused)["Code"]) == (403, "SignatureDoesNotMatch")


@pytest.mark.parametrize("mode", ["gcs", "s3"])
def test_parts_make_a_model_in_either_mode(api, control, cancer, helpers, mode):
    control.configure(storage=mode, chunk_above_bytes=1000)
    frame, target = cancer
    fitted = api.fit(frame.head(60), target.head(60), "classification")
    puts = control.journal(route="/storage", account=api.account)
    assert len(puts) > 10
    assert {row["status"] for row in puts} == {200}
    assert api.predict(fitted, frame.tail(5), "classification").status_code == 200


def test_a_large_file_comes_in_parts_that_are_small_enough(control, opened):
    control.configure(chunk_above_bytes=1000)
    assert [len(opened(size_bytes=size)[1]["signed_urls"]) for size in (0, 1000, 1001, 3000)] == [1, 1, 2, 3]
    assert len(opened()[1]["signed_urls"]) == 1


sizes = st.none() | st.integers(0, 6 * 1024**3)


@given(sizes, st.booleans(), st.none() | st.integers(1, 6 * 1024**3), st.none() | st.integers(1, MAX_PARTS))
def test_the_number_of_parts(size, asked, above, configured):
    settings = Settings(chunk_above_bytes=above, upload_parts=configured)
    parts = parts_of(
        SimpleNamespace(settings=settings),
        FileInfo.model_validate({"format": "csv", "size_bytes": size, "use_chunks": asked}),
    )
    assert 1 <= parts <= MAX_PARTS
    large = above is not None and (size or 0) > above
    if configured is not None:
        assert parts == configured
    elif not large and not asked:
        assert parts == 1
    elif parts < MAX_PARTS:
        assert parts * (min(above, PART_BYTES) if large else PART_BYTES) >= (size or 0)


def test_a_body_without_length_that_grows_too_large_is_cut_off(control, opened, bare, kept):
    control.configure(dataset_max_size_bytes=10)
    upload, info = opened()
    put = bare.put(info["signed_urls"][0], content=chunked(b"0123456789+"), headers=info["required_headers"])
    assert (put.status_code, error_of(put)["Code"]) == (400, "EntityTooLarge")
    assert kept(upload) == {}


@pytest.mark.parametrize(
    ("mode", "length"),
    [
        ("gcs", "content-length: 3000000"),
        ("gcs", "transfer-encoding: chunked"),
        ("s3", "content-length: 3000000"),
    ],
)
def test_a_put_cut_half_way_leaves_what_was_there(api, control, opened, kept, mode, length):
    control.configure(storage=mode)
    upload, info = opened()
    api.put(info, b"whole")
    cut = b"x" * 1_500_000
    sent = cut if length[0] == "c" else b"%x\r\n%b\r\n" % (len(cut), cut)
    half_sent(info["signed_urls"][0], info["required_headers"], length, sent).close()
    until(lambda: [row for row in control.journal(route="/storage", account=api.account) if row["status"] == 400])
    assert kept(upload) == {"00000.part": b"whole"}


@pytest.mark.parametrize("mode", ["gcs", "s3"])
def test_an_upload_that_is_deleted_takes_no_more_bytes(api, control, opened, emulator_folder, mode):
    control.configure(storage=mode)
    upload, info = opened()
    folder = Path(emulator_folder, "uploads", upload)
    with half_sent(info["signed_urls"][0], info["required_headers"], "content-length: 6", b"one") as connection:
        until(lambda: list(Path(folder, "x_train").glob("*")))
        api.http.delete("/delete_dataset/", params={"dataset_uid": upload}).raise_for_status()
        connection.sendall(b"two")
        assert connection.recv(1000).startswith(b"HTTP/1.1 404 ")
    assert not folder.exists()
    (put,) = api.put(info, b"after")
    assert (put.status_code, error_of(put)["Code"]) == (404, "NoSuchBucket")
    assert not folder.exists()


@pytest.mark.parametrize(("mode", "refusal"), [("gcs", (400, "ExpiredToken")), ("s3", (403, "AccessDenied"))])
def test_a_url_that_has_worked_does_not_work_after_its_expiry(api, control, opened, kept, mode, refusal):
    control.configure(storage=mode, url_ttl_secs=4)
    upload, info = opened()
    assert api.put(info, b"in time")[0].status_code == 200
    until(lambda: time.time() >= info["expires_at"])
    (replay,) = api.put(info, b"too late")
    assert (replay.status_code, error_of(replay)["Code"]) == refusal
    assert kept(upload) == {"00000.part": b"in time"}


def test_urls_of_one_mode_survive_the_change_to_the_other(api, control, opened):
    _, google = opened()
    control.configure(storage="s3", dataset_max_size_bytes=3)
    _, amazon = opened()
    assert api.put(google, b"four")[0].status_code == 200
    assert api.put(amazon, b"four")[0].status_code == 400
    control.clear()
    assert api.put(amazon, b"four")[0].status_code == 200


def test_a_url_outlives_its_process_and_its_port(tmp_path, helpers):
    token = f"token-{uuid.uuid4()}"
    with running_emulator(tmp_path) as url:
        api = helpers.api(url, token)
        answer = api.post("/tabpfn/prepare_train_set_upload", NO_HASH).json()
        api.close()
    with running_emulator(tmp_path) as url:
        api = helpers.api(url, token)
        for name, content in (("x_train_info", b"a\n" + b"1\n2\n" * 20), ("y_train_info", b"b\n" + b"no\nyes\n" * 20)):
            info = answer[name]
            path = httpx.URL(info["signed_urls"][0]).raw_path.decode()
            put = api.storage.put(url + path, content=content, headers=info["required_headers"])
            assert put.status_code == 200
        body = {"train_set_upload_id": answer["train_set_upload_id"], "task": "classification"}
        assert api.post("/tabpfn/fit", body).json()["status"] == "completed"
        api.close()


def test_what_a_killed_process_was_receiving_is_removed(tmp_path):
    folder = tmp_path / "upload" / "x_train"
    folder.mkdir(parents=True)
    for name in ("00000.part", "00000.part.0af1.incoming", "00001.part.99.incoming"):
        (folder / name).touch()
    remove_unfinished(tmp_path)
    assert [path.name for path in folder.iterdir()] == ["00000.part"]


@pytest.mark.parametrize("length_range", ["0,99", "no range", ""])
def test_a_length_range_that_was_not_signed_allows_nothing(control, opened, bare, length_range):
    control.configure(storage="s3", dataset_max_size_bytes=3)
    _, info = opened()
    headers = {**info["required_headers"], "x-goog-content-length-range": length_range}
    assert bare.put(info["signed_urls"][0], content=b"four", headers=headers).status_code == 400
    assert bare.put(info["signed_urls"][0], content=b"two", headers=headers).status_code == 200


@pytest.mark.parametrize(("mode", "refusal"), [("gcs", (400, "ExpiredToken")), ("s3", (403, "AccessDenied"))])
def test_the_fault_of_an_expired_url_has_the_manners_of_its_mode(api, control, opened, mode, refusal):
    control.configure(storage=mode)
    _, info = opened()
    control.inject({"kind": "expired_url"})
    (put,) = api.put(info, CSV)
    assert (put.status_code, error_of(put)["Code"]) == refusal
    assert api.put(info, CSV)[0].status_code == 200
