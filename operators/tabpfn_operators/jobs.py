"""The life of a long job as pure functions, so that no engine decides for itself when to look again or to give up."""

from dataclasses import dataclass

from tabpfn_assets import FitStatus, FittedModel, JobRecord
from tabpfn_operators.errors import FitFailedError, FitTimeoutError

#: Shortest wait before the first look; a standard fit of a small table is done by then.
FIRST_LOOK_SECONDS = 0.3
#: Wait where the server gives no hint, and the shortest one it can ask for (contract 1.5).
DEFAULT_HINT_SECONDS = 5.0
SHORTEST_HINT_SECONDS = 0.3
LONGEST_JITTER_SECONDS = 30.0


@dataclass(frozen=True)
class FitLook:
    """One look at a fit and what follows from it.

    Args:
        status: What the look showed; `pending` where the server could not be asked.
        wait: Seconds until the next look; None when the fit is completed.
    """

    status: FitStatus
    wait: float | None


def job_of(model: FittedModel, *, timeout_seconds: float, now: float) -> JobRecord:
    """Describe a submitted fit as a job to wait for.

    Args:
        model: The fitted model, pending.
        timeout_seconds: Seconds from its submission until waiting is given up.
        now: Epoch seconds.

    Returns:
        A record small enough for a trigger row; it holds no secret.
    """
    submitted = min(model.created_at.timestamp(), now)
    return JobRecord(
        kind="tabpfn_async",
        phase="submitted",
        job_id=model.fitted_train_set_id,
        submitted_at=submitted,
        deadline_at=submitted + timeout_seconds,
    )


def next_look(job: JobRecord, status: FitStatus, *, now: float, jitter: float) -> float | None:
    """Decide what follows from one look at a fit.

    Args:
        job: The job.
        status: What the look showed.
        now: Epoch seconds.
        jitter: Random number in [0, 1), so that fifty waiters do not wake together.

    Returns:
        Seconds until the next look, never past the deadline; None when the fit is completed.

    Raises:
        FitFailedError: The server reports it failed: correct the data, fit again.
        FitTimeoutError: It is still running at the deadline: wait again for its id with a longer timeout.
    """
    fitted_id = status.fitted_train_set_id
    if status.status == "completed":
        return None
    if status.status == "failed":
        reason = status.error or "the server gave no reason"
        raise FitFailedError(
            f"The fit {fitted_id} failed: {reason}. Correct the data or the parameters, then fit again.",
            fitted_train_set_id=fitted_id,
            code=status.error_code,
            reason=status.error,
        )
    if job.deadline_at is not None and now >= job.deadline_at:
        waited = now - (job.submitted_at or now)
        raise FitTimeoutError(
            f"The fit {fitted_id} is still {status.status} after {waited:,.0f} s. It goes on at the server; wait again "
            "for its record with a longer timeout.",
            fitted_train_set_id=fitted_id,
        )
    hint = DEFAULT_HINT_SECONDS if status.retry_in_secs is None else status.retry_in_secs
    hint = max(hint, SHORTEST_HINT_SECONDS)
    seconds = hint + jitter * min(LONGEST_JITTER_SECONDS, hint / 2)
    # A last look right at the deadline, not a sleep across it.
    return seconds if job.deadline_at is None else max(0.0, min(seconds, job.deadline_at - now))


def completed(model: FittedModel, status: FitStatus) -> FittedModel:
    """Return the record of a fit that a look showed completed.

    Args:
        model: The pending record.
        status: The look.

    Raises:
        ValueError: The look is of another fit, or shows it unfinished: a bug in the caller.
    """
    if status.fitted_train_set_id != model.fitted_train_set_id or status.status != "completed":
        raise ValueError(
            f"{status.fitted_train_set_id} is {status.status}; expected {model.fitted_train_set_id} completed"
        )
    return model.model_copy(update={"status": "completed", "timings": {**model.timings, **status.timings}})
