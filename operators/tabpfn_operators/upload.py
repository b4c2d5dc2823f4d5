"""Upload: check, spool, prepare, put."""

import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tabpfn_assets import ClassLabel, FittedModel, SourceRef, Task, TestSet, TrainSet
from tabpfn_operators import _messages as messages
from tabpfn_operators import preflight
from tabpfn_operators._call import Session, call, log
from tabpfn_operators._messages import Body, PreparedUpload, UploadTicket
from tabpfn_operators.account import get_settings
from tabpfn_operators.errors import FittedModelNotFoundError, InvalidInputError, NotFoundError
from tabpfn_operators.parquet import (
    ParquetSource,
    column_problems,
    features_of,
    index_columns,
    open_parquet,
    profile_target,
    target_type_problem,
)
from tabpfn_operators.progress import Progress, ProgressCallback
from tabpfn_operators.server import ModelLimit, ServerSettings, model_version_of
from tabpfn_operators.spool import Spool, SpoolFile
from tabpfn_operators.storage import StorageOptions, source_fingerprint

#: Parts of one upload in flight at a time; memory is this times the wire's chunk.
PARALLEL_PARTS = 4


async def upload_train_set(
    session: Session,
    source: str,
    target: str,
    *,
    task: Task,
    features: Sequence[str] | None,
    exclude: Sequence[str],
    storage_options: StorageOptions | None,
    model_version: str | None,
    force_reupload: bool,
    progress: ProgressCallback,
) -> TrainSet:
    """Check a source against the server's limits, then send its features and its target."""
    server = await get_settings(session)
    opened = await session.wire.call(open_parquet, source, storage_options)
    limit = server.limit_for(model_version)
    columns = await session.wire.call(
        lambda: _checked_columns(opened, target, task=task, features=features, exclude=exclude, limit=limit)
    )
    async with _spooled(session, opened, columns.features, (target,), progress=progress) as (x, y):
        _check_bytes(opened, server, x, y)
        request = messages.prepare_train_set_upload(
            messages.file_info(x.size, x.crc32c), messages.file_info(y.size, y.crc32c), force_reupload=force_reupload
        )
        answer = await call(session, request, accept=(409,))
        prepared = messages.read_prepared(answer, request.label, "train_set_upload_id", "x_train_info", "y_train_info")
        sent = await _put(session, prepared, (x, y), progress)
    fingerprint = source_fingerprint(opened.stored, opened.footer, columns.features, target)
    return TrainSet(
        train_set_upload_id=prepared.upload_id,
        task=task,
        target=target,
        features=features_of(opened, columns.features),
        classes=columns.classes,
        rows=opened.rows,
        source=_source_ref(opened, fingerprint),
        bytes_sent=sent,
        duplicate=prepared.duplicate,
    )


async def upload_test_set(
    session: Session,
    model: FittedModel,
    source: str,
    *,
    output_type: str,
    storage_options: StorageOptions | None,
    force_reupload: bool,
    progress: ProgressCallback,
) -> TestSet:
    """Check a source against the model and the server's limits, then send the model's features."""
    server = await get_settings(session)
    opened = await session.wire.call(open_parquet, source, storage_options)
    _check_test_set(opened, model, server, output_type)
    async with _spooled(session, opened, model.feature_names, progress=progress) as (x,):
        _check_bytes(opened, server, x)
        info = messages.file_info(x.size, x.crc32c)
        request = messages.prepare_test_set_upload(model.fitted_train_set_id, info, force_reupload=force_reupload)
        try:
            answer = await call(session, request, accept=(409,))
        except NotFoundError as error:
            raise FittedModelNotFoundError(
                f"The server does not know the fitted model {model.fitted_train_set_id}: it is gone or another "
                "account's. Fit again, or use that account's token.",
                status=error.status,
                code=error.code,
                trace_id=error.trace_id,
            ) from None
        prepared = messages.read_prepared(answer, request.label, "test_set_upload_id", "x_test_info")
        sent = await _put(session, prepared, (x,), progress)
    fingerprint = source_fingerprint(opened.stored, opened.footer, model.feature_names, None)
    return TestSet(
        test_set_upload_id=prepared.upload_id,
        fitted_train_set_id=model.fitted_train_set_id,
        rows=opened.rows,
        source=_source_ref(opened, fingerprint),
        bytes_sent=sent,
        duplicate=prepared.duplicate,
    )


@dataclass(frozen=True)
class _Columns:
    features: tuple[str, ...]
    classes: tuple[ClassLabel, ...] | None


