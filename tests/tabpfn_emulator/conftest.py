"""Callers of the API, each with an account of its own; the emulator comes from tests/conftest.py."""

import base64
import io
import ssl
import struct
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import google_crc32c
import httpx
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes

from tabpfn_emulator.testing import EmulatorControl, account_of

# Nothing here is https: an empty context spares each client the reading of all certificates.
_NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _client(**options: Any) -> httpx.Client:
    return httpx.Client(timeout=30, trust_env=False, verify=_NO_CERTIFICATES, **options)


class Api:
    """A bare-bones caller of the API: says what the contract says, checks nothing."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self.token = token or f"token-{uuid.uuid4()}"
        self.account = account_of(self.token)
        self.http = _client(base_url=url, headers={"Authorization": f"Bearer {self.token}"})
        self.storage = _client()

    def close(self) -> None:
        self.http.close()
        self.storage.close()

    def post(self, path: str, body: Any) -> httpx.Response:
        return self.http.post(path, json=body)

    def put(self, info: dict[str, Any], content: bytes) -> list[httpx.Response]:
        urls = info["signed_urls"]
        size = len(content) // len(urls)
        ends = [size * (number + 1) for number in range(len(urls) - 1)] + [len(content)]
        starts = [0, *ends[:-1]]
        # Last part first: order of arrival must not matter.
        slices = reversed(list(zip(urls, starts, ends, strict=True)))
        return [
            self.storage.put(url, content=content[start:end], headers=info["required_headers"])
            for url, start, end in slices
        ]

    def upload_train(self, x: bytes, y: bytes, file_format: str = "parquet", **more: Any) -> str:
        answer = self.post(
            "/tabpfn/prepare_train_set_upload",
            {"x_train_info": file_info(x, file_format), "y_train_info": file_info(y, file_format), **more},
        )
        if answer.status_code == 409:
            return str(answer.json()["train_set_upload_id"])
        prepared = answer.raise_for_status().json()
        for info, content in ((prepared["x_train_info"], x), (prepared["y_train_info"], y)):
            for response in self.put(info, content):
                response.raise_for_status()
        return str(prepared["train_set_upload_id"])

    def fit(self, frame: pd.DataFrame, target: pd.Series, task: str, **config: Any) -> str:
        upload = self.upload_train(parquet(frame), parquet(target.to_frame()))
        answer = self.post("/tabpfn/fit", nested(upload, task, **config)).raise_for_status().json()
        assert answer["status"] == "completed"
        return str(answer["fitted_train_set_id"])

    def upload_test(self, fitted: str, content: bytes, file_format: str = "parquet") -> str:
        answer = self.post(
            "/tabpfn/prepare_test_set_upload",
            {"fitted_train_set_id": fitted, "x_test_info": file_info(content, file_format)},
        )
        if answer.status_code == 409:
            return str(answer.json()["test_set_upload_id"])
        prepared = answer.raise_for_status().json()
        for response in self.put(prepared["x_test_info"], content):
            response.raise_for_status()
        return str(prepared["test_set_upload_id"])

    def predict(self, fitted: str, frame: pd.DataFrame, task: str, **params: Any) -> httpx.Response:
        upload = self.upload_test(fitted, parquet(frame))
        return self.post("/tabpfn/predict", predict_body(fitted, upload, task, **params))


def crc32c(content: bytes) -> str:
    return base64.b64encode(struct.pack(">I", google_crc32c.value(content))).decode()


def file_info(content: bytes, file_format: str = "parquet") -> dict[str, Any]:
    return {"format": file_format, "hash": crc32c(content), "size_bytes": len(content)}


def parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.rename(columns=str).to_parquet(buffer, index=False)
    return buffer.getvalue()


def nested(upload: str, task: str, **config: Any) -> dict[str, Any]:
    return {"train_set_upload_id": upload, "task_config": {"task": task, "tabpfn_config": config}}


def predict_body(fitted: str, upload: str, task: str, **params: Any) -> dict[str, Any]:
    return {
        "fitted_train_set_id": fitted,
        "test_set_upload_id": upload,
        "task_config": {"task": task, "predict_params": params},
    }


class Server:
    """An emulator that is killed and started again on its folder, each time on a port that is free then."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self._options = options
        self._callers: list[Api] = []
        self.start()

    def start(self) -> None:
        """Start, and tell the callers where: another process may have taken the port of before."""
        command = [sys.executable, "-m", "tabpfn_emulator", "--port", "0", "--faults", "--data-dir", str(self.folder)]
        self.process = subprocess.Popen([*command, *self._options], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the emulator did not start: its reason is in stderr"
        self.url = line.split()[-1]
        self.control = EmulatorControl(self.url)
        for caller in self._callers:
            caller.http.base_url = self.url

    def api(self, token: str) -> Api:
        """Return a caller that follows the emulator to its ports."""
        self._callers.append(Api(self.url, token))
        return self._callers[-1]

    def moved(self, signed_url: str) -> str:
        """Return a signed URL of an earlier port as it is on this one."""
        return self.url + signed_url.removeprefix("{0.scheme}://{0.netloc}".format(urlsplit(signed_url)))

    def moved_info(self, info: dict[str, Any]) -> dict[str, Any]:
        """Return what an answer says of one file, with its URLs as they are on this port."""
        return {**info, "signed_urls": [self.moved(url) for url in info["signed_urls"]]}

    def kill(self) -> None:
        """End it as nobody can be prepared for."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def restart(self) -> None:
        self.kill()
        self.start()

    def close(self) -> None:
        self.kill()
        for caller in self._callers:
            caller.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start an emulator to kill, with these options of the command line, on the folder `data` of this test."""
    servers: list[Server] = []

    def begin(*options: str) -> Server:
        servers.append(Server(tmp_path / "data", *options))
        return servers[-1]

    yield begin
    for each in servers:
        each.close()


@pytest.fixture
def bare() -> Iterator[httpx.Client]:
    """A caller without a token."""
    with _client() as client:
        yield client


@pytest.fixture
def api(control: EmulatorControl) -> Iterator[Api]:
    api = Api(control.url)
    yield api
    api.close()


@pytest.fixture
def other_api(control: EmulatorControl) -> Iterator[Api]:
    api = Api(control.url)
    yield api
    api.close()


@pytest.fixture(scope="session")
def helpers() -> type:
    """The functions above, for tests: with importlib mode a conftest cannot be imported."""

    class Helpers:
        api = Api
        client = staticmethod(_client)

    for function in (crc32c, file_info, parquet, nested, predict_body):
        setattr(Helpers, function.__name__, staticmethod(function))
    return Helpers


@pytest.fixture(scope="session")
def cancer() -> tuple[pd.DataFrame, pd.Series]:
    data = load_breast_cancer(as_frame=True)
    return data.data, data.target


@pytest.fixture(scope="session")
def diabetes() -> tuple[pd.DataFrame, pd.Series]:
    data = load_diabetes(as_frame=True)
    return data.data, data.target
