"""Batch scoring as its caller sees it: progress of the whole and of each shard, the plan as a guard, what was there."""

import pyarrow as pa
import pytest

from tabpfn_operators.errors import InvalidInputError, QuotaExceededError, RecordTooNewError
from tabpfn_operators.scoring import Earlier, find_earlier
from tabpfn_operators.storage import folder

PREDICT = "/tabpfn/predict"
OPTIONS = {"rows_per_shard": 5, "concurrency": 2}


@pytest.fixture
def model(fit_once, regression):
    return fit_once(regression)


@pytest.fixture(params=["local", "memory"])
def out(request, tmp_path):
    """A destination on two kinds of storage; what is in memory is this test's own."""
    if request.param == "local":
        return str(tmp_path / "out")
    return f"memory://{tmp_path.name}/out"


@pytest.fixture
def steps():
    return []


def of_whole(steps):
    return [step for step in steps if step.step == "score"]


def test_rows_grow_to_the_total(client, model, regression, tmp_path, steps):
    client.score(model, regression.score, str(tmp_path / "out"), progress=steps.append, **OPTIONS)
    whole = of_whole(steps)
    assert (whole[0].done, whole[0].total, whole[0].note, whole[0].shard) == (0, 25, "0 of 5 shards", None)
    assert {step.shard for step in whole[1:]} == set(range(5))
    assert max(step.done for step in whole) == 25
    assert "5 of 5 shards" in {step.note for step in whole}
    for shard in range(5):
        names = [step.step for step in steps if step.shard == shard]
        assert (names[0], names[-1]) == ("prepare", "score")
        assert {"upload", "predict"} < set(names)
        assert names.index("upload") < names.index("predict")


def test_what_was_done_before_is_counted_at_once(client, model, regression, tmp_path, steps):
    source, out = regression.score, str(tmp_path / "out")
    client.score_shards(model, source, out, [0, 4], progress=steps.append, **OPTIONS)
    assert (of_whole(steps)[-1].done, of_whole(steps)[-1].total) == (10, 10)  # of the shards that were asked for
    for expected in ((10, 25, "2 of 5 shards"), (25, 25, "5 of 5 shards")):
        steps.clear()
        client.score(model, source, out, progress=steps.append, **OPTIONS)
        first = of_whole(steps)[0]
        assert (first.done, first.total, first.note) == expected


def test_a_shard_that_is_put_back_waits(client, model, regression, tmp_path, steps, control):
    control.inject(kind="drop", when="after", route=PREDICT, nth=1)
    client.score(model, regression.score, str(tmp_path / "out"), progress=steps.append, **OPTIONS)
    (waited,) = [step.shard for step in steps if step.step == "wait"]
    names = [step.step for step in steps if step.shard == waited]
    assert names.count("predict") == 2
    assert names[-1] == "score"


def test_copying_is_told(client, model, regression, tmp_path, steps):
    import pyarrow.parquet as pq

    table = pq.read_table(regression.score)
    client.score(model, table, str(tmp_path / "out"), progress=steps.append, **OPTIONS)
    copied = [step.done for step in steps if step.note.endswith("rows copied")]
    assert copied
    assert max(copied) == 25


def test_a_plan_is_held_to(client, model, regression, write, tmp_path, journal):
    out = tmp_path / "out"
    plan = client.plan_score(model, regression.score, rows_per_shard=5)
    other = write({"x": [0.5], "other": [1]}, "other.parquet")
    for source, options in ((other, {}), (regression.score, {"output_type": "median"}), (regression.score, {})):
        rows = {"rows_per_shard": 5} if source == other or options else {"rows_per_shard": 10}
        with pytest.raises(InvalidInputError, match=rf"{plan.plan_id} was planned.*Plan it anew"):
            client.score(model, source, str(out), plan=plan, **rows, **options)
    assert (journal.puts(), out.exists()) == ([], False)
    assert client.score(model, regression.score, str(out), plan=plan, rows_per_shard=5).plan_id == plan.plan_id


def test_what_a_destination_holds(client, model, regression, out, control):
    target = folder(out, None)
    assert find_earlier(target) == Earlier()
    assert find_earlier(target).empty
    control.inject(kind="quota", route=PREDICT, skip=2, times=None)
    plan = client.plan_score(model, regression.score, rows_per_shard=5)
    with pytest.raises(QuotaExceededError, match="2 of 5 shards are done"):
        client.score(model, regression.score, out, rows_per_shard=5, concurrency=1)
    control.clear()
    found = find_earlier(target)
    assert (found.manifest, found.begun, found.empty) == (None, {plan.plan_id: 3}, False)
    assert found.holds(plan.plan_id)
    assert not found.complete(plan.plan_id)
    assert found.unfinished == found.begun
    assert not found.holds("0" * 32)
    client.score(model, regression.score, out, rows_per_shard=5)
    found = find_earlier(target)
    assert found.complete(plan.plan_id)
    assert found.unfinished == {}


def test_manifests_that_cannot_be_read(client, model, regression, tmp_path):
    out = tmp_path / "out"
    client.score(model, regression.score, str(out), **OPTIONS)
    manifest = out / "_manifest.json"
    manifest.write_text(manifest.read_text().replace('"schema_version": 1', '"schema_version": 2'))
    with pytest.raises(RecordTooNewError):
        find_earlier(folder(str(out), None))
    manifest.write_text("")
    found = find_earlier(folder(str(out), None))
    assert (found.damaged, found.manifest, found.empty) == (True, None, False)


def test_the_predictions_of_a_single_call_are_found(client, model, regression, tmp_path):
    client.predict(model, regression.score, str(tmp_path / "out"))
    found = find_earlier(folder(str(tmp_path / "out"), None))
    assert (found.predictions, found.begun) == (True, {})


def test_a_folder_of_other_files_is_empty(tmp_path):
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"a": [1]}), tmp_path / "mine.parquet")
    (tmp_path / "notes.txt").write_text("")
    assert find_earlier(folder(str(tmp_path), None)).empty
