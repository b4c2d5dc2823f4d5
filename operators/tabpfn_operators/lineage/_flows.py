"""What a store and a server do together: verify, and erase."""

import hashlib
from collections.abc import Sequence
from functools import partial

from tabpfn_assets import public_url
from tabpfn_operators._call import Session
from tabpfn_operators.account import delete_dataset
from tabpfn_operators.errors import ConfigurationError, FittedModelNotFoundError
from tabpfn_operators.fit import get_fit_status
from tabpfn_operators.identity import account_identity
from tabpfn_operators.lineage import LineageStore
from tabpfn_operators.lineage._entries import Erasure, ListedModel, UploadErasure, Verification, VerifiedModel

_DIGITS = 16


async def verify_models(
    session: Session, store: LineageStore, *, name: str | None, version: str | None, repair: bool, concurrency: int
) -> Verification:
    """Ask the server for every model of a store, and the store for its markers and aliases."""
    if concurrency < 1:
        raise ConfigurationError(f"concurrency={concurrency} asks nothing; pass 1 or more.")
    if version is not None and name is None:
        raise ConfigurationError("A version is one of a model; pass its name too.")
    checked = await session.wire.call(partial(store.check, name, repair=repair))
    listed: Sequence[ListedModel] = checked.listed
    if name is not None and version is not None:
        whole = await session.wire.call(store.resolve, name, version)
        listed = [await _one(session, store, name, whole, listed)]
    thunks = [partial(_verified, session, each) for each in listed]
    return Verification(
        store=store.url,
        models=tuple(await session.wire.gather(thunks, concurrency)) if thunks else (),
        problems=checked.problems,
        repaired=checked.repaired,
        unrecorded=tuple(f"{key[0]} {key[1]}" for key in checked.unrecorded),
    )


async def _one(
    session: Session, store: LineageStore, name: str, version: str, listed: Sequence[ListedModel]
) -> ListedModel:
    found = next((each for each in listed if each.version == version), None)
    return found or ListedModel(name, version, await session.wire.call(store.get, name, version))


async def _verified(session: Session, listed: ListedModel) -> VerifiedModel:
    model = listed.model
    state = "unreadable" if model is None else "elsewhere"
    if model is not None and not _held_elsewhere(session, model.api_url):
        status = await _status(session, model.fitted_train_set_id)
        if listed.erased:
            state = "erased" if status is None else "not_erased"
        else:
            state = {"completed": "present", None: "gone"}.get(status, status or "gone")
    return VerifiedModel(
        name=listed.name,
        version=listed.version,
        fitted_train_set_id=model.fitted_train_set_id if model else None,
        state=state,
    )


async def erase_model(
    session: Session,
    store: LineageStore,
    name: str,
    version: str,
    *,
    dry_run: bool,
    force: bool,
    forget_names: bool,
    accept_gone: bool,
) -> Erasure:
    """Delete the training data of a version (contract 1.10)."""
    plan = await session.wire.call(store.plan_erasure, name, version)
    if dry_run:
        return plan
    return await _erase(session, store, plan, force=force, forget_names=forget_names, accept_gone=accept_gone)


async def erase_source(
    session: Session,
    store: LineageStore,
    source: str,
    *,
    dry_run: bool,
    force: bool,
    forget_names: bool,
    accept_gone: bool,
) -> Erasure:
    """Delete all training data from a source (contract 1.10)."""
    plan = await session.wire.call(store.plan_erasure_of, source)
    if dry_run:
        return plan
    return await _erase(session, store, plan, force=force, forget_names=forget_names, accept_gone=accept_gone)


async def _erase(
    session: Session, store: LineageStore, plan: Erasure, *, force: bool, forget_names: bool, accept_gone: bool
) -> Erasure:
    """Carry out a plan, upload by upload; a rerun after a kill does what is left."""
    held = [
        f"{model.name} {model.version} is {model.name}@{alias}"
        for upload in plan.uploads
        for model in upload.models
        for alias in model.aliases
        if not model.erased
    ]
    if held and not force:
        raise ConfigurationError(
            f"{'; '.join(held)}: point the alias to another version first, or pass force=True (--force). "
            "Nothing was deleted."
        )
    done = [
        await _erase_upload(session, store, upload, forget_names=forget_names, accept_gone=accept_gone)
        for upload in plan.uploads
    ]
    return plan.model_copy(update={"uploads": tuple(done), "dry_run": False, "names_forgotten": forget_names})


async def _erase_upload(
    session: Session, store: LineageStore, upload: UploadErasure, *, forget_names: bool, accept_gone: bool
) -> UploadErasure:
    keys = [(model.name, model.version) for model in upload.models]
    if all(model.erased for model in upload.models) and upload.models:
        upload = upload.model_copy(update={"outcome": "gone"})
    elif upload.outcome == "planned":
        upload = await _delete(session, store, upload, accept_gone=accept_gone)
        if upload.outcome in {"deleted", "gone"}:
            proof = _proof(session, upload)
            for key in keys:
                await session.wire.call(partial(store.mark_erased, *key, deleted=upload.deleted, proof=proof))
    if forget_names and upload.outcome in {"deleted", "gone"}:
        for key in keys:
            await session.wire.call(store.forget_names, *key)
    return upload


async def _delete(session: Session, store: LineageStore, upload: UploadErasure, *, accept_gone: bool) -> UploadErasure:
    """Delete an upload at the server, and make sure that what hangs on it is gone.

    A 404 alone says nothing: the upload may be another account's. So it counts only where this account was seen to
    hold a model on it, now or by an earlier call that was killed.
    """
    if _held_elsewhere(session, upload.api_url):
        return upload.model_copy(update={"outcome": "other_api"})
    keys = [(model.name, model.version) for model in upload.models]
    proof = _proof(session, upload)
    held = await _fits_there(session, upload)
    if held:
        await session.wire.call(store.mark_erasing, keys, proof)
    deleted = await delete_dataset(session, str(upload.train_set_upload_id))
    if held and await _fits_there(session, upload):
        outcome = "still_there"
    elif deleted:
        outcome = "deleted"
    elif held or accept_gone or await session.wire.call(store.was_erasing, keys, proof):
        outcome = "gone"
    else:
        outcome = "unknown"
    return upload.model_copy(update={"outcome": outcome, "deleted": deleted})


async def _fits_there(session: Session, upload: UploadErasure) -> bool:
    statuses = [await _status(session, model.fitted_train_set_id) for model in upload.models]
    return any(status is not None for status in statuses)


async def _status(session: Session, fitted_train_set_id: str) -> str | None:
    """Look at a fit once; None where the server does not know it."""
    try:
        return (await get_fit_status(session, fitted_train_set_id)).status
    except FittedModelNotFoundError:
        return None


def _held_elsewhere(session: Session, api_url: str | None) -> bool:
    return api_url is not None and api_url != public_url(session.settings.base_url)


def _proof(session: Session, upload: UploadErasure) -> str:
    account = account_identity(session.settings.account, session.settings.bearer())
    return hashlib.sha256(f"{account} {upload.train_set_upload_id}".encode()).hexdigest()[:_DIGITS]
