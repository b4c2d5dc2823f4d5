"""The README's Prefect block is right as it is printed."""

import re
import runpy
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def block(heading):
    section = README.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.search(r"^```python\n(.*?)^```$", section, flags=re.DOTALL | re.MULTILINE).group(1)


def test_block_runs(tmp_path, monkeypatch, emulator, bearer):
    from tabpfn_operators.demo import write_data

    data = write_data(tmp_path / "data", "classification")
    monkeypatch.chdir(data.train.parent)
    monkeypatch.setenv("TABPFN_API_URL", emulator)
    monkeypatch.setenv("TABPFN_TOKEN", bearer)
    script = tmp_path / "churn.py"  # Prefect reads a flow's source file
    script.write_text(block("Prefect"))
    names = runpy.run_path(str(script))
    assert names["churn"]() == str(data.train.parent / "predictions" / "predictions.parquet")
