"""Accepting and running fits: the work in threads, never on the event loop; what was accepted survives a restart."""

import asyncio
import dataclasses
import time
import uuid
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.requests import Request

from tabpfn_emulator._bodies.requests import FitPlan
from tabpfn_emulator._books.billing import charge, check_quota
from tabpfn_emulator._books.limits import model_limits, price, version_of
from tabpfn_emulator._emulator import Emulator, account, emulator_of, note, row_of
from tabpfn_emulator._envelopes import ApiError, DataError, invalid
from tabpfn_emulator._learning.thinking import thinking_duration
from tabpfn_emulator._state.records import Fit, StoredFile, Upload

if TYPE_CHECKING:
    from tabpfn_emulator._learning.model import Learned

DEFAULT_N_ESTIMATORS = 8
LEGACY_FIT = "/v1/fit"
"""The route whose train set comes with the fit, and goes with one that fails."""


def check_thinking(plan: FitPlan) -> None:
    """Refuse thinking where the API has none (contract section 4.4).

    Raises:
        ApiError: 422 for models before v3, and for group and time columns that exclude each other.
    """
    if plan.thinking is None:
        return
    version = version_of(plan.config.get("model_path"))
    if version.startswith("v2"):
        raise invalid(f"Thinking needs model v3 or later; the fit asks for {version}.")
    if plan.thinking.get("group_col") and plan.thinking.get("time_col"):
        raise invalid("thinking_config: group_col and time_col exclude each other.")
    if plan.thinking.get("group_time_col") and not plan.thinking.get("group_col"):
        raise invalid("thinking_config: group_time_col needs group_col.")


async def assemble(emulator: Emulator, upload: Upload) -> dict[str, Path]:
    """Return the files of an upload, checked against what was announced; once, unless more arrives.

    Raises:
        ApiError: 422 when bytes are missing, or size or hash differ: upload again.
    """
    if not upload.complete:
        raise invalid(f"The upload {upload.upload_id} is not complete: not every part has arrived.")
    async with upload.checking:
        while not upload.checked:
            arrivals = upload.arrivals
            for file in upload.files.values():
                await emulator.in_worker(file.assemble)
            upload.checked_arrivals = arrivals
    return {name: file.whole for name, file in upload.files.items()}


async def accept_fit(
    request: Request, plan: FitPlan, draft: Upload | None = None, description: str | None = None
) -> tuple[Fit, asyncio.Task[Fit]]:
    """Accept a fit, charge it and begin to work on it.

    Args:
        request: The request that asks for it; that it is not one too many was checked.
        plan: What is asked.
        draft: The train set, where it comes with the fit: it is there from the moment the fit is.
        description: The caller's words about a draft.

    Returns:
        The pending fit, and the task that returns it once it has ended.

    Raises:
        ApiError: 401, 404 or 422 when the request is not right, 429 when the pool is too small.
    """
    emulator, owner = emulator_of(request), account(request)
    upload = draft or emulator.store.upload(owner, plan.train_set_upload_id, "train")
    note(request, train_set_upload_id=upload.upload_id)
    await assemble(emulator, upload)
    cost = await _cost(emulator, plan, upload)
    if draft is None:
        # It may have been deleted while its bytes were checked.
        emulator.store.upload(owner, upload.upload_id, "train")
    if not upload.checked:
        raise invalid(f"Bytes of the upload {upload.upload_id} arrived while it was read: ask again.")
    check_quota(request, cost)
    fault = emulator.faults.take_for_fit(request.url.path)
    now = time.time()
    seconds = max(emulator.settings.fit_seconds, thinking_duration(plan, emulator.settings.time_scale))
    fit = Fit(
        fitted_train_set_id=str(uuid.uuid4()),
        account=owner,
        plan=plan,
        route=request.url.path,
        seq=row_of(request.scope)["seq"],
        creation=0,
        limits=model_limits(emulator.settings.limits)[version_of(plan.config.get("model_path"))],
        mode=emulator.settings.predict,
        backend=emulator.settings.backend,
        ready_at=None if fault is not None and fault.kind == "endless_fit" else now + seconds,
        doomed=(fault.error, fault.error_code) if fault is not None and fault.kind == "fail_fit" else None,
        created_at=now,
        charge=cost,
    )
    with emulator.database.transaction():
        if draft is not None:
            emulator.store.add(draft, description)
        creation = charge(
            request,
            "fit_created",
            cost,
            fitted_train_set_id=fit.fitted_train_set_id,
            train_set_upload_id=upload.upload_id,
        )
        fit = dataclasses.replace(fit, creation=creation)
        emulator.store.seal(upload)
        emulator.store.add_fit(fit)
    return fit, emulator.begin(_work(emulator, fit))


def resume_fits(emulator: Emulator) -> None:
    """Work on the fits again that an earlier process has accepted and not ended; call it on the event loop."""
    for fit in emulator.store.fits():
        if fit.status == "pending":
            emulator.begin(_work(emulator, fit))


async def _work(emulator: Emulator, fit: Fit) -> Fit:
    if fit.ready_at is None:
        await asyncio.Event().wait()
        return fit
    started = time.monotonic()
    model: Learned | None = None
    error, error_code = fit.doomed or ("", "REQUEST_VALIDATION_ERROR")
    if fit.doomed is None:
        try:
            model = await emulator.model_of(fit)
        except (ApiError, DataError) as problem:
            error = str(problem)
        except Exception as problem:  # whatever goes wrong must end the fit, or clients would poll for ever
            error = f"{type(problem).__name__}: {problem}"
    worked = time.monotonic() - started
    await asyncio.sleep(max(0.0, fit.ready_at - time.time()))
    timings = {
        "elapsed_s": time.time() - fit.created_at,
        "queue_wait_s": 0.0,
        "train_set_transform_s": 0.0,
        "fit_s": worked,
    }

    def end() -> Fit:
        change = partial(emulator.store.change_fit, fit.fitted_train_set_id, timings=timings)
        if model is None:
            emulator.journal.refund(fit.creation)
            failed = change(status="failed", error=error, error_code=error_code, charge=0)
            if fit.route == LEGACY_FIT:
                # Nobody was told the id of its upload, which is gone already where all of the account was deleted.
                with suppress(ApiError):
                    emulator.store.delete(fit.account, fit.plan.train_set_upload_id)
            return failed
        if model.note:
            emulator.journal.remark(fit.seq, model.note)
        return change(status="completed", train_rows=model.rows, sampled_rows=model.sampled_rows)

    return await emulator.commit(end)


def failure(fit: Fit) -> ApiError:
    """Return how the synchronous route reports a failed fit."""
    code = fit.error_code or "USER_ERROR"
    status = 422 if code == "REQUEST_VALIDATION_ERROR" else 500
    return ApiError(status, code, fit.error or "The fit failed.")


async def _cost(emulator: Emulator, plan: FitPlan, upload: Upload) -> int:
    # Standard fits are free (contract section 4.2).
    if plan.thinking is None:
        return 0
    file = upload.files["x_train"]
    try:
        rows, columns = await emulator.in_worker(_shape, file)
    except DataError:
        return 0  # the fit is accepted and fails, as on the real service, and a failed fit is free
    return price(
        "thinking_fit",
        train_rows=rows,
        test_rows=0,
        columns=columns,
        n_estimators=plan.config.get("n_estimators") or DEFAULT_N_ESTIMATORS,
        version=version_of(plan.config.get("model_path")),
        effort=plan.thinking.get("effort"),
    )


def _shape(file: StoredFile) -> tuple[int, int]:
    from tabpfn_emulator._learning.tables import count_rows

    return count_rows(file.whole, file.info.format)
