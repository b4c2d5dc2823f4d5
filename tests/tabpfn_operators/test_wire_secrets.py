"""Nothing secret leaves (design.md, promise 5): not in logs, errors, tracebacks, pickles, or to a storage host."""

import io
import json
import logging
import pickle
import traceback

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tabpfn_assets import FitParameters
from tabpfn_operators.errors import ApiError, InvalidInputError, ServerError, TabPFNError

SIGNATURE = "S1gnatureS1gnature"
UPLOADED = "/store/unguessable-S1gnatureS1gnature/part"


@pytest.fixture
def log():
    """Everything that any logger says, as text; handlers see what filters left."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(name)s %(message)s %(args)s"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream.getvalue
    root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "train.parquet"
    pq.write_table(pa.table({"a": [1.0, 2.0, 3.0, 4.0], "y": [1.5, 2.5, 3.5, 4.5]}), path)
    return str(path)


class Api:
    """The routes of the main flow; `failing` answers take the place of the usual ones."""

    def __init__(self, storage_url=None):
        self.url = None
        self.storage_url = storage_url
        self.failing = {}

    def __call__(self, seen):
        path = seen.path.split("?")[0]
        if path in self.failing:
            return self.failing[path]
        if path.startswith("/store/"):
            return (200, [1.0, 2.0, 3.0, 4.0]) if seen.method == "GET" else (200, b"")
        return 200, self.answers()[path]

    def answers(self):
        signed = f"{self.storage_url or self.url}{UPLOADED}?X-Signature={SIGNATURE}"
        file = {"signed_urls": [f"{signed}&part=0", f"{signed}&part=1"], "required_headers": {"x-store": SIGNATURE}}
        return {
            "/protected/": {},
            "/tabpfn/get_settings": {"max_model_limit": {}},
            "/tabpfn/prepare_train_set_upload": {
                "train_set_upload_id": "u",
                "x_train_info": file,
                "y_train_info": file,
            },
            "/tabpfn/submit_fit_job": {"fitted_train_set_id": "f"},
            "/tabpfn/get_fit_status": {"fitted_train_set_id": "f", "status": "completed"},
            "/tabpfn/prepare_test_set_upload": {"test_set_upload_id": "t", "x_test_info": file},
            "/tabpfn/predict": {"metadata": {}, "timings": {}, "prediction_uri": signed},
        }


@pytest.fixture
def api(loopback):
    """An API and, on another host, its storage."""
    api = Api()
    api.server = loopback(api)
    api.storage = loopback(api)
    api.url = api.server.url
    api.storage_url = api.storage.url
    return api


def everything(driver, source, folder):
    # A server that cannot be asked about a fit is asked until the deadline.
    model = driver("fit", source, "y", parameters=FitParameters(task="regression"), timeout=0.1)
    return driver("predict", model, source, str(folder))


def text_of(error):
    """Everything that a log, a pickle or a debugger's text could show of an error and of what led to it."""
    shown, queue, seen = [], [error], set()
    while queue:
        one = queue.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        shown += [repr(one), str(one), repr(one.args), repr(vars(one)), *getattr(one, "__notes__", [])]
        shown += traceback.format_exception(one)
        queue += [one.__cause__, one.__context__]
    return "\n".join(shown) + pickle.dumps(error).decode("latin-1")


def assert_silent(text, *secrets):
    assert [secret for secret in secrets if secret in text] == []


def test_the_bearer_goes_to_the_api_and_nowhere_else(api, drive, source, tmp_path, token):
    record = everything(drive(api.url), source, tmp_path / "out")
    assert {seen.headers.get("authorization") for seen in api.server.seen} == {f"Bearer {token}"}
    assert [seen.method for seen in api.storage.seen] == ["PUT"] * 6 + ["GET"]
    for seen in api.storage.seen:
        assert token not in f"{seen.path} {dict(seen.headers)}"
        assert "authorization" not in seen.headers
    assert record.rows == 4


def test_required_headers_go_to_the_store_as_they_are(api, drive, source, tmp_path):
    everything(drive(api.url), source, tmp_path / "out")
    puts = [seen for seen in api.storage.seen if seen.method == "PUT"]
    assert {seen.headers["x-store"] for seen in puts} == {SIGNATURE}


def test_logs_at_debug_hold_no_token_and_no_signed_url(api, drive, source, tmp_path, token, log):
    everything(drive(api.url), source, tmp_path / "out")
    text = log()
    assert "httpcore" in text
    assert "HTTP Request: PUT" in text
    assert_silent(text, token, SIGNATURE, "unguessable")


