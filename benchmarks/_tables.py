"""Parquet files of noise for the benchmarks, written in bounded memory."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

TARGET = "y"
KEY = "customer_id"
BYTES_PER_VALUE = 3.17
"""What zstd leaves of one value of `write_noise`: 637 MB of 1,000,000 rows x 201 columns."""
_LEVELS, _UNIT = 600_000, 1 << 20


def write_noise(path: Path, *, rows: int, columns: int, row_groups: int) -> Path:
    """Write columns of floats and a float target in their middle, compressed by zstd.

    All columns of a row group are windows of one array, one row further each: no row group is ever whole in memory,
    and the file is none the smaller for it, since zstd sees one column at a time.

    Args:
        path: The file.
        rows: Rows in all.
        columns: Columns in all, the target included.
        row_groups: Row groups, equal but for the last.

    Returns:
        The path.
    """
    random = np.random.default_rng(20261121)
    names = [f"f{number}" for number in range(columns - 1)]
    names.insert(columns // 2, TARGET)
    schema = pa.schema([(name, pa.float64()) for name in names])
    size = -(-rows // row_groups)
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=False) as writer:
        for first in range(0, rows, size):
            count = min(size, rows - first)
            noise = random.integers(0, _LEVELS, count + columns) / _UNIT
            windows = [pa.array(noise[number : number + count]) for number in range(columns)]
            writer.write_table(pa.table(windows, schema=schema), row_group_size=count)
    return path


def write_keyed(path: Path, *, rows: int, columns: int, row_groups: int) -> Path:
    """Write a column of whole numbers, each one greater than the one before, and columns of floats beside it.

    Args:
        path: The file.
        rows: Rows in all.
        columns: Columns of floats, named `f0`, `f1`...
        row_groups: Row groups, equal but for the last.

    Returns:
        The path.
    """
    random = np.random.default_rng(20261124)
    names = [f"f{number}" for number in range(columns)]
    schema = pa.schema([(KEY, pa.int64()), *((name, pa.float64()) for name in names)])
    size = -(-rows // row_groups)
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=False) as writer:
        for first in range(0, rows, size):
            count = min(size, rows - first)
            noise = random.integers(0, _LEVELS, count + columns) / _UNIT
            windows = [pa.array(noise[number : number + count]) for number in range(columns)]
            keys = pa.array(np.arange(first, first + count))
            writer.write_table(pa.table([keys, *windows], schema=schema), row_group_size=count)
    return path


def write_wide(path: Path, *, columns: int, row_groups: int) -> Path:
    """Write a file that is nearly all footer: 10 rows in each row group.

    Args:
        path: The file.
        columns: Columns, the target included.
        row_groups: Row groups.

    Returns:
        The path.
    """
    return write_noise(path, rows=10 * row_groups, columns=columns, row_groups=row_groups)


def check_space(folder: Path, needed: float) -> None:
    """Refuse to fill a disk.

    Args:
        folder: Where files will be written.
        needed: Bytes of all of them.

    Raises:
        SystemExit: There is less space; the text says what to do.
    """
    free = shutil.disk_usage(folder).free
    if free < needed * 1.1:
        raise SystemExit(
            f"{folder} has {free / 1e9:.1f} GB free and {needed / 1e9:.1f} GB are needed: make --gib smaller, or name "
            "another folder with --folder."
        )
