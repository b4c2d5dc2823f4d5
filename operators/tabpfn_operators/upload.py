"""Upload: check, make the bodies, transfer them."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from tabpfn_assets import FittedModel, SourceRef, Task, TestSet, TrainSet
from tabpfn_operators import _messages as messages
from tabpfn_operators import preflight
from tabpfn_operators._call import Session
from tabpfn_operators._messages import Body
from tabpfn_operators._run import Flow
from tabpfn_operators.account import get_settings
from tabpfn_operators.errors import ApiError, NotFoundError, StaleUploadError
from tabpfn_operators.parquet import column_problems, features_of
from tabpfn_operators.plan import TrainPlan, fingerprint_of, plan_train_set
from tabpfn_operators.progress import Progress, ProgressCallback
from tabpfn_operators.reading import Reading, is_spliceable, read_compression
from tabpfn_operators.refit import gone
from tabpfn_operators.server import ServerSettings, model_version_of
from tabpfn_operators.spool import Spool
from tabpfn_operators.tables._source import RowSource
from tabpfn_operators.transfer import Opening, transfer

#: A flow that refuses rows by raising, when they are counted and none has been sent.
Approve = Callable[[int], Flow[object]]

_TRAIN_SET = Opening(
    lambda infos, force: messages.prepare_train_set_upload(*infos, force_reupload=force),
    "train_set_upload_id",
    ("x_train_info", "y_train_info"),
)


def _test_set(fitted_train_set_id: str) -> Opening:
    return Opening(
        lambda infos, force: messages.prepare_test_set_upload(fitted_train_set_id, *infos, force_reupload=force),
        "test_set_upload_id",
        ("x_test_info",),
    )


async def plan(
    session: Session,
    reading: Reading,
    target: str,
    *,
    task: Task | None,
    features: Sequence[str] | None,
    exclude: Sequence[str],
    model_version: str | None,
) -> TrainPlan:
    """Ask the server for its limits and hold a source against them."""
    server = await get_settings(session)
    return await _held_against(
        session, server, reading, target, task=task, features=features, exclude=exclude, model_version=model_version
    )


async def _held_against(
    session: Session,
    server: ServerSettings,
    reading: Reading,
    target: str,
    *,
    task: Task | None,
    features: Sequence[str] | None,
    exclude: Sequence[str],
    model_version: str | None,
) -> TrainPlan:
    return await session.wire.call(
        lambda: plan_train_set(
            reading,
            target,
            task=task,
            features=features,
            exclude=exclude,
            limit=server.limit_for(model_version),
            largest_file=server.dataset_max_size_bytes,
        )
    )


async def upload_train_set(
    session: Session,
    reading: Reading,
    target: str,
    *,
    task: Task,
    features: Sequence[str] | None,
    exclude: Sequence[str],
    model_version: str | None,
    force_reupload: bool,
    checksum: bool | None,
    progress: ProgressCallback,
    before_sending: Callable[[TrainPlan], Awaitable[object]] | None = None,
) -> TrainSet:
    """Check a source against the server's limits, then send its features and its target."""
    server = await get_settings(session)
    planned = await _held_against(
        session, server, reading, target, task=task, features=features, exclude=exclude, model_version=model_version
    )
    planned.raise_problems()
    if before_sending is not None:
        await before_sending(planned)
    columns = (planned.feature_names, (target,))
    async with _bodies(session, reading, planned.table, columns, planned.bodies, progress=progress) as (x, y):
        _check_bytes(planned.table, server, x, y)
        sent = await transfer(
            session,
            _TRAIN_SET,
            (x, y),
            force_reupload=force_reupload,
            checksum=checksum,
            check_unchanged=planned.table.check_unchanged,
            progress=progress,
        )
        rows = y.num_rows
        fingerprint = await session.wire.call(fingerprint_of, planned.table, planned.feature_names, target)
    return TrainSet(
        train_set_upload_id=sent.upload_id,
        task=task,
        target=target,
        features=planned.features,
        classes=planned.classes,
        rows=rows,
        source=source_ref(planned.table, rows, fingerprint),
        bytes_sent=sent.bytes_sent,
        duplicate=sent.duplicate,
    )