def _checked_columns(
    source: ParquetSource,
    target: str,
    *,
    task: Task,
    features: Sequence[str] | None,
    exclude: Sequence[str],
    limit: ModelLimit,
) -> _Columns:
    chosen, problems = preflight.select_features(
        source.names, target=target, features=features, exclude=exclude, index_columns=index_columns(source)
    )
    has_target = target in source.names
    problems += column_problems(source, (*chosen, *((target,) if has_target else ())))
    classes, count = None, None
    if has_target and not problems:
        problem = target_type_problem(source, target, task)
        problems += [problem] if problem else []
    if has_target and not problems:
        profile = profile_target(source, target, task)
        classes, count = profile.classes, None if profile.classes is None else len(profile.classes)
        problems += preflight.target_problems(
            target, task, rows=source.rows, nulls=profile.nulls, classes=count, more_classes=profile.more_classes
        )
    over = preflight.train_limit_problems(limit, rows=source.rows, columns=len(chosen), classes=count)
    preflight.raise_problems(source.url, problems, over)
    return _Columns(chosen, classes)


def _check_test_set(source: ParquetSource, model: FittedModel, server: ServerSettings, output_type: str) -> None:
    present = [name for name in model.feature_names if name in source.names]
    problems = column_problems(source, present)
    if not problems:
        problems = preflight.schema_problems(model, features_of(source, present))
    config = model.parameters.config
    over = preflight.test_limit_problems(
        server.limit_for(model_version_of(config)),
        rows=source.rows,
        columns=len(model.features),
        train_rows=model.rows,
        output_type=output_type,
        subsampled="SUBSAMPLE_SAMPLES" in (config.get("inference_config") or {}),
    )
    preflight.raise_problems(source.url, problems, over)


def _check_bytes(source: ParquetSource, server: ServerSettings, *files: SpoolFile) -> None:
    limit = server.dataset_max_size_bytes
    largest = max(file.size for file in files)
    if limit is not None and largest > limit:
        over = f"{largest:,} bytes to send, the server takes {limit:,} in one file; send fewer rows or columns"
        preflight.raise_problems(source.url, (), (over,))


def _source_ref(source: ParquetSource, fingerprint: str) -> SourceRef:
    return SourceRef(uris=(source.url,), fingerprint=fingerprint, size_bytes=source.stored.size, rows=source.rows)


@asynccontextmanager
async def _spooled(
    session: Session, source: ParquetSource, *columns: Sequence[str], progress: ProgressCallback
) -> AsyncIterator[tuple[SpoolFile, ...]]:
    spool = Spool(source, *columns)
    await session.wire.call(spool.open)
    steps = spool.write()
    try:
        # One batch at a call, so that a cancelled task stops after the batch and not after the table.
        while (rows := await session.wire.call(next, steps, None)) is not None:
            progress(Progress("prepare", rows, source.rows, "rows"))
        yield await session.wire.call(spool.files)
    finally:
        steps.close()
        spool.close()


class _Counted:
    """A body that reports the bytes read from it; parts report from several threads."""

    def __init__(self, body: Body, report: Callable[[int], None]) -> None:
        self._body = body
        self._report = report

    @property
    def size(self) -> int:
        return self._body.size

    def chunks(self, chunk_size: int, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        for chunk in self._body.chunks(chunk_size, start, stop):
            yield chunk
            self._report(len(chunk))


async def _put(
    session: Session, prepared: PreparedUpload, bodies: Sequence[SpoolFile], progress: ProgressCallback
) -> int:
    """Put every part of every file; 0 bytes when the server has the content."""
    if prepared.duplicate:
        log.info("The server has this content as %s; nothing is sent.", prepared.upload_id)
        return 0
    total = sum(body.size for body in bodies)
    lock = threading.Lock()
    done = 0

    def report(count: int) -> None:
        nonlocal done
        with lock:
            done = min(done + count, total)  # a part that is sent again counts once
            progress(Progress("upload", done, total, "bytes"))

    requests = [
        request
        for body, ticket in zip(bodies, prepared.tickets, strict=True)
        for request in _part_requests(body, ticket, report)
    ]
    for request in requests:
        _check_storage_url(session, request.url)
    await session.wire.gather(
        [lambda request=request: call(session, request) for request in requests],  # type: ignore[misc]  # bound per loop
        PARALLEL_PARTS,
    )
    return total


def _part_requests(body: Body, ticket: UploadTicket, report: Callable[[int], None]) -> Iterator[messages.Request]:
    parts = messages.split_into_parts(body, len(ticket.signed_urls))
    for number, (url, part) in enumerate(zip(ticket.signed_urls, parts, strict=True), start=1):
        label = f"PUT of part {number} of {len(parts)}"
        yield messages.put_part(url, ticket.required_headers, _Counted(part, report), label=label)


def _check_storage_url(session: Session, url: str) -> None:
    """Refuse to send data unencrypted (design.md, promise 5)."""
    from tabpfn_operators.settings import is_loopback

    settings = session.settings
    if url.startswith("https://") or settings.allow_http or is_loopback(settings.base_url):
        return
    raise InvalidInputError("The server named an upload URL that is not https; nothing was sent. Is base_url right?")
