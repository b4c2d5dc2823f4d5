"""Reading uploaded files: Parquet and CSV, in batches, never a whole file of features at once."""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tabpfn_emulator._envelopes import DataError

BATCH_ROWS = 16_384
"""Rows of a batch at most."""

_BATCH_CELLS = 500_000
_MIN_BATCH_ROWS = 128
_BUFFER_BYTES = 1 << 16


def count_rows(path: Path, file_format: str) -> tuple[int, int]:
    """Return rows and columns of a file.

    Args:
        path: The file.
        file_format: `parquet` or `csv`.

    Raises:
        DataError: When the file is not what its format says.
    """
    if file_format == "parquet":
        with _parquet(path) as file:
            return file.metadata.num_rows, len(file.schema_arrow)
    columns = len(column_names(path, file_format))
    if columns == 0:
        return 0, 0
    # Only one column is converted, and none of it to numbers.
    return sum(len(chunk) for chunk in _csv(path, BATCH_ROWS, usecols=[0], dtype=str)), columns


def batches(path: Path, file_format: str, wanted: np.ndarray | None = None) -> Iterator[pd.DataFrame]:
    """Yield a file in frames of at most `BATCH_ROWS` rows, fewer for wide ones; columns by position.

    Args:
        path: The file.
        file_format: `parquet` or `csv` (with a header row, contract section 3).
        wanted: Sorted row numbers from 0; None means all rows.

    Raises:
        DataError: When the file is not what its format says.
    """
    columns = len(column_names(path, file_format))
    rows = min(BATCH_ROWS, max(_MIN_BATCH_ROWS, _BATCH_CELLS // max(1, columns)))
    offset = 0
    if file_format == "parquet":
        with _parquet(path) as file:
            for batch in _arrow_batches(file, rows):
                part, offset = _part(wanted, offset, batch.num_rows), offset + batch.num_rows
                if part is None or len(part):
                    # The index that pandas may have noted in the schema is not part of the data.
                    chosen = batch if part is None else batch.take(pa.array(part))
                    yield _by_position(chosen.to_pandas(ignore_metadata=True))
    elif columns:
        for chunk in _csv(path, rows):
            part, offset = _part(wanted, offset, len(chunk)), offset + len(chunk)
            if part is None or len(part):
                yield _by_position(chunk if part is None else chunk.iloc[part])


def column_names(path: Path, file_format: str) -> list[str]:
    """Return the names of a file's columns.

    Raises:
        DataError: When the file is not what its format says.
    """
    if file_format == "parquet":
        with _parquet(path) as file:
            return list(file.schema_arrow.names)
    try:
        with path.open(newline="", encoding="utf-8-sig") as text:
            rows = csv.reader(text)
            header = next(rows, [])
            # pandas would take the first of them for an index.
            if len(next(filter(None, rows), [])) > len(header):
                raise DataError("The file is not readable as csv: rows have more fields than the header.")
            return header
    except (UnicodeDecodeError, csv.Error) as problem:
        raise _unreadable("csv", problem) from problem


def places_of(wanted: Sequence[str], found: Sequence[str]) -> list[int]:
    """Return where each wanted column is among those of a file.

    Args:
        wanted: Names of the columns that a model was fitted on.
        found: Names of the file's columns, in any order.

    Raises:
        DataError: When columns are missing, are too many, or cannot be told apart by their names; the text names them.
    """
    if list(wanted) == list(found):
        return list(range(len(wanted)))
    problems = [
        f"{what} {names}"
        for what, names in (
            ("it lacks", sorted((Counter(wanted) - Counter(found)).elements())),
            ("it has besides", sorted((Counter(found) - Counter(wanted)).elements())),
        )
        if names
    ]
    if problems:
        raise DataError(f"The columns are not those that the model was fitted on: {' and '.join(problems)}.")
    twice = sorted(name for name, count in Counter(wanted).items() if count > 1)
    if twice:
        raise DataError(f"Several columns are named {twice}: give all columns in the order of the train set.")
    return [found.index(name) for name in wanted]


def take_rows(path: Path, file_format: str, wanted: np.ndarray | None) -> pd.DataFrame:
    """Return some rows of a file.

    Args:
        path: The file.
        file_format: `parquet` or `csv`.
        wanted: Sorted row numbers from 0; None means all rows.

    Raises:
        DataError: When the file is not what its format says.
    """
    parts = list(batches(path, file_format, wanted))
    if len(parts) == 1:
        return parts[0].reset_index(drop=True)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _part(wanted: np.ndarray | None, offset: int, rows: int) -> np.ndarray | None:
    if wanted is None:
        return None
    low, high = np.searchsorted(wanted, [offset, offset + rows])
    return wanted[low:high] - offset


def _arrow_batches(file: pq.ParquetFile, rows: int) -> Iterator[pa.RecordBatch]:
    try:
        yield from file.iter_batches(batch_size=rows)
    except (pa.ArrowException, OSError) as problem:
        raise _unreadable("parquet", problem) from problem


def _csv(path: Path, rows: int, **options: Any) -> Iterator[pd.DataFrame]:
    try:
        with pd.read_csv(path, chunksize=rows, low_memory=False, encoding="utf-8-sig", **options) as chunks:
            yield from chunks
    except pd.errors.EmptyDataError:
        return
    except (pd.errors.ParserError, UnicodeDecodeError) as problem:
        raise _unreadable("csv", problem) from problem


def _parquet(path: Path) -> pq.ParquetFile:
    try:
        # Through small buffers: by default pyarrow fetches whole row groups, which may be the whole file.
        return pq.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False)
    except (pa.ArrowException, OSError) as problem:
        raise _unreadable("parquet", problem) from problem


def _unreadable(file_format: str, problem: Exception) -> DataError:
    return DataError(f"The file is not readable as {file_format}: {problem}")


def _by_position(frame: pd.DataFrame) -> pd.DataFrame:
    # Two columns may share a name; positions are unique and are what fit and predict agree on.
    frame.columns = pd.RangeIndex(frame.shape[1])
    return frame
