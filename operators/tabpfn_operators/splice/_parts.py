"""Part files of one schema, known by their footers."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from itertools import groupby
from typing import Any

import numpy as np

from tabpfn_operators._objects import check_all_unchanged, read_ranges
from tabpfn_operators.errors import CorruptParquetError, InvalidInputError, NotSpliceableError
from tabpfn_operators.parquet import sent_schema
from tabpfn_operators.splice._chunks import UnusualError
from tabpfn_operators.splice._footer import ENCRYPTED_MAGIC, MAGIC, Footer, parse_footer
from tabpfn_operators.splice._reading import decoded
from tabpfn_operators.splice._rewrite import Part, rewrite
from tabpfn_operators.splice._schema import ARROW_SCHEMA, arrow_schema
from tabpfn_operators.splice._thrift import MalformedError
from tabpfn_operators.splice._virtual import VirtualParquet
from tabpfn_operators.storage import StoredObject

#: Bytes of a file's end that are read first; most footers fit, so that one request does.
_TAIL_BYTES = 64 << 10
#: No footer is larger: 200,000 chunks need 22 MB.
MOST_FOOTER_BYTES = 256 << 20
#: Files whose ends are asked for together.
_AT_ONCE = 64


@dataclass(frozen=True)
class PartFiles:
    """Parquet files of one schema, in order, as one table.

    Args:
        objects: The files.
        footers: Their footers.
        schema: Their Arrow schema.
    """

    objects: tuple[StoredObject, ...]
    footers: tuple[Footer, ...] = field(repr=False)
    schema: Any = field(repr=False)

    @property
    def url(self) -> str:
        """What messages call them: the first file's URL without secrets."""
        more = len(self.objects) - 1
        return self.objects[0].url + (f" (and {more} more)" if more else "")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the top-level columns, in file order."""
        return self.footers[0].names

    @cached_property
    def rows(self) -> int:
        """Rows of all files."""
        return sum(footer.rows for footer in self.footers)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(stored.size for stored in self.objects)

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of each footer, in hex."""
        return tuple(sha256(footer.data).hexdigest() for footer in self.footers)

    @property
    def reason(self) -> str:
        """Why it is decoded: nothing in the files asks for it."""
        return "decoding was asked for"

    @property
    def row_groups(self) -> int:
        """Row groups of all files."""
        return sum(len(footer.group_rows) for footer in self.footers)

    @property
    def chunks(self) -> int:
        """Column chunks of all files."""
        return sum(footer.starts.size for footer in self.footers)

    def virtual(self, columns: Sequence[str] | None = None, row_groups: Iterable[int] | None = None) -> VirtualParquet:
        """Plan the file that has some of the columns and row groups.

        Args:
            columns: Top-level columns in the order wanted; None takes all.
            row_groups: Numbers of row groups, counted from 0 through all files; None takes all.

        Returns:
            The virtual file.

        Raises:
            InvalidInputError: A column or row group is not there, or named twice; correct the name.
        """
        kept = list(range(len(self.names))) if columns is None else [self._index(name) for name in columns]
        if not kept:
            raise InvalidInputError(f"{self.url}: no column is left; name at least one.")
        if len(set(kept)) < len(kept):
            raise InvalidInputError(f"{self.url}: a column is named twice; name each once.")
        parts = tuple(self._parts(row_groups))
        segments, tail = rewrite(parts or (Part(0, self.footers[0], np.empty(0, np.int64)),), kept, self.schema)
        return VirtualParquet(
            sources=self.objects,
            segments=segments,
            tail=tail,
            schema=sent_schema(self.schema, kept),
            num_rows=sum(int(part.footer.group_rows[part.groups].sum()) for part in parts),
        )

    def nulls(self, column: str) -> int | None:
        """Sum up a column's nulls by the statistics; None where they do not say, or the column is nested."""
        leaves = self.footers[0].columns[self._index(column)].leaves
        if len(leaves) != 1 or not self.footers[0].leaves[leaves[0]].flat:
            return None
        counts = [footer.nulls(leaves[0]) for footer in self.footers]
        return None if None in counts else sum(count for count in counts if count is not None)

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """Decode columns in bounded memory, in the order asked for, as Arrow record batches."""
        return decoded(self.virtual(columns), columns)

    def check_unchanged(self) -> None:
        """Raise SourceChangedError when a file was written to since it was first looked at."""
        check_all_unchanged(self.objects)

    def _index(self, name: str) -> int:
        found = self._indices.get(name, [])
        if not found:
            raise InvalidInputError(f"{self.url}: there is no column {name!r}; check the name.")
        if len(found) > 1:
            raise InvalidInputError(f"{self.url}: column {name!r} is there more than once; rename one of them.")
        return found[0]

    @cached_property
    def _indices(self) -> dict[str, list[int]]:
        places: dict[str, list[int]] = {}
        for index, name in enumerate(self.names):
            places.setdefault(name, []).append(index)
        return places

    def _parts(self, row_groups: Iterable[int] | None) -> Iterator[Part]:
        if row_groups is None:
            for source, footer in enumerate(self.footers):
                yield Part(source, footer, np.arange(len(footer.group_rows)))
            return
        wanted = list(row_groups)
        count = self.row_groups
        wrong = sorted({number for number in wanted if not 0 <= number < count})
        if wrong or len(set(wanted)) < len(wanted):
            what = f"there is no row group {wrong[0]}" if wrong else "a row group is named twice"
            raise InvalidInputError(f"{self.url}: {what}; there are {count}, counted from 0, each once.")
        places = [
            (source, group) for source, footer in enumerate(self.footers) for group in range(len(footer.group_rows))
        ]
        for source, chosen in groupby((places[number] for number in wanted), key=lambda place: place[0]):
            yield Part(source, self.footers[source], np.array([group for _, group in chosen], np.int64))


