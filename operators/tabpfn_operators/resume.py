"""What follows from what is remembered of a fit: one pure decision, the same in every engine (design.md, promise 2)."""

from dataclasses import dataclass
from typing import Literal

from tabpfn_assets import FitStatus, JobRecord
from tabpfn_operators.errors import (
    ConfigurationError,
    FitFailedError,
    OutcomeUnknownError,
    ServerError,
    TabPFNError,
)

OnUnknown = Literal["auto", "raise", "resubmit"]
Reuse = Literal["never", "run", "always"]
Action = Literal["submit", "resubmit", "wait", "reattach", "finish", "reuse", "raise"]

#: What a person does where nobody can know.
UNKNOWN_REMEDY = (
    "If there is a fit and its id is in a log, take it over with adopt_fit (fit --adopt ID); to submit it again, which "
    "may be charged twice, pass on_unknown='resubmit' (--on-unknown resubmit)."
)
#: Fits that a place has left open and still knows of.
MOST_SUPERSEDED = 10
#: How often `auto` submits again what is free.
AUTO_RESUBMISSIONS = 1
#: Failures of a fit that say nothing of its data; the only one that the contract names (section 4.3).
RETRYABLE_FIT_CODES = frozenset({"RATE_LIMIT_EXCEEDED"})


@dataclass(frozen=True)
class ResumeDecision:
    """What to do next about a logical fit.

    Args:
        action: `submit` it for the first time, in this generation or with these inputs; `resubmit` it although it may
            have been submitted already; `wait` for another who is at it; `reattach` to the job that runs; `finish`
            what is fitted and not yet delivered; `reuse` what was delivered; `raise` the error.
        reason: Why, for the log.
        error: What to raise.
    """

    action: Action
    reason: str
    error: TabPFNError | None = None


def generation_of(record: JobRecord | None, generation: int | None, reuse: Reuse) -> int:
    """Tell in which generation a call is.

    Args:
        record: The newest record of the place.
        generation: What the engine counts; None where nothing does, so that the newest one goes on.
        reuse: `never` opens a new generation once the last one is delivered or failed; one that was interrupted is
            taken up, since a retry of that very call looks the same.

    Returns:
        The generation.
    """
    if record is None:
        return generation or 0
    if reuse != "never":
        return record.generation if generation is None else generation
    return max(generation or 0, record.generation + (record.delivered or record.phase == "failed"))


def brought_forward(record: JobRecord | None, fingerprint: str) -> JobRecord | None:
    """Find what a place knows of a fit, also where another has been asked for there since.

    Args:
        record: The newest record of the place.
        fingerprint: What is asked for now, without the account.

    Returns:
        The record of that fit where the place has left it open, else the newest; it names what is still open beside it.
    """
    if record is None or record.fingerprint == fingerprint:
        return record
    for left in record.superseded:
        if left.fingerprint == fingerprint:
            rest = tuple(other for other in record.superseded if other is not left)
            # What is unfinished goes on in the generation of now; a worker of an older one must not take it up.
            generation = left.generation if left.delivered else record.generation
            beside = (*_open_part(record), *rest)[:MOST_SUPERSEDED]
            return left.model_copy(update={"generation": generation, "superseded": beside})
    return record


def of_job(record: JobRecord | None, job_id: str) -> JobRecord | None:
    """Find the record of a job, the newest of a place or one that it has left open.

    Args:
        record: The newest record of the place.
        job_id: The server's id.
    """
    if record is None or record.job_id == job_id:
        return record
    return next((left for left in record.superseded if left.job_id == job_id), None)


def with_job(record: JobRecord | None, job: JobRecord) -> JobRecord | None:
    """Put what has become of a job where a place remembers it.

    Args:
        record: The newest record of the place.
        job: The record of one job, as `of_job` found it, and changed.

    Returns:
        The newest record; None where the place does not know the job any more.
    """
    if record is None or record.job_id == job.job_id:
        return None if record is None else job
    if of_job(record, job.job_id or "") is None:
        return None
    left = tuple(job if other.job_id == job.job_id else other for other in record.superseded)
    return record.model_copy(update={"superseded": left})


def superseded_by(record: JobRecord | None, fingerprint: str) -> tuple[JobRecord, ...]:
    """List what must not be forgotten of a place in which another fit begins: submitted or in doubt, not delivered.

    Args:
        record: The newest record of the place, brought forward.
        fingerprint: What begins there.

    Returns:
        Records without such lists of their own, newest first.
    """
    if record is None:
        return ()
    if record.fingerprint == fingerprint:
        return record.superseded
    return (*_open_part(record), *record.superseded)[:MOST_SUPERSEDED]


def is_open(record: JobRecord) -> bool:
    """Tell whether something may be at the server that nobody has got yet."""
    return record.phase in {"intent", "submitted", "completed"} and not record.delivered


