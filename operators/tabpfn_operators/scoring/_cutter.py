"""The rows of each shard, ready to be sent: bytes of the source where they can be moved, else a local copy."""

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from tabpfn_operators import preflight
from tabpfn_operators.reading import Compression, Reading, is_spliceable, read_compression
from tabpfn_operators.scoring._plan import Shard
from tabpfn_operators.scoring._rows import GroupsOfParts, RowGroups
from tabpfn_operators.scoring._segment import Cut, Segment, Turn
from tabpfn_operators.tables._source import RowSource


@dataclass(frozen=True, eq=False)
class _OpenedReading(Reading):
    """What is to be sent, when it has been opened already."""

    table: RowSource | None = field(default=None, repr=False)

    def open(self, *, keep: bool = False) -> RowSource:  # noqa: ARG002 - it always is kept
        """Return the table."""
        if self.table is None:
            raise RuntimeError("there is no table")
        return self.table


class ShardRows:
    """One shard's rows; a context manager that removes what was written for them.

    Args:
        table: The rows, which can be spliced.
        rows: How many.
        kept: Opens the kept columns.
        close: Removes temporary files.

    Attributes:
        reading: What an upload takes; opening it gives a table of exactly these rows, which can be spliced, and which
            names only the files that they are in.
        rows: Rows.
    """

    def __init__(
        self, table: RowSource, rows: int, kept: Callable[[], Iterator[Any]], close: Callable[[], None] | None
    ) -> None:
        self.reading: Reading = _OpenedReading(table.url, table=table)
        self.rows = rows
        self._kept = kept
        self._close = close

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def kept(self) -> Iterator[Any]:
        """Read the columns that are copied beside the predictions, any number of times.

        Yields:
            Arrow record batches of these rows, in order; none where no column is kept.

        Raises:
            InvalidInputError: The source cannot be read to its end; the message says why.
            SourceChangedError: It was written to since it was planned; run again.
            StorageError: The storage did not answer; run again.
        """
        return self._kept()

    def close(self) -> None:
        """Remove the temporary files of this shard."""
        close, self._close = self._close, None
        if close is not None:
            close()


class Cutter:
    """Cuts the rows of shards out of their source; safe for use from several threads, and a context manager.

    A shard that is a run of whole row groups is moved as bytes, and nothing is written here. The others are decoded:
    those of one large row group in one pass over it, those of a source that cannot be spliced in one over all of it,
    which writes a temporary file for each shard that is wanted.

    Args:
        table: The source.
        shards: All its shards, in order.
        wanted: Numbers of those that will be opened here; a pass copies no others.
        features: Columns that are sent, in order.
        keep: Columns that are copied beside the predictions, in order; one may be a feature too.
        recompress: Codec and level of what is written here; None takes zstd.

    Raises:
        InvalidInputError: A column is not there, or there more than once; correct the name.
    """

    def __init__(
        self,
        table: RowSource,
        shards: Sequence[Shard],
        *,
        wanted: Iterable[int],
        features: Sequence[str],
        keep: Sequence[str],
        recompress: Compression | None = None,
    ) -> None:
        counts = Counter(table.names)
        problems = [
            f"column {name!r} is {'there more than once; rename one' if counts[name] else 'not there; check the name'}"
            for name in dict.fromkeys((*features, *keep))
            if counts[name] != 1
        ]
        preflight.raise_problems(table.url, problems)
        compression = read_compression(recompress) or ("zstd", None)
        self._cut = Cut(table, tuple(features), tuple(keep), compression)
        self._groups = RowGroups.of(table) if is_spliceable(table) else None
        chosen = frozenset(wanted)
        runs = [list(shards)] if self._groups is None else list(_runs(self._groups, shards))
        self._segments: dict[int, Segment] = {}
        turn = Turn()
        for run in runs:
            segment = Segment(self._cut, run, chosen, self._groups, turn)
            self._segments.update(dict.fromkeys((shard.index for shard in run), segment))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def steps(self, shard: Shard) -> Generator[int, None, None]:
        """Do what `open` would wait for, a batch at a time, so that one who is told to stop can.

        A generator that is left before its end has to be closed, since others may wait for its pass. In a pool of few
        threads all callers go by steps or none does: those blocked in `open` may hold the threads that the steps need.

        Args:
            shard: The shard that is to be opened next.

        Yields:
            Rows copied so far.

        Raises:
            InvalidInputError: The source cannot be read to its end, or the temporary folder has too little room; see
                the message.
            SourceChangedError: The source was written to since it was planned; run again.
            StorageError: The storage did not answer; run again.
        """
        segment = self._segments.get(shard.index)
        if segment is not None:
            yield from segment.prepare(shard)

    def open(self, shard: Shard) -> ShardRows:
        """Give a shard's rows, waiting for the pass that copies them where there has to be one.

        Args:
            shard: One of the shards; also one that was not named as wanted, or was closed before: it takes a pass anew.

        Returns:
            The rows, to be closed when the shard is done.

        Raises:
            InvalidInputError: The source cannot be read to its end, or the temporary folder has too little room; see
                the message.
            SourceChangedError: The source was written to since it was planned; run again.
            StorageError: The storage did not answer; run again.
        """
        segment = self._segments.get(shard.index)
        if segment is not None:
            table: RowSource = segment.take(shard)
            return ShardRows(table, shard.rows, lambda: segment.kept(shard), lambda: segment.give_back(shard))
        if self._groups is None:
            raise ValueError(f"there is no shard {shard.name}")
        moved = self._groups.overlapping(shard.start, shard.stop)
        return ShardRows(moved, shard.rows, lambda: _moved_columns(moved, self._cut.keep), None)

    def discard(self, shard: Shard) -> None:
        """Forget a shard that is not wanted any more, for instance because another process has done it.

        Args:
            shard: The shard; one that is open stays until it is closed.
        """
        segment = self._segments.get(shard.index)
        if segment is not None:
            segment.discard(shard)

    def close(self) -> None:
        """Stop what is on its way and remove what is left."""
        for segment in {id(each): each for each in self._segments.values()}.values():
            segment.close()


def _runs(groups: RowGroups, shards: Iterable[Shard]) -> Iterator[list[Shard]]:
    """Yield the shards that have to be decoded, together where they share a row group."""
    run: list[Shard] = []
    for shard in shards:
        if groups.whole(shard) is not None:
            continue
        if run and (run[-1].stop != shard.start or groups.first(shard.start) != groups.first(shard.start - 1)):
            yield run
            run = []
        run.append(shard)
    if run:
        yield run


def _moved_columns(moved: GroupsOfParts, keep: Sequence[str]) -> Iterator[Any]:
    if keep:
        yield from moved.batches(keep)
        # An upload has looked at the files; these columns are read later than that.
        moved.check_unchanged()
