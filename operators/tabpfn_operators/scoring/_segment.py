"""Rows that have to be decoded, written to local files in one pass for all the shards that want them."""

import contextlib
import shutil
import tempfile
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabpfn_operators.errors import InvalidInputError, SourceChangedError
from tabpfn_operators.scoring._plan import Shard
from tabpfn_operators.scoring._rows import RowGroups, rows_of
from tabpfn_operators.spool import ROW_GROUP_BYTES, SpoolWriter, told_when_full
from tabpfn_operators.storage import StoredObject, look_up
from tabpfn_operators.tables._source import RowSource

if TYPE_CHECKING:
    from tabpfn_operators.splice import VirtualParquet
    from tabpfn_operators.splice._parts import PartFiles

#: Seconds after which one who waits for another's pass gives control back.
_SLICE_SECONDS = 0.2
_SENT, _KEPT = ".parquet", ".arrows"
_OVER = "the rows are not there any more: their cutter is closed"


@dataclass(frozen=True)
class Cut:
    """What is copied of a source's rows.

    Args:
        table: The source.
        features: Columns that are sent, in order.
        keep: Columns that are copied beside the predictions, in order; some may be features too.
        compression: Codec and level of the files that are sent; None for the codec's usual level.
    """

    table: RowSource
    features: tuple[str, ...]
    keep: tuple[str, ...]
    compression: tuple[str, int | None]

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns, each once."""
        return tuple(dict.fromkeys((*self.features, *self.keep)))


@dataclass(frozen=True)
class CopiedRows:
    """A shard's features in a local file, which bear the name and the identity of the source they are from.

    Args:
        base: The source.
        copy: The local file.
        schema: The source's Arrow schema of the features.
        start: First row in the source, counted from 0.
        rows: Rows.
    """

    base: RowSource
    copy: "PartFiles" = field(repr=False)
    schema: Any = field(repr=False)
    start: int
    rows: int

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features."""
        return tuple(self.schema.names)

    @property
    def url(self) -> str:
        """What messages call the source."""
        return self.base.url

    @property
    def size(self) -> int:
        """Bytes of the source."""
        return self.base.size

    @property
    def reason(self) -> str:
        """Why it was decoded."""
        return self.base.reason

    @property
    def objects(self) -> tuple[StoredObject, ...]:
        """The files of the source; of Parquet, those that the rows are in."""
        return self.base.objects

    @property
    def digests(self) -> tuple[str, ...]:
        """What is known of each."""
        return self.base.digests

    @property
    def refinement(self) -> str:
        """What was done to the rows, for the fingerprint."""
        return f"{getattr(self.base, 'refinement', '')} rows {self.start} to {self.start + self.rows}"

    def virtual(self, columns: Sequence[str] | None = None) -> "VirtualParquet":
        """Plan the file that has some of the columns."""
        return self.copy.virtual(columns)

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """Decode columns in bounded memory, in the order asked for, as Arrow record batches."""
        return self.copy.batches(columns)

    def check_unchanged(self) -> None:
        """Do nothing: the source was looked at after it was copied, and nobody else writes to the copy."""


@dataclass(eq=False)
class Turn:
    """Whose pass it is: one at a time bounds memory, however many shards are scored side by side.

    Args:
        changed: Held to look at or change whose turn it is, and what segments have.
        of: The segment that is being copied.
    """

    changed: threading.Condition = field(default_factory=threading.Condition)
    of: "Segment | None" = None


