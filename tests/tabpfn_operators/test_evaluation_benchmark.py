"""The evaluation benchmark runs, and holds its bound, at a tenth of the rows."""

import os
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "evaluate.py"


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
    assert [row.split(" | ")[3].strip(" |") for row in rows] == ["met", ""] * 4
    assert list(tmp_path.iterdir()) == []
