"""The two ways to ask for a virtual file."""

from collections.abc import Iterable, Sequence

from tabpfn_operators import preflight
from tabpfn_operators.parquet import pandas_index_columns
from tabpfn_operators.sources import Source, find_objects
from tabpfn_operators.splice._parts import PartFiles, open_parts
from tabpfn_operators.splice._virtual import VirtualParquet
from tabpfn_operators.storage import StorageOptions


def splice(
    source: Source,
    columns: Sequence[str] | None = None,
    row_groups: Iterable[int] | None = None,
    *,
    storage_options: StorageOptions | None = None,
) -> VirtualParquet:
    """Plan a Parquet file of some columns and row groups of others, from their footers alone.

    No value is decoded: the new file is byte ranges of the sources and a new footer. Arrow's and pandas' types
    (categories, time zones) are kept; other tools' metadata, page indexes and bloom filters are left out.

    Args:
        source: fsspec URL, list of them, glob, or folder of Parquet files; several must have one schema.
        columns: Top-level columns in the order wanted, nested ones whole; None takes all.
        row_groups: Numbers of row groups in the order wanted, counted from 0 through all files; None takes all.
        storage_options: fsspec options; used, never recorded.

    Returns:
        The file: exact `size`, `schema`, `num_rows`, random access by `read`, re-openable `chunks`.

    Raises:
        CorruptParquetError: A file is damaged or its footer lies; write it again.
        NotSpliceableError: A file is encrypted, or part files differ in their schema; let an upload decode it.
        InvalidInputError: A file, column or row group is not there; correct the name.
        StorageError: The storage did not answer; run again.
    """
    return open_parts(find_objects(source, storage_options)).virtual(columns, row_groups)


def split(
    source: Source,
    target: str,
    features: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    *,
    storage_options: StorageOptions | None = None,
) -> tuple[VirtualParquet, VirtualParquet]:
    """Plan the two files that the API wants, features and target, over the same source (contract 3).

    Args:
        source: fsspec URL, list of them, glob, or folder of Parquet files; several must have one schema.
        target: Column to predict.
        features: Feature columns in order; None takes all but the target, `exclude` and pandas index columns.
        exclude: Columns that stay at home.
        storage_options: fsspec options; used, never recorded.

    Returns:
        Features, and target.

    Raises:
        CorruptParquetError: A file is damaged or its footer lies; write it again.
        NotSpliceableError: A file is encrypted, or part files differ in their schema; let an upload decode it.
        InvalidInputError: A file or column is not there; the message lists what to correct.
        StorageError: The storage did not answer; run again.
    """
    parts = open_parts(find_objects(source, storage_options))
    chosen, problems = preflight.select_features(
        parts.names,
        target=target,
        features=features,
        exclude=exclude,
        index_columns=pandas_index_columns(parts.schema.metadata),
    )
    preflight.raise_problems(parts.url, problems)
    return parts.virtual(chosen), parts.virtual((target,))


__all__ = ["PartFiles", "splice", "split"]
