"""Fits in processes of their own, which kill themselves where a test says; the product knows nothing of it.

Each line of stdin is a list of tasks, run at once by one forked process each; each line of stdout says what became of
them. What kills is the test's own: a wire, a journal, claims and a lineage store that call the product's.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass, replace
from functools import partial

# Whatever a fit imports is imported once, here; no thread runs before the fork.
import pyarrow.parquet  # noqa: F401

from tabpfn_assets import FitParameters, Thinking
from tabpfn_emulator.testing import EmulatorControl
from tabpfn_operators import AsyncClient, Client
from tabpfn_operators._wire import AsyncWire, SyncWire
from tabpfn_operators.claims import FolderClaims
from tabpfn_operators.errors import TabPFNError
from tabpfn_operators.lineage import LineageStore
from tabpfn_operators.places import folder_place

LOOK = "/tabpfn/get_fit_status"
log = logging.getLogger(__name__)
#: Longest sleep of a wire in seconds, unless the task names another.
LONGEST_SLEEP = 0.05
HANGS = 30.0


@dataclass
class Kill:
    """When a process ends itself, as a power cut would.

    Attributes:
        at: A step, such as `send /tabpfn/fit`; None for never.
        nth: Which of these steps, from 1.
        when: `before` it, `after` it, or `received`: the server has carried out what the step asks for, and has not
            answered.
        once: A file of which only the first of several processes to create it is killed.
        stop: Whether the process is only stopped, as by a laptop's lid, until those beside it are done.
    """

    at: str | None = None
    nth: int = 1
    when: str = "after"
    once: str | None = None
    stop: bool = False
    seen: int = 0

    @contextlib.contextmanager
    def step(self, name):
        due = self.is_due(name)
        if due and self.when == "before":
            self.now()
        yield due
        if due and self.when == "after":
            self.now()

    def is_due(self, name):
        self.seen += name == self.at
        return name == self.at and self.seen == self.nth

    def now(self):
        if self.once is not None:
            try:
                os.close(os.open(self.once, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return
        os.kill(os.getpid(), signal.SIGSTOP if self.stop else signal.SIGKILL)

    @contextlib.contextmanager
    def received(self, name, creations):
        """Kill once the server has booked a creation; it withholds the answer."""
        if self.when != "received" or name != self.at:
            yield
            return
        before = len(creations())

        def watch():
            while len(creations()) == before:
                time.sleep(0.005)
            self.now()

        threading.Thread(target=watch, daemon=True).start()
        yield
        time.sleep(HANGS)  # an answer that was not withheld is an error of the test, which sees that nobody died


@dataclass
class Half:
    """A body whose sender dies when half of it is on its way."""

    body: object
    kill: Kill

    @property
    def size(self):
        return self.body.size

    def chunks(self, chunk_size, start=0, stop=None):
        content = b"".join(self.body.chunks(chunk_size, start, stop))
        yield content[: len(content) // 2]
        self.kill.now()


class DyingWire:
    """What both wires do beside their work: parts one after another, short sleeps, and an end where it is due."""

    def watch(self, kill, creations, longest_sleep):
        self.kill, self.creations, self.longest_sleep = kill, creations, longest_sleep
        return self

    async def send(self, request):
        name = "PUT" if request.method == "PUT" else request.url
        if name == "PUT" and self.kill.is_due("half PUT"):
            request = replace(request, body=Half(request.body, self.kill))
        with self.kill.received(f"send {name}", self.creations), self.kill.step(f"send {name}"):
            answer = await super().send(request)
        if name == LOOK:
            with self.kill.step(f"look {json.loads(answer.body).get('status')}"):
                pass
        return answer

    async def call(self, fn, *args):
        with self.kill.step("call"):
            return await super().call(fn, *args)

    async def sleep(self, seconds):
        await super().sleep(min(seconds, self.longest_sleep))

    async def gather(self, thunks, limit):
        return await super().gather(thunks, 1)


class DyingSyncWire(DyingWire, SyncWire):
    """A sync wire."""


class DyingAsyncWire(DyingWire, AsyncWire):
    """An async wire."""


@dataclass
class DyingJournal:
    """A journal."""

    journal: object
    kill: Kill

    def read(self):
        return self.journal.read()

    def write(self, record):
        with self.kill.step("write delivered" if record.delivered else f"write {record.phase}"):
            self.journal.write(record)


class DyingClaims(FolderClaims):
    """Claims."""

    def acquire(self, key, owner, ttl):
        with self.kill.step("acquire"):
            return super().acquire(key, owner, ttl)


class DyingStore(LineageStore):
    """A lineage store, killed around a whole `add`, or around its record alone."""

    def add(self, model):
        with self.kill.step("add"):
            return super().add(model)

    def _create(self, record, *parts):
        with self.kill.step("create"):
            return super()._create(record, *parts)


def fit(task):
    """Fit as a task says: the same call whether something is killed or not."""
    kill = Kill(**(task.get("kill") or {}))
    control = EmulatorControl(task["url"])
    is_async = task.get("is_async", False)

    class DyingClient(AsyncClient if is_async else Client):
        def _open_wire(self):
            wire = (DyingAsyncWire if is_async else DyingSyncWire)(self.settings)
            creations = partial(control.creations, account=task["account"])
            self._wire = wire.watch(kill, creations, task.get("longest_sleep", LONGEST_SLEEP))
            return self._wire

    options = task.get("options")
    place = folder_place(
        task["folder"],
        task["key"],
        generation=task.get("generation", 0),
        options=options,
        lease_seconds=task["lease"],
    )
    claims = DyingClaims(f"{task['folder']}/claims", options, skew=task["skew"])
    claims.kill = kill
    store = None
    if task.get("lineage"):
        store = DyingStore(task["lineage"], options)
        store.kill = kill
    arguments = {
        "parameters": FitParameters(
            task="classification",
            config={"n_estimators": task.get("n_estimators", 2)},
            thinking=Thinking(effort="medium") if task["thinking"] else None,
        ),
        "journal": replace(
            place, journal=DyingJournal(place.journal, kill), claim=claims if task.get("claim", True) else None
        ),
        "lineage": store,
        "name": "churn",
        "streamed": task.get("streamed", False),
        "on_unknown": task.get("on_unknown", "auto"),
    }

    async def fit_async():
        async with DyingClient(task["token"], base_url=task["url"]) as client:
            return await client.fit(task["source"], "outcome", **arguments)

    if is_async:
        return asyncio.run(fit_async())
    with DyingClient(task["token"], base_url=task["url"]) as client:
        return client.fit(task["source"], "outcome", **arguments)


def outcome(task):
    try:
        model = fit(task)
    except TabPFNError as error:
        return {"error": type(error).__name__, "message": str(error), "ended": time.time()}
    return {
        "id": model.fitted_train_set_id,
        "status": model.status,
        "possible_orphans": model.possible_orphans,
        "ended": time.time(),
    }


def start(task, ready, go, outcome):
    """Fork a process that says it is ready, waits until all are, and does its task."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    code = 1
    try:
        os.write(ready, b".")
        os.read(go, 1)
        with os.fdopen(writing, "wb") as result:
            result.write(json.dumps(outcome(task)).encode())
        code = 0
    except BaseException:
        log.exception("the task failed")
    finally:
        os._exit(code)


