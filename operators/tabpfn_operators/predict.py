"""Predict: check the destination, upload, predict once, write, and leave the record last."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from tabpfn_assets import EngineRun, FittedModel, PredictionSet, TestSet
from tabpfn_operators import _messages as messages
from tabpfn_operators._call import Session, Watch, call, log
from tabpfn_operators._messages import Request
from tabpfn_operators._stored import names_in
from tabpfn_operators.cost import charged, check_predict_cost, usage_before
from tabpfn_operators.errors import (
    ApiError,
    DestinationError,
    FittedModelNotFoundError,
    InvalidInputError,
    NotFoundError,
    OutcomeUnknownError,
    RequestRejectedError,
    ServerError,
    StaleUploadError,
    UploadError,
)
from tabpfn_operators.packages import package_versions
from tabpfn_operators.predictions import (
    AnswerIntake,
    AnswerReader,
    Prediction,
    StoredPrediction,
    check_output,
    check_room,
    numbers_of_row,
    write_parquet,
)
from tabpfn_operators.pricing import check_max_cost
from tabpfn_operators.progress import Progress, ProgressCallback
from tabpfn_operators.reading import Reading
from tabpfn_operators.server import ServerSettings
from tabpfn_operators.settings import is_loopback
from tabpfn_operators.storage import Folder, StorageOptions, folder
from tabpfn_operators.upload import is_stale, stale_upload, upload_test_set

PREDICTIONS_FILE = "predictions.parquet"
LINEAGE_FILE = "_lineage.json"
#: Closes a batch scoring; `scoring` writes it.
MANIFEST_FILE = "_manifest.json"


async def predict_test_set(
    session: Session,
    model: FittedModel,
    test_set: TestSet,
    *,
    output_type: str | None,
    quantiles: Sequence[float] | None,
) -> Prediction:
    """Predict an uploaded test set: one billed call, never repeated where nobody can know whether it ran."""
    async with predicted(session, model, test_set, output_type=output_type, quantiles=quantiles) as stored:
        return await session.wire.call(stored.loaded)


@asynccontextmanager
async def predicted(
    session: Session,
    model: FittedModel,
    test_set: TestSet,
    *,
    output_type: str | None,
    quantiles: Sequence[float] | None,
    wide: bool = True,
    watch: Watch | None = None,
) -> AsyncIterator[StoredPrediction]:
    """Predict an uploaded test set, as `predict_test_set`, into a temporary file that goes with the context."""
    chosen = check_output(model, output_type, quantiles)
    if test_set.fitted_train_set_id != model.fitted_train_set_id:
        raise InvalidInputError(
            f"The test set was uploaded for {test_set.fitted_train_set_id}, not for {model.fitted_train_set_id}; "
            "upload it for this model."
        )
    asked = tuple(quantiles) if quantiles is not None else None
    await session.wire.call(check_room, test_set.rows * numbers_of_row(model, chosen, asked))
    request = messages.predict(
        test_set.test_set_upload_id,
        model.fitted_train_set_id,
        model.parameters,
        output_type=chosen,
        quantiles=asked,
    )
    with AnswerIntake(chosen) as intake:
        answer = await _answer(session, model, test_set, replace(request, intake=intake.reader), watch)
        elsewhere = "prediction" not in answer or (answer["prediction"] is None and "prediction_uri" in answer)
        if elsewhere and intake.reader.problem is None:
            followed = await _followed(session, answer, request, intake)
            answer = {**answer, "prediction": followed}
        yield await session.wire.call(
            lambda: intake.decoded(answer, model, quantiles=asked, rows=test_set.rows, wide=wide)
        )


async def _answer(
    session: Session, model: FittedModel, test_set: TestSet, request: Request, watch: Watch | None
) -> Mapping[str, Any]:
    try:
        response = await call(session, request, watch=watch)
        if isinstance(request.intake, AnswerReader) and request.intake.problem is not None:
            return {}  # what is wrong with it is said by whoever decodes it
        return messages.read_object(response, request.label, "metadata", billed=True)
    except (NotFoundError, RequestRejectedError) as error:
        if test_set.duplicate and is_stale(error) and model.fitted_train_set_id not in error.message:
            raise stale_upload(error, test_set.test_set_upload_id) from None
        if not isinstance(error, NotFoundError):
            raise
        raise FittedModelNotFoundError(
            f"The server does not know the fitted model {model.fitted_train_set_id} or its test set. Upload again; if "
            "that fails too, fit again.",
            status=error.status,
            code=error.code,
            trace_id=error.trace_id,
        ) from None


async def _followed(session: Session, answer: Mapping[str, Any], request: Request, intake: AnswerIntake) -> Any:
    """Fetch a prediction that the server put on storage; without the bearer (contract 1.8)."""
    uri = answer.get("prediction_uri")
    if not isinstance(uri, str):
        raise ServerError(f"{request.label}: the answer holds no prediction; report it to the vendor.")
    settings = session.settings
    if not (uri.startswith("https://") or settings.allow_http or is_loopback(settings.base_url)):
        raise ServerError(f"{request.label}: the prediction's address is not https and is not followed.")
    try:
        get = Request("GET", uri, "GET of the prediction", bearer=False, intake=intake.follow())
        fetched = await call(session, get)
    except UploadError as error:
        # Terminal, unlike an upload's failure: an engine's retry would be billed again.
        raise OutcomeUnknownError(
            f"{request.label}: the prediction was made and billed, but its address did not give it away. Predicting "
            "again is billed again.",
            status=error.status,
        ) from None
    data = messages.parse_json(fetched.body)
    if data is None and intake.reader.problem is None:
        raise ApiError("The stored prediction is not JSON; it was billed: report it to the vendor.")
    return data["prediction"] if isinstance(data, dict) and "prediction" in data else data


async def predict(
    session: Session,
    model: FittedModel,
    reading: Reading,
    destination: str,
    *,
    output_type: str | None,
    quantiles: Sequence[float] | None,
    destination_options: StorageOptions | None,
    run: EngineRun | None,
    redact_labels: bool,
    max_cost: int | None,
    checksum: bool | None,
    progress: ProgressCallback,
) -> PredictionSet:
    """Predict a source and write predictions and their record into a folder."""
    check_max_cost(max_cost)
    if model.status != "completed":
        raise InvalidInputError(
            f"The fit {model.fitted_train_set_id} is {model.status}; wait for it before predicting."
        )
    chosen = check_output(model, output_type, quantiles)
    target = await session.wire.call(folder, destination, destination_options)
    await session.wire.call(target.check_writable)
    await session.wire.call(_refuse_scoring, target)

    async with upload_and_predict(
        session,
        model,
        reading,
        output_type=chosen,
        quantiles=quantiles,
        max_cost=max_cost,
        checksum=checksum,
        progress=progress,
    ) as made:
        test_set, prediction = made.test_set, made.prediction
        progress(Progress("write", 0, test_set.rows, "rows"))
        record = PredictionSet(
            uri=target.file_url(PREDICTIONS_FILE),
            lineage_uri=target.file_url(LINEAGE_FILE),
            rows=test_set.rows,
            columns=tuple(prediction.columns.schema.names),
            output_type=chosen,
            quantiles=None if quantiles is None else tuple(quantiles),
            source=test_set.source,
            test_set_upload_id=test_set.test_set_upload_id,
            model=model,
            metadata=dict(prediction.metadata),
            timings=dict(prediction.timings),
            estimated_cost=made.estimated_cost,
            charged=made.charged,
            run=run,
            packages=package_versions(),
            created_at=datetime.now(UTC),
        )
        if redact_labels:
            record = record.redacted()
        await session.wire.call(_write, target, prediction, record)
    progress(Progress("write", test_set.rows, test_set.rows, "rows"))
    return record


@dataclass(frozen=True)
class Made:
    """One billed prediction.

    Args:
        test_set: What was uploaded for it.
        prediction: What came back.
        estimated_cost: Tokens that it was to cost; None where nobody asked.
        charged: Tokens that it cost; None where that is not known.
    """

    test_set: TestSet
    prediction: StoredPrediction
    estimated_cost: int | None
    charged: int | None


@asynccontextmanager
async def upload_and_predict(
    session: Session,
    model: FittedModel,
    reading: Reading,
    *,
    output_type: str,
    quantiles: Sequence[float] | None,
    max_cost: int | None,
    checksum: bool | None,
    progress: ProgressCallback,
    wide: bool = True,
    watch: Watch | None = None,
    server: ServerSettings | None = None,
) -> AsyncIterator[Made]:
    """Upload a test set and predict it, in a temporary file that goes with the context; one billed call."""
    once = partial(
        _predicted_once,
        session,
        model,
        reading,
        output_type=output_type,
        quantiles=quantiles,
        max_cost=max_cost,
        checksum=checksum,
        progress=progress,
        wide=wide,
        watch=watch,
        server=server,
    )
    async with AsyncExitStack() as stack:
        try:
            made = await stack.enter_async_context(once(force_reupload=False))
        except StaleUploadError as error:
            # Refused, so not billed: one more call is the first that can be (contract 2.3).
            if watch is not None:
                await watch.not_carried_out()
            log.warning("%s Doing so once.", error.message)
            made = await stack.enter_async_context(once(force_reupload=True))
        yield made


@asynccontextmanager
async def _predicted_once(
    session: Session,
    model: FittedModel,
    reading: Reading,
    *,
    output_type: str,
    quantiles: Sequence[float] | None,
    max_cost: int | None,
    force_reupload: bool,
    checksum: bool | None,
    progress: ProgressCallback,
    wide: bool,
    watch: Watch | None,
    server: ServerSettings | None,
) -> AsyncIterator[Made]:
    estimate: int | None = None

    async def approve(rows: int) -> None:
        nonlocal estimate
        estimate = (await check_predict_cost(session, model, rows=rows, max_cost=max_cost)).total

    test_set = await upload_test_set(
        session,
        model,
        reading,
        output_type=output_type,
        force_reupload=force_reupload,
        checksum=checksum,
        progress=progress,
        approve=None if max_cost is None else approve,
        server=server,
    )
    # Not before the upload, which takes long: what others use meanwhile would hide the charge.
    before = None if max_cost is None else await usage_before(session)
    progress(Progress("predict", 0, test_set.rows, "rows"))
    async with predicted(
        session, model, test_set, output_type=output_type, quantiles=quantiles, wide=wide, watch=watch
    ) as prediction:
        yield Made(test_set, prediction, estimate, await charged(session, before, estimate, billed=True))


def _refuse_scoring(target: Folder) -> None:
    """Leave a batch scoring alone, whose part files would be read beside the predictions."""
    if MANIFEST_FILE in names_in(target.fs, target.path):
        raise DestinationError(
            f"{target.url} holds a batch scoring, which these predictions would be read as a part of; choose another "
            "folder. Nothing was sent."
        )


def _write(target: Folder, prediction: StoredPrediction, record: PredictionSet) -> None:
    """Write the predictions, then the record: a folder without the record is unfinished."""
    target.remove(LINEAGE_FILE)
    with target.replacing(PREDICTIONS_FILE) as file:
        write_parquet(prediction.columns, file, fitted_train_set_id=record.model.fitted_train_set_id)
    with target.replacing(LINEAGE_FILE) as file:
        file.write(record.model_dump_json(indent=2).encode())
