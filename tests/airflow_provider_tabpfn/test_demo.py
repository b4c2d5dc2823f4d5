"""`tabpfn-providers demo --engine airflow`, as a user types it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_tabpfn.demo import run_demo
from tabpfn_operators.demo import DemoFailedError, DemoWorkspace


@pytest.mark.parametrize(("task", "better"), [("classification", float.__gt__), ("regression", float.__lt__)])
def test_demo(tmp_path, task, better):
    program = str(Path(sys.executable).with_name("tabpfn-providers"))
    keep = tmp_path / "demo"
    done = subprocess.run(
        [program, "demo", "--engine", "airflow", "--task", task, "--keep", str(keep), "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert better(report["score"], report["baseline"])
    record = report["record"]
    assert record["run"]["engine"] == "airflow"
    assert record["model"]["parameters"]["task"] == task
    assert (keep / "predictions" / "predictions.parquet").is_file()
    log = (keep / "airflow.log").read_text()
    assert f"rows scored by {record['model']['fitted_train_set_id']}" in log
    assert (keep / "airflow" / "airflow.db").is_file()


def test_a_failed_run_raises(tmp_path, emulator, examples, tables):
    workspace = DemoWorkspace(
        engine="airflow",
        task="classification",
        folder=tmp_path,
        base_url=emulator,
        token="any",
        train_url=str(tmp_path / "absent.parquet"),
        score_url=tables.score,
        target="label",
        destination=str(tmp_path / "out"),
        log_path=tmp_path / "airflow.log",
        example=examples,
    )
    with pytest.raises(DemoFailedError, match=r"airflow\.log"):
        run_demo(workspace)
    assert "absent.parquet" in workspace.log_path.read_text()
