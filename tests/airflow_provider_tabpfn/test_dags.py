"""Whole DAGs in a real Airflow (SQLite, `dag.test()`): both tasks, failures, mapping, no secret anywhere."""

import json
import sqlite3
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tabpfn_assets import FittedModel, PredictionSet


@pytest.fixture(scope="session")
def database(home):
    """Airflow's database, migrated once."""
    from airflow.utils.db import initdb

    initdb()
    return home / "airflow.db"


@pytest.fixture
def dags(database, home):
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(home / "dags")
    assert bag.import_errors == {}
    return bag.dags


@pytest.fixture
def dag(dags):
    return dags["retrain_and_score"]


@pytest.fixture
def run(dag, connection, control, tables, tmp_path):
    def run(task="classification", target="label", **changes):
        conf = {
            "train_url": tables.train,
            "score_url": tables.score,
            "target": target,
            "task": task,
            "destination": str(tmp_path / "out"),
        }
        return dag.test(run_conf=conf | changes)

    return run


def xcom(ti, key="return_value"):
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    with create_session() as session:
        found = XComModel.get_many(run_id=ti.run_id, task_ids=[ti.task_id], key=key).with_only_columns(XComModel.value)
        return XComModel.deserialize_value(session.execute(found).one())


@pytest.fixture
def files_with(home):
    def files_with(text):
        return [path for path in home.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]

    return files_with


@pytest.mark.parametrize(("task", "target"), [("classification", "label"), ("regression", "amount")])
def test_it_retrains_and_scores(run, database, files_with, control, token, tmp_path, capsys, task, target):
    from tabpfn_emulator.testing import account_of

    control.configure(fit_seconds=0.5)
    result = run(task, target)
    assert result.state == "success"
    states = {ti.task_id: (ti.state, ti.try_number) for ti in result.get_task_instances()}
    assert states == {"fit": ("success", 1), "predict": ("success", 1), "report": ("success", 1)}

    tasks = {ti.task_id: ti for ti in result.get_task_instances()}
    model = FittedModel.model_validate(xcom(tasks["fit"]))
    manifest = xcom(tasks["predict"])
    assert (model.status, model.task) == ("completed", task)
    assert xcom(tasks["report"]) == manifest["lineage_uri"]
    record = PredictionSet.model_validate_json((tmp_path / "out" / "_lineage.json").read_bytes())
    assert record.model == model
    assert (record.run.run_id, record.run.task_id) == (result.run_id, "retrain_and_score.predict")
    assert pq.read_metadata(tmp_path / "out" / "predictions.parquet").num_rows == 20

    account = account_of(token)
    assert len(control.fits(account=account)) == 1
    assert len(control.journal(route="/tabpfn/predict", account=account)) == 1

    with sqlite3.connect(database) as rows:
        (uri, extra), *others = rows.execute(
            "select a.uri, e.extra from asset_event e join asset a on a.id = e.asset_id where e.source_run_id = ?",
            (result.run_id,),
        )
        assert others == []
        (triggers,) = rows.execute("select count(*) from trigger where classpath like '%TabPFNFitTrigger'").fetchone()
    rows.close()
    assert uri == "tabpfn://api.priorlabs.ai/models/daily"
    assert json.loads(extra)["fitted_train_set_id"] == model.fitted_train_set_id
    assert json.loads(extra)["rows"] == 60

    # What is grepped for secrets below is the place where such things would be.
    assert triggers > 0
    assert {path.name for path in files_with(model.fitted_train_set_id)} & {"airflow.db", "airflow.db-wal"}
    assert files_with(token) == []
    assert files_with("X-Signature") == []
    output = capsys.readouterr().out
    assert model.fitted_train_set_id in output
    assert token not in output
    assert "X-Signature" not in output


def test_a_failed_fit_fails_the_run_without_a_retry(run, control, capsys):
    control.inject({"kind": "fail_fit", "error": "The classes are all one."})
    result = run()
    assert result.state == "failed"
    states = {ti.task_id: (ti.state, ti.try_number) for ti in result.get_task_instances()}
    assert states["fit"] == ("failed", 1)
    assert states["predict"][0] == "upstream_failed"
    assert "The classes are all one." in capsys.readouterr().out


def test_bad_input_fails_the_run_without_a_retry(run, tmp_path, capsys):
    result = run(train_url=str(tmp_path / "absent.parquet"))
    assert result.state == "failed"
    assert result.get_task_instance("fit").try_number == 1
    assert "AirflowFailException: InvalidInputError" in capsys.readouterr().out
    assert not Path(tmp_path / "out").exists()


def test_it_runs_daily_and_updates_the_model_asset(dag):
    assert dag.schedule == "@daily"
    assert [outlet.uri for outlet in dag.get_task("fit").outlets] == ["tabpfn://api.priorlabs.ai/models/daily"]


def test_mapped_fits_keep_their_own_models(dags, connection, control, tables, tmp_path):
    control.configure(fit_seconds=0.5)
    result = dags["fit_each_target"].test(run_conf={"train_url": tables.train, "destination": str(tmp_path / "out")})
    assert result.state == "success"
    records = [
        PredictionSet.model_validate_json((tmp_path / "out" / str(index) / "_lineage.json").read_bytes())
        for index in (0, 1)
    ]
    assert [record.model.target for record in records] == ["label", "half"]
    assert [record.model.classes for record in records] == [("no", "yes"), ("high", "low")]
    assert [record.run.task_id for record in records] == [f"fit_each_target.predict[{index}]" for index in (0, 1)]


def test_a_mapped_tasks_rendered_fields_hide_secrets_in_urls(dags, connection, control, database, tmp_path):
    source = "s3://key:rendered-password-7@127.0.0.1/absent/train.parquet?sig=rendered-signature-7"
    result = dags["fit_each_target"].test(run_conf={"train_url": source, "destination": str(tmp_path / "out")})
    assert result.state == "failed"
    with sqlite3.connect(database) as rows:
        rendered = str(
            rows.execute(
                "select rendered_fields from rendered_task_instance_fields where task_id = 'fit' and run_id = ?",
                (result.run_id,),
            ).fetchall()
        )
    rows.close()
    assert "127.0.0.1/absent/train.parquet" in rendered
    assert "rendered-password-7" not in rendered
    assert "rendered-signature-7" not in rendered
