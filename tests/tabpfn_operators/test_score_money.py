"""Each shard is paid for once: what batch scoring does when the pool is empty, an answer is lost, or a file is gone."""

import json
import os
import shutil

import pyarrow.parquet as pq
import pytest

from tabpfn_assets import ScoringManifest
from tabpfn_emulator.testing import account_of
from tabpfn_operators.errors import (
    AuthenticationError,
    OutcomeUnknownError,
    QuotaExceededError,
    RequestRejectedError,
    TabPFNError,
)

PREDICT = "/tabpfn/predict"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def model(fit_once, regression):
    return fit_once(regression)


@pytest.fixture
def run(client, model, regression, out):
    """Score 25 rows in 5 shards of 5, one after another."""

    def score(**options):
        options = {"rows_per_shard": 5, "concurrency": 1, **options}
        return client.score(model, regression.score, str(out), **options)

    return score


@pytest.fixture
def runs(control, bearer):
    """Count the predictions that the server has carried out, and charged."""
    return lambda: len(control.creations(kind="predict_run", account=account_of(bearer)))


@pytest.fixture
def right(run, client, model, regression, out, tmp_path):
    """Hold the output against one prediction of all rows, its manifest against its files; return the manifest."""

    def check():
        client.predict(model, regression.score, str(tmp_path / "whole"))
        assert pq.read_table(out).equals(pq.read_table(tmp_path / "whole" / "predictions.parquet"))
        manifest = ScoringManifest.model_validate_json((out / "_manifest.json").read_bytes())
        named = sorted(shard.files[0].name for shard in manifest.shards)
        assert sorted(path.name for path in out.glob("part-*")) == named
        return manifest

    return check


def parts(out):
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in out.glob("part-*")}


# Done before


def test_what_is_finished_costs_nothing(run, runs, out):
    first = run()
    before = parts(out)
    assert run() == first
    assert runs() == 5
    assert parts(out) == before


def test_what_is_done_is_not_done_again(run, runs, out, right, client, model, regression):
    done = client.score_shards(model, regression.score, str(out), [3, 1], rows_per_shard=5)
    assert [shard.index for shard in done] == [1, 3]
    assert not (out / "_manifest.json").exists()
    before = parts(out)
    run()
    assert runs() == 5
    assert before.items() < parts(out).items()
    right()


@pytest.mark.parametrize("harm", ["gone", "cut", "same size", "empty"])
def test_a_damaged_part_is_scored_again(run, runs, out, right, harm, caplog):
    run()
    victim, *others = sorted(out.glob("part-*"))
    kept = {path.name: path.stat().st_mtime_ns for path in others}
    content = victim.read_bytes()
    if harm == "gone":
        victim.unlink()
    else:
        flipped = bytes([content[100] ^ 1])
        damaged = {"cut": content[:-1], "same size": content[:100] + flipped + content[101:], "empty": b""}
        victim.write_bytes(damaged[harm])
    run()
    assert runs() == 6
    assert "is scored again, and charged again" in caplog.text
    right()
    assert {path.name: path.stat().st_mtime_ns for path in others} == kept


def test_a_lost_manifest_is_written_again_without_a_charge(run, runs, out, right):
    first = run()
    for name in ("_manifest.json", "_lineage.json"):
        (out / name).unlink()
        again = run()
        assert (again.plan_id, again.columns) == (first.plan_id, first.columns)
        assert (out / name).is_file()
    (out / "_manifest.json").write_text("{")
    run()
    assert runs() == 5
    right()


def test_lost_books_do_not_make_a_finished_scoring_unfinished(run, runs, out):
    first = run()
    shutil.rmtree(out / "_claims")
    assert run() == first
    assert runs() == 5


def test_a_rewritten_source_is_another_scoring(run, runs, out, regression, right):
    first = run()
    content = pq.read_table(regression.score)
    os.unlink(regression.score)
    pq.write_table(content.slice(0, 25), regression.score, compression="gzip")
    second = run()
    assert second.plan_id != first.plan_id
    assert runs() == 10
    right()


