"""A fit that outlives the command that waits for it can be waited for again; an interrupt leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys

import pyarrow as pa
import pytest

from tabpfn_assets import FittedModel
from tabpfn_operators.errors import ConfigurationError, FitTimeoutError, InvalidInputError

FIT = ("--target", "outcome", "--task", "classification")


def test_a_fit_past_its_deadline_is_waited_for_again(cli, classification, control, tmp_path, emulator):
    control.configure(fit_seconds=2.0, retry_in_secs=0.3)
    model = tmp_path / "model" / "model.json"
    ran = cli("fit", classification.train, *FIT, "--timeout", "0.5", "--output", model.parent)
    assert ran.code == 4
    assert f"tabpfn-providers wait {model}" in ran.err
    pending = FittedModel.model_validate_json(model.read_text())
    assert (pending.status, pending.api_url) == ("pending", emulator)
    model = model.rename(model.with_name("churn.json"))
    ran = cli("wait", model, "--json")
    assert ran.code == 0, ran.err
    completed = json.loads(ran.out)
    assert (completed["status"], completed["fitted_train_set_id"]) == ("completed", pending.fitted_train_set_id)
    assert json.loads(model.read_text()) == completed
    assert list(model.parent.iterdir()) == [model]


def test_the_timeout_error_carries_the_record(client, classification, control):
    control.configure(fit_seconds=2.0, retry_in_secs=0.3)
    with pytest.raises(FitTimeoutError) as caught:
        client.fit(classification.train, "outcome", parameters=classification.parameters, timeout=0.5)
    assert client.wait_for_fit(caught.value.model, timeout=60).status == "completed"


def test_the_record_is_handed_over_before_the_wait(client, classification, control):
    control.configure(fit_seconds=2.0, retry_in_secs=0.3)
    kept = []
    with pytest.raises(FitTimeoutError) as caught:
        client.fit(
            classification.train,
            "outcome",
            parameters=classification.parameters,
            timeout=0.5,
            on_submitted=kept.append,
        )
    assert kept == [caught.value.model]
    assert kept[0].status == "pending"


def test_the_record_of_a_streamed_fit_is_handed_over_too(client, classification):
    kept = []
    arguments = {"parameters": classification.parameters, "streamed": True, "on_submitted": kept.append}
    model = client.fit(classification.train, "outcome", **arguments)
    (handed_over,) = kept
    assert handed_over.fitted_train_set_id == model.fitted_train_set_id


@pytest.fixture
def _nobody_ignores_it():
    """Under `nohup` the tests ignore SIGHUP, and so would what they start."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("_nobody_ignores_it")
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_during_the_wait_removes_the_spool_and_names_the_way_on(
    classification, control, tmp_path, emulator, bearer, stop
):
    control.configure(fit_seconds=20.0)
    spool = tmp_path / "spool"
    spool.mkdir()
    environment = {**os.environ, "TABPFN_API_URL": emulator, "TABPFN_TOKEN": bearer, "TMPDIR": str(spool)}
    command = [sys.executable, "-m", "tabpfn_operators.cli", "fit", classification.train, *FIT]
    with subprocess.Popen(
        [*command, "--output", str(tmp_path / "model")], env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        assert any("submitted" in line for line in process.stderr)
        assert any("fit:" in line for line in process.stderr)
        process.send_signal(stop)
        rest = process.stderr.read()
    assert process.returncode == 128 + stop
    assert "To wait again: tabpfn-providers wait" in rest
    assert list(spool.iterdir()) == []


def test_an_infinite_target_is_refused_before_anything_moves(client, write, journal):
    source = write({"x": [1.0, 2.0, 3.0], "y": [1.0, float("inf"), 2.0]})
    with pytest.raises(InvalidInputError, match="not finite in 1 of 3 rows"):
        client.upload_train_set(source, "y", task="regression")
    assert journal.puts() == []


def test_one_text_is_no_list_of_columns(client, write):
    source = write({"a": [1, 2], "b": [1, 2], "y": ["u", "v"]})
    with pytest.raises(InvalidInputError, match="lists of column names"):
        client.upload_train_set(source, "y", task="classification", features="ab")


def test_a_zone_is_part_of_a_feature(client, write, fit_once, classification):
    moments = pa.array([0, 1, 2, 3], pa.timestamp("us"))
    labels = pa.array(["u", "v", "u", "v"])
    train = write(pa.table({"when": moments.cast(pa.timestamp("us", "UTC")), "outcome": labels}), "zoned.parquet")
    model = client.fit(train, "outcome", parameters=classification.parameters, streamed=True)
    with pytest.raises(InvalidInputError, match="'when' is timestamp"):
        client.upload_test_set(model, write(pa.table({"when": moments}), "naive.parquet"))


def test_python_mistakes_are_named(client, classification, tmp_path):
    from pathlib import Path

    assert client.upload_train_set(Path(classification.train), "outcome", task="classification").rows == 60
    with pytest.raises(ConfigurationError, match="not dict; write tables as Parquet"):
        client.upload_train_set({"x": [1]}, "x", task="regression")
    with pytest.raises(ConfigurationError, match="must be FitParameters"):
        client.fit(classification.train, "outcome", parameters={"task": "classification"})


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_output_that_cannot_be_written_is_said_after_the_work(classification, emulator, bearer):
    environment = {**os.environ, "TABPFN_API_URL": emulator, "TABPFN_TOKEN": bearer}
    command = [sys.executable, "-m", "tabpfn_operators.cli", "fit", classification.train, *FIT, "--json"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, env=environment, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 4
    assert "was carried out, but its output could not be written" in done.stderr
    assert "Traceback" not in done.stderr
