"""Tables that are in memory already: pandas DataFrames, Arrow tables, Arrow record-batch readers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from tabpfn_operators.errors import InvalidInputError
from tabpfn_operators.storage import StoredObject
from tabpfn_operators.tables._shelf import Shelf

#: Bytes of a batch that is cut from a table, about.
BATCH_BYTES = 16 << 20


@dataclass(frozen=True)
class _InMemory:
    schema: Any = field(repr=False)
    rows: int
    size: int
    url: str

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in order."""
        return tuple(self.schema.names)

    @property
    def reason(self) -> str:
        """Why it is written out and not spliced."""
        return f"{self.url} source"

    @property
    def objects(self) -> tuple[StoredObject, ...]:
        """None: there is no stored object."""
        return ()

    @property
    def digests(self) -> tuple[str, ...]:
        """None: there is no stored object."""
        return ()

    @property
    def batch_rows(self) -> int:
        """Rows of one batch, so that it stays within BATCH_BYTES."""
        return max(1, min(self.rows, BATCH_BYTES * self.rows // max(self.size, 1)))

    def check_unchanged(self) -> None:
        """Do nothing: who hands a table over does not write to it meanwhile."""


@dataclass(frozen=True)
class TableSource(_InMemory):
    """An Arrow table.

    Args:
        table: The table.
    """

    table: Any = field(repr=False)

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """Cut the table into record batches, without copying."""
        yield from self.table.select(list(columns)).to_batches(max_chunksize=self.batch_rows)


def open_table_in_memory(table: Any) -> TableSource:
    """Take an Arrow table or record batch as rows."""
    table = pa.Table.from_batches([table]) if isinstance(table, pa.RecordBatch) else table
    return TableSource(table.schema, table.num_rows, table.nbytes, "Table", table)


@dataclass(frozen=True)
class FrameSource(_InMemory):
    """A pandas DataFrame, without its index.

    Args:
        frame: The frame; its columns have text names.
    """

    frame: Any = field(repr=False)

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """Convert the frame slice by slice."""
        schema = pa.schema([self.schema.field(name) for name in columns])
        selected = self.frame[list(columns)]
        for start in range(0, self.rows, self.batch_rows):
            part = selected.iloc[start : start + self.batch_rows]
            arrays = [_converted(part.iloc[:, i], name, schema.field(i).type) for i, name in enumerate(columns)]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def open_frame(frame: Any) -> FrameSource:
    """Take a pandas DataFrame as rows.

    Args:
        frame: The frame; its index is left out, as `index=False` would.

    Raises:
        InvalidInputError: A column's values have several types, or two columns have one name; the message names it.
    """
    frame = frame.copy(deep=False)
    if frame.columns.nlevels > 1:
        raise InvalidInputError("The DataFrame has columns of several levels; join their names to one level.")
    frame.columns = [str(name) for name in frame.columns]
    twice = sorted(set(frame.columns[frame.columns.duplicated()]))
    if twice:
        raise InvalidInputError(f"The DataFrame has column {twice[0]!r} more than once; rename one of them.")
    try:
        schema = pa.Schema.from_pandas(frame, preserve_index=False)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        for name in frame.columns:
            _converted(frame[name], name, None)
        raise
    size = int(frame.memory_usage(index=False, deep=False).sum())
    return FrameSource(schema, len(frame), size, "DataFrame", frame)


def _converted(values: Any, name: str, kind: Any) -> Any:
    try:
        array = pa.Array.from_pandas(values, type=kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        raise InvalidInputError(
            f"Column {name!r} of the DataFrame has values of more than one type ({values.dtype}); "
            "convert it to one, for instance with astype(str), or leave it out with exclude."
        ) from None
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


@dataclass(frozen=True)
class StreamSource(_InMemory):
    """What a record-batch reader gave, which can be read only once itself.

    Args:
        shelf: Where its batches are.
        places: Where each of them is there.
    """

    shelf: Shelf = field(repr=False)
    places: tuple[tuple[int, int], ...] = field(repr=False)

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """Read the copy."""
        for place in self.places:
            yield self.shelf.look(place).select(list(columns))


def open_stream(reader: Any) -> StreamSource:
    """Read a record-batch reader to its end into a temporary file, so that its rows can be read again.

    Args:
        reader: The reader.

    Raises:
        InvalidInputError: It fails on the way, or the temporary folder is full; set TMPDIR to a larger disk.
    """
    shelf = Shelf(0)  # its file goes with the last reference to it
    places = []
    rows = size = 0
    try:
        for batch in reader:
            if batch.num_rows:
                places.append(shelf.put(batch))
                rows += batch.num_rows
                size += batch.nbytes
    except (pa.ArrowException, OSError) as error:
        raise InvalidInputError(f"The RecordBatchReader failed ({type(error).__name__}); make a new one.") from None
    return StreamSource(reader.schema, rows, size, "RecordBatchReader", shelf, tuple(places))