def open_parts(objects: Sequence[StoredObject]) -> PartFiles:
    """Read the footers of part files, and hold them against each other.

    Args:
        objects: The files, in order.

    Returns:
        What they say.

    Raises:
        CorruptParquetError: A file is damaged or its footer lies; write it again.
        NotSpliceableError: A file is valid, but of a kind whose chunks cannot be moved.
        InvalidInputError: A file is not Parquet; convert it.
        StorageError: The storage did not answer; run again.
    """
    if any(stored.partitions for stored in objects):
        raise _unusual(objects[0], "hive partition columns")
    footers: list[Footer] = []
    schema = None
    for stored, (data, data_end) in zip(objects, _footers(objects), strict=True):
        try:
            footer = parse_footer(data, data_end=data_end)
            if not footers:
                schema = arrow_schema(footer, stored.url)
            else:
                _hold_against_first(footers[0], footer, schema, stored)
        except MalformedError as error:
            raise CorruptParquetError(f"{stored.url} is damaged: {error}. Write the file again.") from None
        except UnusualError as error:
            raise _unusual(stored, str(error)) from None
        footers.append(footer)
    return PartFiles(tuple(objects), tuple(footers), schema)


def _unusual(stored: StoredObject, reason: str) -> NotSpliceableError:
    return NotSpliceableError(
        f"{stored.url} cannot be split without decoding: {reason}. Uploads decode it; splice() cannot.", reason=reason
    )


def _hold_against_first(first: Footer, footer: Footer, schema: Any, stored: StoredObject) -> None:
    if first.names != footer.names:
        raise UnusualError("its columns are others than the first file's")
    for one, other in zip(first.columns, footer.columns, strict=True):
        if one.shape != other.shape:
            raise UnusualError(f"column {one.name!r} has another type than in the first file")
    described = {key: value for key, value in footer.key_values if key == ARROW_SCHEMA}
    if described != {key: value for key, value in first.key_values if key == ARROW_SCHEMA}:
        other_schema = arrow_schema(footer, stored.url)
        if not schema.equals(other_schema, check_metadata=False):
            raise UnusualError("its Arrow types are others than the first file's")


def _footers(objects: Sequence[StoredObject]) -> Iterator[tuple[bytes, int]]:
    """Yield each file's footer and where it begins."""
    for first in range(0, len(objects), _AT_ONCE):
        some = objects[first : first + _AT_ONCE]
        for stored in some:
            if stored.size < len(MAGIC) + 8:
                raise _not_parquet(stored)
        ends = read_ranges(some, [(max(0, stored.size - _TAIL_BYTES), stored.size) for stored in some])
        for stored, end in zip(some, ends, strict=True):
            yield _footer(stored, end)


def _footer(stored: StoredObject, end: bytes) -> tuple[bytes, int]:
    magic, length = end[-4:], int.from_bytes(end[-8:-4], "little")
    if magic == ENCRYPTED_MAGIC:
        raise _unusual(stored, "its footer is encrypted")
    if magic != MAGIC:
        begins_like_one = read_ranges([stored], [(0, len(MAGIC))])[0] == MAGIC
        raise _cut(stored) if begins_like_one else _not_parquet(stored)
    start = stored.size - 8 - length
    if start < len(MAGIC) or length > MOST_FOOTER_BYTES:
        raise CorruptParquetError(
            f"{stored.url} is damaged: its footer is said to have {length:,} bytes, the file has {stored.size:,}. "
            "Write the file again."
        )
    if length + 8 <= len(end):
        return end[len(end) - 8 - length : -8], start
    return read_ranges([stored], [(start, stored.size - 8)])[0], start


def _cut(stored: StoredObject) -> CorruptParquetError:
    return CorruptParquetError(
        f"{stored.url} is damaged: it begins like Parquet and has no footer at its end. Is the step that writes it "
        "done? Write the file again."
    )


def _not_parquet(stored: StoredObject) -> InvalidInputError:
    return InvalidInputError(f"{stored.url} is not a Parquet file; convert it to Parquet first.")
