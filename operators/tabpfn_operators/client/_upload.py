"""From a source to the server's storage: the methods of both clients, side by side."""

from collections.abc import Sequence

from tabpfn_assets import FittedModel, Task, TestSet, TrainSet
from tabpfn_operators import upload
from tabpfn_operators._run import run as run_flow
from tabpfn_operators.client._base import AsyncBase, SyncBase, same_docstrings
from tabpfn_operators.plan import TrainPlan
from tabpfn_operators.predictions import default_output_type
from tabpfn_operators.progress import ProgressCallback, ignore
from tabpfn_operators.reading import Casts, Compression, Filters, Reading, Table
from tabpfn_operators.sources import Source
from tabpfn_operators.storage import StorageOptions


class UploadMethods(SyncBase):
    """From a source to the server's storage."""

    def plan_train_set(
        self,
        source: Source | Table,
        target: str,
        *,
        task: Task | None = None,
        features: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        storage_options: StorageOptions | None = None,
        filters: Filters | None = None,
        casts: Casts | None = None,
        recompress: Compression | None = None,
        model_version: str | None = None,
    ) -> TrainPlan:
        """Tell what `upload_train_set` would send, without sending it: columns, rows, classes, bytes, problems.

        Reads footers, and of the target column no more than they leave open.

        Args:
            source: As in `upload_train_set`.
            target: Column to predict.
            task: What the model is to predict; None checks what holds for either.
            features: As in `upload_train_set`.
            exclude: Columns that stay at home.
            storage_options: fsspec options of the source; used, never recorded.
            filters: As in `upload_train_set`.
            casts: As in `upload_train_set`.
            recompress: As in `upload_train_set`.
            model_version: Version whose limits apply, for instance `v3`; None takes the server's default.

        Returns:
            The plan; what is wrong with the source is in it.

        Raises:
            InvalidInputError: The source cannot be read at all; the message says what to correct.
            StorageError: The storage did not answer; run again.
        """
        return run_flow(
            upload.plan(
                self._session,
                Reading(source, storage_options, filters, casts, recompress),
                target,
                task=task,
                features=features,
                exclude=exclude,
                model_version=model_version,
            )
        )

    def upload_train_set(
        self,
        source: Source | Table,
        target: str,
        *,
        task: Task,
        features: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        storage_options: StorageOptions | None = None,
        filters: Filters | None = None,
        casts: Casts | None = None,
        recompress: Compression | None = None,
        model_version: str | None = None,
        force_reupload: bool = False,
        checksum: bool | None = None,
        progress: ProgressCallback | None = None,
    ) -> TrainSet:
        """Check a source against the server's limits, then send its features and its target.

        All checks come before any byte moves, and all that is wrong is told at once. Memory is bounded: column chunks
        of Parquet are sent as they are stored, anything else is decoded in batches and spooled to disk.

        Args:
            source: fsspec URL or path of Parquet (also a list, glob or folder), CSV, JSON lines, ORC, Feather or Arrow
                IPC files; or a pandas DataFrame or pyarrow table.
            target: Column to predict.
            task: What the model is to predict.
            features: Feature columns in order; None takes all but the target, `exclude` and pandas index columns.
            exclude: Columns that stay at home.
            storage_options: fsspec options of the source; used, never recorded.
            filters: Rows to keep, as `[("age", ">", 17)]`, `[[...], [...]]`, the same as JSON text, or a
                `pyarrow.compute.Expression`; None keeps all.
            casts: Columns to convert, as `{"code": "string"}` with Arrow's type names; no value may change by it.
            recompress: Codec and level to send with, for slow links, as `("zstd", 9)`; None sends column chunks as
                they are stored.
            model_version: Version whose limits apply, for instance `v3`; None takes the server's default.
            force_reupload: Send the bytes even where the server has equal content.
            checksum: Announce the CRC32C, by which the server finds equal content; None does so where it is known or
                cheap to compute (uploads up to 32 MiB).
            progress: Called with rows prepared and bytes sent, from several threads.

        Returns:
            The train set as the server holds it.

        Raises:
            InvalidInputError: The source cannot be used; the message lists what to correct.
            LimitExceededError: It is larger than the server takes; send less.
            SourceChangedError: It was written to meanwhile; run again.
            UploadError: The object store refused; run again.
            UploadTooSlowError: The upload URLs expired twice; send less, or from nearer.
        """
        return run_flow(
            upload.upload_train_set(
                self._session,
                Reading(source, storage_options, filters, casts, recompress),
                target,
                task=task,
                features=features,
                exclude=exclude,
                model_version=model_version,
                force_reupload=force_reupload,
                checksum=checksum,
                progress=progress or ignore,
            )
        )

    def upload_test_set(
        self,
        model: FittedModel,
        source: Source | Table,
        *,
        output_type: str | None = None,
        storage_options: StorageOptions | None = None,
        filters: Filters | None = None,
        casts: Casts | None = None,
        recompress: Compression | None = None,
        force_reupload: bool = False,
        checksum: bool | None = None,
        progress: ProgressCallback | None = None,
    ) -> TestSet:
        """Check a source against a model, then send the model's features; no other column leaves.

        Args:
            model: The fitted model.
            source: As in `upload_train_set`.
            output_type: What will be predicted; `full` has a row limit of its own.
            storage_options: fsspec options of the source; used, never recorded.
            filters: As in `upload_train_set`.
            casts: As in `upload_train_set`.
            recompress: As in `upload_train_set`.
            force_reupload: Send the bytes even where the server has equal content.
            checksum: Announce the CRC32C, by which the server finds equal content; None does so where it is known or
                cheap to compute (uploads up to 32 MiB).
            progress: Called with rows prepared and bytes sent.

        Returns:
            The test set as the server holds it.

        Raises:
            InvalidInputError: A feature is missing or of another kind; the message lists them.
            LimitExceededError: More rows or cells than the server takes; predict in several calls.
            FittedModelNotFoundError: The server does not know the model; fit again.
            UploadTooSlowError: The upload URLs expired twice; send less, or from nearer.
        """
        return run_flow(
            upload.upload_test_set(
                self._session,
                model,
                Reading(source, storage_options, filters, casts, recompress),
                output_type=output_type or default_output_type(model.task),
                force_reupload=force_reupload,
                checksum=checksum,
                progress=progress or ignore,
            )
        )


