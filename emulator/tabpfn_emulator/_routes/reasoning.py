"""Routes of the reasoning API, generation A (contract section 11).

The body and the answer of /v1/reasoning/fit are those of the seed page; everything else here is from docs, not
verified.
"""

from datetime import UTC, datetime
from typing import Any, Final

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from tabpfn_emulator._bodies.reasoning import (
    Dataset,
    FileUploadState,
    JobResult,
    JobStatus,
    OpenedUpload,
    OpenUpload,
    Progress,
    ReasoningFit,
    ReasoningFitJob,
    ReasoningPredict,
    RegisteredDataset,
    ResultData,
    SubmittedJob,
)
from tabpfn_emulator._books.billing import charge
from tabpfn_emulator._books.journal import CreationKind
from tabpfn_emulator._emulator import account, body_of, emulator_of, note
from tabpfn_emulator._envelopes import ApiError, invalid
from tabpfn_emulator._reasoning_jobs import begin_job
from tabpfn_emulator._routes.storage import checked, keep

_CONTENT_TYPES: Final = {
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
    "pkl": "application/octet-stream",
}
_STORAGE: Final = "/storage/reasoning"
_ANY_METHOD: Final = ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"]


def _answer(model: BaseModel) -> Response:
    return Response(model.model_dump_json(exclude_none=True), media_type="application/json")


def _instant(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, UTC)


def _connection(request: Request, upload_id: str, upload: dict[str, Any]) -> FileUploadState:
    arrived = emulator_of(request).reasoning.upload_path(upload_id).exists()
    return FileUploadState(
        id=upload_id,
        uri=f"s3://tabpfn-emulator/uploads/{upload_id}.{upload['file_format']}",
        state="uploaded" if arrived else "pending",
    )


async def open_upload(request: Request) -> Response:
    """Open the upload of a file."""
    owner = account(request)
    body = await body_of(request, OpenUpload)
    emulator, store = emulator_of(request), emulator_of(request).reasoning
    with emulator.database.transaction():
        upload_id = store.add("reasoning_upload", owner, {"file_format": body.file_format})
        charge(request, "upload_created", 0, upload_id=upload_id)
    content_type = _CONTENT_TYPES[body.file_format]
    url, _ = emulator.signed_url(
        str(request.base_url), "PUT", f"{_STORAGE}/uploads/{upload_id}", {"content-type": content_type}
    )
    upload = store.get("reasoning_upload", owner, upload_id)
    return _answer(
        OpenedUpload(
            connection_config=_connection(request, upload_id, upload),
            upload_url=url,
            content_type=content_type,
            expires_in=int(emulator.settings.url_ttl_secs),
        )
    )


async def put_upload(request: Request) -> Response:
    """Take the bytes of an upload, streamed to disk."""
    object_store, headers = checked(request)
    store, upload_id = emulator_of(request).reasoning, request.path_params["upload_id"]
    if store.owner_of_upload(upload_id) is None:
        raise object_store.no_bucket()
    note(request, upload_id=upload_id)
    return await keep(request, object_store, headers, store.upload_path(upload_id))


async def get_result(request: Request) -> Response:
    """Return the artifact of a prediction."""
    object_store, _ = checked(request)
    job_id = request.path_params["job_id"]
    path = emulator_of(request).reasoning.result_path(job_id)
    if not path.exists():
        raise object_store.no_key()
    note(request, job_id=job_id)
    return FileResponse(path, media_type="application/json")


def _dataset_record(request: Request, owner: str, dataset: Dataset) -> tuple[dict[str, Any], FileUploadState]:
    upload_id = str(dataset.connection_config.id)
    upload = emulator_of(request).reasoning.get("reasoning_upload", owner, upload_id)
    connection = _connection(request, upload_id, upload)
    if connection.state != "uploaded":
        raise invalid(
            f"The upload {upload_id} has not arrived.", [("connection_config.id", "the file has not been uploaded")]
        )
    record = {
        "upload_id": upload_id,
        "columns": [column.name for column in dataset.columns],
        "filter": dataset.filter.model_dump(mode="json") if dataset.filter else None,
    }
    return record, connection


async def create_dataset(request: Request) -> Response:
    """Register the columns and rows of an uploaded file as a data set."""
    owner = account(request)
    body = await body_of(request, Dataset)
    record, connection = _dataset_record(request, owner, body)
    store = emulator_of(request).reasoning
    dataset_id = store.add("reasoning_dataset", owner, record)
    note(request, dataset_id=dataset_id, upload_id=record["upload_id"])
    return _answer(
        RegisteredDataset(
            id=dataset_id,
            columns=body.columns,
            connection_config=connection,
            filter=body.filter,
            created_at=_instant(store.get("reasoning_dataset", owner, dataset_id)["created_at"]),
        )
    )


