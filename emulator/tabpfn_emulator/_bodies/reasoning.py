"""Requests and answers of the reasoning API, generation A (contract section 11).

`ReasoningFit` and `ReasoningFitJob` are as the seed page has them; the others are from docs, not verified.
"""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import ConfigDict, Field, JsonValue, model_validator

from tabpfn_emulator._bodies.answers import Answer
from tabpfn_emulator._bodies.requests import RequestBody

JobStatusName = Literal["pending", "running", "completed", "failed"]
FileFormat = Literal["pkl", "csv", "parquet"]
Operator = Literal["eq", "ne", "gt", "ge", "lt", "le", "in", "not_in", "is_null", "is_not_null"]


class Comparison(RequestBody):
    """One column compared with a value; the value is a list for in and not_in, and unused for the null checks."""

    kind: Literal["cmp"]
    col: str
    op: Operator = "eq"
    value: JsonValue = None


class BoolExpr(RequestBody):
    """Filters joined by and, or."""

    kind: Literal["bool"]
    op: Literal["and", "or"]
    args: list["RowFilter"] = Field(min_length=1)


class Not(RequestBody):
    """The rows that a filter leaves out."""

    kind: Literal["not"]
    arg: "RowFilter"


RowFilter = Annotated[Comparison | BoolExpr | Not, Field(discriminator="kind")]


class Task(RequestBody):
    """What to predict."""

    task_kind: Literal["regression", "binclass", "multiclass"]
    label_column: str = Field(min_length=1)


class ReasoningFit(RequestBody):
    """Body of /v1/reasoning/fit."""

    dataset_id: UUID
    filter: RowFilter | None = None
    task: Task
    model_types: list[str] | None = Field(default=None, max_length=1)
    n_hyperopt_steps: int = Field(default=5, ge=1, le=200)
    random_state: int = 42
    teacher_model_id: UUID | None = None
    teacher_predict_url: str | None = None
    teacher_predict_headers: dict[str, str] | None = None
    teacher_get_grads_url: str | None = None

    @model_validator(mode="after")
    def _one_teacher(self) -> "ReasoningFit":
        if self.teacher_model_id is not None and self.teacher_predict_url is not None:
            raise ValueError("teacher_model_id and teacher_predict_url exclude each other")
        if self.teacher_get_grads_url is not None and self.teacher_predict_url is None:
            raise ValueError("teacher_get_grads_url requires teacher_predict_url")
        return self


class OpenUpload(RequestBody):
    """Body of /v1/uploads."""

    file_format: FileFormat


class FileUploadConnection(RequestBody):
    """`connection_config` of an uploaded file: what /v1/uploads has answered. The emulator knows no other kind."""

    connector_type: Literal["file_upload"]
    id: UUID
    uri: str | None = None
    state: str | None = None


class Column(RequestBody):
    """A column to use. Its other keys are not known, so they are let through."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = Field(min_length=1)


class Dataset(RequestBody):
    """Body of /v1/datasets, and the inline dataset of a prediction."""

    columns: list[Column] = Field(min_length=1)
    connection_config: FileUploadConnection
    filter: RowFilter | None = None


class ReasoningPredict(RequestBody):
    """Body of /v1/models/{id}/predict."""

    dataset: Dataset


class FileUploadState(Answer):
    """`connection_config` as the server knows it."""

    connector_type: Literal["file_upload"] = "file_upload"
    id: str
    uri: str
    state: Literal["pending", "uploaded"]


class OpenedUpload(Answer):
    """Where to PUT a file, with exactly this content type."""

    connection_config: FileUploadState
    upload_url: str
    content_type: str
    expires_in: int


class RegisteredDataset(Answer):
    """A dataset; that its id is called `id` is not verified."""

    id: str
    columns: list[Column]
    connection_config: FileUploadState
    filter: RowFilter | None = None
    created_at: datetime


class SubmittedJob(Answer):
    """A job that was accepted."""

    job_id: str
    status: JobStatusName
    message: str


class ReasoningFitJob(SubmittedJob):
    """A fit that was accepted."""

    dataset_id: str


class Progress(Answer):
    """How far a job is."""

    step: int
    total_steps: int


class JobStatus(Answer):
    """Where a job is."""

    job_id: str
    job_type: Literal["reasoning_fit", "predict"]
    status: JobStatusName
    created_at: datetime
    updated_at: datetime
    progress: Progress | None = None
    error_message: str | None = None


class ResultData(Answer):
    """What a job has made: a fit its model, a prediction the URL of its artifact, a fresh one at each call."""

    model_id: str
    result_uri: str | None = None
    presigned_url: str | None = None


class JobResult(Answer):
    """The end of a job."""

    job_id: str
    status: Literal["completed", "failed"]
    result_data: ResultData | None = None
    result_uri: str | None = None
    error_message: str | None = None
    completed_at: datetime | None = None
