"""Bad input through the library: one error that names the input and the remedy, before any byte moves."""

import re
import socket
import sys
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tabpfn_assets import FitParameters
from tabpfn_operators.errors import (
    AuthenticationError,
    ConfigurationError,
    ConnectionFailedError,
    CorruptParquetError,
    DestinationError,
    FitFailedError,
    InvalidInputError,
    LimitExceededError,
)

MOVING = {"/tabpfn/prepare_train_set_upload", "/tabpfn/prepare_test_set_upload", "/storage", "/tabpfn/predict"}


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def refused(client, journal):
    """Fit what must be refused; return the error after making sure that nothing was sent."""

    def fit(source, target="y", task="classification", kind=InvalidInputError, **options):
        with pytest.raises(InvalidInputError) as caught:
            client.fit(source, target, parameters=FitParameters(task=task), **options)
        assert type(caught.value) is kind
        assert caught.value.terminal
        assert not MOVING & set(journal.routes())
        return caught.value

    return fit


# The source


def test_a_missing_file(refused, tmp_path):
    path = tmp_path / "nowhere.parquet"
    assert str(refused(str(path))) == f"{path} does not exist; check the path."


def test_a_folder(refused, tmp_path):
    (tmp_path / "notes.txt").touch()
    assert f"{tmp_path} holds no Parquet file" in str(refused(str(tmp_path)))


@pytest.mark.parametrize(
    "content",
    [b"", b"PAR1", b"x,y\n1,2\n" * 10],
    ids=["empty", "too short", "csv"],
)
def test_no_parquet(refused, tmp_path, content):
    path = tmp_path / "table.parquet"
    path.write_bytes(content)
    assert str(refused(str(path))) == f"{path} is not a Parquet file; convert it to Parquet first."


@pytest.mark.parametrize(
    "content",
    [
        b"PAR1" + b"\x07" * 64 + (40).to_bytes(4, "little") + b"PAR1",
        b"\0" * 100 + b"\xff\xff\xff\x7fPAR1",
        b"PAR1" + b"\0" * 100,
    ],
    ids=["no footer", "length beyond the file", "half a file"],
)
def test_a_damaged_footer(refused, tmp_path, content):
    path = tmp_path / "table.parquet"
    path.write_bytes(content)
    assert f"{path} is damaged" in str(refused(str(path), kind=CorruptParquetError))


@pytest.fixture
def with_damaged_pages(tmp_path):
    """Write a file whose first column cannot be decoded."""

    def write(**columns):
        path = tmp_path / "table.parquet"
        pq.write_table(pa.table(columns), path)
        content = bytearray(path.read_bytes())
        content[4:40] = b"\xff" * 36
        path.write_bytes(content)
        return str(path)

    return write


def test_damaged_pages_of_the_target(refused, with_damaged_pages):
    path = with_damaged_pages(y=["n", "p"] * 500, x=list(range(1000)))
    assert f"{path} cannot be read to its end" in str(refused(path))


def test_damaged_pages_of_a_row_filter(refused, with_damaged_pages):
    path = with_damaged_pages(x=list(range(1000)), y=["n", "p"] * 500)
    assert f"{path} cannot be read to its end" in str(refused(path, filters=[("x", ">", 3)]))


def test_damaged_pages_of_a_feature_are_found_by_the_server(client, with_damaged_pages):
    # A feature's values are never decoded here: reading them all would cost thirty times the upload.
    path = with_damaged_pages(x=list(range(1000)), y=["n", "p"] * 500)
    with pytest.raises(FitFailedError, match="not readable"):
        client.fit(path, "y", parameters=FitParameters(task="classification"))


def test_an_empty_table(refused, write):
    source = write({"x": pa.array([], pa.float64()), "y": pa.array([], pa.string())})
    assert str(refused(source)) == f"{source} holds no rows; is the step that writes it done?"


def test_an_empty_url(client):
    with pytest.raises(ConfigurationError, match="storage URL is empty"):
        client.fit("  ", "y", parameters=FitParameters(task="classification"))


def test_an_unknown_protocol(client, journal):
    with pytest.raises(ConfigurationError, match=r"nope://bucket/x\.parquet: unknown storage protocol"):
        client.fit("nope://key:secret@bucket/x.parquet", "y", parameters=FitParameters(task="classification"))


# Target and columns


def test_a_target_that_is_not_there(refused, write):
    source = write({"x": [1, 2], "outcome": ["n", "p"]})
    error = refused(source, "result")
    assert str(error) == f"{source}: target 'result' is not among the columns ('x', 'outcome')."


