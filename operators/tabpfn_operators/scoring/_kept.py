"""The kept columns of a shard on this machine.

They are read before it is paid for: afterwards a source that changed, or storage that does not answer, would cost the
prediction.
"""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tabpfn_operators.errors import InvalidInputError
from tabpfn_operators.scoring._part import one_at_a_time

if TYPE_CHECKING:
    import pyarrow as pa

    Batches = Iterator[pa.RecordBatch]


@contextlib.contextmanager
def kept_here(read: "Callable[[], Batches]") -> "Iterator[Callable[[], Batches]]":
    """Copy batches into a temporary file, which goes with the context.

    Args:
        read: Reads the columns from their source.

    Yields:
        What reads the copy, any number of times; it yields nothing where nothing is kept.

    Raises:
        InvalidInputError: The temporary folder is full; set TMPDIR to a larger disk.
        SourceChangedError: As `read` raises it; nothing was sent.
        StorageError: As `read` raises it; nothing was sent.
    """
    with tempfile.TemporaryDirectory(prefix="tabpfn-kept-", ignore_cleanup_errors=True) as place:
        path = Path(place, "kept.arrows")
        with one_at_a_time():
            batches = read()
            first = next(batches, None)
            if first is not None:
                _copy(path, first, batches)
                del first
        yield lambda: _read(path) if path.exists() else iter(())


def _copy(path: Path, first: "pa.RecordBatch", rest: "Batches") -> None:
    import pyarrow as pa

    try:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, first.schema) as writer:
            writer.write_batch(first)
            for batch in rest:
                writer.write_batch(batch)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else type(error).__name__
        raise InvalidInputError(
            f"The temporary folder takes no more of the kept columns ({why}); set TMPDIR to a larger disk. Nothing was "
            "sent."
        ) from None


def _read(path: Path) -> "Batches":
    import pyarrow as pa

    with pa.OSFile(str(path), "rb") as file, pa.ipc.open_stream(file) as reader:
        yield from reader
