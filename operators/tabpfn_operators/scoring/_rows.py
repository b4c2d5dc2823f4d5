"""Rows of a source by their numbers, read in bounded memory and not before they are due."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Self

from tabpfn_operators.reading import is_spliceable
from tabpfn_operators.scoring._plan import Shard
from tabpfn_operators.storage import StoredObject
from tabpfn_operators.tables._source import RowSource

if TYPE_CHECKING:
    from tabpfn_operators.splice import VirtualParquet
    from tabpfn_operators.splice._parts import PartFiles


@dataclass(frozen=True)
class GroupsOfParts:
    """Some neighbouring row groups of part files as one table, which knows only the files that they are in.

    Args:
        parts: The files.
        groups: Numbers of the row groups, counted from 0 through these files.
        start: Number of their first row in the whole source.
        rows: Rows of them.
    """

    parts: "PartFiles"
    groups: range
    start: int
    rows: int

    @property
    def schema(self) -> Any:
        """Arrow schema."""
        return self.parts.schema

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in file order."""
        return self.parts.names

    @property
    def url(self) -> str:
        """The first file's URL without secrets, and how many more there are."""
        return self.parts.url

    @property
    def size(self) -> int:
        """Bytes of the files."""
        return self.parts.size

    @property
    def reason(self) -> str:
        """Why it is decoded: nothing in the files asks for it."""
        return self.parts.reason

    @property
    def objects(self) -> tuple[StoredObject, ...]:
        """The files that the row groups are in."""
        return self.parts.objects

    @property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of each file's footer, in hex."""
        return self.parts.digests

    @property
    def refinement(self) -> str:
        """Which row groups of these files, for the fingerprint."""
        return f"row groups {self.groups.start} to {self.groups.stop}"

    def virtual(self, columns: Sequence[str] | None = None) -> "VirtualParquet":
        """Plan the file that has some of the columns, and these row groups."""
        return self.parts.virtual(columns, self.groups)

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """Decode columns in bounded memory, in the order asked for, as Arrow record batches."""
        from tabpfn_operators.splice._reading import decoded

        return decoded(self.virtual(columns), columns)

    def check_unchanged(self) -> None:
        """Raise SourceChangedError when one of these files was written to since it was first looked at."""
        self.parts.check_unchanged()


@dataclass(frozen=True)
class RowGroups:
    """Where the row groups of part files begin and end.

    Args:
        parts: The files.
        ends: For each row group, one past its last row.
        file_ends: For each file, one past its last row group.
    """

    parts: "PartFiles"
    ends: Sequence[int] = field(repr=False)
    file_ends: Sequence[int] = field(repr=False)

    @classmethod
    def of(cls, parts: "PartFiles") -> Self:
        """Look at the footers."""
        ends = accumulate(rows for footer in parts.footers for rows in footer.group_rows.tolist())
        return cls(parts, tuple(ends), tuple(accumulate(len(footer.group_rows) for footer in parts.footers)))

    def first(self, row: int) -> int:
        """Return the number of the row group that holds a row."""
        return bisect_right(self.ends, row)

    def overlapping(self, start: int, stop: int) -> GroupsOfParts:
        """Return the row groups that hold rows of [start, stop), which is not empty."""
        first, last = self.first(start), bisect_left(self.ends, stop)
        file, last_file = bisect_right(self.file_ends, first), bisect_right(self.file_ends, last)
        before = self.file_ends[file - 1] if file else 0
        files = slice(file, last_file + 1)
        parts = replace(self.parts, objects=self.parts.objects[files], footers=self.parts.footers[files])
        begins = self._begin(first)
        return GroupsOfParts(parts, range(first - before, last - before + 1), begins, self.ends[last] - begins)

    def whole(self, shard: Shard) -> GroupsOfParts | None:
        """Return the row groups that are exactly a shard's rows; None where it begins or ends inside of one."""
        found = self.overlapping(shard.start, shard.stop)
        return found if (found.start, found.rows) == (shard.start, shard.rows) else None

    def _begin(self, group: int) -> int:
        return self.ends[group - 1] if group else 0


def group_rows(table: RowSource) -> tuple[int, ...] | None:
    """Tell the rows of each row group, in order; None where a source is decoded anyway.

    Args:
        table: The source.
    """
    if not is_spliceable(table):
        return None
    return tuple(rows for footer in table.footers for rows in footer.group_rows.tolist())


def to_send(table: RowSource, shards: Iterable[Shard], features: Sequence[str]) -> tuple[int, int | None]:
    """Tell what is sent of a source, from its footers.

    Args:
        table: The source.
        shards: Its shards.
        features: Columns that are sent.

    Returns:
        Shards that are moved as bytes, and the bytes of all of them; None where some have to be decoded.
    """
    if not is_spliceable(table):
        return 0, None
    groups = RowGroups.of(table)
    whole = [groups.whole(shard) for shard in shards]
    moved = [each for each in whole if each is not None]
    return len(moved), sum(each.virtual(features).size for each in moved) if len(moved) == len(whole) else None


def count_rows(table: RowSource) -> int:
    """Count the rows of a source, by reading one column where nothing else tells.

    Args:
        table: The source.

    Raises:
        InvalidInputError: It cannot be read to its end; the message says why.
        SourceChangedError: It was written to meanwhile; run again.
        StorageError: The storage did not answer; run again.
    """
    if table.rows is not None:
        return table.rows
    names = table.names
    column = next((name for name in names if names.count(name) == 1), names[0])
    rows = sum(int(batch.num_rows) for batch in table.batches((column,)))
    table.check_unchanged()
    return rows


def rows_of(table: RowSource, start: int, stop: int, columns: Sequence[str]) -> Iterator[Any]:
    """Read some of a source's rows.

    Args:
        table: The source.
        start: First row, counted from 0.
        stop: One past the last row.
        columns: Columns in the order wanted, each once; none gives no batches.

    Yields:
        Arrow record batches with rows [start, stop), in order; less where the source ends before. Of part files only
        the row groups that hold such rows are read; of another source everything before them too.

    Raises:
        InvalidInputError: The source cannot be read to its end, or the temporary folder is full; see the message.
        SourceChangedError: It was written to meanwhile; run again.
        StorageError: The storage did not answer; run again.
    """
    stop = stop if table.rows is None else min(stop, table.rows)
    if start >= stop or not columns:
        return
    if is_spliceable(table):
        groups = RowGroups.of(table).overlapping(start, stop)
        yield from _sliced(groups.batches(columns), start - groups.start, stop - groups.start)
    else:
        yield from _sliced(table.batches(columns), start, stop)


def _sliced(batches: Iterator[Any], start: int, stop: int) -> Iterator[Any]:
    seen = 0
    for batch in batches:
        first, last = max(start - seen, 0), min(stop - seen, batch.num_rows)
        if first < last:
            yield batch.slice(first, last - first)
        seen += batch.num_rows
        if seen >= stop:
            return
