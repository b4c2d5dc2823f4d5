"""`score`: from a shell, in shards, again after an interruption, and what it refuses before anything is sent."""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tabpfn_assets import FittedModel, PredictionSet, ScoringManifest, ScoringPlan
from tabpfn_emulator.testing import account_of
from tabpfn_operators.cli._scoring import Speed, how_to_go_on
from tabpfn_operators.lineage import LineageStore
from tabpfn_operators.scoring._ledger import Ledger
from tabpfn_operators.storage import folder

PREDICT = "/tabpfn/predict"
SHARDS = ("--rows-per-shard", 5, "--concurrency", 1)
COMMAND = [sys.executable, "-m", "tabpfn_operators.cli"]


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def fitted(cli, classification, store, tmp_path):
    """A model record that is in a store as well."""
    ran = cli(
        *("fit", classification.train, "--target", "outcome", "--task", "classification", "--streamed"),
        *("--name", "churn", "--store", store, "--output", tmp_path / "model"),
    )
    assert ran.code == 0, ran.err
    return tmp_path / "model" / "model.json"


@pytest.fixture
def source(write, classification):
    """25 rows with a key and a day, which the model does not know."""
    table = pq.read_table(classification.score)
    table = table.append_column("id", pa.array(range(100, 125)))
    return write(table.append_column("day", pa.array(["mon"] * 10 + ["tue"] * 15)), "keyed.parquet")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def score(cli, fitted, source, out):
    """Score 25 rows in 5 shards; the last of two equal options counts."""

    def run(*options, model=fitted, source=source, out=out):
        return cli("score", model, source, out, "--keep", "id", "--keep", "day", *SHARDS, *options)

    return run


@pytest.fixture
def runs(control, bearer):
    """Count the predictions that the server has carried out, and charged."""
    return lambda: len(control.creations(kind="predict_run", account=account_of(bearer)))


@pytest.fixture
def unfinished(score, control, out):
    """Leave a scoring with one shard in doubt and four done."""
    control.inject(kind="drop", when="after", route=PREDICT, nth=2)
    ran = score("--on-unknown", "raise")
    assert (ran.code, ran.out) == (4, ""), ran.err
    return ran.err


# What it does


def test_a_table_in_shards_beside_its_key(score, out, runs):
    ran = score("--json")
    assert ran.code == 0, ran.err
    record = PredictionSet.model_validate_json(ran.out)
    assert record == PredictionSet.model_validate_json((out / "_lineage.json").read_bytes())
    assert (record.rows, record.shards, record.run.engine, runs()) == (25, 5, "python", 5)
    scored = pq.read_table(out)
    assert scored["id"].to_pylist() == list(range(100, 125))
    assert {"day", "prediction", "probability_no", "probability_yes"} < set(scored.column_names)
    assert len(list(out.glob("part-*.parquet"))) == 5


def test_for_people(score, out):
    ran = score()
    for fact in (str(out), "25", "shards", str(out / "_manifest.json"), "estimated cost"):
        assert fact in ran.out
    assert "possibly charged twice" not in ran.out
    lines = ran.err.splitlines()
    assert lines[0] == "score: 0 of 25 rows, 0 of 5 shards"
    assert lines[-1].startswith("score: 25 of 25 rows, 5 of 5 shards, ")
    assert lines[-1].endswith(" rows/s")
    assert len(lines) == 2


def test_lines_tell_what_goes_on_while_no_shard_is_done(score, source, write, tmp_path, monkeypatch):
    monkeypatch.setattr("tabpfn_operators.cli._scoring.PLAIN_EVERY_SECONDS", 0.0)
    csv = tmp_path / "keyed.csv"
    pq.read_table(source).to_pandas().to_csv(csv, index=False)
    lines = score(source=csv).err.splitlines()
    for line in (
        "score: 0 of 25 rows, 0 of 5 shards",
        "score: 0 of 25 rows, 0 of 5 shards; shard 00000: predict 5 rows",
    ):
        assert re.sub(r"shard \d+", "shard 00000", line) in [
            re.sub(r"shard \d+", "shard 00000", each) for each in lines
        ]
    assert any(line.endswith(" rows copied") for line in lines)
    assert sum(line.startswith("score: 25 of 25 rows") for line in lines) == 1


