"""Where those parts of a column chunk's description lie that change when the chunk moves.

A footer describes each column of each row group: 200,000 descriptions in a wide file. A walk that makes objects of
their fields took 22.8 s and 1.25 GB there (measured), so what writers usually write is matched by regular expressions.
What they do not match is walked field by field, and written anew without what must go.
"""

import functools
import re
from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tabpfn_operators.splice import _thrift as thrift
from tabpfn_operators.splice._thrift import Field, MalformedError

#: A description's marks: the first bytes of its parts, in this order; -1 for a dictionary page that it does not have.
META, VALUES, UNCOMPRESSED, COMPRESSED, DATA_PAGE, DICTIONARY, TAIL, TAIL_END = range(8)
MARKS = 8

# Parquet's physical types (parquet.thrift).
INT96, BYTE_ARRAY, FIXED_LEN_BYTE_ARRAY = 3, 6, 7
_WIDTHS = {0: 1, 1: 4, 2: 8, INT96: 12, 4: 4, 5: 8}
# Fields of ColumnChunk and ColumnMetaData (parquet.thrift).
_FILE_PATH, _META_DATA, _CRYPTO, _ENCRYPTED = 1, 3, 8, 9
_TYPE, _PATH, _VALUES, _UNCOMPRESSED, _COMPRESSED, _DATA_PAGE, _INDEX_PAGE, _DICTIONARY = 1, 3, 5, 6, 7, 9, 10, 11
_STATISTICS, _BLOOM_OFFSET, _BLOOM_LENGTH = 12, 14, 15
_TYPES = {1: thrift.I32, 2: thrift.LIST, 3: thrift.LIST, 4: thrift.I32, **dict.fromkeys((5, 6, 7, 9), thrift.I64)}
_NULL_COUNT = 3

_V = rb"[\x80-\xff]{0,9}[\x00-\x7f]"


def _lists(element_type: int, element: bytes, most: int) -> bytes:
    """Match a list of up to `most` elements, whose header says how many."""
    return b"(?:" + b"|".join(b"\\x%x%x(?:%s){%d}" % (n, element_type, element, n) for n in range(most + 1)) + b")"


_ENCODINGS = _lists(5, rb"[\x00-\x7f]", 14)
_HEAD = re.compile(rb"\x26" + _V + rb"\x1c(\x15[\x00-\x0e]\x19" + _ENCODINGS + rb"\x19)", re.DOTALL)
_SIZES = rb"\x15%b\x16(%b)\x16(%b)\x16(%b)\x26(%b)(?:\x26(%b))?()" % ((_V,) * 6)
_HISTOGRAM = _lists(6, _V, 14)
_REST = (
    rb"(?:[\x19\x29\x49]" + _lists(12, rb"(?:\x15" + _V + rb"){3}\x00", 9) + rb")?"
    rb"(?:[\x3c-\x7c](?:\x16"
    + _V
    + rb")?(?:[\x19\x29]"
    + _HISTOGRAM
    + rb")?(?:[\x19\x29\x39]"
    + _HISTOGRAM
    + rb")?\x00)?"
    rb"()\x00(?:\x16" + _V + rb"\x15" + _V + rb")?(?:[\x16\x36]" + _V + rb"\x15" + _V + rb")?\x00"
)


class Leaf(NamedTuple):
    """A leaf of the schema, as a column chunk's description repeats it.

    Args:
        type: Physical type.
        path: Names from the top-level column down.
        width: Bytes of a value in the statistics; None where they vary.
        flat: Whether each row has exactly one value (it, and all above it, are not repeated).
    """

    type: int
    path: tuple[bytes, ...]
    width: int | None
    flat: bool


def width_of(physical_type: int, length: int) -> int | None:
    """Return the bytes of a value, None where they vary or are many."""
    if physical_type == FIXED_LEN_BYTE_ARRAY:
        return length if 0 < length < 128 else None
    return _WIDTHS.get(physical_type)


class UnusualError(Exception):
    """A valid file of a kind whose chunks cannot be moved; the text is the reason."""


@functools.lru_cache(maxsize=64)
def _after_path(width: int | None) -> re.Pattern[bytes]:
    """Match what follows the path; for values of varying width, as far as the statistics."""
    if width is None:
        return re.compile(_SIZES, re.DOTALL)
    bound = rb"[\x18\x28\x38\x48\x58]\x%02x.{%d}" % (width, width)
    count = rb"[\x16\x26\x36]" + _V
    exact = rb"[\x11\x12\x21\x22\x31\x32]"
    statistics = rb"(?:[\x1c\x3c](?:%b|%b|%b)*\x00)?" % (bound, count, exact)
    return re.compile(_SIZES + statistics + _REST, re.DOTALL)


_AFTER_STATISTICS = re.compile(_REST, re.DOTALL)


