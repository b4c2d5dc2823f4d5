"""X and y as local files of known size.

Rows pass through Arrow batches into a spool file, so memory holds a batch and never a table. What comes out is a
`Body`: a size and bytes that can be read again, which is all an upload needs.
"""

import base64
import json
import shutil
import tempfile
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabpfn_operators.errors import InvalidInputError
from tabpfn_operators.parquet import ParquetSource, batches, pandas_metadata


@dataclass(frozen=True)
class SpoolFile:
    """A finished local file as a body.

    Args:
        path: The file.
        size: Bytes.
        crc32c: Hash of the bytes as the API wants it (contract 3).
    """

    path: Path
    size: int
    crc32c: str

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
    """

    def __init__(self, source: ParquetSource, *columns: Sequence[str]) -> None:
        self.source = source
        self.columns = columns
        self._folder: Path | None = None

    def open(self) -> "Spool":
        """Make the folder.

        Raises:
            InvalidInputError: The temporary folder has less space than the source; set TMPDIR to a larger disk.
        """
        free = shutil.disk_usage(tempfile.gettempdir()).free
        if free < self.source.stored.size:
            raise InvalidInputError(
                f"{self.source.url} is {self.source.stored.size:,} bytes and the temporary folder has {free:,} free; "
                "set TMPDIR to a larger disk."
            )
        self._folder = Path(tempfile.mkdtemp(prefix="tabpfn-"))
        return self

    def close(self) -> None:
        """Remove the folder."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def write(self) -> Generator[int, None, None]:
        """Write all files in one pass over the source.

        Yields:
            Rows written so far, after each batch.

        Raises:
            SourceChangedError: The source was written to meanwhile; run again.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        every = tuple(dict.fromkeys(name for columns in self.columns for name in columns))
        schemas = [_sent_schema(self.source.schema, columns) for columns in self.columns]
        writers = [pq.ParquetWriter(self._path(i), schema, compression="zstd") for i, schema in enumerate(schemas)]
        rows = 0
        try:
            for batch in batches(self.source, every):
                for writer, schema, columns in zip(writers, schemas, self.columns, strict=True):
                    arrays = [batch.column(name) for name in columns]
                    writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
                rows += batch.num_rows
                yield rows
        finally:
            for writer in writers:
                writer.close()
        self.source.stored.check_unchanged()

    def files(self) -> tuple[SpoolFile, ...]:
        """Hash the finished files and return them as bodies, in the order of `columns`."""
        return tuple(_finished(self._path(index)) for index in range(len(self.columns)))

    def _path(self, index: int) -> Path:
        if self._folder is None:
            raise RuntimeError("the spool is not open")
        return self._folder / f"{index}.parquet"


def _sent_schema(schema: Any, columns: Sequence[str]) -> Any:
    """Build the schema of a file that is sent: only its columns, and pandas metadata that speaks of no other."""
    import pyarrow as pa

    metadata = None
    described = pandas_metadata(schema.metadata)
    if described is not None:
        kept = [c for c in described.get("columns", []) if c.get("name") in columns]
        # Attributes, index names and other tools' metadata may speak of columns that stay at home.
        others: dict[str, object] = {"index_columns": [], "column_indexes": [], "attributes": {}}
        metadata = {b"pandas": json.dumps({**described, **others, "columns": kept}).encode()}
    return pa.schema([schema.field(name) for name in columns], metadata=metadata)


def _finished(path: Path) -> SpoolFile:
    import google_crc32c

    checksum = google_crc32c.Checksum()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            checksum.update(chunk)
    return SpoolFile(path, path.stat().st_size, base64.b64encode(checksum.digest()).decode())
