"""Store and server together: what still exists, and what is erased for good, also after a kill."""

import json
import threading
from pathlib import Path

import pytest

from tabpfn_operators.errors import (
    AuthenticationError,
    ConfigurationError,
    FittedModelNotFoundError,
    ModelNotRecordedError,
    ServerError,
)
from tabpfn_operators.lineage import LineageStore


@pytest.fixture
def store(tmp_path):
    return LineageStore(tmp_path / "store")


@pytest.fixture
def recorded(store, fit_once, classification):
    """A model on the server and in the store: the record and its version."""
    model = fit_once(classification, name="churn").model_copy(update={"fingerprint": "f" * 64})
    return model, store.add(model)


def states(found):
    return {(model.name, model.fitted_train_set_id): model.state for model in found.models}


def outcomes(erasure):
    return {upload.train_set_upload_id: upload.outcome for upload in erasure.uploads}


# Verify


def test_models_that_exist_are_present(client, store, recorded, fit_once, regression, journal):
    model, _ = recorded
    other = fit_once(regression, name="price")
    store.add(other)
    before = len(journal.rows())
    found = client.verify_models(store)
    assert states(found) == {
        ("churn", model.fitted_train_set_id): "present",
        ("price", other.fitted_train_set_id): "present",
    }
    assert found.ok
    assert [row["route"] for row in journal.rows()[before:]] == ["/tabpfn/get_fit_status"] * 2
    assert states(client.verify_models(store, name="price", version="latest")) == {
        ("price", other.fitted_train_set_id): "present"
    }


def test_a_model_that_is_gone_is_said_to_be(client, store, recorded):
    model, version = recorded
    client.delete_dataset(model.train_set_upload_id)
    found = client.verify_models(store)
    assert states(found) == {("churn", model.fitted_train_set_id): "gone"}
    assert not found.ok
    store.mark_erased("churn", version)
    assert client.verify_models(store).ok


def test_another_accounts_models_look_gone(connect, store, recorded):
    model, _ = recorded
    assert states(connect("another-account").verify_models(store)) == {("churn", model.fitted_train_set_id): "gone"}


def test_what_is_erased_here_and_alive_there_is_a_problem(client, store, recorded):
    model, version = recorded
    store.mark_erased("churn", version)
    found = client.verify_models(store)
    assert states(found) == {("churn", model.fitted_train_set_id): "not_erased"}
    assert not found.ok


def test_models_of_another_api_are_not_asked_for(client, store, recorded, journal):
    model, _ = recorded
    store.add(model.model_copy(update={"name": "theirs", "api_url": "https://api.example.com"}))
    asked = len(journal.rows("/tabpfn/get_fit_status"))
    found = client.verify_models(store)
    assert states(found)["theirs", model.fitted_train_set_id] == "elsewhere"
    assert found.ok
    assert len(journal.rows("/tabpfn/get_fit_status")) == asked + 1


def test_a_damaged_record_does_not_hide_the_others(client, store, recorded):
    model, version = recorded
    store.add(model.model_copy(update={"name": "other"}))
    Path(store.url, "models", "other", f"{version}.json").write_text("{")
    found = client.verify_models(store)
    assert {model.name: model.state for model in found.models} == {"churn": "present", "other": "unreadable"}
    assert not found.ok
    assert f"{version}.json" in found.problems[0]


def test_markers_are_repaired(client, store, recorded):
    for marker in Path(store.url).glob("index/fits/*/*"):
        marker.unlink()
    assert "1 index markers are missing" in client.verify_models(store).problems[0]
    repaired = client.verify_models(store, repair=True)
    assert (repaired.ok, len(repaired.repaired)) == (True, 1)
    assert client.verify_models(store).repaired == ()


def test_as_many_models_are_asked_for_at_a_time_as_was_said(drive, loopback, store, build_model):
    together, lock, active = threading.Barrier(3, timeout=30), threading.Lock(), []

    def answer(seen):
        with lock:
            active.append(1)
            most.append(len(active))
        together.wait()
        with lock:
            active.pop()
        together.wait()
        return 200, {"fitted_train_set_id": seen.json()["fitted_train_set_id"], "status": "completed"}

    most = []
    server = loopback(answer)
    for number in range(9):
        store.add(build_model(name="churn", fitted_train_set_id=f"f{number}", api_url=server.url))
    found = drive(server.url)("verify_models", store, concurrency=3)
    assert [model.state for model in found.models] == ["present"] * 9
    assert max(most) == 3


def test_an_empty_store_is_all_right(client, store):
    found = client.verify_models(store)
    assert (found.models, found.ok) == ((), True)


def test_what_verify_cannot_do(client, connect, store, recorded, strict_emulator):
    with pytest.raises(ConfigurationError, match="concurrency=0"):
        client.verify_models(store, concurrency=0)
    with pytest.raises(ConfigurationError, match="pass its name too"):
        client.verify_models(store, version="latest")
    with pytest.raises(ModelNotRecordedError, match="it holds churn"):
        client.verify_models(store, name="chrun")
    model, _ = recorded
    strict = LineageStore(f"{store.url}-strict")
    strict.add(model.model_copy(update={"api_url": strict_emulator}))
    with pytest.raises(AuthenticationError):
        connect("the-wrong-token", base_url=strict_emulator).verify_models(strict)