@same_docstrings(UploadMethods)
class AsyncUploadMethods(AsyncBase):
    """From a source to the server's storage."""

    async def plan_train_set(
        self,
        source: Source | Table,
        target: str,
        *,
        task: Task | None = None,
        features: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        storage_options: StorageOptions | None = None,
        filters: Filters | None = None,
        casts: Casts | None = None,
        recompress: Compression | None = None,
        model_version: str | None = None,
    ) -> TrainPlan:
        return await upload.plan(
            self._session,
            Reading(source, storage_options, filters, casts, recompress),
            target,
            task=task,
            features=features,
            exclude=exclude,
            model_version=model_version,
        )

    async def upload_train_set(
        self,
        source: Source | Table,
        target: str,
        *,
        task: Task,
        features: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        storage_options: StorageOptions | None = None,
        filters: Filters | None = None,
        casts: Casts | None = None,
        recompress: Compression | None = None,
        model_version: str | None = None,
        force_reupload: bool = False,
        checksum: bool | None = None,
        progress: ProgressCallback | None = None,
    ) -> TrainSet:
        return await upload.upload_train_set(
            self._session,
            Reading(source, storage_options, filters, casts, recompress),
            target,
            task=task,
            features=features,
            exclude=exclude,
            model_version=model_version,
            force_reupload=force_reupload,
            checksum=checksum,
            progress=progress or ignore,
        )

    async def upload_test_set(
        self,
        model: FittedModel,
        source: Source | Table,
        *,
        output_type: str | None = None,
        storage_options: StorageOptions | None = None,
        filters: Filters | None = None,
        casts: Casts | None = None,
        recompress: Compression | None = None,
        force_reupload: bool = False,
        checksum: bool | None = None,
        progress: ProgressCallback | None = None,
    ) -> TestSet:
        return await upload.upload_test_set(
            self._session,
            model,
            Reading(source, storage_options, filters, casts, recompress),
            output_type=output_type or default_output_type(model.task),
            force_reupload=force_reupload,
            checksum=checksum,
            progress=progress or ignore,
        )
