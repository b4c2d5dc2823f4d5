"""A Parquet file's footer as plain arrays: schema, row groups, and where each column chunk lies."""

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tabpfn_operators.splice import _chunks as chunks
from tabpfn_operators.splice import _thrift as thrift
from tabpfn_operators.splice._chunks import MARKS, ChunkWalk, Leaf, UnusualError, width_of
from tabpfn_operators.splice._thrift import Field, MalformedError

MAGIC = b"PAR1"
ENCRYPTED_MAGIC = b"PARE"

# Fields of FileMetaData, SchemaElement and RowGroup (parquet.thrift of parquet-format 2.12).
VERSION, SCHEMA, ROWS, ROW_GROUPS, KEY_VALUES, CREATED_BY, COLUMN_ORDERS = range(1, 8)
_ENCRYPTION, _SIGNING_KEY = 8, 9
_TYPE, _TYPE_LENGTH, _REPETITION, _NAME, CHILDREN, _FIELD_ID = 1, 2, 3, 4, 5, 9
_COLUMNS, _GROUP_ROWS, _SORTING = 1, 3, 4
_SORTED_COLUMN = 1
_REPEATED = 2
_DEEPEST_SCHEMA = 64
_INT64 = np.int64
#: Rows or bytes of one row group beyond this are a lie, and sums below it cannot overflow.
_MOST = 1 << 48

Ints = npt.NDArray[np.int64]


class Column(NamedTuple):
    """A top-level column: a subtree of the schema.

    Args:
        name: Its name.
        elements: Encoded schema elements, root of the subtree first.
        leaves: Numbers of its leaves.
        shape: What has to be equal in part files that are joined: all but field ids.
    """

    name: str
    elements: bytes
    leaves: range
    shape: tuple[Any, ...]


class Sorting(NamedTuple):
    """One entry of a row group's sort order: a leaf, and the rest of the entry as it is encoded."""

    leaf: int
    fields: tuple[tuple[int, int, bytes], ...]