def test_every_option(cli, regression, write, out, tmp_path):
    fit = cli("fit", regression.train, "--target", "outcome", "--task", "regression", "--streamed", "--json")
    (tmp_path / "m.json").write_text(fit.out)
    table = pq.read_table(regression.score).append_column("day", pa.array(["mon"] * 10 + ["tue"] * 15))
    table = table.set_column(0, "x", table["x"].cast(pa.string())).append_column("odd", pa.array(range(25)))
    source = write(table, "odd.parquet")
    options = (
        *("--output-type", "quantiles", "--quantile", "0.1", "--quantile", "0.9", "--no-wide", "--allow-extra"),
        *("--keep", "day", "--partition-by", "day", "--filters", '[["other", ">", 0]]', "--cast", "x=double"),
        *("--rows-per-shard", 10, "--recompress", "zstd:3", "--max-cost", 1_000_000, "--max-resends", 0),
        *("--on-unknown", "raise", "--json"),
    )
    ran = cli("score", tmp_path / "m.json", source, out, *options)
    assert ran.code == 0, ran.err
    record = PredictionSet.model_validate_json(ran.out)
    kept = sum(other > 0 for other in table["other"].to_pylist())
    assert (record.quantiles, record.rows, record.charged) == ((0.1, 0.9), kept, record.estimated_cost)
    manifest = ScoringManifest.model_validate_json((out / "_manifest.json").read_bytes())
    assert (manifest.plan.wide, manifest.plan.partition_by) == (False, ("day",))
    assert {path.parent.name for path in out.rglob("part-*.parquet")} == {"day=mon", "day=tue"}


def test_redacted(score, out):
    ran = score("--redact-labels", "--json")
    assert PredictionSet.model_validate_json(ran.out).model.redacted_fields
    for text in (ran.out, (out / "_lineage.json").read_text(), (out / "_manifest.json").read_text()):
        assert '"day"' not in text
        assert '"probability_yes"' not in text
    again = score("--redact-labels", "--resume")
    assert again.code == 0, again.err
    other = score("--redact-labels", "--output-type", "preds")
    assert "another output type" in other.err


@pytest.mark.parametrize(
    "option", [("--rows-per-shard", 0), ("--concurrency", 0), ("--max-resends", -1), ("--on-unknown", "auto")]
)
def test_an_option_out_of_range(score, option, journal):
    ran = score(*option)
    assert (ran.code, journal.posts(PREDICT)) == (2, 0)
    assert option[0] in ran.err


def test_openlineage_is_told(score, tmp_path, monkeypatch):
    pytest.importorskip("openlineage.client")
    events = tmp_path / "events"
    monkeypatch.setenv(
        "OPENLINEAGE__TRANSPORT", json.dumps({"type": "file", "log_file_path": str(events), "append": True})
    )
    ran = score("--openlineage")
    assert ran.code == 0, ran.err
    assert [json.loads(line)["eventType"] for line in events.read_text().splitlines()] == ["START", "COMPLETE"]


# The model


def test_a_model_of_the_store_by_its_fitted_id_or_alias(score, fitted, store, out):
    model = FittedModel.model_validate_json(fitted.read_bytes())
    by_id = score("--store", store, "--plan", "--json", model=model.fitted_train_set_id)
    assert by_id.code == 0, by_id.err
    by_name = score("--store", store, "--plan", "--json", model="churn@latest")
    assert by_id.out == by_name.out
    assert json.loads(by_id.out)["fitted_train_set_id"] == model.fitted_train_set_id
    assert not out.exists()