# Erase


def test_a_dry_run_says_what_goes_and_asks_nobody(client, store, recorded, journal):
    model, version = recorded
    store.promote("churn", version)
    asked = len(journal.rows())
    before = sorted(Path(store.url).rglob("*"))
    plan = client.erase_model(store, "churn", "latest")
    assert plan == client.erase_source(store, model.source.uris[0]).model_copy(update={"target": f"churn {version}"})
    assert len(journal.rows()) == asked
    assert sorted(Path(store.url).rglob("*")) == before
    (upload,) = plan.uploads
    assert (upload.train_set_upload_id, upload.outcome, upload.rows) == (model.train_set_upload_id, "planned", 60)
    (hanging,) = upload.models
    assert (hanging.fitted_train_set_id, hanging.aliases) == (model.fitted_train_set_id, ("champion",))
    assert (hanging.names, hanging.labels) == (3, 2)
    assert plan.dry_run
    assert not plan.complete


def test_erasing_a_model_takes_all_that_hang_on_its_upload(client, store, recorded, fit_once, classification, journal):
    model, version = recorded
    again = fit_once(classification, name="churn-again")  # the same content, so the same upload
    assert again.train_set_upload_id == model.train_set_upload_id
    store.add(again)
    assert store.find("f" * 64) == [model]
    done = client.erase_model(store, "churn", version, dry_run=False)
    assert outcomes(done) == {model.train_set_upload_id: "deleted"}
    assert done.complete
    assert [hanging.name for hanging in done.uploads[0].models] == ["churn", "churn-again"]
    for fit in (model, again):
        with pytest.raises(FittedModelNotFoundError):
            client.get_fit_status(fit.fitted_train_set_id)
    assert [each.erased for each in store.list_models()] == [True, True]
    assert store.erased("churn", version).deleted == (model.train_set_upload_id,)
    assert store.find("f" * 64) == []
    assert store.get("churn", version) == model
    assert client.verify_models(store).ok
    deletions = len(journal.rows(method="DELETE"))
    assert client.erase_model(store, "churn", version, dry_run=False).complete
    assert len(journal.rows(method="DELETE")) == deletions == 1


def test_erasing_a_source_takes_every_model_made_of_it(client, store, recorded, regression, fit_once, tmp_path):
    model, _ = recorded
    store.add(fit_once(regression, name="price"))
    done = client.erase_source(store, f"file://{model.source.uris[0]}", dry_run=False)
    assert outcomes(done) == {model.train_set_upload_id: "deleted"}
    assert {each.name: each.erased for each in store.list_models()} == {"churn": True, "price": False}
    assert len(client.erase_source(store, str(tmp_path), dry_run=False).uploads) == 2
    assert all(each.erased for each in store.list_models())
    with pytest.raises(ModelNotRecordedError, match="no model that was trained on"):
        client.erase_source(store, "s3://bucket/never.parquet", dry_run=False)


def test_what_an_alias_points_to_is_kept_unless_forced(client, store, recorded):
    _, version = recorded
    store.promote("churn", version)
    with pytest.raises(ConfigurationError, match=f"churn {version} is churn@champion"):
        client.erase_model(store, "churn", version, dry_run=False)
    assert client.verify_models(store).ok
    assert client.erase_model(store, "churn", version, dry_run=False, force=True).complete
    assert store.is_erased("churn", version)
    (problem,) = client.verify_models(store).problems
    assert problem == f"churn@champion points to {version}, which is erased; promote another version"


def test_another_accounts_not_found_marks_nothing(client, connect, store, recorded):
    model, version = recorded
    stranger = connect("another-account")
    done = stranger.erase_model(store, "churn", version, dry_run=False)
    assert outcomes(done) == {model.train_set_upload_id: "unknown"}
    assert not done.complete
    assert not store.is_erased("churn", version)
    assert client.verify_models(store).ok
    client.delete_dataset(model.train_set_upload_id)
    assert not client.erase_model(store, "churn", version, dry_run=False).complete
    done = client.erase_model(store, "churn", version, dry_run=False, accept_gone=True)
    assert outcomes(done) == {model.train_set_upload_id: "gone"}
    assert store.is_erased("churn", version)


def test_what_cannot_be_erased_is_left_and_said(client, store, recorded, journal):
    model, _ = recorded
    store.add(model.model_copy(update={"name": "adopted", "train_set_upload_id": None}))
    store.add(model.model_copy(update={"name": "theirs", "train_set_upload_id": "u", "api_url": "https://a.example"}))
    done = client.erase_source(store, model.source.uris[0], dry_run=False)
    assert outcomes(done) == {model.train_set_upload_id: "deleted", "u": "other_api", None: "no_upload_id"}
    assert not done.complete
    assert {each.name: each.erased for each in store.list_models()} == {
        "adopted": False,
        "churn": True,
        "theirs": False,
    }
    assert len(journal.rows(method="DELETE")) == 1