# The pool is empty


def test_an_empty_pool_keeps_what_is_done_and_names_its_reset(run, runs, out, control, right, model):
    control.configure(daily_tokens=25_000)
    with pytest.raises(QuotaExceededError) as caught:
        run()
    done = runs()
    assert 0 < done < 5
    assert f"{done} of 5 shards are done and kept." in str(caught.value)
    assert caught.value.reset_at
    assert caught.value.reset_at in str(caught.value)
    assert len(parts(out)) == done
    assert not (out / "_manifest.json").exists()
    control.configure(daily_tokens=5_000_000)
    before = parts(out)
    run()
    assert runs() == 5
    assert before.items() < parts(out).items()
    assert right().resends == ()


def test_shards_under_way_are_finished_when_the_pool_is_empty(run, runs, out, control):
    control.inject(
        {"kind": "delay", "seconds": 0.5, "route": PREDICT, "times": 2},
        {"kind": "quota", "route": PREDICT, "skip": 2, "times": None},
    )
    with pytest.raises(QuotaExceededError, match="2 of 5 shards are done and kept"):
        run(concurrency=3)
    assert runs() == len(parts(out)) == 2
    control.clear_faults()
    assert run().resends == 0
    assert runs() == 5


# Too many calls


def test_a_rate_limit_is_waited_for(run, runs, control, journal, right):
    control.inject(kind="rate_limit", seconds=1, route=PREDICT, nth=3)
    assert run(concurrency=4).resends == 0
    assert runs() == 5
    assert sorted(row["status"] for row in journal.rows(PREDICT)) == [200] * 5 + [429]
    right()


def test_who_is_killed_while_it_waits_leaves_no_doubt(run, control, out):
    control.inject(kind="rate_limit", seconds=1, route=PREDICT)
    run(rows_per_shard=25)
    (log,) = (path for path in (out / "_claims").glob("*/00000"))
    phases = [json.loads(entry.read_text())["phase"] for entry in sorted(log.iterdir())]
    assert phases == ["taken", "sent", "taken", "sent", "done"]


def test_rows_that_the_server_has_lost_are_sent_after_all(
    run, runs, client, model, regression, control, journal, tmp_path
):
    client.score(model, regression.score, str(tmp_path / "before"), rows_per_shard=5)
    error = {"status": 404, "error_code": "NOT_FOUND", "error": "The test set upload does not exist or has expired."}
    control.inject(kind="status", route=PREDICT, nth=2, **error)
    before = len(journal.puts())
    assert run().resends == 0
    assert (runs(), len(journal.puts()) - before) == (10, 1)


# Nobody knows what came of it


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_lost_answer_is_asked_for_again_once_and_named(run, runs, control, right, caplog, when):
    control.inject(kind="drop", when=when, route=PREDICT, nth=2)
    record = run()
    assert record.resends == 1
    assert runs() == 5 + int(when == "after")
    manifest = right()
    (resend,) = manifest.resends
    (shard,) = [shard for shard in manifest.shards if shard.resends]
    assert (resend.shard, resend.estimated_cost) == (shard.index, shard.estimated_cost)
    assert shard.estimated_cost > 0
    told = f"Shard {shard.index:05d} was sent for about {shard.estimated_cost:,} tokens"
    assert f"{told}, and nobody knows what came of it; it is sent again, and possibly charged twice." in caplog.text


def test_raise_stays_raised_until_somebody_says_resend(run, runs, control, out, journal):
    control.inject(kind="drop", when="after", route=PREDICT, nth=2)
    with pytest.raises(OutcomeUnknownError, match="4 of 5 shards are done and kept"):
        run(on_unknown="raise")
    for _ in range(2):
        with pytest.raises(OutcomeUnknownError, match=r"on_unknown='resend'.*sends it again.*4 of 5 shards") as caught:
            run(on_unknown="raise")
        assert "was sent for about" in str(caught.value)
    assert runs() == journal.posts(PREDICT) == 5
    assert not (out / "_manifest.json").exists()
    assert run().resends == 1
    assert runs() == 6


