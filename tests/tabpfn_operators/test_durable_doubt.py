"""What nobody can know of a fit, and what a place must not forget when it is asked for another."""

import threading
import time

import pytest

from tabpfn_assets import FitParameters, JobRecord, Thinking
from tabpfn_operators.errors import (
    ConfigurationError,
    OutcomeUnknownError,
    TabPFNError,
)
from tabpfn_operators.lineage import LineageStore
from tabpfn_operators.places import folder_place

FIT = "/tabpfn/fit"
SUBMIT = "/tabpfn/submit_fit_job"
PREDICT = "/tabpfn/predict"
BILLED = FitParameters(task="classification", thinking=Thinking(timeout_secs=1))
OTHER = FitParameters(task="classification", config={"n_estimators": 2})


@pytest.fixture
def home(tmp_path):
    return {"journal": tmp_path / "jobs", "run_key": "nightly"}


@pytest.fixture
def fit(client, classification, control, home):
    control.configure(retry_in_secs=0.05)

    def call(source=classification.train, *, parameters=classification.parameters, **options):
        return client.fit(source, "outcome", parameters=parameters, **(home | options))

    return call


@pytest.fixture
def created(control, bearer):
    from tabpfn_emulator.testing import account_of

    return lambda: len(control.creations(kind="fit_created", account=account_of(bearer)))


@pytest.mark.parametrize("streamed", [False, True], ids=["job", "stream"])
@pytest.mark.parametrize(
    "fault",
    [{"kind": "garbage", "when": "after"}, {"kind": "truncated"}, {"kind": "status", "status": 500, "when": "after"}],
    ids=lambda fault: fault["kind"],
)
def test_an_answer_that_tells_nothing_leaves_a_billed_fit_in_doubt(fit, control, created, home, fault, streamed):
    control.inject({"route": FIT if streamed else SUBMIT, **fault})
    with pytest.raises(TabPFNError):
        fit(parameters=BILLED, streamed=streamed)
    assert folder_place(home["journal"], home["run_key"]).journal.read().phase == "intent"
    for _ in range(2):
        with pytest.raises(OutcomeUnknownError, match="adopt_fit"):
            fit(parameters=BILLED, streamed=streamed)
    assert created() == 1


def test_such_an_answer_to_a_prediction_is_no_invitation_to_repeat_it(fit, client, control, classification, tmp_path):
    model = fit()
    control.inject({"route": PREDICT, "when": "after", "kind": "garbage"})
    with pytest.raises(OutcomeUnknownError) as caught:
        client.predict(model, classification.score, str(tmp_path / "out"))
    assert caught.value.terminal


def test_a_free_fit_is_sent_again_once_in_all_calls_together(fit, control, created):
    control.inject({"route": SUBMIT, "kind": "drop", "when": "after", "times": None})
    for _ in range(4):
        with pytest.raises(OutcomeUnknownError, match="resubmit"):
            fit()
    assert created() == 2
    with pytest.raises(OutcomeUnknownError):
        fit(on_unknown="resubmit")
    assert created() > 2


def test_a_doubt_outlives_another_fit_in_its_place(fit, control, created):
    control.inject({"route": SUBMIT, "kind": "drop", "when": "after"})
    with pytest.raises(OutcomeUnknownError):
        fit(parameters=BILLED)
    between = fit()
    with pytest.raises(OutcomeUnknownError):
        fit(parameters=BILLED)
    assert created() == 2
    assert fit() == between
    assert created() == 2


def test_a_fit_that_runs_outlives_another_in_its_place(fit, client, control, created, home, classification):
    control.configure(fit_seconds=1.0)
    paid = client.start_fit(classification.train, "outcome", parameters=BILLED, **home)
    other = fit()
    assert other.fitted_train_set_id != paid.fitted_train_set_id
    again = fit(parameters=BILLED)
    assert (again.fitted_train_set_id, again.status) == (paid.fitted_train_set_id, "completed")
    assert created() == 2


def test_a_store_that_cannot_be_written_to_is_found_out_first(fit, created, journal, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TabPFNError, match="cannot be written to"):
        fit(parameters=BILLED, lineage=tmp_path / "file" / "store", name="churn")
    assert created() == 0
    assert not journal.puts()


@pytest.mark.parametrize("damage", ["{", '{"schema_version": 99}', None], ids=["damaged", "newer", "missing"])
def test_a_store_is_no_reason_not_to_fit(fit, tmp_path, damage):
    store = LineageStore(tmp_path / "store")
    fit(lineage=store, name="churn")
    store.promote("churn", "latest")
    (record,) = (tmp_path / "store" / "models" / "churn").glob("*.json")
    record.unlink() if damage is None else record.write_text(damage)
    model = fit(lineage=store, name="churn", parameters=OTHER, run_key="tuesday")
    assert model.parent_id is None
    assert store.get("churn", "latest").fitted_train_set_id == model.fitted_train_set_id


def test_what_is_reused_is_filed_under_the_name_that_is_asked_for(fit, tmp_path):
    store = LineageStore(tmp_path / "store")
    first = fit(lineage=store, name="churn")
    again = fit(lineage=store, name="churn-eu", reuse="always", run_key="tuesday")
    assert (again.name, again.fitted_train_set_id) == ("churn-eu", first.fitted_train_set_id)
    assert store.get("churn-eu").fitted_train_set_id == first.fitted_train_set_id


def test_the_champion_of_the_day_is_the_parent(fit, client, classification, tmp_path):
    store = LineageStore(tmp_path / "store")
    first = fit(lineage=store, name="churn")
    store.promote("churn", "latest")
    asked = {"lineage": store, "name": "churn", "parameters": OTHER}
    assert fit(run_key="tuesday", **asked).parent_id == first.fitted_train_set_id
    assert client.fit(classification.train, "outcome", **asked).parent_id == first.fitted_train_set_id


def test_resuming_waits_for_whoever_is_at_it(fit, client, home):
    model = fit()
    place = folder_place(home["journal"], home["run_key"])
    record = place.journal.read().model_copy(update={"delivered": False})
    lease = place.claim.acquire(place.name, "another", 60.0)
    intent = JobRecord(
        kind="tabpfn_async",
        phase="intent",
        fingerprint=record.fingerprint,
        owner="another",
        lease_expires_at=time.time(),
    )
    place.journal.write(intent)

    def submitted():
        place.journal.write(record)
        place.claim.release(place.name, lease.owner)

    timer = threading.Timer(0.7, submitted)
    timer.start()
    assert client.resume_fit(**home).fitted_train_set_id == model.fitted_train_set_id
    timer.join()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reuse": "maybe"}, "reuse is 'maybe'; it takes never, run, always"),
        ({"on_unknown": "Raise"}, "on_unknown is 'Raise'; it takes auto, raise, resubmit"),
        ({"run_key": 20260101}, "needs a key"),
    ],
)
def test_arguments_that_guard_money(fit, created, options, words):
    with pytest.raises(ConfigurationError, match=words):
        fit(**options)
    assert created() == 0
