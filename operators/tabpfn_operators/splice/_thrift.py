"""Thrift's compact protocol, as far as a Parquet footer needs it: where fields lie, and how new ones are written.

Source: the protocol's specification (thrift-compact-protocol.md of Apache Thrift).
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT, UUID = range(1, 14)
#: Parquet's own structs nest six deep; a footer that nests deeper is not one.
_DEEPEST = 32
#: Parquet's largest struct has 17.
_MOST_FIELDS = 64
_LONGEST_VARINT = 10
_FIXED = {BYTE: 1, DOUBLE: 8, UUID: 16}

Bytes = bytes | memoryview


class MalformedError(ValueError):
    """Bytes that are no compact Thrift; the text says what was expected and where."""


class Field(NamedTuple):
    """Where a field of a struct lies.

    Args:
        id: Field id.
        type: Compact type; a boolean's value is its type.
        start: First byte of the value.
        stop: One past its last byte.
    """

    id: int
    type: int
    start: int
    stop: int


class ListHeader(NamedTuple):
    """What a list says of itself.

    Args:
        type: Compact type of its elements.
        size: Number of elements.
        start: First byte of the first element.
    """

    type: int
    size: int
    start: int


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Read an unsigned varint; returns value and position behind it."""
    value = 0
    for index in range(_LONGEST_VARINT):
        byte = _byte(data, position + index)
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, position + index + 1
    raise MalformedError(f"a number of more than {_LONGEST_VARINT} bytes at byte {position}")


def read_int(data: bytes, position: int) -> int:
    """Read a signed (zigzag) number."""
    value, _ = read_varint(data, position)
    return (value >> 1) ^ -(value & 1)


def read_binary(data: bytes, field: Field) -> bytes:
    """Return the content of a binary field."""
    _, start = read_varint(data, field.start)
    return data[start : field.stop]


def read_list(data: bytes, position: int) -> ListHeader:
    """Read a list's header; its size is held against the bytes that are left, each element taking at least one."""
    head = _byte(data, position)
    size, start = (head >> 4, position + 1) if head < 0xF0 else read_varint(data, position + 1)
    if size > len(data) - start:
        raise MalformedError(f"a list of {size} elements at byte {position}, with {len(data) - start} bytes left")
    return ListHeader(head & 0x0F, size, start)


def next_field(data: bytes, position: int, last: int) -> tuple[int, int, int] | None:
    """Read a field's header; returns id, type and the position of its value, or None at the struct's stop byte."""
    head = _byte(data, position)
    if head == 0:
        return None
    position += 1
    if head >> 4:
        return last + (head >> 4), head & 0x0F, position
    raw, position = read_varint(data, position)
    return (raw >> 1) ^ -(raw & 1), head & 0x0F, position


def read_struct(data: bytes, position: int) -> tuple[list[Field], int]:
    """Find the fields of a struct; returns them and the position behind its stop byte."""
    fields: list[Field] = []
    last = 0
    while (header := next_field(data, position, last)) is not None:
        last, kind, start = header
        if last < 1:
            raise MalformedError(f"a field with the id {last} at byte {position}")
        position = skip(data, start, kind)
        fields.append(Field(last, kind, start, position))
        if len(fields) > _MOST_FIELDS:
            raise MalformedError(f"a struct of more than {_MOST_FIELDS} fields at byte {position}")
    return fields, position + 1


def skip(data: bytes, position: int, kind: int, depth: int = 0) -> int:
    """Return the position behind a value."""
    if depth > _DEEPEST:
        raise MalformedError(f"structs nest more than {_DEEPEST} deep at byte {position}")
    if kind in {TRUE, FALSE}:
        return position
    if kind in {I16, I32, I64}:
        return read_varint(data, position)[1]
    if kind == BINARY:
        length, position = read_varint(data, position)
        return _within(data, position + length)
    if kind == STRUCT:
        while (header := next_field(data, position, 0)) is not None:
            position = skip(data, header[2], header[1], depth + 1)
        return position + 1
    if kind in {LIST, SET}:
        header = read_list(data, position)
        return _skip_elements(data, header.start, (header.type,), header.size, depth + 1)
    if kind == MAP:
        return _skip_map(data, position, depth)
    if kind not in _FIXED:
        raise MalformedError(f"an unknown type {kind} at byte {position}")
    return _within(data, position + _FIXED[kind])


