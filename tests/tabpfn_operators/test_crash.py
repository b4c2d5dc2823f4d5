"""kill -9 at every step of a fit, then the same call again: what was created, charged, sent, and what the caller gets.

The kills are tests/tabpfn_operators/crash_driver.py's: its own wire, journal, claims and store end their process; the
product has no hook for it. Each point is tried with a standard or a thinking fit, with the same key or a new one,
drawn from CRASH_SEED: set it to what a failed run has printed. `--all` tries all four, and races 50 times instead of 8.
"""

import os
import random
import signal
import uuid
from dataclasses import dataclass, replace

import pytest

from tabpfn_assets import FitParameters, JobRecord, Thinking
from tabpfn_operators import Client
from tabpfn_operators.durable import _submission
from tabpfn_operators.errors import ConfigurationError, OutcomeUnknownError, StorageError
from tabpfn_operators.journal import MemoryJournal
from tabpfn_operators.lineage import LineageStore
from tabpfn_operators.places import Hold, Place, folder_place

FIT = "/tabpfn/fit"
SUBMIT = "/tabpfn/submit_fit_job"
LOOK = "/tabpfn/get_fit_status"
PREPARE = "/tabpfn/prepare_train_set_upload"
SETTINGS = "/tabpfn/get_settings"

#: Seconds of a lease in a test in which a process is killed: the rerun waits as long.
LEASE = 0.4
#: Seconds that two which race may be apart in the end (issue 5).
APART = 5.0


@dataclass(frozen=True)
class Point:
    """Where a process is killed, and what is true of the rerun.

    Args:
        at: The step, as in `crash_driver.Kill`.
        nth: Which of these steps.
        when: `before`, `after`, or `received` by the server.
        sends: Whether the rerun sends the train set: it does until both parts have arrived, since signed URLs are
            secrets, are written nowhere, and went with the process.
        prepares: Status of the rerun's prepare call; None where it makes none.
        known: Whether the id of the fit was written down.
        in_doubt: Whether nobody can know if there is a fit, and the number that there are.
    """

    at: str
    nth: int = 1
    when: str = "after"
    sends: bool = False
    prepares: int | None = None
    known: bool = False
    in_doubt: int | None = None


SENT_ANEW = {"sends": True, "prepares": 200}
POINTS = {
    "footers read": Point("call", 1, **SENT_ANEW),
    "claimed": Point("acquire", 1, **SENT_ANEW),
    "limits asked": Point(f"send {SETTINGS}", 1, "before", **SENT_ANEW),
    "limits": Point(f"send {SETTINGS}", 1, **SENT_ANEW),
    "prepare asked": Point(f"send {PREPARE}", 1, "received", **SENT_ANEW),
    "prepare answered": Point(f"send {PREPARE}", 1, **SENT_ANEW),
    "X half sent": Point("half PUT", 1, **SENT_ANEW),
    "X sent": Point("send PUT", 1, **SENT_ANEW),
    "y half sent": Point("half PUT", 2, **SENT_ANEW),
    "y sent": Point("send PUT", 2, prepares=409),
    "upload written": Point("write uploaded", 1),
    "intent to be written": Point("write intent", 1, "before"),
    "intent written": Point("write intent", 1, in_doubt=0),
    "submit received": Point(f"send {SUBMIT}", 1, "received", in_doubt=1),
    "submit answered": Point(f"send {SUBMIT}", 1, in_doubt=1),
    "submit to be recorded": Point("write submitted", 1, "before", in_doubt=1),
    "submit recorded": Point("write submitted", 1, known=True),
    "first poll": Point(f"send {LOOK}", 1, known=True),
    "completed seen": Point("look completed", 1, known=True),
    "index marked": Point("create", 1, "before", known=True),
    "model recorded": Point("add", 1, known=True),
    "delivery to be written": Point("write delivered", 1, "before", known=True),
    "delivery written": Point("write delivered", 1, known=True),
}
#: Points of a fit in one long POST.
STREAMED = {
    "fit received": Point(f"send {FIT}", 1, "received", in_doubt=1),
    "fit answered": Point(f"send {FIT}", 1, in_doubt=1),
    "fit recorded": Point("write submitted", 1, known=True),
}
#: Points at which a process sleeps through its lease, and the number of standard fits that there may be in the end.
STOPPED = {
    "claimed": (Point("acquire", 1), 1),
    "limits": (Point(f"send {SETTINGS}", 1), 1),
    "y sent": (Point("send PUT", 2), 1),
    "upload to be written": (Point("write uploaded", 1, "before"), 2),
    "upload written": (Point("write uploaded", 1), 1),
    "intent to be written": (Point("write intent", 1, "before"), 2),
    "intent written": (Point("write intent", 1), 1),
    "submit answered": (Point(f"send {SUBMIT}", 1), 2),
    "submit to be recorded": (Point("write submitted", 1, "before"), 2),
    "submit recorded": (Point("write submitted", 1), 1),
    "delivery to be written": (Point("write delivered", 1, "before"), 1),
}
#: Where a write that began in time comes late, over what another has written: no storage can refuse that.
WITHIN_A_WRITE = {"upload to be written", "intent to be written", "submit to be recorded"}
#: What a place without a claim cannot keep apart, or does not know.
ONLY_WITH_A_CLAIM = {"claimed", *WITHIN_A_WRITE}
IN_DOUBT = [name for name, point in POINTS.items() if point.in_doubt is not None]


