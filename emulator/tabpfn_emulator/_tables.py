"""Reading uploaded files: Parquet and CSV, in batches, never a whole file of features at once."""

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tabpfn_emulator._envelopes import DataError

BATCH_ROWS = 16_384


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
    rows, columns = 0, 0
    for frame in batches(path, file_format):
        rows, columns = rows + len(frame), frame.shape[1]
    if columns == 0:
        with path.open(newline="", encoding="utf-8") as file:
            columns = len(next(csv.reader(file), []))
    return rows, columns


def batches(path: Path, file_format: str) -> Iterator[pd.DataFrame]:
    """Yield a file in frames of at most `BATCH_ROWS` rows, columns by position.

    Args:
        path: The file.
        file_format: `parquet` or `csv` (with a header row, contract section 3).

    Raises:
        DataError: When the file is not what its format says.
    """
    try:
        if file_format == "parquet":
            with _parquet(path) as file:
                for batch in file.iter_batches(batch_size=BATCH_ROWS):
                    # The index that pandas may have noted in the schema is not part of the data.
                    yield _by_position(batch.to_pandas(ignore_metadata=True))
        else:
            with pd.read_csv(path, chunksize=BATCH_ROWS, low_memory=False) as chunks:
                for chunk in chunks:
                    yield _by_position(chunk)
    except pd.errors.EmptyDataError:
        return
    except (pa.ArrowException, pd.errors.ParserError, UnicodeDecodeError) as problem:
        raise DataError(f"The file is not readable as {file_format}: {problem}") from problem


def column_names(path: Path, file_format: str) -> list[str]:
    """Return the names of a file's columns.

    Raises:
        DataError: When the file is not what its format says.
    """
    if file_format == "parquet":
        with _parquet(path) as file:
            return list(file.schema_arrow.names)
    with path.open(newline="", encoding="utf-8") as file:
        return next(csv.reader(file), [])


def take_rows(path: Path, file_format: str, wanted: np.ndarray | None) -> pd.DataFrame:
    """Return some rows of a file.

    Args:
        path: The file.
        file_format: `parquet` or `csv`.
        wanted: Sorted row numbers from 0; None means all rows.

    Raises:
        DataError: When the file is not what its format says.
    """
    parts, offset = [], 0
    for frame in batches(path, file_format):
        if wanted is None:
            parts.append(frame)
        else:
            low, high = np.searchsorted(wanted, [offset, offset + len(frame)])
            if high > low:
                parts.append(frame.iloc[wanted[low:high] - offset])
        offset += len(frame)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _parquet(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as problem:
        raise DataError(f"The file is not readable as parquet: {problem}") from problem


def _by_position(frame: pd.DataFrame) -> pd.DataFrame:
    # Two columns may share a name; positions are unique and are what fit and predict agree on.
    frame.columns = pd.RangeIndex(frame.shape[1])
    return frame
