"""Bad input through the command line: one error, the documented exit code, nothing half-written, no traceback."""

import json
import re
import socket

import pyarrow as pa
import pytest

from tabpfn_assets import FittedModel

MOVING = {"/tabpfn/prepare_train_set_upload", "/tabpfn/prepare_test_set_upload", "/storage", "/tabpfn/predict"}


def error_of(ran, code):
    """The one error on stderr; nothing else is there but progress."""
    assert ran.code == code, ran.err
    assert "Traceback" not in ran.err
    assert ran.out == ""
    before, *errors = re.split(r"^Error: ", ran.err, flags=re.MULTILINE)
    assert len(errors) == 1, before
    return errors[0].rstrip("\n")


@pytest.fixture
def refused(cli, journal, tmp_path):
    """Fit what must be refused; return the error after making sure that nothing was sent or written."""

    def fit(source, *options, target="y", task="classification", code=2):
        output = tmp_path / "model"
        ran = cli("fit", source, "--target", target, "--task", task, "--output", output, *options)
        assert not MOVING & set(journal.routes())
        assert not output.exists()
        return error_of(ran, code)

    return fit


@pytest.fixture
def record(cli, regression, tmp_path):
    """A model record."""
    ran = cli("fit", regression.train, "--target", "outcome", "--task", "regression", "--streamed", "--json")
    assert ran.code == 0, ran.err
    path = tmp_path / "model.json"
    path.write_text(ran.out)
    return path


def two_rows(**columns):
    return {"x": [1.0, 2.0], "y": ["n", "p"], **columns}


# The source


def test_a_missing_file(refused, tmp_path):
    assert refused(tmp_path / "no.parquet") == f"{tmp_path}/no.parquet does not exist; check the path."


def test_no_parquet(refused, tmp_path):
    path = tmp_path / "table.parquet"
    path.write_text("x,y\n1,n\n2,p\n")
    assert refused(path) == f"{path} is not a Parquet file; convert it to Parquet first."


def test_an_empty_table(refused, write):
    source = write({"x": pa.array([], pa.float64()), "y": pa.array([], pa.string())})
    assert refused(source) == f"{source} holds no rows; is the step that writes it done?"


def test_a_target_that_is_not_there(refused, write):
    assert "target 'z' is not among the columns ('x', 'y')" in refused(write(two_rows()), target="z")


def test_nulls_in_the_target(refused, write):
    error = refused(write(two_rows(y=["n", None])))
    assert "target 'y' is missing or not finite in 1 of 2 rows; drop or fill those rows" in error


def test_column_names_that_are_there_twice(refused, write):
    table = pa.Table.from_arrays([pa.array([1, 2]), pa.array([3, 4]), pa.array(["n", "p"])], ["x", "x", "y"])
    assert "column 'x' is there more than once; rename one of them" in refused(write(table))


def test_nested_columns(refused, write):
    error = refused(write(two_rows(tags=[["a"], []])))
    assert "column 'tags' is nested" in error
    assert "flatten it or leave it out with exclude" in error


def test_names_that_look_like_markup_stay_text(refused, write):
    error = refused(write({"[bold]x[/]": [[1], [2]], "y": ["n", "p"]}))
    assert "column '[bold]x[/]' is nested" in error


def test_every_limit_that_is_exceeded_is_listed(refused, write, control):
    control.configure(
        limits={"train_set_max_rows": 3, "max_cols": 2, "train_set_max_upload_cells": 10, "max_classes": 2}
    )
    source = write({"a": [1] * 4, "b": [2] * 4, "c": [3] * 4, "y": ["u", "v", "w", "u"]})
    head, *problems = refused(source).splitlines()
    assert head == f"{source}:"
    assert [problem.split(";")[0].strip() for problem in problems] == [
        "- 4 rows, the server takes 3",
        "- 3 feature columns, the server takes 2",
        "- 12 cells (rows x columns), the server takes 10",
        "- 3 classes, the server takes 2",
    ]


# Options


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--config", "n_estimators=4"), "--config must be a JSON object"),
        (("--config", "[1]"), "--config must be a JSON object"),
        (("--config", '{"n_estimators": 0}'), "n_estimators must be a whole number of at least 1"),
        (("--thinking", '{"effort": "low"}'), "thinking.effort"),
        (("--name", "../../etc"), "name"),
        (("--base-url", "http://api.example.com"), "base_url http://api.example.com would send the token unencrypted"),
        (("--base-url", "api.example.com"), "base_url must be a whole URL"),
        (("--timeout", "-1"), "timeout"),
    ],
)
def test_options_that_cannot_be(refused, write, options, text):
    assert text in refused(write(two_rows()), *options)


@pytest.mark.parametrize(
    "arguments",
    [("fit",), ("fit", "x.parquet", "--target", "y", "--task", "clustering"), ("nonsense",), ("limits", "--nonsense")],
)
def test_wrong_usage(cli, arguments, journal):
    ran = cli(*arguments)
    assert ran.code == 2
    assert "Usage:" in ran.err
    assert "Traceback" not in ran.err
    assert journal.rows() == []


# The account and the server


@pytest.mark.parametrize("token", [None, "", "****"])
def test_no_token(refused, write, monkeypatch, token):
    monkeypatch.delenv("TABPFN_TOKEN")
    if token is not None:
        monkeypatch.setenv("PRIORLABS_API_KEY", token)
    error = refused(write(two_rows()))
    assert "TABPFN_TOKEN" in error or "PRIORLABS_API_KEY" in error


