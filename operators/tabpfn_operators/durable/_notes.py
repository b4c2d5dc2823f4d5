"""What is written down of a fit: that it was submitted, has failed, was delivered."""

import time

from tabpfn_assets import FittedModel, JobRecord
from tabpfn_operators._call import log
from tabpfn_operators.errors import FitFailedError, TabPFNError
from tabpfn_operators.places import Hold, Place
from tabpfn_operators.resume import of_job, with_job


def note_submission(hold: Hold, base: JobRecord, model: FittedModel, timeout: float | None) -> bool:
    """Write down the id of a fit; False where another has taken the place over and gone on there."""
    submitted_at = model.created_at.timestamp()
    written = hold.settle(
        base.model_copy(
            update={
                "phase": "submitted",
                "job_id": model.fitted_train_set_id,
                "submitted_at": submitted_at,
                "deadline_at": None if timeout is None else submitted_at + timeout,
                "model": model,
            }
        )
    )
    if not written:
        log.error(
            "Fit %s was submitted, and meanwhile another worker took over: its fit counts, and this one is not used.",
            model.fitted_train_set_id,
        )
    return written


def note_reuse(hold: Hold, base: JobRecord, model: FittedModel) -> None:
    """Write down that a model of another place does for this one."""
    found = {"phase": "completed", "job_id": model.fitted_train_set_id, "model": model}
    hold.settle(base.model_copy(update={**found, "submitted_at": model.created_at.timestamp()}))


def note_failure(place: Place, job_id: str, words: str | None, code: str | None) -> None:
    """Write down that the server reports a fit as failed."""
    newest = place.journal.read()
    job = of_job(newest, job_id)
    if job is not None and job.job_id == job_id:
        failed = job.model_copy(update={"phase": "failed", "error": words, "error_code": code})
        _write(place, with_job(newest, failed))


def note_refusal(hold: Hold, base: JobRecord, error: TabPFNError) -> None:
    """Write down what came of a request that created nothing; a journal that does not take it hides no error."""
    record = base
    if isinstance(error, FitFailedError):
        failed = {"phase": "failed", "error": error.reason or error.message, "error_code": error.code}
        record = base.model_copy(update={**failed, "submitted_at": time.time()})
    try:
        hold.settle(record)
    except TabPFNError as trouble:
        log.warning("The journal did not take that nothing was created: %s", trouble)


def note_delivery(place: Place, model: FittedModel) -> None:
    """Write down that a model has reached its caller, so that an unchanged rerun gets the same one."""
    newest = place.journal.read()
    job = of_job(newest, model.fitted_train_set_id)
    if job is None or job.job_id != model.fitted_train_set_id:
        return  # a newer generation has begun, or the journal never took the id
    done = {"phase": "completed", "delivered": True, "delivered_at": time.time(), "model": model}
    if newest is job:
        done["generation"] = max(job.generation, place.generation or 0)
    _write(place, with_job(newest, job.model_copy(update=done)))


def _write(place: Place, record: JobRecord | None) -> None:
    if record is not None:
        place.journal.write(record)
