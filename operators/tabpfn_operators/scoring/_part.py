"""The part files of one shard: written here, named by their content, then put whole into the destination."""

import contextlib
import hashlib
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tabpfn_assets import PartFile
from tabpfn_operators._stored import class_path
from tabpfn_operators.errors import DestinationError, InvalidInputError, SourceChangedError, TabPFNError
from tabpfn_operators.predictions import RowsToWrite, StoredPrediction, parquet_writer
from tabpfn_operators.scoring._partitions import by_folder
from tabpfn_operators.scoring._plan import Shard
from tabpfn_operators.storage import Folder, trouble

if TYPE_CHECKING:
    import pyarrow as pa

#: Their `put_file` completes an object last: a reader sees all of it or nothing.
_WHOLE = ("s3fs.core.S3FileSystem", "gcsfs.core.GCSFileSystem", "adlfs.spec.AzureBlobFileSystem")
_READ_BYTES = 1 << 20
#: Arrow bytes that wait for more rows of their folder.
_WAITING_BYTES = 16 << 20
#: Shards are written one at a time: allocators keep memory for each thread that ever was at it (measured with four in
#: flight: 55 to 80 MiB, else 100 to 130), and a second would not be faster than the server's rate.
_WRITING = threading.Lock()


@dataclass(frozen=True)
class WrittenParts:
    """Part files on this machine.

    Args:
        files: Where each is, and what it will be in the destination.
        columns: Their columns.
    """

    files: tuple[tuple[Path, PartFile], ...]
    columns: tuple[str, ...]


@contextlib.contextmanager
def written_parts(
    plan_id: str,
    shard: Shard,
    prediction: StoredPrediction,
    kept: "Iterator[pa.RecordBatch]",
    *,
    fitted_train_set_id: str,
    partition_by: Sequence[str] = (),
) -> Iterator[WrittenParts]:
    """Write a shard's predictions into temporary files.

    Args:
        plan_id: The plan.
        shard: The shard.
        prediction: Its predictions.
        kept: Batches of the columns that are kept; none where nothing is.
        fitted_train_set_id: The model.
        partition_by: Kept columns whose values become folders.

    Yields:
        The files, which go with the context: one, or one for each folder.

    Raises:
        InvalidInputError: The temporary folder is full; set TMPDIR to a larger disk.
        SourceChangedError: The source has other rows than were predicted; run again.
    """
    with tempfile.TemporaryDirectory(prefix="tabpfn-part-", ignore_cleanup_errors=True) as place:
        try:
            with _WRITING:
                try:
                    files, columns = _written(
                        Path(place), plan_id, shard, prediction, kept, fitted_train_set_id, partition_by
                    )
                finally:
                    _release_memory()
        except ValueError as error:
            raise SourceChangedError(
                f"Shard {shard.name}: {error}; was it written to meanwhile? Run again when nobody does. The prediction "
                "was billed."
            ) from None
        except OSError as error:
            raise InvalidInputError(
                f"The temporary folder takes no more of the predictions ({type(error).__name__}). They were billed; "
                "set TMPDIR to a larger disk before you run again."
            ) from None
        yield WrittenParts(files, columns)


def _written(
    place: Path,
    plan_id: str,
    shard: Shard,
    prediction: StoredPrediction,
    kept: "Iterator[pa.RecordBatch]",
    fitted_train_set_id: str,
    partition_by: Sequence[str],
) -> tuple[tuple[tuple[Path, PartFile], ...], tuple[str, ...]]:
    first = next(kept, None)
    beside = None if first is None else _chain(first, kept)
    rows = RowsToWrite(prediction.columns, fitted_train_set_id=fitted_train_set_id, kept=beside)
    with _Writers(place, rows.schema, partition_by) as writers:
        for table in rows.groups():
            writers.write(table)
            del table
    return tuple(_named(plan_id, shard, *each) for each in writers.finished()), tuple(writers.schema.names)


def _release_memory() -> None:
    """Give back what Arrow's allocator, and the system's, keep for each thread that has used them."""
    import pyarrow as pa

    pa.default_memory_pool().release_unused()
    pa.system_memory_pool().release_unused()


def _chain(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


@dataclass
class _File:
    path: Path
    rows: int = 0
    waiting: "list[pa.Table]" = field(default_factory=list)
    writer: Any = None


class _Writers:
    """One file, or one for each folder; rows of a folder wait for more, so that row groups are not tiny."""

    def __init__(self, place: Path, schema: "pa.Schema", partition_by: Sequence[str]) -> None:
        import pyarrow as pa

        self._place = place
        self._names = tuple(partition_by)
        self._files: dict[str, _File] = {}
        self._waiting = 0
        self.schema = pa.schema([each for each in schema if each.name not in self._names], metadata=schema.metadata)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *raised: object) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(self._close, stopped=kind is not None)
            if kind is None:
                self._flush()

    def write(self, table: "pa.Table") -> None:
        """Take rows of the size of a row group."""
        parts = by_folder(table, self._names) if self._names else (("", table),)
        for folder, rows in parts:
            file = self._files.setdefault(folder, _File(self._place / f"{len(self._files)}.parquet"))
            file.waiting.append(rows)
            file.rows += rows.num_rows
            self._waiting += rows.nbytes
        if not self._names or self._waiting > _WAITING_BYTES:
            self._flush()

    def finished(self) -> Iterator[tuple[str, Path, int]]:
        """Yield each file's folder, place and rows."""
        for folder, file in sorted(self._files.items()):
            yield folder, file.path, file.rows

    def _close(self, *, stopped: bool) -> None:
        for file in self._files.values():
            # What stopped the writing says more than that a footer could not follow.
            with contextlib.suppress(OSError) if stopped else contextlib.nullcontext():
                if file.writer is not None:
                    file.writer.close()

    def _flush(self) -> None:
        import pyarrow as pa

        for file in self._files.values():
            if not file.waiting:
                continue
            group = pa.concat_tables(file.waiting)
            file.writer = file.writer or parquet_writer(file.path, self.schema)
            file.writer.write_table(group.replace_schema_metadata(self.schema.metadata), row_group_size=group.num_rows)
            file.waiting.clear()
        self._waiting = 0


def _named(plan_id: str, shard: Shard, folder: str, path: Path, rows: int) -> tuple[Path, PartFile]:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_READ_BYTES):
            digest.update(chunk)
    name = f"part-{plan_id[:8]}-{shard.name}-{digest.hexdigest()[:12]}.parquet"
    name = f"{folder}/{name}" if folder else name
    return path, PartFile(name=name, rows=rows, size_bytes=path.stat().st_size, sha256=digest.hexdigest())


def put(folder: Folder, path: Path, part: PartFile) -> None:
    """Put a part file into the destination, whole or not at all.

    Args:
        folder: The destination.
        path: The file on this machine.
        part: What it becomes.

    Raises:
        DestinationError: It cannot be written there; correct path or credentials.
        StorageError: The storage did not answer; put it again.
    """
    target = f"{folder.path}/{part.name}"
    try:
        if any(class_path(folder.fs, name) for name in _WHOLE):
            folder.fs.put_file(str(path), target)
            return
        folder.fs.makedirs(target.rpartition("/")[0], exist_ok=True)
        with folder.replacing(part.name) as copy, path.open("rb") as source:
            shutil.copyfileobj(source, copy, _READ_BYTES)
    except TabPFNError:
        raise
    except Exception as error:
        raise trouble(folder.url, error, "written to", DestinationError) from None