class Books:
    """What the emulator has booked for one account, whichever key it was called with."""

    def __init__(self, control, account):
        self._control, self._account = control, account
        self._seen = 0

    def forget(self):
        """Count requests from here on."""
        rows = self.rows()
        self._seen = rows[-1]["seq"] if rows else self._seen

    def rows(self, route=None):
        return self._control.journal(route=route, account=self._account, after=self._seen)

    def statuses(self, route):
        return [row["status"] for row in self.rows(route)]

    def bytes_sent(self):
        return sum(row["bytes_in"] for row in self.rows("/storage") if row["method"] == "PUT")

    @property
    def fits(self):
        return [fit["fitted_train_set_id"] for fit in self._control.fits(account=self._account)]

    @property
    def charges(self):
        return [row["charge"] for row in self._control.creations(kind="fit_created", account=self._account)]


@dataclass(frozen=True)
class Scene:
    """One logical fit: an account of its own, a place, a lineage store, and the task that fits there."""

    task: dict
    control: object
    books: Books

    def with_new_key(self):
        """The account's key is replaced, and the one that was killed is of no more use."""
        token = f"key-{uuid.uuid4().hex}"
        self.control.change_account(self.task["account"], add_tokens=[token], revoke_tokens=[self.task["token"]])
        return replace(self, task={**self.task, "token": token})

    def killed_at(self, point):
        return {**self.task, "kill": {"at": point.at, "nth": point.nth, "when": point.when}}

    @property
    def journal(self):
        return place_of(self).journal

    @property
    def store(self):
        return LineageStore(self.task["lineage"])


@pytest.fixture
def scene(control, emulator, classification, tmp_path):
    """Open a scene; fits last some polls."""
    control.configure(fit_seconds=0.1)

    def open_scene(*, thinking, lease=LEASE, skew=0.05, **more):
        name = f"crash-{uuid.uuid4().hex}"
        token = f"key-{uuid.uuid4().hex}"
        control.change_account(name, add_tokens=[token])
        task = {
            "url": emulator,
            "account": name,
            "token": token,
            "source": classification.train,
            "folder": str(tmp_path / name),
            "lineage": str(tmp_path / "models" / name),
            "key": "churn/2026-11-21",
            "lease": lease,
            "skew": skew,
            "thinking": thinking,
            **more,
        }
        return Scene(task, control, Books(control, name))

    return open_scene


@pytest.fixture(scope="session")
def drawn(pytestconfig):
    """Draw whether a fit thinks and whether its key is replaced; with `--all` both are so and otherwise."""
    seed = int(os.environ.get("CRASH_SEED", random.SystemRandom().randrange(2**32)))
    every = [(thinking, new_key) for thinking in (False, True) for new_key in (False, True)]

    def draw(name):
        print(f"CRASH_SEED={seed}")
        return every if pytestconfig.getoption("--all") else [random.Random(f"{seed} {name}").choice(every)]

    return draw


