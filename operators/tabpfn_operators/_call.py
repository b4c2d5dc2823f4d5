"""One call: send, judge, wait, send again, or raise the right error."""

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urljoin, urlsplit

from tabpfn_operators._envelopes import choose_error, choose_storage_error, retry_after
from tabpfn_operators._messages import Request, Response
from tabpfn_operators._retry import Outcome, RetryPolicy, outcome_of
from tabpfn_operators._run import NoAnswerError, Wire
from tabpfn_operators.errors import ConnectionFailedError, OutcomeUnknownError, TabPFNError, UploadError
from tabpfn_operators.openlineage import Emitter
from tabpfn_operators.pacing import Pacing
from tabpfn_operators.settings import Settings

log = logging.getLogger("tabpfn_operators")

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 3
_TOO_MANY = 429
#: A gateway's answer to a billed call says nothing of what the server behind it did (contract 2.3).
_GATEWAY_STATUSES = frozenset({408, 502, 503, 504})


@dataclass(frozen=True)
class Session:
    """What every flow works with.

    Args:
        settings: How the API is reached.
        wire: What carries requests.
        policy: When to send again.
        jitter: Source of random numbers in [0, 1).
        emitter: Who is told of fits, predictions and evaluations; None for nobody.
        pacing: What the calls to the API that share a rate limit wait for; None lets each wait on its own.
    """

    settings: Settings
    wire: Wire
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    jitter: Callable[[], float] = random.random
    emitter: Emitter | None = None
    pacing: Pacing | None = None


class Watch(Protocol):
    """Who writes down what becomes of a call, in flows that wait for the wire only."""

    async def sending(self) -> None:
        """The request is about to be sent, for the first time or again; what this raises keeps it from being sent."""

    async def not_carried_out(self) -> None:
        """The last attempt was certainly not carried out."""


async def call(
    session: Session, request: Request, *, accept: tuple[int, ...] = (), watch: Watch | None = None
) -> Response:
    """Send a request until it succeeds or must not be sent again.

    Args:
        session: Settings, wire and policy.
        request: What to send; rebuilt from its source at every attempt.
        accept: Statuses beside 2xx that the caller reads itself.
        watch: Is told before every attempt, and after one that was certainly not carried out.

    Returns:
        The answer.

    Raises:
        TabPFNError: Of the class that the last attempt calls for.
    """
    began = started = time.monotonic()
    attempt, redirects, waited = 1, 0, 0.0
    while True:
        error: TabPFNError
        turn = await _turn(session, request)
        started += turn.queued  # the turns of others are no part of this call's time
        response, failure = await _send(session, request, watch)
        if response is None:
            outcome = Outcome(unsent=failure.unsent, billed=request.billed)
            error = _unanswered(session.settings, request, failure)
        else:
            if response.status < 300 or response.status in accept:
                return response
            if response.status in _REDIRECTS and redirects < _MAX_REDIRECTS:
                followed = _followed(session.settings, request, response)
                if followed is not None:
                    request, redirects = followed, redirects + 1
                    continue
            outcome = outcome_of(request, response)
            error = _refused(request, response)
        # Gigabytes take longer than any budget; an upload is bounded by its attempts and by the life of its URL.
        elapsed = waited if request.body is not None else time.monotonic() - started
        if session.pacing is not None and outcome.rate_limited:
            # Waiting is worth it for as long as the route takes calls of this process, if not yet this one.
            elapsed = min(time.monotonic() - began, session.pacing.stalled(request))
        wait = session.policy.wait(attempt, outcome, elapsed=elapsed, jitter=session.jitter())
        _tell(session, request, turn, outcome, wait)
        if watch is not None and outcome.repeatable:
            await watch.not_carried_out()
        if wait is None:
            raise error
        reason = error.message.partition(". ")[0]  # the remedy is for whoever sees it fail for good
        log.warning("%s; attempt %d failed, the next is in %.1f s.", reason, attempt, wait)
        attempt += 0 if outcome.rate_limited else 1
        waited += wait
        if session.pacing is None or not outcome.rate_limited:  # else the next turn waits
            await session.wire.sleep(wait)


@dataclass(frozen=True)
class _Turn:
    """When a call was sent, by the clock of the pacing, and the seconds that it waited for that."""

    sent_at: float = 0.0
    queued: float = 0.0


async def _turn(session: Session, request: Request) -> _Turn:
    if session.pacing is None or not request.bearer:
        return _Turn()
    before = time.monotonic()
    patience = session.policy.budget
    sent_at = await session.pacing.turn(session.wire, request, session.jitter, patience=patience)
    return _Turn(sent_at, time.monotonic() - before)


def _tell(session: Session, request: Request, turn: _Turn, outcome: Outcome, wait: float | None) -> None:
    """Let the pacing learn from a refusal, also where this call gives up."""
    if session.pacing is not None and outcome.rate_limited:
        session.pacing.refused(request, turn.sent_at, outcome.retry_after or wait or 1.0, session.jitter)


async def _send(session: Session, request: Request, watch: Watch | None) -> tuple[Response | None, NoAnswerError]:
    if watch is not None:
        await watch.sending()
    try:
        response = await session.wire.send(request)
    except NoAnswerError as failure:
        return None, failure
    if session.pacing is not None and request.bearer and response.status != _TOO_MANY:
        session.pacing.accepted(request)
    return response, NoAnswerError("", unsent=False)


def _refused(request: Request, response: Response) -> TabPFNError:
    if not request.bearer:
        return choose_storage_error(response, request.label)
    refused_at_the_door = response.status == 503 and retry_after(response) is not None
    if request.billed and response.status in _GATEWAY_STATUSES and not refused_at_the_door:
        return _unknown(request, f"the answer was HTTP {response.status}")
    return choose_error(response, request.label)


def _unanswered(settings: Settings, request: Request, failure: NoAnswerError) -> TabPFNError:
    if request.billed and not failure.unsent:
        return _unknown(request, f"the connection was lost ({failure.reason})")
    kind = ConnectionFailedError if request.bearer else UploadError
    remedy = "Check base_url, proxy and network, then run again." if failure.unsent else "Run again."
    where = f" from {settings.base_url}" if request.bearer else ""
    return kind(f"{request.label}: no answer{where} ({failure.reason}). {remedy}")


def _unknown(request: Request, reason: str) -> OutcomeUnknownError:
    return OutcomeUnknownError(
        f"{request.label}: {reason} after the request was sent, so it may have been carried out and is not sent again. "
        "Look at the account's usage before you repeat it."
    )


def _followed(settings: Settings, request: Request, response: Response) -> Request | None:
    """Follow a redirect of a GET on the same origin only (design.md, promise 5)."""
    location = response.headers.get("location")
    if request.method != "GET" or not request.bearer or not location:
        return None
    target = urljoin(settings.base_url + request.url, location)
    if urlsplit(target)[:2] != urlsplit(settings.base_url)[:2]:
        return None
    parts = urlsplit(target)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    prefix = urlsplit(settings.base_url).path
    if not path.startswith(prefix):
        return None
    return Request("GET", path.removeprefix(prefix), request.label, read_timeout=request.read_timeout)
