"""What is kept of a source beside its predictions, in types that Parquet holds."""

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


class KeptRows:
    """Columns that arrive in batches of their own sizes.

    Args:
        batches: Record batches of one schema, at least one.

    Attributes:
        schema: The columns as they are written: categories of text stay categories, others become their values, and
            views become text or bytes.
    """

    def __init__(self, batches: "Iterator[pa.RecordBatch]") -> None:
        import pyarrow as pa

        first = next(batches)
        self.schema = pa.schema([each.with_type(_stored_type(each.type)) for each in first.schema])
        self._batches = batches
        self._ahead = [self._stored(first)]

    def bytes_of_row(self, rows: int, size: int) -> float:
        """About the bytes of a row with its categories written out.

        Args:
            rows: Rows that are looked at, where there are so many.
            size: Bytes that are enough to look at.
        """
        seen, written = 0, 0.0
        for batch in self._ahead:
            seen, written = seen + batch.num_rows, written + _written_bytes(batch)
        while seen < rows and written < size and (batch := next(self._batches, None)) is not None:
            self._ahead.append(self._stored(batch))
            seen, written = seen + batch.num_rows, written + _written_bytes(self._ahead[-1])
        return written / max(seen, 1)

    def take(self, rows: int) -> "list[pa.Array]":
        """Return the next rows, in one piece for each column.

        Raises:
            ValueError: There are fewer.
        """
        import pyarrow as pa

        parts: list[pa.RecordBatch] = []
        while rows:
            batch = self._next()
            if batch is None:
                raise ValueError("the source has fewer rows than were predicted")
            parts.append(batch.slice(0, rows))
            if batch.num_rows > rows:
                self._ahead.insert(0, batch.slice(rows))
            rows -= parts[-1].num_rows
        table = pa.Table.from_batches(parts, schema=self.schema).combine_chunks()
        return [column.chunk(0) if column.num_chunks else pa.nulls(0, column.type) for column in table.columns]

    def check_over(self) -> None:
        """Refuse rows that are left.

        Raises:
            ValueError: There are some.
        """
        if any(batch.num_rows for batch in (*self._ahead, *self._batches)):
            raise ValueError("the source has more rows than were predicted")

    def _next(self) -> "pa.RecordBatch | None":
        if self._ahead:
            return self._ahead.pop(0)
        batch = next(self._batches, None)
        return None if batch is None else self._stored(batch)

    def _stored(self, batch: "pa.RecordBatch") -> "pa.RecordBatch":
        import pyarrow as pa

        columns = [_stored(column, each.type) for column, each in zip(batch.columns, self.schema, strict=True)]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)


def is_storable(field: "pa.Field") -> bool:
    """Tell whether a column can be kept, by doing to no rows what is done to some.

    Args:
        field: The column in its source.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        kind = _stored_type(field.type)
        rows = _stored(pa.nulls(0, field.type), kind)
        pa.concat_arrays([rows, rows]).cast(movable_type(kind)).take(pa.nulls(0, pa.int64()))
        # Not `empty_table`, which imports pandas (40 MiB).
        pq.write_table(
            pa.Table.from_arrays([pa.nulls(0, kind)], schema=pa.schema([field.with_type(kind)])), io.BytesIO()
        )
    except (pa.ArrowException, OSError):
        return False
    return True


def movable_type(kind: Any) -> Any:
    """Return a type of the same values that Arrow can write and take rows of, each with what it holds and nothing else.

    Args:
        kind: An Arrow type; dictionaries in it become their values, views become text or bytes.
    """
    import pyarrow as pa

    def inner(field: "pa.Field") -> "pa.Field":
        return field.with_type(movable_type(field.type))

    if pa.types.is_dictionary(kind):
        return movable_type(kind.value_type)
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        return pa.string() if pa.types.is_string_view(kind) else pa.binary()
    if pa.types.is_struct(kind):
        return pa.struct([inner(kind.field(place)) for place in range(kind.num_fields)])
    if pa.types.is_map(kind):
        return pa.map_(inner(kind.key_field), inner(kind.item_field), kind.keys_sorted)
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(inner(kind.value_field), kind.list_size)
    if pa.types.is_large_list(kind):
        return pa.large_list(inner(kind.value_field))
    return pa.list_(inner(kind.value_field)) if pa.types.is_list(kind) else kind


def _written_bytes(batch: "pa.RecordBatch") -> float:
    """Count a value of a dictionary for each row that has one, not the dictionary for each of its slices."""
    import pyarrow as pa

    size = 0.0
    for column in batch.columns:
        if isinstance(column, pa.DictionaryArray):
            size += column.indices.nbytes + column.dictionary.nbytes * len(column) / max(len(column.dictionary), 1)
        else:
            size += column.nbytes
    return size


def _stored_type(kind: Any) -> "pa.DataType":
    import pyarrow as pa

    types = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    values = movable_type(kind)
    if pa.types.is_dictionary(kind) and any(is_text(values) for is_text in types):
        # Dictionaries of many batches become one, which a narrower index may be too small for.
        return pa.dictionary(pa.int32(), values, kind.ordered)
    return values


def _stored(column: Any, kind: Any) -> "pa.Array":
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        values = _stored(column.dictionary, movable_type(column.type))
        column = pa.DictionaryArray.from_arrays(column.indices, values)
        return _without_null_values(column, kind) if pa.types.is_dictionary(kind) else column.dictionary_decode()
    return column if column.type == kind else column.cast(kind)


def _without_null_values(column: Any, kind: Any) -> "pa.Array":
    """Let nulls be nulls of the rows: Arrow writes none, and unites none, that are values of a dictionary."""
    import numpy as np
    import pyarrow as pa

    values, places = column.dictionary, column.indices.cast(kind.index_type)
    if values.null_count:
        valid = np.from_dlpack(values.is_valid().cast(pa.int8())) != 0  # `to_numpy` would import pandas
        numbers = np.cumsum(valid, dtype=np.int32) - np.int32(1)
        bits = pa.py_buffer(np.packbits(valid, bitorder="little"))
        renumbered = pa.Array.from_buffers(kind.index_type, len(valid), [bits, pa.py_buffer(numbers)])
        values, places = values.drop_null(), renumbered.take(places)
    return pa.DictionaryArray.from_arrays(places, values, ordered=kind.ordered)