def test_a_fitted_id_without_a_store(score):
    ran = score(model="0a1b2c3d-0000-4000-8000-000000000000")
    assert ran.code == 2
    assert "--store" in ran.err
    assert "no file" in ran.err


def test_a_fitted_id_that_the_store_has_not(score, store):
    ran = score("--store", store, model="0a1b2c3d-0000-4000-8000-000000000000")
    assert ran.code == 2
    assert "no model of the fit 0a1b2c3d-" in ran.err
    assert "churn" in ran.err


def test_a_fitted_id_that_was_erased(cli, score, fitted, store):
    model = FittedModel.model_validate_json(fitted.read_bytes())
    assert cli("models", "delete", "churn", "latest", "--store", store, "--yes").code == 0
    ran = score("--store", store, model=model.fitted_train_set_id)
    assert ran.code == 2
    assert "was erased" in ran.err


def test_two_fits_whose_ids_share_their_digits(store, build_model, monkeypatch):
    from tabpfn_operators.lineage import _layout as layout

    monkeypatch.setattr(layout, "versions_of_fit", lambda versions, _: versions)
    opened = LineageStore(store)
    ids = [f"fitted-{number}" for number in range(3)]
    for day, fitted_id in enumerate(ids, 1):
        opened.add(build_model(name="churn", fitted_train_set_id=fitted_id, created_at=f"2026-11-0{day}T00:00:00Z"))
    assert [opened.find_fit(each).fitted_train_set_id for each in ids] == ids


def test_a_file_named_like_a_fitted_id_is_a_file(score, fitted, tmp_path, monkeypatch, store):
    monkeypatch.chdir(tmp_path)
    shutil.copy(fitted, "model-record")
    ran = score("--store", store, "--plan", model="model-record")
    assert ran.code == 0, ran.err


# The plan


def test_the_plan_sends_nothing(score, out, journal, runs):
    ran = score("--plan", "--json")
    assert ran.code == 0, ran.err
    told = json.loads(ran.out)
    assert told.pop("destination") == {"complete": None, "begun": {}}
    plan = ScoringPlan.model_validate(told)
    assert (plan.rows, plan.shards, plan.keep) == (25, 5, ("id", "day"))
    assert plan.estimated_cost > 0
    assert (journal.puts(), runs(), out.exists()) == ([], 0, False)


def test_the_plan_for_people(score, out):
    ran = score("--plan")
    for fact in ("5 of at most 5 rows", f"{5 * 10_000:,} for all shards", "id, day", "nothing yet"):
        assert fact in ran.out
    score()
    assert "this scoring, complete" in score("--plan").out
    other = score("--plan", "--output-type", "preds").out
    assert "the complete scoring" in other


def test_a_plan_that_is_too_dear(score, out):
    ran = score("--plan", "--max-cost", 100)
    assert ran.code == 3
    assert "for all shards" in ran.out
    assert "max_cost allows 100" in ran.err
    assert score("--max-cost", 100).code == 3
    assert not list(out.glob("part-*"))


# Again


def test_what_is_complete_costs_nothing(score, runs):
    first = PredictionSet.model_validate_json(score("--json").out)
    ran = score("--resume", "--json")
    assert PredictionSet.model_validate_json(ran.out) == first
    assert "nothing was sent" in score().out
    assert runs() == 5


def test_what_is_unfinished_goes_on(score, unfinished, runs, out):
    assert "4 of 5 shards are done and kept" in unfinished
    assert "this scoring, 5 of 5 shards begun" in score("--plan").out
    again = score("--resume", "--on-unknown", "raise")
    assert (again.code, runs()) == (4, 5)
    assert "on_unknown='resend' (--on-unknown resend) sends it again" in again.err
    ran = score("--resume")
    assert ran.code == 0, ran.err
    assert "possibly charged twice  1, named in the manifest" in ran.out
    assert "is sent again, and possibly charged twice" in ran.err
    assert "score: 20 of 25 rows, 4 of 5 shards" in ran.err
    assert runs() == 6
    assert pq.read_table(out).num_rows == 25


