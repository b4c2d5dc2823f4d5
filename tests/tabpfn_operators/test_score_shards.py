"""A scoring that several share: mapped workers, a plan that has to fit, and a shard that another has taken over."""

import asyncio
import shutil
import threading
import time
from functools import partial

import pyarrow.parquet as pq
import pytest

from tabpfn_assets import ScoringManifest, ScoringPlan
from tabpfn_emulator.testing import account_of
from tabpfn_operators import AsyncClient, Client
from tabpfn_operators.errors import (
    ConfigurationError,
    InvalidInputError,
    OutcomeUnknownError,
    TabPFNError,
)
from tabpfn_operators.scoring import _flow, _queue
from tabpfn_operators.scoring._ledger import LEASE_SECONDS, Ledger
from tabpfn_operators.scoring._plan import Shard
from tabpfn_operators.storage import folder

PREDICT = "/tabpfn/predict"
OPTIONS = {"rows_per_shard": 10}


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


@pytest.fixture
def soon(monkeypatch):
    """Look at what others have every tenth of a second."""
    monkeypatch.setattr(_queue, "LOOK_SECONDS", 0.1)


def manifest_of(out):
    return ScoringManifest.model_validate_json((out / "_manifest.json").read_bytes())


# Mapped over workers


def test_a_plan_travels_and_its_shards_are_spread(client, model, regression, out, runs, journal):
    plan = client.plan_score(model, regression.score, **OPTIONS)
    assert journal.posts("/tabpfn/prepare_test_set_upload") == 0
    assert not out.exists()
    assert ScoringPlan.model_validate_json(plan.model_dump_json()) == plan
    assert (plan.rows, plan.shards, plan.rows_per_shard) == (25, 3, 10)
    assert client.plan_score(model, regression.score, **OPTIONS) == plan
    mapped = [
        client.score_shards(model, regression.score, str(out), [index], plan=plan, **OPTIONS) for index in (2, 0, 1)
    ]
    assert [shard.index for (shard,) in mapped] == [2, 0, 1]
    assert runs() == 3
    assert not (out / "_manifest.json").exists()
    record = client.score(model, regression.score, str(out), max_cost=0, **OPTIONS)
    assert (runs(), record.charged, record.estimated_cost) == (3, None, plan.estimated_cost)
    assert record.plan_id == plan.plan_id
    assert manifest_of(out).shards == tuple(shard for (shard,) in sorted(mapped, key=lambda each: each[0].index))


def test_workers_at_the_same_time(connect, model, regression, out, runs, soon):
    found, failures = {}, []

    def work(number):
        try:
            found[number] = connect().score(model, regression.score, str(out), rows_per_shard=2, concurrency=2)
        except TabPFNError as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert failures == []
    assert runs() == 13
    assert {record.plan_id for record in found.values()} == {manifest_of(out).plan.plan_id}
    assert pq.read_table(out).num_rows == 25


@pytest.mark.parametrize("other", [{"rows_per_shard": 8}, {"output_type": "median"}, {"keep": ["x"]}, {"wide": False}])
def test_another_plan_than_was_expected(client, model, regression, out, journal, other):
    plan = client.plan_score(model, regression.score, **OPTIONS)
    with pytest.raises(InvalidInputError, match=f"{plan.plan_id} was planned: model, source or options are others"):
        client.score_shards(model, regression.score, str(out), [0], plan=plan, **{**OPTIONS, **other})
    assert journal.posts(PREDICT) == 0
    assert not out.exists()


def test_a_source_that_was_written_to_since_it_was_planned(client, model, regression, out, journal):
    plan = client.plan_score(model, regression.score, **OPTIONS)
    pq.write_table(pq.read_table(regression.score).slice(0, 24), regression.score)
    with pytest.raises(InvalidInputError, match="was planned"):
        client.score_shards(model, regression.score, str(out), [0], plan=plan, **OPTIONS)
    assert journal.posts(PREDICT) == 0


@pytest.mark.parametrize("wrong", [3, -1])
def test_a_shard_that_is_not_there(client, model, regression, out, wrong):
    with pytest.raises(ConfigurationError, match=f"There is no shard {wrong}; the plan has 3, counted from 0"):
        client.score_shards(model, regression.score, str(out), [0, wrong], **OPTIONS)


def test_no_shards_and_the_same_shard_twice(client, model, regression, out, runs):
    assert client.score_shards(model, regression.score, str(out), [], **OPTIONS) == ()
    assert [shard.index for shard in client.score_shards(model, regression.score, str(out), (1, 1), **OPTIONS)] == [1]
    assert runs() == 1


def test_a_mapped_shard_that_stays_unknown_concerns_nobody_else(client, model, regression, out, control, runs):
    control.inject(kind="drop", when="after", route=PREDICT)
    with pytest.raises(OutcomeUnknownError):
        client.score_shards(model, regression.score, str(out), [1], on_unknown="raise", **OPTIONS)
    client.score_shards(model, regression.score, str(out), [0, 2], on_unknown="raise", **OPTIONS)
    with pytest.raises(OutcomeUnknownError, match="Shard 00001 was sent"):
        client.score(model, regression.score, str(out), on_unknown="raise", **OPTIONS)
    (again,) = client.score_shards(model, regression.score, str(out), [1], **OPTIONS)
    assert again.resends == 1
    assert client.score(model, regression.score, str(out), **OPTIONS).resends == 1
    assert runs() == 4


