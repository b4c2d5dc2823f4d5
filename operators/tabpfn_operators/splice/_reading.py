"""A virtual file as pyarrow wants to read it."""

import contextlib
import io
from collections.abc import Iterator, Sequence
from typing import Any

from tabpfn_operators.errors import InvalidInputError
from tabpfn_operators.splice._virtual import VirtualParquet

#: Read-ahead of one column chunk.
_READ_BUFFER = 1 << 20
#: Decoded bytes of one batch, about. Arrow holds four times as much on the way (measured: 16 MiB took 72, 2 take 23).
_BATCH_BYTES = 2 << 20
#: Columns that are read side by side; each holds a read buffer, a page and its dictionary, about 2 MiB. More of them
#: are read in turns, for which row groups wait on disk.
_SIDE_BY_SIDE = 24
#: Decoded bytes of one batch then: Arrow holds few columns of it at a time, and 600 of them take a third less time.
_TURN_BYTES = 8 << 20


class OpenedVirtual(io.RawIOBase):
    """A virtual file opened for reading and seeking.

    Args:
        virtual: The file.
    """

    def __init__(self, virtual: VirtualParquet) -> None:
        super().__init__()
        self._virtual = virtual
        self._position = 0

    def readable(self) -> bool:
        """Say yes."""
        return True

    def seekable(self) -> bool:
        """Say yes."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the position."""
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._virtual.size}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """Read and move on."""
        left = max(0, self._virtual.size - self._position)
        data = self._virtual.read(self._position, left if size is None or size < 0 else min(size, left))
        self._position += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer and move on."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def decoded(virtual: VirtualParquet, columns: Sequence[str]) -> Iterator[Any]:
    """Decode a virtual file batch by batch.

    Args:
        virtual: The file.
        columns: Its columns, in order.

    Yields:
        Arrow record batches.

    Raises:
        InvalidInputError: A page is damaged; write the file again.
        SourceChangedError: A source was written to meanwhile; run again.
        StorageError: The storage did not answer; run again.
    """
    width = max(1, sum(_value_bytes(kind) for kind in virtual.schema.types))
    in_turns = len(columns) > _SIDE_BY_SIDE
    rows = max(1, min(virtual.num_rows, (_TURN_BYTES if in_turns else _BATCH_BYTES) // width))
    with _opened(virtual) as file:
        if in_turns:
            from tabpfn_operators.tables._rowgroups import read_row_groups

            yield from read_row_groups(file, columns, rows)
            return
        import pyarrow.parquet as pq

        opened = pq.ParquetFile(file, pre_buffer=False, buffer_size=_READ_BUFFER)
        for batch in opened.iter_batches(batch_size=rows, columns=list(columns), use_threads=False):
            yield batch.select(list(columns))


@contextlib.contextmanager
def _opened(virtual: VirtualParquet) -> Iterator[OpenedVirtual]:
    """Open a virtual file, and word what goes wrong."""
    import pyarrow as pa

    try:
        with OpenedVirtual(virtual) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        virtual.check_unchanged()
        url, kind = virtual.sources[0].url, type(error).__name__
        others = " (or a part file behind it)" if len(virtual.sources) > 1 else ""
        raise InvalidInputError(
            f"{url}{others} cannot be read to its end ({kind}); if it is damaged, write it again."
        ) from None


def _value_bytes(kind: Any) -> int:
    """Estimate the decoded bytes of a value."""
    try:
        return max(1, int(kind.bit_width) // 8)
    except ValueError:
        return 32
