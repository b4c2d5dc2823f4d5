"""What a caller is told about an upload: its signed URLs and the headers that must come with them."""

import math
from typing import Any

from starlette.requests import Request

from tabpfn_emulator._bodies.requests import FileInfo
from tabpfn_emulator._emulator import Emulator, emulator_of
from tabpfn_emulator._state.records import Upload
from tabpfn_emulator._storage.object_stores import STORES, ObjectStore

PART_BYTES = 64 * 1024**2
"""Largest part of a file that is uploaded in many, in bytes; a stand-in (the contract says nothing of it)."""
MAX_PARTS = 10_000
"""Most signed URLs of one file."""


def object_store(emulator: Emulator) -> ObjectStore:
    """Return the kind of storage that the emulator plays now."""
    return STORES[emulator.settings.storage]


def parts_of(emulator: Emulator, info: FileInfo) -> int:
    """Return the number of signed URLs for a file, 1 to `MAX_PARTS`.

    Configured (`upload_parts`), or asked for (`use_chunks`), or because the file is large (`chunk_above_bytes`).
    """
    settings = emulator.settings
    if settings.upload_parts is not None:
        return settings.upload_parts
    size, part_bytes = info.size_bytes or 0, PART_BYTES
    if settings.chunk_above_bytes is not None and size > settings.chunk_above_bytes:
        part_bytes = min(part_bytes, settings.chunk_above_bytes)
    elif not info.use_chunks:
        return 1
    return min(MAX_PARTS, max(1, math.ceil(size / part_bytes)))


def upload_info(request: Request, upload: Upload, name: str) -> dict[str, Any]:
    """Return the FileUploadInfo of one file of an upload (contract section 1.1).

    Args:
        request: The request that opened the upload; the URLs are on the host that it has used.
        upload: The upload.
        name: Which of its files.
    """
    emulator = emulator_of(request)
    headers = object_store(emulator).required_headers(emulator.settings.dataset_max_size_bytes)
    signed = [
        emulator.signed_url(str(request.base_url), "PUT", f"/storage/{upload.upload_id}/{name}/{part}", headers)
        for part in range(upload.files[name].parts)
    ]
    return {
        "signed_urls": [url for url, _ in signed],
        "expires_at": min(expires_at for _, expires_at in signed),
        "required_headers": headers,
    }
