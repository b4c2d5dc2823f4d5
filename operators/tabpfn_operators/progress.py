"""Progress of long steps, for whoever wants to show it."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far a step is.

    Args:
        step: `prepare`, `upload`, `fit`, `predict` or `write`.
        done: Units done: rows for `prepare` and `write`, bytes for `upload`, seconds waited for `fit`.
        total: Units in total; None where nobody knows.
        note: A word for people.
    """

    step: str
    done: float
    total: float | None = None
    note: str = ""


ProgressCallback = Callable[[Progress], None]


def ignore(_: Progress) -> None:
    """Show nothing."""
