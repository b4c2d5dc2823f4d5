"""Fits that are made once: the methods of both clients, side by side."""

from collections.abc import Sequence

from tabpfn_assets import EngineRun, FitParameters, FittedModel
from tabpfn_operators import durable as durable_fits
from tabpfn_operators._run import run as run_flow
from tabpfn_operators.client._base import AsyncBase, SyncBase, same_docstrings
from tabpfn_operators.durable import FitRequest, JournalHome, StoreHome, memory_of
from tabpfn_operators.fit import OnSubmitted
from tabpfn_operators.progress import ProgressCallback, ignore
from tabpfn_operators.reading import Casts, Compression, Filters, Reading, Table
from tabpfn_operators.resume import OnUnknown, Reuse
from tabpfn_operators.sources import Source
from tabpfn_operators.storage import StorageOptions


class DurableFitMethods(SyncBase):
    """Fits that are made once."""

    def fit(
        self,
        source: Source | Table,
        target: str,
        *,
        parameters: FitParameters,
        features: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        storage_options: StorageOptions | None = None,
        filters: Filters | None = None,
        casts: Casts | None = None,
        recompress: Compression | None = None,
        name: str | None = None,
        run: EngineRun | None = None,
        streamed: bool = False,
        timeout: float | None = None,
        on_unknown: OnUnknown = "auto",
        on_submitted: OnSubmitted | None = None,
        journal: JournalHome | None = None,
        run_key: str | None = None,
        reuse: Reuse = "run",
        lineage: StoreHome | None = None,
        durable: bool = True,
        max_cost: int | None = None,
        checksum: bool | None = None,
        progress: ProgressCallback | None = None,
    ) -> FittedModel:
        """Upload, submit and wait, each of them once: from a Parquet file to a fitted model.

        With a journal the call can be repeated after any interruption and goes on where it was; repeated unchanged, it
        returns the same model, reads no data and costs nothing (design.md, promise 2).

        Args:
            source: As in `upload_train_set`.
            target: Column to predict.
            parameters: Task, config, systems, thinking.
            features: Feature columns in order; None takes all but the target, `exclude` and pandas index columns.
            exclude: Columns that stay at home.
            storage_options: fsspec options of the source; used, never recorded.
            filters: As in `upload_train_set`.
            casts: As in `upload_train_set`.
            recompress: As in `upload_train_set`.
            name: A name for the model.
            run: The engine run, for lineage.
            streamed: Fit in one long POST instead of a job.
            timeout: Seconds to wait for the fit, from its submission on; None takes the server's own.
            on_unknown: What to do where nobody can know whether a fit was created (killed between sending and hearing
                back): `auto` submits once more when the fit is free and raises when it is billed; `raise` and
                `resubmit` force either.
            on_submitted: Called with the record as soon as the server has named the fit. Runs in a thread of its own
                in `AsyncClient`.
            journal: Where this fit is remembered: the URL of a folder, with `run_key`; or a `Place`. Without one a
                killed call cannot be taken up again.
            run_key: Names this piece of work in the folder: the same for retries, another for the next run. It must
                hold no secret.
            reuse: Which earlier fit of equal inputs will do: `run` the one of this place, `always` any in `lineage`,
                `never` none that was delivered.
            lineage: A lineage store or its URL; the completed model is filed there under `name`.
            durable: False lets a billed fit go without a journal.
            max_cost: Tokens that the fit may cost; above it nothing is sent. What it did cost is in the record where
                it can be known.
            checksum: As in `upload_train_set`.
            progress: Called with rows prepared, bytes sent and seconds waited.

        Returns:
            The record, completed.

        Raises:
            InvalidInputError: The source cannot be used; the message lists what to correct.
            CostExceededError: It would cost more than `max_cost`; nothing was sent.
            FitFailedError: The server reports the fit failed; correct the data.
            FitTimeoutError: Still running at the deadline; call again with a longer timeout.
            ModelGoneError: The fit of this place was deleted at the server; the message holds the call that fits again.
            OutcomeUnknownError: The answer was lost; look at the account before fitting again.
            StoreNotExclusiveError: The journal's storage cannot keep two workers apart; the message names those that
                can.
        """
        request = FitRequest(
            reading=Reading(source, storage_options, filters, casts, recompress),
            target=target,
            parameters=parameters,
            features=features,
            exclude=exclude,
            name=name,
            run=run,
            streamed=streamed,
            timeout=timeout,
            on_unknown=on_unknown,
            checksum=checksum,
            max_cost=max_cost,
            progress=progress or ignore,
        )
        memory = memory_of(journal, run_key, lineage, reuse=reuse, durable=durable)
        return run_flow(durable_fits.fit(self._session, request, memory, on_submitted=on_submitted))

    def start_fit(
        self,
        source: Source | Table,
        target: str,
        *,
        parameters: FitParameters,
        features: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        storage_options: StorageOptions | None = None,
        filters: Filters | None = None,
        casts: Casts | None = None,
        recompress: Compression | None = None,
        name: str | None = None,
        run: EngineRun | None = None,
        streamed: bool = False,
        timeout: float | None = None,
        on_unknown: OnUnknown = "auto",
        journal: JournalHome | None = None,
        run_key: str | None = None,
        reuse: Reuse = "run",
        lineage: StoreHome | None = None,
        durable: bool = True,
        max_cost: int | None = None,
        checksum: bool | None = None,
        progress: ProgressCallback | None = None,
    ) -> FittedModel:
        """Upload and submit as `fit` does, and return without waiting; `resume_fit` with the same journal waits.

        Args:
            source: As in `upload_train_set`.
            target: Column to predict.
            parameters: Task, config, systems, thinking.
            features: Feature columns in order; None takes all but the target, `exclude` and pandas index columns.
            exclude: Columns that stay at home.
            storage_options: fsspec options of the source; used, never recorded.
            filters: As in `upload_train_set`.
            casts: As in `upload_train_set`.
            recompress: As in `upload_train_set`.
            name: A name for the model.
            run: The engine run, for lineage.
            streamed: Fit in one long POST instead of a job.
            timeout: Seconds from the submission on until `resume_fit` gives up; None takes the server's own.
            on_unknown: As in `fit`.
            journal: As in `fit`.
            run_key: As in `fit`.
            reuse: As in `fit`.
            lineage: As in `fit`; earlier models are looked for in it, and none is filed before it is completed.
            durable: As in `fit`.
            max_cost: As in `fit`.
            checksum: As in `upload_train_set`.
            progress: Called with rows prepared and bytes sent.

        Returns:
            The record, pending; completed where an earlier fit will do.

        Raises:
            TabPFNError: As in `fit`.
        """
        request = FitRequest(
            reading=Reading(source, storage_options, filters, casts, recompress),
            target=target,
            parameters=parameters,
            features=features,
            exclude=exclude,
            name=name,
            run=run,
            streamed=streamed,
            timeout=timeout,
            on_unknown=on_unknown,
            checksum=checksum,
            max_cost=max_cost,
            progress=progress or ignore,
        )
        memory = memory_of(journal, run_key, lineage, reuse=reuse, durable=durable)
        return run_flow(durable_fits.start_fit(self._session, request, memory))


