"""Routes of the current API up to a fitted model: uploads, fit, fit status (contract sections 1.1 to 1.5)."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tabpfn_emulator._bodies.requests import (
    FileInfo,
    GetFitStatus,
    PrepareTestSetUpload,
    PrepareTrainSetUpload,
    read_fit,
)
from tabpfn_emulator._books.billing import charge, check_rate
from tabpfn_emulator._emulator import Emulator, account, body_of, emulator_of, json_bytes, note
from tabpfn_emulator._envelopes import ApiError, invalid, not_found
from tabpfn_emulator._fits import accept_fit, check_thinking, failure
from tabpfn_emulator._state.records import Fit, Upload
from tabpfn_emulator._storage.uploads import parts_of, upload_info


def _check_size(emulator: Emulator, files: dict[str, FileInfo]) -> None:
    largest = emulator.settings.dataset_max_size_bytes
    for name, info in files.items():
        if info.size_bytes is not None and info.size_bytes > largest:
            raise invalid(f"{name}: {info.size_bytes} bytes exceed the limit of {largest} bytes.")


def _open_upload(
    request: Request,
    owner: str,
    files: dict[str, FileInfo],
    *,
    force: bool,
    fitted_id: str | None,
    description: str | None,
) -> Upload:
    emulator = emulator_of(request)
    check_rate(request, "upload")
    _check_size(emulator, files)
    kind = "train" if fitted_id is None else "test"
    duplicate = emulator.store.find_duplicate(
        owner, files, fitted_id, unfinished=emulator.settings.duplicate_unfinished
    )
    if duplicate is not None and not force:
        note(request, **{f"{kind}_set_upload_id": duplicate.upload_id})
        raise ApiError(
            409,
            f"DUPLICATE_{kind.upper()}_SET_UPLOAD",
            f"This {kind} set has been uploaded before.",
            {f"{kind}_set_upload_id": duplicate.upload_id},
        )
    parts = {name: parts_of(emulator, info) for name, info in files.items()}
    with emulator.database.transaction():
        upload = emulator.store.add_upload(owner, files, parts, fitted_id, description)
        charge(request, "upload_created", 0, **{f"{kind}_set_upload_id": upload.upload_id})
    return upload


async def prepare_train_set_upload(request: Request) -> Response:
    """Open the upload of a train set, or answer 409 with the one that has the same bytes (contract section 1.1)."""
    owner = account(request)
    body = await body_of(request, PrepareTrainSetUpload)
    files = {"x_train": body.x_train_info, "y_train": body.y_train_info}
    upload = _open_upload(
        request, owner, files, force=body.force_reupload, fitted_id=None, description=body.description
    )
    return JSONResponse(
        {
            "train_set_upload_id": upload.upload_id,
            "x_train_info": upload_info(request, upload, "x_train"),
            "y_train_info": upload_info(request, upload, "y_train"),
        }
    )


async def prepare_test_set_upload(request: Request) -> Response:
    """Open the upload of a test set for one fitted model (contract section 1.7)."""
    owner = account(request)
    body = await body_of(request, PrepareTestSetUpload)
    fit = emulator_of(request).store.fit(owner, str(body.fitted_train_set_id))
    note(request, fitted_train_set_id=fit.fitted_train_set_id)
    upload = _open_upload(
        request,
        owner,
        {"x_test": body.x_test_info},
        force=body.force_reupload,
        fitted_id=fit.fitted_train_set_id,
        description=None,
    )
    return JSONResponse({"test_set_upload_id": upload.upload_id, "x_test_info": upload_info(request, upload, "x_test")})


async def _accept(request: Request, *, flat_allowed: bool) -> tuple[Fit, asyncio.Task[Fit]]:
    account(request)
    plan = read_fit(await json_bytes(request), flat_allowed=flat_allowed)
    check_thinking(plan)
    check_rate(request, "fit" if plan.thinking is None else "thinking_fit")
    return await accept_fit(request, plan)


async def fit(request: Request) -> Response:
    """Fit and wait for it; a long fit streams whitespace before its JSON (contract section 1.3)."""
    emulator = emulator_of(request)
    _, task = await _accept(request, flat_allowed=True)
    # Shielded by asyncio.wait: a caller who hangs up does not end the fit, as on the real service.
    done, _ = await asyncio.wait({task}, timeout=emulator.settings.keepalive_after_secs)
    if done:
        ended = task.result()
        if ended.status == "failed":
            raise failure(ended)
        return JSONResponse(_fit_answer(ended))
    return StreamingResponse(_keepalive(emulator, task), media_type="application/json")


async def _keepalive(emulator: Emulator, task: asyncio.Task[Fit]) -> AsyncIterator[bytes]:
    while not task.done():
        yield b" "
        await asyncio.wait({task}, timeout=emulator.settings.keepalive_every_secs)
    ended = task.result()
    if ended.status == "failed":
        # The status line is long gone: the failure travels inside the 200 (contract 1.0, envelope D).
        answer: dict[str, Any] = {
            "_streamed_error": True,
            "message": ended.error,
            "error_code": ended.error_code,
        }
    else:
        answer = _fit_answer(ended)
    yield json.dumps(answer).encode()


def _fit_answer(fit: Fit) -> dict[str, Any]:
    return {
        "fitted_train_set_id": fit.fitted_train_set_id,
        "status": fit.status,
        "timings": fit.timings,
    }


async def submit_fit_job(request: Request) -> Response:
    """Accept a fit and answer at once with its id (contract section 1.4)."""
    if not emulator_of(request).settings.async_fit:
        account(request)
        raise not_found("The route /tabpfn/submit_fit_job")
    if request.method != "POST":
        raise HTTPException(405, headers={"Allow": "POST"})
    accepted, _ = await _accept(request, flat_allowed=False)
    return JSONResponse({"fitted_train_set_id": accepted.fitted_train_set_id})


async def get_fit_status(request: Request) -> Response:
    """Tell where a fit is; a failed fit is HTTP 200 with status `failed` (contract section 1.5)."""
    owner = account(request)
    body = await body_of(request, GetFitStatus)
    emulator = emulator_of(request)
    found = emulator.store.fit(owner, str(body.fitted_train_set_id))
    note(request, fitted_train_set_id=found.fitted_train_set_id)
    answer = _fit_answer(found)
    if found.status == "pending":
        answer["timings"] = {"elapsed_s": time.time() - found.created_at}
        if emulator.settings.retry_in_secs is not None:
            answer["retry_in_secs"] = emulator.settings.retry_in_secs
    if found.status == "failed":
        answer |= {"error": found.error, "error_code": found.error_code}
    return JSONResponse(answer)


ROUTES = [
    Route("/tabpfn/prepare_train_set_upload", prepare_train_set_upload, methods=["POST"]),
    Route("/tabpfn/prepare_test_set_upload", prepare_test_set_upload, methods=["POST"]),
    Route("/tabpfn/fit", fit, methods=["POST"]),
    # GET too, so that with `async_fit` off any method is answered 404, as where the route does not exist.
    Route("/tabpfn/submit_fit_job", submit_fit_job, methods=["GET", "POST"]),
    Route("/tabpfn/get_fit_status", get_fit_status, methods=["POST"]),
]