def test_a_wrong_token(refused, write, monkeypatch, strict_emulator):
    monkeypatch.setenv("TABPFN_TOKEN", "a-wrong-token")
    error = refused(write(two_rows()), "--base-url", strict_emulator, code=3)
    assert "Check the token (TABPFN_TOKEN" in error
    assert "a-wrong-token" not in error


def test_an_empty_pool(refused, write, control, journal):
    control.inject(
        {"kind": "status", "route": "/tabpfn/get_settings", "status": 429, "error_code": "INSUFFICIENT_QUOTA"}
    )
    assert "INSUFFICIENT_QUOTA" in refused(write(two_rows()), code=3)


def test_nobody_listens(refused, write):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        error = refused(write(two_rows()), "--base-url", url, code=1)
    assert "Check base_url, proxy and network, then run again." in error


def test_something_else_answers(refused, write, control):
    control.inject({"kind": "status", "route": "/tabpfn/get_settings", "status": 200, "body": "<html>It works!</html>"})
    assert "GET /tabpfn/get_settings: the answer is not a JSON object" in refused(write(two_rows()), code=1)


def test_a_fit_that_fails(cli, classification, control, tmp_path):
    control.inject({"kind": "fail_fit", "error": "the worker lost its GPU", "error_code": "WORKER_LOST"})
    options = ("--target", "outcome", "--task", "classification", "--output", tmp_path / "model")
    error = error_of(cli("fit", classification.train, *options), 2)
    assert "failed: the worker lost its GPU" in error
    assert not (tmp_path / "model").exists()


def test_a_fit_that_goes_on_after_the_deadline(cli, classification, control):
    control.configure(fit_seconds=2.0, retry_in_secs=0.3)
    options = ("--target", "outcome", "--task", "classification", "--timeout", "0.4")
    error = error_of(cli("fit", classification.train, *options), 4)
    fitted_id = control.fits()[-1]["fitted_train_set_id"]
    assert fitted_id in error
    assert "longer timeout" in error


def test_a_server_without_jobs(cli, classification, control, journal):
    control.configure(async_fit=False)
    error = error_of(cli("fit", classification.train, "--target", "outcome", "--task", "classification"), 2)
    assert "streamed" in error
    assert journal.posts("/tabpfn/fit") == 0


# Predict


def test_an_output_that_cannot_be_written(cli, write, journal, tmp_path):
    (tmp_path / "a-file").write_text("mine")
    options = ("--target", "y", "--task", "classification", "--output", tmp_path / "a-file" / "model")
    error = error_of(cli("fit", write(two_rows()), *options), 2)
    assert f"{tmp_path}/a-file/model cannot be written to" in error
    assert journal.rows() == []


def test_a_destination_that_cannot_be_written(cli, record, regression, journal, tmp_path):
    (tmp_path / "a-file").write_text("mine")
    before = len(journal.rows())
    error = error_of(cli("predict", record, regression.score, tmp_path / "a-file" / "out"), 2)
    assert f"{tmp_path}/a-file/out cannot be written to" in error
    assert (tmp_path / "a-file").read_text() == "mine"
    assert len(journal.rows()) == before


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"model": 7}', "PAR1", '{"fitted_train_set_id": "x"}'])
def test_what_is_no_record(cli, regression, journal, tmp_path, content):
    path = tmp_path / "record.json"
    path.write_text(content)
    error = error_of(cli("predict", path, regression.score, tmp_path / "out"), 2)
    assert error.startswith(f"{path} is no model record; name what `tabpfn-providers fit --output` wrote")
    assert journal.rows() == []


def test_a_record_that_is_not_there(cli, regression, tmp_path):
    error = error_of(cli("predict", tmp_path / "no.json", regression.score, tmp_path / "out"), 2)
    assert error == f"{tmp_path}/no.json does not exist; check the path."


def test_a_pending_record(cli, record, regression, tmp_path):
    data = {**json.loads(record.read_text()), "status": "pending"}
    record.write_text(FittedModel.model_validate(data).model_dump_json())
    assert "is pending; wait for it" in error_of(cli("predict", record, regression.score, tmp_path / "out"), 2)


def test_a_test_set_without_the_models_features(cli, record, write, journal, tmp_path):
    source = write({"x": ["a", "b"]}, "score.parquet")
    before = len(journal.rows())
    error = error_of(cli("predict", record, source, tmp_path / "out"), 2)
    assert "feature 'other' of the model is missing" in error
    assert "feature 'x' is string, the model was fitted with double; cast it" in error
    assert not MOVING & set(journal.routes()[before:])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options", [("--output-type", "probas"), ("--output-type", "quantiles", "--quantile", "7"), ("--quantile", "0.5")]
)
def test_outputs_the_task_does_not_have(cli, record, regression, tmp_path, options):
    error = error_of(cli("predict", record, regression.score, tmp_path / "out", *options), 2)
    assert "quantiles" in error
    assert not (tmp_path / "out").exists()


def test_a_lost_answer_of_a_billed_call(cli, record, regression, control, journal, tmp_path):
    control.inject({"kind": "drop", "route": "/tabpfn/predict", "when": "after", "times": None})
    error = error_of(cli("predict", record, regression.score, tmp_path / "out"), 4)
    assert "account's usage" in error
    assert journal.posts("/tabpfn/predict") == 1
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_gone(cli, record, regression, monkeypatch, tmp_path):
    monkeypatch.setenv("TABPFN_TOKEN", "somebody-else")
    error = error_of(cli("predict", record, regression.score, tmp_path / "out"), 2)
    assert "fit it again: client.fit(" in error
    assert not (tmp_path / "out").exists()
