"""Batch scoring spread over an engine's workers: the methods of both clients, side by side."""

from collections.abc import Iterable, Sequence

from tabpfn_assets import FittedModel, ScoredShard, ScoringPlan
from tabpfn_operators import scoring
from tabpfn_operators._run import run as run_flow
from tabpfn_operators.client._base import AsyncBase, SyncBase, same_docstrings
from tabpfn_operators.progress import ProgressCallback, ignore
from tabpfn_operators.reading import Casts, Compression, Filters, Reading, Table
from tabpfn_operators.scoring import CONCURRENCY, OnUnknown, Terms
from tabpfn_operators.sources import Source
from tabpfn_operators.storage import StorageOptions


class FanOutMethods(SyncBase):
    """A scoring spread over an engine's workers."""

    def plan_score(
        self,
        model: FittedModel,
        source: Source | Table,
        *,
        output_type: str | None = None,
        quantiles: Sequence[float] | None = None,
        keep: Sequence[str] = (),
        wide: bool = True,
        partition_by: Sequence[str] = (),
        allow_extra: bool = False,
        rows_per_shard: int | None = None,
        storage_options: StorageOptions | None = None,
        filters: Filters | None = None,
        casts: Casts | None = None,
    ) -> ScoringPlan:
        """Say how a source would be cut into predictions, and what they cost; nothing is sent but free questions.

        The same source, model and options give the same plan and the same shards everywhere, so that its shards can be
        spread over an engine's workers (docs/scoring.md).

        Args:
            model: As in `score`.
            source: As in `score`.
            output_type: As in `score`.
            quantiles: As in `score`.
            keep: As in `score`.
            wide: As in `score`.
            partition_by: As in `score`.
            allow_extra: As in `score`.
            rows_per_shard: As in `score`.
            storage_options: fsspec options of the source; used, never recorded.
            filters: As in `score`.
            casts: As in `score`.

        Returns:
            The plan, small whatever the number of shards.

        Raises:
            InvalidInputError: Source, model and arguments do not fit each other; the message lists what to correct.
            LimitExceededError: The server takes not even one row of this model; fit it on fewer rows or columns.
            StorageError: The storage did not answer; run again.
        """
        order = scoring.ordered(
            model,
            Reading(source, storage_options, filters, casts),
            output_type=output_type,
            quantiles=quantiles,
            keep=keep,
            wide=wide,
            partition_by=partition_by,
            allow_extra=allow_extra,
            rows_per_shard=rows_per_shard,
        )
        return run_flow(scoring.plan_scoring(self._session, order)).plan

    def score_shards(
        self,
        model: FittedModel,
        source: Source | Table,
        destination: str,
        shards: Iterable[int],
        *,
        plan: ScoringPlan | None = None,
        output_type: str | None = None,
        quantiles: Sequence[float] | None = None,
        keep: Sequence[str] = (),
        wide: bool = True,
        partition_by: Sequence[str] = (),
        allow_extra: bool = False,
        rows_per_shard: int | None = None,
        concurrency: int = CONCURRENCY,
        on_unknown: OnUnknown = "resend",
        max_resends: int | None = None,
        storage_options: StorageOptions | None = None,
        filters: Filters | None = None,
        casts: Casts | None = None,
        recompress: Compression | None = None,
        destination_options: StorageOptions | None = None,
        allow_unsafe_store: bool = False,
        max_cost: int | None = None,
        checksum: bool | None = None,
        progress: ProgressCallback | None = None,
    ) -> tuple[ScoredShard, ...]:
        """Score some shards of a plan, for an engine that spreads them over its workers.

        When all shards are done, `score` with the same arguments checks them and closes the scoring; it bills nothing.

        Args:
            model: As in `score`.
            source: As in `score`.
            destination: As in `score`.
            shards: Numbers of shards, counted from 0.
            plan: What `plan_score` returned; another source, model or option than it was made with is an error.
            output_type: As in `score`.
            quantiles: As in `score`.
            keep: As in `score`.
            wide: As in `score`.
            partition_by: As in `score`.
            allow_extra: As in `score`.
            rows_per_shard: As in `score`.
            concurrency: As in `score`.
            on_unknown: As in `score`.
            max_resends: As in `score`.
            storage_options: fsspec options of the source; used, never recorded.
            filters: As in `score`.
            casts: As in `score`.
            recompress: As in `score`.
            destination_options: fsspec options of the destination; used, never recorded.
            allow_unsafe_store: As in `score`.
            max_cost: As in `score`, for these shards.
            checksum: As in `score`.
            progress: As in `score`.

        Returns:
            The shards, also those that others have done, in order.

        Raises:
            InvalidInputError: As in `score`, or the plan is of something else.
            ConfigurationError: There is no such shard.
            DestinationBusyError: As in `score`.
            QuotaExceededError: As in `score`.
            OutcomeUnknownError: As in `score`.
        """
        order = scoring.ordered(
            model,
            Reading(source, storage_options, filters, casts, recompress),
            output_type=output_type,
            quantiles=quantiles,
            keep=keep,
            wide=wide,
            partition_by=partition_by,
            allow_extra=allow_extra,
            rows_per_shard=rows_per_shard,
        )
        terms = Terms(
            destination,
            destination_options,
            concurrency,
            on_unknown,
            max_resends,
            max_cost,
            recompress,
            checksum,
            allow_unsafe_store,
            progress or ignore,
        )
        return run_flow(scoring.score_shards(self._session, order, terms, shards, expected=plan))


