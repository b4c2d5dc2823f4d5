"""Batches that wait for others: the first in memory, the rest in a nameless temporary file."""

import tempfile
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self
from weakref import finalize

import pyarrow as pa

from tabpfn_operators.errors import InvalidInputError


class Shelf:
    """A place for record batches, until the block ends or nothing refers to it.

    Nothing is left of its file however the process ends.

    Args:
        held_bytes: Bytes that stay in memory; what is beyond goes to disk.
    """

    def __init__(self, held_bytes: int) -> None:
        self._most = held_bytes
        self._held: dict[int, Any] = {}
        self._bytes = 0
        self._disk = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the shelf
        self._close = finalize(self, self._disk.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.clear()
        self._close()

    def joined(self, waiting: Sequence[Sequence[tuple[int, int]]]) -> Iterator[Any]:
        """Take batches of the same rows and different columns, and join each to one.

        Args:
            waiting: For each group of columns, where its batches are.
        """
        for places in zip(*waiting, strict=True):
            taken = [self.take(place) for place in places]
            arrays = [array for batch in taken for array in batch.columns]
            fields = [field for batch in taken for field in batch.schema]
            yield pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))

    def put(self, batch: Any) -> tuple[int, int]:
        """Take a batch in and return where it is.

        Raises:
            InvalidInputError: The temporary folder is full; set TMPDIR to a larger disk.
        """
        if self._bytes + batch.nbytes <= self._most:
            self._bytes += batch.nbytes
            self._held[len(self._held)] = batch
            return len(self._held) - 1, 0
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        message = sink.getvalue()
        start = self._disk.seek(0, 2)
        try:
            self._disk.write(message)
            self._disk.flush()
        except OSError as error:
            raise InvalidInputError(
                f"The temporary folder cannot take what is read ({error.strerror}); set TMPDIR to a larger disk."
            ) from None
        return start, message.size

    def take(self, place: tuple[int, int]) -> Any:
        """Give a batch back; what was in memory can be taken once."""
        start, size = place
        if not size:
            batch, self._held[start] = self._held[start], None
            return batch
        return self.look(place)

    def look(self, place: tuple[int, int]) -> Any:
        """Read a batch and keep it."""
        start, size = place
        if not size:
            return self._held[start]
        self._disk.seek(start)
        return pa.ipc.open_stream(self._disk.read(size)).read_next_batch()
