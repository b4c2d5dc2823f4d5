"""X and y as local files of known size.

Rows pass through Arrow batches into a spool file, so memory holds one row group and never a table. What comes out is a
`Body`: a size and bytes that can be read again, which is all an upload needs.
"""

import base64
import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tabpfn_operators.errors import InvalidInputError
from tabpfn_operators.parquet import sent_schema
from tabpfn_operators.tables._source import RowSource

#: Decoded bytes of one row group of the spool: many rows compress better, and fewer row groups need fewer chunks.
ROW_GROUP_BYTES = 48 << 20
#: Where the values of a column chunk are more than this, a dictionary makes it larger and takes twice the time.
_DICTIONARY_BYTES = 32 << 10


@dataclass(frozen=True)
class SpoolFile:
    """A finished local file as a body.

    Args:
        path: The file.
        size: Bytes.
        crc32c: Hash of the bytes as the API wants it (contract 3).
        num_rows: Rows.
    """

    path: Path
    size: int
    crc32c: str
    num_rows: int

    def chunks(self, chunk_size: int, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Open the file anew and yield the bytes of [start, stop)."""
        left = (self.size if stop is None else min(stop, self.size)) - start
        with self.path.open("rb") as file:
            file.seek(start)
            while left > 0 and (chunk := file.read(min(chunk_size, left))):
                left -= len(chunk)
                yield chunk


class Spool:
    """A temporary folder with one Parquet file for each set of columns; use as a context manager.

    Args:
        source: Where rows come from.
        columns: For each file, its columns in order.
        compression: Codec and level of the files; None for the codec's usual level.

    Attributes:
        rows: Rows written so far.
    """

    def __init__(
        self, source: RowSource, *columns: Sequence[str], compression: tuple[str, int | None] = ("zstd", None)
    ) -> None:
        self.source = source
        self.columns = columns
        self.compression = compression
        self.rows = 0
        self._folder: Path | None = None

    def open(self) -> Self:
        """Make the folder.

        Raises:
            InvalidInputError: The temporary folder has less space than the source; set TMPDIR to a larger disk.
        """
        free = shutil.disk_usage(tempfile.gettempdir()).free
        if free < self.source.size:
            raise InvalidInputError(
                f"{self.source.url} is {self.source.size:,} bytes and the temporary folder has {free:,} free; "
                "set TMPDIR to a larger disk."
            )
        self._folder = Path(tempfile.mkdtemp(prefix="tabpfn-"))
        return self

    def close(self) -> None:
        """Remove the folder."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *error: object) -> None:
        self.close()

    def write(self) -> Generator[int, None, None]:
        """Write all files in one pass over the source.

        Yields:
            Rows read so far, after each batch.

        Raises:
            InvalidInputError: No row is left, or the temporary folder is full; the message says what to do.
            SourceChangedError: The source was written to meanwhile; run again.
        """
        every = tuple(dict.fromkeys(name for columns in self.columns for name in columns))
        with told_when_full(self.source.url, lambda: self.rows), contextlib.ExitStack() as stack:
            files = [
                stack.enter_context(SpoolWriter(self._path(index), self.source.schema, columns, self.compression))
                for index, columns in enumerate(self.columns)
            ]
            pending: list[Any] = []
            waiting = 0
            for batch in self.source.batches(every):
                pending.append(batch)
                waiting += batch.nbytes
                self.rows += batch.num_rows
                if waiting >= ROW_GROUP_BYTES:
                    for file in files:
                        file.write(pending)
                    pending.clear()
                    waiting = 0
                yield self.rows
            if not self.rows:
                raise InvalidInputError(
                    f"{self.source.url}: no row is left; is the source empty, or the filter too narrow?"
                )
            for file in files:
                file.write(pending)
        self.source.check_unchanged()

    def files(self) -> tuple[SpoolFile, ...]:
        """Hash the finished files and return them as bodies, in the order of `columns`."""
        return tuple(_finished(self._path(index), self.rows) for index in range(len(self.columns)))

    def _path(self, index: int) -> Path:
        if self._folder is None:
            raise RuntimeError("the spool is not open")
        return self._folder / f"{index}.parquet"


@contextlib.contextmanager
def told_when_full(url: str, rows: Callable[[], int]) -> Iterator[None]:
    """Word the errors of files written here; a source words its own.

    Args:
        url: What the source is called.
        rows: Tells the rows read so far.

    Raises:
        InvalidInputError: The temporary folder takes no more; set TMPDIR to a larger disk.
    """
    try:
        yield
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else type(error).__name__
        raise InvalidInputError(
            f"{url}: the temporary folder takes no more after {rows():,} rows ({why}); set TMPDIR to a larger disk."
        ) from None


class SpoolWriter:
    """One file of the spool; a context manager, so that it is closed whatever happens.

    Args:
        path: The file.
        schema: Arrow schema of the source.
        columns: Its columns that the file has, in order.
        compression: Codec and level; None for the codec's usual level.
    """

    def __init__(self, path: Path, schema: Any, columns: Sequence[str], compression: tuple[str, int | None]) -> None:
        import pyarrow.parquet as pq

        codec, level = compression
        self._schema = sent_schema(schema, [schema.get_field_index(name) for name in columns])
        self._columns = columns
        self._writer = pq.ParquetWriter(
            path,
            self._schema,
            compression=codec,
            compression_level=level,
            dictionary_pagesize_limit=_DICTIONARY_BYTES,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        # What stopped the writing says more than that the footer could not follow.
        with contextlib.suppress(OSError) if kind else contextlib.nullcontext():
            self._writer.close()

    def write(self, batches: Sequence[Any]) -> None:
        """Write record batches as one row group."""
        import pyarrow as pa

        if batches:
            parts = [
                pa.RecordBatch.from_arrays([batch.column(name) for name in self._columns], schema=self._schema)
                for batch in batches
            ]
            table = pa.Table.from_batches(parts)
            self._writer.write_table(table, row_group_size=table.num_rows)


def _finished(path: Path, rows: int) -> SpoolFile:
    import google_crc32c

    checksum = google_crc32c.Checksum()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            checksum.update(chunk)
    return SpoolFile(path, path.stat().st_size, base64.b64encode(checksum.digest()).decode(), rows)
