"""What a person sees: errors, progress and records; data goes to stdout, everything else to stderr."""

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.logging import RichHandler
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from tabpfn_operators.errors import (
    AccessDeniedError,
    AuthenticationError,
    CostExceededError,
    FitTimeoutError,
    OutcomeUnknownError,
    QuotaExceededError,
    TabPFNError,
)
from tabpfn_operators.progress import Progress as Step
from tabpfn_operators.progress import ProgressCallback

#: Seconds between two lines of progress where there is no terminal.
PLAIN_EVERY_SECONDS = 10.0
#: Columns beyond which a table's cells are folded after all.
_WIDEST_TABLE = 400


class OutputLostError(TabPFNError):
    """The command was carried out, but its output could not be written. Terminal: do not repeat what was billed."""


_CODES: tuple[tuple[int, tuple[type[TabPFNError], ...]], ...] = (
    (3, (AuthenticationError, AccessDeniedError, QuotaExceededError, CostExceededError)),
    (4, (OutcomeUnknownError, FitTimeoutError, OutputLostError)),
)

stderr = Console(stderr=True)
stdout = Console()


def exit_code(error: TabPFNError) -> int:
    """Choose the exit code of an error, as `--help` documents it."""
    return next((code for code, kinds in _CODES if isinstance(error, kinds)), 2 if error.terminal else 1)


def show_error(error: TabPFNError) -> None:
    """Print an error on stderr, as plain text that no column name can turn into markup."""
    stderr.print(Text.assemble(("Error:", "bold red"), f" {error}"), highlight=False, soft_wrap=True)


@contextmanager
def logged(level: int = logging.INFO) -> Iterator[None]:
    """Show what the library logs on stderr.

    Args:
        level: Logging level from which on.
    """
    log = logging.getLogger("tabpfn_operators")
    handler: logging.Handler = logging.StreamHandler()
    if stderr.is_terminal:  # logged above the bars, which a plain handler would tear
        handler = RichHandler(console=stderr, show_path=False, show_level=False, show_time=False)
    handler.setLevel(level)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)


@contextmanager
def watching() -> Iterator[ProgressCallback]:
    """Show progress on stderr: bars on a terminal, a line now and then elsewhere.

    Yields:
        The callback to hand to a client.
    """
    with logged():
        if not stderr.is_terminal:
            yield _Lines().show
            return
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
            console=stderr,
            transient=True,
        ) as bars:
            yield _Bars(bars).show


def _text(step: Step) -> str:
    if step.total is None:
        return f"{step.done:,.0f} s, {step.note}" if step.step == "fit" else step.note
    return f"{step.done:,.0f} of {step.total:,.0f} {step.note}"


class _Bars:
    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def show(self, step: Step) -> None:
        if step.step not in self._tasks:
            self._tasks[step.step] = self._bars.add_task(step.step, total=step.total, text="")
        self._bars.update(self._tasks[step.step], completed=step.done, total=step.total, text=_text(step))


class _Lines:
    def __init__(self) -> None:
        self._shown: dict[str, float] = {}

    def show(self, step: Step) -> None:
        now = time.monotonic()
        last = self._shown.get(step.step)
        finished = step.total is not None and step.done >= step.total
        if last is not None and not finished and now - last < PLAIN_EVERY_SECONDS:
            return
        if last != float("inf"):
            self._shown[step.step] = float("inf") if finished else now
            stderr.print(f"{step.step}: {_text(step)}", markup=False, highlight=False)


@contextmanager
def _written() -> Iterator[None]:
    try:
        yield
        stdout.file.flush()
    except OSError as error:
        # Python flushes stdout once more at its end, and would fail again there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.file.fileno())
        raise OutputLostError(
            f"The command was carried out, but its output could not be written ({error.strerror})."
        ) from None


def show_json(data: Any) -> None:
    """Print JSON for machines: no colour, no wrapping."""
    with _written():
        print(json.dumps(data, indent=2, ensure_ascii=False))  # noqa: T201 - this is the command's output


def show_table(table: Table) -> None:
    """Print a table as wide as it needs to be, so that an id can be copied; a narrow terminal breaks its lines."""
    widest = stdout.options.update(max_width=_WIDEST_TABLE)
    width = max(stdout.width, Measurement.get(stdout, widest, table).maximum)
    with _written():
        Console(width=width).print(table, highlight=False)


def show_facts(title: str, facts: Mapping[str, object]) -> None:
    """Print facts as two columns; long values are not broken, so that a path can be copied."""
    width = max(map(len, facts))
    with _written():
        stdout.print(Text(title, "bold"), highlight=False)
        for name, value in facts.items():
            # Text, for markup would take a column named :smile: for a picture.
            stdout.print(Text(f"  {name:<{width}}  {value}"), highlight=False, soft_wrap=True)
