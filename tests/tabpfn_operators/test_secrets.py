"""Nothing secret leaves: tokens, signed URLs and storage keys are in no log, output, record, error or pickle."""

import json
import logging
import pickle
import re
import urllib.request

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tabpfn_assets import FittedModel, PredictionSet
from tabpfn_emulator.testing import account_of
from tabpfn_operators.errors import ConfigurationError, DestinationError, InvalidInputError, TabPFNError

KEY, SECRET, SIGNATURE = "canary-key-4711", "canary-secret-4711", "canary-signature-4711"


class KeyedFileSystem(MemoryFileSystem):
    """Storage that takes its credentials from the URL and from options, as s3fs and adlfs can."""

    protocol = ("keyed",)
    cachable = False

    @classmethod
    def _strip_protocol(cls, path):
        path = path.partition("?")[0]
        return super()._strip_protocol(re.sub(r"^keyed://([^/@]*@)?", "memory://", path))


@pytest.fixture(autouse=True)
def keyed_storage():
    fsspec.register_implementation("keyed", KeyedFileSystem, clobber=True)


@pytest.fixture
def everything_logged(caplog):
    """All logging at DEBUG, that of httpx and httpcore too."""
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore", "tabpfn_operators"):
        caplog.set_level(logging.DEBUG, name)
    return caplog


def signed_urls(caplog):
    """Return what looks like the emulator's signed URLs, or a part of one."""
    return re.findall(r"/storage/[0-9a-f-]{36}|X-Goog-Signature=\w+|signature=\w+", caplog.text, re.IGNORECASE)


def test_logs_hold_no_token_and_no_signed_url(
    client, control, fit_once, classification, bearer, tmp_path, everything_logged, journal
):
    control.configure(upload_parts=2)
    control.inject(
        {"kind": "status", "route": "/storage", "method": "PUT", "status": 503},
        {"kind": "status", "route": "/tabpfn/get_settings", "status": 500, "error": f"who is {bearer}?"},
        {"kind": "prediction_uri"},
    )
    client.predict(fit_once(classification), classification.score, str(tmp_path / "out"))
    assert len(journal.puts()) == 7
    assert "HTTP Request: PUT" in everything_logged.text  # httpx did log
    assert "who is ***?" in everything_logged.text
    assert bearer not in everything_logged.text
    assert "Bearer" not in everything_logged.text
    assert signed_urls(everything_logged) == []


def test_no_put_and_no_download_carries_the_token(client, control, fit_once, classification, tmp_path, journal):
    control.inject({"kind": "prediction_uri"})
    client.predict(fit_once(classification), classification.score, str(tmp_path / "out"))
    storage = journal.rows("/storage")
    assert sorted(row["method"] for row in storage) == ["GET", "PUT", "PUT", "PUT"]
    assert [row["bearer"] for row in storage] == [False] * 4
    assert {row["account"] for row in journal.rows("/tabpfn/predict")}  # the others did


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 401},
        {"kind": "status", "status": 422},
        {"kind": "status", "status": 429, "error_code": "INSUFFICIENT_QUOTA"},
        {"kind": "status", "status": 500},
        {"kind": "status", "status": 502},
        {"kind": "status", "status": 418, "body": "text"},
        {"kind": "streamed_error"},
        {"kind": "drop"},
    ],
    ids=lambda fault: str(fault.get("status", fault["kind"])),
)
def test_errors_hold_no_token(client, control, fit_once, regression, bearer, tmp_path, fault):
    model = fit_once(regression)
    if isinstance(fault.get("body"), str):
        fault = {**fault, "body": f"who is {bearer}?"}
    control.inject({"route": "/tabpfn/predict", "error": f"who is {bearer}?", **fault})
    with pytest.raises(TabPFNError) as caught:
        client.predict(model, regression.score, str(tmp_path / "out"))
    error = caught.value
    for shown in chain(error):
        assert bearer not in repr(shown) + str(shown) + repr(vars(shown))
    assert bearer.encode() not in pickle.dumps(error)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), vars(again)) == (str(error), vars(error))


