"""Sources that cannot be spliced: decoded by Arrow in bounded memory, and spooled to disk."""

from collections.abc import Mapping, Sequence
from typing import Any

from tabpfn_operators.errors import InvalidInputError
from tabpfn_operators.storage import StorageOptions
from tabpfn_operators.tables._source import RowSource

_IN_MEMORY = ("DataFrame", "Table", "RecordBatch", "RecordBatchReader")
_FORMATS = {
    "CSV source": (".csv", ".tsv"),
    "JSON source": (".json", ".jsonl", ".ndjson"),
    "ORC source": (".orc",),
    "Feather or Arrow IPC source": (".feather", ".arrow", ".arrows", ".ipc"),
}


def why_not_spliced(
    source: Any,
    *,
    filters: Any = None,
    casts: Any = None,
    recompress: Any = None,
    partition_columns: Sequence[str] = (),
    other: str | None = None,
) -> str | None:
    """Say why a source has to be decoded.

    Args:
        source: URL, sequence of URLs, glob, folder, or a table in memory.
        filters: Row filter asked for.
        casts: Casts asked for.
        recompress: Compression asked for.
        partition_columns: Columns that only folder names tell.
        other: What the splicer found against it, such as part files whose schemas differ.

    Returns:
        One short phrase for a log line, or None when its column chunks can be moved as they are.
    """
    kind = _kind_in_memory(source)
    if kind is not None:
        return f"{kind} source"
    urls = [source] if not isinstance(source, list | tuple) else source
    for url in urls:
        path = str(url).lower().partition("?")[0].removesuffix(".gz")
        for reason, suffixes in _FORMATS.items():
            if path.endswith(suffixes):
                return reason
    asked = [
        ("a row filter", filters),
        ("casts", casts),
        ("recompression", recompress),
        ("hive partition columns", partition_columns),
    ]
    return next((reason for reason, value in asked if _is_asked(value)), other)


def reads_once(source: Any) -> bool:
    """Whether a source gives its rows only once."""
    return _kind_in_memory(source) == "RecordBatchReader"


def _is_asked(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip() not in {"", "null", "[]", "{}"}
    # An Arrow expression has no truth value, and no length.
    return value is not None and (not hasattr(value, "__len__") or len(value) > 0)


def _kind_in_memory(source: Any) -> str | None:
    """Name a table in memory without importing the library that made it."""
    for kind in type(source).__mro__:
        if kind.__module__.partition(".")[0] in {"pandas", "pyarrow"} and kind.__name__ in _IN_MEMORY:
            return kind.__name__ if kind.__name__ != "RecordBatch" else "Table"
    return None


def open_table(
    source: Any,
    *,
    options: StorageOptions | None = None,
    filters: Any = None,
    casts: Mapping[str, Any] | str | None = None,
    reason: str | None = None,
) -> RowSource:
    """Open a source as rows that Arrow decodes in bounded memory.

    Args:
        source: URL, sequence of URLs, glob or folder of Parquet, CSV, JSON lines, ORC, Feather or Arrow IPC files, told
            apart by their suffix (Parquet needs none); or a pandas DataFrame (its index is left out), a pyarrow Table,
            RecordBatch or RecordBatchReader (which is read to its end into a temporary file).
        options: fsspec storage options; never recorded.
        filters: Row filter as DNF lists, the same as JSON text, or a `pyarrow.compute.Expression`; sees the rows after
            the casts.
        casts: Column name to Arrow type text, or the same as JSON text; no value may be changed by a cast.
        reason: Why the source is not spliced; None to find out.

    Returns:
        The rows; a CSV or JSON file is read to its end only by `batches`.

    Raises:
        InvalidInputError: A file is missing, damaged, encrypted or empty; part files do not unify; a filter or cast
            does not fit the columns. The message names the input and the remedy.
    """
    from tabpfn_operators.tables._casts import cast_schema, parse_casts
    from tabpfn_operators.tables._filters import parse_filters
    from tabpfn_operators.tables._parts import PartsSource
    from tabpfn_operators.tables._refined import RefinedSource

    types = parse_casts(casts)
    kind = _kind_in_memory(source)
    base = _stored_rows(source, options, types) if kind is None else _rows_in_memory(source, kind)
    if _is_asked(filters):
        types = {**_without_views(base.schema), **types}
    schema = cast_schema(base.schema, types)
    condition = parse_filters(filters, schema)
    why = reason or why_not_spliced(source, filters=filters, casts=casts) or base.reason
    if base.rows == 0:
        once = kind == "RecordBatchReader"
        remedy = "was it read before? A reader can be read once." if once else "is the step that writes it done?"
        raise InvalidInputError(f"{base.url} holds no rows; {remedy}")
    if isinstance(base, PartsSource) and condition is not None and _is_decided_by_statistics(condition, base, types):
        base = base.where(condition.expression)
    return RefinedSource(base, schema, types, condition, why)


def _without_views(schema: Any) -> dict[str, Any]:
    """Name the types of columns of views, which Arrow can neither compare nor filter (measured with pyarrow 26)."""
    import pyarrow as pa

    once = [one for one in schema if len(schema.get_all_field_indices(one.name)) == 1]
    return {one.name: pa.string() for one in once if str(one.type) == "string_view"}


def _is_decided_by_statistics(condition: Any, base: RowSource, types: Mapping[str, Any]) -> bool:
    """Whether least and greatest value tell of a row group that no row meets a condition.

    Statistics speak of what is stored, not of what a cast makes of it. They leave NaN out, and Arrow does not mind: of
    [1.0, NaN] it says that no value is other than 1 (measured with pyarrow 26).
    """
    import pyarrow.types as pat

    return not any(name in types or pat.is_floating(base.schema.field(name).type) for name in condition.columns)


def _rows_in_memory(source: Any, kind: str) -> RowSource:
    from tabpfn_operators.tables import _memory as memory

    if kind == "DataFrame":
        return memory.open_frame(source)
    return memory.open_stream(source) if kind == "RecordBatchReader" else memory.open_table_in_memory(source)


def _stored_rows(source: Any, options: StorageOptions | None, types: Mapping[str, Any]) -> RowSource:
    from tabpfn_operators._objects import side_by_side
    from tabpfn_operators.sources import find_objects
    from tabpfn_operators.tables._files import open_file
    from tabpfn_operators.tables._parts import join_parts

    objects = find_objects(source, options)
    parts = side_by_side(lambda stored: open_file(stored, types), objects, objects[0].fs)
    folders = [dict(stored.partitions) for stored in objects]
    reason = "hive partition columns" if folders[0] else "part files whose schemas differ"
    return join_parts(parts, folders, reason)
