"""Score one shard: take it, upload, predict once, write, and say so in the ledger."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from tabpfn_assets import ScoredShard
from tabpfn_operators._call import Session, log
from tabpfn_operators.errors import (
    AccessDeniedError,
    AuthenticationError,
    ConnectionFailedError,
    FittedModelNotFoundError,
    NotFoundError,
    OutcomeUnknownError,
    QuotaExceededError,
    RateLimitedError,
    RequestRejectedError,
    ServerError,
    StaleUploadError,
    StorageError,
    TabPFNError,
    UpgradeRequiredError,
)
from tabpfn_operators.predict import Made, upload_and_predict
from tabpfn_operators.progress import Progress, ProgressCallback, ignore
from tabpfn_operators.reading import Reading
from tabpfn_operators.scoring._cutter import Cutter
from tabpfn_operators.scoring._kept import kept_here
from tabpfn_operators.scoring._ledger import Ledger
from tabpfn_operators.scoring._order import ScoringOrder
from tabpfn_operators.scoring._part import WrittenParts, put, written_parts
from tabpfn_operators.scoring._partitions import check_folders
from tabpfn_operators.scoring._plan import Shard
from tabpfn_operators.scoring._planning import Planned
from tabpfn_operators.storage import Folder

#: What refuses a call before it is carried out; whatever else ends one leaves its outcome unknown.
_REFUSALS = (
    AccessDeniedError,
    AuthenticationError,
    ConnectionFailedError,
    FittedModelNotFoundError,
    NotFoundError,
    QuotaExceededError,
    RateLimitedError,
    RequestRejectedError,
    StaleUploadError,
    UpgradeRequiredError,
)
#: Seconds before a part file, which is paid for, is put again.
_PUT_AGAIN = (1.0, 5.0, 20.0)
#: The server's words that every shard would repeat.
_SAME_IN_ALL = frozenset({"classes", "tabpfn_config"})


class LostError(Exception):
    """Another worker has the shard by now."""


class SpentError(Exception):
    """A shard was carried out, and its predictions cannot be kept: those of the next could not be either.

    Args:
        error: What is told.
    """

    def __init__(self, error: OutcomeUnknownError) -> None:
        super().__init__(error.message)
        self.error = error


@dataclass(frozen=True)
class Desk:
    """What every shard of one call is scored with.

    Args:
        session: The session.
        order: What is asked for.
        planned: The plan.
        folder: The destination.
        ledger: Its books.
        cutter: Gives the rows of a shard.
        checksum: As in `upload_test_set`.
        progress: Called with the steps of each shard.
    """

    session: Session
    order: ScoringOrder
    planned: Planned = field(repr=False)
    folder: Folder
    ledger: Ledger = field(repr=False)
    cutter: Cutter = field(repr=False)
    checksum: bool | None = None
    progress: ProgressCallback = field(default=ignore, repr=False)


class _Sending:
    """Writes into the ledger what becomes of the billed call."""

    def __init__(self, desk: Desk, shard: Shard) -> None:
        self._desk = desk
        self._shard = shard
        self.sent = False

    async def sending(self) -> None:
        """Write that it is about to be sent."""
        if not await self._desk.session.wire.call(self._desk.ledger.send, self._shard):
            raise LostError
        self.sent = True

    async def not_carried_out(self) -> None:
        """Write that it was not carried out, so that a kill while it waits leaves no doubt."""
        self.sent = False
        if not await self._desk.session.wire.call(self._desk.ledger.unsend, self._shard):
            raise LostError


@dataclass(frozen=True)
class Scored:
    """A shard that this call has scored.

    Args:
        shard: What the ledger has of it.
        columns: Columns of its file.
        metadata: All that the server said.
    """

    shard: ScoredShard
    columns: tuple[str, ...]
    metadata: Mapping[str, Any]


async def score_shard(desk: Desk, shard: Shard) -> Scored:
    """Score a shard that is taken.

    Args:
        desk: What it is scored with.
        shard: The shard.

    Returns:
        The shard, its files in place and in the ledger.

    Raises:
        LostError: Another worker has taken it over.
        OutcomeUnknownError: It was sent, and nobody knows what came of it.
        SpentError: It was carried out in vain; no other shard is to be sent.
        TabPFNError: Any other that upload, prediction or destination end with; the ledger says whether it was sent.
    """
    sending = _Sending(desk, shard)
    wire = desk.session.wire
    try:
        async with _rows(desk, shard) as rows, _predicted(desk, shard, rows, sending) as made:
            scored = await _kept(desk, shard, rows, made)
    except LostError:
        await wire.call(desk.ledger.free, shard)
        raise
    except TabPFNError as error:
        refused = not sending.sent or isinstance(error, _REFUSALS)
        await wire.call(desk.ledger.free if refused else desk.ledger.doubt, shard)
        if not refused and await wire.call(_is_done, desk, shard):
            raise LostError from None
        if refused or isinstance(error, OutcomeUnknownError):
            raise
        told = OutcomeUnknownError(
            f"Shard {shard.name} was sent and probably charged, but its predictions are not there: {error.message}",
            status=error.status,
            code=error.code,
            trace_id=error.trace_id,
        )
        # A server that failed may do better next time; a full disk or an answer of another shape would cost again.
        raise (told if isinstance(error, ServerError) else SpentError(told)) from None
    except Exception as error:
        if not sending.sent:
            raise
        await wire.call(desk.ledger.doubt, shard)
        bug = OutcomeUnknownError(
            f"Shard {shard.name} was sent and probably charged, and this package failed with its predictions "
            f"({type(error).__name__}); report it."
        )
        raise SpentError(bug) from error
    return scored


def _is_done(desk: Desk, shard: Shard) -> bool:
    """Tell whether another has done it meanwhile, as where this process stood still."""
    with contextlib.suppress(TabPFNError):
        return desk.ledger.look(shard).state == "done"
    return False


@dataclass(frozen=True)
class _Rows:
    """What is sent of a shard, and what reads the columns that are kept of it."""

    reading: Reading
    kept: Callable[[], Iterator[Any]]


@contextlib.asynccontextmanager
async def _rows(desk: Desk, shard: Shard) -> AsyncIterator[_Rows]:
    wire = desk.session.wire
    steps = desk.cutter.steps(shard)
    try:
        while (copied := await wire.call(next, steps, None)) is not None:
            desk.progress(Progress("prepare", copied, None, f"{copied:,} rows copied", shard.index))
            await wire.sleep(0)  # where a stop is looked at
    finally:
        steps.close()
    rows = await wire.call(desk.cutter.open, shard)
    kept = contextlib.ExitStack()
    try:
        read = await wire.call(lambda: kept.enter_context(kept_here(rows.kept)))
        if partition_by := desk.planned.plan.partition_by:
            await wire.call(lambda: check_folders(read(), partition_by, f"Shard {shard.name}"))
        yield _Rows(rows.reading, read)
    finally:
        kept.close()
        rows.close()


def _predicted(
    desk: Desk, shard: Shard, rows: _Rows, sending: _Sending
) -> contextlib.AbstractAsyncContextManager[Made]:
    return upload_and_predict(
        desk.session,
        desk.order.model,
        rows.reading,
        output_type=desk.order.output_type,
        quantiles=desk.order.quantiles,
        max_cost=None,
        checksum=desk.checksum,
        progress=lambda step: desk.progress(replace(step, shard=shard.index)),
        wide=desk.order.wide,
        watch=sending,
        server=desk.planned.server,
    )


async def _kept(desk: Desk, shard: Shard, rows: _Rows, made: Made) -> Scored:
    """Write the predictions and put them in place; what is paid for is not given up at the first refusal."""
    plan = desk.planned.plan
    with contextlib.ExitStack() as stack:
        parts: WrittenParts = await _again(
            desk,
            lambda: stack.enter_context(
                written_parts(
                    plan.plan_id,
                    shard,
                    made.prediction,
                    rows.kept(),
                    fitted_train_set_id=plan.fitted_train_set_id,
                    partition_by=plan.partition_by,
                )
            ),
        )
        # Another plan that has taken the destination over would find it among its own.
        await _again(desk, desk.ledger.confirm)
        for path, file in parts.files:
            await _again(desk, partial(put, desk.folder, path, file))
        metadata = made.prediction.metadata
        scored = ScoredShard(
            index=shard.index,
            start=shard.start,
            rows=shard.rows,
            files=tuple(file for _, file in parts.files),
            test_set_upload_id=made.test_set.test_set_upload_id,
            estimated_cost=desk.planned.price(shard),
            timings=dict(made.prediction.timings),
            metadata={key: value for key, value in metadata.items() if key not in _SAME_IN_ALL},
            scored_at=datetime.now(UTC),
        )
        told = await _again(desk, lambda: desk.ledger.finish(shard, scored))
    return Scored(told, parts.columns, metadata)


async def _again(desk: Desk, work: Any) -> Any:
    for wait in _PUT_AGAIN:
        try:
            return await desk.session.wire.call(work)
        except StorageError as error:
            log.warning("%s It is tried again in %.0f s.", error.message, wait)
            await desk.session.wire.sleep(wait)
    return await desk.session.wire.call(work)
