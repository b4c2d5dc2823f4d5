"""The part files of one shard: written here, named by their content, then put whole into the destination."""

import contextlib
import hashlib
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabpfn_assets import PartFile
from tabpfn_operators._stored import class_path
from tabpfn_operators.errors import DestinationError, InvalidInputError, SourceChangedError, TabPFNError
from tabpfn_operators.predictions import RowsToWrite, StoredPrediction, parquet_writer
from tabpfn_operators.scoring._folders import RowsByFolder
from tabpfn_operators.scoring._plan import Shard
from tabpfn_operators.storage import Folder, trouble

if TYPE_CHECKING:
    import pyarrow as pa

#: Their `put_file` completes an object last: a reader sees all of it or nothing.
_WHOLE = ("s3fs.core.S3FileSystem", "gcsfs.core.GCSFileSystem", "adlfs.spec.AzureBlobFileSystem")
_READ_BYTES = 1 << 20
#: Letters of a reason of Arrow's.
_REASON_LETTERS = 200
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
        InvalidInputError: The temporary folder is full; set TMPDIR to a larger disk. Or Parquet cannot hold a value
            that is kept; keep other columns, or cast them in the source.
        SourceChangedError: The source has other rows than were predicted; run again.
    """
    import pyarrow as pa

    with tempfile.TemporaryDirectory(prefix="tabpfn-part-", ignore_cleanup_errors=True) as place:
        try:
            with one_at_a_time():
                files, columns = _written(
                    Path(place), plan_id, shard, prediction, kept, fitted_train_set_id, partition_by
                )
        except pa.ArrowException as error:
            raise InvalidInputError(
                f"Shard {shard.name}: the predictions and what is kept beside them cannot be written as Parquet: "
                f"{_reason(error)}. They were billed; keep other columns, or cast them in the source, before you run "
                "again."
            ) from None
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
    if partition_by:
        with RowsByFolder(place, rows.schema, partition_by) as folders:
            for table in rows.groups():
                folders.add(table)
                del table
            named = tuple(_named(plan_id, shard, *each) for each in folders.files())
        return named, tuple(folders.schema.names)
    path = place / "part.parquet"
    with parquet_writer(path, rows.schema) as writer:
        for table in rows.groups():
            writer.write_table(table, row_group_size=table.num_rows)
            del table
    return (_named(plan_id, shard, "", path, prediction.columns.rows),), tuple(rows.schema.names)


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Let one shard of this process go through Arrow at a time, and give back what that took."""
    with _WRITING:
        try:
            yield
        finally:
            _release_memory()


def _release_memory() -> None:
    """Give back what Arrow's allocator, and the system's, keep for each thread that has used them."""
    import pyarrow as pa

    pa.default_memory_pool().release_unused()
    pa.system_memory_pool().release_unused()


def _reason(error: Exception) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0][:_REASON_LETTERS].rstrip(". ")


def _chain(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


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
