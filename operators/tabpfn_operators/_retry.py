"""When to send again: one pure policy, from what is known of the last attempt."""

from dataclasses import dataclass

from tabpfn_operators._envelopes import is_rate_limit, read_envelope, retry_after
from tabpfn_operators._messages import Request, Response

#: 408, 502, 503 and 504 pass (contract 1.0); 500 does for calls that may be repeated (contract 1.5).
PASSING_STATUSES = frozenset({408, 500, 502, 503, 504})
STORAGE_STATUSES = frozenset({408, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Outcome:
    """What is known of one attempt.

    Args:
        unsent: It provably never left this machine.
        answered: An answer came.
        passing: The answer is one that waiting may cure.
        rate_limited: The server asked to slow down.
        retry_after: Seconds the server asked to wait.
        billed: Carrying the call out twice would cost or create twice.
    """

    unsent: bool = False
    answered: bool = False
    passing: bool = False
    rate_limited: bool = False
    retry_after: float | None = None
    billed: bool = False

    @property
    def repeatable(self) -> bool:
        """Whether sending again is safe (contract 2.3)."""
        if self.unsent or self.rate_limited:
            return True
        if self.billed:
            # A 503 that names a time was refused at the door; any other lost answer may hide a finished call.
            return self.answered and self.passing and self.retry_after is not None
        return self.passing or not self.answered


def outcome_of(request: Request, response: Response) -> Outcome:
    """Read an answer as an outcome."""
    if not request.bearer:
        return Outcome(answered=True, passing=response.status in STORAGE_STATUSES, retry_after=retry_after(response))
    door = response.status == 503 or not request.billed
    return Outcome(
        answered=True,
        passing=response.status in PASSING_STATUSES and door,
        rate_limited=is_rate_limit(response, read_envelope(response)) if response.status == 429 else False,
        retry_after=retry_after(response),
        billed=request.billed,
    )


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how long to try.

    Args:
        attempts: Attempts in total; waiting for a rate limit does not count.
        first_wait: Seconds before the second attempt, at most; doubles each time.
        longest_wait: Seconds of one wait, at most, where the server gives no hint.
        budget: Seconds in total after which no further attempt starts; of an upload only the waits count.
    """

    attempts: int = 5
    first_wait: float = 0.5
    longest_wait: float = 30.0
    budget: float = 600.0

    def wait(self, attempt: int, outcome: Outcome, *, elapsed: float, jitter: float) -> float | None:
        """Decide how long to wait before the next attempt.

        Args:
            attempt: Attempts that counted so far, from 1.
            outcome: What is known of the last one.
            elapsed: Seconds since the first attempt started.
            jitter: Random number in [0, 1), so that many workers do not wake together.

        Returns:
            Seconds to wait, or None to give up. A server's hint is the earliest time; jitter only adds to it.
        """
        if not outcome.repeatable or (attempt >= self.attempts and not outcome.rate_limited):
            return None
        hint = outcome.retry_after
        if outcome.rate_limited and not hint:
            # Attempts do not count here, so the wait grows with the time spent; else it would hammer a busy server.
            hint = min(self.longest_wait, max(1.0, elapsed))
        if hint is not None:
            seconds = hint + jitter * min(30.0, hint / 2)
        else:
            seconds = jitter * min(self.longest_wait, self.first_wait * 2.0 ** min(attempt - 1, 30))
        return seconds if elapsed + seconds <= self.budget else None