def test_records_hold_no_token_and_no_signed_url(api, drive, source, tmp_path, token):
    record = everything(drive(api.url), source, tmp_path / "out")
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir()).decode("latin-1")
    assert_silent(written + record.model_dump_json() + repr(record), token, SIGNATURE)


BILLED = ["/tabpfn/submit_fit_job", "/tabpfn/predict"]
FREE = ["/tabpfn/get_settings", "/tabpfn/prepare_train_set_upload", "/tabpfn/get_fit_status"]


def failure(kind, path, token):
    said = f"Bearer {token} is not for {UPLOADED}?X-Signature={SIGNATURE}" if path == UPLOADED else f"Bearer {token}"
    if (kind, path) == ("streamed", UPLOADED):
        return 403, said.encode()  # a store's 200 is a success, whatever it says
    return {
        "dropped": None,
        "cut": f"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n{said}".encode(),
        "echo": (401, {"message": said, "error_code": "UNAUTHORIZED", "trace_id": "t"}),
        "streamed": (200, {"_streamed_error": True, "message": said, "error_code": token, "trace_id": token}),
        "text": (500, said.encode()),
        "422": (422, {"detail": [{"loc": ["header", said], "msg": said}]}),
        "redirect": (307, {}, {"location": f"http://127.0.0.1:9/{SIGNATURE}?X-Signature={SIGNATURE}"}),
    }[kind]


@pytest.mark.parametrize("path", [*BILLED, *FREE, UPLOADED])
@pytest.mark.parametrize("kind", ["dropped", "cut", "echo", "streamed", "text", "422", "redirect"])
def test_no_error_and_no_log_of_it_holds_a_secret(api, drive, source, tmp_path, token, no_waiting, log, path, kind):
    api.failing[path] = failure(kind, path, token)
    with pytest.raises(TabPFNError) as caught:
        everything(drive(api.url), source, tmp_path / "out")
    assert_silent(text_of(caught.value) + log(), token, SIGNATURE, "unguessable")


def test_a_signed_address_that_cannot_be_reached(api, drive, source, tmp_path, token, no_waiting, log):
    api.storage_url = "http://127.0.0.1:1"
    with pytest.raises(TabPFNError) as caught:
        everything(drive(api.url), source, tmp_path / "out")
    assert_silent(text_of(caught.value) + log(), token, SIGNATURE, "unguessable")


@pytest.mark.parametrize("host", ["http://127.0.0.1:port", "http://[::1", "gopher://host"])
def test_a_signed_address_that_is_none(api, drive, source, tmp_path, token, no_waiting, log, host):
    api.storage_url = host
    with pytest.raises(TabPFNError) as caught:
        everything(drive(api.url), source, tmp_path / "out")
    assert_silent(text_of(caught.value) + log(), token, SIGNATURE, "unguessable")


@pytest.mark.parametrize("where", ["upload", "prediction"])
def test_an_unencrypted_storage_of_an_encrypted_api_is_refused(drive, monkeypatch, source, tmp_path, where, token):
    """The API base is https here, so its answers are given without a network."""
    from tabpfn_operators import _wire
    from tabpfn_operators._messages import Response

    api = Api("https://store.example")
    insecure = {"upload": "/tabpfn/prepare_train_set_upload", "prediction": "/tabpfn/predict"}[where]
    sent = []

    async def send(self, request):
        sent.append(request.url)
        if not request.url.startswith("/"):
            return Response(200, {}, b"")
        text = json.dumps(api.answers()[request.url])
        text = text.replace("https://store", "http://store") if request.url == insecure else text
        return Response(200, {}, text.encode())

    monkeypatch.setattr(_wire.SyncWire, "send", send)
    monkeypatch.setattr(_wire.AsyncWire, "send", send)
    kind = {"upload": InvalidInputError, "prediction": ApiError}[where]
    with pytest.raises(kind, match="not https") as caught:
        everything(drive("https://api.example"), source, tmp_path / "out")
    assert [url for url in sent if url.startswith("http://")] == []
    assert_silent(text_of(caught.value), token, SIGNATURE)


def test_a_token_functions_failure_shows_no_earlier_token(loopback, drive, token):
    asked = []

    def once():
        asked.append(1)
        if len(asked) > 1:
            raise ServerError("the vault is closed")
        return token

    driver = drive(loopback(lambda seen: (200, {})).url, token=once)
    driver("check_token")
    with pytest.raises(ServerError, match="vault") as caught:
        driver("check_token")
    assert token not in text_of(caught.value)
