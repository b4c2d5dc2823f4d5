"""The Prefect half of `tabpfn-providers demo --engine prefect`."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tabpfn_operators.demo import DemoWorkspace


def run_demo(workspace: "DemoWorkspace") -> None:
    """Run the Prefect example in an embedded home: SQLite and a server of its own that ends with it.

    Args:
        workspace: Where the emulator, the data, the destination and the log are.

    Raises:
        DemoFailedError: The example failed; the error ends with the last lines of the log.
    """
    workspace.run(
        [
            sys.executable,
            str(workspace.example / "retrain_and_score.py"),
            f"--train-url={workspace.train_url}",
            f"--score-url={workspace.score_url}",
            f"--target={workspace.target}",
            f"--task={workspace.task}",
            f"--destination={workspace.destination}",
        ],
        _environment(workspace),
    )


def _environment(workspace: "DemoWorkspace") -> dict[str, str]:
    home = workspace.folder / "prefect"
    return {
        "TABPFN_TOKEN": workspace.token,
        "TABPFN_API_URL": workspace.base_url,
        "PREFECT_HOME": str(home),
        # Set, not left out: the person's own server, database and profile must not be reached.
        "PREFECT_API_URL": "",
        "PREFECT_API_KEY": "",
        "PREFECT_PROFILE": "ephemeral",
        "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home / 'prefect.db'}",
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "NO_COLOR": "1",
    }
