"""What calls cost and how many there may be: pools of tokens, rate limits, charges (contract sections 4.2 and 4.3)."""

import time
from datetime import UTC, datetime, timedelta

from starlette.requests import Request

from tabpfn_emulator._books.journal import CreationKind
from tabpfn_emulator._books.rates import Group
from tabpfn_emulator._emulator import Emulator, account, emulator_of, row_of
from tabpfn_emulator._envelopes import ApiError


def check_rate(request: Request, group: Group) -> None:
    """Count a call and refuse it when there were too many; only where the emulator runs with rate limits.

    Args:
        request: A request with a usable token.
        group: What it calls; `thinking_fit` counts as `fit` too.

    Raises:
        ApiError: 429 `RATE_LIMIT_EXCEEDED` with a `Retry-After` header in whole seconds: wait as long and call again.
    """
    emulator = emulator_of(request)
    owner = account(request)
    if not emulator.settings.rate_limits:
        return
    wait = emulator.rates.take(owner, group, time.time())
    if wait is not None:
        message = f"Too many {group} requests. Try again in {wait} seconds."
        raise ApiError(429, "RATE_LIMIT_EXCEEDED", message, headers={"Retry-After": str(wait)})


def used(emulator: Emulator, owner: str) -> tuple[int, int]:
    """Return the tokens that an account has used today and this month, UTC."""
    today = datetime.now(UTC).date()
    journal = emulator.journal
    return journal.used(owner, today.isoformat()), journal.used(owner, today.replace(day=1).isoformat())


def resets() -> tuple[datetime, datetime]:
    """Return when the daily and the monthly pool are full again: midnight and the first of a month, UTC."""
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    next_month = (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)
    return midnight + timedelta(days=1), next_month


def check_quota(request: Request, tokens: int) -> None:
    """Refuse what the account's pools do not hold.

    Call it right before `charge`, without awaiting in between: then calls at the same time cannot overdraw a pool.

    Args:
        request: A request with a usable token.
        tokens: What is about to be charged, 0 or more.

    Raises:
        ApiError: 429 `INSUFFICIENT_QUOTA`, whose message names the pool and when it resets; no `Retry-After`, because
            waiting seconds does not help.
    """
    if not tokens:
        return
    emulator = emulator_of(request)
    pools = (emulator.settings.daily_tokens, emulator.settings.monthly_tokens)
    spent_of = used(emulator, account(request))
    for name, size, spent, reset in zip(("daily", "monthly"), pools, spent_of, resets(), strict=True):
        if spent + tokens > size:
            raise ApiError(
                429,
                "INSUFFICIENT_QUOTA",
                f"The {name} pool of {size} tokens holds {max(0, size - spent)}, this call needs {tokens}."
                f" It resets at {reset.isoformat()}.",
            )


def charge(request: Request, kind: CreationKind, tokens: int, **ids: str) -> int:
    """Write an accepted creation with its charge; before the answer leaves.

    Args:
        request: The request that asked for it.
        kind: What it is.
        tokens: Its price, 0 or more.
        ids: The ids that it made or used.

    Returns:
        The creation's id, for `Journal.refund`.

    Raises:
        ApiError: 401 when the account was deleted meanwhile.
    """
    # Its account may have been deleted while the body, or the work, was on its way.
    account(request)
    return emulator_of(request).journal.created(row_of(request.scope), kind, tokens, **ids)