async def upload_test_set(
    session: Session,
    model: FittedModel,
    reading: Reading,
    *,
    output_type: str,
    force_reupload: bool,
    checksum: bool | None,
    progress: ProgressCallback,
    approve: Approve | None = None,
    server: ServerSettings | None = None,
) -> TestSet:
    """Check a source against the model and the server's limits, then send the model's features."""
    server = server or await get_settings(session)
    table = await session.wire.call(reading.open)
    check_test_set(table, model, server, output_type, table.rows)
    names = model.feature_names
    planned = (await session.wire.call(table.virtual, names),) if is_spliceable(table) else None
    async with _bodies(session, reading, table, (names,), planned, progress=progress) as (x,):
        rows = x.num_rows
        if table.rows is None:
            check_test_set(table, model, server, output_type, rows)
        _check_bytes(table, server, x)
        if approve is not None:
            await approve(rows)
        try:
            sent = await transfer(
                session,
                _test_set(model.fitted_train_set_id),
                (x,),
                force_reupload=force_reupload,
                checksum=checksum,
                check_unchanged=table.check_unchanged,
                progress=progress,
            )
        except NotFoundError as error:
            raise gone(model, error) from None
        fingerprint = await session.wire.call(fingerprint_of, table, names, None)
    return TestSet(
        test_set_upload_id=sent.upload_id,
        fitted_train_set_id=model.fitted_train_set_id,
        rows=rows,
        source=source_ref(table, rows, fingerprint),
        bytes_sent=sent.bytes_sent,
        duplicate=sent.duplicate,
    )


#: What a refusal speaks of when the bytes behind an id are not what a 409 promised.
_OF_THE_BYTES = re.compile(r"upload|incomplete|not complete|arrived|crc32c|checksum|hash", re.IGNORECASE)


def is_stale(error: ApiError) -> bool:
    """Tell whether a refused fit or prediction blames the upload that a 409 had named (contract 3).

    Args:
        error: A 404 or 422, that is a call which was certainly not carried out.
    """
    return error.status == 404 or (error.status == 422 and bool(_OF_THE_BYTES.search(error.message)))


def stale_upload(error: ApiError, upload_id: str) -> StaleUploadError:
    """Build the error that says what to do about such an upload."""
    return StaleUploadError(
        f"{error.message.rstrip('. ')}. The server had named the upload {upload_id} as equal content, so nothing was "
        "sent; it never finished, or is gone. Upload again with force_reupload=True.",
        status=error.status,
        code=error.code,
        trace_id=error.trace_id,
    )


class TableBody(Body, Protocol):
    """A body that is a table."""

    @property
    def num_rows(self) -> int:
        """Rows."""


def check_test_set(
    table: RowSource, model: FittedModel, server: ServerSettings, output_type: str, rows: int | None
) -> None:
    """Refuse a test set that the model or the server would not take."""
    names = frozenset(table.names)
    present = [name for name in model.feature_names if name in names]
    problems = column_problems(table, present)
    if not problems:
        problems = preflight.schema_problems(model, features_of(table, present))
    config = model.parameters.config
    over = preflight.test_limit_problems(
        server.limit_for(model_version_of(config)),
        rows=rows or 0,
        columns=len(model.features),
        train_rows=model.rows,
        output_type=output_type,
        subsampled="SUBSAMPLE_SAMPLES" in (config.get("inference_config") or {}),
    )
    preflight.raise_problems(table.url, problems, over)


def _check_bytes(table: RowSource, server: ServerSettings, *files: Body) -> None:
    over = preflight.size_problems(server.dataset_max_size_bytes, *(file.size for file in files))
    preflight.raise_problems(table.url, (), over)


def source_ref(table: RowSource, rows: int, fingerprint: str) -> SourceRef:
    """Say where rows came from.

    Args:
        table: The source.
        rows: Rows that were taken of it.
        fingerprint: What `fingerprint_of` says of it.
    """
    return SourceRef(
        uris=tuple(stored.url for stored in table.objects),
        fingerprint=fingerprint,
        size_bytes=table.size,
        rows=rows,
        refined=bool(getattr(table, "refinement", "")),
    )


@asynccontextmanager
async def _bodies(
    session: Session,
    reading: Reading,
    table: RowSource,
    columns: Sequence[Sequence[str]],
    planned: Sequence[TableBody] | None,
    *,
    progress: ProgressCallback,
) -> AsyncIterator[Sequence[TableBody]]:
    """Yield the files to send: virtual ones as they were planned, else spooled ones."""
    if planned is not None:
        yield planned
        return
    spool = Spool(table, *columns, compression=read_compression(reading.recompress) or ("zstd", None))
    steps = spool.write()
    try:
        await session.wire.call(spool.open)
        # One batch at a call, so that a cancelled task stops after the batch and not after the table.
        while (rows := await session.wire.call(next, steps, None)) is not None:
            progress(Progress("prepare", rows, table.rows, "rows"))
        yield await session.wire.call(spool.files)
    finally:
        steps.close()
        spool.close()