def test_a_record_that_cannot_be_read_leaves_the_erasure_incomplete(client, store, recorded):
    model, version = recorded
    store.add(model.model_copy(update={"name": "other"}))
    Path(store.url, "models", "other", f"{version}.json").write_text("{")
    done = client.erase_source(store, model.source.uris[0], dry_run=False)
    assert f"{version}.json holds no JSON" in done.problems[0]
    assert outcomes(done) == {model.train_set_upload_id: "deleted"}
    assert not done.complete
    assert store.is_erased("churn", version)


def test_names_and_labels_are_forgotten_on_request(client, store, recorded, build_evaluation):
    model, version = recorded
    store.add_evaluation("churn", version, build_evaluation(fitted_train_set_id=model.fitted_train_set_id))
    client.erase_model(store, "churn", version, dry_run=False)
    assert store.get("churn", version).classes == ("no", "yes")
    done = client.erase_model(store, "churn", version, dry_run=False, forget_names=True)
    assert done.names_forgotten
    left = store.get("churn", version)
    assert left.feature_names == ("column-1", "column-2")
    assert left.classes == left.evaluation.classes == ("class-1", "class-2")
    assert left.source == model.source
    texts = [path.read_text() for path in Path(store.url, "models").rglob("*.json")]
    assert [text for text in texts if "outcome" in text or '"yes"' in text] == []
    assert store.plan_erasure("churn", version).uploads[0].models[0].names == 0
    assert client.verify_models(store).ok


class Killed(Exception):  # noqa: N818
    """The process ends here; nothing in the product catches it."""


class KilledStore(LineageStore):
    """A store whose process is killed before or after its n-th write."""

    def __init__(self, url, n, *, after):
        super().__init__(url)
        self._left = n
        self._after = after

    def _create(self, record, *parts):
        return self._write(super()._create, record, *parts)

    def _replace(self, record, *parts):
        self._write(super()._replace, record, *parts)

    def _write(self, write, *arguments):
        self._left -= 1
        if self._left == 0 and not self._after:
            raise Killed
        result = write(*arguments)
        if self._left == 0:
            raise Killed
        return result


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_a_rerun_finishes_what_a_kill_left(client, store, recorded, fit_once, classification, n, after):
    """Two models on one upload: two notes that it begins, the deletion, two marks, then two records without names."""
    _, version = recorded
    store.add(fit_once(classification, name="other"))
    with pytest.raises(Killed):
        client.erase_model(KilledStore(store.url, n, after=after), "churn", version, dry_run=False)
    begun = (1, False) < (n, after) < (4, True)
    assert any("was begun and not finished" in line for line in client.verify_models(store).problems) == begun
    assert client.erase_model(store, "churn", version, dry_run=False, forget_names=True).complete
    assert all(each.erased for each in store.list_models())
    assert store.get("other", "2").classes == ("class-1", "class-2")
    assert client.verify_models(store).ok


def test_a_rerun_with_another_accounts_key_does_not_finish_it(client, connect, store, recorded):
    _, version = recorded
    with pytest.raises(Killed):
        client.erase_model(KilledStore(store.url, 1, after=True), "churn", version, dry_run=False)
    assert not connect("another-account").erase_model(store, "churn", version, dry_run=False).complete
    assert not store.is_erased("churn", version)


def test_a_server_that_fails_marks_nothing(client, store, recorded, control, no_waiting):
    _, version = recorded
    control.inject({"route": "/delete_dataset/", "kind": "status", "status": 500, "times": 50})
    with pytest.raises(ServerError):
        client.erase_model(store, "churn", version, dry_run=False)
    assert not store.is_erased("churn", version)
    control.clear()
    assert client.erase_model(store, "churn", version, dry_run=False).complete


def test_a_server_that_keeps_the_model_is_not_believed(drive, loopback, store, build_model):
    """Contract 1.10 says "per docs" that models go with their train set."""
    asked = []

    def answer(seen):
        asked.append(seen.path.partition("?")[0])
        if seen.method == "DELETE":
            return 200, {"deleted_dataset_uids": ["upload-1"]}
        return 200, {"fitted_train_set_id": "fitted-1", "status": "completed"}

    server = loopback(answer)
    version = store.add(build_model(name="churn", api_url=server.url))
    done = drive(server.url)("erase_model", store, "churn", version, dry_run=False)
    assert outcomes(done) == {"upload-1": "still_there"}
    assert asked == ["/tabpfn/get_fit_status", "/delete_dataset/", "/tabpfn/get_fit_status"]
    assert not store.is_erased("churn", version)


def test_neither_token_nor_its_hash_is_left_in_the_store(client, store, recorded, bearer):
    import hashlib

    _, version = recorded
    client.erase_model(store, "churn", version, dry_run=False)
    texts = [path.read_text() for path in Path(store.url).rglob("*") if path.is_file()]
    digest = hashlib.sha256(bearer.encode()).hexdigest()[:16]
    assert [text for text in texts if bearer in text or digest in text] == []
    marks = [json.loads(path.read_text()) for path in Path(store.url).glob("models/churn/*.eras*.json")]
    assert [len(mark["proof"]) for mark in marks] == [16, 16]
