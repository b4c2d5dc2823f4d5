"""Score a source shard by shard: any number of workers share the work, and what is done is not done again."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from tabpfn_assets import EngineRun, PredictionSet, ScoredShard, ScoringPlan
from tabpfn_operators._call import Session, log
from tabpfn_operators.cost import charged, check_total_cost, usage_before
from tabpfn_operators.errors import (
    ConfigurationError,
    OutcomeUnknownError,
    QuotaExceededError,
    TabPFNError,
)
from tabpfn_operators.pacing import Pacing
from tabpfn_operators.places import new_owner
from tabpfn_operators.progress import Progress
from tabpfn_operators.quota import with_reset
from tabpfn_operators.scoring._cutter import Cutter
from tabpfn_operators.scoring._earlier import refuse_own_source, refuse_predictions
from tabpfn_operators.scoring._finish import finished, found_finished
from tabpfn_operators.scoring._ledger import Ledger, Look
from tabpfn_operators.scoring._manifest import damage, read_manifest
from tabpfn_operators.scoring._order import ScoringOrder
from tabpfn_operators.scoring._plan import Shard
from tabpfn_operators.scoring._planning import Planned, plan_scoring
from tabpfn_operators.scoring._queue import Queue
from tabpfn_operators.scoring._shard import Desk, LostError, Scored, SpentError, score_shard
from tabpfn_operators.scoring._terms import Terms
from tabpfn_operators.storage import Folder, folder

T = TypeVar("T")

#: A limit per hour (contract 4.3) ends within this; no shard fails because of a limit that passes.
_RATE_LIMIT_SECONDS = 3_900.0
_NAMED = 10
_SAY_RESEND = "on_unknown='resend' (--on-unknown resend) sends it again."
#: Sendings in a row, beside those in flight, that may come to nothing before no more are begun.
_IN_VAIN = 4


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
    if redact_labels and order.partition_by:
        raise ConfigurationError(
            "partition_by writes the names and values of columns into paths, which redact_labels is to keep out of the "
            "records; leave one of them out."
        )
    started = datetime.now(UTC)
    target, planned = await _opened(session, order, terms, expected)
    record = await session.wire.call(partial(found_finished, target, planned, redact_labels=redact_labels))
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
            confirm=work.confirm,
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
    await session.wire.call(partial(target.check_writable, keep=True))
    await session.wire.call(refuse_predictions, target)
    await session.wire.call(refuse_own_source, target, order.reading.source, planned.table)
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
        self._in_vain = 0
        self._cost = 0

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
        try:
            await call(self._ledger.enter)
            queue = await self._surveyed(shards)
            left = [shard for shard in shards if shard.index not in queue.done]
            billed = await self._scored(queue, left)
            await self._raise_failures(queue)
            # Nobody knows what earlier calls were charged for the others.
            total = billed if len(left) == len(shards) else None
            closed = await call(close, [queue.done[shard.index] for shard in shards], self._first, total)
        except Exception:
            await call(self._ledger.leave)
            raise
        except BaseException:
            self._ledger.leave()  # not over the wire, which a cancelled task cannot wait for
            raise
        await call(self._ledger.leave)
        return closed

    async def _scored(self, queue: Queue, left: Sequence[Shard]) -> int | None:
        """Score what is left; return what was charged for it."""
        if not left:
            return None
        cost = await self._priced(left)
        self._cost = cost or 0
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

    def confirm(self) -> None:
        """Raise where another plan has taken the destination over."""
        self._ledger.confirm()

    async def _surveyed(self, shards: Sequence[Shard]) -> Queue:
        """Find what is done, and hold its files against what was written down of them."""
        looks = await self._session.wire.call(self._ledger.survey, list(shards))
        done = [scored for scored in map(_done_before, looks) if scored is not None]
        done += await self._session.wire.call(self._forgotten, shards, looks)
        known = {scored.index for scored in done}
        queue = Queue(self._in_turn([shard for shard in shards if shard.index not in known]))
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

    def _forgotten(self, shards: Sequence[Shard], looks: Sequence[Look]) -> list[ScoredShard]:
        """Find what the manifest of this plan has and the ledger has not, because somebody has removed `_claims`."""
        unknown = {shard.index for shard, look in zip(shards, looks, strict=True) if look.entry is None}
        manifest = read_manifest(self._target) if unknown else None
        if manifest is None or manifest.plan.plan_id != self._planned.plan.plan_id:
            return []
        return [scored for scored in manifest.shards if scored.index in unknown]

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
            except SpentError as spent:
                queue.stop(spent.error)
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
                queue.freed(shard)

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
        self._in_vain = 0
        queue.finish(made.shard)

    async def _taken(self, shard: Shard, look: Look) -> bool:
        call, ledger = self._session.wire.call, self._ledger
        if look.state != "unknown":
            return await call(ledger.take, shard)
        price = self._planned.price(shard)
        cost = "at a price that nobody knows" if price is None else f"for about {price:,} tokens"
        told = f"Shard {shard.name} was sent {cost}, and nobody knows what came of it"
        if self._terms.on_unknown == "raise":
            raise _StaysUnknown(f"{told}; it was possibly charged. Look at the account's usage. {_SAY_RESEND}")
        if not await call(ledger.count_resend, shard, self._terms.resends):
            raise _StaysUnknown(
                f"{told}; all {self._terms.resends} resends of this scoring are used up. Look at the account's usage; "
                "a greater max_resends (--max-resends) sends it again."
            )
        log.warning("%s; it is sent again, and possibly charged twice.", told)
        return await call(partial(ledger.take, shard, resend=True))

    async def _doubted(self, queue: Queue, shard: Shard, error: OutcomeUnknownError) -> None:
        """Look again at a shard that was sent from here just now, unless it was not and is not to be sent again."""
        first = shard.index not in self._begun
        self._begun.add(shard.index)
        self._in_vain += 1
        if self._in_vain > self._terms.concurrency + _IN_VAIN:
            # All that was in flight, and some after it: the next would be charged in vain as well.
            queue.fail(shard, error)
            queue.stop(error)
            return
        if self._terms.on_unknown == "resend" and first and self._is_affordable():
            reason = error.message.partition(" after the request")[0].removeprefix(f"Shard {shard.name} ")
            log.warning("Shard %s: nobody knows what came of it (%s).", shard.name, reason.rstrip("."))
            queue.again(shard)
            return
        if self._terms.on_unknown == "raise":
            error.message += f" {_SAY_RESEND}"
            error.args = (error.message, *error.args[1:])
        queue.fail(shard, error)

    def _is_affordable(self) -> bool:
        """Tell whether `max_cost` has room for a second sending of all that were sent from here in vain."""
        if self._terms.max_cost is None:
            return True
        again = sum(self._planned.price(self._planned.shards[index]) or 0 for index in tuple(self._begun))
        return self._cost + again <= self._terms.max_cost

    def _tell(self, queue: Queue, shard: Shard | None = None) -> None:
        if shard is not None and shard.index not in queue.done:
            self._terms.progress(Progress("wait", 0, shard.rows, "rows", shard.index))
            return
        done = f"{len(queue.done):,} of {self._shards:,} shards"
        index = None if shard is None else shard.index
        self._terms.progress(Progress("score", queue.rows_done, self._rows, done, index))

    async def _raise_failures(self, queue: Queue) -> None:
        """Raise what ended the call, with what is done and what to do next."""
        if queue.error is None and not queue.failed:
            return
        kept = f"{len(queue.done)} of {self._shards} shards are done and kept."
        error = queue.error
        if error is None:
            error = next(iter(queue.failed.values()))
            names = ", ".join(f"{index:05d}" for index in sorted(queue.failed)[:_NAMED])
            more = f" and {len(queue.failed) - _NAMED} more" if len(queue.failed) > _NAMED else ""
            kept = f"Shards {names}{more} stay so. {kept}" if len(queue.failed) > 1 else kept
        if isinstance(error, QuotaExceededError):
            error = await with_reset(self._session, error)
        error.message = f"{error.message.rstrip('. ')}. {kept}"
        error.args = (error.message, *error.args[1:])
        raise error


def _done_before(look: Look) -> ScoredShard | None:
    return look.entry.scored if look.state == "done" and look.entry is not None else None
