"""Batch scoring: the method of both clients, side by side."""

from collections.abc import Sequence

from tabpfn_assets import EngineRun, FittedModel, PredictionSet, ScoringPlan
from tabpfn_operators import scoring
from tabpfn_operators._run import run as run_flow
from tabpfn_operators.client._base import AsyncBase, SyncBase, same_docstrings
from tabpfn_operators.openlineage import reported_score
from tabpfn_operators.progress import ProgressCallback, ignore
from tabpfn_operators.reading import Casts, Compression, Filters, Reading, Table
from tabpfn_operators.scoring import CONCURRENCY, OnUnknown, Terms
from tabpfn_operators.sources import Source
from tabpfn_operators.storage import StorageOptions


class ScoreMethods(SyncBase):
    """Any number of rows, in predictions that the server takes."""

    def score(
        self,
        model: FittedModel,
        source: Source | Table,
        destination: str,
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
        run: EngineRun | None = None,
        redact_labels: bool = False,
        max_cost: int | None = None,
        checksum: bool | None = None,
        progress: ProgressCallback | None = None,
    ) -> PredictionSet:
        """Score any number of rows into a folder of Parquet parts, each prediction paid for once.

        The rows are cut into shards that the server takes, each one billed call and one part file in the order of the
        source. Whoever makes the same call again, after any interruption or at the same time, shares the work: what is
        done is checked and not done again. When all is done, `_lineage.json` and then `_manifest.json` are written; a
        folder without the latter, or with that of another plan, is unfinished.

        Args:
            model: The fitted model, completed.
            source: As in `upload_train_set`, with the model's features; columns that are neither features nor kept, nor
                the target, are an error unless `allow_extra`.
            destination: fsspec URL or path of a folder on a store that creates exclusively: local disk, S3, Google
                Cloud Storage, Azure. One scoring at a time; another's predictions stay until this one is complete.
            plan: What `plan_score` returned; another source, model or option than it was made with is then an error,
                not another scoring that is billed anew.
            output_type: As in `predict_test_set`.
            quantiles: As in `predict_test_set`.
            keep: Columns of the source to copy beside the predictions, such as a key; only features of them are
                sent.
            wide: One column for each class and quantile; False gives one of fixed-size lists.
            partition_by: Kept columns of text, whole numbers, truth values or dates, whose values become folders
                (`day=7/`) instead of columns, at most 500 of them in a shard; rows without a value, and empty text, go
                to `__HIVE_DEFAULT_PARTITION__`. Rows keep their order within a folder.
            allow_extra: Whether the source may have columns that nobody asked for; they stay at home.
            rows_per_shard: Most rows of one prediction, 1 or more, where the server allows more; None takes its limit.
            concurrency: Shards in flight, 1 or more.
            on_unknown: A shard that was sent and of which nobody knows what came of it (its worker was killed, the
                connection lost): `resend` sends it again, at most `max_resends` of them, and names each in the manifest
                as possibly charged twice; `raise` leaves it until somebody says `resend`.
            max_resends: Most shards that are sent again, over all workers and reruns; None takes `concurrency`.
            storage_options: fsspec options of the source; used, never recorded.
            filters: As in `upload_train_set`.
            casts: As in `upload_train_set`.
            recompress: As in `upload_train_set`, of rows that have to be decoded.
            destination_options: fsspec options of the destination; used, never recorded.
            allow_unsafe_store: Take a destination on which two workers may both get a shard; for one worker at a time.
            run: The engine run, for lineage.
            redact_labels: Hash column names and class labels in `_lineage.json` and `_manifest.json`.
            max_cost: The most tokens that what is left to do may cost; None asks nothing.
            checksum: As in `upload_test_set`.
            progress: Called with rows scored, and with the steps of each shard.

        Returns:
            The record beside the predictions.

        Raises:
            InvalidInputError: Source, model and arguments do not fit each other; the message lists what to correct.
            DestinationBusyError: Another scoring writes there; wait for it, or choose another folder.
            StoreNotExclusiveError: The destination cannot keep two workers apart; the message names what can.
            DestinationError: The folder cannot be written to; correct path or credentials.
            CostExceededError: What is left would cost more than `max_cost`, or than the account has left.
            QuotaExceededError: The token pool is empty; what is done is kept, and `reset_at` tells when to go on.
            OutcomeUnknownError: Shards were sent and nobody knows what came of them; what is done is kept.
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
        return run_flow(
            reported_score(
                self._session.wire,
                self._session.emitter,
                lambda: scoring.score(self._session, order, terms, expected=plan, run=run, redact_labels=redact_labels),
                source=source,
                model=model,
                destination=destination,
                run=run,
            )
        )


@same_docstrings(ScoreMethods)
class AsyncScoreMethods(AsyncBase):
    """Any number of rows, in predictions that the server takes."""

    async def score(
        self,
        model: FittedModel,
        source: Source | Table,
        destination: str,
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
        run: EngineRun | None = None,
        redact_labels: bool = False,
        max_cost: int | None = None,
        checksum: bool | None = None,
        progress: ProgressCallback | None = None,
    ) -> PredictionSet:
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
        return await reported_score(
            self._session.wire,
            self._session.emitter,
            lambda: scoring.score(self._session, order, terms, expected=plan, run=run, redact_labels=redact_labels),
            source=source,
            model=model,
            destination=destination,
            run=run,
        )
