"""What is written down of a fit: that it was submitted, has failed, was delivered."""

import time

from tabpfn_assets import FittedModel, JobRecord
from tabpfn_operators._call import log
from tabpfn_operators.errors import FitFailedError, TabPFNError
from tabpfn_operators.places import Hold, Place


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


def note_reuse(hold: Hold, asked: str, generation: int, model: FittedModel) -> None:
    """Write down that a model of another place does for this one."""
    hold.settle(
        JobRecord(
            kind="tabpfn_async",
            phase="completed",
            job_id=model.fitted_train_set_id,
            fingerprint=asked,
            generation=generation,
            submitted_at=model.created_at.timestamp(),
            model=model,
        )
    )


def note_failure(place: Place, job_id: str, words: str | None, code: str | None) -> None:
    """Write down that the server reports a fit as failed."""
    record = place.journal.read()
    if record is not None and record.job_id == job_id:
        place.journal.write(record.model_copy(update={"phase": "failed", "error": words, "error_code": code}))


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
    record = place.journal.read()
    if record is None or not _is_of(record, model):
        return  # a newer generation has begun
    done = record.model_copy(
        update={
            "phase": "completed",
            "job_id": model.fitted_train_set_id,
            "submitted_at": model.created_at.timestamp(),
            "delivered": True,
            "model": model,
            "generation": max(record.generation, place.generation or 0),
        }
    )
    if done != record:
        place.journal.write(done)


def _is_of(record: JobRecord, model: FittedModel) -> bool:
    if record.phase != "intent":
        return record.job_id == model.fitted_train_set_id
    # The journal did not take the id when the fit was submitted; the upload tells that it is the same fit.
    held = record.train_set
    return held is not None and held.train_set_upload_id == model.train_set_upload_id