def end(pid, reading):
    with os.fdopen(reading, "rb") as result:
        said = result.read()
    _, status = os.waitpid(pid, 0)
    return {"code": os.waitstatus_to_exitcode(status), **(json.loads(said) if said else {})}


def stopped(pid):
    """Wait until a process has stopped; False where it has ended."""
    found = os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    return found.si_code == os.CLD_STOPPED


def run(tasks, outcome):
    """Run tasks at once; one that is to be stopped first, until it is, and on when the others have ended."""
    pipes = [*os.pipe(), *os.pipe()]
    ready, say_ready, go, say_go = pipes
    stopping = [is_stopped(task) for task in tasks]
    started = {}
    for number in sorted(range(len(tasks)), key=lambda number: not stopping[number]):
        started[number] = start(tasks[number], say_ready, go, outcome)
        os.read(ready, 1)
        if stopping[number]:
            os.write(say_go, b".")
            stopping[number] = stopped(started[number][0])
    os.write(say_go, b"." * sum(not is_stopped(task) for task in tasks))
    results = {number: end(*started[number]) for number in started if not stopping[number]}
    for number, (pid, reading) in started.items():
        if stopping[number]:
            os.kill(pid, signal.SIGCONT)
            results[number] = {**end(pid, reading), "stopped": True}
    for each in pipes:
        os.close(each)
    return [results[number] for number in range(len(tasks))]


def is_stopped(task):
    return bool((task.get("kill") or {}).get("stop"))


def serve(outcome):
    """Run the lists of tasks that stdin holds."""
    logging.basicConfig(level=logging.INFO, format="%(process)d %(relativeCreated)d %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line), outcome)), flush=True)


if __name__ == "__main__":
    serve(outcome)
