"""The storage host behind the signed URLs (contract sections 1.2 and 3). Knows URLs, not tokens."""

import asyncio
import time
import uuid
from pathlib import Path

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tabpfn_emulator._emulator import emulator_of, note, row_of
from tabpfn_emulator._envelopes import StorageError

_WRITE_BYTES = 1 << 20
_METHODS = ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"]


def _check_signature(request: Request) -> None:
    # The undecoded path is what was signed: no encoded slash can lead to another file.
    raw_path = request.scope.get("raw_path") or request.url.path.encode()
    emulator_of(request).signer.check(
        request.method, raw_path.decode("latin-1"), request.query_params, request.headers, time.time()
    )


async def put_part(request: Request) -> Response:
    """Take one part of a file, streamed to disk."""
    _check_signature(request)
    upload = emulator_of(request).store.storage_upload(request.path_params["upload_id"])
    if upload is None:
        raise StorageError(404, "NoSuchBucket", "The upload was deleted.")
    row_of(request.scope)["account"] = upload.account
    note(request, **{f"{upload.kind}_set_upload_id": upload.upload_id}, file=request.path_params["name"])
    target = upload.files[request.path_params["name"]].part_path(int(request.path_params["part"]))
    largest = int(request.headers["x-goog-content-length-range"].split(",")[1])
    await _receive(request, target, largest)
    return Response(headers={"ETag": f'"{uuid.uuid4().hex}"'})


async def _receive(request: Request, target: Path, largest: int) -> None:
    scratch = target.with_name(f"{target.name}.{uuid.uuid4().hex}")
    received, waiting = 0, bytearray()
    try:
        with scratch.open("wb") as file:
            async for chunk in request.stream():
                received += len(chunk)
                if received > largest:
                    raise StorageError(400, "EntityTooLarge", f"More than {largest} bytes.")
                waiting += chunk
                if len(waiting) >= _WRITE_BYTES:
                    await asyncio.to_thread(file.write, bytes(waiting))
                    waiting.clear()
            file.write(waiting)
        scratch.replace(target)
    except ClientDisconnect:
        raise StorageError(400, "IncompleteBody", "The connection was closed before the body had arrived.") from None
    finally:
        scratch.unlink(missing_ok=True)


async def get_download(request: Request) -> Response:
    """Return a prediction that was put behind a `prediction_uri`."""
    _check_signature(request)
    download = emulator_of(request).downloads.get(request.path_params["download_id"])
    if download is None:
        raise StorageError(404, "NoSuchKey", "There is no such object.")
    return JSONResponse(download)


ROUTES = [
    Route("/storage/downloads/{download_id}", get_download, methods=_METHODS),
    Route("/storage/{upload_id}/{name}/{part:int}", put_part, methods=_METHODS),
]
