"""Bytes on their way to disk: at most about 1 MiB of a body in memory, nothing left of one that ends early."""

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO

import google_crc32c

from tabpfn_emulator._storage.object_stores import Received

WRITE_BYTES = 1 << 20
"""A body is written in pieces of about this many bytes."""
_SCRATCH_SUFFIX = ".incoming"


class TooManyBytesError(Exception):
    """The body is longer than it may be.

    Args:
        size: Bytes that had arrived.
    """

    def __init__(self, size: int) -> None:
        super().__init__(f"{size} bytes had arrived.")
        self.size = size


class _Writer:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._crc32c = google_crc32c.Checksum()
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._size = 0

    def write(self, piece: bytes | bytearray) -> None:
        self._crc32c.update(bytes(piece))
        self._md5.update(piece)
        self._size += self._file.write(piece)

    def received(self) -> Received:
        return Received(self._size, self._crc32c.digest(), self._md5.digest())


def scratch_beside(target: Path) -> Path:
    """Return where to write what becomes `target`, under a name that `remove_unfinished` knows."""
    return target.with_name(f"{target.name}.{uuid.uuid4().hex}{_SCRATCH_SUFFIX}")


async def receive(
    body: AsyncIterator[bytes], target: Path, largest: int, arriving: Callable[[], None] | None = None
) -> Received:
    """Stream a body into a file, which is there once the whole body is.

    Args:
        body: The body, in chunks as they come.
        target: The file, whose folder is made; one that is there already is replaced.
        largest: Most bytes to take.
        arriving: Called on the event loop once the whole body is there, before it takes the target's place; what it
            raises keeps the target as it was.

    Returns:
        Size and checksums, taken on the way.

    Raises:
        TooManyBytesError: When the body is longer than `largest`: it is refused.
        FileNotFoundError: When the folder is gone, because the upload was deleted meanwhile.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = scratch_beside(target)
    size, waiting = 0, bytearray()
    try:
        with scratch.open("wb") as file:
            writer = _Writer(file)
            async for chunk in body:
                size += len(chunk)
                if size > largest:
                    raise TooManyBytesError(size)
                waiting += chunk
                if len(waiting) >= WRITE_BYTES:
                    await asyncio.to_thread(writer.write, waiting)
                    waiting = bytearray()
            writer.write(waiting)
        if arriving is not None:
            arriving()
        scratch.replace(target)
        return writer.received()
    finally:
        scratch.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Remove what a killed process has left of files that were not whole.

    Args:
        folder: Folder of uploads or results, there or not; nothing may be on its way into it, so hold the lock of the
            data folder.
    """
    for scratch in folder.rglob(f"*{_SCRATCH_SUFFIX}"):
        scratch.unlink()
