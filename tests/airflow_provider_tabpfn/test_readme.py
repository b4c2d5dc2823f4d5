"""The README's Airflow block is right as it is printed."""

import re
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def block(heading):
    section = README.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.search(r"^```python\n(.*?)^```$", section, flags=re.DOTALL | re.MULTILINE).group(1)


def test_block_is_a_dag(tmp_path):
    from airflow.dag_processing.dagbag import DagBag

    (tmp_path / "churn.py").write_text(block("Airflow"))
    bag = DagBag(tmp_path)
    assert bag.import_errors == {}
    assert set(bag.dags["churn"].task_ids) == {"fit", "predict"}
