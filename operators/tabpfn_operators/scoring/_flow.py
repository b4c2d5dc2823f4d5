"""Score a source shard by shard: any number of workers share the work, and what is done is not done again."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Literal, TypeVar, get_args

from tabpfn_assets import EngineRun, PredictionSet, ScoredShard, ScoringPlan
from tabpfn_operators._call import Session, log
from tabpfn_operators.cost import charged, check_total_cost, usage_before
from tabpfn_operators.errors import ConfigurationError, OutcomeUnknownError, QuotaExceededError, TabPFNError
from tabpfn_operators.pacing import Pacing
from tabpfn_operators.places import new_owner
from tabpfn_operators.pricing import check_max_cost
from tabpfn_operators.progress import Progress, ProgressCallback
from tabpfn_operators.quota import with_reset
from tabpfn_operators.reading import Compression
from tabpfn_operators.scoring._cutter import Cutter
from tabpfn_operators.scoring._finish import finished, found_finished
from tabpfn_operators.scoring._ledger import Ledger, Look
from tabpfn_operators.scoring._manifest import damage
from tabpfn_operators.scoring._order import ScoringOrder
from tabpfn_operators.scoring._plan import Shard
from tabpfn_operators.scoring._planning import Planned, plan_scoring
from tabpfn_operators.scoring._queue import Queue
from tabpfn_operators.scoring._shard import Desk, LostError, Scored, score_shard
from tabpfn_operators.storage import Folder, StorageOptions, folder

T = TypeVar("T")

OnUnknown = Literal["resend", "raise"]
#: Predictions in flight where nobody says: the server's limit of calls per minute is reached with fewer.
CONCURRENCY = 4
#: A limit per hour (contract 4.3) ends within this; no shard fails because of a limit that passes.
_RATE_LIMIT_SECONDS = 3_900.0
_NAMED = 10


@dataclass(frozen=True)
class Terms:
    """How a scoring is carried out; its results do not depend on it.

    Args:
        destination: fsspec URL or path of a folder.
        destination_options: fsspec options of the destination; used, never recorded.
        concurrency: Shards in flight.
        on_unknown: What is done with a shard of which nobody knows whether it was carried out.
        max_resends: Shards of the plan that may be sent again for that, over all workers and reruns.
        max_cost: The most tokens that what is left to do may cost; None asks nothing.
        recompress: Codec and level of rows that are written anew.
        checksum: As in `upload_test_set`.
        allow_unsafe_store: Take a destination on which two workers may both get a shard.
        progress: Called with rows scored, and with the steps of each shard.
    """

    destination: str = field(repr=False)
    destination_options: StorageOptions | None = field(repr=False)
    concurrency: int
    on_unknown: OnUnknown
    max_resends: int | None
    max_cost: int | None
    recompress: Compression | None
    checksum: bool | None
    allow_unsafe_store: bool
    progress: ProgressCallback = field(repr=False)

    def check(self) -> None:
        """Refuse terms that are none.

        Raises:
            ConfigurationError: The message names which.
        """
        check_max_cost(self.max_cost)
        if type(self.concurrency) is not int or self.concurrency < 1:
            raise ConfigurationError(f"concurrency is a whole number of at least 1, not {self.concurrency!r}.")
        if self.on_unknown not in get_args(OnUnknown):
            raise ConfigurationError(f"on_unknown is one of {', '.join(get_args(OnUnknown))}, not {self.on_unknown!r}.")
        if self.max_resends is not None and (type(self.max_resends) is not int or self.max_resends < 0):
            raise ConfigurationError(f"max_resends is a whole number, 0 or more; not {self.max_resends!r}.")

    @property
    def resends(self) -> int:
        """Shards that may be sent again: as many as one killed process can have had in flight."""
        return self.concurrency if self.max_resends is None else self.max_resends


async def score(
    session: Session,
    order: ScoringOrder,
    terms: Terms,
    *,
    expected: ScoringPlan | None = None,
    run: EngineRun | None,
    redact_labels: bool,
) -> PredictionSet:
    """Score all shards that are not done, then close the scoring with its manifest."""
    terms.check()
    started = datetime.now(UTC)
    target, planned = await _opened(session, order, terms, expected)
    record = await session.wire.call(found_finished, target, planned)
    if record is not None:
        log.info("%s holds this scoring already; nothing is sent.", target.url)
        shards = f"{planned.plan.shards:,} of {planned.plan.shards:,} shards"
        terms.progress(Progress("score", planned.plan.rows, planned.plan.rows, shards))
        return record
    work = _Work(session, order, terms, target, planned)

    def close(shards: list[ScoredShard], first: Scored | None, cost: int | None) -> PredictionSet:
        return finished(
            target,
            order,
            planned,
            shards,
            first=first,
            started_at=started,
            charged=cost,
            run=run,
            redact_labels=redact_labels,
        )

    return await work.carry_out(planned.shards, close)


async def score_shards(
    session: Session, order: ScoringOrder, terms: Terms, indices: Iterable[int], *, expected: ScoringPlan | None
) -> tuple[ScoredShard, ...]:
    """Score some shards that are not done; `score` closes the scoring when all are."""
    terms.check()
    target, planned = await _opened(session, order, terms, expected)
    chosen = sorted(set(indices))
    wrong = [index for index in chosen if not 0 <= index < len(planned.shards)]
    if wrong:
        raise ConfigurationError(f"There is no shard {wrong[0]}; the plan has {len(planned.shards)}, counted from 0.")
    work = _Work(session, order, terms, target, planned)
    return await work.carry_out([planned.shards[index] for index in chosen], lambda shards, *_: tuple(shards))


async def _opened(
    session: Session, order: ScoringOrder, terms: Terms, expected: ScoringPlan | None
) -> tuple[Folder, Planned]:
    target = await session.wire.call(folder, terms.destination, terms.destination_options)
    planned = await plan_scoring(session, order, expected=expected)
    await session.wire.call(target.check_writable)
    return target, planned


class _StaysUnknown(Exception):  # noqa: N818 - it is caught in this module
    """A shard is not sent again.

    Args:
        message: Why, and what to do.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.error = OutcomeUnknownError(message)