@pytest.mark.parametrize(
    ("task", "y"),
    [
        ("classification", ["n", None, "p", None]),
        ("classification", [1, None, 0, None]),
        ("regression", [1.0, None, 2.0, float("nan")]),
    ],
)
def test_nulls_in_the_target(refused, write, task, y):
    source = write({"x": [1, 2, 3, 4], "y": y})
    assert (
        str(refused(source, task=task))
        == f"{source}: target 'y' is missing or not finite in 2 of 4 rows; drop or fill those rows."
    )


def test_column_names_that_are_there_twice(refused, write):
    source = write(pa.Table.from_arrays([pa.array([1, 2]), pa.array([3, 4]), pa.array(["n", "p"])], ["x", "x", "y"]))
    assert str(refused(source)) == f"{source}: column 'x' is there more than once; rename one of them."


def test_a_target_that_is_there_twice(refused, write):
    source = write(pa.Table.from_arrays([pa.array([1, 2]), pa.array([3, 4]), pa.array(["n", "p"])], ["x", "y", "y"]))
    assert "column 'y' is there more than once; rename one of them" in str(refused(source))


@pytest.mark.parametrize(
    "values",
    [pa.array([[1], [2]]), pa.array([{"a": 1}, {"a": 2}]), pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int8()))],
    ids=["list", "struct", "map"],
)
def test_nested_columns(refused, write, values):
    source = write({"x": values, "y": ["n", "p"]})
    kind = pq.read_schema(source).field("x").type
    assert str(refused(source)) == f"{source}: column 'x' is nested ({kind}); flatten it or leave it out with exclude."


def test_a_nested_column_can_stay_at_home(client, write):
    source = write({"x": [1, 2], "tags": [["a"], []], "y": ["n", "p"]})
    train_set = client.upload_train_set(source, "y", task="classification", exclude=["tags"])
    assert [feature.name for feature in train_set.features] == ["x"]


def test_binary_columns(refused, write):
    source = write({"x": [b"1", b"2"], "y": ["n", "p"]})
    assert str(refused(source)) == f"{source}: column 'x' is binary; decode it or leave it out with exclude."


def test_features_that_are_not_there(refused, write):
    source = write({"x": [1, 2], "y": ["n", "p"]})
    error = refused(source, features=["z", "y"], exclude=["w"])
    assert [problem.split(" ", 2)[:2] for problem in error.problems] == [
        ["column", "'z'"],
        ["column", "'w'"],
        ["target", "'y'"],
    ]


def test_no_feature_is_left(refused, write):
    source = write({"x": [1, 2], "y": ["n", "p"]})
    assert "no feature column is left" in str(refused(source, exclude=["x"]))


@pytest.mark.parametrize(
    ("task", "y", "text"),
    [
        ("regression", ["1", "2"], r"target 'y' is string; regression needs a number \(for labels use task="),
        (
            "classification",
            pa.array([0, 1], pa.timestamp("ms")),
            r"target 'y' is timestamp\[ms\]; classification needs",
        ),
        ("classification", ["n", "n"], r"target 'y' has one class only"),
    ],
)
def test_a_target_of_the_wrong_kind(refused, write, task, y, text):
    source = write({"x": [1, 2], "y": y})
    assert re.search(text, str(refused(source, task=task)))


def test_a_single_row(refused, write):
    assert "1 row is too few to train on" in str(refused(write({"x": [1], "y": [1.0]}), task="regression"))


# Limits: all at once, and before any byte moves


def test_every_limit_that_is_exceeded_is_listed(refused, write, control):
    control.configure(
        limits={"train_set_max_rows": 3, "max_cols": 2, "train_set_max_upload_cells": 10, "max_classes": 2}
    )
    source = write({"a": [1] * 4, "b": [2] * 4, "c": [3] * 4, "y": ["u", "v", "w", "u"]})
    error = refused(source, kind=LimitExceededError)
    assert [problem.split(";")[0] for problem in error.problems] == [
        "4 rows, the server takes 3",
        "3 feature columns, the server takes 2",
        "12 cells (rows x columns), the server takes 10",
        "3 classes, the server takes 2",
    ]
    assert str(error).startswith(f"{source}:\n  - 4 rows")
    assert all(";" in problem for problem in error.problems)


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        ({"train_set_max_rows": 3}, "4 rows, the server takes 3; train on a sample"),
        ({"max_cols": 2}, "3 feature columns, the server takes 2; leave some out"),
        ({"train_set_max_upload_cells": 11}, "12 cells (rows x columns), the server takes 11; send fewer"),
        ({"max_classes": 2}, "3 classes, the server takes 2; group rare classes"),
    ],
)
def test_one_limit(refused, client, write, control, limit, text):
    source = write({"a": [1] * 4, "b": [2] * 4, "c": [3] * 4, "y": ["u", "v", "w", "u"]})
    control.configure(limits=limit)
    error = refused(source, kind=LimitExceededError)
    assert str(error).startswith(f"{source}: {text}")
    assert len(error.problems) == 1
    control.configure(limits={name: figure + 1 for name, figure in limit.items()})
    assert client.upload_train_set(source, "y", task="classification").rows == 4