def test_no_more_is_sent_again_than_was_allowed(run, runs, control, journal):
    control.inject(kind="drop", when="after", route=PREDICT, times=3)
    with pytest.raises(OutcomeUnknownError, match=r"all 1 resends of this scoring are used up.*max_resends"):
        run(max_resends=1)
    sent = journal.posts(PREDICT)
    with pytest.raises(OutcomeUnknownError, match="used up"):
        run(max_resends=1)
    assert journal.posts(PREDICT) == sent
    record = run(max_resends=3)
    assert record.resends == runs() - 5 > 0


def test_none_is_sent_again_where_none_is_allowed(run, runs, control):
    control.inject(kind="drop", when="after", route=PREDICT)
    with pytest.raises(OutcomeUnknownError, match="all 0 resends"):
        run(max_resends=0)
    assert runs() == 5


@pytest.mark.parametrize(("room", "resends"), [(0, 0), (1, 1), (2, 2)])
def test_what_is_sent_again_has_to_be_within_the_cost_that_is_allowed(
    run, runs, control, client, model, regression, room, resends
):
    plan = client.plan_score(model, regression.score, rows_per_shard=5)
    control.inject(kind="drop", when="after", route=PREDICT, times=2)
    max_cost = plan.estimated_cost * (plan.shards + room) // plan.shards
    if room < 2:
        with pytest.raises(OutcomeUnknownError, match=f"{3 + resends} of 5 shards are done and kept"):
            run(max_cost=max_cost, max_resends=5)
    else:
        assert run(max_cost=max_cost, max_resends=5).resends == 2
    assert runs() == 5 + resends


def test_several_that_stay_unknown_are_named(run, control):
    control.inject(kind="drop", when="after", route=PREDICT, times=2)
    with pytest.raises(OutcomeUnknownError, match=r"Shards \d{5}, \d{5} stay so\. 3 of 5 shards are done and kept"):
        run(on_unknown="raise")


@pytest.mark.parametrize("status", [502, 504, 500])
def test_a_gateways_answer_says_nothing_of_the_server_behind_it(run, runs, control, status):
    control.inject(kind="status", status=status, when="after", route=PREDICT, nth=3)
    assert run().resends == 1
    assert runs() == 6


# It is known that it was not carried out, or that it cannot be used


@pytest.mark.parametrize(
    ("status", "kind"), [(401, AuthenticationError), (422, RequestRejectedError), (400, RequestRejectedError)]
)
def test_a_refusal_ends_the_run_and_is_no_doubt(run, runs, control, journal, status, kind):
    control.inject(kind="status", status=status, route=PREDICT, nth=3)
    with pytest.raises(kind, match="2 of 5 shards are done and kept"):
        run()
    assert journal.posts(PREDICT) == 3
    assert run(on_unknown="raise").resends == 0
    assert runs() == 5


def test_an_answer_that_cannot_be_used_is_not_paid_for_again_and_again(run, runs, control, journal, out):
    """Whatever is wrong with it, the next shard's would be as well."""
    control.inject(kind="status", status=200, body={"prediction": [1.0], "metadata": {}}, route=PREDICT, times=None)
    with pytest.raises(TabPFNError, match="not of the shape of 'mean' for 5 rows"):
        run()
    assert journal.posts(PREDICT) == 1
    assert parts(out) == {}


def test_a_stored_prediction_that_is_not_given_away(run, control, journal, runs):
    control.inject(
        {"kind": "prediction_uri", "times": None},
        {"kind": "status", "route": "/storage", "method": "GET", "status": 403, "nth": 2},
    )
    record = run()
    assert (record.resends, runs()) == (1, 6)
    assert [row["bearer"] for row in journal.rows("/storage", "GET")] == [False] * 6