class _Work:
    """One call's share of a scoring."""

    def __init__(self, session: Session, order: ScoringOrder, terms: Terms, target: Folder, planned: Planned) -> None:
        policy = replace(session.policy, budget=max(session.policy.budget, _RATE_LIMIT_SECONDS))
        self._session = replace(session, policy=policy, pacing=session.pacing or Pacing())
        self._order = order
        self._terms = terms
        self._target = target
        self._planned = planned
        self._ledger = Ledger(target, planned.plan.plan_id, new_owner(), allow_unsafe_store=terms.allow_unsafe_store)
        self._first: Scored | None = None
        self._shards = self._rows = 0
        self._begun: set[int] = set()

    async def carry_out(
        self, shards: Sequence[Shard], close: Callable[[list[ScoredShard], Scored | None, int | None], T]
    ) -> T:
        """Bring shards to their end.

        Args:
            shards: Shards of the plan.
            close: Is given what was done, also by others, in order; one shard that was scored here; and what was
                charged. The destination is this plan's until it returns.

        Returns:
            What `close` returned.
        """
        call = self._session.wire.call
        self._shards, self._rows = len(shards), sum(shard.rows for shard in shards)
        await call(self._ledger.enter)
        try:
            queue = await self._surveyed(shards)
            billed = await self._scored(queue, [shard for shard in shards if shard.index not in queue.done])
            await self._raise_failures(queue)
            return await call(close, [queue.done[shard.index] for shard in shards], self._first, billed)
        finally:
            # Not over the wire, which a cancelled task cannot wait for.
            self._ledger.leave()

    async def _scored(self, queue: Queue, left: Sequence[Shard]) -> int | None:
        """Score what is left; return what was charged for it."""
        if not left:
            return None
        cost = await self._priced(left)
        before = None if self._terms.max_cost is None else await usage_before(self._session)
        with Cutter(
            self._planned.table,
            self._planned.shards,
            wanted=[shard.index for shard in left],
            features=self._order.model.feature_names,
            keep=self._order.keep,
            recompress=self._terms.recompress,
        ) as cutter:
            desk = Desk(
                self._session,
                self._order,
                self._planned,
                self._target,
                self._ledger,
                cutter,
                self._terms.checksum,
                self._terms.progress,
            )
            workers = min(self._terms.concurrency, len(left))
            await self._session.wire.gather([partial(self._serve, desk, queue)] * workers, workers)
        return await charged(self._session, before, cost, billed=True)

    async def _surveyed(self, shards: Sequence[Shard]) -> Queue:
        """Find what is done, and hold its files against what was written down of them."""
        looks = await self._session.wire.call(self._ledger.survey, list(shards))
        queue = Queue(self._in_turn([s for s, look in zip(shards, looks, strict=True) if not _done_before(look)]))
        done = [scored for scored in map(_done_before, looks) if scored is not None]
        for scored, wrong in zip(done, await self._session.wire.call(damage, self._target, done), strict=True):
            if wrong is None:
                queue.finish(scored)
                continue
            shard = self._planned.shards[scored.index]
            log.warning("Shard %s was done and %s; it is scored again, and charged again.", shard.name, wrong)
            await self._session.wire.call(self._ledger.redo, shard)
            queue.again(shard)
        self._tell(queue)
        return queue

    def _in_turn(self, shards: Sequence[Shard]) -> list[Shard]:
        """Begin elsewhere than others do, so that fifty processes do not ask for the same shard."""
        first = int(hashlib.sha256(self._ledger.owner.encode()).hexdigest(), 16) % len(shards) if shards else 0
        return [*shards[first:], *shards[:first]]

    async def _priced(self, left: Sequence[Shard]) -> int | None:
        prices = [self._planned.price(shard) for shard in left]
        cost = None if None in prices else sum(price or 0 for price in prices)
        if self._terms.max_cost is not None:
            rows = sum(shard.rows for shard in left)
            await check_total_cost(self._session, cost, rows=rows, calls=len(left), max_cost=self._terms.max_cost)
        return cost

    async def _serve(self, desk: Desk, queue: Queue) -> None:
        """Work until nothing is left, or something went wrong that concerns every shard."""
        while True:
            upcoming = queue.next()
            if upcoming.others:
                await self._look_at_others(queue, upcoming.others)
                continue
            if upcoming.shard is None:
                if upcoming.wait is None:
                    return
                await self._session.wire.sleep(min(upcoming.wait, 1.0))
                continue
            try:
                await self._settle(desk, queue, upcoming.shard)
            except LostError:
                queue.later(upcoming.shard)
            except _StaysUnknown as stays:
                queue.fail(upcoming.shard, stays.error)
            except OutcomeUnknownError as error:
                await self._doubted(queue, upcoming.shard, error)
            except TabPFNError as error:
                queue.stop(error)
            self._tell(queue, upcoming.shard)

    async def _look_at_others(self, queue: Queue, shards: Sequence[Shard]) -> None:
        try:
            looks = await self._session.wire.call(self._ledger.survey, list(shards))
        except TabPFNError as error:
            queue.stop(error)
            return
        for shard, look in zip(shards, looks, strict=True):
            if look.state != "busy":
                queue.again(shard)

    async def _settle(self, desk: Desk, queue: Queue, shard: Shard) -> None:
        call, ledger = self._session.wire.call, self._ledger
        look = await call(ledger.look, shard)
        scored = _done_before(look)
        if scored is not None:
            await call(desk.cutter.discard, shard)
            queue.finish(scored)
            return
        if look.state == "busy" or not await self._taken(shard, look):
            queue.later(shard)
            return
        self._terms.progress(Progress("prepare", 0, shard.rows, "rows", shard.index))
        made = await score_shard(desk, shard)
        self._first = self._first or made
        queue.finish(made.shard)

    async def _taken(self, shard: Shard, look: Look) -> bool:
        call, ledger = self._session.wire.call, self._ledger
        if look.state != "unknown":
            return await call(ledger.take, shard)
        price = self._planned.price(shard)
        cost = "at a price that nobody knows" if price is None else f"for about {price:,} tokens"
        told = f"Shard {shard.name} was sent {cost}, and nobody knows what came of it"
        if self._terms.on_unknown == "raise":
            raise _StaysUnknown(
                f"{told}; it was possibly charged. Look at the account's usage; on_unknown='resend' sends it again."
            )
        if not await call(ledger.count_resend, shard, self._terms.resends):
            raise _StaysUnknown(
                f"{told}; all {self._terms.resends} resends of this scoring are used up. Look at the account's usage; "
                "a greater max_resends sends it again."
            )
        log.warning("%s; it is sent again, and possibly charged twice.", told)
        return await call(partial(ledger.take, shard, resend=True))

    async def _doubted(self, queue: Queue, shard: Shard, error: OutcomeUnknownError) -> None:
        """Look again at a shard that was sent from here just now, unless it was not and is not to be sent again."""
        if self._terms.on_unknown == "resend" and shard.index not in self._begun:
            self._begun.add(shard.index)
            log.warning("Shard %s: %s", shard.name, error.message)
            queue.again(shard)
        else:
            queue.fail(shard, error)

    def _tell(self, queue: Queue, shard: Shard | None = None) -> None:
        done = f"{len(queue.done):,} of {self._shards:,} shards"
        index = None if shard is None else shard.index
        self._terms.progress(Progress("score", queue.rows_done, self._rows, done, index))

    async def _raise_failures(self, queue: Queue) -> None:
        """Raise what ended the call, with what is done and what to do next."""
        if queue.error is None and not queue.failed:
            return
        total = self._planned.plan.shards
        kept = f"{len(queue.done)} of {total} shards are done and kept; run again for the rest."
        error = queue.error
        if error is None:
            error = next(iter(queue.failed.values()))
            names = ", ".join(f"{index:05d}" for index in sorted(queue.failed)[:_NAMED])
            more = f" and {len(queue.failed) - _NAMED} more" if len(queue.failed) > _NAMED else ""
            kept = f"Shards {names}{more} stay so. {kept}" if len(queue.failed) > 1 else kept
        if isinstance(error, QuotaExceededError):
            error = await with_reset(self._session, error)
        error.message = f"{error.message.rstrip()} {kept}"
        error.args = (error.message, *error.args[1:])
        raise error


def _done_before(look: Look) -> ScoredShard | None:
    return look.entry.scored if look.state == "done" and look.entry is not None else None