@pytest.fixture
def rounds(pytestconfig):
    """How often two race."""
    return 50 if pytestconfig.getoption("--all") else 8


@pytest.fixture
def price(emulator, classification):
    """Tokens that the thinking fit of these tests costs."""
    with Client("the-price", base_url=emulator) as client:
        return client.estimate_cost(
            60, 2, operation="thinking_fit", n_estimators=2, thinking_effort="medium"
        ).estimated_cost


def crash(scene, point, run_at_once):
    """Kill a first call at a point."""
    if point.when == "received":
        scene.control.inject(kind="hang", when="after", route=point.at.removeprefix("send "))
    (killed,) = run_at_once(scene.killed_at(point))
    assert killed == {"code": -signal.SIGKILL}
    assert scene.control.faults() == []
    assert len(scene.books.fits) == (int(point.known) if point.in_doubt is None else point.in_doubt)


def rerun(scene, run_at_once, **changes):
    """Make the same call in another process, and count from here on."""
    scene.books.forget()
    (ran,) = run_at_once({**scene.task, **changes})
    assert ran["code"] == 0
    return ran


def check_transport(scene, point):
    sizes = scene.books.bytes_sent()
    assert (sizes > 0) == point.sends
    assert len(scene.books.rows("/storage")) == (2 if point.sends else 0)
    assert scene.books.statuses(PREPARE) == ([] if point.prepares is None else [point.prepares])


def check_delivered(scene, ran, *, orphans):
    assert (ran["status"], ran["possible_orphans"]) == ("completed", orphans)
    record = scene.journal.read()
    assert (record.phase, record.delivered, record.job_id) == ("completed", True, ran["id"])
    assert [model.fitted_train_set_id for model in models_in(scene.store)] == [ran["id"]]
    assert models_in(scene.store) == [record.model]


def models_in(store):
    return [store.get("churn", version) for version in store.versions("churn")]


def is_unknown(ran):
    return ran.get("error") == OutcomeUnknownError.__name__


def check_rerun(scene, point, ran, price):
    thinking = scene.task["thinking"]
    if point.in_doubt is not None and thinking:
        assert is_unknown(ran)
        assert scene.books.charges == [price] * point.in_doubt
        assert scene.books.rows() == []
        assert scene.journal.read().phase == "intent"
        return
    check_transport(scene, point)
    fits = (point.in_doubt or 0) + 1
    assert scene.books.charges == [price if thinking else 0] * fits
    assert scene.books.fits[-1] == ran["id"]
    check_delivered(scene, ran, orphans=int(point.in_doubt is not None))


@pytest.mark.parametrize("name", POINTS)
def test_a_killed_fit_is_created_and_paid_once(name, scene, run_at_once, price, drawn):
    point = POINTS[name]
    for thinking, with_new_key in drawn(name):
        one = scene(thinking=thinking)
        crash(one, point, run_at_once)
        if with_new_key:
            one = one.with_new_key()
        check_rerun(one, point, rerun(one, run_at_once), price)


@pytest.mark.parametrize("name", ["X half sent", "y sent", "submit received", "submit recorded", "model recorded"])
def test_a_killed_fit_of_an_async_client(name, scene, run_at_once, price):
    point, one = POINTS[name], scene(thinking=False, is_async=True)
    crash(one, point, run_at_once)
    check_rerun(one, point, rerun(one, run_at_once), price)


@pytest.mark.parametrize("name", ["X half sent", "y sent", "intent written", "submit received", "submit recorded"])
def test_a_killed_fit_in_a_place_without_a_claim(name, scene, run_at_once, price):
    point, one = POINTS[name], scene(thinking=False, claim=False)
    crash(one, point, run_at_once)
    check_rerun(one, point, rerun(one, run_at_once), price)


