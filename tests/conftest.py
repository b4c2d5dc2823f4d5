"""Fixtures of all folders: a clean environment, the emulator, both clients behind one face, the CLI in this process.

Nothing of the project is imported at the top: some sessions collect tests where it is not installed.
"""

import inspect
import os
import re
import runpy
import shutil
import sys
import uuid
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

# Read by sessions or by the vendor's client, not by this project.
_NOT_OURS = ("TABPFN_WHEEL", "TABPFN_UV", "TABPFN_DISABLE_TELEMETRY", "TABPFN_CLIENT_")
_OWN: Any = object()


def pytest_addoption(parser):
    parser.addoption(
        "--all", action="store_true", help="50 kills instead of 5, 10,000 damaged footers instead of 1,000."
    )


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    """No test finds the account of the person who runs it, and none reaches loopback through a proxy."""
    for name in list(os.environ):
        ours = name.startswith(("TABPFN_", "PRIORLABS_")) and not name.startswith(_NOT_OURS)
        if ours or name.lower() in {"http_proxy", "https_proxy", "all_proxy"}:
            monkeypatch.delenv(name)


@pytest.fixture
def run_printed_test(request, tmp_path_factory):
    """Run the one test that a section of docs/emulator.md prints: `run_printed_test("Airflow")`."""
    page = Path(__file__).parents[1] / "docs" / "emulator.md"

    def run(heading):
        section = re.split(rf"^##+ {heading}$", page.read_text(), flags=re.MULTILINE)[1].split("\n##")[0]
        (code,) = re.findall(r"^```python\n(.*?)^```$", section, flags=re.DOTALL | re.MULTILINE)
        # A file, because engines look for the source of what they run.
        module = tmp_path_factory.mktemp("theirs") / "test_printed.py"
        module.write_text(code)
        ((_, test),) = [each for each in runpy.run_path(str(module)).items() if each[0].startswith("test_")]
        test(**{name: request.getfixturevalue(name) for name in inspect.signature(test).parameters})

    return run


@pytest.fixture(scope="session")
def need_service():
    """Skip where a Debian package is not installed; with REQUIRE_SERVICES=1 (`.ci/run`) fail instead."""

    def need(program, package):
        if shutil.which(program):
            return
        line = f"{program} is not installed; apt-get install {package}"
        if os.environ.get("REQUIRE_SERVICES") == "1":
            pytest.fail(line)
        pytest.skip(line)

    return need


@pytest.fixture(scope="session")
def emulator_folder(tmp_path_factory):
    """The emulator's data folder: what was uploaded is in `uploads/<upload id>/<file>/`."""
    return tmp_path_factory.mktemp("emulator")


@pytest.fixture(scope="session")
def emulator(emulator_folder):
    """Base URL of an emulator that lives as long as the session."""
    from tabpfn_emulator.testing import running_emulator

    with running_emulator(emulator_folder) as url:
        yield url


@pytest.fixture(scope="session")
def strict_emulator():
    """Base URL of another emulator, which takes the token `the-right-token` only."""
    from tabpfn_emulator.testing import running_emulator

    with running_emulator(extra_args=("--token", "the-right-token")) as url:
        yield url


@pytest.fixture
def control(emulator):
    """The emulator's control routes, with no fault and no setting left from or for another test."""
    from tabpfn_emulator.testing import EmulatorControl

    control = EmulatorControl(emulator)
    control.clear()
    yield control
    control.clear()


class Journal:
    """The emulator's journal from the start of this test on."""

    def __init__(self, control, position):
        self._control = control
        # The emulator serves the whole session: only what is new is asked for.
        for row in control.journal(after=position["seq"]):
            position["seq"] = row["seq"]
        self._before = position["seq"]

    def rows(self, route=None, method=None):
        rows = self._control.journal(route=route, after=self._before)
        return [row for row in rows if method in {None, row["method"]}]

    def routes(self):
        return [row["route"] for row in self.rows()]

    def posts(self, route):
        return len(self.rows(route, "POST"))

    def puts(self):
        return self.rows("/storage", "PUT")


@pytest.fixture(scope="session")
def journal_position():
    """The last row of the emulator's journal that a test has seen."""
    return {"seq": 0}


@pytest.fixture
def journal(control, journal_position):
    """What has reached the emulator since the test began."""
    return Journal(control, journal_position)


@pytest.fixture
def uploaded(emulator_folder):
    """Read an uploaded file back as the emulator holds it: `uploaded(upload_id, "x_train")`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def read(upload_id, name):
        parts = sorted(Path(emulator_folder, "uploads", upload_id, name).glob("*.part"))
        assert parts
        return pq.read_table(pa.BufferReader(b"".join(part.read_bytes() for part in parts)))

    return read


@pytest.fixture
def bearer():
    """The token of an account of this test's own."""
    return f"canary-{uuid.uuid4().hex}"


