"""Airflow in a home of its own, the emulator, and the smallest context that an operator needs."""

import atexit
import json
import os
import random
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

if find_spec("airflow") is None:
    collect_ignore_glob = ["test_*.py"]

EXAMPLES = Path(__file__).parents[2] / "example_dags" / "airflow"
CONN_VARIABLE = "AIRFLOW_CONN_TABPFN_DEFAULT"

# Airflow reads these when it is first imported, which is when the test modules are.
HOME = Path(tempfile.mkdtemp(prefix="tabpfn-airflow-tests-"))
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
DAGS = HOME / "dags"
DAGS.mkdir()
for dag_file in (*EXAMPLES.glob("*.py"), *Path(__file__).with_name("dags").glob("*.py")):
    (DAGS / dag_file.name).symlink_to(dag_file)
os.environ |= {
    "AIRFLOW_HOME": str(HOME),
    "AIRFLOW_CONFIG": str(HOME / "airflow.cfg"),
    "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__PLUGINS_FOLDER": str(HOME / "plugins"),
    "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME / 'airflow.db'}",
    "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(HOME / "logs"),
    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
}

#: Warnings of Airflow's own that no code of ours can avoid.
AIRFLOW_WARNINGS = (
    # svcs, which the in-process Execution API of `dag.test()` uses, imports starlette's test client on httpx.
    "ignore:Using `httpx` with `starlette.testclient` is deprecated",
    # Airflow's own Connection.test_connection still asks the older of its two provider managers.
    "ignore:ProvidersManager.hooks is deprecated",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep Airflow's own warnings from failing the tests of this folder."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            for warning in AIRFLOW_WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(scope="session")
def home() -> Path:
    """Airflow's home."""
    return HOME


@pytest.fixture(scope="session")
def examples() -> Path:
    """The folder of the example DAGs."""
    return EXAMPLES


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of an emulator for all tests."""
    from tabpfn_emulator.testing import running_emulator

    with running_emulator(tmp_path_factory.mktemp("emulator")) as url:
        yield url


@pytest.fixture
def control(emulator: str) -> Iterator[Any]:
    """The emulator's control, clean before and after."""
    from tabpfn_emulator.testing import EmulatorControl

    control = EmulatorControl(emulator)
    control.clear()
    yield control
    control.clear()


@pytest.fixture
def token() -> str:
    """A token of its own for each test, and so an account of its own."""
    return f"secret-token-{uuid.uuid4().hex}"


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch, emulator: str, token: str) -> Any:
    """Set the default connection; by default to the emulator."""

    def connect(**changes: Any) -> None:
        connection = {"conn_type": "tabpfn", "host": emulator, "password": token, **changes}
        monkeypatch.setenv(CONN_VARIABLE, json.dumps(connection))

    return connect


@pytest.fixture
def connection(connect: Any) -> None:
    """The default connection to the emulator."""
    connect()


@dataclass(frozen=True)
class Tables:
    """Parquet files to fit on and to score.

    Args:
        train: 60 rows, columns `a`, `b`, and targets that `a` decides: `label`, `half` (two classes each), `amount`.
        score: 20 rows of the same kind.
        labels: The classes of the 20.
    """

    train: str
    score: str
    labels: list[str]


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """Two small tables that can be told apart by one column."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path_factory.mktemp("tables")
    numbers = random.Random(7)
    a = [numbers.uniform(-1, 1) for _ in range(80)]
    table = pa.table(
        {
            "a": a,
            "b": [numbers.uniform(-1, 1) for _ in a],
            "label": ["yes" if value > 0 else "no" for value in a],
            "amount": [10 * value for value in a],
            "half": ["high" if value > 0.5 else "low" for value in a],
        }
    )
    pq.write_table(table.slice(0, 60), folder / "train.parquet")
    pq.write_table(table.slice(60), folder / "score.parquet")
    labels = table.slice(60)["label"].to_pylist()
    return Tables(str(folder / "train.parquet"), str(folder / "score.parquet"), labels)


@dataclass
class TaskInstance:
    """The part of a task instance that the operators use; XCom passes through JSON as it does in Airflow."""

    task_id: str = "fit"
    dag_id: str = "dag"
    run_id: str = "manual__2026-11-21"
    map_index: int = -1
    log_url: str = "http://localhost:8080/dags/dag/runs/r/tasks/fit?try_number=1"
    xcoms: dict[str, str] = field(default_factory=dict)

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = json.dumps(value)

    def xcom_pull(self, *, task_ids: str, key: str, map_indexes: int) -> Any:
        assert (task_ids, map_indexes) == (self.task_id, self.map_index)
        return json.loads(self.xcoms[key]) if key in self.xcoms else None


@pytest.fixture
def context() -> Any:
    """A task's context."""
    from airflow.sdk.execution_time.context import OutletEventAccessors

    ti = TaskInstance()
    return {"ti": ti, "run_id": ti.run_id, "outlet_events": OutletEventAccessors()}


@pytest.fixture
def resume() -> Any:
    """Do what Airflow does with a deferred task: store the trigger, run it elsewhere, resume a fresh operator."""

    def resume(deferred: Any, fresh_operator: Any, context: Any) -> SimpleNamespace:
        import asyncio
        from pkgutil import resolve_name

        from airflow.sdk.serde import deserialize, serialize

        def stored(value: Any) -> Any:
            return deserialize(json.loads(json.dumps(serialize(value))))

        path, kwargs = deferred.trigger.serialize()
        row = json.dumps(serialize(kwargs))

        async def events() -> list[Any]:
            trigger = resolve_name(path)(**stored(kwargs))
            return [event async for event in trigger.run()]

        fired = asyncio.run(events())
        assert len(fired) == 1
        assert deferred.kwargs is None
        event = stored(fired[0].payload)
        outcome = SimpleNamespace(row=row, event=event, result=None, error=None)
        try:
            outcome.result = getattr(fresh_operator, deferred.method_name)(context, event=event)
        except Exception as error:
            outcome.error = error
        return outcome

    return resume