def test_limits_and_other_problems_are_listed_together(refused, write, control):
    control.configure(limits={"train_set_max_rows": 3})
    source = write({"x": [1] * 4, "list": [[1]] * 4, "y": ["n", "p", None, "n"]})
    texts = refused(source, features=["x", "list", "z"]).problems
    assert any("'z' is not there" in text for text in texts)
    assert any("'list' is nested" in text for text in texts)
    assert any("4 rows, the server takes 3" in text for text in texts)


def test_the_limits_of_the_version_that_is_asked_for(client, write, journal):
    source = write({"x": list(range(22)), "y": [f"class {i // 2}" for i in range(22)]})
    parameters = FitParameters(task="classification", config={"model_path": "v2.6_default"})
    with pytest.raises(LimitExceededError, match="11 classes, the server takes 10"):
        client.fit(source, "y", parameters=parameters)
    assert not MOVING & set(journal.routes())
    assert client.upload_train_set(source, "y", task="classification").rows == 22


def test_more_bytes_than_the_server_takes(refused, write, control):
    control.configure(dataset_max_size_bytes=500)
    source = write({"x": [i * 0.37 for i in range(1000)], "y": ["n", "p"] * 500})
    assert "bytes to send, the server takes 500 in one file" in str(refused(source, kind=LimitExceededError))


def test_no_limit_named_is_no_limit(client, control, classification):
    body = {"default_model_version": "v9", "max_model_limit": {}, "model_limits": {}}
    control.inject({"kind": "status", "route": "/tabpfn/get_settings", "status": 200, "body": body})
    assert client.upload_train_set(classification.train, "outcome", task="classification").rows == 60


# Test sets


@pytest.fixture
def refused_prediction(client, journal, out):
    def predict(model, source, **options):
        before = len(journal.rows())
        with pytest.raises(InvalidInputError) as caught:
            client.predict(model, source, str(out), **options)
        assert not MOVING & set(journal.routes()[before:])
        assert not out.exists()
        return caught.value

    return predict


def test_a_feature_that_is_missing_or_of_another_kind(refused_prediction, fit_once, classification, write):
    model = fit_once(classification)
    source = write({"other": ["1", "2"], "z": [1.0, 2.0]})
    assert refused_prediction(model, source).problems == (
        "feature 'x' of the model is missing",
        "feature 'other' is string, the model was fitted with int64; cast it",
    )


@pytest.mark.parametrize(
    ("limits", "options", "texts"),
    [
        ({"test_set_max_rows": 24, "test_set_max_cells": 49}, {}, ["25 rows, ", "50 cells (rows x columns), "]),
        ({"predict_row_pairs_budget": 60 * 24 + 59}, {}, ["25 rows for a model of 60 train rows, "]),
        (
            {"test_set_max_rows_w_full_regression_output": 24},
            {"output_type": "full"},
            ["25 rows with output type full, "],
        ),
    ],
)
def test_test_sets_over_the_limits(refused_prediction, fit_once, regression, control, limits, options, texts):
    model = fit_once(regression)
    control.configure(limits=limits)
    error = refused_prediction(model, regression.score, **options)
    assert type(error) is LimitExceededError
    assert [problem.partition("the server")[0] for problem in error.problems] == texts
    assert all("predict in several calls" in problem for problem in error.problems)


def test_an_empty_test_set(refused_prediction, fit_once, classification, write):
    source = write(pq.read_table(classification.score).slice(0, 0))
    assert "holds no rows" in str(refused_prediction(fit_once(classification), source))


# The account and the server


def test_a_wrong_token(connect, classification, strict_emulator):
    client = connect("a-wrong-token", base_url=strict_emulator)
    with pytest.raises(AuthenticationError, match=r"Check the token \(TABPFN_TOKEN") as caught:
        client.fit(classification.train, "outcome", parameters=classification.parameters)
    assert "a-wrong-token" not in str(caught.value)