@same_docstrings(FanOutMethods)
class AsyncFanOutMethods(AsyncBase):
    """A scoring spread over an engine's workers."""

    async def plan_score(
        self,
        model: FittedModel,
        source: Source | Table,
        *,
        output_type: str | None = None,
        quantiles: Sequence[float] | None = None,
        keep: Sequence[str] = (),
        wide: bool = True,
        partition_by: Sequence[str] = (),
        allow_extra: bool = False,
        rows_per_shard: int | None = None,
        storage_options: StorageOptions | None = None,
        filters: Filters | None = None,
        casts: Casts | None = None,
    ) -> ScoringPlan:
        order = scoring.ordered(
            model,
            Reading(source, storage_options, filters, casts),
            output_type=output_type,
            quantiles=quantiles,
            keep=keep,
            wide=wide,
            partition_by=partition_by,
            allow_extra=allow_extra,
            rows_per_shard=rows_per_shard,
        )
        return (await scoring.plan_scoring(self._session, order)).plan

    async def score_shards(
        self,
        model: FittedModel,
        source: Source | Table,
        destination: str,
        shards: Iterable[int],
        *,
        plan: ScoringPlan | None = None,
        output_type: str | None = None,
        quantiles: Sequence[float] | None = None,
        keep: Sequence[str] = (),
        wide: bool = True,
        partition_by: Sequence[str] = (),
        allow_extra: bool = False,
        rows_per_shard: int | None = None,
        concurrency: int = CONCURRENCY,
        on_unknown: OnUnknown = "resend",
        max_resends: int | None = None,
        storage_options: StorageOptions | None = None,
        filters: Filters | None = None,
        casts: Casts | None = None,
        recompress: Compression | None = None,
        destination_options: StorageOptions | None = None,
        allow_unsafe_store: bool = False,
        max_cost: int | None = None,
        checksum: bool | None = None,
        progress: ProgressCallback | None = None,
    ) -> tuple[ScoredShard, ...]:
        order = scoring.ordered(
            model,
            Reading(source, storage_options, filters, casts, recompress),
            output_type=output_type,
            quantiles=quantiles,
            keep=keep,
            wide=wide,
            partition_by=partition_by,
            allow_extra=allow_extra,
            rows_per_shard=rows_per_shard,
        )
        terms = Terms(
            destination,
            destination_options,
            concurrency,
            on_unknown,
            max_resends,
            max_cost,
            recompress,
            checksum,
            allow_unsafe_store,
            progress or ignore,
        )
        return await scoring.score_shards(self._session, order, terms, shards, expected=plan)
