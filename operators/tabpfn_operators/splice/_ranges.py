"""Which bytes of which source make up a range of a virtual file, and which requests fetch them; no input or output."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

#: Bytes of one request to a remote store.
BLOCK_BYTES = 4 << 20
#: Bytes not wanted that are read and dropped rather than asked around: fewer than arrive while a store (30 ms to its
#: first byte, tens of MB/s for one connection) begins to answer another request.
GAP_BYTES = 1 << 20
#: The source of a piece that comes from no object: the magic bytes and the new footer.
LITERAL = -1
#: Segments turned into Python numbers at a time, so that 200,000 of them never are at once.
_WINDOW = 1024

#: Source, first byte in it, bytes.
Piece: TypeAlias = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Segments:
    """Byte ranges of sources, in the order in which the virtual file has them.

    Args:
        lengths: Bytes of each, int64.
        offsets: First byte of each in its source, int64.
        sources: Index of its source, int32; LITERAL for bytes of no object.
    """

    lengths: "npt.NDArray[np.int64]"
    offsets: "npt.NDArray[np.int64]"
    sources: "npt.NDArray[np.int32]"


class Layout:
    """The segments of a virtual file between literal bytes before and after, findable by offset.

    Args:
        segments: The byte ranges of sources.
        head: Literal bytes before them.
        tail: Literal bytes after them; in pieces they follow the head's.
    """

    def __init__(self, segments: Segments, *, head: int, tail: int) -> None:
        import numpy as np

        self._lengths = np.concatenate(([head], segments.lengths, [tail]), dtype=np.int64)
        self._offsets = np.concatenate(([0], segments.offsets, [head]), dtype=np.int64)
        self._sources = np.concatenate(([LITERAL], segments.sources, [LITERAL]), dtype=np.int32)
        self._ends = np.cumsum(self._lengths)

    @property
    def size(self) -> int:
        """Bytes in all."""
        return int(self._ends[-1])

    def pieces(self, start: int, stop: int) -> Iterator[Piece]:
        """Yield what [start, stop) is made of, in order; the bounds lie within the file."""
        if start >= stop:
            return
        index = int(self._ends.searchsorted(start, side="right"))
        skip = start - int(self._ends[index] - self._lengths[index])
        left = stop - start
        while left:
            window = slice(index, index + _WINDOW)
            columns = (self._sources, self._offsets, self._lengths)
            for source, offset, length in zip(*(column[window].tolist() for column in columns), strict=True):
                take = min(length - skip, left)
                if take:
                    yield source, offset + skip, take
                    left -= take
                    if not left:
                        return
                skip = 0
            index += _WINDOW


def into_chunks(pieces: Iterable[Piece], chunk_size: int) -> Iterator[list[Piece]]:
    """Group pieces, cutting them where needed, so that each group has `chunk_size` bytes, the last one the rest."""
    group: list[Piece] = []
    room = chunk_size
    for source, first, wanted in pieces:
        offset, length = first, wanted
        while length >= room:
            group.append((source, offset, room))
            yield group
            offset, length, room, group = offset + room, length - room, chunk_size, []
        if length:
            group.append((source, offset, length))
            room -= length
    if group:
        yield group


@dataclass(frozen=True)
class Block:
    """One request: a byte range of a source, and the pieces to take out of it.

    Args:
        source: Index of the source; LITERAL where nothing is to be requested.
        start: First byte.
        stop: One past the last byte.
        pieces: What of it is wanted, in virtual order, with offsets of the source.
    """

    source: int
    start: int
    stop: int
    pieces: tuple[Piece, ...]


def into_blocks(pieces: Iterable[Piece], *, gap: int = GAP_BYTES, size: int = BLOCK_BYTES) -> Iterator[Block]:
    """Coalesce neighbouring pieces into requests.

    Args:
        pieces: What is wanted, in virtual order; in its source a piece may lie before the one it follows.
        gap: Bytes not wanted that may lie between two pieces of one request.
        size: Most bytes of one request.

    Yields:
        Requests whose pieces, in order, are the pieces given; long ones are cut.
    """
    group: list[Piece] = []
    source, low, high = LITERAL, 0, 0
    for wanted_source, first, wanted in pieces:
        offset, length = first, wanted
        while length:
            take = _room(low, high, offset, length, gap, size) if group and wanted_source == source else 0
            if not take:
                if group:
                    yield Block(source, low, high, tuple(group))
                source, low, high, group = wanted_source, offset, offset, []
                take = min(length, size)
            group.append((source, offset, take))
            low, high = min(low, offset), max(high, offset + take)
            offset, length = offset + take, length - take
    if group:
        yield Block(source, low, high, tuple(group))


def _room(low: int, high: int, offset: int, length: int, gap: int, size: int) -> int:
    """Return how many bytes of a piece, from its first on, the request [low, high) can take in; 0 for none."""
    if offset >= low:
        return max(0, min(length, low + size - offset)) if offset <= high + gap else 0
    fits = offset + length + gap >= low and max(high, offset + length) - offset <= size
    return length if fits else 0


def rechunk(views: Iterable[memoryview], chunk_size: int) -> Iterator[bytes]:
    """Join bytes and cut them anew: each chunk has `chunk_size` bytes, the last one the rest."""
    held: list[bytes] = []
    room = chunk_size
    for whole in views:
        view = whole
        while len(view) >= room:
            yield b"".join([*held, view[:room]])
            view, held, room = view[room:], [], chunk_size
        if len(view):
            held.append(bytes(view))  # a copy: a small view would keep its whole block in memory
            room -= len(view)
    if held:
        yield b"".join(held)
