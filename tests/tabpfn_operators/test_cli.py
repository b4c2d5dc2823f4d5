"""The command line: what it prints where, records that go from one command to the next, and plug-ins."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pyarrow.parquet as pq
import pytest

from tabpfn_assets import FitParameters, FittedModel, PredictionSet, __version__
from tabpfn_operators import Client

SCRIPT = Path(sys.executable).with_name("tabpfn-providers")


@pytest.fixture
def fitted(cli, classification, tmp_path):
    """A model record written by `fit --output`."""
    ran = cli(
        "fit", classification.train, "--target", "outcome", "--task", "classification", "--output", tmp_path / "model"
    )
    assert ran.code == 0, ran.err
    return tmp_path / "model" / "model.json"


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Install a distribution that offers commands, for this test only."""

    def install(entry_points, source=""):
        site = tmp_path / "site"
        info = site / "some_plugin-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-plugin\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[tabpfn_providers.commands]\n{entry_points}\n")
        (site / "some_plugin_of_a_test.py").write_text(source)
        monkeypatch.syspath_prepend(site)
        monkeypatch.delitem(sys.modules, "some_plugin_of_a_test", raising=False)

    return install


# The program


def test_the_version(cli):
    ran = cli("--version")
    assert (ran.code, ran.out, ran.err) == (0, f"tabpfn-providers {__version__}\n", "")


def test_help_names_commands_and_exit_codes(cli):
    ran = cli("--help")
    assert ran.code == 0
    for word in ("demo", "emulator", "fit", "limits", "plan", "predict", "Exit codes", "TABPFN_TOKEN"):
        assert word in ran.out
    assert "demo.airflow" not in ran.out


def test_without_a_command_the_help_is_shown(cli):
    ran = cli()
    assert "Exit codes" in ran.out + ran.err


def test_as_a_program(emulator, bearer, classification, tmp_path):
    environment = {**os.environ, "TABPFN_TOKEN": bearer, "TABPFN_API_URL": emulator}

    def run(*arguments):
        return subprocess.run(
            arguments, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )

    fit = run(SCRIPT, "fit", classification.train, "--target", "outcome", "--task", "classification", "--json")
    assert fit.returncode == 0, fit.stderr
    model = FittedModel.model_validate_json(fit.stdout)
    (tmp_path / "model.json").write_text(fit.stdout)
    module = [sys.executable, "-m", "tabpfn_operators.cli"]
    predict = run(*module, "predict", tmp_path / "model.json", classification.score, tmp_path / "out")
    assert predict.returncode == 0, predict.stderr
    assert model.fitted_train_set_id in predict.stdout
    missing = run(*module, "predict", tmp_path / "model.json", tmp_path / "nowhere.parquet", tmp_path / "out2")
    assert missing.returncode == 2
    assert missing.stdout == ""
    assert f"Error: {tmp_path}/nowhere.parquet does not exist; check the path." in missing.stderr
    assert "Traceback" not in missing.stderr
    assert not (tmp_path / "out2").exists()


def test_data_goes_to_stdout_and_bars_to_the_terminal(emulator, bearer, classification):
    master, slave = pty.openpty()
    command = [SCRIPT, "fit", classification.train, "--target", "outcome", "--task", "classification", "--json"]
    environment = {**os.environ, "TABPFN_TOKEN": bearer, "TABPFN_API_URL": emulator, "TERM": "xterm"}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=slave) as process:
        os.close(slave)
        shown = b""
        while chunk := _read(master):
            shown += chunk
        out = process.stdout.read()
    os.close(master)
    assert process.returncode == 0, shown
    assert FittedModel.model_validate_json(out).status == "completed"
    assert b"upload" in shown
    assert b"\x1b[" in shown


def _read(terminal):
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux's word for the end of a terminal
        return b""


# Fit


def test_fit_as_json(cli, classification):
    ran = cli("fit", classification.train, "--target", "outcome", "--task", "classification", "--json")
    model = FittedModel.model_validate_json(ran.out)
    assert (ran.code, model.status, model.rows) == (0, "completed", 60)
    assert model.run.engine == "python"
    assert "\x1b" not in ran.out


def test_fit_for_people(cli, classification):
    ran = cli("fit", classification.train, "--target", "outcome", "--task", "classification", "--name", "churn")
    assert ran.code == 0
    for fact in ("fitted id", "churn", "2: x, other", "60", "no, yes", classification.train, "fingerprint"):
        assert fact in ran.out


