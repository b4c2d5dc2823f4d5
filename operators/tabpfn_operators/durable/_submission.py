"""The step that must not happen twice: intent, request, record."""

from tabpfn_assets import FittedModel, JobRecord
from tabpfn_operators._call import Session, log
from tabpfn_operators.durable._lookup import champion_id
from tabpfn_operators.durable._notes import note_refusal, note_submission
from tabpfn_operators.durable._request import Work, upload
from tabpfn_operators.errors import OutcomeUnknownError, StaleUploadError, TabPFNError
from tabpfn_operators.fit import create_fit
from tabpfn_operators.places import Hold
from tabpfn_operators.resume import AUTO_RESUBMISSIONS, UNKNOWN_REMEDY, was_not_carried_out

#: Waits between attempts to write down the id of a fit: without it a rerun must doubt that there is one.
RECORD_AGAIN_SECONDS = (0.5, 2.0, 8.0)


async def submit(session: Session, work: Work, hold: Hold, base: JobRecord) -> FittedModel | None:
    """Write the intent, send the request, write what came of it; send it again where that is allowed."""
    parent = await champion_id(session, work.memory.store, work.request.name)
    once = work.request.on_unknown == "auto" and base.resubmissions >= AUTO_RESUBMISSIONS
    again = {"stale": False, "unknown": work.request.on_unknown == "raise" or once}
    doubt: OutcomeUnknownError | None = None
    while True:
        intended, train_set = await _intended(session, work, hold, base), base.train_set
        if intended is None or train_set is None:
            break
        base = intended
        try:
            model = await create_fit(
                session,
                train_set,
                parameters=work.request.parameters,
                name=work.request.name,
                run=work.request.run,
                on_unknown="raise",
                streamed=work.request.streamed,
            )
        except StaleUploadError as error:
            await session.wire.call(hold.settle, base.model_copy(update={"train_set": None}))
            if again["stale"]:
                raise
            again["stale"] = True
            log.warning("%s Doing so once.", error.message)
            base = base.model_copy(
                update={"train_set": await upload(session, work.request, work.price, force_reupload=True)}
            )
            continue
        except OutcomeUnknownError as error:
            if again["unknown"] or (work.request.parameters.billed and work.request.on_unknown == "auto"):
                raise OutcomeUnknownError(f"{error.message} {UNKNOWN_REMEDY}", trace_id=error.trace_id) from None
            again["unknown"], doubt = True, error
            log.warning("%s Sending it once more (on_unknown=%s).", error.message, work.request.on_unknown)
            base = base.model_copy(update={"resubmissions": base.resubmissions + 1})
            continue
        except TabPFNError as error:
            if was_not_carried_out(error):
                await session.wire.call(note_refusal, hold, base, error)
            raise
        model = model.model_copy(
            update={
                "fingerprint": work.fingerprint,
                "possible_orphans": base.resubmissions,
                "estimated_cost": work.price.estimated,
                "parent_id": parent,
            }
        )
        return model if await recorded(session, hold, base, model, work.request.timeout) else None
    if doubt is not None:
        raise doubt
    return None


async def _intended(session: Session, work: Work, hold: Hold, base: JobRecord) -> JobRecord | None:
    """Write down that the request is about to be sent; None where the place is in hand no more, and nothing is sent."""
    if base.train_set is None:
        return None
    await work.price.check(rows=base.train_set.rows, columns=len(base.train_set.features))
    base = base.model_copy(update={"usage": await work.price.usage()})
    if not await session.wire.call(hold.confirm):
        return None
    await session.wire.call(hold.intend, base.model_copy(update={"phase": "intent"}))
    # A process that was stopped while it wrote may have written over what another did since: its intent stays.
    return base if await session.wire.call(hold.confirm) else None


async def recorded(session: Session, hold: Hold, base: JobRecord, model: FittedModel, timeout: float | None) -> bool:
    """Write down the id of a fit; False where another has taken the place over, whose fit is then the one that counts.

    A journal that does not take it ends nothing: the fit is there, and going on loses nothing that ending would keep.
    """
    for wait in (*RECORD_AGAIN_SECONDS, None):
        try:
            return await session.wire.call(note_submission, hold, base, model, timeout)
        except TabPFNError as error:
            if wait is None:
                log.error(
                    "Fit %s was submitted, and the journal did not take it: %s Keep the id: adopt_fit takes it over.",
                    model.fitted_train_set_id,
                    error,
                )
            else:
                log.warning("The id of fit %s is written again in %.1f s: %s", model.fitted_train_set_id, wait, error)
                await session.wire.sleep(wait)
    return True
