"""The example: run by its command line, and deployed. The demo's tests run it as a program of its own."""

import importlib.util
import runpy
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from prefect.client.orchestration import get_client

from tabpfn_operators.errors import InvalidInputError

EXAMPLE = Path(__file__).parents[2] / "example_dags" / "prefect" / "retrain_and_score.py"


@pytest.fixture
def run_example(monkeypatch):
    def run(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *arguments])
        runpy.run_path(str(EXAMPLE), run_name="__main__")

    return run


def test_the_example_retrains_and_scores(run_example, tables, token, caplog):
    run_example(
        f"--train-url={tables.train}",
        f"--score-url={tables.score}",
        f"--target={tables.target}",
        f"--task={tables.task}",
        f"--destination={tables.destination}",
    )
    assert f"{tables.rows_scored} rows scored by" in caplog.text
    assert pq.read_metadata(Path(tables.destination) / "predictions.parquet").num_rows == tables.rows_scored


def test_the_example_names_what_is_wrong_and_writes_nothing(run_example, classification, token):
    with pytest.raises(InvalidInputError, match="no_such_column"):
        run_example(
            f"--train-url={classification.train}",
            f"--score-url={classification.score}",
            "--target=no_such_column",
            f"--destination={classification.destination}",
        )
    assert not Path(classification.destination).exists()


def test_the_example_refuses_another_task(run_example, capsys):
    with pytest.raises(SystemExit) as refused:
        run_example("--task=clustering")
    assert refused.value.code == 2
    assert "clustering" in capsys.readouterr().err


def test_the_example_can_be_deployed(classification, monkeypatch):
    spec = importlib.util.spec_from_file_location("nightly_example", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "nightly_example", module)
    spec.loader.exec_module(module)
    parameters = {
        "train_url": classification.train,
        "score_url": classification.score,
        "target": classification.target,
        "destination": classification.destination,
    }
    identity = module.nightly_scoring.to_deployment("nightly", cron="0 3 * * *", parameters=parameters).apply()
    with get_client(sync_client=True) as api:
        stored = api.read_deployment(identity)
    assert stored.parameters == parameters
    assert stored.entrypoint.endswith("retrain_and_score.py:nightly_scoring")
    assert [schedule.schedule.cron for schedule in stored.schedules] == ["0 3 * * *"]
