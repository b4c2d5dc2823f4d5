"""From a fitted model to predictions: the methods of both clients, side by side."""

from collections.abc import Sequence

from tabpfn_assets import (
    EngineRun,
    FittedModel,
    PredictionSet,
    TestSet,
)
from tabpfn_operators import predict as predicting
from tabpfn_operators._run import run as run_flow
from tabpfn_operators.client._base import AsyncBase, SyncBase, same_docstrings
from tabpfn_operators.openlineage import reported_score
from tabpfn_operators.predictions import Prediction
from tabpfn_operators.progress import ProgressCallback, ignore
from tabpfn_operators.reading import Casts, Compression, Filters, Reading, Table
from tabpfn_operators.sources import Source
from tabpfn_operators.storage import StorageOptions


class PredictMethods(SyncBase):
    """From a fitted model to predictions."""

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
            StaleUploadError: The server's copy of equal content is of no use; upload with `force_reupload=True`.
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
        source: Source | Table,
        destination: str,
        *,
        output_type: str | None = None,
        quantiles: Sequence[float] | None = None,
        storage_options: StorageOptions | None = None,
        filters: Filters | None = None,
        casts: Casts | None = None,
        recompress: Compression | None = None,
        destination_options: StorageOptions | None = None,
        run: EngineRun | None = None,
        redact_labels: bool = False,
        max_cost: int | None = None,
        checksum: bool | None = None,
        progress: ProgressCallback | None = None,
    ) -> PredictionSet:
        """Predict a Parquet file and write predictions and lineage into a folder. One billed call.

        Writes `predictions.parquet` in the row order of the source (of the rows that `filters` keeps), then
        `_lineage.json`; a folder without the latter is unfinished. The destination is checked before anything is sent.

        Args:
            model: The fitted model, completed.
            source: As in `upload_train_set`, with the model's features; other columns stay at home.
            destination: fsspec URL or path of a folder.
            output_type: As in `predict_test_set`.
            quantiles: As in `predict_test_set`.
            storage_options: fsspec options of the source; used, never recorded.
            filters: As in `upload_train_set`.
            casts: As in `upload_train_set`.
            recompress: As in `upload_train_set`.
            destination_options: fsspec options of the destination; used, never recorded.
            run: The engine run, for lineage.
            redact_labels: Hash column names and class labels in `_lineage.json`.
            max_cost: The most tokens that the call may cost; before anything is sent, the server is asked for the
                price and for what the account has left, and afterwards for what was charged. None asks nothing.
            checksum: As in `upload_test_set`.
            progress: Called with rows prepared, bytes sent, rows written.

        Returns:
            The record beside the predictions.

        Raises:
            InvalidInputError: Source or arguments cannot be used; the message lists what to correct.
            CostExceededError: It would cost more than `max_cost`, or than the account has left; nothing was sent.
            ConfigurationError: `max_cost` cannot be kept, for the server does not tell prices; leave it out.
            DestinationError: The folder cannot be written to; nothing was billed.
            OutcomeUnknownError: The answer was lost after the call was sent; it may have been billed.
        """
        return run_flow(
            reported_score(
                self._session.wire,
                self._session.emitter,
                lambda: predicting.predict(
                    self._session,
                    model,
                    Reading(source, storage_options, filters, casts, recompress),
                    destination,
                    output_type=output_type,
                    quantiles=quantiles,
                    destination_options=destination_options,
                    run=run,
                    redact_labels=redact_labels,
                    max_cost=max_cost,
                    checksum=checksum,
                    progress=progress or ignore,
                ),
                source=source,
                model=model,
                destination=destination,
                run=run,
            )
        )


@same_docstrings(PredictMethods)
class AsyncPredictMethods(AsyncBase):
    """From a fitted model to predictions."""

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
        source: Source | Table,
        destination: str,
        *,
        output_type: str | None = None,
        quantiles: Sequence[float] | None = None,
        storage_options: StorageOptions | None = None,
        filters: Filters | None = None,
        casts: Casts | None = None,
        recompress: Compression | None = None,
        destination_options: StorageOptions | None = None,
        run: EngineRun | None = None,
        redact_labels: bool = False,
        max_cost: int | None = None,
        checksum: bool | None = None,
        progress: ProgressCallback | None = None,
    ) -> PredictionSet:
        return await reported_score(
            self._session.wire,
            self._session.emitter,
            lambda: predicting.predict(
                self._session,
                model,
                Reading(source, storage_options, filters, casts, recompress),
                destination,
                output_type=output_type,
                quantiles=quantiles,
                destination_options=destination_options,
                run=run,
                redact_labels=redact_labels,
                max_cost=max_cost,
                checksum=checksum,
                progress=progress or ignore,
            ),
            source=source,
            model=model,
            destination=destination,
            run=run,
        )
