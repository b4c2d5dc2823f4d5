"""Routes of the current API up to a fitted model: uploads, fit, fit status (contract sections 1.1 to 1.5)."""

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tabpfn_emulator._emulator import Emulator, account, body_of, emulator_of, json_bytes, note, row_of
from tabpfn_emulator._envelopes import ApiError, invalid, not_found
from tabpfn_emulator._fits import assemble, check_thinking, failure, start_fit
from tabpfn_emulator._models import FileInfo, GetFitStatus, PrepareTestSetUpload, PrepareTrainSetUpload, read_fit
from tabpfn_emulator._store import Fit, Upload

_CHUNK_BYTES = 64 * 1024**2
_RUNNING: set["asyncio.Task[None]"] = set()


def _required_headers(emulator: Emulator) -> dict[str, str]:
    # Both are headers that Google Cloud Storage signs and enforces.
    return {
        "content-type": "application/octet-stream",
        "x-goog-content-length-range": f"0,{emulator.settings.dataset_max_size_bytes}",
    }


def _parts(emulator: Emulator, info: FileInfo) -> int:
    if emulator.settings.upload_parts is not None:
        return emulator.settings.upload_parts
    return max(1, math.ceil((info.size_bytes or 0) / _CHUNK_BYTES)) if info.use_chunks else 1


def _check_size(emulator: Emulator, files: dict[str, FileInfo]) -> None:
    largest = emulator.settings.dataset_max_size_bytes
    for name, info in files.items():
        if info.size_bytes is not None and info.size_bytes > largest:
            raise invalid(f"{name}: {info.size_bytes} bytes exceed the limit of {largest} bytes.")


def _upload_info(request: Request, upload: Upload, name: str) -> dict[str, Any]:
    emulator = emulator_of(request)
    headers = _required_headers(emulator)
    signed = [
        emulator.signed_url(str(request.base_url), "PUT", f"/storage/{upload.upload_id}/{name}/{part}", headers)
        for part in range(upload.files[name].parts)
    ]
    return {
        "signed_urls": [url for url, _ in signed],
        "expires_at": min(expires_at for _, expires_at in signed),
        "required_headers": headers,
    }


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
    parts = {name: _parts(emulator, info) for name, info in files.items()}
    upload = emulator.store.add_upload(owner, files, parts, fitted_id, description)
    note(request, **{f"{kind}_set_upload_id": upload.upload_id})
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
            "x_train_info": _upload_info(request, upload, "x_train"),
            "y_train_info": _upload_info(request, upload, "y_train"),
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
    return JSONResponse(
        {"test_set_upload_id": upload.upload_id, "x_test_info": _upload_info(request, upload, "x_test")}
    )


async def _accept_fit(request: Request, *, flat_allowed: bool) -> tuple[Fit, "asyncio.Task[None]"]:
    emulator = emulator_of(request)
    owner = account(request)
    plan = read_fit(await json_bytes(request), flat_allowed=flat_allowed)
    check_thinking(plan)
    upload = emulator.store.upload(owner, plan.train_set_upload_id, "train")
    note(request, train_set_upload_id=upload.upload_id)
    paths = await assemble(emulator, upload)
    fit, task = start_fit(emulator, owner, plan, request.url.path, upload, paths)
    note(request, fitted_train_set_id=fit.fitted_train_set_id)
    row = row_of(request.scope)
    _RUNNING.add(task)
    task.add_done_callback(_RUNNING.discard)
    # The fit's charge belongs to the request that made it, also when nobody waits for the answer any more.
    task.add_done_callback(lambda _: row.update(charge=fit.charge))
    return fit, task


async def fit(request: Request) -> Response:
    """Fit and wait for it; a long fit streams whitespace before its JSON (contract section 1.3)."""
    emulator = emulator_of(request)
    accepted, task = await _accept_fit(request, flat_allowed=True)
    # Shielded by asyncio.wait: a caller who hangs up does not end the fit, as on the real service.
    done, _ = await asyncio.wait({task}, timeout=emulator.settings.keepalive_after_secs)
    if done:
        if accepted.status == "failed":
            raise failure(accepted)
        return JSONResponse(_fit_answer(accepted))
    return StreamingResponse(_keepalive(emulator, accepted, task), media_type="application/json")


async def _keepalive(emulator: Emulator, accepted: Fit, task: "asyncio.Task[None]") -> AsyncIterator[bytes]:
    while not task.done():
        yield b" "
        await asyncio.wait({task}, timeout=emulator.settings.keepalive_every_secs)
    if accepted.status == "failed":
        # The status line is long gone: the failure travels inside the 200 (contract 1.0, envelope D).
        answer: dict[str, Any] = {
            "_streamed_error": True,
            "message": accepted.error,
            "error_code": accepted.error_code,
        }
    else:
        answer = _fit_answer(accepted)
    yield json.dumps(answer).encode()


def _fit_answer(accepted: Fit) -> dict[str, Any]:
    return {
        "fitted_train_set_id": accepted.fitted_train_set_id,
        "status": accepted.status,
        "timings": accepted.timings,
    }


async def submit_fit_job(request: Request) -> Response:
    """Accept a fit and answer at once with its id (contract section 1.4)."""
    if not emulator_of(request).settings.async_fit:
        account(request)
        raise not_found("The route /tabpfn/submit_fit_job")
    if request.method != "POST":
        raise HTTPException(405)
    accepted, _ = await _accept_fit(request, flat_allowed=False)
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