@dataclass(frozen=True)
class Footer:
    """What a footer says, checked against itself and the file's size.

    Args:
        data: Its bytes.
        root: The schema's root element.
        columns: Top-level columns.
        leaves: Leaves of the schema.
        key_values: Key-value metadata.
        created_by: The writer.
        column_orders: Encoded column orders, one for each leaf, or none.
        version: Format version.
        group_rows: Rows of each row group.
        sortings: Sort order of each row group.
        described: The footer, and behind it the descriptions that were written anew: what `marks` point into.
        marks: Positions of the parts of each description: row group x leaf x MARKS.
        starts: First byte of each chunk in the file: row group x leaf.
        compressed: Bytes of each chunk.
        uncompressed: Bytes of each chunk, uncompressed.
    """

    data: bytes
    root: bytes
    columns: tuple[Column, ...]
    leaves: tuple[Leaf, ...]
    key_values: tuple[tuple[bytes, bytes], ...]
    created_by: bytes
    column_orders: tuple[bytes, ...]
    version: int
    group_rows: Ints
    sortings: tuple[tuple[Sorting, ...], ...]
    described: bytes
    marks: Ints
    starts: Ints
    compressed: Ints
    uncompressed: Ints

    @property
    def rows(self) -> int:
        """Rows of the file."""
        return int(self.group_rows.sum())

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the top-level columns, in file order."""
        return tuple(column.name for column in self.columns)

    def pages(self, mark: int) -> Ints:
        """Read the page offsets behind DATA_PAGE or DICTIONARY; -1 where there is none."""
        read = thrift.read_ints(np.frombuffer(self.described, np.uint8), self.marks[:, :, mark].ravel())
        return read.reshape(self.marks.shape[:2])

    def nulls(self, leaf: int) -> int | None:
        """Sum up the nulls of a leaf by its statistics, or None where they do not say."""
        total = 0
        for group in range(len(self.group_rows)):
            tail, stop = (int(self.marks[group, leaf, mark]) for mark in (chunks.TAIL, chunks.TAIL_END))
            count = chunks.null_count(self.described, tail, stop)
            if count is None or not 0 <= count <= self.group_rows[group]:
                return None
            total += count
        return total


def parse_footer(data: bytes, *, data_end: int) -> Footer:
    """Parse a footer, and hold what it says against itself and against the file.

    Args:
        data: The footer, without length and magic.
        data_end: Where the footer begins in the file, in bytes: no column chunk reaches further.

    Returns:
        What it says.

    Raises:
        MalformedError: It is damaged or lies; the text says how.
        UnusualError: It is valid, but its chunks cannot be moved; the text says why.
    """
    return _Parser(data, data_end).footer()


class _Parser:
    def __init__(self, data: bytes, data_end: int) -> None:
        self.data = data
        self.data_end = data_end
        self.columns: list[Column] = []
        self.leaves: list[Leaf] = []
        self.group_rows: list[int] = []
        self.sortings: list[tuple[Sorting, ...]] = []
        self.walk = ChunkWalk(data, ())
        self.root = b""

    def footer(self) -> Footer:
        data = self.data
        fields: dict[int, Field] = {}
        position = last = 0
        while (header := thrift.next_field(data, position, last)) is not None:
            last, kind, start = header
            if last in fields:
                raise MalformedError(f"field {last} of the footer is there twice")
            position = self._field(last, kind, start)
            fields[last] = Field(last, kind, start, position)
        if fields.keys() & {_ENCRYPTION, _SIGNING_KEY}:
            raise UnusualError("it is encrypted")
        for number, expected in ((SCHEMA, thrift.LIST), (ROWS, thrift.I64), (ROW_GROUPS, thrift.LIST)):
            if number not in fields or fields[number].type != expected:
                raise MalformedError(f"field {number} of the footer is missing, or has another type")
        counted = thrift.read_int(data, fields[ROWS].start)
        if counted != sum(self.group_rows):
            raise MalformedError(f"the file counts {counted} rows, its row groups {sum(self.group_rows)}")
        created_by = self._text(fields.get(CREATED_BY))
        if _wrote_short_sizes(created_by):
            raise UnusualError("its writer (parquet-mr before 1.2.9) counts chunks short")
        return Footer(
            data,
            self.root,
            tuple(self.columns),
            tuple(self.leaves),
            self._key_values(fields.get(KEY_VALUES)),
            created_by,
            self._column_orders(fields.get(COLUMN_ORDERS)),
            thrift.read_int(data, fields[VERSION].start) if VERSION in fields else 1,
            np.array(self.group_rows, _INT64),
            tuple(self.sortings),
            *self._chunks(),
        )

    def _field(self, number: int, kind: int, start: int) -> int:
        if number == SCHEMA and kind == thrift.LIST:
            return self._schema(start)
        if number == ROW_GROUPS and kind == thrift.LIST:
            return self._row_groups(start)
        return thrift.skip(self.data, start, kind)

    # The schema is a tree, written as a list: each element says how many of those that follow are its children.
    def _schema(self, position: int) -> int:
        header = thrift.read_list(self.data, position)
        if header.type != thrift.STRUCT or header.size == 0:
            raise MalformedError("the schema is no list of elements")
        elements: list[tuple[dict[int, Field], bytes]] = []
        position = header.start
        for _ in range(header.size):
            fields, stop = thrift.read_struct(self.data, position)
            elements.append(({field.id: field for field in fields}, self.data[position:stop]))
            position = stop
        self.root = elements[0][1]
        following = 1
        for _ in range(self._int(elements[0][0], CHILDREN, 0)):
            first, first_leaf = following, len(self.leaves)
            following = self._subtree(elements, following, (), flat=True)
            parts = [element for element, _ in elements[first:following]]
            self.columns.append(
                Column(
                    self._name(parts[0]).decode("utf-8", "replace"),
                    b"".join(raw for _, raw in elements[first:following]),
                    range(first_leaf, len(self.leaves)),
                    tuple(self._shape(part) for part in parts),
                )
            )
        if following != header.size:
            raise MalformedError(f"the schema has {header.size} elements, its tree {following}")
        return position

    def _subtree(
        self, elements: list[tuple[dict[int, Field], bytes]], at: int, above: tuple[bytes, ...], *, flat: bool
    ) -> int:
        if at >= len(elements) or len(above) > _DEEPEST_SCHEMA:
            raise MalformedError("the schema's tree has more elements than its list, or is too deep")
        fields = elements[at][0]
        path = (*above, self._name(fields))
        flat = flat and self._int(fields, _REPETITION, 0) != _REPEATED
        children = self._int(fields, CHILDREN, 0)
        if _TYPE in fields:
            kind = self._int(fields, _TYPE, 0)
            self.leaves.append(Leaf(kind, path, width_of(kind, self._int(fields, _TYPE_LENGTH, 0)), flat))
            return at + 1
        at += 1
        for _ in range(children):
            at = self._subtree(elements, at, path, flat=flat)
        return at

    def _shape(self, fields: dict[int, Field]) -> tuple[Any, ...]:
        return tuple(
            (number, field.type, self.data[field.start : field.stop])
            for number, field in sorted(fields.items())
            if number != _FIELD_ID
        )

    def _int(self, fields: dict[int, Field], number: int, default: int) -> int:
        field = fields.get(number)
        if field is None:
            return default
        if field.type not in {thrift.I32, thrift.I64}:
            raise MalformedError(f"field {number} at byte {field.start} is no number")
        return thrift.read_int(self.data, field.start)

    def _name(self, fields: dict[int, Field]) -> bytes:
        return self._text(fields.get(_NAME))

    def _text(self, field: Field | None) -> bytes:
        if field is None:
            return b""
        if field.type != thrift.BINARY:
            raise MalformedError(f"field {field.id} at byte {field.start} is no text")
        return thrift.read_binary(self.data, field)

    def _row_groups(self, position: int) -> int:
        if not self.root:
            raise UnusualError("its footer names the row groups before the schema")
        header = thrift.read_list(self.data, position)
        if header.size and header.type != thrift.STRUCT:
            raise MalformedError("the row groups are no list of structs")
        self.walk = ChunkWalk(self.data, self.leaves)
        position = header.start
        for _ in range(header.size):
            position = self._row_group(position)
        return position

    def _row_group(self, position: int) -> int:
        data = self.data
        first = thrift.next_field(data, position, 0)
        if first is None or first[:2] != (_COLUMNS, thrift.LIST):
            raise MalformedError(f"a row group at byte {position} does not begin with its columns")
        listed = thrift.read_list(data, first[2])
        if listed.size != len(self.leaves) or (listed.size and listed.type != thrift.STRUCT):
            raise MalformedError(f"a row group has {listed.size} columns, the schema {len(self.leaves)}")
        position = self.walk.row_group(listed.start)
        rows, last = None, _COLUMNS
        sorting: tuple[Sorting, ...] = ()
        while (header := thrift.next_field(data, position, last)) is not None:
            last, kind, start = header
            position = thrift.skip(data, start, kind)
            if last == _GROUP_ROWS and kind == thrift.I64:
                rows = thrift.read_int(data, start)
            elif last == _SORTING and kind == thrift.LIST:
                sorting = self._sorting(start)
        if rows is None or not 0 <= rows <= _MOST:
            raise MalformedError(f"row group {len(self.group_rows)} counts {rows} rows")
        self.group_rows.append(rows)
        self.sortings.append(sorting)
        return position + 1

    def _sorting(self, position: int) -> tuple[Sorting, ...]:
        header = thrift.read_list(self.data, position)
        if header.size and header.type != thrift.STRUCT:
            raise MalformedError("a sort order is no list of structs")
        position, found = header.start, []
        for _ in range(header.size):
            fields, position = thrift.read_struct(self.data, position)
            rest = tuple((f.id, f.type, self.data[f.start : f.stop]) for f in fields if f.id != _SORTED_COLUMN)
            found.append(Sorting(self._int({f.id: f for f in fields}, _SORTED_COLUMN, -1), rest))
        return tuple(found)

    def _key_values(self, field: Field | None) -> tuple[tuple[bytes, bytes], ...]:
        if field is None:
            return ()
        found = []
        for fields in self._structs(field, "the key-value metadata"):
            by_id = {inner.id: inner for inner in fields}
            found.append((self._text(by_id.get(1)), self._text(by_id.get(2))))
        return tuple(found)

    def _structs(self, field: Field, what: str) -> list[list[Field]]:
        if field.type != thrift.LIST:
            raise MalformedError(f"{what} is no list")
        header = thrift.read_list(self.data, field.start)
        if header.size and header.type != thrift.STRUCT:
            raise MalformedError(f"{what} is no list of structs")
        position, found = header.start, []
        for _ in range(header.size):
            fields, position = thrift.read_struct(self.data, position)
            found.append(fields)
        return found

    def _column_orders(self, field: Field | None) -> tuple[bytes, ...]:
        if field is None or field.type != thrift.LIST:
            return ()
        header = thrift.read_list(self.data, field.start)
        if header.type != thrift.STRUCT or header.size != len(self.leaves):
            raise MalformedError(f"there are {header.size} column orders for {len(self.leaves)} columns")
        position, found = header.start, []
        for _ in range(header.size):
            stop = thrift.skip(self.data, position, thrift.STRUCT)
            found.append(self.data[position:stop])
            position = stop
        return tuple(found)

    def _chunks(self) -> tuple[bytes, Ints, Ints, Ints, Ints]:
        described = self.data + bytes(self.walk.rewritten) if self.walk.rewritten else self.data
        shape = (len(self.group_rows), len(self.leaves))
        flat = np.frombuffer(self.walk.marks, _INT64) if self.walk.marks else np.empty(0, _INT64)
        marks = flat.reshape(*shape, MARKS)
        buffer = np.frombuffer(described, np.uint8)

        def read(mark: int) -> Ints:
            return thrift.read_ints(buffer, marks[:, :, mark].ravel()).reshape(shape)

        data_pages, dictionaries = read(chunks.DATA_PAGE), read(chunks.DICTIONARY)
        # Old writers put the dictionary's offset nowhere or behind the data; pyarrow names no data page for zero rows.
        first = (dictionaries > 0) & ((dictionaries < data_pages) | (data_pages <= 0))
        starts = np.where(first, dictionaries, data_pages)
        compressed, uncompressed, values = read(chunks.COMPRESSED), read(chunks.UNCOMPRESSED), read(chunks.VALUES)
        self._hold_against_file(starts, compressed, uncompressed)
        self._hold_against_rows(values)
        return described, marks, starts, compressed, uncompressed

    def _hold_against_file(self, starts: Ints, compressed: Ints, uncompressed: Ints) -> None:
        if (compressed < 0).any() or (uncompressed < 0).any() or (uncompressed > _MOST).any():
            raise MalformedError("a column chunk has an impossible size")
        held = compressed > 0
        wrong = held & ((starts < len(MAGIC)) | (starts > self.data_end) | (compressed > self.data_end - starts))
        if wrong.any():
            group, leaf = (int(place[0]) for place in np.nonzero(wrong))
            raise MalformedError(
                f"column {self._leaf_name(leaf)} of row group {group} lies at bytes {starts[group, leaf]} to "
                f"{int(starts[group, leaf]) + int(compressed[group, leaf])}, outside of the data (4 to {self.data_end})"
            )
        flat_starts, sizes = starts[held], compressed[held]
        order = np.argsort(flat_starts, kind="stable")
        ordered, stops = flat_starts[order], (flat_starts + sizes)[order]
        if (ordered[1:] < stops[:-1]).any():
            raise MalformedError("column chunks overlap")

    def _hold_against_rows(self, values: Ints) -> None:
        flat = np.array([leaf.flat for leaf in self.leaves], bool)
        wrong = flat[None, :] & (values != np.array(self.group_rows, _INT64)[:, None])
        wrong |= values < 0
        if wrong.any():
            group, leaf = (int(place[0]) for place in np.nonzero(wrong))
            raise MalformedError(
                f"column {self._leaf_name(leaf)} of row group {group} has {values[group, leaf]} values "
                f"for {self.group_rows[group]} rows"
            )

    def _leaf_name(self, leaf: int) -> str:
        return repr(b".".join(self.leaves[leaf].path).decode("utf-8", "replace"))


def _wrote_short_sizes(created_by: bytes) -> bool:
    """Tell a writer that left the dictionary page's header out of a chunk's size (PARQUET-816, fixed in 1.2.9)."""
    found = re.match(rb"parquet-mr version (\d+)\.(\d+)\.(\d+)", created_by)
    return found is not None and tuple(int(part) for part in found.groups()) < (1, 2, 9)
