"""The rerun benchmark runs, and its goals are met, at small size."""

import os
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "rerun.py"


def test_every_row_is_measured_and_met(tmp_path):
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), "--small", "--check", "--folder", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    assert [row.split(" | ")[3].strip(" |") for row in rows] == ["", *["met"] * 8]
    assert list(tmp_path.iterdir()) == []
