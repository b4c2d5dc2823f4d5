"""Parquet files that exist only as byte ranges of others."""

import asyncio
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from tabpfn_operators._objects import check_all_unchanged, read_trouble
from tabpfn_operators.errors import InvalidInputError, SourceChangedError, StorageError
from tabpfn_operators.splice._ranges import LITERAL, Block, Layout, Segments, into_blocks, into_chunks, rechunk
from tabpfn_operators.storage import StoredObject

#: Blocks asked for while another is used up. A PUT part from remote storage holds so many and one, of BLOCK_BYTES each:
#: 12 MiB, beside two chunks and what the store's own client needs to receive a block.
BLOCKS_AHEAD = 2
#: Seconds to wait for one block.
READ_SECONDS = 300.0
_HEAD = b"PAR1"


class VirtualParquet:
    """A Parquet file that exists only as byte ranges of others; safe for use from several threads.

    Nothing is open between calls. A call of `chunks` holds one file of this machine open, or, for remote storage,
    `BLOCKS_AHEAD` + 1 blocks of `BLOCK_BYTES` (12 MiB in all).

    Args:
        sources: The objects.
        segments: Their byte ranges, in order; each lies within its object.
        tail: What follows them: footer, its length, the magic bytes.
        schema: Arrow schema that a reader will see.
        num_rows: Rows.
    """

    def __init__(
        self, *, sources: Sequence[StoredObject], segments: Segments, tail: bytes, schema: Any, num_rows: int
    ) -> None:
        from fsspec.implementations.local import LocalFileSystem

        self.sources = tuple(sources)
        self.schema = schema
        self.num_rows = num_rows
        self._layout = Layout(segments, head=len(_HEAD), tail=len(tail))
        self._literals = memoryview(_HEAD + tail)
        self._local = all(isinstance(stored.fs, LocalFileSystem) for stored in self.sources)

    def __repr__(self) -> str:
        return f"VirtualParquet(size={self.size}, num_rows={self.num_rows}, sources={len(self.sources)})"

    @property
    def size(self) -> int:
        """Bytes, exactly."""
        return self._layout.size

    def read(self, offset: int, length: int) -> bytes:
        """Read a range, fetching no more than it needs.

        Args:
            offset: First byte.
            length: Bytes; less come back only at the end of the file.

        Returns:
            The bytes of [offset, offset + length).

        Raises:
            ValueError: An argument is negative.
            SourceChangedError: A source was written to meanwhile; run again when nobody does.
            InvalidInputError: A source is gone or may not be read; the message says which.
            StorageError: The storage did not answer; run again.
        """
        if offset < 0 or length < 0:
            raise ValueError(f"offset and length must not be negative, not {offset} and {length}")
        length = min(length, self.size - offset)
        return b"".join(self.chunks(length, offset, offset + length)) if length > 0 else b""

    def chunks(self, chunk_size: int, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Open the sources anew and read a range in order; closing the iterator stops all reads.

        Args:
            chunk_size: Bytes of each chunk but the last.
            start: First byte.
            stop: One past the last byte; None, or more than there are, reads to the end.

        Returns:
            The chunks.

        Raises:
            ValueError: An argument is out of range.
            SourceChangedError: A source was written to meanwhile; run again when nobody does.
            InvalidInputError: A source is gone or may not be read; the message says which.
            StorageError: The storage did not answer; run again.
        """
        stop = self.size if stop is None else min(stop, self.size)
        if chunk_size < 1 or start < 0 or stop < 0:
            raise ValueError(f"cannot read [{start}, {stop}) in chunks of {chunk_size} bytes")
        return self._local_chunks(chunk_size, start, stop) if self._local else self._remote(chunk_size, start, stop)

    def check_unchanged(self) -> None:
        """Look at every source again.

        Raises:
            SourceChangedError: One was written to since the file was planned; run again when nobody does.
            InvalidInputError: One is gone or may not be read; the message says which.
            StorageError: The storage did not answer; run again.
        """
        check_all_unchanged(self.sources)

    def _local_chunks(self, chunk_size: int, start: int, stop: int) -> Iterator[bytes]:
        with _LocalFiles(self.sources, self._literals) as files:
            for pieces in into_chunks(self._layout.pieces(start, stop), chunk_size):
                if len(pieces) == 1:
                    yield files.read(*pieces[0])  # joining would copy it
                else:
                    yield b"".join([files.read(*piece) for piece in pieces])

    def _remote(self, chunk_size: int, start: int, stop: int) -> Iterator[bytes]:
        with _Requests(self.sources) as requests:
            blocks = into_blocks(self._layout.pieces(start, stop))
            yield from rechunk(self._wanted(blocks, requests), chunk_size)

    def _wanted(self, blocks: Iterator[Block], requests: "_Requests") -> Iterator[memoryview]:
        """Yield what is wanted of each block, some blocks being on their way while one is used."""
        waiting: deque[tuple[Block, Future[bytes] | None]] = deque()
        for block in blocks:
            waiting.append((block, None if block.source == LITERAL else requests.start(block)))
            if len(waiting) > BLOCKS_AHEAD:
                yield from self._views(*waiting.popleft(), requests)
        while waiting:
            yield from self._views(*waiting.popleft(), requests)

    def _views(self, block: Block, answer: Future[bytes] | None, requests: "_Requests") -> Iterator[memoryview]:
        data, start = (self._literals, 0) if answer is None else (requests.finish(block, answer), block.start)
        for _, offset, length in block.pieces:
            yield data[offset - start : offset - start + length]


class _LocalFiles:
    """Sources on this machine, one of them open at a time: a virtual file goes through them in order."""

    def __init__(self, sources: Sequence[StoredObject], literals: memoryview) -> None:
        self._sources = sources
        self._literals = literals
        self._open = LITERAL
        self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._close()

    def read(self, source: int, offset: int, length: int) -> bytes:
        """Read a piece, whole."""
        if source == LITERAL:
            return bytes(self._literals[offset : offset + length])
        stored = self._sources[source]
        try:
            if source != self._open:
                self._close()
                self._descriptor, self._open = os.open(stored.path, os.O_RDONLY), source
            data = os.pread(self._descriptor, length, offset)
            while len(data) < length and (more := os.pread(self._descriptor, length - len(data), offset + len(data))):
                data += more  # Linux reads 2 GiB at most
        except OSError as error:
            raise read_trouble(stored, error) from None
        if len(data) < length:
            raise _shorter(stored)
        return data

    def _close(self) -> None:
        if self._open != LITERAL:
            os.close(self._descriptor)
            self._open = LITERAL


class _Requests:
    """Ranged requests to other storage: on fsspec's own loop where the filesystem has one, else in one thread."""

    def __init__(self, sources: Sequence[StoredObject]) -> None:
        self._sources = sources
        self._unfinished: set[Future[bytes]] = set()
        self._thread: ThreadPoolExecutor | None = None
        self._hangs = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for answer in self._unfinished:
            answer.cancel()
        if self._thread is not None:
            self._thread.shutdown(wait=not self._hangs, cancel_futures=True)

    def start(self, block: Block) -> "Future[bytes]":
        """Ask for a block."""
        stored = self._sources[block.source]
        fs = stored.fs
        try:
            if getattr(fs, "async_impl", False) and not getattr(fs, "asynchronous", False):
                # Unlike a thread in a blocking call, a request on the loop can be called off at once.
                request = fs._cat_file(stored.path, start=block.start, end=block.stop)  # noqa: SLF001 - fsspec's interface
                answer = asyncio.run_coroutine_threadsafe(request, fs.loop)
            else:
                self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="tabpfn-read")
                answer = self._thread.submit(fs.cat_file, stored.path, start=block.start, end=block.stop)
        except Exception as error:
            raise read_trouble(stored, error) from None
        self._unfinished.add(answer)
        return answer

    def finish(self, block: Block, answer: "Future[bytes]") -> memoryview:
        """Wait for a block, and see that it is whole."""
        stored = self._sources[block.source]
        try:
            data = answer.result(READ_SECONDS)
        except Exception as error:
            self._hangs = not answer.done()
            if self._hangs:
                raise StorageError(f"{stored.url}: no answer within {READ_SECONDS:.0f} s; run again.") from None
            raise read_trouble(stored, error) from None
        self._unfinished.discard(answer)
        wanted = block.stop - block.start
        if len(data) > wanted:
            raise InvalidInputError(
                f"{stored.url}: its storage does not serve byte ranges; copy it to storage that does."
            )
        if len(data) < wanted:
            raise _shorter(stored)
        return memoryview(data)


def _shorter(stored: StoredObject) -> SourceChangedError:
    stored.check_unchanged()
    return SourceChangedError(f"{stored.url} is shorter than it was; run again when nobody writes to it.")
