"""Batch scoring from S3 to S3: parts whole or not there, no cache between two workers, nothing secret left behind."""

import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tabpfn_assets import PredictionSet, ScoringManifest
from tabpfn_emulator.testing import account_of
from tabpfn_operators import Client
from tabpfn_operators.errors import (
    DestinationBusyError,
    InvalidInputError,
    OutcomeUnknownError,
    TabPFNError,
)
from tabpfn_operators.scoring import _queue
from tabpfn_operators.scoring._ledger import Ledger
from tabpfn_operators.storage import folder

PREDICT = "/tabpfn/predict"


@pytest.fixture
def client(emulator, bearer):
    """One kind of client, for time; the test of a whole scoring has both."""
    with Client(bearer, base_url=emulator) as client:
        yield client


@pytest.fixture
def out(bucket):
    return f"{bucket}/scores/daily"


@pytest.fixture
def rows(bucket, second, regression):
    """A folder of part files on S3, whose row groups are shards or larger than one."""
    table = pq.read_table(regression.score).append_column("row", pa.array(range(25)))
    for name, part in (("a", table.slice(0, 14)), ("b", table.slice(14))):
        with second.open(f"{bucket}/rows/{name}.parquet", "wb") as file:
            pq.write_table(part, file, row_group_size=9)
    return f"{bucket}/rows"


@pytest.fixture
def model(fit_once, regression):
    return fit_once(regression)


@pytest.fixture
def run(client, model, rows, out, options):
    """Score into the bucket, one shard after another; another client may be named."""

    def score(by=client, **asked):
        asked = {"keep": ["row"], "rows_per_shard": 5, "concurrency": 1, "destination_options": options, **asked}
        return by.score(model, rows, out, storage_options=options, **asked)

    return score


@pytest.fixture
def runs(control, bearer):
    """Count the predictions that the server has carried out, and charged."""
    return lambda: len(control.creations(kind="predict_run", account=account_of(bearer)))


@pytest.fixture
def found(second, out):
    """Read the predictions as a client does that knows nothing of who wrote them."""

    def read():
        manifest = ScoringManifest.model_validate_json(second.cat_file(f"{out}/_manifest.json"))
        names = [shard.files[0].name for shard in manifest.shards]
        assert sorted(path.rpartition("/")[2] for path in second.glob(f"{out}/part-*")) == sorted(names)
        tables = []
        for name in names:
            with second.open(f"{out}/{name}") as file:
                tables.append(pq.read_table(file))
        return manifest, pa.concat_tables(tables)

    return read


def test_from_s3_to_s3(connect, client, model, run, found, runs, regression, second, out, rows, tmp_path):
    record = run(connect())
    manifest, table = found()
    assert 0 < manifest.plan.spliced < manifest.plan.shards == runs()
    assert run() == record
    assert manifest.plan.shards == runs()
    client.predict(model, regression.score, str(tmp_path / "whole"))
    assert table["row"].to_pylist() == list(range(25))
    assert table.select(["prediction"]).equals(pq.read_table(tmp_path / "whole" / "predictions.parquet"))
    assert PredictionSet.model_validate_json(second.cat_file(f"{out}/_lineage.json")) == record
    assert (record.uri, record.manifest_uri) == (out, f"{out}/_manifest.json")
    assert record.source.uris == (f"{rows}/a.parquet", f"{rows}/b.parquet")
    assert [path for path in second.find(out) if path.endswith(".tmp")] == []


def test_no_secret_is_stored(run, control, second, bucket, out, bearer):
    control.inject(kind="drop", when="after", route=PREDICT, nth=2)
    with pytest.raises(OutcomeUnknownError) as caught:
        run(on_unknown="raise")
    run()
    stored = second.find(out)
    assert len([path for path in stored if "/_claims/" in path]) > 10
    for secret in (b"a-key", b"a-secret", bearer.encode(), b"/storage/"):
        assert [path for path in stored if secret in second.cat_file(path)] == []
        assert secret not in str(caught.value).encode()


def test_what_is_done_is_not_done_again(run, runs, control, found, second, out):
    control.inject(kind="quota", route=PREDICT, nth=3)
    with pytest.raises(TabPFNError, match="2 of 6 shards are done and kept"):
        run()
    before = {path: second.info(path)["LastModified"] for path in second.glob(f"{out}/part-*")}
    assert (len(before), runs(), second.exists(f"{out}/_manifest.json")) == (2, 2, False)
    run()
    manifest, _ = found()
    assert (runs(), manifest.resends) == (6, ())
    second.invalidate_cache()
    assert {path: second.info(path)["LastModified"] for path in before} == before


@pytest.mark.parametrize("harm", ["gone", "other bytes"])
def test_a_damaged_part_is_scored_again_also_behind_a_listings_cache(run, runs, found, second, out, options, harm):
    warm = {**options, "use_listings_cache": True}
    run(destination_options=warm)
    victim = second.glob(f"{out}/part-*")[2]
    if harm == "gone":
        second.rm_file(victim)
    else:
        second.pipe_file(victim, bytes(second.info(victim)["size"]))
    run(destination_options=warm)
    assert runs() == 7
    assert found()[1].num_rows == 25


def test_two_at_the_same_time_share_the_work(connect, run, runs, found, monkeypatch):
    monkeypatch.setattr(_queue, "LOOK_SECONDS", 0.2)
    failures, records = [], []

    def work():
        try:
            records.append(run(connect(), rows_per_shard=3, concurrency=2))
        except TabPFNError as error:
            failures.append(error)

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert failures == []
    manifest, table = found()
    assert table["row"].to_pylist() == list(range(25))
    assert (runs(), manifest.resends) == (manifest.plan.shards, ())
    assert {record.plan_id for record in records} == {manifest.plan.plan_id}


def test_another_scoring_is_refused_while_it_is_at_work_and_replaced_when_it_is_not(
    run, runs, found, second, out, options
):
    first = run()
    other = Ledger(folder(out, options), "f" * 32, "another worker")
    other.enter()
    with pytest.raises(DestinationBusyError, match="f" * 32):
        run(output_type="median")
    other.leave()
    assert found()[0].plan.plan_id == first.plan_id
    second.pipe_file(f"{out}/part-of-mine.txt", b"mine")
    again = run(output_type="median")
    second.invalidate_cache()
    assert second.cat_file(f"{out}/part-of-mine.txt") == b"mine"
    second.rm_file(f"{out}/part-of-mine.txt")
    assert found()[0].plan.plan_id == again.plan_id != first.plan_id
    assert second.find(f"{out}/_claims/{first.plan_id}") == []
    assert runs() == 12


def test_a_source_that_is_not_there(client, model, bucket, out, second, options, runs):
    with pytest.raises(InvalidInputError, match="no-such-rows does not exist"):
        client.score(model, f"{bucket}/no-such-rows", out, storage_options=options, destination_options=options)
    assert second.find(out) == []
    assert runs() == 0