def test_plain_lines_tell_the_progress(cli, classification, tmp_path, fitted):
    ran = cli("predict", fitted, classification.score, tmp_path / "out")
    lines = ran.err.splitlines()
    for line in ("predict: 0 of 25 rows", "write: 25 of 25 rows"):
        assert line in lines
    assert any(line.startswith("upload: ") and line.endswith(" bytes") for line in lines)
    assert "\x1b" not in ran.err + ran.out
    assert len(lines) < 12


def test_fit_writes_its_record(cli, fitted, classification):
    model = FittedModel.model_validate_json(fitted.read_bytes())
    assert model.status == "completed"
    assert [path.name for path in fitted.parent.iterdir()] == ["model.json"]


def test_every_option_of_fit(cli, write, control):
    source = write({"a": [1, 2] * 5, "b": [3, 4] * 5, "c": [5, 6] * 5, "y": [0.5, 1.5] * 5})
    ran = cli(
        *("fit", source, "--target", "y", "--task", "regression", "--feature", "c", "--feature", "a", "--streamed"),
        *("--config", '{"n_estimators": 3}', "--thinking", '{"effort": "high"}', "--wire", "flat"),
        *("--name", "m-1", "--no-durable"),
        "--json",
    )
    assert ran.code == 0, ran.err
    model = FittedModel.model_validate_json(ran.out)
    assert (model.name, model.feature_names) == ("m-1", ("c", "a"))
    (fit,) = [row for row in control.fits() if row["fitted_train_set_id"] == model.fitted_train_set_id]
    assert (fit["wire"], fit["route"], fit["config"]) == ("flat", "/tabpfn/fit", {"n_estimators": 3})
    assert fit["thinking"]["effort"] == "high"
    excluded = cli("fit", source, "--target", "y", "--task", "regression", "--exclude", "b", "--json", "--streamed")
    assert FittedModel.model_validate_json(excluded.out).feature_names == ("a", "c")


def test_the_base_url_option_wins(cli, emulator, monkeypatch):
    monkeypatch.setenv("TABPFN_API_URL", "http://127.0.0.1:9")
    assert cli("limits", "--base-url", emulator, "--json").code == 0


# Predict


def test_predict_from_a_record_and_from_a_lineage_file(cli, classification, fitted, tmp_path):
    first = cli("predict", fitted, classification.score, tmp_path / "one", "--json")
    record = PredictionSet.model_validate_json(first.out)
    assert record == PredictionSet.model_validate_json((tmp_path / "one" / "_lineage.json").read_bytes())
    assert record.run.engine == "python"
    second = cli("predict", tmp_path / "one" / "_lineage.json", classification.score, tmp_path / "two")
    assert second.code == 0, second.err
    for fact in (record.model.fitted_train_set_id, str(tmp_path / "two" / "predictions.parquet"), "probas", "25"):
        assert fact in second.out
    one, two = (pq.read_table(tmp_path / name / "predictions.parquet") for name in ("one", "two"))
    assert one.equals(two)
    assert one.num_rows == 25


def test_predict_quantiles(cli, regression, tmp_path):
    record = tmp_path / "model.json"
    fit = cli("fit", regression.train, "--target", "outcome", "--task", "regression", "--streamed", "--json")
    record.write_text(fit.out)
    options = ("--output-type", "quantiles", "--quantile", "0.1", "--quantile", "0.9", "--json")
    ran = cli("predict", record, regression.score, tmp_path / "out", *options)
    assert PredictionSet.model_validate_json(ran.out).columns == ("quantile_0.1", "quantile_0.9")


def test_predict_redacted(cli, classification, fitted, tmp_path):
    ran = cli("predict", fitted, classification.score, tmp_path / "out", "--redact-labels", "--json")
    assert PredictionSet.model_validate_json(ran.out).model.redacted_fields
    assert '"other"' not in (tmp_path / "out" / "_lineage.json").read_text() + ran.out


# Limits


def test_limits_as_json(cli, control):
    control.configure(limits={"max_cols": 1234})
    ran = cli("limits", "--json")
    assert ran.code == 0
    assert json.loads(ran.out)["model_limits"]["v3"]["max_cols"] == 1234


def test_limits_for_people(cli, control):
    control.configure(limits={"max_cols": 1234})
    ran = cli("limits")
    assert ran.code == 0
    for word in ("max_cols", "1,234", "v2.6", "v3", "1M"):
        assert word in ran.out


# Plug-ins


