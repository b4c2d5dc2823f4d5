"""The arithmetic of a virtual file's bytes: every byte once, in order, within the bounds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabpfn_operators.splice._ranges import LITERAL, Layout, Segments, into_blocks, into_chunks, rechunk

SOURCE_BYTES = 300
lengths = st.integers(0, 40)
segment_lists = st.lists(st.tuples(st.integers(0, 2), st.integers(0, SOURCE_BYTES - 40), lengths), max_size=12)
piece_lists = st.lists(st.tuples(st.integers(-1, 2), st.integers(0, SOURCE_BYTES), st.integers(1, 60)), max_size=20)


def segments_of(chosen):
    sources, offsets, sizes = zip(*chosen, strict=True) if chosen else ((), (), ())
    return Segments(np.array(sizes, np.int64), np.array(offsets, np.int64), np.array(sources, np.int32))


def bytes_of(pieces):
    """Each byte of pieces by its source and place."""
    return [(source, offset + n) for source, offset, length in pieces for n in range(length)]


@given(chosen=segment_lists, head=st.integers(0, 5), tail=st.integers(0, 30), data=st.data())
def test_a_range_is_made_of_its_bytes_in_order(chosen, head, tail, data):
    layout = Layout(segments_of(chosen), head=head, tail=tail)
    whole = bytes_of([(LITERAL, 0, head), *chosen, (LITERAL, head, tail)])
    assert layout.size == len(whole)
    start, stop = sorted((data.draw(st.integers(0, layout.size)), data.draw(st.integers(0, layout.size))))
    pieces = list(layout.pieces(start, stop))
    assert bytes_of(pieces) == whole[start:stop]
    assert all(length > 0 for _, _, length in pieces)


def test_more_segments_than_are_looked_at_at_a_time():
    count = 2500
    layout = Layout(segments_of([(0, 3 * n, 2) for n in range(count)]), head=4, tail=9)
    expected = [(LITERAL, 0, 4), *((0, 3 * n, 2) for n in range(count)), (LITERAL, 4, 9)]
    assert list(layout.pieces(0, layout.size)) == expected
    assert list(layout.pieces(4 + 2 * 2000 + 1, 4 + 2 * 2002)) == [(0, 6001, 1), (0, 6003, 2)]


def test_offsets_beyond_what_32_bits_hold():
    layout = Layout(segments_of([(0, 1 << 40, 1 << 36)]), head=4, tail=1)
    assert layout.size == 5 + (1 << 36)
    assert list(layout.pieces(1 << 35, (1 << 35) + 7)) == [(0, (1 << 40) + (1 << 35) - 4, 7)]


@given(pieces=piece_lists, chunk_size=st.integers(1, 100))
def test_chunks_have_the_size_asked_for(pieces, chunk_size):
    chunks = list(into_chunks(pieces, chunk_size))
    assert bytes_of(piece for chunk in chunks for piece in chunk) == bytes_of(pieces)
    sizes = [len(bytes_of(chunk)) for chunk in chunks]
    assert all(size == chunk_size for size in sizes[:-1])
    assert all(0 < size <= chunk_size for size in sizes[-1:])
    assert all(length > 0 for chunk in chunks for _, _, length in chunk)


@given(pieces=piece_lists, gap=st.integers(0, 30), size=st.integers(1, 120))
def test_blocks_cover_every_byte_once_in_order_and_within_their_bounds(pieces, gap, size):
    blocks = list(into_blocks(pieces, gap=gap, size=size))
    assert bytes_of(piece for block in blocks for piece in block.pieces) == bytes_of(pieces)
    for block in blocks:
        assert 0 < block.stop - block.start <= size
        wanted = {place for _, place in bytes_of(block.pieces)}
        assert (min(wanted), max(wanted) + 1) == (block.start, block.stop)
        assert {source for source, _, _ in block.pieces} == {block.source}
        unwanted = 0
        for place in range(block.start, block.stop):
            unwanted = 0 if place in wanted else unwanted + 1
            assert unwanted <= gap


@pytest.mark.parametrize(
    ("pieces", "ranges"),
    [
        ([(0, 0, 10), (0, 10, 10)], [(0, 0, 20)]),
        ([(0, 0, 10), (0, 15, 5)], [(0, 0, 20)]),
        ([(0, 0, 10), (0, 16, 5)], [(0, 0, 10), (0, 16, 21)]),
        ([(0, 15, 5), (0, 0, 10)], [(0, 0, 20)]),
        ([(0, 0, 10), (1, 10, 10)], [(0, 0, 10), (1, 10, 20)]),
        ([(0, 0, 250)], [(0, 0, 100), (0, 100, 200), (0, 200, 250)]),
        ([(0, 0, 90), (0, 90, 90)], [(0, 0, 100), (0, 100, 180)]),
    ],
    ids=["adjacent", "over a gap", "too wide a gap", "backwards", "another source", "too long", "filled up"],
)
def test_what_is_asked_for_together(pieces, ranges):
    blocks = into_blocks(pieces, gap=5, size=100)
    assert [(block.source, block.start, block.stop) for block in blocks] == ranges


@given(parts=st.lists(st.binary(max_size=40), max_size=12), chunk_size=st.integers(1, 50))
def test_bytes_are_cut_anew(parts, chunk_size):
    whole = b"".join(parts)
    chunks = list(rechunk(map(memoryview, parts), chunk_size))
    assert chunks == [whole[at : at + chunk_size] for at in range(0, len(whole), chunk_size)]
    assert all(type(chunk) is bytes for chunk in chunks)
