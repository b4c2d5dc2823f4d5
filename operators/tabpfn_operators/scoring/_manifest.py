"""The manifest that closes a scoring: made, read, held against the files, and what it makes superfluous removed."""

import contextlib
import hashlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

from tabpfn_assets import PartFile, Resend, ScoredShard, ScoringManifest, ScoringPlan
from tabpfn_operators._call import log
from tabpfn_operators._objects import side_by_side
from tabpfn_operators._stored import decoded, is_local, names_in, read_fresh
from tabpfn_operators.errors import DestinationError, InvalidInputError, TabPFNError
from tabpfn_operators.predict import MANIFEST_FILE
from tabpfn_operators.scoring._entries import CLAIMS_FOLDER, uncached
from tabpfn_operators.scoring._presence import alive_leases
from tabpfn_operators.storage import Folder, trouble

#: Part files of any plan, and what a writer that was killed has left of one (`Folder.replacing`); no one else's files.
_PART = re.compile(r"part-[0-9a-f]{8}-\d{5,}-[0-9a-f]{12}\.parquet|part-[0-9a-f]{8}-\d{5,}\S*\.[0-9a-f]{32}\.tmp")
_PLAN = re.compile(r"[0-9a-f]{32}")
#: Bytes of a file that are in memory at a time while it is checked.
_READ_BYTES = 2 * 2**20
_PARQUET = b"PAR1"
#: Names in a message.
_NAMED = 10


def build(
    plan: ScoringPlan,
    columns: Sequence[str],
    shards: Sequence[ScoredShard],
    *,
    started_at: datetime,
    finished_at: datetime,
    charged: int | None = None,
) -> ScoringManifest:
    """Make the manifest of a scoring whose every shard is done.

    Args:
        plan: What was to be done.
        columns: Columns of the predictions.
        shards: What was done, in any order.
        started_at: When the first worker began.
        finished_at: When the last shard was done.
        charged: Tokens that it cost, where that is known.

    Returns:
        The manifest; each sending of unknown outcome is named in it.

    Raises:
        InvalidInputError: A shard is missing, there twice, or has other rows than its files or its place; score it.
    """
    ordered = sorted(shards, key=lambda shard: shard.index)
    _refuse_gaps(plan, ordered)
    costs = [shard.estimated_cost for shard in ordered]
    known = [cost for cost in costs if cost is not None]
    return ScoringManifest(
        plan=plan,
        columns=tuple(columns),
        shards=tuple(ordered),
        rows=plan.rows,
        estimated_cost=sum(known) if len(known) == len(costs) else None,
        charged=charged,
        resends=tuple(
            Resend(shard=shard.index, estimated_cost=shard.estimated_cost)
            for shard in ordered
            for _ in range(shard.resends)
        ),
        started_at=started_at,
        finished_at=finished_at,
    )


def _refuse_gaps(plan: ScoringPlan, ordered: Sequence[ScoredShard]) -> None:
    found = [shard.index for shard in ordered]
    missing = sorted(set(range(plan.shards)) - set(found))
    if missing:
        named = ", ".join(map(str, missing[:_NAMED])) + (", ..." if len(missing) > _NAMED else "")
        raise InvalidInputError(f"{len(missing)} of {plan.shards} shards are not scored ({named}); score them first.")
    if len(found) != plan.shards:
        raise InvalidInputError(f"There are {len(found)} shards for a plan of {plan.shards}; name each once.")
    start = 0
    for shard in ordered:
        if shard.start != start or sum(file.rows for file in shard.files) != shard.rows:
            raise InvalidInputError(
                f"Shard {shard.index} has {sum(file.rows for file in shard.files):,} rows in its files and begins at "
                f"row {shard.start:,}; {shard.rows:,} rows from row {start:,} on were to be there. Score it again."
            )
        start += shard.rows
    if start != plan.rows:
        raise InvalidInputError(f"The shards have {start:,} rows, and the plan {plan.rows:,}; plan the scoring anew.")


def read_manifest(folder: Folder) -> ScoringManifest | None:
    """Read the manifest of a destination from the storage, never from a cache.

    Args:
        folder: The destination.

    Returns:
        The manifest; None where there is none, and what is there is unfinished.

    Raises:
        RecordUnreadableError: It may not be read or is damaged; the message says which.
        StorageError: The storage did not answer; run again.
    """
    content = read_fresh(uncached(folder.fs), f"{folder.path}/{MANIFEST_FILE}")
    return None if content is None else decoded(content, ScoringManifest, folder.file_url(MANIFEST_FILE))


def write_manifest(folder: Folder, manifest: ScoringManifest) -> None:
    """Write the manifest: whoever finds it there finds the whole scoring.

    Args:
        folder: The destination.
        manifest: The manifest.

    Raises:
        DestinationError: It cannot be written there; correct path or credentials and run again, which scores nothing.
    """
    with folder.replacing(MANIFEST_FILE) as file:
        file.write(manifest.model_dump_json(indent=2).encode() + b"\n")


