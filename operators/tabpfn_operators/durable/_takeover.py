"""Fits that are taken over: by what a place remembers of them, or by their id alone."""

import time

from tabpfn_assets import FittedModel, JobRecord, SourceRef, TrainSet
from tabpfn_operators._call import Session
from tabpfn_operators.durable._flow import LOOK_SECONDS, finish_fit
from tabpfn_operators.durable._hands import in_hand
from tabpfn_operators.durable._notes import note_failure, note_submission
from tabpfn_operators.durable._request import FitRequest, Memory, Work, check, identified
from tabpfn_operators.errors import ConfigurationError, FittedModelNotFoundError
from tabpfn_operators.fit import fit_record, get_fit_status
from tabpfn_operators.places import Hold, Place, new_owner
from tabpfn_operators.progress import ProgressCallback
from tabpfn_operators.refit import gone
from tabpfn_operators.resume import generation_of, resume_decision
from tabpfn_operators.server import model_version_of
from tabpfn_operators.upload import plan


async def resume_fit(
    session: Session, memory: Memory, *, timeout: float | None, progress: ProgressCallback
) -> FittedModel:
    """Wait again for the fit that a place remembers, whatever its source has become."""
    place = memory.place
    if place is None:
        raise ConfigurationError("resume_fit looks into a journal: pass journal= (and run_key=).")
    record = await session.wire.call(place.journal.read)
    model = _submitted_model(place, record)
    try:
        status = await get_fit_status(session, model.fitted_train_set_id)
    except FittedModelNotFoundError as error:
        raise gone(model, error) from None
    if status.status == "failed":
        await session.wire.call(note_failure, place, model.fitted_train_set_id, status.error, status.error_code)
    return await finish_fit(session, model, memory, timeout=timeout, progress=progress)


def _submitted_model(place: Place, record: JobRecord | None) -> FittedModel:
    if record is None or record.phase == "uploaded":
        raise ConfigurationError(f"No fit was submitted in {place.name}; call fit with its source and parameters.")
    fingerprint = record.fingerprint or ""
    # What is in doubt stays so: to submit it again takes the source, which only fit is given.
    decision = resume_decision(
        record, fingerprint, record.generation, None, time.time(), billed=True, on_unknown="raise", alone=True
    )
    if decision.error is not None:
        raise decision.error
    if record.model is None:
        raise ConfigurationError(f"The record of {place.name} does not hold its model; take it over with adopt_fit.")
    return record.model


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
        source=SourceRef(
            uris=tuple(stored.url for stored in planned.table.objects),
            fingerprint=work.source,
            size_bytes=planned.table.size,
            rows=planned.rows or 0,
            refined=bool(getattr(planned.table, "refinement", "")),
        ),
    )
    model = fit_record(session, train_set, fitted_train_set_id, request.parameters, request.name, request.run)
    model = model.model_copy(update={"train_set_upload_id": None, "fingerprint": work.fingerprint})
    place = memory.place
    while place is not None and not await in_hand(
        session, place, new_owner(), lambda hold: _adopted(session, work, place, hold, model)
    ):
        await session.wire.sleep(LOOK_SECONDS)
    return await finish_fit(session, model, memory, timeout=request.timeout, progress=request.progress)


async def _adopted(session: Session, work: Work, place: Place, hold: Hold, model: FittedModel) -> bool:
    generation = generation_of(await session.wire.call(place.journal.read), place.generation, "run")
    base = JobRecord(kind="tabpfn_async", phase="uploaded", fingerprint=work.asked, generation=generation)
    return await session.wire.call(note_submission, hold, base, model, work.request.timeout)