class ChunkWalk:
    """Collects the marks of all chunks of a footer.

    Args:
        footer: The footer.
        leaves: The schema's leaves, in order.

    Attributes:
        marks: For each chunk MARKS positions; positions from len(footer) on are in `rewritten`.
        rewritten: Descriptions that had to be written anew.
    """

    def __init__(self, footer: bytes, leaves: Sequence[Leaf]) -> None:
        self.footer = footer
        self.marks = array("q")
        self.rewritten = bytearray()
        self._leaves = leaves
        self._expected = [
            (2 * leaf.type, _encoded_path(leaf.path), _after_path(leaf.width).match, leaf.width is None)
            for leaf in leaves
        ]

    def row_group(self, position: int) -> int:
        """Walk the chunks of one row group; returns the position behind them."""
        data, extend, head = self.footer, self.marks.extend, _HEAD.match
        for index, (type_byte, path, sizes, varying) in enumerate(self._expected):
            if (start := head(data, position)) is None:
                position = self._unusual(position, index)
                continue
            meta, at = start.span(1)
            if data[meta + 1] != type_byte or not data.startswith(path, at):
                position = self._unusual(position, index)
                continue
            found = sizes(data, at + len(path))
            if found is None:
                position = self._unusual(position, index)
                continue
            regs = found.regs
            if varying:
                rest = _AFTER_STATISTICS.match(data, _behind_statistics(data, regs[6][0]))
                if rest is None:
                    position = self._unusual(position, index)
                    continue
                tail_end, position_behind = rest.start(1), rest.end()
            else:
                tail_end, position_behind = regs[7][0], regs[0][1]
            extend((meta, regs[1][0], regs[2][0], regs[3][0], regs[4][0], regs[5][0], regs[6][0], tail_end))
            position = position_behind
        return position

    def _unusual(self, position: int, index: int) -> int:
        """Walk one description field by field and write it anew."""
        data, leaf = self.footer, self._leaves[index]
        fields, behind = thrift.read_struct(data, position)
        chunk = {field.id: field for field in fields}
        if chunk.keys() & {_CRYPTO, _ENCRYPTED}:
            raise UnusualError("it has encrypted columns")
        if _FILE_PATH in chunk:
            raise UnusualError("its column chunks are in other files")
        if _META_DATA not in chunk or chunk[_META_DATA].type != thrift.STRUCT:
            raise MalformedError(f"a column chunk without metadata at byte {position}")
        meta = {field.id: field for field in thrift.read_struct(data, chunk[_META_DATA].start)[0]}
        _check(data, meta, leaf)
        self._write(meta)
        return behind

    def _write(self, meta: dict[int, Field]) -> None:
        data = self.footer
        at = {}
        first = len(data) + len(self.rewritten)
        dropped = {_INDEX_PAGE, _BLOOM_OFFSET, _BLOOM_LENGTH}
        last = tail = 0
        for number in sorted(meta.keys() - dropped):
            field = meta[number]
            if number > _DICTIONARY and not tail:
                tail = len(data) + len(self.rewritten)
            self.rewritten += thrift.field_header(number, field.type, last)
            at[number] = len(data) + len(self.rewritten)
            self.rewritten += data[field.start : field.stop]
            last = number
        tail_end = len(data) + len(self.rewritten)
        numbers = (_VALUES, _UNCOMPRESSED, _COMPRESSED, _DATA_PAGE)
        self.marks.extend(
            (first, *(at[number] for number in numbers), at.get(_DICTIONARY, -1), tail or tail_end, tail_end)
        )


def _check(data: bytes, meta: dict[int, Field], leaf: Leaf) -> None:
    for number, kind in _TYPES.items():
        if number not in meta or meta[number].type != kind:
            raise MalformedError(
                f"column {leaf.path[0]!r} lacks field {number} of its metadata, or it has another type"
            )
    if _DICTIONARY in meta and meta[_DICTIONARY].type != thrift.I64:
        raise MalformedError(f"column {leaf.path[0]!r} has a dictionary page at no number")
    if thrift.read_int(data, meta[_TYPE].start) != leaf.type:
        raise MalformedError(f"column {leaf.path[0]!r} has another type in a row group than in the schema")
    if data[meta[_PATH].start : meta[_PATH].stop] != _encoded_path(leaf.path):
        raise MalformedError(f"a row group has another column where the schema has {leaf.path[0]!r}")


def _encoded_path(path: Sequence[bytes]) -> bytes:
    return thrift.list_of(thrift.BINARY, [thrift.binary(name) for name in path])


def _behind_statistics(data: bytes, position: int) -> int:
    """Return the position behind statistics, if there are any here."""
    if data[position : position + 1] not in {b"\x1c", b"\x3c"}:
        return position
    position += 1
    try:
        while head := data[position]:
            position += 1
            kind = head & 0x0F
            if kind == thrift.BINARY:
                length = data[position]
                if length > 0x7F:
                    length, position = thrift.read_varint(data, position)
                    position += length
                else:
                    position += 1 + length
            elif kind in {thrift.I64, thrift.I32}:
                while data[position] > 0x7F:
                    position += 1
                position += 1
            elif kind not in {thrift.TRUE, thrift.FALSE}:
                return len(data)  # the expression for what follows cannot match there
    except IndexError:
        return len(data)
    return position + 1


def null_count(description: bytes, tail: int, tail_end: int) -> int | None:
    """Read the number of nulls from a description's tail, or None where it does not say.

    Args:
        description: The buffer that the marks point into.
        tail: Mark TAIL.
        tail_end: Mark TAIL_END.
    """
    for field in _tail_fields(description, tail, tail_end):
        if field.id == _STATISTICS and field.type == thrift.STRUCT:
            for inner in thrift.read_struct(description, field.start)[0]:
                if inner.id == _NULL_COUNT and inner.type == thrift.I64:
                    return thrift.read_int(description, inner.start)
    return None


def _tail_fields(data: bytes, position: int, stop: int) -> Iterator[Field]:
    """Yield the tail's fields; a struct type right after the page offsets can be the statistics only."""
    # Ids count on from the last field before the tail, the dictionary's (11) or the data page's (9); the only struct
    # that either of them can be followed by is number 12.
    while position < stop:
        head = thrift.next_field(data, position, 0)
        if head is None:
            return
        delta, kind, start = head
        position = thrift.skip(data, start, kind)
        yield Field(_STATISTICS if kind == thrift.STRUCT and delta in {1, 3} else 0, kind, start, position)
