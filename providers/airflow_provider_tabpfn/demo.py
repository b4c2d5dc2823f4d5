"""The demo's Airflow part: the example DAG, run once in an embedded home."""

import json
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tabpfn_operators.demo import DemoWorkspace

if find_spec("airflow") is None:  # imported nowhere below, so nobody would notice before the demo has started
    raise ModuleNotFoundError("No module named 'airflow'", name="airflow")

DAG_ID = "retrain_and_score"
# Both commands in one process: most of what either takes is Airflow's import.
_PROGRAM = """
import json, sys
from airflow.__main__ import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["airflow", *arguments]
    main()
"""


def run_demo(workspace: "DemoWorkspace") -> None:
    """Run `airflow db migrate` and `airflow dags test retrain_and_score`, in an Airflow home of its own on SQLite.

    Args:
        workspace: Data, emulator and folders; predictions and lineage are left in its destination.

    Raises:
        DemoFailedError: Airflow could not start, or the DAG run failed; the text holds the end of the log.
    """
    parameters = {
        "train_url": workspace.train_url,
        "score_url": workspace.score_url,
        "target": workspace.target,
        "task": workspace.task,
        "destination": workspace.destination,
    }
    commands = [["db", "migrate"], ["dags", "test", DAG_ID, "--conf", json.dumps(parameters)]]
    workspace.run([sys.executable, "-c", _PROGRAM, json.dumps(commands)], _environment(workspace))


def _environment(workspace: "DemoWorkspace") -> dict[str, str]:
    home = workspace.folder / "airflow"
    connection = {"conn_type": "tabpfn", "host": workspace.base_url, "password": workspace.token}
    bundle = {
        "name": "examples",
        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        "kwargs": {"path": str(workspace.example)},
    }
    # Explicit even where it is the default: the user's shell may point to the Airflow of their company.
    settings = {
        "CORE__DAGS_FOLDER": str(workspace.example),
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__PLUGINS_FOLDER": str(home / "plugins"),
        "DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([bundle]),
        "DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
        "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        "LOGGING__REMOTE_LOGGING": "False",
        "SECRETS__BACKEND": "",
        "USAGE_DATA_COLLECTION__ENABLED": "False",
    }
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW_CONFIG": str(home / "airflow.cfg"),
        "AIRFLOW_CONN_TABPFN_DEFAULT": json.dumps(connection),
        **{f"AIRFLOW__{name}": value for name, value in settings.items()},
    }