@same_docstrings(DurableFitMethods)
class AsyncDurableFitMethods(AsyncBase):
    """Fits that are made once."""

    async def fit(
        self,
        source: Source | Table,
        target: str,
        *,
        parameters: FitParameters,
        features: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        storage_options: StorageOptions | None = None,
        filters: Filters | None = None,
        casts: Casts | None = None,
        recompress: Compression | None = None,
        name: str | None = None,
        run: EngineRun | None = None,
        streamed: bool = False,
        timeout: float | None = None,
        on_unknown: OnUnknown = "auto",
        on_submitted: OnSubmitted | None = None,
        journal: JournalHome | None = None,
        run_key: str | None = None,
        reuse: Reuse = "run",
        lineage: StoreHome | None = None,
        durable: bool = True,
        max_cost: int | None = None,
        checksum: bool | None = None,
        progress: ProgressCallback | None = None,
    ) -> FittedModel:
        request = FitRequest(
            reading=Reading(source, storage_options, filters, casts, recompress),
            target=target,
            parameters=parameters,
            features=features,
            exclude=exclude,
            name=name,
            run=run,
            streamed=streamed,
            timeout=timeout,
            on_unknown=on_unknown,
            checksum=checksum,
            max_cost=max_cost,
            progress=progress or ignore,
        )
        memory = memory_of(journal, run_key, lineage, reuse=reuse, durable=durable)
        return await durable_fits.fit(self._session, request, memory, on_submitted=on_submitted)

    async def start_fit(
        self,
        source: Source | Table,
        target: str,
        *,
        parameters: FitParameters,
        features: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        storage_options: StorageOptions | None = None,
        filters: Filters | None = None,
        casts: Casts | None = None,
        recompress: Compression | None = None,
        name: str | None = None,
        run: EngineRun | None = None,
        streamed: bool = False,
        timeout: float | None = None,
        on_unknown: OnUnknown = "auto",
        journal: JournalHome | None = None,
        run_key: str | None = None,
        reuse: Reuse = "run",
        lineage: StoreHome | None = None,
        durable: bool = True,
        max_cost: int | None = None,
        checksum: bool | None = None,
        progress: ProgressCallback | None = None,
    ) -> FittedModel:
        request = FitRequest(
            reading=Reading(source, storage_options, filters, casts, recompress),
            target=target,
            parameters=parameters,
            features=features,
            exclude=exclude,
            name=name,
            run=run,
            streamed=streamed,
            timeout=timeout,
            on_unknown=on_unknown,
            checksum=checksum,
            max_cost=max_cost,
            progress=progress or ignore,
        )
        memory = memory_of(journal, run_key, lineage, reuse=reuse, durable=durable)
        return await durable_fits.start_fit(self._session, request, memory)
