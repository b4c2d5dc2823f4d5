"""The upload benchmark runs, at toy size: what keeps it alive between the times that somebody reads its figures."""

import os
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "upload.py"


def test_every_row_is_measured_at_toy_size(tmp_path):
    command = [sys.executable, str(BENCHMARK), "--small", "--check", "--s3-python", sys.executable]
    done = subprocess.run(
        [*command, "--folder", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = [line.split(" | ")[2] for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    assert len(figures) == 14
    assert [figure for figure in figures if figure.startswith("skipped")] == [
        "skipped: name its environment with --client-python"
    ]
    assert list(tmp_path.iterdir()) == []