class Segment:
    """Shards whose rows come out of one pass over their source; safe for use from several threads.

    Args:
        cut: What is copied.
        shards: The shards, in order.
        wanted: Numbers of those that will be asked for.
        groups: The row groups of the source; None where it has none.
        turn: Shared by all segments.
    """

    def __init__(
        self, cut: Cut, shards: Sequence[Shard], wanted: Iterable[int], groups: RowGroups | None, turn: Turn
    ) -> None:
        self._cut = cut
        self._shards = {shard.index: shard for shard in shards}
        self._groups = groups
        self._ahead = set(wanted) & self._shards.keys()
        self._users: dict[int, int] = {}  # of the shards whose files are there
        self._turn = turn
        self._changed = turn.changed
        self._closed = False
        self._passes = self._failed = 0
        self._failure: Exception | None = None
        self._rows = 0
        self._folder: Path | None = None

    def prepare(self, shard: Shard) -> Generator[int, None, None]:
        """Copy what is not copied yet of the shards that are wanted, or wait for another who does.

        Yields:
            Rows copied so far, after each batch or some time.

        Raises:
            InvalidInputError: The source cannot be read to its end, or the temporary folder has too little room; see
                the message.
            SourceChangedError: The source was written to meanwhile; run again.
            StorageError: The storage did not answer; run again.
        """
        seen = 0
        while True:
            with self._changed:
                if self._closed:
                    raise RuntimeError(_OVER)
                if shard.index in self._users:
                    return
                if self._failure is not None and 0 < seen <= self._failed:
                    raise self._failure
                if self._turn.of is None:
                    self._turn.of = self
                    self._passes += 1
                    self._ahead.add(shard.index)
                    todo = [self._shards[index] for index in sorted(self._ahead)]
                    break
                if self._turn.of is self:
                    seen = self._passes
                self._changed.wait(_SLICE_SECONDS)
            yield self._rows
        failure: Exception | None = None
        done = False
        try:
            yield from self._copy(todo)
            done = True
        except Exception as error:
            failure = error
            raise
        finally:
            self._finish(todo, failure, done=done)

    def take(self, shard: Shard) -> CopiedRows:
        """Return a shard's features, copying them first where need be; the files stay until they are given back."""
        while True:
            for _ in self.prepare(shard):
                pass
            with self._changed:
                if shard.index in self._users:
                    self._users[shard.index] += 1
                    break
        try:
            return self._copied(shard)
        except BaseException:
            self.give_back(shard)
            raise

    def kept(self, shard: Shard) -> Iterator[Any]:
        """Read the kept columns of a shard that was taken, as Arrow record batches."""
        import pyarrow as pa

        if self._cut.keep:
            with pa.OSFile(str(self._file(shard, _KEPT))) as file, pa.ipc.open_stream(file) as batches:
                yield from batches

    def give_back(self, shard: Shard) -> None:
        """Remove the files of a shard that nobody else has taken."""
        with self._changed:
            if shard.index in self._users:
                self._users[shard.index] -= 1
                self._remove_unused(shard)

    def discard(self, shard: Shard) -> None:
        """Copy nothing for a shard that is not wanted any more, and remove what was copied unless it is taken."""
        with self._changed:
            self._ahead.discard(shard.index)
            self._remove_unused(shard)

    def close(self) -> None:
        """Stop a pass that is on its way, and remove everything."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._tidy()

    def _copy(self, todo: Sequence[Shard]) -> Generator[int, None, None]:
        cut, first, last = self._cut, todo[0].start, todo[-1].stop
        self._rows = position = 0
        self._make_folder(todo)
        batches = rows_of(cut.table, first, last, cut.columns)
        rest: Any = None
        with told_when_full(cut.table.url, lambda: self._rows):
            for shard in todo:
                begin, end = shard.start - first, shard.stop - first
                with _files(cut, self._file(shard, _SENT), self._file(shard, _KEPT)) as files:
                    while position < end:
                        if self._closed:
                            raise RuntimeError(_OVER)
                        if rest is None or not rest.num_rows:
                            rest = next(batches, None)
                        if rest is None:
                            raise self._shorter()
                        skipped, used = (min(row - position, rest.num_rows) for row in (max(begin, position), end))
                        files.write(rest.slice(skipped, used - skipped))
                        rest = rest.slice(used)
                        position += used
                        self._rows = position
                        yield position
        self._source(first, last).check_unchanged()

    def _source(self, start: int, stop: int) -> RowSource:
        """Return the files that hold the rows, where the source tells; else all of it."""
        return self._cut.table if self._groups is None else self._groups.overlapping(start, stop)

    def _shorter(self) -> SourceChangedError:
        table = self._cut.table
        table.check_unchanged()
        return SourceChangedError(f"{table.url} has fewer rows than when it was planned; plan again.")

    def _make_folder(self, todo: Sequence[Shard]) -> None:
        needed = self._bytes(todo)
        free = shutil.disk_usage(tempfile.gettempdir()).free
        url = self._cut.table.url
        if free < needed:
            raise InvalidInputError(
                f"{url}: about {needed:,} bytes of it have to be decoded and written anew, and the temporary folder "
                f"has {free:,} free; set TMPDIR to a larger disk, or write smaller row groups."
            )
        with told_when_full(url, lambda: 0):
            self._folder = self._folder or Path(tempfile.mkdtemp(prefix="tabpfn-"))

    def _bytes(self, todo: Sequence[Shard]) -> int:
        rows = sum(shard.rows for shard in todo)
        if self._groups is None:
            return self._cut.table.size * rows // sum(shard.rows for shard in self._shards.values())
        source = self._groups.overlapping(todo[0].start, todo[-1].stop)
        return source.virtual(self._cut.columns).size * rows // source.rows

    def _copied(self, shard: Shard) -> CopiedRows:
        import pyarrow as pa

        from tabpfn_operators.splice._parts import open_parts

        cut = self._cut
        return CopiedRows(
            base=self._source(shard.start, shard.stop),
            copy=open_parts([look_up(self._file(shard, _SENT), None)]),
            schema=pa.schema([cut.table.schema.field(name) for name in cut.features]),
            start=shard.start,
            rows=shard.rows,
        )

    def _finish(self, todo: Sequence[Shard], failure: Exception | None, *, done: bool) -> None:
        with self._changed:
            self._turn.of = None
            if failure is not None:
                self._failure, self._failed = failure, self._passes
            for shard in todo:
                if done and shard.index in self._ahead:
                    self._ahead.discard(shard.index)
                    self._users[shard.index] = 0
                else:
                    self._remove(shard)
            self._tidy()
            self._changed.notify_all()

    def _remove_unused(self, shard: Shard) -> None:
        if self._users.get(shard.index) == 0:
            del self._users[shard.index]
            self._remove(shard)
            self._tidy()

    def _remove(self, shard: Shard) -> None:
        if self._folder is not None:
            for kind in (_SENT, _KEPT):
                self._file(shard, kind).unlink(missing_ok=True)

    def _tidy(self) -> None:
        if self._folder is not None and self._turn.of is not self and (self._closed or not self._users):
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _file(self, shard: Shard, kind: str) -> Path:
        if self._folder is None:
            raise RuntimeError(_OVER)
        return self._folder / f"{shard.name}{kind}"


@contextlib.contextmanager
def _files(cut: Cut, sent: Path, kept: Path) -> Iterator["_Files"]:
    """Open the local files of one shard, and close them whatever happens."""
    import pyarrow as pa

    schema = cut.table.schema
    with contextlib.ExitStack() as stack:
        files = _Files(cut, stack.enter_context(SpoolWriter(sent, schema, cut.features, cut.compression)))
        if cut.keep:
            kinds = pa.schema([schema.field(name) for name in cut.keep])
            file = stack.enter_context(pa.OSFile(str(kept), "wb"))
            # Not Parquet, which changes some types on the way: these columns are to come out as they went in.
            files.kept = stack.enter_context(pa.ipc.new_stream(file, kinds))
        yield files
        files.flush()


class _Files:
    """The open files of one shard; what is sent gathers to row groups of the size a spool has."""

    def __init__(self, cut: Cut, sent: SpoolWriter) -> None:
        self.kept: Any = None
        self._cut = cut
        self._sent = sent
        self._pending: list[Any] = []
        self._bytes = 0

    def write(self, batch: Any) -> None:
        """Write a record batch with all columns."""
        if not batch.num_rows:
            return
        if self.kept is not None:
            self.kept.write_batch(batch.select(list(self._cut.keep)))
        self._pending.append(batch.select(list(self._cut.features)))
        self._bytes += self._pending[-1].nbytes
        if self._bytes >= ROW_GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what has gathered as one row group."""
        self._sent.write(self._pending)
        self._pending.clear()
        self._bytes = 0
