"""What batch scoring does while the server fails, and where somebody has tidied up what it keeps its books in."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tabpfn_assets import ScoringManifest
from tabpfn_emulator.testing import account_of
from tabpfn_operators.errors import DestinationError, OutcomeUnknownError, ServerError, SourceChangedError

PREDICT = "/tabpfn/predict"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def model(fit_once, regression):
    return fit_once(regression)


@pytest.fixture
def runs(control, bearer):
    """Count the predictions that the server has carried out, and charged."""
    return lambda: len(control.creations(kind="predict_run", account=account_of(bearer)))


def test_an_outage_does_not_cost_every_shard(client, model, regression, out, runs, control):
    control.inject(kind="drop", when="after", route=PREDICT, times=None)
    with pytest.raises(OutcomeUnknownError, match="0 of 25 shards are done"):
        client.score(model, regression.score, str(out), rows_per_shard=1, concurrency=2)
    assert 2 < runs() <= 2 + 4 + 2  # in flight, some after them, and those that were on their way


def test_what_is_refused_at_the_door_leaves_no_doubt(client, model, regression, out, runs, control, journal):
    control.inject(kind="status", status=503, headers={"Retry-After": "1"}, route=PREDICT, times=None)
    with pytest.raises(ServerError):
        client.score(model, regression.score, str(out), rows_per_shard=25)
    assert runs() == 0
    phases = [json.loads(path.read_text())["phase"] for path in sorted(out.glob("_claims/*/00000/*.json"))]
    assert phases[-1] == "free"


def test_a_missing_part_is_the_only_one_scored_again_without_the_books(client, model, regression, out, runs):
    client.score(model, regression.score, str(out), rows_per_shard=5)
    shutil.rmtree(out / "_claims")
    sorted(out.glob("part-*"))[1].unlink()
    client.score(model, regression.score, str(out), rows_per_shard=5)
    assert runs() == 6


def test_a_late_task_bills_nothing_where_the_books_are_gone(client, model, regression, out, runs):
    client.score(model, regression.score, str(out), rows_per_shard=5)
    shutil.rmtree(out / "_claims")
    done = client.score_shards(model, regression.score, str(out), [0, 3], rows_per_shard=5)
    assert [shard.index for shard in done] == [0, 3]
    assert runs() == 5


def test_a_part_that_was_damaged_is_named_as_charged_twice(client, model, regression, out, runs):
    client.score(model, regression.score, str(out), rows_per_shard=5)
    sorted(out.glob("part-*"))[2].unlink()
    client.score(model, regression.score, str(out), rows_per_shard=5)
    manifest = ScoringManifest.model_validate_json((out / "_manifest.json").read_bytes())
    assert [resend.shard for resend in manifest.resends] == [2]
    assert runs() == 6


@pytest.mark.parametrize("inside", ["", "out"])
def test_predictions_do_not_go_where_rows_are_read(client, model, regression, tmp_path, runs, inside):
    lake = tmp_path / "lake"
    lake.mkdir()
    shutil.copy(regression.score, lake / "a.parquet")
    with pytest.raises(DestinationError, match="choose another folder"):
        client.score(model, str(lake), str(lake / inside))
    assert runs() == 0
    beside = client.score(model, str(lake / "a.parquet"), str(lake / "scored"))  # a file of its own is no folder
    assert beside.rows == 25


def test_kept_columns_are_read_before_anything_is_paid_for(client, model, regression, tmp_path, out, runs, monkeypatch):
    from tabpfn_operators.scoring import _kept

    source = tmp_path / "keyed.parquet"
    table = pq.read_table(regression.score)
    pq.write_table(table.append_column("id", pa.array(range(25))), source)
    copy = _kept._copy

    def and_then_it_changes(path, first, rest):
        pq.write_table(pq.read_table(source).append_column("more", pa.array(range(25))), source)
        copy(path, first, rest)

    monkeypatch.setattr(_kept, "_copy", and_then_it_changes)
    with pytest.raises(SourceChangedError):
        client.score(model, str(source), str(out), keep=["id"])
    assert runs() == 0
