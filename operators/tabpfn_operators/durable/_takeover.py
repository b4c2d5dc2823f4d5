"""Fits that are taken over: by what a place remembers of them, or by their id alone."""

import time

from tabpfn_assets import FittedModel, JobRecord, TrainSet
from tabpfn_operators._call import Session
from tabpfn_operators.durable._flow import LOOK_SECONDS, finish_fit
from tabpfn_operators.durable._hands import in_hand
from tabpfn_operators.durable._lookup import champion_id
from tabpfn_operators.durable._notes import note_failure, note_submission
from tabpfn_operators.durable._request import FitRequest, Memory, Work, check, identified
from tabpfn_operators.errors import ConfigurationError, FittedModelNotFoundError
from tabpfn_operators.fit import fit_record, get_fit_status
from tabpfn_operators.places import Hold, Place, new_owner
from tabpfn_operators.progress import ProgressCallback
from tabpfn_operators.refit import gone
from tabpfn_operators.resume import brought_forward, resume_decision, superseded_by
from tabpfn_operators.server import model_version_of
from tabpfn_operators.upload import plan, source_ref


async def resume_fit(
    session: Session, memory: Memory, *, timeout: float | None, progress: ProgressCallback
) -> FittedModel:
    """Wait again for the fit that a place remembers, whatever its source has become."""
    place = memory.place
    if place is None:
        raise ConfigurationError("resume_fit looks into a journal: pass journal= (and run_key=).")
    while (record := await session.wire.call(_submitted_record, place)) is None:
        await session.wire.sleep(LOOK_SECONDS)
    model = record.model
    if model is None:
        raise ConfigurationError(f"The record of {place.name} does not hold its model; take it over with adopt_fit.")
    if timeout is None and record.submitted_at is not None and time.time() < (record.deadline_at or 0.0):
        timeout = (record.deadline_at or 0.0) - record.submitted_at
    try:
        status = await get_fit_status(session, model.fitted_train_set_id)
    except FittedModelNotFoundError as error:
        raise gone(model, error, here=True) from None
    if status.status == "failed":
        await session.wire.call(note_failure, place, model.fitted_train_set_id, status.error, status.error_code)
    return await finish_fit(session, model, memory, timeout=timeout, progress=progress)


def _submitted_record(place: Place) -> JobRecord | None:
    """Return the record of a fit that was submitted; None while another is submitting it."""
    held = place.claim is not None and place.claim.holder(place.name) is not None
    record = place.journal.read()
    if record is None or record.phase == "uploaded":
        if held:
            return None
        raise ConfigurationError(f"No fit was submitted in {place.name}; call fit with its source and parameters.")
    # What is in doubt stays so: to submit it again takes the source, which only fit is given.
    decision = resume_decision(
        record,
        record.fingerprint or "",
        record.generation,
        None,
        time.time(),
        billed=True,
        on_unknown="raise",
        alone=place.claim is not None,
    )
    if decision.action == "wait" or (held and record.phase == "intent"):
        return None
    if decision.error is not None:
        raise decision.error
    return record


async def adopt_fit(session: Session, fitted_train_set_id: str, request: FitRequest, memory: Memory) -> FittedModel:
    """Make the record of a fit of which only the id is known, and remember it as if it had been submitted here."""
    check(request, memory)
    await get_fit_status(session, fitted_train_set_id)
    work = await identified(session, request, memory)
    planned = await plan(
        session,
        request.reading,
        request.target,
        task=request.parameters.task,
        features=request.features,
        exclude=request.exclude,
        model_version=model_version_of(request.parameters.config),
    )
    planned.raise_problems()
    train_set = TrainSet(
        train_set_upload_id="",
        task=request.parameters.task,
        target=request.target,
        features=planned.features,
        classes=planned.classes,
        rows=planned.rows or 0,
        source=source_ref(planned.table, planned.rows or 0, work.source),
    )
    model = fit_record(session, train_set, fitted_train_set_id, request.parameters, request.name, request.run)
    parent = await champion_id(session, memory.store, request.name)
    known = {"train_set_upload_id": None, "fingerprint": work.fingerprint, "parent_id": parent}
    model = model.model_copy(update=known)
    place = memory.place
    while place is not None and not await in_hand(
        session, place, new_owner(), lambda hold: _adopted(session, work, place, hold, model)
    ):
        await session.wire.sleep(LOOK_SECONDS)
    return await finish_fit(session, model, memory, timeout=request.timeout, progress=request.progress)


async def _adopted(session: Session, work: Work, place: Place, hold: Hold, model: FittedModel) -> bool:
    record = await session.wire.call(place.journal.read)
    newest = 0 if record is None else record.generation
    base = JobRecord(
        kind="tabpfn_async",
        phase="uploaded",
        fingerprint=work.asked,
        generation=max(newest, place.generation or 0),
        superseded=superseded_by(brought_forward(record, work.asked), work.asked),
    )
    return await session.wire.call(note_submission, hold, base, model, work.request.timeout)
