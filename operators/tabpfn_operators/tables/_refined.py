"""Rows of a source with casts and a row filter applied."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from tabpfn_operators.storage import StoredObject
from tabpfn_operators.tables._casts import cast
from tabpfn_operators.tables._filters import RowFilter
from tabpfn_operators.tables._source import RowSource


@dataclass(frozen=True)
class RefinedSource:
    """A source whose rows are cast, then filtered: a filter sees what would be sent.

    Args:
        base: The source.
        schema: Its schema after the casts.
        casts: Column name to Arrow type.
        condition: The row filter, or None.
        reason: Why it is decoded.
    """

    base: RowSource
    schema: Any = field(repr=False)
    casts: Mapping[str, Any]
    condition: RowFilter | None
    reason: str

    @property
    def url(self) -> str:
        """The source's URL without secrets."""
        return self.base.url

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in order."""
        return tuple(self.schema.names)

    @property
    def rows(self) -> int | None:
        """Rows; None with a filter."""
        return self.base.rows if self.condition is None else None

    @property
    def size(self) -> int:
        """Bytes of the source."""
        return self.base.size

    @property
    def objects(self) -> tuple[StoredObject, ...]:
        """The stored objects behind it."""
        return self.base.objects

    @property
    def digests(self) -> tuple[str, ...]:
        """What is known of each."""
        return self.base.digests

    @property
    def refinement(self) -> str:
        """What is done to the rows, for the fingerprint."""
        if self.condition is None and not self.casts:
            return ""
        condition = "" if self.condition is None else self.condition.digest
        return f"{condition} {sorted((name, str(kind)) for name, kind in self.casts.items())}"

    def check_unchanged(self) -> None:
        """Look at the objects again."""
        self.base.check_unchanged()

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """Read columns, cast and filter them; columns that only the filter needs are not given on."""
        needed = list(dict.fromkeys((*columns, *(self.condition.columns if self.condition else ()))))
        schema = pa.schema([self.schema.field(name) for name in needed])
        for batch in self.base.batches(needed):
            arrays = [cast(array, one.name, one.type) for array, one in zip(batch.columns, schema, strict=True)]
            refined = pa.RecordBatch.from_arrays(arrays, schema=schema)
            kept = refined if self.condition is None else self.condition.keep(refined)
            if kept.num_rows:
                yield kept.select(list(columns))