def _skip_map(data: bytes, position: int, depth: int) -> int:
    size, position = read_varint(data, position)
    if size == 0:
        return position
    if size > len(data) - position:
        raise MalformedError(f"a map of {size} entries at byte {position}")
    kinds = _byte(data, position)
    return _skip_elements(data, position + 1, (kinds >> 4, kinds & 0x0F), size, depth + 1)


def _skip_elements(data: bytes, position: int, kinds: tuple[int, ...], size: int, depth: int) -> int:
    for _ in range(size):
        for kind in kinds:
            # Inside a list a boolean has a byte of its own.
            position = _within(data, position + 1) if kind in {TRUE, FALSE} else skip(data, position, kind, depth)
    return position


def _byte(data: bytes, position: int) -> int:
    if 0 <= position < len(data):
        return data[position]
    raise MalformedError(f"it ends at byte {len(data)}, in the middle of a value")


def _within(data: bytes, position: int) -> int:
    if position > len(data):
        raise MalformedError(f"a value ends at byte {position} of {len(data)}")
    return position


def varint(value: int) -> bytes:
    """Write an unsigned varint."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def integer(value: int) -> bytes:
    """Write a signed (zigzag) number."""
    return varint(value << 1 if value >= 0 else (-value << 1) - 1)


def binary(value: bytes) -> bytes:
    """Write a binary value."""
    return varint(len(value)) + value


def list_of(kind: int, elements: Sequence[Bytes]) -> bytes:
    """Write a list of encoded elements."""
    size = len(elements)
    head = bytes([size << 4 | kind]) if size < 15 else bytes([0xF0 | kind]) + varint(size)
    return b"".join((head, *elements))


def field_header(number: int, kind: int, last: int) -> bytes:
    """Write a field's header behind the field with the id `last`."""
    delta = number - last
    return bytes([delta << 4 | kind]) if 0 < delta < 16 else bytes([kind]) + integer(number)


def struct(fields: Iterable[tuple[int, int, Bytes]]) -> bytes:
    """Write a struct of (id, type, encoded value), in the order of its ids."""
    parts: list[Bytes] = []
    last = 0
    for number, kind, value in fields:
        parts += (field_header(number, kind, last), value)
        last = number
    parts.append(b"\0")
    return b"".join(parts)


def read_ints(data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Read many signed numbers at once; a start of -1 gives -1. The varints have been held against the bytes before."""
    known = starts >= 0
    values = np.zeros(len(starts), np.uint64)
    positions = np.where(known, starts, 0)
    going = known.copy()
    for step in range(_LONGEST_VARINT):
        if not going.any():
            break
        read = data[np.where(going, positions + step, 0)]
        values |= np.where(going, (read & 0x7F).astype(np.uint64) << np.uint64(7 * step), np.uint64(0))
        going &= read > 0x7F
    signed = (values >> np.uint64(1)).astype(np.int64) ^ -(values & np.uint64(1)).astype(np.int64)
    return np.where(known, signed, -1)


def write_ints(values: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Write many numbers >= 0 as zigzag varints: rows of ten bytes, of which the returned counts are used."""
    left = values.astype(np.uint64) << np.uint64(1)
    rows = np.zeros((len(values), _LONGEST_VARINT), np.uint8)
    lengths = np.ones(len(values), np.int64)
    for step in range(_LONGEST_VARINT):
        rows[:, step] = (left & np.uint64(0x7F)).astype(np.uint8)
        left >>= np.uint64(7)
        more = left > 0
        if not more.any():
            break
        rows[more, step] |= 0x80
        lengths += more
    return rows, lengths


def join(data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> bytes:
    """Join many pieces of one buffer."""
    ends = np.cumsum(lengths)
    index = np.repeat(starts - (ends - lengths), lengths)
    index += np.arange(len(index))
    joined: bytes = data[index].tobytes()
    return joined
