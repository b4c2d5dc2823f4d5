"""The deprecated multipart routes /v1/fit and /v1/predict (contract section 1.11): CSV in, one request each."""

import asyncio
import csv
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Message

from tabpfn_emulator._bodies.legacy import LEGACY_DEFAULTS, LegacyFit, LegacyPredict
from tabpfn_emulator._bodies.requests import FileInfo, refusal
from tabpfn_emulator._books import billing
from tabpfn_emulator._books.limits import model_limits, price, version_of
from tabpfn_emulator._connections import until_gone
from tabpfn_emulator._emulator import BodyT, account, emulator_of, note
from tabpfn_emulator._envelopes import CALLER_GONE, ApiError, DataError, bad_request, invalid
from tabpfn_emulator._fits import LEGACY_FIT, accept_fit, failure
from tabpfn_emulator._state.records import Fit, Upload

if TYPE_CHECKING:
    from tabpfn_emulator._learning.model import Learned

MAX_DATA_BYTES: Final = 1 << 20
"""Largest part `data`, in bytes."""
_MAX_FILES: Final = 3
_MAX_FIELDS: Final = 4
_TARGET_FIELD: Final = "schema.target"


@contextmanager
def _closing(form: FormData) -> Iterator[FormData]:
    try:
        yield form
    finally:
        for _, part in form.multi_items():
            if isinstance(part, UploadFile):
                part.file.close()


async def _form(request: Request) -> FormData:
    """Return the parts of a request; files above 1 MiB are on disk, not in memory."""
    largest = emulator_of(request).settings.dataset_max_size_bytes + MAX_DATA_BYTES
    arrived = 0

    async def bounded() -> Message:
        nonlocal arrived
        message = await request.receive()
        arrived += len(message.get("body", b""))
        if arrived > largest:
            raise ApiError(413, "CONTENT_TOO_LARGE", f"The request is larger than {largest} bytes.")
        return message

    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise invalid("The body must be multipart/form-data.", [("data", "Field required")])
    return await Request(request.scope, bounded).form(
        max_files=_MAX_FILES, max_fields=_MAX_FIELDS, max_part_size=MAX_DATA_BYTES
    )


def _data(form: FormData, model: type[BodyT], allowed: set[str]) -> BodyT:
    unknown = sorted(set(form) - allowed - {"data"})
    if unknown:
        raise invalid(f"Unknown parts: {unknown}.", [(name, "Extra inputs are not permitted") for name in unknown])
    data = form.get("data")
    if not isinstance(data, str):
        raise invalid("data: Field required", [("data", "Field required")])
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise refusal(error) from None


def _file(form: FormData, name: str) -> BinaryIO | None:
    part = form.get(name)
    if part is None:
        return None
    if not isinstance(part, UploadFile):
        raise bad_request(f"The part `{name}` must be a file.")
    return part.file


async def fit(request: Request) -> Response:
    """Fit on a CSV with features and target, or on one of each, and wait for it.

    In the books that is one `fit_created`; its upload is a part of it, and gone again when the fit is refused or fails.
    """
    owner = account(request)
    billing.check_rate(request, "fit")
    with _closing(await _form(request)) as form:
        body = _data(form, LegacyFit, {"dataset_file", "features_file", "labels_file"})
        files = [_file(form, name) for name in ("dataset_file", "features_file", "labels_file")]
        dataset, features, labels = files
        if dataset is not None and features is None and labels is None:
            write = partial(_split, dataset, body.table.target)
        elif dataset is None and features is not None and labels is not None:
            write = partial(_copy_both, features, labels)
        else:
            raise bad_request("You must upload a `dataset_file`, or a `features_file` and a `labels_file`.")
        upload = _draft(request, owner)
        try:
            await _write_train_set(request, upload, write)
            _, task = await accept_fit(request, body.plan(upload.upload_id), upload, body.table.description)
        finally:
            emulator_of(request).store.discard(upload)
    gone = asyncio.create_task(until_gone(request.receive))
    try:
        # Neither task ends with this wait: a caller who hangs up does not end the fit, as with the current API.
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
    if not task.done():
        return Response(status_code=CALLER_GONE)
    ended = task.result()
    if ended.status == "failed":
        raise failure(ended)
    return JSONResponse({"model_id": ended.fitted_train_set_id, "task": body.task})


def _draft(request: Request, owner: str) -> Upload:
    """Return a train set like those of the current API, so that the fit is one like any other."""
    info = FileInfo(format="csv")
    return emulator_of(request).store.draft(
        owner, {"x_train": info, "y_train": info}, {"x_train": 1, "y_train": 1}, fitted_id=None
    )


async def _write_train_set(request: Request, upload: Upload, write: Callable[[Path, Path], None]) -> None:
    paths = [upload.files[name].part_path(0) for name in ("x_train", "y_train")]
    for path in paths:
        path.parent.mkdir(parents=True)
    try:
        await emulator_of(request).in_worker(write, *paths)
    except DataError as problem:
        raise bad_request(str(problem)) from None


