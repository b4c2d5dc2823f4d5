"""Find, take up or submit a fit, then wait for it and write down that it was delivered."""

import time

from tabpfn_assets import FitStatus, FittedModel, JobRecord, TrainSet
from tabpfn_operators._call import Session, log
from tabpfn_operators.claims import SKEW_SECONDS
from tabpfn_operators.durable._hands import in_hand
from tabpfn_operators.durable._lookup import champion_id, found, remembered, uploaded_before
from tabpfn_operators.durable._notes import note_delivery, note_failure, note_reuse
from tabpfn_operators.durable._price import Price, with_charge
from tabpfn_operators.durable._request import (
    FitRequest,
    Memory,
    Work,
    check,
    fingerprint_in,
    identified,
    upload,
)
from tabpfn_operators.durable._submission import submit
from tabpfn_operators.errors import (
    ConfigurationError,
    FitFailedError,
    FittedModelNotFoundError,
    StaleUploadError,
    TabPFNError,
)
from tabpfn_operators.fit import OnSubmitted, create_fit, get_fit_status, wait_for_fit
from tabpfn_operators.openlineage import reported_fit
from tabpfn_operators.places import Hold, Place, new_owner
from tabpfn_operators.progress import ProgressCallback
from tabpfn_operators.refit import gone
from tabpfn_operators.resume import (
    ResumeDecision,
    brought_forward,
    generation_of,
    of_job,
    resume_decision,
    superseded_by,
)

#: Seconds between two looks at what another worker is doing.
LOOK_SECONDS = 0.5


async def fit(
    session: Session, request: FitRequest, memory: Memory, *, on_submitted: OnSubmitted | None
) -> FittedModel:
    """Start a fit, finish it, and tell of it where somebody is to be told."""

    async def started_and_finished() -> FittedModel:
        model = await start_fit(session, request, memory)
        if on_submitted is not None:
            await session.wire.call(on_submitted, model)
        return await finish_fit(session, model, memory, timeout=request.timeout, progress=request.progress)

    return await reported_fit(
        session.wire,
        session.emitter,
        started_and_finished,
        source=request.reading.source,
        target=request.target,
        parameters=request.parameters,
        name=request.name,
        api_url=session.settings.base_url,
        run=request.run,
    )


async def start_fit(session: Session, request: FitRequest, memory: Memory) -> FittedModel:
    """Bring a fit to where only waiting is left: found, taken up, or uploaded and submitted."""
    check(request, memory)
    if memory.place is None and memory.reuse != "always":
        log.warning(
            "This fit has no journal: killed, it cannot be taken up again. Pass journal= and run_key= (--journal, "
            "--run-key) to fit once."
        )
        if memory.store is not None:
            await session.wire.call(memory.store.check_writable)
        price = Price(session, request.parameters, request.max_cost)
        return await _created(session, request, memory, price, await upload(session, request, price))
    work = await identified(session, request, memory)
    if memory.place is None:
        earlier = await found(session, work)
        if earlier is not None:
            return earlier
        if memory.store is not None:
            await session.wire.call(memory.store.check_writable)
        train_set = await uploaded_before(session, work) or await upload(session, request, work.price)
        return await _created(session, request, memory, work.price, train_set)
    return await _start_in(session, work, memory.place)


async def finish_fit(
    session: Session, model: FittedModel, memory: Memory, *, timeout: float | None, progress: ProgressCallback
) -> FittedModel:
    """Wait for a fit, then write down the model and that it was delivered."""
    place, store = memory.place, memory.store
    fitted_id = model.fitted_train_set_id
    record = None if place is None else await session.wire.call(place.journal.read)
    record = of_job(record, fitted_id)
    try:
        model = await wait_for_fit(session, model, timeout=timeout, progress=progress)
    except FitFailedError as error:
        if place is not None:
            await session.wire.call(note_failure, place, fitted_id, error.reason, error.code)
        raise
    except FittedModelNotFoundError as error:
        raise gone(model, error, here=place is not None) from None
    delivered = record is not None and record.delivered
    if not delivered:
        model = await with_charge(session, model, None if record is None else record.usage)
    if store is not None:
        await session.wire.call(store.add, model)
    if place is not None and not delivered:
        try:
            await session.wire.call(note_delivery, place, model)
        except TabPFNError as error:
            # The model is in hand; a rerun asks the server once more, or doubts what the journal never took.
            log.warning("The journal did not take that fit %s was delivered: %s", fitted_id, error)
    return model


async def _start_in(session: Session, work: Work, place: Place) -> FittedModel:
    owner = new_owner()
    said = False
    while True:
        record = brought_forward(await session.wire.call(place.journal.read), work.asked)
        decision = _decided(work, place, record, owner=owner)
        if decision.action in {"reattach", "finish", "reuse"} and record is not None:
            model = await _taken_up(session, work, place, record, owner)
            if model is not None:
                return model
            continue
        if decision.error is not None and not (record is not None and record.phase == "intent"):
            raise decision.error
        # A lease in the record may outlive its writer, who has given the claim back; the claim then tells.
        waits = decision.action == "wait" and place.claim is None
        if not waits:
            model = await in_hand(session, place, owner, lambda hold: _submitted(session, work, place, hold))
            if model is not None:
                return model
        if not said:
            said = True
            log.info(
                "%s: another worker may be at this fit; waiting for it, or until %.0f s after its last sign of life.",
                place.name,
                place.lease_seconds + SKEW_SECONDS,
            )
        await session.wire.sleep(LOOK_SECONDS)


