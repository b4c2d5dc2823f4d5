"""Progress of long steps, for whoever wants to show it."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far a step is.

    Args:
        step: `prepare`, `upload`, `fit`, `predict`, `write`, `score`, or `wait` of a shard that was put back.
        done: Units done: rows for `prepare`, `write` and `score`, bytes for `upload`, seconds waited for `fit`.
        total: Units in total; None where nobody knows.
        note: A word for people.
        shard: The shard of a scoring, counted from 0, whose step it is; in step `score`, the one that is done.
    """

    step: str
    done: float
    total: float | None = None
    note: str = ""
    shard: int | None = None


ProgressCallback = Callable[[Progress], None]


def ignore(_: Progress) -> None:
    """Show nothing."""
