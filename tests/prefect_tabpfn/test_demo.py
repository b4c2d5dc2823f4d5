"""The main job in Prefect, as a person runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = [str(Path(sys.executable).parent / "tabpfn-providers"), "demo", "--engine", "prefect"]


def running_below(folder: Path) -> list[str]:
    """Command lines of live processes whose Prefect home is below the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes()
            command = (process / "cmdline").read_bytes()
        except OSError:  # it ended, or belongs to another user
            continue
        if f"PREFECT_HOME={folder}".encode() in environment:
            found.append(command.replace(b"\0", b" ").decode())
    return found


@pytest.fixture(scope="module")
def demos(tmp_path_factory) -> dict[str, tuple[Path, subprocess.CompletedProcess[str]]]:
    """Both demos, side by side because each starts a Prefect server of its own."""
    folder = tmp_path_factory.mktemp("demos")
    # The person's own server must not be reached: nothing listens on this address.
    environment = {**os.environ, "PREFECT_API_URL": "http://127.0.0.1:9/api"}
    running = {
        task: subprocess.Popen(
            [*DEMO, "--task", task, "--keep", str(folder / task), "--json"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for task in ("classification", "regression")
    }
    done = {}
    for task, process in running.items():
        output, errors = process.communicate()
        done[task] = (folder / task, subprocess.CompletedProcess(process.args, process.returncode, output, errors))
    return done


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_demo_beats_the_baseline_and_leaves_nothing_running(task, demos):
    kept, done = demos[task]
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    better = report["score"] > report["baseline"] if task == "classification" else report["score"] < report["baseline"]
    assert better, report
    assert report["record"]["model"]["run"]["engine"] == "prefect"
    assert (kept / "prefect" / "prefect.db").is_file()
    assert "Finished in state Completed" in (kept / "prefect.log").read_text()
    assert running_below(kept) == []
