"""From a fitted model to predictions: the methods of both clients, side by side."""

from collections.abc import Sequence

from tabpfn_assets import (
    EngineRun,
    FittedModel,
    PredictionSet,
    TestSet,
)
from tabpfn_operators import predict as predicting
from tabpfn_operators import upload
from tabpfn_operators._run import run as run_flow
from tabpfn_operators.client._base import AsyncBase, SyncBase, same_docstrings
from tabpfn_operators.predictions import Prediction, default_output_type
from tabpfn_operators.progress import ProgressCallback, ignore
from tabpfn_operators.storage import StorageOptions


class PredictMethods(SyncBase):
    """From a fitted model to predictions."""

    def upload_test_set(
        self,
        model: FittedModel,
        source: str,
        *,
        output_type: str | None = None,
        storage_options: StorageOptions | None = None,
        force_reupload: bool = False,
        progress: ProgressCallback | None = None,
    ) -> TestSet:
        """Check a Parquet file against a model, then send the model's features; no other column leaves.

        Args:
            model: The fitted model.
            source: fsspec URL or path of a Parquet file.
            output_type: What will be predicted; `full` has a row limit of its own.
            storage_options: fsspec options of the source; used, never recorded.
            force_reupload: Send the bytes even where the server has equal content.
            progress: Called with rows prepared and bytes sent.

        Returns:
            The test set as the server holds it.

        Raises:
            InvalidInputError: A feature is missing or of another kind; the message lists them.
            LimitExceededError: More rows or cells than the server takes; predict in several calls.
            FittedModelNotFoundError: The server does not know the model; fit again.
        """
        return run_flow(
            upload.upload_test_set(
                self._session,
                model,
                source,
                output_type=output_type or default_output_type(model.task),
                storage_options=storage_options,
                force_reupload=force_reupload,
                progress=progress or ignore,
            )
        )

    def predict_test_set(
        self,
        model: FittedModel,
        test_set: TestSet,
        *,
        output_type: str | None = None,
        quantiles: Sequence[float] | None = None,
    ) -> Prediction:
        """Predict an uploaded test set. Billed, each time.

        Args:
            model: The fitted model.
            test_set: What `upload_test_set` returned.
            output_type: Classification: `probas` (default), `preds`. Regression: `mean` (default), `median`, `mode`,
                `quantiles`, `main`, `full`.
            quantiles: For `quantiles`, `main`, `full`: numbers in (0, 1); None takes 0.1 to 0.9.

        Returns:
            Columns as Arrow arrays, in the order of the test set's rows.

        Raises:
            OutcomeUnknownError: The answer was lost after the call was sent; it may have been billed.
            QuotaExceededError: The token pool is empty; wait for its reset.
            ServerError: The server failed; run again and quote the trace id.
        """
        return run_flow(
            predicting.predict_test_set(
                self._session,
                model,
                test_set,
                output_type=output_type,
                quantiles=quantiles,
            )
        )

    def predict(
        self,
        model: FittedModel,
        source: str,
        destination: str,
        *,
        output_type: str | None = None,
        quantiles: Sequence[float] | None = None,
        storage_options: StorageOptions | None = None,
        destination_options: StorageOptions | None = None,
        run: EngineRun | None = None,
        redact_labels: bool = False,
        progress: ProgressCallback | None = None,
    ) -> PredictionSet:
        """Predict a Parquet file and write predictions and lineage into a folder. One billed call.

        Writes `predictions.parquet` in the row order of the source, then `_lineage.json`; a folder without the latter
        is unfinished. The destination is checked before anything is sent.

        Args:
            model: The fitted model, completed.
            source: fsspec URL or path of a Parquet file with the model's features; other columns stay at home.
            destination: fsspec URL or path of a folder.
            output_type: As in `predict_test_set`.
            quantiles: As in `predict_test_set`.
            storage_options: fsspec options of the source; used, never recorded.
            destination_options: fsspec options of the destination; used, never recorded.
            run: The engine run, for lineage.
            redact_labels: Hash column names and class labels in `_lineage.json`.
            progress: Called with rows prepared, bytes sent, rows written.

        Returns:
            The record beside the predictions.

        Raises:
            InvalidInputError: Source or arguments cannot be used; the message lists what to correct.
            DestinationError: The folder cannot be written to; nothing was billed.
            OutcomeUnknownError: The answer was lost after the call was sent; it may have been billed.
        """
        return run_flow(
            predicting.predict(
                self._session,
                model,
                source,
                destination,
                output_type=output_type,
                quantiles=quantiles,
                storage_options=storage_options,
                destination_options=destination_options,
                run=run,
                redact_labels=redact_labels,
                progress=progress or ignore,
            )
        )


@same_docstrings(PredictMethods)
class AsyncPredictMethods(AsyncBase):
    """From a fitted model to predictions."""

    async def upload_test_set(
        self,
        model: FittedModel,
        source: str,
        *,
        output_type: str | None = None,
        storage_options: StorageOptions | None = None,
        force_reupload: bool = False,
        progress: ProgressCallback | None = None,
    ) -> TestSet:
        return await upload.upload_test_set(
            self._session,
            model,
            source,
            output_type=output_type or default_output_type(model.task),
            storage_options=storage_options,
            force_reupload=force_reupload,
            progress=progress or ignore,
        )

    async def predict_test_set(
        self,
        model: FittedModel,
        test_set: TestSet,
        *,
        output_type: str | None = None,
        quantiles: Sequence[float] | None = None,
    ) -> Prediction:
        return await predicting.predict_test_set(
            self._session,
            model,
            test_set,
            output_type=output_type,
            quantiles=quantiles,
        )

    async def predict(
        self,
        model: FittedModel,
        source: str,
        destination: str,
        *,
        output_type: str | None = None,
        quantiles: Sequence[float] | None = None,
        storage_options: StorageOptions | None = None,
        destination_options: StorageOptions | None = None,
        run: EngineRun | None = None,
        redact_labels: bool = False,
        progress: ProgressCallback | None = None,
    ) -> PredictionSet:
        return await predicting.predict(
            self._session,
            model,
            source,
            destination,
            output_type=output_type,
            quantiles=quantiles,
            storage_options=storage_options,
            destination_options=destination_options,
            run=run,
            redact_labels=redact_labels,
            progress=progress or ignore,
        )