async def reasoning_fit(request: Request) -> Response:
    """Submit a fit; every call makes another job."""
    owner = account(request)
    body = await body_of(request, ReasoningFit)
    store, dataset_id = emulator_of(request).reasoning, str(body.dataset_id)
    store.get("reasoning_dataset", owner, dataset_id)
    teacher = str(body.teacher_model_id) if body.teacher_model_id else None
    if teacher is not None:
        store.get("reasoning_model", owner, teacher)
    recipe = {
        "dataset_id": dataset_id,
        "filter": body.filter.model_dump(mode="json") if body.filter else None,
        "task_kind": body.task.task_kind,
        "label_column": body.task.label_column,
        "random_state": body.random_state,
        "teacher_model_id": teacher,
        # Neither the URL nor its headers, which may hold a secret, are kept.
        "foreign_teacher": body.teacher_predict_url is not None,
    }
    fault = emulator_of(request).faults.take_for_fit(request.url.path)
    job = {
        "job_type": "reasoning_fit",
        "recipe": recipe,
        "endless": fault is not None and fault.kind == "endless_fit",
        "doomed": fault.error if fault is not None and fault.kind == "fail_fit" else None,
    }
    job_id = _submit(request, owner, job, "fit_created", dataset_id=dataset_id)
    return _answer(
        ReasoningFitJob(
            job_id=job_id, status="pending", message="The reasoning fit was submitted.", dataset_id=dataset_id
        )
    )


def _submit(request: Request, owner: str, job: dict[str, Any], kind: CreationKind, **ids: str) -> str:
    emulator = emulator_of(request)
    with emulator.database.transaction():
        job_id = emulator.reasoning.add("reasoning_job", owner, {"status": "pending", **job})
        charge(request, kind, 0, job_id=job_id, **ids)
    begin_job(emulator, owner, job_id)
    return job_id


async def predict(request: Request) -> Response:
    """Submit a prediction of the rows of an inline data set."""
    owner = account(request)
    model_id = request.path_params["model_id"]
    body = await body_of(request, ReasoningPredict)
    emulator_of(request).reasoning.get("reasoning_model", owner, model_id)
    record, _ = _dataset_record(request, owner, body.dataset)
    job = {"job_type": "predict", "model_id": model_id, "dataset": record}
    job_id = _submit(request, owner, job, "predict_run", model_id=model_id)
    return _answer(SubmittedJob(job_id=job_id, status="pending", message="The prediction was submitted."))


def _job(request: Request) -> tuple[str, dict[str, Any]]:
    owner, job_id = account(request), request.path_params["job_id"]
    job = emulator_of(request).reasoning.get("reasoning_job", owner, job_id)
    note(request, job_id=job_id)
    return job_id, job


async def status(request: Request) -> Response:
    """Tell where a job is; a failed one is an HTTP 200, too."""
    job_id, job = _job(request)
    return _answer(
        JobStatus(
            job_id=job_id,
            job_type=job["job_type"],
            status=job["status"],
            created_at=_instant(job["created_at"]),
            updated_at=_instant(job.get("updated_at", job["created_at"])),
            progress=Progress(step=int("completed_at" in job), total_steps=1),
            error_message=job.get("error_message"),
        )
    )


async def results(request: Request) -> Response:
    """Return what a job has made; a prediction comes behind a URL that is fresh at each call."""
    job_id, job = _job(request)
    if "completed_at" not in job:
        raise ApiError(409, "NOT_FINISHED", f"The job {job_id} is {job['status']}; poll /v1/status/{job_id}.")
    if job["status"] == "failed":
        data = uri = None
    elif job["job_type"] == "reasoning_fit":
        data, uri = ResultData(model_id=job["model_id"]), None
    else:
        uri = f"s3://tabpfn-emulator/results/{job_id}/result.json"
        url, _ = emulator_of(request).signed_url(str(request.base_url), "GET", f"{_STORAGE}/results/{job_id}", {})
        data = ResultData(model_id=job["model_id"], result_uri=uri, presigned_url=url)
    return _answer(
        JobResult(
            job_id=job_id,
            status=job["status"],
            result_data=data,
            result_uri=uri,
            error_message=job.get("error_message"),
            completed_at=_instant(job["completed_at"]),
        )
    )


ROUTES = [
    Route("/v1/uploads", open_upload, methods=["POST"]),
    Route("/v1/datasets", create_dataset, methods=["POST"]),
    Route("/v1/reasoning/fit", reasoning_fit, methods=["POST"]),
    Route("/v1/status/{job_id}", status, methods=["GET"]),
    Route("/v1/results/{job_id}", results, methods=["GET"]),
    Route("/v1/models/{model_id}/predict", predict, methods=["POST"]),
    Route(_STORAGE + "/uploads/{upload_id}", put_upload, methods=_ANY_METHOD),
    Route(_STORAGE + "/results/{job_id}", get_result, methods=_ANY_METHOD),
]
