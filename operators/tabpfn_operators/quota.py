"""When an empty token pool is full again."""

import re
from dataclasses import replace
from typing import TypeVar

from tabpfn_operators import account
from tabpfn_operators._call import Session, log
from tabpfn_operators._retry import RetryPolicy
from tabpfn_operators.errors import QuotaExceededError, TabPFNError

Q = TypeVar("Q", bound=QuotaExceededError)

_ONE_LOOK = RetryPolicy(attempts=1, budget=0.0)
_LOOK_SECONDS = 20.0
#: The server's message names the pool and its reset (contract 4.3), in words that are not promised.
_RESET = re.compile(r"\bresets? (?:at|on) (\d{4}-\d\d-\d\d[T ]?[0-9:.+Z-]*)")


async def with_reset(session: Session, error: Q) -> Q:
    """Say in the error when the pool resets, as far as the server tells: in its refusal, or by one look at the usage.

    Args:
        session: The session of the call that was refused.
        error: The refusal.

    Returns:
        An error of the same class with `reset_at`, whose message names it; the given one where nobody knows.
    """
    if error.reset_at is not None:
        return error
    named = _RESET.search(error.message)
    if named is not None:
        # What is named in a sentence ends with its full stop.
        return _told(error, named[1].rstrip("."), error.message)
    try:
        once = replace(session, policy=_ONE_LOOK, pacing=None)
        usage = await account.get_api_usage(once, read_timeout=_LOOK_SECONDS)
    except TabPFNError as failed:
        log.info("When the token pool resets is not known: %s", failed.message)
        return error
    if usage.reset_time is None:
        return error
    return _told(error, usage.reset_time, f"{error.message} It resets at {usage.reset_time}.")


def _told(error: Q, reset_at: str, message: str) -> Q:
    told = type(error)(message, status=error.status, code=error.code, trace_id=error.trace_id)
    told.reset_at = reset_at
    return told
