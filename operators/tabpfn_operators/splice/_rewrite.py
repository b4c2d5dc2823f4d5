"""A new footer for chunks that have moved, and the list of bytes to move."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tabpfn_operators.splice import _chunks as chunks
from tabpfn_operators.splice import _footer as footers
from tabpfn_operators.splice import _thrift as thrift
from tabpfn_operators.splice._footer import MAGIC, Footer, Ints
from tabpfn_operators.splice._ranges import Segments
from tabpfn_operators.splice._schema import kept_key_values, key_value_list, schema_list

#: Descriptions that are written in one go: enough to make numpy worth its calls, few enough to stay small.
_AT_ONCE = 16_384
_CHUNK_HEAD = b"\x26\x00\x1c"  # file_offset 0 (parquet.thrift: deprecated, to be 0), then the metadata struct
_DICTIONARY_HEAD = b"\x26"
_CHUNK_STOP = b"\x00\x00"
_MOST_ORDINALS = 1 << 15


class Part(NamedTuple):
    """What is taken from one file.

    Args:
        source: Index of the file.
        footer: Its footer.
        groups: Numbers of its row groups, in the order wanted.
    """

    source: int
    footer: Footer
    groups: Ints


class Moved(NamedTuple):
    """Where the chunks of some row groups come to lie.

    Args:
        starts: First byte of each chunk in the new file: row group x kept leaf.
        sizes: Its bytes.
        shift: How far it moves.
    """

    starts: Ints
    sizes: Ints
    shift: Ints


def rewrite(parts: Sequence[Part], kept: Sequence[int], schema: Any) -> tuple[Segments, bytes]:
    """Lay out a new file of some columns and row groups.

    Args:
        parts: Files of one schema.
        kept: Top-level columns, in the order wanted.
        schema: Arrow schema of the files.

    Returns:
        The byte ranges to copy, and what follows them: footer, length, magic.
    """
    first = parts[0].footer
    leaves = np.array([leaf for index in kept for leaf in first.columns[index].leaves], np.int64)
    position = len(MAGIC)
    pieces: list[tuple[Ints, Ints, Ints]] = []
    groups: list[bytes] = []
    for part in parts:
        moved, ranges, position = _lay_out(part, leaves, position)
        pieces.append((*ranges, np.full(len(ranges[0]), part.source, np.int64)))
        groups += _row_groups(part, leaves, moved, len(groups))
    offsets, lengths, sources = (np.concatenate(column) for column in zip(*pieces, strict=True))
    rows = sum(int(part.footer.group_rows[part.groups].sum()) for part in parts)
    key_values = kept_key_values(first, schema, kept)
    orders = [first.column_orders[leaf] for leaf in leaves] if first.column_orders else None
    fields = [
        (footers.VERSION, thrift.I32, thrift.integer(first.version)),
        (footers.SCHEMA, thrift.LIST, schema_list(first, kept)),
        (footers.ROWS, thrift.I64, thrift.integer(rows)),
        (footers.ROW_GROUPS, thrift.LIST, thrift.list_of(thrift.STRUCT, groups)),
    ]
    del groups
    if key_values:
        fields.append((footers.KEY_VALUES, thrift.LIST, key_value_list(key_values)))
    if first.created_by:
        fields.append((footers.CREATED_BY, thrift.BINARY, thrift.binary(first.created_by)))
    if orders is not None:
        fields.append((footers.COLUMN_ORDERS, thrift.LIST, thrift.list_of(thrift.STRUCT, orders)))
    data = thrift.struct(fields)
    del fields
    return Segments(lengths, offsets, sources.astype(np.int32)), b"".join(
        (data, len(data).to_bytes(4, "little"), MAGIC)
    )


def _lay_out(part: Part, leaves: Ints, position: int) -> tuple[Moved, tuple[Ints, Ints], int]:
    """Place chunks one behind the other, those of a row group in their old order, so that sources are read forwards."""
    here = np.ix_(part.groups, leaves)
    old, sizes = part.footer.starts[here], part.footer.compressed[here]
    order = np.argsort(np.where(sizes > 0, old, -1), axis=1, kind="stable")
    ordered_sizes = np.take_along_axis(sizes, order, axis=1)
    ends = position + np.cumsum(ordered_sizes.ravel())
    placed = (ends - ordered_sizes.ravel()).reshape(sizes.shape)
    starts = np.empty_like(placed)
    np.put_along_axis(starts, order, placed, axis=1)
    offsets = np.take_along_axis(old, order, axis=1).ravel()
    lengths = ordered_sizes.ravel()
    offsets, lengths = offsets[lengths > 0], lengths[lengths > 0]
    stop = int(ends[-1]) if len(ends) else position
    return Moved(starts, sizes, starts - old), _merged(offsets, lengths), stop


def _merged(offsets: Ints, lengths: Ints) -> tuple[Ints, Ints]:
    """Join ranges that follow one another without a gap."""
    if not len(offsets):
        return offsets, lengths
    begins = np.flatnonzero(np.concatenate(([True], offsets[1:] != (offsets + lengths)[:-1])))
    return offsets[begins], np.add.reduceat(lengths, begins)


def _row_groups(part: Part, leaves: Ints, moved: Moved, ordinal: int) -> Iterator[bytes]:
    footer = part.footer
    uncompressed = footer.uncompressed[np.ix_(part.groups, leaves)].sum(axis=1)
    positions = {int(leaf): index for index, leaf in enumerate(leaves)}
    step = max(1, _AT_ONCE // max(1, len(leaves)))
    for first in range(0, len(part.groups), step):
        batch = slice(first, first + step)
        described = _descriptions(footer, part.groups[batch], leaves, moved, batch)
        for index, columns in enumerate(described, start=first):
            group = int(part.groups[index])
            sorting = _sorting(footer.sortings[group], positions)
            number = ordinal + index
            fields = [
                (1, thrift.LIST, columns),
                (2, thrift.I64, thrift.integer(int(uncompressed[index]))),
                (3, thrift.I64, thrift.integer(int(footer.group_rows[group]))),
                *([(4, thrift.LIST, sorting)] if sorting else []),
                (5, thrift.I64, thrift.integer(int(moved.starts[index].min(initial=1 << 62)) if len(leaves) else 0)),
                (6, thrift.I64, thrift.integer(int(moved.sizes[index].sum()))),
                *([(7, thrift.I16, thrift.integer(number))] if number < _MOST_ORDINALS else []),
            ]
            yield thrift.struct(fields)


def _sorting(sortings: Sequence[footers.Sorting], positions: dict[int, int]) -> bytes | None:
    """Keep the sort order as far as its columns are kept: rows sorted by a, then b, are not sorted by b."""
    entries = []
    for leaf, rest in sortings:
        if leaf not in positions:
            break
        entries.append(thrift.struct([(1, thrift.I32, thrift.integer(positions[leaf])), *rest]))
    return thrift.list_of(thrift.STRUCT, entries) if entries else None


def _descriptions(footer: Footer, groups: Ints, leaves: Ints, moved: Moved, batch: slice) -> Iterator[bytes]:
    """Yield, for each row group, the list of its columns' descriptions with the new page offsets."""
    marks = footer.marks[np.ix_(groups, leaves)].reshape(-1, chunks.MARKS)
    shift, sizes, starts = (moved.shift[batch].ravel(), moved.sizes[batch].ravel(), moved.starts[batch].ravel())
    described = np.frombuffer(footer.described, np.uint8)

    def placed(mark: int) -> tuple[npt.NDArray[np.uint8], Ints]:
        old = thrift.read_ints(described, marks[:, mark])
        new = np.where(sizes > 0, old + shift, starts)
        return thrift.write_ints(np.where(old > 0, np.maximum(new, 0), 0))

    data_bytes, data_lengths = placed(chunks.DATA_PAGE)
    dictionary_bytes, dictionary_lengths = placed(chunks.DICTIONARY)
    has_dictionary = marks[:, chunks.DICTIONARY] >= 0
    ones = np.ones(len(marks), np.int64)
    lengths = np.stack(
        (
            len(_CHUNK_HEAD) * ones,
            marks[:, chunks.DATA_PAGE] - marks[:, chunks.META],
            data_lengths,
            np.where(has_dictionary, len(_DICTIONARY_HEAD), 0),
            np.where(has_dictionary, dictionary_lengths, 0),
            marks[:, chunks.TAIL_END] - marks[:, chunks.TAIL],
            len(_CHUNK_STOP) * ones,
        ),
        axis=1,
    )
    ends = np.cumsum(lengths.ravel()).reshape(lengths.shape)
    places = ends - lengths
    out = np.empty(int(ends[-1, -1]) if len(ends) else 0, np.uint8)
    literals = np.frombuffer(_CHUNK_HEAD + _DICTIONARY_HEAD + _CHUNK_STOP, np.uint8)
    rows = np.arange(len(marks)) * data_bytes.shape[1]
    for column, (buffer, first) in enumerate(
        (
            (literals, 0 * ones),
            (described, marks[:, chunks.META]),
            (data_bytes.ravel(), rows),
            (literals, len(_CHUNK_HEAD) * ones),
            (dictionary_bytes.ravel(), rows),
            (described, marks[:, chunks.TAIL]),
            (literals, len(_CHUNK_HEAD + _DICTIONARY_HEAD) * ones),
        )
    ):
        _copy(out, places[:, column], buffer, first, lengths[:, column])
    head = thrift.list_of(thrift.STRUCT, [b""] * len(leaves))
    bounds = (
        np.concatenate(([0], ends[len(leaves) - 1 :: len(leaves), -1])) if len(leaves) else np.zeros(len(groups) + 1)
    )
    for start, stop in pairwise(bounds.astype(int).tolist()):
        yield head + out[start:stop].tobytes()


def _copy(out: npt.NDArray[np.uint8], places: Ints, buffer: npt.NDArray[np.uint8], firsts: Ints, lengths: Ints) -> None:
    """Copy many pieces of a buffer to many places."""
    total = int(lengths.sum())
    within = np.arange(total) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    out[np.repeat(places, lengths) + within] = buffer[np.repeat(firsts, lengths) + within]