@pytest.mark.parametrize("token", ["", "   ", "****", "two words", "schlüssel", "line\nbreak"])
def test_what_cannot_be_a_token(connect, token):
    with pytest.raises(ConfigurationError) as caught:
        connect(token)
    assert not token.strip() or token not in str(caught.value)


def test_nobody_listens(connect, classification):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: nobody else can take the port meanwhile
        client = connect(base_url=f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(ConnectionFailedError, match="Check base_url, proxy and network"):
            client.fit(classification.train, "outcome", parameters=classification.parameters)


@pytest.mark.parametrize("url", ["http://api.example.com", "http://127.0.0.2", "http://192.168.0.7:8000"])
def test_http_that_is_not_loopback(connect, url):
    with pytest.raises(ConfigurationError, match="use https, or set allow_http=True"):
        connect(base_url=url)
    assert connect(base_url=url, allow_http=True).settings.base_url == url


@pytest.mark.parametrize(
    "url", ["api.priorlabs.ai", "ftp://api.priorlabs.ai", "https://", "https://u:p@host", "https://h/?k=v"]
)
def test_what_is_no_base_url(connect, url):
    with pytest.raises(ConfigurationError, match="base_url must") as caught:
        connect(base_url=url)
    assert "u:p" not in str(caught.value)


def test_a_fit_that_fails(client, control, classification):
    control.inject({"kind": "fail_fit", "error": "the worker lost its GPU", "error_code": "WORKER_LOST"})
    with pytest.raises(FitFailedError, match=r"failed: the worker lost its GPU\. Correct the data") as caught:
        client.fit(classification.train, "outcome", parameters=classification.parameters)
    assert caught.value.fitted_train_set_id in str(caught.value)


# The destination is checked before anything is sent


@pytest.fixture
def destinations(tmp_path):
    """Places where nobody can write, not even root."""
    file = tmp_path / "a-file"
    file.write_text("mine")
    return {"below a file": f"{file}/out", "a file": str(file), "no real folder": "/proc/no/such/place"}


@pytest.mark.parametrize("place", ["below a file", "a file", "no real folder"])
def test_a_destination_that_cannot_be_written(client, fit_once, regression, journal, destinations, place):
    model = fit_once(regression)
    before = len(journal.rows())
    with pytest.raises(DestinationError, match="cannot be written to") as caught:
        client.predict(model, regression.score, destinations[place])
    assert destinations[place] in str(caught.value)
    assert caught.value.terminal
    assert len(journal.rows()) == before
    assert Path(destinations["a file"]).read_text() == "mine"


def test_a_read_only_storage(client, fit_once, regression, journal, tmp_path):
    model = fit_once(regression)
    archive = tmp_path / "archive.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("x", "mine")
    before, content = len(journal.rows()), archive.read_bytes()
    with pytest.raises(DestinationError, match=r"zip://out::.*archive\.zip cannot be written to"):
        client.predict(model, regression.score, f"zip://out::{archive}")
    assert len(journal.rows()) == before
    assert archive.read_bytes() == content


def test_storage_whose_package_is_not_installed(client, fit_once, regression, journal, monkeypatch):
    model = fit_once(regression)
    before = len(journal.rows())
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(ConfigurationError, match=r"s3://bucket/out: .*pip install") as caught:
        client.predict(model, regression.score, "s3://key:secret@bucket/out")
    assert "tabpfn-providers[storage]" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert len(journal.rows()) == before


def test_a_check_of_the_destination_leaves_nothing_behind(client, fit_once, regression, out, tmp_path):
    model = fit_once(regression)
    (tmp_path / "kept").mkdir()
    for destination in (out, tmp_path / "kept", tmp_path / "new" / "folders"):
        with pytest.raises(InvalidInputError, match="does not exist"):
            client.predict(model, str(tmp_path / "nowhere.parquet"), str(destination))
    assert not out.exists()
    assert list((tmp_path / "kept").iterdir()) == []
    assert not (tmp_path / "new" / "folders").exists()


def test_no_temporary_folder_is_left(client, fit_once, classification, tmp_path, monkeypatch, write, control):
    spool = tmp_path / "spool"
    spool.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(spool))
    model = fit_once(classification)
    control.configure(dataset_max_size_bytes=10)
    with pytest.raises(LimitExceededError):
        client.predict(model, classification.score, str(tmp_path / "out"))
    assert list(spool.iterdir()) == []