def chain(error):
    """The error, and those that led to it, which a traceback would print."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_a_client_shows_no_token(connect, bearer):
    client = connect(proxy=f"http://{KEY}:{SECRET}@127.0.0.1:9")
    for shown in (repr(client), repr(client.settings), client.settings.model_dump_json(), str(client.settings)):
        assert bearer not in shown
        assert SECRET not in shown


def test_records_hold_no_token_no_storage_key_and_no_option(
    client, classification, bearer, everything_logged, write, capfd
):
    memory = fsspec.filesystem("memory")
    for name, path in (("train", classification.train), ("score", classification.score)):
        with open(path, "rb") as file:
            memory.pipe_file(f"/{bearer[-8:]}/{name}.parquet", file.read())
    base = f"keyed://{KEY}:{SECRET}@bucket/{bearer[-8:]}"
    query = f"?sig={SIGNATURE}"
    for name in ("train", "score"):
        memory.mv(f"/{bearer[-8:]}/{name}.parquet", f"/bucket/{bearer[-8:]}/{name}.parquet")
    seen = []
    options = {"client_kwargs": {"secret": SIGNATURE}}
    model = client.fit(
        f"{base}/train.parquet{query}",
        "outcome",
        parameters=classification.parameters,
        streamed=True,
        storage_options=options,
        progress=seen.append,
    )
    record = client.predict(
        model,
        f"{base}/score.parquet{query}",
        f"{base}/out{query}",
        storage_options=options,
        destination_options=options,
        progress=seen.append,
    )
    assert model.source.uris == (f"keyed://bucket/{bearer[-8:]}/train.parquet",)
    assert record.uri == f"keyed://bucket/{bearer[-8:]}/out/predictions.parquet"
    lineage = memory.cat_file(f"/bucket/{bearer[-8:]}/out/_lineage.json").decode()
    assert PredictionSet.model_validate_json(lineage) == record
    predictions = memory.cat_file(f"/bucket/{bearer[-8:]}/out/predictions.parquet")
    out, err = capfd.readouterr()
    for secret in (bearer, KEY, SECRET, SIGNATURE):
        for text in (lineage, model.model_dump_json(), repr(model), everything_logged.text, repr(seen), out, err):
            assert secret not in text
        assert secret.encode() not in predictions
        assert secret.encode() not in pickle.dumps((model, record))


@pytest.mark.parametrize("kind", ["source", "destination"])
def test_errors_of_storage_hold_no_key(client, fit_once, regression, kind):
    url = f"keyed://{KEY}:{SECRET}@bucket/nowhere/at/all?sig={SIGNATURE}"
    model = fit_once(regression)
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/bucket/nowhere", b"a file where a folder should be")
    call = (url, "memory://out") if kind == "source" else (regression.score, url)
    with pytest.raises((InvalidInputError, DestinationError)) as caught:
        client.predict(model, *call)
    fs.rm("/bucket/nowhere")
    shown = "".join(repr(error) + str(error) for error in chain(caught.value))
    assert "keyed://bucket/nowhere/at/all" in shown
    for secret in (KEY, SECRET, SIGNATURE):
        assert secret not in shown


def test_errors_of_settings_hold_no_secret(connect):
    for arguments in (
        {"base_url": f"https://{KEY}:{SECRET}@api.example.com"},
        {"base_url": f"https://api.example.com/?key={SECRET}"},
        {"proxy": {"url": SECRET}, "base_url": "https://api.example.com"},
    ):
        with pytest.raises(ConfigurationError) as caught:
            connect(SECRET, **arguments)
        for error in chain(caught.value):
            assert SECRET not in str(error) + repr(error)


def test_the_command_line_prints_no_token(cli, bearer, classification, control, tmp_path):
    texts = []
    fit = ("fit", classification.train, "--target", "outcome", "--task", "classification")
    ran = cli(*fit, "--output", tmp_path / "model", "--json")
    texts += [ran.out, ran.err, (tmp_path / "model" / "model.json").read_text()]
    assert FittedModel.model_validate_json(ran.out)
    ran = cli("predict", tmp_path / "model" / "model.json", classification.score, tmp_path / "out")
    texts += [ran.out, ran.err, (tmp_path / "out" / "_lineage.json").read_text()]
    control.inject({"kind": "status", "route": "/tabpfn/get_settings", "status": 401, "error": f"who is {bearer}?"})
    ran = cli(*fit)
    assert (ran.code, "who is ***?" in ran.err) == (3, True)
    texts += [ran.out, ran.err]
    assert not [text for text in texts if bearer in text]


def test_the_token_cannot_be_an_option(cli):
    ran = cli("fit", "x.parquet", "--target", "y", "--task", "regression", "--token", "canary")
    assert ran.code == 2
    assert "No such option" in ran.err


def test_a_redirect_to_another_host_gets_no_token(client, control, emulator, journal):
    other = emulator.replace("127.0.0.1", "localhost")
    control.inject(
        {"kind": "status", "route": "/protected/", "status": 307, "headers": {"Location": f"{other}/get_api_usage/"}}
    )
    with pytest.raises(TabPFNError):
        client.check_token()
    assert journal.routes() == ["/protected/"]
    control.inject(
        {"kind": "status", "route": "/protected/", "status": 307, "headers": {"Location": "/protected/?a=b"}}
    )
    client.check_token()
    assert [row["status"] for row in journal.rows("/protected/")] == [307, 307, 200]


def test_the_emulator_itself_keeps_no_token(client, fit_once, classification, bearer, emulator, emulator_folder):
    fit_once(classification)
    with urllib.request.urlopen(f"{emulator}/_emulator/journal") as answer:
        rows = json.load(answer)
    assert account_of(bearer) in {row["account"] for row in rows}
    assert bearer not in json.dumps(rows)
    kept = b"".join(path.read_bytes() for path in emulator_folder.glob("emulator.sqlite3*"))
    assert account_of(bearer).encode() in kept
    assert bearer.encode() not in kept
