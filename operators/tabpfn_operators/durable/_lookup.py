"""What is on the server already: the train set of an earlier fit, or the fit itself."""

from tabpfn_assets import FittedModel, JobRecord, TrainSet
from tabpfn_operators._call import Session, log
from tabpfn_operators.durable._request import Work
from tabpfn_operators.errors import FittedModelNotFoundError, TabPFNError
from tabpfn_operators.fit import get_fit_status
from tabpfn_operators.lineage import CHAMPION, LineageStore


def remembered(work: Work, record: JobRecord | None) -> TrainSet | None:
    """Return the train set that this place knows to be on the server, if it is of this source."""
    held = None if record is None else record.train_set
    if held is None or held.source.fingerprint != work.source or held.task != work.request.parameters.task:
        return None
    # As after a 409: should the server not have it any more, it is sent again.
    return held.model_copy(update={"duplicate": True, "bytes_sent": 0})


async def found(session: Session, work: Work) -> FittedModel | None:
    """Return the newest model of this fingerprint that is still on the server."""
    store = work.memory.store
    if store is None:
        return None
    for model in await session.wire.call(store.find, work.fingerprint):
        try:
            status = await get_fit_status(session, model.fitted_train_set_id)
        except FittedModelNotFoundError:
            log.info("Fit %s of equal inputs is gone from the server.", model.fitted_train_set_id)
            continue
        if status.status == "completed":
            log.info("Fit %s of equal inputs is reused.", model.fitted_train_set_id)
            return model if work.request.name is None else model.model_copy(update={"name": work.request.name})
    return None


async def uploaded_before(session: Session, work: Work) -> TrainSet | None:
    """Return the train set of a stored model of the same source and task, whatever its parameters were."""
    store, request = work.memory.store, work.request
    if store is None:
        return None
    for name, version in reversed(await _known(session, store, work.source)):
        model = await _readable(session, store, name, version)
        if model is None:
            continue
        fits = (model.task, model.target, model.api_url) == (
            request.parameters.task,
            request.target,
            session.settings.base_url,
        )
        if fits and model.train_set_upload_id is not None and not model.redacted_fields:
            return TrainSet(
                train_set_upload_id=model.train_set_upload_id,
                task=model.task,
                target=model.target,
                features=model.features,
                classes=model.classes,
                rows=model.rows,
                source=model.source,
                duplicate=True,
            )
    return None


async def _known(session: Session, store: LineageStore, source: str) -> list[tuple[str, str]]:
    try:
        return list(await session.wire.call(store.find_by_source, source))
    except TabPFNError as error:
        log.warning("Whether the source was uploaded before cannot be told: %s", error)
        return []


async def _readable(session: Session, store: LineageStore, name: str, version: str) -> FittedModel | None:
    """Read a record that saves an upload: one that is damaged, erased or not yet written saves none."""
    try:
        if await session.wire.call(store.is_erased, name, version):
            return None
        return await session.wire.call(store.get, name, version)
    except TabPFNError as error:
        log.info("%s %s is passed over: %s", name, version, error)
        return None


async def champion_id(session: Session, store: LineageStore | None, name: str | None) -> str | None:
    """Return the fitted id of the model that a new one will be compared with; None too where it cannot be read."""
    if store is None or name is None:
        return None
    try:
        if await session.wire.call(store.alias, name, CHAMPION) is None:
            return None
        champion: FittedModel = await session.wire.call(store.get, name, f"@{CHAMPION}")
    except TabPFNError as error:
        log.warning("The record will not name the champion of %s: %s", name, error)
        return None
    return champion.fitted_train_set_id
