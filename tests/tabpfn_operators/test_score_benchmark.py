"""The benchmark of batch scoring runs, and the goals that do not hang on size are met, at toy size."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("orjson")

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "score.py"


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
    answers, long_run, resume, sharing = ["met", ""] * 2, [""] * 3, ["met"] * 2, ["", "met", "met"]
    assert [row.split(" | ")[3].strip(" |") for row in rows] == [*answers, *long_run, *resume, *sharing]
    assert list(tmp_path.iterdir()) == []