def test_another_scoring_is_not_begun_by_mistake(score, write, source, out, runs):
    assert score().code == 0
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    cases = {
        "another output type": ("--output-type", "preds"),
        "another number of rows per shard": ("--rows-per-shard", 10),
        "another form (--wide)": ("--no-wide",),
        "choice of kept columns": ("--keep", "other"),
    }
    for told, options in cases.items():
        for resume in ((), ("--resume",)):
            ran = score(*options, *resume)
            assert ran.code == 2, told
            assert told in ran.err
            assert "holds the complete scoring" in ran.err
            assert "--replace" in ran.err
    table = pq.read_table(source)
    write(table.set_column(0, "x", pa.array([0.5] * 25)), "keyed.parquet")
    assert "another source (a file that was written again is another)." in score().err
    assert runs() == 5
    assert before == {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


def test_unfinished_work_is_not_given_up_by_mistake(score, unfinished, out, runs):
    other = ("--output-type", "preds")
    for options in (other, (*other, "--resume")):
        ran = score(*options)
        assert ran.code == 2
        assert "unfinished work of the scoring" in ran.err
        assert "5 shards begun, which are possibly paid for" in ran.err
    assert runs() == 5
    ran = score(*other, "--replace")
    assert ran.code == 0, ran.err
    assert runs() == 10
    assert len(list(out.glob("part-*.parquet"))) == 5
    assert pq.read_table(out).column_names == ["id", "day", "prediction"]


def test_a_replacing_scoring_goes_on_without_saying_so_again(score, control, out, runs):
    assert score().code == 0
    old = {path.name for path in out.glob("part-*")}
    control.inject(kind="drop", when="after", route=PREDICT, nth=2)
    other = ("--output-type", "preds")
    assert score(*other, "--replace", "--on-unknown", "raise").code == 4
    assert old < {path.name for path in out.glob("part-*")}
    assert "5 of 5 shards begun, and the complete scoring" in score(*other, "--plan").out
    ran = score(*other, "--resume")
    assert ran.code == 0, ran.err
    assert runs() == 5 + 6
    assert not old & {path.name for path in out.glob("part-*")}


def test_resume_begins_where_there_is_nothing(score, runs):
    ran = score("--resume")
    assert (ran.code, runs()) == (0, 5)


def test_no_resume_wants_an_empty_folder(score, out, runs):
    assert score("--no-resume").code == 0
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    ran = score("--no-resume")
    assert ran.code == 2
    assert "holds this scoring, complete, and --no-resume begins in an empty folder only" in ran.err
    assert score("--no-resume", "--output-type", "preds").code == 2
    assert before == {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert runs() == 5
    ran = score("--no-resume", "--replace")
    assert ran.code == 2
    assert "pass one of them" in ran.err


def test_the_predictions_of_a_single_call_are_in_the_way(cli, score, fitted, classification, out):
    assert cli("predict", fitted, classification.score, out).code == 0
    for options in ((), ("--replace",), ("--resume",)):
        ran = score(*options)
        assert ran.code == 2
        assert "predictions.parquet" in ran.err
    assert "in the way" in score("--plan").out


def test_a_damaged_manifest(score, out, runs):
    assert score().code == 0
    (out / "_manifest.json").write_text("{")
    ran = score("--output-type", "preds")
    assert ran.code == 2
    assert "a scoring whose manifest is damaged" in ran.err
    assert score("--resume").code == 0
    assert runs() == 5
    ScoringManifest.model_validate_json((out / "_manifest.json").read_bytes())


def test_a_destination_that_another_has_just_taken(score, out, runs):
    other = Ledger(folder(str(out), None), "0" * 32, "another")
    other.enter()
    try:
        ran = score()
    finally:
        other.leave()
    assert ran.code == 1
    assert "another scoring" in ran.err
    assert runs() == 0
    assert score().code == 0


def test_a_pool_that_runs_dry(score, control, bearer, runs):
    control.configure(daily_tokens=35_000)
    ran = score()
    assert ran.code == 3
    assert "3 of 5 shards are done and kept" in ran.err
    assert "resets at" in ran.err
    control.configure(daily_tokens=5_000_000)
    assert score("--resume").code == 0
    assert runs() == 5


# What is seen of it


@pytest.fixture
def start(emulator, bearer, fitted, source, out):
    """Start it as a program of its own."""
    environment = {**os.environ, "TABPFN_TOKEN": bearer, "TABPFN_API_URL": emulator, "TERM": "xterm", "COLUMNS": "150"}
    environment.pop("NO_COLOR", None)

    def started(*options, stderr=subprocess.PIPE):
        command = [*COMMAND, "score", fitted, source, out, "--keep", "id", "--keep", "day", "--rows-per-shard", "5"]
        return subprocess.Popen([*command, *options], env=environment, stdout=subprocess.PIPE, stderr=stderr)

    return started


def _read(terminal):
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux's word for the end of a terminal
        return b""


def test_bars_of_the_whole_and_of_each_shard(start):
    master, slave = pty.openpty()
    with start("--json", stderr=slave) as process:
        os.close(slave)
        shown = b""
        while chunk := _read(master):
            shown += chunk
        record = PredictionSet.model_validate_json(process.stdout.read())
    os.close(master)
    assert (process.returncode, record.shards) == (0, 5), shown
    for shard in range(5):
        assert f"shard {shard:05d}".encode() in shown
    for text in (b"predict 5 rows", b"0 of 5 shards", b"25 of 25 rows", b" rows/s"):
        assert text in shown


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_scoring_says_how_to_go_on(start, control, score, out, stop):
    control.inject(kind="delay", seconds=15, route=PREDICT, skip=2, times=None)
    with start("--concurrency", "2") as process:
        _until(lambda: sorted(phases(out)) == ["done", "done", "sent", "sent"], process)
        process.send_signal(stop)
        said = process.stderr.read().decode()
    control.clear()
    assert process.returncode == 128 + stop, said
    assert "What is done is kept. In doubt, as possibly sent and charged: shards 0000" in said
    assert "--resume" in said
    assert "Traceback" not in said
    assert "this scoring, 4 of 5 shards begun" in score("--plan").out


def phases(out):
    """Read what the newest entry of each shard's log says."""
    logs = [sorted(log.glob("*.json")) for log in out.glob("_claims/*/[0-9]*")]
    return [json.loads(entries[-1].read_bytes())["phase"] for entries in logs if entries]


def _until(condition, process):
    for _ in range(300):
        if condition():
            return
        assert process.poll() is None, process.stderr.read()
        try:
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
    raise AssertionError("it did not happen in 30 s")


def test_what_is_said_of_the_speed():
    speed = Speed()
    speed.note(1_000, 11_000, 100.0)
    assert speed.text(101.0) == ""  # what was done before says nothing
    speed.note(3_000, 11_000, 110.0)
    assert speed.text(110.0) == "200 rows/s, 0:00:40 left"
    assert speed.text(125.0) == "200 rows/s, 0:00:25 left"
    speed.note(3_000, 11_000, 126.0)  # a shard that is not done changes nothing
    assert speed.text(126.0) == "200 rows/s, 0:00:24 left"
    assert speed.text(500.0) == "200 rows/s, 0:00:00 left"
    speed.note(11_000, 11_000, 140.0)
    assert speed.text(150.0) == "250 rows/s"


def test_how_to_go_on_names_some_shards():
    assert "In doubt" not in how_to_go_on([])
    assert "shards 00000, 00001, 00002, 00003, 00004, 00005, 00006, 00007, 00008, 00009 and 40 more" in how_to_go_on(
        list(range(50))
    )
