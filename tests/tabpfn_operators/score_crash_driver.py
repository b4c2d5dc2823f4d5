"""Scorings in processes of their own, which kill themselves where a test says; the product knows nothing of it.

Lines of stdin and stdout are as in crash_driver.py. What kills is the test's own: a wire, a ledger, and wrappers around
what puts a part and what closes a scoring. Leases and waits are as short as the task says.
"""

import asyncio
import os
import shutil
import tempfile
import threading
import time
from dataclasses import dataclass, field, replace
from functools import partial
from types import SimpleNamespace

# Whatever a scoring imports is imported once, here; no thread runs before the fork.
import pyarrow.parquet  # noqa: F401
from crash_driver import Half, Kill, serve

from tabpfn_assets import FittedModel
from tabpfn_emulator.testing import EmulatorControl
from tabpfn_operators import AsyncClient, Client
from tabpfn_operators._wire import AsyncWire, SyncWire
from tabpfn_operators.errors import DestinationBusyError, TabPFNError
from tabpfn_operators.scoring import _finish, _flow, _manifest, _page, _part, _presence, _queue, _shard
from tabpfn_operators.scoring._ledger import Ledger

PREDICT = "/tabpfn/predict"
#: Longest sleep of a wire in seconds, and between two looks at a shard that another process has.
LONGEST_SLEEP = 0.05
BOOKED_SECONDS = 30.0


@dataclass
class SharedKill(Kill):
    """When a process ends itself, with several threads that count the same steps.

    Attributes:
        at: As in `Kill`.
        nth: As in `Kill`.
        when: As in `Kill`, or `half`: in the middle of it.
    """

    lock: threading.Lock = field(default_factory=threading.Lock)

    def is_due(self, name):
        with self.lock:
            return super().is_due(name)

    def once_booked(self, booked):
        """End the process when the server has booked something; what runs meanwhile goes on."""

        def watch():
            ends = time.monotonic() + BOOKED_SECONDS
            while not booked() and time.monotonic() < ends:
                time.sleep(0.005)
            self.now()

        threading.Thread(target=watch, daemon=True).start()

    def around(self, name, fn):
        """Make a step of a function."""

        def wrapped(*args, **options):
            with self.step(name):
                return fn(*args, **options)

        return wrapped

    def copying(self, source, target, size):
        """Copy a file, as shutil does."""
        with self.step("copy") as due:
            if due and self.when == "half":
                target.write(source.read(os.fstat(source.fileno()).st_size // 2))
                target.flush()
                self.now()  # one that is only stopped goes on with the other half
            shutil.copyfileobj(source, target, size)


class DyingWire:
    """What both wires do beside their work: short sleeps, and an end where it is due."""

    def watch(self, kill, booked):
        self.kill, self.booked = kill, booked
        return self

    async def send(self, request):
        name = "PUT" if request.method == "PUT" else request.url
        with self.kill.step(f"send {name}") as due:
            if due and self.kill.when == "half":
                request = replace(request, body=Half(request.body, self.kill))
            if due and self.kill.when == "received":
                self.kill.once_booked(partial(self.booked, request.json["test_set_upload_id"]))
            return await super().send(request)

    async def sleep(self, seconds):
        await super().sleep(min(seconds, LONGEST_SLEEP))


class DyingSyncWire(DyingWire, SyncWire):
    """A sync wire."""


class DyingAsyncWire(DyingWire, AsyncWire):
    """An async wire."""


class DyingLedger(Ledger):
    """A ledger; its class has the kill of the process, and `times`: what a lease lives, and how far clocks differ."""

    kill = None
    times = None

    def __init__(self, folder, plan_id, owner, **options):
        super().__init__(folder, plan_id, owner, **{**options, **self.times})

    def enter(self):
        with self.kill.step("enter"):
            super().enter()

    def take(self, shard, *, resend=False):
        with self.kill.step("take again" if resend else "take"):
            return super().take(shard, resend=resend)

    def count_resend(self, shard, most):
        with self.kill.step("count resend"):
            return super().count_resend(shard, most)

    def send(self, shard):
        with self.kill.step("sending"):
            may_send = super().send(shard)
        if may_send:
            with self.kill.step("sent"):
                pass
        return may_send

    def unsend(self, shard):
        with self.kill.step("unsend"):
            return super().unsend(shard)

    def finish(self, shard, scored):
        with self.kill.step("finish"):
            return super().finish(shard, scored)


def install(kill, task):
    """Put what kills around what this process runs."""
    times = {"lease_seconds": task["lease"], "skew": task["skew"]}
    DyingLedger.kill, DyingLedger.times = kill, times
    write = _page.Page.write

    def dying_write(page, phase, **options):
        with kill.step(f"{page.log.entry.phase} to {phase}"):  # a lease is renewed from one phase to the same
            return write(page, phase, **options)

    finished = _flow.finished

    def dying_finished(*args, confirm, **options):
        return finished(*args, confirm=kill.around("confirm to close", confirm), **options)

    _flow.Ledger = DyingLedger
    _page.Page.write = dying_write
    _queue.LOOK_SECONDS = LONGEST_SLEEP
    _manifest.alive_leases = partial(_presence.alive_leases, skew=task["skew"])
    _part.shutil = SimpleNamespace(copyfileobj=kill.copying)
    _shard.put = kill.around("put", _shard.put)
    _flow.finished = dying_finished
    _finish.write_manifest = kill.around("manifest", _finish.write_manifest)
    tempfile.tempdir = task["temporary"]


def score(task, kill):
    """Score as a task says: the same call whether something is killed or not."""
    control = EmulatorControl(task["url"])
    is_async = task.get("is_async", False)

    def booked(upload_id):
        made = control.creations(kind="predict_run", account=task["account"])
        return any(each["ids"]["test_set_upload_id"] == upload_id for each in made)

    class DyingClient(AsyncClient if is_async else Client):
        def _open_wire(self):
            wire = (DyingAsyncWire if is_async else DyingSyncWire)(self.settings)
            self._wire = wire.watch(kill, booked)
            return self._wire

    model = FittedModel.model_validate(task["model"])
    arguments = (model, task["source"], task["destination"])
    options = task["options"]

    async def score_async():
        async with DyingClient(task["token"], base_url=task["url"]) as client:
            return await client.score(*arguments, **options)

    if is_async:
        return asyncio.run(score_async())
    with DyingClient(task["token"], base_url=task["url"]) as client:
        return client.score(*arguments, **options)


def score_when_free(task):
    """Score again and again while another has the destination, for as many seconds as the task says."""
    kill = SharedKill(**(task.get("kill") or {}))
    install(kill, task)
    ends = time.monotonic() + task.get("patience", 0.0)
    while True:
        try:
            return score(task, kill)
        except DestinationBusyError:
            if time.monotonic() > ends:
                raise
            time.sleep(LONGEST_SLEEP)


def outcome(task):
    try:
        record = score_when_free(task)
    except TabPFNError as error:
        return {"error": type(error).__name__, "message": str(error)}
    return {"plan": record.plan_id, "rows": record.rows, "shards": record.shards, "resends": record.resends}


if __name__ == "__main__":
    serve(outcome)
