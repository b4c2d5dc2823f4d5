"""The lineage store on S3: no cache between two clients, one winner of a race, one listing for a source."""

import json
import subprocess
import sys

import pytest

from tabpfn_assets import Evaluation, FittedModel
from tabpfn_operators.errors import AliasMovedError, RecordUnreadableError
from tabpfn_operators.lineage import LineageStore

RACE = """
import json, multiprocessing, sys

url, options, rounds, versions = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
context = multiprocessing.get_context("spawn")

def work(version, barrier, queue):
    from tabpfn_operators.errors import AliasMovedError
    from tabpfn_operators.lineage import LineageStore
    store = LineageStore(url, options)
    for n in range(rounds):
        barrier.wait(60)
        try:
            queue.put([n, version, "won", store.promote("churn", version, alias=f"a{n}", expected=None).version])
        except AliasMovedError as error:
            queue.put([n, version, "lost", error.version])

if __name__ == "__main__":
    barrier, queue = context.Barrier(len(versions)), context.Queue()
    started = [context.Process(target=work, args=(version, barrier, queue)) for version in versions]
    for process in started: process.start()
    print(json.dumps([queue.get(timeout=120) for _ in range(rounds * len(versions))]))
    for process in started: process.join(60)
"""


def build(number=1, **fields):
    record = {
        "name": "churn",
        "fitted_train_set_id": f"fitted-{number}",
        "train_set_upload_id": f"upload-{number}",
        "status": "completed",
        "target": "y",
        "features": [{"name": "a", "dtype": "double"}],
        "classes": ["no", "yes"],
        "rows": 100,
        "source": {"uris": ["s3://data/day/train.parquet"], "rows": 100, "fingerprint": "5" * 64},
        "fingerprint": "f" * 64,
        "parameters": {"task": "classification"},
        "created_at": f"2026-11-{number:02d}T00:00:00Z",
    }
    return FittedModel.model_validate({**record, **fields})


def evaluation(number=1):
    return Evaluation.model_validate(
        {
            "fitted_train_set_id": f"fitted-{number}",
            "task": "classification",
            "target": "y",
            "headline": "log_loss",
            "metrics": {"log_loss": 0.5},
            "rows": 10,
            "rows_scored": 10,
            "rows_evaluated": 10,
            "seed": 0,
            "created_at": "2026-12-01T00:00:00Z",
        }
    )


@pytest.fixture
def url(bucket):
    return f"{bucket}/lineage"


@pytest.fixture
def warm(url, options):
    """A store whose user has turned a listings cache on."""
    return LineageStore(url, {**options, "use_listings_cache": True})


@pytest.fixture
def cold(url, options):
    return LineageStore(url, options)


def test_the_life_of_a_model(cold, options, url):
    first, second = cold.add(build(1)), cold.add(build(2))
    assert cold.add(build(1)) == first
    cold.add_evaluation("churn", second, evaluation(2))
    cold.promote("churn", first, expected=None)
    cold.promote("churn", second, expected=first)
    other = LineageStore(f"{url}/", options)
    assert other.names() == ["churn"]
    assert other.versions("churn") == [first, second]
    assert other.get("churn", "@champion").evaluation == evaluation(2)
    assert [model.fitted_train_set_id for model in other.find("f" * 64)] == ["fitted-2", "fitted-1"]
    assert [(each.version, each.aliases) for each in other.list_models()] == [(first, ()), (second, ("champion",))]
    assert other.rollback("churn").version == first
    assert [entry.version for entry in cold.history("churn")] == [first, second, first]
    assert other.check().problems == other.check().unrecorded == ()
    other.mark_erased("churn", second)
    assert [model.fitted_train_set_id for model in cold.find("f" * 64)] == ["fitted-1"]
    assert cold.get("churn") == build(1)
    other.mark_erasing([("churn", second)], "proof")
    assert cold.was_erasing([("churn", second)], "proof")
    other.forget_names("churn", second)
    assert cold.get("churn", second).classes == ("class-1", "class-2")


def test_what_another_client_does_is_seen_through_a_warm_cache(warm, cold):
    first = warm.add(build(1))
    warm.promote("churn", first)
    warm._fs.ls(warm._path("models", "churn", "aliases", "champion"))
    warm._fs.find(warm._path())
    assert warm._fs.dircache
    second = cold.add(build(2))
    cold.promote("churn", second, expected=first)
    assert warm.alias("churn").version == second
    assert warm.get("churn", "@champion").fitted_train_set_id == "fitted-2"
    assert warm.versions("churn") == [first, second]
    assert len(warm.find("f" * 64)) == 2
    assert warm.check().problems == ()
    with pytest.raises(AliasMovedError, match=f"points to {second}, not to {first}"):
        warm.promote("churn", warm.add(build(3)), expected=first)


def test_what_was_trained_on_a_file_is_one_listing(cold, monkeypatch):
    version = cold.add(build(source={"uris": [f"s3://data/day/{n}.parquet" for n in range(30)], "rows": 9}))
    asked = []
    called = type(cold._fs)._call_s3

    async def counted(self, method, *arguments, **options):
        asked.append(method)
        return await called(self, method, *arguments, **options)

    monkeypatch.setattr(type(cold._fs), "_call_s3", counted)
    assert cold.find_by_source("s3://KEY:SECRET@data/day/17.parquet") == [("churn", version)]
    assert asked == ["list_objects_v2"]
    assert cold.find_by_source("s3://data/day") == [("churn", version)]
    assert cold.find_by_source("s3://data/da") == []


def test_a_damaged_record_is_named(cold, second):
    version = cold.add(build())
    second.pipe_file(f"{cold.url}/models/churn/{version}.json", b"{")
    with pytest.raises(RecordUnreadableError, match=f"{cold.url}/models/churn/{version}.json holds no JSON"):
        cold.get("churn")
    assert version in cold.list_models()[0].problem


def test_a_store_that_may_not_be_read_is_not_empty(cold, options):
    with pytest.raises(RecordUnreadableError, match="cannot be listed"):
        LineageStore("s3://no-such-bucket/lineage", {**options, "client_kwargs": {"endpoint_url": "x"}}).names()


def test_of_two_processes_that_promote_one_wins(cold, url, options, tmp_path):
    rounds, versions = 20, [cold.add(build(1)), cold.add(build(2))]
    script = tmp_path / "race.py"
    script.write_text(RACE)
    done = subprocess.run(
        [sys.executable, script, url, json.dumps(options), str(rounds), *versions],
        capture_output=True,
        text=True,
        check=True,
        timeout=180,
    )
    outcomes = json.loads(done.stdout)
    for n in range(rounds):
        winner = cold.alias("churn", f"a{n}").version
        found = {version: (word, now) for number, version, word, now in outcomes if number == n}
        assert sorted(found) == sorted(versions)
        assert {word for word, _ in found.values()} == {"won", "lost"}
        assert found[winner][0] == "won"
        assert {now for _, now in found.values()} == {winner}


def test_no_secret_is_stored(cold, second, bucket):
    version = cold.add(build(source={"uris": ["s3://KEY:CANARY@data/a.parquet?sig=CANARY"], "rows": 1}))
    cold.promote("churn", version)
    stored = second.find(bucket)
    assert len(stored) > 5
    assert [path for path in stored if b"CANARY" in path.encode() + second.cat_file(path)] == []
    assert [path for path in stored if b"a-secret" in second.cat_file(path)] == []
