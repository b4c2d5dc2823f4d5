"""Every route of the API with its models and statuses: what the OpenAPI document is made of."""

from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from tabpfn_emulator._bodies import answers, legacy, reasoning, requests

UNVERIFIED: Final = "From docs, not verified."
_UUID: Final = "123e4567-e89b-12d3-a456-426614174000"
_FILE: Final = {"format": "csv"}


@dataclass(frozen=True)
class Operation:
    """One method of one route.

    Attributes:
        method: HTTP method, in lower case.
        path: Its path, with parameters in braces.
        summary: What it does, in a few words.
        source: Where the contract says so.
        answer: Model of the answer; None for the zip archive.
        body: Models of a JSON body, any one of which will do.
        form: Parts of a multipart body: model of the part `data`, and the names of its files.
        query: Query parameters, all required.
        errors: Statuses besides those that every route with a token has.
        streamed: Model of a failure inside a 200.
        headers: Optional request headers.
        conflict: Model of a 409 that is not the plain envelope.
        example: A JSON body, or the part `data` of a multipart one.
        token: Whether it wants a token.
        deprecated: Whether clients should use another route.
    """

    method: str
    path: str
    summary: str
    source: str
    answer: type[BaseModel] | None
    body: tuple[type[BaseModel], ...] = ()
    form: tuple[type[BaseModel], tuple[str, ...]] | None = None
    query: tuple[str, ...] = ()
    errors: tuple[int, ...] = ()
    streamed: type[BaseModel] | None = None
    headers: tuple[str, ...] = ()
    conflict: type[BaseModel] | None = None
    example: dict[str, Any] | None = None
    token: bool = True
    deprecated: bool = False

    @property
    def statuses(self) -> tuple[int, ...]:
        """Statuses of refusals; 500 and what the faults inject are no part of the contract.

        507 is the emulator's own: every request is booked, which takes room on its disk.
        """
        with_token = (401, 403) if self.token else ()
        with_input = (422,) if self.body or self.form or self.query else ()
        return tuple(sorted({*with_token, *with_input, *self.errors, 507}))


_ACCOUNT: Final = (
    Operation("get", "/", "Is the server there?", "1.10", answers.Message, token=False),
    Operation("get", "/protected/", "Is the token valid?", "1.10", answers.Message),
    Operation("get", "/retrieve_greeting_messages/", "Messages for the user", "1.10", answers.GreetingMessages),
    Operation("post", "/get_api_usage/", "Tokens used and allowed", "1.10", answers.ApiUsage),
    Operation("get", "/get_data_summary/", "What the account has uploaded", "1.10", answers.DataSummary),
    Operation("get", "/download_all_data/", "All uploaded files, as a zip", "1.10", None),
    Operation(
        "delete",
        "/delete_dataset/",
        "Delete an upload, with what depends on it",
        "1.10",
        answers.DeletedDatasets,
        query=("dataset_uid",),
        errors=(404,),
    ),
    Operation("delete", "/delete_all_datasets/", "Delete all uploads and models", "1.10", answers.DeletedDatasets),
    Operation("delete", "/delete_user_account/", "Delete the account and its data", "1.10", answers.Message),
    Operation(
        "post",
        "/auth/validate_email/",
        "Can this e-mail address be registered?",
        "1.10",
        answers.Message,
        query=("email",),
        errors=(400,),
        token=False,
    ),
    Operation("get", "/auth/password_policy/", "What a password must be", "1.10", answers.PasswordPolicy, token=False),
    Operation(
        "post",
        "/auth/register/",
        "Open an account",
        "1.10. 403 (a stand-in): the server was started with accounts of its own, and opens no others.",
        answers.Registered,
        body=(requests.Register,),
        errors=(400, 403),
        token=False,
        example={
            "email": "user@example.com",
            "password": "Secret-Passw0rd",
            "password_confirm": "Secret-Passw0rd",
            "validation_link": "tabpfn-2023",
        },
    ),
    Operation("post", "/auth/send_verification_email/", "Ask for the verification e-mail", "1.10", answers.Message),
    Operation(
        "get",
        "/auth/verify_email/",
        "Verify the e-mail address",
        "1.10",
        answers.Message,
        query=("token", "access_token"),
        errors=(400, 401),
        token=False,
    ),
)

