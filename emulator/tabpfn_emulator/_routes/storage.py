"""The storage host behind the signed URLs (contract sections 1.2 and 3). Knows URLs, not tokens."""

import time
from collections.abc import Callable
from pathlib import Path

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tabpfn_emulator._emulator import emulator_of, note, row_of
from tabpfn_emulator._storage.incoming import TooManyBytesError, receive
from tabpfn_emulator._storage.object_stores import ObjectStore, bound_on_length
from tabpfn_emulator._storage.signing import SignatureExpiredError, SignatureMismatchError
from tabpfn_emulator._storage.uploads import object_store

_METHODS = ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"]


def checked(request: Request) -> tuple[ObjectStore, dict[str, str]]:
    """Check the signature of a request.

    Returns:
        The kind of store that answers, and the headers that were signed, names in lower case.

    Raises:
        StorageError: 403 or, where the store does so, 400: the URL is not good for this request.
    """
    emulator, store, now = emulator_of(request), object_store(emulator_of(request)), time.time()
    # A header that comes twice is what both lines say, so that no second line can hide behind the first.
    headers = {name: ",".join(request.headers.getlist(name)) for name in request.headers}
    raw_path = request.scope.get("raw_path") or request.url.path.encode()
    path, query = raw_path.decode("latin-1"), request.scope["query_string"].decode("latin-1")
    try:
        signed = emulator.signer.check(request.method, path, query, headers, now)
    except SignatureMismatchError:
        raise store.mismatch() from None
    except SignatureExpiredError as problem:
        raise store.expired(problem.expires_at, now) from None
    return store, signed


async def keep(
    request: Request,
    store: ObjectStore,
    signed: dict[str, str],
    target: Path,
    arriving: Callable[[], None] | None = None,
) -> Response:
    """Stream the body of a checked request into a file and acknowledge it.

    Args:
        request: The request.
        store: What `checked` returned.
        signed: What `checked` returned.
        target: The file; its folder is there.
        arriving: Called before the body takes the place of the file; may refuse it.

    Raises:
        StorageError: 400 when the body is too large or ends early, 404 when the folder is deleted meanwhile, 411 when
            the store wants to know the length first. Nothing of the body is left.
    """
    length = request.headers.get("content-length")
    if length is None and store.needs_length:
        raise store.no_length()
    largest = bound_on_length(signed, emulator_of(request).settings.dataset_max_size_bytes)
    if length is not None and int(length) > largest:
        raise store.too_large(int(length), largest)
    try:
        received = await receive(request.stream(), target, largest, arriving)
    except TooManyBytesError as problem:
        raise store.too_large(problem.size, largest) from None
    except ClientDisconnect:
        raise store.incomplete() from None
    except FileNotFoundError:
        raise store.no_bucket() from None
    return Response(headers=store.acknowledgement(received))


async def put_part(request: Request) -> Response:
    """Take one part of a file, streamed to disk."""
    store, signed = checked(request)
    upload = emulator_of(request).store.storage_upload(request.path_params["upload_id"])
    if upload is None:
        raise store.no_bucket()
    name = request.path_params["name"]
    row_of(request.scope)["account"] = upload.account
    note(request, **{f"{upload.kind}_set_upload_id": upload.upload_id}, file=name)
    target = upload.files[name].part_path(int(request.path_params["part"]))

    def arriving() -> None:
        # Once more when the body is there: a fit may have been accepted while it was on its way.
        if upload.sealed:
            raise store.sealed()
        upload.arrivals += 1

    if upload.sealed:
        raise store.sealed()
    return await keep(request, store, signed, target, arriving)


async def get_download(request: Request) -> Response:
    """Return a prediction that was put behind a `prediction_uri`."""
    store, _ = checked(request)
    download = emulator_of(request).documents.get("download", request.path_params["download_id"])
    if download is None:
        raise store.no_key()
    return JSONResponse(download)


async def nothing(request: Request) -> Response:
    """Refuse whatever else is asked of the storage host, in its own words."""
    store, _ = checked(request)
    raise store.no_key()


ROUTES = [
    Route("/storage/downloads/{download_id}", get_download, methods=_METHODS),
    Route("/storage/{upload_id}/{name}/{part:int}", put_part, methods=_METHODS),
]
FALLBACK = Route("/storage/{anything:path}", nothing, methods=_METHODS)
"""Comes after all other routes of the storage host."""
