"""Predictions as a Parquet file, in bounded memory."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tabpfn_operators.predictions._columns import Columns
from tabpfn_operators.predictions._kept import KeptRows

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

#: Arrow bytes of a row group. Smaller ones make the writer's footer grow: by gigabytes, where each row is one.
ROW_GROUP_BYTES = 8 << 20
#: Rows that are looked at to know how large the rest will be.
_LOOKED_AT = 1024
#: What is kept is text as often as numbers; of numbers a dictionary only costs time and memory (1 MiB each).
_DICTIONARY_BYTES = 32 << 10


def write_parquet(
    columns: Columns,
    file: Any,
    *,
    fitted_train_set_id: str,
    kept: "Iterator[pa.RecordBatch] | None" = None,
) -> "pa.Schema":
    """Write predictions as one Parquet file, what is kept of the source in front of them.

    Args:
        columns: The predictions.
        file: A binary file.
        fitted_train_set_id: The model, kept in the file's own metadata so that the file alone can be traced.
        kept: Columns of the same rows in the same order; None where nothing is kept.

    Returns:
        The schema of the file.

    Raises:
        ValueError: There are more or fewer rows in `kept`.
    """
    rows = RowsToWrite(columns, fitted_train_set_id=fitted_train_set_id, kept=kept)
    with parquet_writer(file, rows.schema) as writer:
        for table in rows.groups():
            writer.write_table(table, row_group_size=table.num_rows)
            del table
    return rows.schema


def parquet_writer(file: Any, schema: "pa.Schema") -> "pq.ParquetWriter":
    """Open a Parquet file of predictions for writing.

    Args:
        file: A binary file, or a path.
        schema: Its columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = [each.name for each in schema if not pa.types.is_floating(each.type) and not pa.types.is_nested(each.type)]
    return pq.ParquetWriter(
        file, schema, compression="zstd", use_dictionary=texts, dictionary_pagesize_limit=_DICTIONARY_BYTES
    )


class RowsToWrite:
    """Predictions and what is kept of the source, as tables of the size of a row group.

    Args:
        columns: The predictions.
        fitted_train_set_id: The model.
        kept: Columns of the same rows in the same order; None where nothing is kept.

    Attributes:
        schema: Columns in order, what is kept in front.
    """

    def __init__(
        self, columns: Columns, *, fitted_train_set_id: str, kept: "Iterator[pa.RecordBatch] | None" = None
    ) -> None:
        import pyarrow as pa

        self._columns = columns
        self._beside = None if kept is None else KeptRows(kept)
        metadata = {"tabpfn.fitted_train_set_id": fitted_train_set_id}
        if columns.borders is not None:
            metadata["tabpfn.borders"] = json.dumps(columns.borders)
        fields = [*(self._beside.schema if self._beside else ()), *columns.schema]
        self.schema = pa.schema(fields, metadata=metadata)

    def groups(self) -> "Iterator[pa.Table]":
        """Yield all rows in order.

        Raises:
            ValueError: There are more or fewer rows in what is kept.
        """
        beside = self._beside
        # No name here holds a group while the next one is made, nor should one of the caller's.
        yield from map(self._group, self._columns.batches(_rows_of_group(self._columns, beside)))
        if beside is not None:
            beside.check_over()

    def _group(self, predicted: "pa.RecordBatch") -> "pa.Table":
        import pyarrow as pa

        kept = self._beside.take(predicted.num_rows) if self._beside else ()
        return pa.Table.from_arrays([*kept, *predicted.columns], schema=self.schema)


def _rows_of_group(columns: Columns, beside: KeptRows | None) -> int:
    looked_at = columns.batch(0, min(_LOOKED_AT, columns.rows))
    of_row = looked_at.nbytes / looked_at.num_rows
    if beside is not None:
        of_row += beside.bytes_of_row(_LOOKED_AT, ROW_GROUP_BYTES)
    return max(1, int(ROW_GROUP_BYTES / max(of_row, 1.0)))
