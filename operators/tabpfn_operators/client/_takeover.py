"""Fits that are taken over: the methods of both clients, side by side."""

from collections.abc import Sequence

from tabpfn_assets import EngineRun, FitParameters, FittedModel
from tabpfn_operators import durable as durable_fits
from tabpfn_operators._run import run as run_flow
from tabpfn_operators.client._base import AsyncBase, SyncBase, same_docstrings
from tabpfn_operators.durable import FitRequest, JournalHome, StoreHome, memory_of
from tabpfn_operators.progress import ProgressCallback, ignore
from tabpfn_operators.reading import Casts, Filters, Reading, Table
from tabpfn_operators.sources import Source
from tabpfn_operators.storage import StorageOptions


class TakeoverMethods(SyncBase):
    """Fits that are taken over."""

    def resume_fit(
        self,
        *,
        journal: JournalHome,
        run_key: str | None = None,
        lineage: StoreHome | None = None,
        timeout: float | None = None,
        progress: ProgressCallback | None = None,
    ) -> FittedModel:
        """Wait for the fit that a journal remembers, whatever its source has become meanwhile.

        Args:
            journal: As in `fit`.
            run_key: As in `fit`.
            lineage: As in `fit`.
            timeout: Seconds to wait, from the submission on; None takes what the fit was started with, or once that is
                over the server's own.
            progress: Called after each look.

        Returns:
            The record, completed.

        Raises:
            ConfigurationError: No fit was submitted there; call `fit`.
            FitFailedError: The server reports it failed; correct the data.
            FitTimeoutError: Still running at the deadline; call again with a longer timeout.
            ModelGoneError: It was deleted at the server; the message holds the call that fits again.
            OutcomeUnknownError: Its submission was interrupted; `fit` with `on_unknown` decides.
        """
        memory = memory_of(journal, run_key, lineage)
        return run_flow(durable_fits.resume_fit(self._session, memory, timeout=timeout, progress=progress or ignore))

    def adopt_fit(
        self,
        fitted_train_set_id: str,
        source: Source | Table,
        target: str,
        *,
        parameters: FitParameters,
        features: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        storage_options: StorageOptions | None = None,
        filters: Filters | None = None,
        casts: Casts | None = None,
        name: str | None = None,
        run: EngineRun | None = None,
        timeout: float | None = None,
        journal: JournalHome | None = None,
        run_key: str | None = None,
        lineage: StoreHome | None = None,
        progress: ProgressCallback | None = None,
    ) -> FittedModel:
        """Take a fit over of which only the id is left, for instance in a log, and make its record from the source.

        The server tells nothing of a fit but its status (contract 1.5), so source, columns and parameters must be those
        it was made of; what cannot be known (the upload) stays empty in the record.

        Args:
            fitted_train_set_id: The fit.
            source: As in `upload_train_set`; its footers and its target are read.
            target: Column to predict.
            parameters: Task, config, systems, thinking.
            features: As in `fit`.
            exclude: As in `fit`.
            storage_options: fsspec options of the source; used, never recorded.
            filters: As in `upload_train_set`.
            casts: As in `upload_train_set`.
            name: A name for the model.
            run: The engine run, for lineage.
            timeout: As in `fit`.
            journal: As in `fit`; the fit counts as submitted there from now on.
            run_key: As in `fit`.
            lineage: As in `fit`.
            progress: Called after each look.

        Returns:
            The record, completed.

        Raises:
            FittedModelNotFoundError: The server does not know it; use the account's token.
            InvalidInputError: The source cannot be used; the message lists what to correct.
            FitFailedError: The server reports it failed; correct the data.
            FitTimeoutError: Still running at the deadline; call again with a longer timeout.
        """
        request = FitRequest(
            reading=Reading(source, storage_options, filters, casts),
            target=target,
            parameters=parameters,
            features=features,
            exclude=exclude,
            name=name,
            run=run,
            timeout=timeout,
            progress=progress or ignore,
        )
        memory = memory_of(journal, run_key, lineage, durable=False)
        return run_flow(durable_fits.adopt_fit(self._session, fitted_train_set_id, request, memory))


@same_docstrings(TakeoverMethods)
class AsyncTakeoverMethods(AsyncBase):
    """Fits that are taken over."""

    async def resume_fit(
        self,
        *,
        journal: JournalHome,
        run_key: str | None = None,
        lineage: StoreHome | None = None,
        timeout: float | None = None,
        progress: ProgressCallback | None = None,
    ) -> FittedModel:
        memory = memory_of(journal, run_key, lineage)
        return await durable_fits.resume_fit(self._session, memory, timeout=timeout, progress=progress or ignore)

    async def adopt_fit(
        self,
        fitted_train_set_id: str,
        source: Source | Table,
        target: str,
        *,
        parameters: FitParameters,
        features: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        storage_options: StorageOptions | None = None,
        filters: Filters | None = None,
        casts: Casts | None = None,
        name: str | None = None,
        run: EngineRun | None = None,
        timeout: float | None = None,
        journal: JournalHome | None = None,
        run_key: str | None = None,
        lineage: StoreHome | None = None,
        progress: ProgressCallback | None = None,
    ) -> FittedModel:
        request = FitRequest(
            reading=Reading(source, storage_options, filters, casts),
            target=target,
            parameters=parameters,
            features=features,
            exclude=exclude,
            name=name,
            run=run,
            timeout=timeout,
            progress=progress or ignore,
        )
        memory = memory_of(journal, run_key, lineage, durable=False)
        return await durable_fits.adopt_fit(self._session, fitted_train_set_id, request, memory)
