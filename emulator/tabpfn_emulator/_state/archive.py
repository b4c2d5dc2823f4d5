"""Everything an account has uploaded, as a zip that is made while it is sent."""

import json
import time
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any, Final

from tabpfn_emulator._state.records import Upload

FILE_NAME: Final = "tabpfn_data.zip"
"""What `Content-Disposition` calls the archive."""
_READ_BYTES: Final = 1 << 20


class _Outgoing:
    """A file for zipfile that hands over what was written; it cannot seek, so zipfile never asks it to."""

    def __init__(self) -> None:
        self._waiting = bytearray()

    def write(self, piece: bytes) -> int:
        self._waiting += piece
        return len(piece)

    def flush(self) -> None:
        """Do nothing: there is no file behind."""

    def close(self) -> None:
        """Do nothing: there is no file behind."""

    def take(self) -> bytes:
        taken = bytes(self._waiting)
        self._waiting.clear()
        return taken


def archive(uploads: Sequence[Upload], summary: dict[str, Any]) -> Iterator[bytes]:
    """Yield a zip archive piece by piece, about 1 MiB in memory.

    Args:
        uploads: What goes in, each file as `train_sets/ID/NAME.FORMAT` or `test_sets/ID/NAME.FORMAT`. Of an upload
            that is deleted meanwhile the rest is left out.
        summary: Goes in as `summary.json`.
    """
    outgoing = _Outgoing()
    with zipfile.ZipFile(outgoing, "w", allowZip64=True) as target:
        target.writestr("summary.json", json.dumps(summary, indent=2))
        for upload in uploads:
            for name, file in upload.files.items():
                if not file.complete:
                    continue
                path = f"{upload.kind}_sets/{upload.upload_id}/{name}.{file.info.format}"
                entry = zipfile.ZipInfo(path, time.gmtime(upload.created_at)[:6])
                with target.open(entry, "w", force_zip64=True) as member:
                    for part in range(file.parts):
                        try:
                            source = file.part_path(part).open("rb")
                        except FileNotFoundError:
                            break
                        with source:
                            while piece := source.read(_READ_BYTES):
                                member.write(piece)
                                yield outgoing.take()
    yield outgoing.take()