def _open_part(record: JobRecord) -> tuple[JobRecord, ...]:
    return (record.model_copy(update={"superseded": ()}),) if is_open(record) else ()


def was_not_carried_out(error: TabPFNError) -> bool:
    """Tell whether an error of a submission proves that no fit was created.

    Args:
        error: What the submission ended with.

    Returns:
        True for a 4xx, for a 503 that names a time to come again (others are `OutcomeUnknownError`), and for what was
        never sent. Any other answer of a server in trouble proves nothing.
    """
    if isinstance(error, ServerError):
        return error.status == 503
    return not isinstance(error, OutcomeUnknownError)


def resume_decision(
    record: JobRecord | None,
    fingerprint: str,
    generation: int,
    status: FitStatus | None,
    now: float,
    *,
    billed: bool,
    on_unknown: OnUnknown = "auto",
    owner: str | None = None,
    alone: bool = False,
) -> ResumeDecision:
    """Decide what follows from the newest record of a place.

    Args:
        record: The record; None where the journal says that there is none.
        fingerprint: What is asked for now, without the account (`fit_fingerprint(account=None)`).
        generation: The generation of this call.
        status: The server's word on the recorded job; None where it was not asked.
        now: Epoch seconds.
        billed: Whether the fit itself costs tokens (contract 4.2).
        on_unknown: What to do where nobody can know whether a fit was created: `auto` submits again when it is free
            and raises when it is billed; `raise` and `resubmit` force either.
        owner: Who asks; its own lease keeps nobody waiting.
        alone: Whether the caller holds the place's claim, so that whoever wrote an intent is gone.

    Returns:
        The decision.
    """
    if record is None:
        return ResumeDecision("submit", "nothing was done here before")
    if record.generation > generation:
        return _outdated(record, generation)
    same = record.fingerprint == fingerprint
    if record.phase == "intent":
        return _after_intent(record, same, now, billed=billed, on_unknown=on_unknown, owner=owner, alone=alone)
    if record.phase == "uploaded":
        return ResumeDecision("submit", "the train set was uploaded, and nothing was submitted")
    if not same:
        return ResumeDecision("submit", f"the inputs are others than those of fit {record.job_id}, which is left alone")
    failed = record.phase == "failed" or (status is not None and status.status == "failed")
    if record.generation < generation and (record.delivered or failed):
        return ResumeDecision("submit", f"a new generation was asked for after fit {record.job_id} had ended")
    if failed:
        return _after_failure(record, status)
    if record.delivered:
        return ResumeDecision("reuse", f"fit {record.job_id} was delivered here before, of equal inputs")
    if record.phase == "completed" or (status is not None and status.status == "completed"):
        return ResumeDecision("finish", f"fit {record.job_id} is completed and not yet delivered")
    return ResumeDecision("reattach", f"fit {record.job_id} was submitted and is waited for again")


def _outdated(record: JobRecord, generation: int) -> ResumeDecision:
    reason = f"generation {generation} is over: generation {record.generation} has begun here"
    error = ConfigurationError(f"This call belongs to the past: {reason}. End it; the newer one goes on.")
    return ResumeDecision("raise", reason, error)


def _after_intent(
    record: JobRecord,
    same: bool,
    now: float,
    *,
    billed: bool,
    on_unknown: OnUnknown,
    owner: str | None,
    alone: bool,
) -> ResumeDecision:
    alive = not alone and record.owner != owner and now < (record.lease_expires_at or 0.0)
    if alive:
        return ResumeDecision("wait", f"{record.owner} is submitting it")
    if not same:
        return ResumeDecision("submit", "the inputs are others than those whose submission was interrupted here")
    reason = "it was interrupted between sending the request and hearing back, so a fit may have been created"
    if on_unknown == "resubmit" or (on_unknown == "auto" and not billed and record.resubmissions < AUTO_RESUBMISSIONS):
        return ResumeDecision("resubmit", reason)
    return ResumeDecision(
        "raise",
        reason,
        OutcomeUnknownError(
            f"Nobody can know whether this fit was created: {reason}. Look at the account's usage. {UNKNOWN_REMEDY}"
        ),
    )


def _after_failure(record: JobRecord, status: FitStatus | None) -> ResumeDecision:
    code = record.error_code if status is None else status.error_code
    words = (record.error if status is None else status.error) or "the server gave no reason"
    if code in RETRYABLE_FIT_CODES:
        return ResumeDecision("submit", f"fit {record.job_id} failed for a reason that passes ({code})")
    named = "fit" if record.job_id is None else f"fit {record.job_id}"
    reason = f"{named} failed: {words}"
    error = FitFailedError(
        f"The {named} failed: {words}. Correct the data or the parameters, then fit again; to fit the same again, pass "
        "reuse='never'.",
        fitted_train_set_id=record.job_id,
        code=code,
        reason=words,
    )
    return ResumeDecision("raise", reason, error)