def verified(folder: Folder, scored: ScoredShard) -> str | None:
    """Hold the files of a shard against what was written down of them, by reading them in pieces.

    Args:
        folder: The destination.
        scored: The shard.

    Returns:
        What is wrong, in words for a log; None where all is right.

    Raises:
        DestinationError: A file may not be read; correct path or credentials.
        StorageError: The storage did not answer; run again.
    """
    if sum(file.rows for file in scored.files) != scored.rows:
        return f"shard {scored.index} has not {scored.rows:,} rows in its files"
    fs = uncached(folder.fs)
    for file in scored.files:
        try:
            wrong = _wrong(fs, f"{folder.path}/{file.name}", file)
        except FileNotFoundError:
            wrong = "is missing"
        except Exception as error:
            raise trouble(folder.file_url(file.name), error, "read", DestinationError) from None
        if wrong is not None:
            return f"{file.name} {wrong}"
    return None


def damage(folder: Folder, shards: Sequence[ScoredShard]) -> list[str | None]:
    """Hold the files of many shards against what was written down of them, several at a time.

    Args:
        folder: The destination.
        shards: The shards.

    Returns:
        For each what `verified` says.

    Raises:
        DestinationError: As in `verified`.
        StorageError: As in `verified`.
    """
    return side_by_side(lambda scored: verified(folder, scored), shards, folder.fs)


def _wrong(fs: Any, path: str, file: PartFile) -> str | None:
    fs.invalidate_cache(path)
    size = fs.info(path)["size"]
    if size != file.size_bytes:
        return f"has {size:,} bytes instead of {file.size_bytes:,}"
    digest = hashlib.sha256()
    tail = b""
    for piece in _pieces(fs, path, file.size_bytes):
        digest.update(piece)
        tail = piece if len(piece) == _READ_BYTES else (tail + piece)[-_READ_BYTES:]
    if digest.hexdigest() != file.sha256:
        return "has another content (SHA-256)"
    rows = _footer_rows(fs, path, tail, file.size_bytes)
    return None if rows == file.rows else f"has {rows:,} rows instead of {file.rows:,}"


def _pieces(fs: Any, path: str, size: int) -> Iterator[bytes]:
    if is_local(fs):
        with open(path, "rb") as file:
            while piece := file.read(_READ_BYTES):
                yield piece
        return
    for start in range(0, size, _READ_BYTES):
        yield fs.cat_file(path, start=start, end=min(start + _READ_BYTES, size))


def _footer_rows(fs: Any, path: str, tail: bytes, size: int) -> int:
    """Return the rows that a Parquet footer names; -1 where there is no footer."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    needed = int.from_bytes(tail[-8:-4], "little") + 8
    if tail[-4:] != _PARQUET or needed > size:
        return -1
    if needed > len(tail):
        tail = fs.cat_file(path, start=size - needed, end=size)
    try:
        rows: int = pq.read_metadata(pa.BufferReader(tail)).num_rows
    except pa.ArrowException:
        return -1
    return rows


def tidy(folder: Folder, manifest: ScoringManifest, *, clock: Callable[[], float] = time.time) -> None:
    """Remove part files that the manifest does not name, and the claims of other plans; what fails is logged.

    Call it before `Ledger.leave`. Nothing is removed while a worker of another plan is there; what a writer has left of
    a file of this plan is, if no other worker of it is there.

    Args:
        folder: The destination, whose manifest is in place.
        manifest: The manifest.
        clock: Epoch seconds.
    """
    fs = uncached(folder.fs)
    mine = manifest.plan.plan_id
    try:
        claims = f"{folder.path}/{CLAIMS_FOLDER}"
        others = [name for name in names_in(fs, claims) if _PLAN.fullmatch(name) and name != mine]
        parts = _superfluous(folder, manifest, now=clock())
        if any(alive_leases(folder, plan_id, now=clock()) for plan_id in others):
            log.warning("Nothing was removed from %s, since another scoring is at work there.", folder.url)
            return
        for name in parts:
            with contextlib.suppress(FileNotFoundError):  # another worker of the plan tidies up as well
                fs.rm_file(f"{folder.path}/{name}")
        for plan_id in others:
            with contextlib.suppress(FileNotFoundError):
                fs.rm(f"{claims}/{plan_id}", recursive=True)
    except TabPFNError as error:
        log.warning("What %s makes superfluous could not be removed: %s", folder.file_url(MANIFEST_FILE), error)
    except Exception as error:
        # Not its text: it is the storage's own, and may hold a signed URL.
        shown = folder.file_url(MANIFEST_FILE)
        log.warning("What %s makes superfluous could not be removed (%s).", shown, type(error).__name__)


def _superfluous(folder: Folder, manifest: ScoringManifest, *, now: float) -> list[str]:
    named = {file.name for shard in manifest.shards for file in shard.files}
    plan_id = manifest.plan.plan_id
    parts = [name for name in _part_files(uncached(folder.fs), folder.path) if name not in named]
    unfinished = [name for name in parts if f"part-{plan_id[:8]}-" in name and name.endswith(".tmp")]
    if unfinished and len(alive_leases(folder, plan_id, now=now)) > 1:
        return [name for name in parts if name not in unfinished]
    return parts


def _part_files(fs: Any, path: str) -> Iterator[str]:
    """Yield the part files of a destination and of the partitions below it (`day=7/`), relative to it."""
    fs.invalidate_cache(path)
    for info in fs.ls(path, detail=True):
        name = str(info["name"]).rstrip("/").rpartition("/")[2]
        if info["type"] == "directory":
            if "=" in name:
                yield from (f"{name}/{below}" for below in _part_files(fs, f"{path}/{name}"))
        elif _PART.fullmatch(name):
            yield name
