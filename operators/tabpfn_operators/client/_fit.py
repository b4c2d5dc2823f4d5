"""Fits step by step: the methods of both clients, side by side."""

from tabpfn_assets import (
    EngineRun,
    FitParameters,
    FitStatus,
    FittedModel,
    JobRecord,
    TrainSet,
)
from tabpfn_operators import fit as fitting
from tabpfn_operators._run import run as run_flow
from tabpfn_operators.client._base import AsyncBase, SyncBase, same_docstrings
from tabpfn_operators.jobs import FitLook
from tabpfn_operators.progress import ProgressCallback, ignore
from tabpfn_operators.resume import OnUnknown


class FitMethods(SyncBase):
    """Fits step by step."""

    def submit_fit_job(
        self,
        train_set: TrainSet,
        *,
        parameters: FitParameters,
        name: str | None = None,
        run: EngineRun | None = None,
        on_unknown: OnUnknown = "auto",
    ) -> FittedModel:
        """Create a fit job and return at once (contract 1.4). Keep the record: the id cannot be found again.

        Args:
            train_set: What `upload_train_set` returned.
            parameters: Task, config, systems, thinking.
            name: A name for the model, `[A-Za-z0-9._-]`, up to 128 characters.
            run: The engine run, for lineage.
            on_unknown: What to do when the answer is lost after the request was sent: `auto` submits once more when
                the fit is free and raises when it is billed; `raise` and `resubmit` force either.

        Returns:
            The record, pending.

        Raises:
            AsyncFitUnsupportedError: The server has no job API; fit with `streamed=True`.
            StaleUploadError: The server's copy of equal content is of no use; upload with `force_reupload=True`.
            OutcomeUnknownError: The answer was lost; look at the account before fitting again.
            TabPFNError: The server refused; the class says what to do.
        """
        return run_flow(
            fitting.submit_fit_job(
                self._session,
                train_set,
                parameters=parameters,
                name=name,
                run=run,
                on_unknown=on_unknown,
            )
        )

    def fit_train_set(
        self,
        train_set: TrainSet,
        *,
        parameters: FitParameters,
        name: str | None = None,
        run: EngineRun | None = None,
        on_unknown: OnUnknown = "auto",
        progress: ProgressCallback | None = None,
    ) -> FittedModel:
        """Fit in one long POST that the server keeps alive with whitespace (contract 1.3); for workers that may wait.

        A kill during the call loses the id. Prefer `submit_fit_job` wherever the server has it.

        Args:
            train_set: What `upload_train_set` returned.
            parameters: Task, config, systems, thinking.
            name: A name for the model.
            run: The engine run, for lineage.
            on_unknown: As in `submit_fit_job`.
            progress: Called while waiting for a fit that is not done when the POST ends.

        Returns:
            The record, completed.

        Raises:
            FitFailedError: The server reports it failed; correct the data.
            StaleUploadError: As in `submit_fit_job`.
            OutcomeUnknownError: The answer was lost; look at the account before fitting again.
            TabPFNError: The server refused; the class says what to do.
        """
        return run_flow(
            fitting.fit_train_set(
                self._session,
                train_set,
                parameters=parameters,
                name=name,
                run=run,
                on_unknown=on_unknown,
                progress=progress or ignore,
            )
        )

    def get_fit_status(self, fitted_train_set_id: str) -> FitStatus:
        """Read the status of a fit once (contract 1.5).

        Args:
            fitted_train_set_id: The fit.

        Returns:
            Its status; a failed fit is a status, not an error.

        Raises:
            FittedModelNotFoundError: The server does not know it; fit again, or use the account's token.
        """
        return run_flow(fitting.get_fit_status(self._session, fitted_train_set_id))

    def look_at_fit(self, job: JobRecord) -> FitLook:
        """Look at a fit once and decide what follows: the step that triggers and sensors are made of.

        An outage of the server is no news about the fit: it counts as pending until the job's deadline.

        Args:
            job: What `jobs.job_of` made of the pending record.

        Returns:
            The status, and the seconds until the next look (None when completed).

        Raises:
            FitFailedError: The server reports it failed; correct the data.
            FitTimeoutError: Still running at the deadline; wait again for the id it carries.
            FittedModelNotFoundError: The server does not know it; fit again, or use the account's token.
        """
        return run_flow(fitting.look_at_fit(self._session, job))

    def wait_for_fit(
        self, model: FittedModel, *, timeout: float | None = None, progress: ProgressCallback | None = None
    ) -> FittedModel:
        """Wait until a submitted fit is completed.

        Args:
            model: The pending record; a completed one comes back at once.
            timeout: Seconds from its submission; None takes the server's own (7,200 by default).
            progress: Called after each look.

        Returns:
            The record, completed.

        Raises:
            FitFailedError: The server reports it failed; correct the data.
            FitTimeoutError: Still running at the deadline; wait again for the id it carries.
        """
        return run_flow(fitting.wait_for_fit(self._session, model, timeout=timeout, progress=progress or ignore))


@same_docstrings(FitMethods)
class AsyncFitMethods(AsyncBase):
    """Fits step by step."""

    async def submit_fit_job(
        self,
        train_set: TrainSet,
        *,
        parameters: FitParameters,
        name: str | None = None,
        run: EngineRun | None = None,
        on_unknown: OnUnknown = "auto",
    ) -> FittedModel:
        return await fitting.submit_fit_job(
            self._session,
            train_set,
            parameters=parameters,
            name=name,
            run=run,
            on_unknown=on_unknown,
        )

    async def fit_train_set(
        self,
        train_set: TrainSet,
        *,
        parameters: FitParameters,
        name: str | None = None,
        run: EngineRun | None = None,
        on_unknown: OnUnknown = "auto",
        progress: ProgressCallback | None = None,
    ) -> FittedModel:
        return await fitting.fit_train_set(
            self._session,
            train_set,
            parameters=parameters,
            name=name,
            run=run,
            on_unknown=on_unknown,
            progress=progress or ignore,
        )

    async def get_fit_status(self, fitted_train_set_id: str) -> FitStatus:
        return await fitting.get_fit_status(self._session, fitted_train_set_id)

    async def look_at_fit(self, job: JobRecord) -> FitLook:
        return await fitting.look_at_fit(self._session, job)

    async def wait_for_fit(
        self, model: FittedModel, *, timeout: float | None = None, progress: ProgressCallback | None = None
    ) -> FittedModel:
        return await fitting.wait_for_fit(self._session, model, timeout=timeout, progress=progress or ignore)