@pytest.mark.parametrize("thinking", [False, True], ids=["standard", "thinking"])
@pytest.mark.parametrize("name", STREAMED)
def test_a_killed_fit_in_one_long_post(name, thinking, scene, run_at_once, price):
    point, one = STREAMED[name], scene(thinking=thinking, streamed=True)
    crash(one, point, run_at_once)
    check_rerun(one, point, rerun(one, run_at_once), price)


@pytest.mark.parametrize("name", IN_DOUBT)
def test_what_is_in_doubt_stays_so_until_a_person_decides(name, scene, run_at_once, price):
    point, one = POINTS[name], scene(thinking=True)
    crash(one, point, run_at_once)
    assert is_unknown(rerun(one, run_at_once))
    assert is_unknown(rerun(one, run_at_once))
    decided = rerun(one, run_at_once, on_unknown="resubmit")
    assert one.books.charges == [price] * (point.in_doubt + 1)
    assert one.books.bytes_sent() == 0
    check_delivered(one, decided, orphans=1)
    assert rerun(one, run_at_once)["id"] == decided["id"]


# Two at once


def test_two_that_start_at_once_make_one_fit(scene, run_at_once, rounds, price):
    apart = []
    for number in range(rounds):
        one = scene(thinking=bool(number % 2), lease=30.0, longest_sleep=30.0)
        first, second = run_at_once(one.task, one.task)
        assert (first["code"], second["code"]) == (0, 0)
        assert one.books.charges == [price * (number % 2)]
        assert [first["id"], second["id"]] == one.books.fits * 2
        check_delivered(one, first, orphans=0)
        assert one.books.statuses("/storage") == [200, 200]
        apart.append(abs(first["ended"] - second["ended"]))
    print(f"apart: {sorted(apart)[len(apart) // 2]:.2f} s at the median, {max(apart):.2f} s at most")
    assert max(apart) < APART


