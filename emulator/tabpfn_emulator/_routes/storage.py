"""The storage host behind the signed URLs (contract sections 1.2 and 3). Knows URLs, not tokens."""

import time
from collections.abc import Callable
from pathlib import Path

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tabpfn_emulator._emulator import Emulator, emulator_of, note
from tabpfn_emulator._storage.incoming import TooManyBytesError, receive
from tabpfn_emulator._storage.object_stores import ObjectStore, bound_on_length
from tabpfn_emulator._storage.signing import SignatureExpiredError, SignatureMismatchError
from tabpfn_emulator._storage.uploads import object_store

_REASONING = {"uploads": "reasoning_upload", "results": "reasoning_job"}
_METHODS = ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"]


def checked(request: Request) -> tuple[ObjectStore, dict[str, str]]:
    """Check the signature of a request.

    Returns:
        The kind of store that answers, and the headers that were signed, names in lower case.

    Raises:
        StorageError: 403 or, where the store does so, 400: the URL is not good for this request.
    """
    emulator, store, now = emulator_of(request), object_store(emulator_of(request)), time.time()
    try:
        signed = _signed_headers(emulator, request, now)
    except SignatureMismatchError:
        raise store.mismatch() from None
    except SignatureExpiredError as problem:
        raise store.expired(problem.expires_at, now) from None
    return store, signed


def _signed_headers(emulator: Emulator, request: Request, now: float) -> dict[str, str]:
    # A header that comes twice is what both lines say, so that no second line can hide behind the first.
    headers = {name: ",".join(request.headers.getlist(name)) for name in request.headers}
    query = request.scope["query_string"].decode("latin-1")
    return emulator.signer.check(request.method, _raw_path(request), query, headers, now)


def _raw_path(request: Request) -> str:
    raw_path: bytes = request.scope.get("raw_path") or request.url.path.encode()
    return raw_path.decode("latin-1")


def owner_of(emulator: Emulator, request: Request) -> str | None:
    """Return whose the thing behind a signed URL is, for the books: no bearer comes with it.

    Args:
        emulator: The emulator that the request has come to.
        request: A request to the storage host, whatever becomes of it.

    Returns:
        None when the URL is not what was signed, or the thing is gone. A URL that has expired still has its owner.
    """
    try:
        _signed_headers(emulator, request, time.time())
    except SignatureMismatchError:
        return None
    except SignatureExpiredError:
        pass
    first, *rest = _raw_path(request).removeprefix("/storage/").split("/")
    if first == "downloads":
        return emulator.documents.owner("download", rest[0])
    if first == "reasoning":
        return emulator.documents.owner(_REASONING[rest[0]], rest[1])
    upload = emulator.store.storage_upload(first)
    return None if upload is None else upload.account


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
