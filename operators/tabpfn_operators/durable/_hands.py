"""Doing something in a place while nobody else does."""

from collections.abc import Callable
from typing import TypeVar

from tabpfn_operators._call import Session
from tabpfn_operators._run import Flow
from tabpfn_operators.places import Hold, Place

T = TypeVar("T")


async def in_hand(session: Session, place: Place, owner: str, step: Callable[[Hold], Flow[T | None]]) -> T | None:
    """Take a place in hand and do one step there.

    Args:
        session: Settings, wire and policy.
        place: The place.
        owner: Who asks, see `new_owner`.
        step: What is done, given the hold.

    Returns:
        What the step returned; None too where another has the place.
    """
    hold = await session.wire.call(Hold.take, place, owner)
    if hold is None:
        return None
    hold.begin()
    try:
        return await step(hold)
    finally:
        hold.abandon()  # at once, whatever becomes of the call below in a task that is cancelled
        await session.wire.call(hold.end)
