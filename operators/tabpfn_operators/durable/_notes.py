"""What is written down of a fit: that it was submitted, has failed, was delivered."""

from tabpfn_assets import FittedModel, JobRecord
from tabpfn_operators._call import log
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


def note_failure(place: Place, job_id: str, words: str | None, code: str | None) -> None:
    """Write down that the server reports a fit as failed."""
    record = place.journal.read()
    if record is not None and record.job_id == job_id:
        place.journal.write(record.model_copy(update={"phase": "failed", "error": words, "error_code": code}))


def note_delivery(place: Place, model: FittedModel) -> None:
    """Write down that a model has reached its caller, so that an unchanged rerun gets the same one."""
    record = place.journal.read()
    if record is None or record.job_id != model.fitted_train_set_id:
        return  # a newer generation has begun, or an earlier model was found in the store
    done = {
        "phase": "completed",
        "delivered": True,
        "model": model,
        "generation": max(record.generation, place.generation or 0),
    }
    if record.model_copy(update=done) != record:
        place.journal.write(record.model_copy(update=done))