_CURRENT: Final = (
    Operation("get", "/tabpfn/get_settings", "Size limits and settings", "1.6", answers.ServerSettings, errors=(404,)),
    Operation(
        "get",
        "/tabpfn/get_model_limits",
        "Size limits, as older clients ask for them",
        "1.6",
        answers.ModelLimits,
        deprecated=True,
    ),
    Operation(
        "post",
        "/tabpfn/prepare_train_set_upload",
        "Open the upload of a train set",
        "1.1",
        answers.PreparedTrainSet,
        body=(requests.PrepareTrainSetUpload,),
        errors=(409, 429),
        conflict=answers.DuplicateTrainSet,
        example={"x_train_info": _FILE, "y_train_info": _FILE},
    ),
    Operation(
        "post",
        "/tabpfn/fit",
        "Fit, and wait for it",
        "1.3",
        answers.Fitted,
        body=(requests.NestedFit, requests.FlatFit),
        streamed=answers.StreamedError,
        errors=(404, 429, 500),
        example={"train_set_upload_id": _UUID, "task_config": {"task": "classification"}},
    ),
    Operation(
        "post",
        "/tabpfn/submit_fit_job",
        "Fit, without waiting",
        "1.4",
        answers.SubmittedFit,
        body=(requests.NestedFit,),
        errors=(404, 429),
        example={"train_set_upload_id": _UUID, "task_config": {"task": "regression"}},
    ),
    Operation(
        "post",
        "/tabpfn/get_fit_status",
        "Where is a fit?",
        "1.5",
        answers.FitStatus,
        body=(requests.GetFitStatus,),
        errors=(404,),
        example={"fitted_train_set_id": _UUID},
    ),
    Operation(
        "post",
        "/tabpfn/prepare_test_set_upload",
        "Open the upload of a test set for a fitted model",
        "1.7",
        answers.PreparedTestSet,
        body=(requests.PrepareTestSetUpload,),
        errors=(404, 409, 429),
        conflict=answers.DuplicateTestSet,
        example={"fitted_train_set_id": _UUID, "x_test_info": _FILE},
    ),
    Operation(
        "post",
        "/tabpfn/predict",
        "Predict a test set",
        "1.8",
        answers.Prediction,
        body=(requests.Predict,),
        errors=(404, 429),
        example={
            "test_set_upload_id": _UUID,
            "fitted_train_set_id": _UUID,
            "task_config": {"task": "classification", "predict_params": {"output_type": "probas"}},
        },
    ),
    Operation(
        "post",
        "/tabpfn/estimate_cost",
        "Price an operation from its dimensions",
        "1.9",
        answers.CostEstimate,
        body=(requests.EstimateCost,),
        example={"train_rows": 1000, "raw_columns": 10, "test_rows": 100},
    ),
)

_LEGACY: Final = (
    Operation(
        "post",
        "/v1/fit",
        "Fit on CSV files: one with the target, or features and labels",
        "1.11",
        legacy.LegacyFitted,
        form=(legacy.LegacyFit, ("dataset_file", "features_file", "labels_file")),
        errors=(400, 404, 413, 429, 500),
        example={"task": "classification", "schema": {"target": "churn", "description": "Customer churn dataset"}},
        deprecated=True,
    ),
    Operation(
        "post",
        "/v1/predict",
        "Predict a CSV file",
        "1.11",
        legacy.LegacyPrediction,
        form=(legacy.LegacyPredict, ("file",)),
        errors=(400, 404, 413, 429),
        example={"model_id": _UUID, "task": "classification", "params": {"output_type": "probabilities"}},
        deprecated=True,
    ),
)

_CONNECTION: Final = {"connector_type": "file_upload", "id": _UUID}
_REASONING: Final = (
    Operation(
        "post",
        "/v1/uploads",
        "Open the upload of a file",
        f"11.2. {UNVERIFIED}",
        reasoning.OpenedUpload,
        body=(reasoning.OpenUpload,),
        example={"file_format": "csv"},
    ),
    Operation(
        "post",
        "/v1/datasets",
        "Register a data set",
        f"11.2. {UNVERIFIED}",
        reasoning.RegisteredDataset,
        body=(reasoning.Dataset,),
        errors=(404,),
        example={"columns": [{"name": "age"}, {"name": "churn"}], "connection_config": _CONNECTION},
    ),
    Operation(
        "post",
        "/v1/reasoning/fit",
        "Submit a reasoning fit",
        f"11.1; statuses other than 200: {UNVERIFIED}",
        reasoning.ReasoningFitJob,
        body=(reasoning.ReasoningFit,),
        headers=("refresh-token",),
        errors=(404,),
        example={"dataset_id": _UUID, "task": {"label_column": "churn", "task_kind": "regression"}},
    ),
    Operation(
        "get", "/v1/status/{job_id}", "Where is a job?", f"11.2. {UNVERIFIED}", reasoning.JobStatus, errors=(404,)
    ),
    Operation(
        "get",
        "/v1/results/{job_id}",
        "What has a job made?",
        f"11.2. {UNVERIFIED}",
        reasoning.JobResult,
        errors=(404, 409),
    ),
    Operation(
        "post",
        "/v1/models/{model_id}/predict",
        "Submit a prediction",
        f"11.2. {UNVERIFIED}",
        reasoning.SubmittedJob,
        body=(reasoning.ReasoningPredict,),
        errors=(404,),
        example={"dataset": {"columns": [{"name": "age"}], "connection_config": _CONNECTION}},
    ),
)

OPERATIONS: Final = (*_ACCOUNT, *_CURRENT, *_LEGACY, *_REASONING)
"""All of them; `/storage/*` (signed URLs), `/_emulator/*` and `/openapi.json` itself are no part of the API."""
