"""The lineage store on local disk: what is recorded once, where aliases point, and what damage does."""

import copy
import json
import pickle
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tabpfn_assets import Decision
from tabpfn_operators.errors import (
    AliasMovedError,
    ConfigurationError,
    InvalidInputError,
    ModelNotRecordedError,
    RecordTooNewError,
    RecordUnreadableError,
    StoreNotExclusiveError,
)
from tabpfn_operators.lineage import LineageStore

RACE = """
import multiprocessing, sys
from tabpfn_operators.errors import AliasMovedError
from tabpfn_operators.lineage import LineageStore

url, rounds, versions = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
context = multiprocessing.get_context("fork")
barrier, queue = context.Barrier(len(versions)), context.Queue()

def work(version):
    store = LineageStore(url)
    for n in range(rounds):
        barrier.wait(60)
        try:
            entry = store.promote("churn", version, alias=f"a{n}", expected=None)
            queue.put(f"{n} {version} won {entry.number}")
        except AliasMovedError as error:
            queue.put(f"{n} {version} lost {error.version}")

started = [context.Process(target=work, args=(version,)) for version in versions]
for process in started: process.start()
for _ in range(rounds * len(versions)): print(queue.get(timeout=60))
for process in started: process.join(60)
"""


@pytest.fixture
def url(tmp_path):
    return str(tmp_path / "store")


@pytest.fixture
def store(url):
    return LineageStore(url)


@pytest.fixture
def build(build_model):
    """Build a model named churn; each number is another fit, a day later."""

    def model(number=1, **fields):
        facts = {
            "name": "churn",
            "fitted_train_set_id": f"fitted-{number}",
            "created_at": f"2026-11-{number:02d}T00:00:00Z",
            "source": {"uris": ["s3://bucket/day/train.parquet"], "rows": 100, "fingerprint": "5" * 64},
            "fingerprint": "f" * 64,
        }
        return build_model(**{**facts, **fields})

    return model


def files(store, pattern="**/*"):
    return sorted(str(path.relative_to(store.url)) for path in Path(store.url).glob(pattern) if path.is_file())


# Versions


