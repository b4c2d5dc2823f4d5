"""The Dagster half of `tabpfn-providers demo --engine dagster`."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tabpfn_operators.demo import DemoWorkspace

# Telemetry off in the instance stops writing as well as sending; the environment variable only stops sending.
_INSTANCE = "telemetry:\n  enabled: false\nnux:\n  enabled: false\n"
# Two steps that follow each other gain nothing from processes of their own, each of which imports Dagster again.
_RUN_CONFIG = "execution:\n  config:\n    in_process: {}\n"


def run_demo(workspace: "DemoWorkspace") -> None:
    """Run the Dagster example's job in an embedded home: SQLite, no daemon, no web server.

    Args:
        workspace: Where the emulator, the data, the destination and the log are.

    Raises:
        DemoFailedError: The example failed; the error ends with the last lines of the log.
    """
    home = workspace.folder / "dagster_home"
    home.mkdir(parents=True, exist_ok=True)
    (home / "dagster.yaml").write_text(_INSTANCE)
    run_config = home / "run_config.yaml"
    run_config.write_text(_RUN_CONFIG)
    workspace.run(
        [
            sys.executable,
            "-P",  # the working directory must not become importable: a folder called `dagster` may lie in it
            "-m",
            "dagster",
            "job",
            "execute",
            "--python-file",
            str(workspace.example / "retrain_and_score.py"),
            "--job",
            "retrain_and_score",
            "--config",
            str(run_config),
        ],
        {
            "DAGSTER_HOME": str(home),
            "DAGSTER_DISABLE_TELEMETRY": "1",
            "TABPFN_TOKEN": workspace.token,
            "TABPFN_API_URL": workspace.base_url,
            "TRAIN_URL": workspace.train_url,
            "SCORE_URL": workspace.score_url,
            "TARGET": workspace.target,
            "TASK": workspace.task,
            "PREDICTIONS_URL": workspace.destination,
        },
    )