def _decided(
    work: Work,
    place: Place,
    record: JobRecord | None,
    *,
    owner: str,
    status: FitStatus | None = None,
    alone: bool = False,
) -> ResumeDecision:
    return resume_decision(
        record,
        work.asked,
        generation_of(record, place.generation, work.memory.reuse),
        status,
        time.time(),
        billed=work.request.parameters.billed,
        on_unknown=work.request.on_unknown,
        owner=owner,
        alone=alone,
    )


async def _taken_up(session: Session, work: Work, place: Place, record: JobRecord, owner: str) -> FittedModel | None:
    """Ask the server about a job that was submitted before; None where it is to be submitted anew."""
    model = record.model
    if model is None or record.job_id is None:
        raise ConfigurationError(f"The record of {place.name} does not hold its model; take it over with adopt_fit.")
    try:
        status = await get_fit_status(session, record.job_id)
    except FittedModelNotFoundError as error:
        if work.memory.reuse != "never":
            raise gone(model, error, here=True) from None
        log.info("%s: fit %s is gone from the server.", place.name, record.job_id)
        await session.wire.call(note_failure, place, record.job_id, error.message, error.code)
        return None
    decision = _decided(work, place, record, owner=owner, status=status)
    log.info("%s: %s.", place.name, decision.reason)
    if status.status == "failed":
        await session.wire.call(note_failure, place, record.job_id, status.error, status.error_code)
        return None
    if work.request.name is not None:
        model = model.model_copy(update={"name": work.request.name})
    if status.status != "completed":
        return model.model_copy(update={"status": "pending"})
    return (
        model
        if model.status == "completed"
        else model.model_copy(update={"status": "completed", "timings": {**model.timings, **status.timings}})
    )


async def _submitted(session: Session, work: Work, place: Place, hold: Hold) -> FittedModel | None:
    """Upload and submit, alone in this place; None where that turns out not to be so."""
    record = brought_forward(await session.wire.call(hold.read), work.asked)
    decision = _decided(work, place, record, owner=hold.owner, alone=place.claim is not None)
    if decision.error is not None:
        raise decision.error
    if decision.action not in {"submit", "resubmit"}:
        return None
    log.info("%s: %s.", place.name, decision.reason)
    base = _begun(work, place, record, resubmitted=decision.action == "resubmit")
    if work.memory.reuse == "always" and (earlier := await found(session, work)) is not None:
        await session.wire.call(note_reuse, hold, base, earlier)
        return earlier
    if work.memory.store is not None:
        await session.wire.call(work.memory.store.check_writable)
    base = base.model_copy(update={"train_set": remembered(work, record) or await uploaded_before(session, work)})
    if base.train_set is None:
        base = base.model_copy(update={"train_set": await upload(session, work.request, work.price)})
        if not await session.wire.call(hold.settle, base):
            return None
        await session.wire.call(hold.doubt_if_lost, base)
    return await submit(session, work, hold, base)


def _begun(work: Work, place: Place, record: JobRecord | None, *, resubmitted: bool) -> JobRecord:
    """Make the record with which a submission begins."""
    same = record is not None and record.fingerprint == work.asked and record.phase in {"uploaded", "intent"}
    before = record.resubmissions if same and record is not None else 0
    return JobRecord(
        kind=work.request.kind,
        phase="uploaded",
        fingerprint=work.asked,
        generation=generation_of(record, place.generation, work.memory.reuse),
        resubmissions=before + resubmitted,
        superseded=superseded_by(record, work.asked),
    )


async def _created(
    session: Session, request: FitRequest, memory: Memory, price: Price, train_set: TrainSet
) -> FittedModel:
    """Submit without a journal; upload and submit once more where the server's own copy turns out useless."""
    lineage = {"parent_id": await champion_id(session, memory.store, request.name)}

    async def create(train_set: TrainSet) -> FittedModel:
        await price.check(rows=train_set.rows, columns=len(train_set.features))
        model = await create_fit(
            session,
            train_set,
            parameters=request.parameters,
            name=request.name,
            run=request.run,
            on_unknown=request.on_unknown,
            streamed=request.streamed,
        )
        fingerprint = await fingerprint_in(session, train_set.source, request.parameters)
        return model.model_copy(update={"fingerprint": fingerprint, "estimated_cost": price.estimated} | lineage)

    try:
        return await create(train_set)
    except StaleUploadError as error:
        log.warning("%s Doing so once.", error.message)
        return await create(await upload(session, request, price, force_reupload=True))
