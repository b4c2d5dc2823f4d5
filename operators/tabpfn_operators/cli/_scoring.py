"""What a person sees of a scoring under way: rows, shards, rows a second and the time left; and how to go on after it.

On a terminal each shard under way has a line of its own; elsewhere there is one line for the whole now and then.
"""

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.text import Text

from tabpfn_operators.cli._report import PLAIN_EVERY_SECONDS, logged, stderr
from tabpfn_operators.progress import Progress as Step
from tabpfn_operators.progress import ProgressCallback

#: Shards that have a line of their own; a terminal shows some two dozen.
_SHOWN_SHARDS = 12
_NAMED = 10


class Speed:
    """Rows a second since this call began, and the time that is left."""

    def __init__(self) -> None:
        self._first: tuple[float, float] | None = None
        self._last = (0.0, 0.0)
        self._total = 0.0

    def note(self, done: float, total: float, now: float) -> None:
        """Take in how far it is.

        Args:
            done: Rows done, also before this call.
            total: Rows of all.
            now: Seconds of any clock that only goes forward.
        """
        self._first = self._first or (now, done)
        if done != self._last[1] or not self._total:
            self._last = (now, done)
        self._total = total

    def text(self, now: float) -> str:
        """Say it; nothing where nothing was done yet.

        Args:
            now: As in `note`.
        """
        begun, before = self._first or (now, 0.0)
        at, done = self._last
        if done <= before or at <= begun:
            return ""
        rate = (done - before) / (at - begun)
        if done >= self._total:
            return f"{rate:,.0f} rows/s"
        left = max(0.0, (self._total - done) / rate - (now - at))
        return f"{rate:,.0f} rows/s, {timedelta(seconds=round(left))} left"


class _Watch(ABC):
    """What every kind of display keeps: the speed, and the shards that may have been sent."""

    def __init__(self) -> None:
        self.speed = Speed()
        self.predicting: set[int] = set()
        self._lock = threading.Lock()

    def show(self, step: Step) -> None:
        with self._lock:
            if step.step == "predict" and step.shard is not None:
                self.predicting.add(step.shard)
            elif step.step == "score":
                self.predicting.discard(-1 if step.shard is None else step.shard)
                self.speed.note(step.done, step.total or 0.0, time.monotonic())
            self._display(step)

    @abstractmethod
    def _display(self, step: Step) -> None:
        """Show how far it is."""

    def _whole(self, step: Step) -> str:
        speed = self.speed.text(time.monotonic())
        return f"{step.done:,.0f} of {step.total or 0:,.0f} rows, {step.note}{speed and f', {speed}'}"


class _Lines(_Watch):
    def __init__(self) -> None:
        super().__init__()
        self._next = float("-inf")
        self._newest = Step("score", 0)

    def _display(self, step: Step) -> None:
        whole = step.step == "score"
        self._newest = step if whole else self._newest
        finished = whole and step.done == step.total
        if time.monotonic() < self._next and not finished:
            return
        # After the last line nothing more is said, however many workers still report.
        self._next = float("inf") if finished else time.monotonic() + PLAIN_EVERY_SECONDS
        shard = "" if whole else f"; shard {step.shard or 0:05d}: {_text(step)}"
        stderr.print(f"score: {self._whole(self._newest)}{shard}", markup=False, highlight=False, soft_wrap=True)


class _Called(ProgressColumn):
    """A text that is made anew whenever it is drawn."""

    def render(self, task: Task) -> Text:
        text: Callable[[], str] = task.fields["text"]
        return Text(text())


class _Shards(_Watch):
    def __init__(self, bars: Bars) -> None:
        super().__init__()
        self._bars = bars
        self._whole_task: TaskID | None = None
        self._tasks: dict[int, TaskID] = {}

    def _display(self, step: Step) -> None:
        if step.shard is not None and step.step in {"score", "wait"}:
            self._hide_shard(step.shard)
        elif step.shard is not None:
            self._show_shard(step, step.shard)
        if step.step != "score":
            return
        if self._whole_task is None:
            self._whole_task = self._bars.add_task("score", text=lambda: self._whole(step))
        self._bars.update(self._whole_task, completed=step.done, total=step.total, text=lambda: self._whole(step))

    def _hide_shard(self, shard: int) -> None:
        if shard not in self._tasks:
            return
        self._bars.remove_task(self._tasks.pop(shard))
        for task in list(self._tasks.values())[:_SHOWN_SHARDS]:
            self._bars.update(task, visible=True)

    def _show_shard(self, step: Step, shard: int) -> None:
        if shard not in self._tasks:
            visible = len(self._tasks) < _SHOWN_SHARDS
            self._tasks[shard] = self._bars.add_task(f"  shard {shard:05d}", visible=visible, text=lambda: _text(step))
        self._bars.update(self._tasks[shard], completed=step.done, total=step.total, text=lambda: _text(step))


def _text(step: Step) -> str:
    if step.total is None:
        return f"{step.step} {step.note}"
    # How far the server is, nobody knows.
    done = "" if step.step in {"predict", "wait"} else f"{step.done:,.0f} of "
    return f"{step.step} {done}{step.total:,.0f} {step.note}"


@contextmanager
def watching_shards() -> Iterator[ProgressCallback]:
    """Show a scoring on stderr; whoever interrupts it is told how to go on.

    Yields:
        The callback to hand to a client.
    """
    with logged(logging.WARNING):  # an upload's line for each of thousands of shards would bury the rest
        if not stderr.is_terminal:
            with _told_how_to_go_on(lines := _Lines()):
                yield lines.show
            return
        columns = (TextColumn("{task.description}"), BarColumn(), _Called(), TimeElapsedColumn())
        bars = Bars(*columns, console=stderr, transient=True)
        with _told_how_to_go_on(shards := _Shards(bars)), bars:
            yield shards.show


@contextmanager
def _told_how_to_go_on(watch: _Watch) -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        stderr.print(how_to_go_on(sorted(watch.predicting)), markup=False, highlight=False, soft_wrap=True)
        raise


def how_to_go_on(predicting: list[int]) -> str:
    """Say what an interrupted scoring leaves behind.

    Args:
        predicting: Shards that may have been sent and had no answer.
    """
    again = "The same command, with --resume or without, goes on."
    if not predicting:
        return f"Interrupted. What is done is kept. {again}"
    names = ", ".join(f"{shard:05d}" for shard in predicting[:_NAMED])
    more = f" and {len(predicting) - _NAMED:,} more" if len(predicting) > _NAMED else ""
    return (
        f"Interrupted. What is done is kept. In doubt, as possibly sent and charged: shards {names}{more}. {again} "
        "Those that were sent are sent again, at most --max-resends in all, and named in the manifest; --on-unknown "
        "raise leaves them until you have looked at the account's usage."
    )