# Taken over by another worker


@pytest.fixture
def other(client, model, regression, out):
    """The books of the same plan, kept by another worker who thinks that every lease it finds is over."""
    plan = client.plan_score(model, regression.score, **OPTIONS)
    late = 2 * LEASE_SECONDS
    ledger = Ledger(folder(str(out), None), plan.plan_id, "another worker", clock=lambda: time.time() + late, skew=0.0)
    yield ledger
    ledger.leave()


class Meanwhile:
    """Do something once, when the first shard is begun; a progress callback."""

    def __init__(self, work):
        self._work = work
        self._lock = threading.Lock()
        self.shard = None

    def __call__(self, told):
        with self._lock:
            if told.step == "prepare" and self.shard is None:
                start, stop = ((0, 9), (9, 17), (17, 25))[told.shard]
                self.shard = Shard(told.shard, start, stop - start)
                self._work(self.shard)


def test_a_shard_that_another_took_and_gave_back_is_sent_once(client, model, regression, out, other, soon, runs):
    def take_over(shard):
        other.enter()
        assert other.look(shard).state == "free"
        assert other.take(shard)
        other.free(shard)

    meanwhile = Meanwhile(take_over)
    record = client.score(model, regression.score, str(out), concurrency=1, progress=meanwhile, **OPTIONS)
    assert meanwhile.shard is not None
    assert (record.shards, record.resends, runs()) == (3, 0, 3)


def test_a_shard_that_another_has_done_is_not_sent(client, model, regression, tmp_path, out, other, soon, runs):
    client.score(model, regression.score, str(tmp_path / "theirs"), **OPTIONS)
    theirs = manifest_of(tmp_path / "theirs").shards

    def overtake(shard):
        other.enter()
        assert other.look(shard).state == "free"
        assert other.take(shard)
        assert other.send(shard)
        done = theirs[shard.index]
        shutil.copy2(tmp_path / "theirs" / done.files[0].name, out / done.files[0].name)
        other.finish(shard, done)

    meanwhile = Meanwhile(overtake)
    client.score(model, regression.score, str(out), concurrency=1, progress=meanwhile, **OPTIONS)
    assert runs() == 3 + 2
    assert manifest_of(out).shards[meanwhile.shard.index] == theirs[meanwhile.shard.index]
    assert pq.read_table(out).equals(pq.read_table(tmp_path / "theirs"))


def test_a_shard_that_another_has_sent_is_sent_again_and_named(client, model, regression, out, other, soon, runs):
    def send_and_vanish(shard):
        other.enter()
        assert other.look(shard).state == "free"
        assert other.take(shard)
        assert other.send(shard)
        other.doubt(shard)

    meanwhile = Meanwhile(send_and_vanish)
    record = client.score(model, regression.score, str(out), concurrency=1, progress=meanwhile, **OPTIONS)
    (resend,) = manifest_of(out).resends
    assert (record.resends, resend.shard, runs()) == (1, meanwhile.shard.index, 3)


# Left in the middle


@pytest.fixture
def short_leases(monkeypatch):
    """Let what a worker had in its hands be free half a second after it is gone."""
    monkeypatch.setattr(_flow, "Ledger", partial(Ledger, lease_seconds=0.5, skew=0.1))


def test_a_call_that_is_cancelled_leaves_its_shards_to_the_next(
    emulator, bearer, model, regression, out, control, runs, journal, soon, short_leases
):
    control.inject(kind="delay", seconds=20, route=PREDICT, times=2, when="before")

    async def cancelled():
        async with AsyncClient(bearer, base_url=emulator) as client:
            call = asyncio.create_task(client.score(model, regression.score, str(out), concurrency=2, **OPTIONS))
            for _ in range(600):
                await asyncio.sleep(0.05)
                claims = [path.read_text() for path in out.glob("_claims/*/0*/*.json")]
                if sum('"sent"' in text for text in claims) >= 2:
                    break
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

    asyncio.run(cancelled())
    assert list(out.glob("part-*")) == list(out.glob("*.tmp")) == []
    control.clear_faults()
    with Client(bearer, base_url=emulator) as client:
        record = client.score(model, regression.score, str(out), max_resends=2, **OPTIONS)
    assert record.resends == len(manifest_of(out).resends) == 2
    assert pq.read_table(out).num_rows == 25


def test_who_watches_and_fails_ends_the_call_and_leaves_no_doubt(client, model, regression, out, runs):
    def fail(told):
        if told.step == "prepare":
            raise RuntimeError("the watcher")

    with pytest.raises(RuntimeError, match="the watcher"):
        client.score(model, regression.score, str(out), concurrency=2, progress=fail, **OPTIONS)
    assert runs() == 0
    assert client.score(model, regression.score, str(out), on_unknown="raise", **OPTIONS).resends == 0
    assert runs() == 3
