"""One Prefect server, one emulator and one small data set for the whole folder."""

import os
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

# Before Prefect is imported, which reads these once; nothing of the person who runs the tests is used or reached.
_HOME = Path(tempfile.mkdtemp(prefix="prefect-tabpfn-"))
for _name in [name for name in os.environ if name.startswith("PREFECT_")]:
    del os.environ[_name]
os.environ |= {
    "PREFECT_HOME": str(_HOME),
    "PREFECT_PROFILES_PATH": str(_HOME / "profiles.toml"),
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
    # Prefect warns when a task that runs outside a flow logs; some tests call tasks by themselves.
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "NO_COLOR": "1",
}

# ruff: noqa: E402 - Prefect reads the variables above when it is imported
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from anyio.from_thread import start_blocking_portal
from prefect.settings import get_current_settings
from prefect.testing.utilities import prefect_test_harness

from tabpfn_emulator.testing import running_emulator

LEFT_OPEN = pytest.StashKey[str]()


@pytest.hookimpl(tryfirst=True)
def pytest_unconfigure(config):
    shutil.rmtree(_HOME, ignore_errors=True)
    if LEFT_OPEN in config.stash:
        # What is found open after the last test: pytest's own filters are those of its start again.
        warnings.filterwarnings("ignore", config.stash[LEFT_OPEN], ResourceWarning)


@pytest.fixture(scope="session", autouse=True)
def prefect_server(request):
    """Start Prefect's server; 3.8.8 leaves one socket to it unclosed per asynchronous flow run, an empty flow's too.

    What is left open may be found in any phase of any later test, so the filter is added to those of the whole run.
    """
    with prefect_test_harness(server_startup_timeout=120):
        port = urlsplit(get_current_settings().api.url).port
        left_open = rf"unclosed <socket\.socket .*raddr=\('127\.0\.0\.1', {port}\)>"
        request.config.addinivalue_line("filterwarnings", f"ignore:{left_open}:ResourceWarning")
        request.config.stash[LEFT_OPEN] = left_open
        yield


@pytest.fixture(scope="session")
def run_async(prefect_server) -> Iterator[Callable[..., Any]]:
    """Run coroutine functions in one event loop for all tests, as a service would."""
    with start_blocking_portal("asyncio") as portal:
        yield lambda function, *args, **kwargs: portal.call(partial(function, *args, **kwargs))


@pytest.fixture(scope="session")
def keys() -> list[str]:
    """The keys that this folder's emulator knows; each opens an account of its own."""
    return [f"canary-{uuid.uuid4().hex}" for _ in range(100)]


@pytest.fixture(scope="session")
def emulator(keys) -> Iterator[str]:
    """Base URL of the one emulator of this folder, which refuses any other key."""
    with running_emulator(extra_args=[argument for key in keys for argument in ("--token", key)]) as url:
        yield url


@pytest.fixture
def bearer(keys) -> str:
    return keys.pop()


@pytest.fixture
def token(emulator, bearer, monkeypatch) -> str:
    """A key of this test's own, found in the environment as a worker finds it."""
    monkeypatch.setenv("TABPFN_TOKEN", bearer)
    monkeypatch.setenv("TABPFN_API_URL", emulator)
    return bearer


@dataclass(frozen=True)
class Tables:
    """Two Parquet files to learn from and to score, and an empty place for what comes out."""

    task: str
    target: str
    train: str
    score: str
    destination: str
    rows_trained: int
    rows_scored: int


def _table(task: str, rows: int, first: int) -> pa.Table:
    x = [((first + i) * 37 % 100) / 100 for i in range(rows)]
    outcome = [("yes" if v > 0.5 else "no") if task == "classification" else 10 * v for v in x]
    return pa.table({"x": x, "other": [(first + i) * 11 % 7 for i in range(rows)], "outcome": outcome})


def _tables(folder: Path, task: str) -> Tables:
    pq.write_table(_table(task, 60, 0), folder / "train.parquet")
    pq.write_table(_table(task, 25, 1000).drop_columns(["outcome"]), folder / "score.parquet")
    return Tables(
        task=task,
        target="outcome",
        train=str(folder / "train.parquet"),
        score=str(folder / "score.parquet"),
        destination=str(folder / f"scores-{uuid.uuid4().hex}"),  # its URI is the key of an asset
        rows_trained=60,
        rows_scored=25,
    )


@pytest.fixture(params=["classification", "regression"])
def tables(request, tmp_path) -> Tables:
    return _tables(tmp_path, request.param)


@pytest.fixture
def classification(tmp_path) -> Tables:
    return _tables(tmp_path, "classification")