def test_a_broken_plugin_does_not_take_the_others_away(cli, plugin):
    plugin("broken = some_plugin_of_a_test:command", "raise RuntimeError('no disk')")
    ran = cli("limits", "--json")
    assert ran.code == 0
    assert json.loads(ran.out)["default_model_version"] == "v3"
    assert ran.err == "The command broken could not be loaded: RuntimeError: no disk\n"


def test_a_plugin_whose_package_is_gone(cli, plugin):
    plugin("broken = no_such_package_of_a_test:command")
    ran = cli("--version")
    assert ran.code == 0
    assert "The command broken could not be loaded: ModuleNotFoundError" in ran.err


def test_a_plugin_adds_commands(cli, plugin):
    source = """
import typer
group = typer.Typer()
@group.command()
def one():
    typer.echo("one")
@group.command()
def two():
    typer.echo("two")
def alone(word: str):
    typer.echo(word)
"""
    plugin("alone = some_plugin_of_a_test:alone\ngroup = some_plugin_of_a_test:group", source)
    assert cli("alone", "hello").out == "hello\n"
    assert cli("group", "two").out == "two\n"


# Demo


@pytest.fixture
def engine(monkeypatch):
    """Let a function stand for Dagster's runner; Dagster itself runs in its own session."""

    def run_as(run_demo):
        module = ModuleType("dagster_tabpfn.demo")
        module.run_demo = run_demo
        monkeypatch.setitem(sys.modules, "dagster_tabpfn", ModuleType("dagster_tabpfn"))
        monkeypatch.setitem(sys.modules, "dagster_tabpfn.demo", module)

    return run_as


def retrain_and_score(workspace):
    workspace.run([sys.executable, "-c", "print('the log of the engine')"], {})
    parameters = FitParameters(task=workspace.task)
    with Client(workspace.token, base_url=workspace.base_url) as client:
        model = client.fit(workspace.train_url, workspace.target, parameters=parameters)
        client.predict(model, workspace.score_url, workspace.destination)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_demo_reports_a_score_better_than_the_baseline(cli, engine, tmp_path, task):
    engine(retrain_and_score)
    ran = cli("demo", "--engine", "dagster", "--task", task, "--keep", tmp_path / "kept", "--json")
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    record = PredictionSet.model_validate(report["record"])
    assert record.uri == str(tmp_path / "kept" / "predictions" / "predictions.parquet")
    assert pq.read_table(record.uri).num_rows == record.rows
    if task == "classification":
        assert report["metric"] == "accuracy"
        assert report["score"] > 0.9 > report["baseline"]
    else:
        assert report["metric"] == "RMSE"
        assert report["score"] < 0.85 * report["baseline"]
    log = tmp_path / "kept" / "dagster.log"
    assert str(log) in ran.err
    assert log.read_text() == "the log of the engine\n"


def test_demo_names_the_log_of_an_engine_that_failed(cli, engine, tmp_path):
    def fail(workspace):
        workspace.run([sys.executable, "-c", "import sys; sys.exit('the scheduler is gone')"], {})

    engine(fail)
    ran = cli("demo", "--engine", "dagster", "--keep", tmp_path / "kept")
    assert ran.code == 1
    assert "exited with 1" in ran.err
    assert "the scheduler is gone" in ran.err
    assert str(tmp_path / "kept" / "dagster.log") in ran.err


def test_demo_refuses_a_folder_that_is_in_use(cli, engine, tmp_path):
    engine(retrain_and_score)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("important")
    ran = cli("demo", "--engine", "dagster", "--keep", tmp_path / "mine")
    assert ran.code == 2
    assert ran.err == f"Error: --keep {tmp_path / 'mine'} is there already; name a new or an empty folder.\n"
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_demo_names_the_extra_that_is_missing(cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "dagster_tabpfn", None)
    ran = cli("demo", "--engine", "dagster")
    assert ran.code == 2
    assert 'pip install "tabpfn-providers[dagster]"' in ran.err


def test_demo_names_the_extra_of_its_data(cli, engine, monkeypatch):
    engine(retrain_and_score)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    ran = cli("demo", "--engine", "dagster")
    assert ran.code == 2
    assert 'pip install "tabpfn-providers[emulator]"' in ran.err


def test_demo_knows_its_engines(cli):
    ran = cli("demo", "--engine", "cron")
    assert ran.code == 2
    for engine in ("airflow", "prefect", "dagster"):
        assert engine in ran.err
