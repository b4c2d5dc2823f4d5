"""Stored files as one table: part files whose schemas unify, columns that folder names tell, row groups ruled out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from tabpfn_operators._objects import check_all_unchanged
from tabpfn_operators.errors import InvalidInputError
from tabpfn_operators.parquet import ParquetSource
from tabpfn_operators.storage import StoredObject
from tabpfn_operators.tables._source import RowSource
from tabpfn_operators.tables._unify import aligned, unify

_INT32 = range(-(2**31), 2**31)


@dataclass(frozen=True)
class PartsSource:
    """Rows of stored files, one after the other.

    Args:
        parts: The files as rows.
        constants: For each file, the values its folder names tell.
        schema: Schema of all.
        reason: Why they are decoded.
        condition: Rows that do not meet it may be left out, where a file's statistics or path tell.
    """

    parts: tuple[RowSource, ...]
    constants: tuple[Mapping[str, Any], ...] = field(repr=False)
    schema: Any = field(repr=False)
    reason: str
    condition: Any = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """The first file's URL without secrets, and how many more there are."""
        more = len(self.parts) - 1
        return self.parts[0].url + (f" (and {more} more)" if more else "")

    @property
    def names(self) -> tuple[str, ...]:
        """Column names, partition columns last."""
        return tuple(self.schema.names)

    @property
    def rows(self) -> int | None:
        """Rows of all files; None where one does not tell."""
        counts = [part.rows for part in self.parts]
        return None if None in counts else sum(count for count in counts if count is not None)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(part.size for part in self.parts)

    @property
    def objects(self) -> tuple[StoredObject, ...]:
        """The files."""
        return tuple(stored for part in self.parts for stored in part.objects)

    @property
    def digests(self) -> tuple[str, ...]:
        """What is known of each file."""
        return tuple(digest for part in self.parts for digest in part.digests)

    def check_unchanged(self) -> None:
        """Look at every file again."""
        check_all_unchanged(self.objects)

    def where(self, condition: Any) -> "PartsSource":
        """Return the same rows, without some that do not meet a condition."""
        return replace(self, condition=condition)

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """Read columns of one file after the other."""
        wanted = pa.schema([self.schema.field(name) for name in columns])
        for part, constants in zip(self.parts, self.constants, strict=True):
            held = set(part.names)
            present = [name for name in columns if name in held]
            # A file that has none of the columns still tells how many rows are null.
            for batch in self._read(part, present or list(part.names[:1]), constants):
                yield aligned(batch, wanted, constants)

    def _read(self, part: RowSource, columns: Sequence[str], constants: Mapping[str, Any]) -> Iterator[Any]:
        if self.condition is None or not isinstance(part, ParquetSource):
            return part.batches(columns)
        groups = _possible_groups(part, self.schema, constants, self.condition)
        return part.batches(columns, groups) if groups else iter(())


def _possible_groups(part: ParquetSource, schema: Any, constants: Mapping[str, Any], condition: Any) -> list[int]:
    """Name the row groups whose statistics, and whose path, allow a row that meets a condition."""
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    known = pc.scalar(True)
    for name, value in constants.items():
        if name not in part.names and value.is_valid:
            known = known & (pc.field(name) == value.cast(schema.field(name).type))
    with part.reading() as file:
        fragment = ds.ParquetFileFormat().make_fragment(file, partition_expression=known)
        left = fragment.split_by_row_group(filter=condition, schema=schema)
        return [group.id for one in left for group in one.row_groups]


def join_parts(parts: Sequence[RowSource], folders: Sequence[Mapping[str, str | None]], reason: str) -> PartsSource:
    """Join stored files.

    Args:
        parts: The files as rows, in order.
        folders: For each file, what its folders say (`key=value`); None is the null partition.
        reason: Why they are decoded.

    Returns:
        One table. A partition column is int32 when all its values are such, else text, as pyarrow.dataset has it; a
        column that a file holds itself is read from the file.

    Raises:
        InvalidInputError: Schemas do not unify, or folders of the same depth have different keys.
    """
    if len({tuple(folder) for folder in folders}) > 1:
        raise InvalidInputError(f"{parts[0].url}: not all files have the same key=value folders; name fewer folders.")
    # Thousands of files of one schema need not hold it thousands of times.
    parts = [_sharing_schema(part, parts[0].schema) for part in parts]
    schema = unify([(part.url, part.schema) for part in parts])
    constants: list[dict[str, Any]] = [{} for _ in parts]
    for key in folders[0]:
        values = [folder[key] for folder in folders]
        kind = _partition_type(values)
        for constant, value in zip(constants, values, strict=True):
            constant[key] = pa.scalar(None if value is None else int(value) if kind == pa.int32() else value, kind)
        if key not in schema.names:
            schema = schema.append(pa.field(key, kind))
    return PartsSource(tuple(parts), tuple(constants), schema, reason)


def _sharing_schema(part: RowSource, schema: Any) -> RowSource:
    if isinstance(part, ParquetSource) and part.schema.equals(schema, check_metadata=True):
        return replace(part, schema=schema)
    return part


def _partition_type(values: Sequence[str | None]) -> Any:
    present = [value for value in values if value is not None]
    whole = all(value.removeprefix("-").isdecimal() and value.isascii() for value in present)
    return pa.int32() if present and whole and all(int(value) in _INT32 for value in present) else pa.string()
