"""`tabpfn-providers demo --engine dagster`: the real command, from the data set to the report."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(("task", "better"), [("classification", 1), ("regression", -1)])
def test_the_demo_beats_the_baseline_and_stays_in_its_folder(task, better, tmp_path, monkeypatch):
    home, kept = tmp_path / "person", tmp_path / "kept"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    command = Path(sys.executable).with_name("tabpfn-providers")

    done = subprocess.run(
        [command, "demo", "--engine", "dagster", "--task", task, "--keep", str(kept), "--json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["score"] - report["baseline"]) * better > 0
    assert report["record"]["model"]["run"]["engine"] == "dagster"
    assert Path(report["record"]["uri"]).is_file()
    assert "RUN_SUCCESS" in (kept / "dagster.log").read_text()
    assert not list(home.rglob("*dagster*"))