@pytest.mark.parametrize("when", ["before", "after"])
def test_of_two_that_start_at_once_the_winner_is_killed(when, scene, run_at_once, rounds, price, tmp_path):
    created = int(when == "after")
    for number in range((rounds + 1) // 2):
        thinking = bool(number % 2)
        one = scene(thinking=thinking, lease=1.0, skew=0.2)
        kill = {"at": f"send {SUBMIT}", "when": when, "once": str(tmp_path / f"killed-{number}")}
        ran = run_at_once({**one.task, "kill": kill}, {**one.task, "kill": kill})
        assert sorted(each["code"] for each in ran) == [-signal.SIGKILL, 0]
        (survivor,) = [each for each in ran if each["code"] == 0]
        if thinking:
            assert is_unknown(survivor)
            assert one.books.charges == [price] * created
            assert is_unknown(rerun(one, run_at_once))
            continue
        assert len(one.books.fits) == created + 1
        assert one.books.fits[-1] == survivor["id"]
        check_delivered(one, survivor, orphans=1)
        again = rerun(one, run_at_once)
        assert (again["id"], one.books.bytes_sent()) == (survivor["id"], 0)


@pytest.mark.parametrize("thinking", [False, True], ids=["standard", "thinking"])
@pytest.mark.parametrize(
    ("name", "claim"),
    [(name, True) for name in STOPPED] + [(name, False) for name in STOPPED if name not in ONLY_WITH_A_CLAIM],
)
def test_one_that_wakes_up_when_another_has_taken_over(name, claim, thinking, scene, run_at_once, price):
    point, most = STOPPED[name]
    # Long enough that none stops while it renews the lease of its intent, which is a write like those below.
    one = scene(thinking=thinking, claim=claim, lease=3.0 if name in IN_DOUBT and not claim else LEASE)
    kill = {"at": point.at, "nth": point.nth, "when": point.when, "stop": True}
    stopped, other = run_at_once({**one.task, "kill": kill}, one.task)
    assert (stopped["code"], other["code"], stopped["stopped"]) == (0, 0, True)
    assert one.books.charges == [price if thinking else 0] * len(one.books.fits)
    assert len(one.books.fits) <= (1 if thinking else most)
    if name not in WITHIN_A_WRITE:
        assert {each["id"] for each in (stopped, other) if not is_unknown(each)} <= {one.journal.read().job_id}
    if not thinking:
        assert not any(is_unknown(each) for each in (stopped, other))


@pytest.mark.parametrize("name", ["upload written", "submit answered", "submit recorded", "first poll"])
def test_an_older_generation_that_wakes_up_changes_nothing(name, scene, run_at_once):
    point, one = POINTS[name], scene(thinking=False)
    kill = {"at": point.at, "nth": point.nth, "when": point.when, "stop": True}
    newer = {**one.task, "generation": 1, "n_estimators": 3}
    older, other = run_at_once({**one.task, "kill": kill}, newer)
    record = one.journal.read()
    assert (record.generation, record.job_id, record.delivered) == (1, other["id"], True)
    assert other["possible_orphans"] == 0
    if name in {"upload written", "submit answered"}:
        assert older["error"] == ConfigurationError.__name__
        assert "belongs to the past" in older["message"]
    else:
        assert older["id"] == one.books.fits[0] != other["id"]
    (again,) = run_at_once(newer)
    assert (again["id"], len(one.books.fits)) == (other["id"], 1 if name == "upload written" else 2)


class Outage:
    """A journal that does not take the first so many records with the id of a fit."""

    def __init__(self, journal, refusals):
        self.journal, self.refusals = journal, refusals

    def read(self):
        return self.journal.read()

    def write(self, record):
        if record.job_id is not None and self.refusals:
            self.refusals -= 1
            raise StorageError("The storage did not answer.")
        self.journal.write(record)


@pytest.mark.parametrize("refusals", [1, 3])
def test_an_id_that_the_journal_did_not_take_is_written_again(connect, scene, refusals, monkeypatch):
    one = scene(thinking=True)
    monkeypatch.setattr(_submission, "RECORD_AGAIN_SECONDS", (0.01,) * 3)
    model = fitted(connect, one, refusals)
    assert one.journal.read().job_id == model.fitted_train_set_id
    assert fitted(connect, one, 0) == model
    assert len(one.books.fits) == 1


def test_an_id_that_the_journal_never_takes_is_in_the_log_and_taken_over(connect, scene, price, monkeypatch, caplog):
    one = scene(thinking=True)
    monkeypatch.setattr(_submission, "RECORD_AGAIN_SECONDS", (0.01,) * 3)
    model = fitted(connect, one, 5)
    assert f"{model.fitted_train_set_id} was submitted, and the journal did not take it" in caplog.text
    with pytest.raises(OutcomeUnknownError, match="adopt_fit"):
        fitted(connect, one, 0)
    adopted = connect(one.task["token"]).adopt_fit(
        model.fitted_train_set_id, one.task["source"], "outcome", parameters=model.parameters, journal=place_of(one)
    )
    assert adopted.fitted_train_set_id == model.fitted_train_set_id
    assert fitted(connect, one, 0).fitted_train_set_id == model.fitted_train_set_id
    assert one.books.charges == [price]


def place_of(scene):
    return folder_place(scene.task["folder"], scene.task["key"])


def fitted(connect, scene, refusals):
    place = place_of(scene)
    return connect(scene.task["token"]).fit(
        scene.task["source"],
        "outcome",
        parameters=FitParameters(task="classification", config={"n_estimators": 2}, thinking=Thinking(effort="medium")),
        journal=replace(place, journal=Outage(place.journal, refusals)),
    )


def test_without_a_claim_the_last_one_to_write_goes_on():
    journal = MemoryJournal(JobRecord)
    place = Place("nightly", journal)
    uploaded = JobRecord(kind="tabpfn_async", phase="uploaded", fingerprint="f")
    intent = uploaded.model_copy(update={"phase": "intent"})
    first, second = Hold.take(place, "first"), Hold.take(place, "second")
    assert (first.read(), second.read()) == (None, None)
    assert first.settle(uploaded)
    assert not second.settle(uploaded)
    assert second.read() == uploaded
    first.intend(intent)
    assert first.confirm()
    second.intend(intent)
    assert (first.confirm(), second.confirm()) == (False, True)
    assert not first.settle(uploaded)
    assert journal.read().owner == "second"
