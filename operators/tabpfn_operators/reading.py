"""What an upload reads, and how: column chunks moved as bytes where that can be, decoded rows where it cannot."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from tabpfn_operators.errors import InvalidInputError, NotSpliceableError
from tabpfn_operators.sources import Source
from tabpfn_operators.storage import StorageOptions
from tabpfn_operators.tables import open_table, reads_once, why_not_spliced
from tabpfn_operators.tables._source import RowSource

if TYPE_CHECKING:
    from typing_extensions import TypeIs

    from tabpfn_operators.splice._parts import PartFiles

log = logging.getLogger("tabpfn_operators")

#: A pandas DataFrame, or a pyarrow Table, RecordBatch or RecordBatchReader.
Table: TypeAlias = Any
#: DNF lists as `pyarrow.parquet.filters_to_expression` takes them, the same as JSON text, or a
#: `pyarrow.compute.Expression`.
Filters: TypeAlias = Any
#: Column name to Arrow type text, or the same as JSON text.
Casts: TypeAlias = Mapping[str, str] | str
#: Codec, or codec and level.
Compression: TypeAlias = str | tuple[str, int | None]

_CODECS = ("zstd", "snappy", "gzip", "brotli", "lz4")


@dataclass(frozen=True, eq=False)  # tables and Arrow expressions have no truth value
class Reading:
    """A source and what is done to its rows on the way.

    Args:
        source: URL, list of URLs, glob, folder, or a table in memory; never shown, for a URL may hold a secret.
        storage_options: fsspec options; used, never recorded.
        filters: Rows to keep; None keeps all.
        casts: Columns to convert; no value may change by it.
        recompress: Codec and level to write with; None keeps the source's own compression where that can be.
    """

    source: Source | Table = field(repr=False)
    storage_options: StorageOptions | None = field(default=None, repr=False)
    filters: Filters | None = field(default=None, repr=False)
    casts: Casts | None = None
    recompress: Compression | None = None
    _kept: list[RowSource] = field(default_factory=list, init=False, repr=False, compare=False)

    def open(self, *, keep: bool = False) -> RowSource:
        """Read the footers and decide how the rows will be read; the copy of what can be read only once is kept.

        Args:
            keep: Return the same table from now on, so that its identity is what it was at first.

        Returns:
            Part files whose chunks are moved as bytes, or else rows to decode; the log says why.

        Raises:
            InvalidInputError: The source cannot be used; the message says what to correct.
            CorruptParquetError: A file is damaged or its footer lies; write it again.
            StorageError: The storage did not answer; run again.
        """
        read_compression(self.recompress)
        if self._kept:
            return self._kept[0]
        table = self._open()
        if keep or reads_once(self.source):
            self._kept.append(table)
        return table

    def _open(self) -> RowSource:
        reason = why_not_spliced(self.source, filters=self.filters, casts=self.casts, recompress=self.recompress)
        if reason is None:
            from tabpfn_operators.sources import find_objects
            from tabpfn_operators.splice._parts import open_parts

            objects = find_objects(self.source, self.storage_options)
            try:
                # A pattern need not name the suffix of what it finds.
                reason = why_not_spliced([stored.path for stored in objects])
                parts = open_parts(objects) if reason is None else None
            except NotSpliceableError as error:
                reason, parts = error.reason, None
            if parts is not None:
                if parts.rows == 0:
                    raise InvalidInputError(f"{parts.url} holds no rows; is the step that writes it done?")
                return parts
        table = open_table(
            self.source, options=self.storage_options, filters=self.filters, casts=self.casts, reason=reason
        )
        log.info("%s is decoded and spooled to disk, because of: %s.", table.url, reason)
        return table


def is_spliceable(table: RowSource) -> "TypeIs[PartFiles]":
    """Tell part files, whose chunks can be moved, from rows that have to be decoded."""
    return hasattr(table, "virtual")


def read_compression(recompress: Compression | None) -> tuple[str, int | None] | None:
    """Read codec and level, and refuse what no writer knows.

    Args:
        recompress: A codec, or a codec and its level.

    Returns:
        Codec, and level or None; None where nothing is asked for.

    Raises:
        InvalidInputError: The codec is unknown, or the level not one of its own.
    """
    if recompress is None:
        return None
    given: Any = (recompress,) if isinstance(recompress, str) else recompress  # from Python it may be anything
    codec, level = (*given, None)[:2] if isinstance(given, tuple | list) and len(given) in {1, 2} else (None, None)
    if codec not in _CODECS:
        raise InvalidInputError(
            f'recompress is a codec ({", ".join(_CODECS)}) or a codec and its level, for instance ("zstd", 9).'
        )
    if level is None:
        return codec, None
    import pyarrow as pa

    low, high = (pa.Codec.minimum_compression_level, pa.Codec.maximum_compression_level)
    if codec == "snappy" or type(level) is not int or not low(codec) <= level <= high(codec):
        allowed = "none" if codec == "snappy" else f"{low(codec)} to {high(codec)}"
        raise InvalidInputError(f"recompress: {codec} has no level {level!r}; allowed: {allowed}.")
    return codec, level