class AsyncClientInThread:
    """An AsyncClient on a loop of its own, called as if it were a Client."""

    def __init__(self, portal, *args, **options):
        from tabpfn_operators import AsyncClient

        self._portal = portal
        self._client = AsyncClient(*args, **options)

    def __getattr__(self, name):
        attribute = getattr(self._client, name)
        if not callable(attribute):
            return attribute
        return lambda *args, **kwargs: self._portal.call(partial(attribute, *args, **kwargs))


@pytest.fixture(params=["sync", "async"])
def connect(request, emulator, bearer):
    """Open clients of either kind: `connect()` as this test's account, arguments as for `Client`."""
    from anyio.from_thread import start_blocking_portal

    from tabpfn_operators import Client

    with ExitStack() as stack:
        portal = stack.enter_context(start_blocking_portal()) if request.param == "async" else None

        def open_client(token=_OWN, *, base_url=_OWN, **options):
            token = bearer if token is _OWN else token
            options["base_url"] = emulator if base_url is _OWN else base_url
            client = Client(token, **options) if portal is None else AsyncClientInThread(portal, token, **options)
            stack.callback(client.close)
            return client

        yield open_client


@pytest.fixture
def client(connect):
    """A client of either kind, as this test's account."""
    return connect()


@pytest.fixture
def write(tmp_path):
    """Write columns, or an Arrow table, as Parquet; return the path as text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def write_parquet(columns, name="source.parquet"):
        path = tmp_path / name
        pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), path)
        return str(path)

    return write_parquet


@dataclass(frozen=True)
class Tables:
    """A file to fit on, one to predict, and what is in them."""

    task: str
    target: str
    train: str
    score: str
    parameters: Any


def _columns(rows, first=0):
    x = [((first + i) * 37 % 100) / 100 for i in range(rows)]
    return {"x": x, "other": [(first + i) * 11 % 7 for i in range(rows)]}


def _tables(write, task):
    from tabpfn_assets import FitParameters

    columns = _columns(60)
    outcome = [("yes" if x > 0.5 else "no") if task == "classification" else 10 * x for x in columns["x"]]
    return Tables(
        task=task,
        target="outcome",
        train=write({**columns, "outcome": outcome}, f"{task}-train.parquet"),
        score=write(_columns(25, 1000), f"{task}-score.parquet"),
        parameters=FitParameters(task=task),
    )


@pytest.fixture
def classification(write):
    """60 rows, two features, two classes; 25 rows to predict."""
    return _tables(write, "classification")


@pytest.fixture
def regression(write):
    """60 rows, two features, a number; 25 rows to predict."""
    return _tables(write, "regression")


@pytest.fixture
def fit_once(client):
    """Fit in one request, which is the quickest way to a model."""

    def fit(tables, **options):
        return client.fit(tables.train, tables.target, parameters=tables.parameters, streamed=True, **options)

    return fit


@dataclass(frozen=True)
class Ran:
    """What a run of the command line left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(monkeypatch, capsys, bearer, emulator):
    """Run the command line in this process; anything but an exit is an error of the test."""
    from tabpfn_operators.cli import main

    monkeypatch.setenv("TABPFN_TOKEN", bearer)
    monkeypatch.setenv("TABPFN_API_URL", emulator)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # typer sets its own

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["tabpfn-providers", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        return Ran(end.value.code or 0, out, err)

    return run


@pytest.fixture(scope="session")
def run_at_once(tmp_path_factory):
    """Run tasks of tests/tabpfn_operators/crash_driver.py at once, each in a process of its own; return its outcome."""
    with _driven("crash_driver.py", tmp_path_factory.mktemp("driver")) as run:
        yield run


@pytest.fixture(scope="session")
def score_at_once(tmp_path_factory):
    """Run tasks of tests/tabpfn_operators/score_crash_driver.py, as `run_at_once` does those of the other driver."""
    with _driven("score_crash_driver.py", tmp_path_factory.mktemp("driver")) as run:
        yield run


@contextmanager
def _driven(name, folder):
    import json
    import subprocess

    script = Path(__file__).parent / "tabpfn_operators" / name
    mine = ("AWS_", "FSSPEC_", "TABPFN_", "PRIORLABS_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(mine)}
    errors = folder / "stderr"
    with (
        errors.open("wb") as said,
        subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, env=env
        ) as process,
    ):

        def run(*tasks):
            said.seek(0)
            said.truncate()
            process.stdin.write(json.dumps(tasks).encode() + b"\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            print(errors.read_text())  # shown where the test fails
            return json.loads(answer)

        yield run
        process.stdin.close()
        process.wait(60)
