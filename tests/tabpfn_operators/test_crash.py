"""kill -9 at every step of a fit, then the same call again: what was created, charged, sent, and what the caller gets.

The kills are tests/tabpfn_operators/crash_driver.py's: its own wire, journal, claims and store end their process; the
product has no hook for it. `--all` runs the races of two processes 50 times instead of 8.
"""

import signal
import uuid
from dataclasses import dataclass, replace

import pytest

from tabpfn_assets import JobRecord
from tabpfn_operators import Client
from tabpfn_operators.errors import OutcomeUnknownError
from tabpfn_operators.lineage import LineageStore
from tabpfn_operators.places import folder_place

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
        return folder_place(self.task["folder"], self.task["key"]).journal

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


@pytest.fixture
def price(emulator, classification):
    """Tokens that the thinking fit of these tests costs."""
    with Client("the-price", base_url=emulator) as client:
        return client.estimate_cost(60, 2, operation="thinking_fit", n_estimators=2, thinking_effort="medium").estimated_cost


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


@pytest.mark.parametrize("key", ["same key", "new key"])
@pytest.mark.parametrize("thinking", [False, True], ids=["standard", "thinking"])
@pytest.mark.parametrize("name", POINTS)
def test_a_killed_fit_is_created_and_paid_once(name, thinking, key, scene, run_at_once, price):
    point, scene = POINTS[name], scene(thinking=thinking)
    crash(scene, point, run_at_once)
    if key == "new key":
        scene = scene.with_new_key()
    ran = rerun(scene, run_at_once)
    check_rerun(scene, point, ran, price)




@pytest.mark.parametrize("name", IN_DOUBT)
def test_what_is_in_doubt_stays_so_until_a_person_decides(name, scene, run_at_once, price):
    point, scene = POINTS[name], scene(thinking=True)
    crash(scene, point, run_at_once)
    assert is_unknown(rerun(scene, run_at_once))
    assert is_unknown(rerun(scene, run_at_once))
    decided = rerun(scene, run_at_once, on_unknown="resubmit")
    assert scene.books.charges == [price] * (point.in_doubt + 1)
    assert scene.books.bytes_sent() == 0
    check_delivered(scene, decided, orphans=1)
    assert rerun(scene, run_at_once)["id"] == decided["id"]