def _copy(source: BinaryIO, target: Path) -> None:
    source.seek(0)
    with target.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)


def _copy_both(features: BinaryIO, labels: BinaryIO, x_path: Path, y_path: Path) -> None:
    _copy(features, x_path)
    _copy(labels, y_path)


def _split(source: BinaryIO, target_column: str, x_path: Path, y_path: Path) -> None:
    """Write the target column into one file and the others into another, row by row."""
    with tempfile.TemporaryDirectory() as scratch:
        # Read from a file of our own: closing a text reader around the upload's would close that, too.
        whole = Path(scratch, "whole.csv")
        _copy(source, whole)
        try:
            with (
                whole.open(newline="", encoding="utf-8-sig") as text,
                x_path.open("w", newline="", encoding="utf-8") as x_file,
                y_path.open("w", newline="", encoding="utf-8") as y_file,
            ):
                rows = csv.reader(text, strict=True)
                header = next(rows, [])
                if header.count(target_column) != 1:
                    message = f"The dataset has {header.count(target_column)} columns named {target_column!r}, not 1."
                    raise invalid(message, [(_TARGET_FIELD, message)])
                position = header.index(target_column)
                x_writer, y_writer = csv.writer(x_file), csv.writer(y_file)
                for number, row in enumerate(chain((header,), filter(None, rows)), 1):
                    if len(row) != len(header):
                        raise DataError(f"Row {number} of the dataset has {len(row)} fields, not {len(header)}.")
                    y_writer.writerow([row[position]])
                    x_writer.writerow(row[:position] + row[position + 1 :])
        except (csv.Error, UnicodeDecodeError) as problem:
            raise DataError(f"The dataset is not readable as CSV: {problem}") from None


async def predict(request: Request) -> Response:
    """Predict the rows of a CSV; every call is billed."""
    emulator = emulator_of(request)
    owner = account(request)
    billing.check_rate(request, "predict")
    started = time.monotonic()
    with _closing(await _form(request)) as form:
        body = _data(form, LegacyPredict, {"file", "dataset_id"})
        file = _file(form, "file")
        if file is None:
            raise bad_request("You must upload a dataset `file` for prediction.")
        accepted = _model(request, owner, body)
        given = body.config.model_dump(exclude_none=True) if body.config else {}
        config = {**LEGACY_DEFAULTS, **accepted.plan.config, **given}
        limits = model_limits(emulator.settings.limits)[version_of(config["model_path"])]

        def work(model: "Learned") -> tuple[bytes, int]:
            from tabpfn_emulator._learning.worker import run_predict

            with tempfile.TemporaryDirectory() as scratch:
                path = Path(scratch, "test.csv")
                _copy(file, path)
                found, rows = run_predict(
                    model,
                    path,
                    "csv",
                    body.output_type,
                    body.params.quantiles,
                    limits,
                    mode=emulator.settings.predict,
                    by_name=True,
                )
            return json.dumps(found, allow_nan=False).encode(), rows

        try:
            model = await emulator.model_of(accepted)
            prediction, rows = await emulator.in_worker(work, model)
        except DataError as problem:
            raise invalid(str(problem), [("file", str(problem))]) from None
    tokens = price(
        "predict", model.rows, rows, model.columns, config["n_estimators"], version_of(config["model_path"]), None
    )
    billing.check_quota(request, tokens)
    billing.charge(request, "predict_run", tokens, fitted_train_set_id=accepted.fitted_train_set_id)
    used_today, _ = billing.used(emulator, owner)
    answer = {
        "duration_seconds": int(time.monotonic() - started),
        "task": body.task,
        "params": config,
        "used_credits": tokens,
        "remaining_quota": max(0, emulator.settings.daily_tokens - used_today),
    }
    rest = json.dumps(answer).encode()
    return Response(b'{"prediction": ' + prediction + b", " + rest[1:], media_type="application/json")


def _model(request: Request, owner: str, body: LegacyPredict) -> Fit:
    try:
        accepted = emulator_of(request).store.fit(owner, str(body.model_id))
    except ApiError:
        raise ApiError(404, "NOT_FOUND", f"Fitted model with ID {body.model_id} not found") from None
    note(request, fitted_train_set_id=accepted.fitted_train_set_id)
    if accepted.status != "completed":
        message = f"The fit is {accepted.status}; predictions need a completed one."
        raise invalid(message, [("model_id", message)])
    if body.task != accepted.plan.task:
        message = f"The model was fitted for {accepted.plan.task}, not for {body.task}."
        raise invalid(message, [("task", message)])
    return accepted


ROUTES = [
    Route(LEGACY_FIT, fit, methods=["POST"]),
    Route("/v1/predict", predict, methods=["POST"]),
]