def test_nothing_is_touched_before_the_first_call(tmp_path):
    store = LineageStore("no-such-protocol://x")
    assert store.url == "no-such-protocol://x"
    with pytest.raises(ConfigurationError, match="unknown storage protocol"):
        store.names()
    LineageStore(tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_relative_path_stays_the_same_folder(tmp_path, monkeypatch, build):
    monkeypatch.chdir(tmp_path)
    store = LineageStore("store")
    assert store.url == str(tmp_path / "store")
    store.add(build())
    assert LineageStore(tmp_path / "store").names() == ["churn"]


def test_an_empty_store_holds_nothing(store):
    assert (store.names(), store.versions("churn"), store.find("f" * 64), store.list_models()) == ([], [], [], [])
    assert (store.alias("churn"), store.aliases("churn"), store.find_by_source("s3://b/x")) == (None, {}, [])
    with pytest.raises(ModelNotRecordedError, match="holds no model 'churn'; it holds none"):
        store.get("churn")


def test_a_model_is_recorded_once(store, build):
    version = store.add(build())
    before = files(store)
    assert store.add(build()) == version
    assert store.add(build(rows=7)) == version
    assert files(store) == before
    assert store.get("churn", version) == build()
    assert before == sorted(
        [
            f"models/churn/{version}.json",
            f"index/fits/{'f' * 64}/churn@{version}",
            f"index/sources/{'5' * 64}/churn@{version}",
            f"index/uploads/upload-1/churn@{version}",
            *(name for name in before if name.startswith("index/sources/s3___bucket")),
        ]
    )
    assert len(before) == 7


def test_the_same_version_of_another_model_is_refused(store, build):
    version = store.add(build())
    path = Path(store.url, "models", "churn", f"{version}.json")
    path.write_text(build(fitted_train_set_id="another").model_dump_json())
    with pytest.raises(InvalidInputError, match=f"{version}.json is another model, another"):
        store.add(build())


@pytest.mark.parametrize(
    ("fields", "text"),
    [({"name": None}, "has no name"), ({"status": "pending"}, "is pending"), ({"status": "failed"}, "is failed")],
)
def test_what_is_no_named_completed_model_is_refused(store, build, fields, text):
    with pytest.raises(InvalidInputError, match=text):
        store.add(build(**fields))
    assert not Path(store.url).exists()


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a" * 129, "@x"])
def test_a_name_that_is_no_name(store, build, name):
    calls = [
        lambda: store.get(name),
        lambda: store.versions(name),
        lambda: store.aliases(name),
        lambda: store.promote(name, "latest"),
        lambda: store.promote("churn", "latest", alias=name),
        lambda: store.rollback(name),
        lambda: store.is_erased(name, "20261121T000000000Z-00000000"),
        lambda: store.is_erased("churn", f"{name}/../x"),
        lambda: store.plan_erasure(name, "latest"),
    ]
    for call in calls:
        with pytest.raises(ConfigurationError, match=r"no name|no whole version"):
            call()
    assert not Path(store.url).exists()


def test_versions_are_listed_and_found_by_what_a_person_types(store, build):
    first, second = store.add(build(1)), store.add(build(2))
    store.promote("churn", first)
    assert store.versions("churn") == [first, second]
    assert [store.resolve("churn", text) for text in ("latest", "@champion", "20261101", second)] == [
        second,
        first,
        first,
        second,
    ]
    assert store.get("churn").fitted_train_set_id == "fitted-2"
    with pytest.raises(ModelNotRecordedError, match=f"choose one of {second}, {first}"):
        store.get("churn", "2026")
    with pytest.raises(ModelNotRecordedError, match="there is no version '20270101T000000000Z-00000000'"):
        store.get("churn", "20270101T000000000Z-00000000")
    with pytest.raises(ModelNotRecordedError, match="has no alias 'next'; it has champion"):
        store.get("churn", "@next")


def test_a_kill_while_adding_leaves_no_record_without_markers(store, build, url):
    """Every write but the last is a marker; the rerun completes what a kill left."""
    writes = LastWrites(url)
    version = writes.add(build())
    total = writes.count
    assert total > 5
    for n in range(total):
        store = LastWrites(f"{url}-{n}", fail_at=n)
        with pytest.raises(Killed):
            store.add(build())
        after = LineageStore(store.url)
        assert after.versions("churn") == []
        assert after.find("f" * 64) == []
        assert after.check().problems == ()
        assert after.add(build()) == version
        assert after.check().unrecorded == after.check().problems == ()
        assert len(files(after)) == total


class Killed(BaseException):
    """The process ends here."""


class LastWrites(LineageStore):
    """A store whose process is killed before its n-th write."""

    def __init__(self, url, fail_at=None):
        super().__init__(url)
        self.count = 0
        self._fail_at = fail_at

    def _touch(self, *parts):
        self._count()
        super()._touch(*parts)

    def _create(self, record, *parts):
        self._count()
        return super()._create(record, *parts)

    def _count(self):
        if self.count == self._fail_at:
            raise Killed
        self.count += 1


# Evaluations


def test_the_newest_evaluation_comes_with_the_model(store, build, build_evaluation):
    version = store.add(build())
    assert store.get("churn").evaluation is None
    late = build_evaluation(created_at="2026-12-02T00:00:00Z", metrics={"log_loss": 0.3})
    early = build_evaluation(created_at="2026-12-01T00:00:00Z")
    for evaluation in (late, early, late):
        store.add_evaluation("churn", "latest", evaluation)
    assert store.get("churn", version).evaluation == late
    assert store.evaluations("churn") == [early, late]
    assert store.list_models()[0].model.evaluation == late
    record = Path(store.url, "models", "churn", f"{version}.json")
    assert json.loads(record.read_text())["evaluation"] is None


def test_an_evaluation_in_the_record_stays_until_a_newer_one_comes(store, build, build_evaluation):
    own = build_evaluation(created_at="2026-12-02T00:00:00Z")
    store.add(build(evaluation=own))
    store.add_evaluation("churn", "latest", build_evaluation(created_at="2026-12-01T00:00:00Z"))
    assert store.get("churn").evaluation == own


def test_an_evaluation_of_another_model_is_refused(store, build, build_evaluation):
    store.add(build(2))
    with pytest.raises(InvalidInputError, match="is the fit fitted-2, and this evaluation is of fitted-1"):
        store.add_evaluation("churn", "latest", build_evaluation())


# Finding


def test_models_are_found_by_fit_newest_first(store, build):
    store.add(build(1))
    store.add(build(2))
    store.add(build(3, fingerprint="e" * 64))
    store.add(build(4, name="other"))
    assert [model.fitted_train_set_id for model in store.find("f" * 64)] == ["fitted-4", "fitted-2", "fitted-1"]
    assert store.find("0" * 64) == []


def test_an_erased_model_is_not_found_for_reuse_and_is_found_by_its_source(store, build):
    first, second = store.add(build(1)), store.add(build(2))
    store.mark_erased("churn", second, deleted=("upload-1",))
    assert [model.fitted_train_set_id for model in store.find("f" * 64)] == ["fitted-1"]
    assert store.find_by_source("s3://bucket/day/train.parquet") == [("churn", first), ("churn", second)]
    assert store.get("churn").fitted_train_set_id == "fitted-1"
    assert store.is_erased("churn", second)
    assert not store.is_erased("churn", first)
    assert store.erased("churn", second).deleted == ("upload-1",)
    assert store.mark_erased("churn", second) == store.erased("churn", second)


def test_what_was_trained_on_a_file_is_one_listing(store, build, monkeypatch):
    from fsspec.implementations.local import LocalFileSystem

    version = store.add(build())
    asked = []
    listing, reading = LocalFileSystem.ls, LocalFileSystem.cat_file
    monkeypatch.setattr(LocalFileSystem, "ls", lambda self, *a, **o: asked.append("ls") or listing(self, *a, **o))
    monkeypatch.setattr(LocalFileSystem, "cat_file", lambda *a, **o: asked.append("cat") or reading(*a, **o))
    assert store.find_by_source("s3://KEY:SECRET@bucket/day/train.parquet?sig=1") == [("churn", version)]
    assert asked == ["ls"]


# Aliases


def test_an_alias_is_a_log_that_only_grows(store, build):
    first, second = store.add(build(1)), store.add(build(2))
    decision = Decision(
        promote=True, candidate_id="fitted-1", headline="log_loss", checks=(), decided_at="2026-11-21T00:00:00Z"
    )
    store.promote("churn", first, decision=decision)
    with pytest.raises(InvalidInputError, match="is the fit fitted-2, and this decision is on fitted-1"):
        store.promote("churn", second, decision=decision)
    store.promote("churn", second)
    assert store.promote("churn", second).number == 2
    back = store.rollback("churn")
    log = store.history("churn")
    assert [(entry.number, entry.action, entry.version, entry.replaced) for entry in log] == [
        (1, "promote", first, None),
        (2, "promote", second, first),
        (3, "rollback", first, second),
    ]
    assert log[0].decision == decision
    assert back == log[-1] == store.alias("churn") == store.aliases("churn")["champion"]
    assert files(store, "models/churn/aliases/**/*") == [
        f"models/churn/aliases/champion/{n:08d}.json" for n in (1, 2, 3)
    ]
    with pytest.raises(ModelNotRecordedError, match="nothing before that could serve"):
        store.rollback("churn")


def test_a_rollback_passes_over_what_is_erased(store, build):
    first, second, third = (store.add(build(n)) for n in (1, 2, 3))
    for version in (first, second, third):
        store.promote("churn", version)
    store.mark_erased("churn", second)
    assert store.rollback("churn", expected=third).version == first
    with pytest.raises(AliasMovedError, match=f"points to {first}, not to {third}"):
        store.rollback("churn", expected=third)
    with pytest.raises(ConfigurationError, match=f"{second} is erased"):
        store.promote("churn", second)


def test_a_promotion_names_what_it_was_decided_against(store, build):
    first, second = store.add(build(1)), store.add(build(2))
    store.promote("churn", first, expected=None)
    with pytest.raises(AliasMovedError, match="though it was to be new") as moved:
        store.promote("churn", second, expected=None)
    assert (moved.value.alias, moved.value.version) == ("champion", first)
    with pytest.raises(AliasMovedError, match=f"points to {first}, not to {second}"):
        store.promote("churn", store.add(build(3)), expected=second)
    assert store.promote("churn", second, expected="20261101").version == second
    # A rerun after a kill finds its work done, although the alias no longer points to what was expected.
    assert store.promote("churn", second, expected=first).number == 2
    with pytest.raises(AliasMovedError, match="points to nothing, not to"):
        store.promote("churn", second, alias="next", expected=first)


def test_a_move_of_another_between_look_and_write_is_seen(store, build, url, monkeypatch):
    first, second, third = (store.add(build(n)) for n in (1, 2, 3))
    store.promote("churn", first)
    looked = store.alias

    def slow(*arguments):
        entry = looked(*arguments)
        monkeypatch.setattr(store, "alias", looked)
        LineageStore(url).promote("churn", third)
        return entry

    monkeypatch.setattr(store, "alias", slow)
    with pytest.raises(AliasMovedError, match="another moved it meanwhile") as moved:
        store.promote("churn", second, expected=first)
    assert moved.value.version == third == store.alias("churn").version


def test_a_lost_answer_to_the_own_write_is_no_move_of_another(store, build, monkeypatch):
    version = store.add(build())
    created = store._create
    monkeypatch.setattr(store, "_create", lambda *arguments: created(*arguments) and False)
    assert store.promote("churn", version).number == 1
    assert store.add(build(2)) == LineageStore(store.url).versions("churn")[1]


def test_another_client_moves_the_alias_and_is_seen_at_once(store, build, url):
    first, second = store.add(build(1)), store.add(build(2))
    store.promote("churn", first)
    assert store.get("churn", "@champion").fitted_train_set_id == "fitted-1"
    LineageStore(url).promote("churn", second)
    assert store.alias("churn").version == second
    assert store.get("churn", "@champion").fitted_train_set_id == "fitted-2"


def test_of_two_processes_that_promote_one_wins(store, build):
    rounds, versions = 25, [store.add(build(1)), store.add(build(2))]
    done = subprocess.run(
        [sys.executable, "-c", RACE, store.url, str(rounds), *versions],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    outcomes = [line.split() for line in done.stdout.splitlines()]
    for n in range(rounds):
        winner = store.alias("churn", f"a{n}").version
        (loser,) = set(versions) - {winner}
        found = {version: (word, fact) for number, version, word, fact in outcomes if number == str(n)}
        assert found == {winner: ("won", "1"), loser: ("lost", winner)}


# Stores


def test_a_store_that_keeps_no_two_writers_apart_is_refused(build, tmp_path):
    from fsspec.implementations.local import LocalFileSystem

    wrapped = {"path": str(tmp_path), "fs": LocalFileSystem()}  # of no class that is known to be exclusive
    store = LineageStore("dir://store", wrapped)
    with pytest.raises(StoreNotExclusiveError, match="two writers may both succeed"):
        store.add(build())
    assert list(tmp_path.rglob("*")) == []
    allowed = LineageStore("dir://store", wrapped, allow_unsafe_store=True)
    version = allowed.add(build())
    with pytest.raises(StoreNotExclusiveError):
        store.promote("churn", version)
    with pytest.raises(StoreNotExclusiveError):
        store.rollback("churn")
    assert allowed.promote("churn", version).number == 1
    assert store.get("churn", "@champion") == build()


def test_memory_serves_tests(build):
    url = f"memory://{uuid.uuid4().hex}"
    version = LineageStore(url).add(build())
    LineageStore(url).promote("churn", version)
    assert LineageStore(url).get("churn", "@champion") == build()
    assert LineageStore(url).check().problems == ()


def test_it_travels_without_secrets_or_not_at_all(store, build, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    version = store.add(build())
    again = pickle.loads(pickle.dumps(LineageStore("store", allow_unsafe_store=True)))
    monkeypatch.chdir("/")
    assert again.versions("churn") == [version]
    for secretive in (LineageStore("s3://KEY:SECRET@bucket/x"), LineageStore("s3://bucket/x", {"key": "SECRET"})):
        with pytest.raises(ConfigurationError, match="s3://bucket/x has storage options or keys") as error:
            pickle.dumps(secretive)
        assert "SECRET" not in str(error.value)
        assert copy.deepcopy(secretive).url == secretive.url


# Damage


def test_a_damaged_record_is_named_and_hides_no_other(store, build):
    versions = [store.add(build(n)) for n in (1, 2, 3)]
    paths = [Path(store.url, "models", "churn", f"{version}.json") for version in versions]
    paths[0].write_text('{"half a rec')
    paths[2].write_text(json.dumps({**json.loads(paths[2].read_text()), "schema_version": 99}))
    with pytest.raises(RecordUnreadableError, match=f"{versions[0]}.json holds no JSON"):
        store.get("churn", versions[0])
    with pytest.raises(RecordTooNewError, match=f"{versions[2]}.json is a FittedModel of schema 99"):
        store.get("churn")
    listed = store.list_models()
    assert [each.version for each in listed] == versions
    assert [each.model is None for each in listed] == [True, False, True]
    assert [bool(each.problem) for each in listed] == [True, False, True]
    assert str(paths[0]) in listed[0].problem
    assert [model.fitted_train_set_id for model in store.find("f" * 64)] == ["fitted-2"]
    paths[1].write_text("[]")
    with pytest.raises(RecordUnreadableError):
        store.find("f" * 64)  # "could not be read" is never "there is none"


def test_a_damaged_evaluation_or_alias_hides_no_model(store, build, build_evaluation):
    version = store.add(build())
    store.add_evaluation("churn", version, build_evaluation())
    store.promote("churn", version, alias="good")
    store.promote("churn", version, alias="bad")
    (evaluation,) = Path(store.url).glob("models/churn/*.evaluations/*.json")
    evaluation.write_text("{}")
    Path(store.url, "models/churn/aliases/bad/00000001.json").write_text("")
    (listed,) = store.list_models("churn")
    assert listed.model == build()
    assert listed.aliases == ("good",)
    assert evaluation.name in listed.problem
    assert "bad/00000001.json" in listed.problem
    with pytest.raises(RecordUnreadableError, match="00000001"):
        store.alias("churn", "bad")


def test_stray_files_are_passed_over(store, build):
    version = store.add(build())
    store.promote("churn", version)
    folder = Path(store.url, "models")
    for stray in (".DS_Store", "churn/notes.txt", "churn/aliases/.x.tmp", "churn/aliases/champion/README"):
        (folder / stray).write_text("x")
    assert (store.names(), store.versions("churn")) == (["churn"], [version])
    assert list(store.aliases("churn")) == ["champion"]
    assert store.check().problems == ()


def test_an_alias_to_nothing_is_a_problem(store, build):
    first, second = store.add(build(1)), store.add(build(2))
    store.promote("churn", first)
    store.promote("churn", second)
    Path(store.url, "models", "churn", f"{second}.json").unlink()
    Path(store.url, "models/churn/aliases/champion/00000001.json").unlink()
    problems = store.check().problems
    assert len(problems) == 2
    assert "alias champion points to a version that is not there" in problems[0]
    assert "entries 1 of its log are gone" in problems[1]
    assert store.check("churn").unrecorded == (("churn", second),)


def test_missing_markers_are_found_and_written(store, build):
    version = store.add(build())
    other = store.add(build(2, name="other"))
    for marker in Path(store.url).glob(f"index/*/*/churn@{version}"):
        marker.unlink()
    assert store.find("f" * 64) == [build(2, name="other")]
    (problem,) = store.check().problems
    assert problem.startswith(f"churn {version}: 6 index markers are missing")
    assert store.check("other").problems == ()
    done = store.check(repair=True)
    assert (done.problems, done.repaired) == ((), (f"churn {version}: 6 index markers written",))
    assert store.check().problems == ()
    assert store.find_by_source("5" * 64) == [("churn", version), ("other", other)]


# Secrets


def test_no_secret_is_in_the_store_or_in_what_it_says(build, tmp_path):
    canary = "S3CR3T-canary"
    store = LineageStore(f"s3://KEY:{canary}@no-bucket/store?{canary}=1", {"secret": canary, "key": canary})
    assert store.url == "s3://no-bucket/store"
    assert canary not in repr(store) + str(store)
    local = LineageStore(tmp_path)
    version = local.add(build(source={"uris": [f"s3://KEY:{canary}@bucket/a.parquet?sig={canary}"], "rows": 1}))
    local.promote("churn", version)
    with pytest.raises(ModelNotRecordedError) as error:
        local.plan_erasure_of(f"https://u:{canary}@host/x?sig={canary}")
    plan = local.plan_erasure_of(f"s3://KEY:{canary}@bucket/a.parquet?sig={canary}")
    assert canary not in str(error.value) + plan.model_dump_json()
    assert files(local, "index/sources/*/*")
    found = [str(path) + (path.read_text() if path.is_file() else "") for path in tmp_path.rglob("*")]
    assert [text for text in found if canary in text] == []
