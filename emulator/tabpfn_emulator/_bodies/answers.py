"""Answers of the current API and of the account's routes, as the contract's sections 1.1 to 1.10 have them.

The OpenAPI document is made of these, and the tests hold every answer against them. No other keys are sent, though
clients must expect some from the real service.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tabpfn_emulator._envelopes import SUPPORT_URL

Status = Literal["pending", "completed", "failed"]


class Answer(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class ErrorB(Answer):
    """Envelope B: an error on `/tabpfn/*` and the account's routes."""

    message: str = Field(examples=["Could not validate credentials"])
    error_code: str = Field(examples=["UNAUTHORIZED"])
    trace_id: str


class DuplicateTrainSet(ErrorB):
    """A train set with the same bytes is there already: use this id, upload nothing."""

    train_set_upload_id: str


class DuplicateTestSet(ErrorB):
    """A test set with the same bytes is there already for this model: use this id, upload nothing."""

    test_set_upload_id: str


class ErrorA(Answer):
    """Envelope A: an error on `/v1/*`."""

    code: str = Field(examples=["auth.unauthorized"])
    detail: str = Field(examples=["Not authenticated"])
    retryable: bool
    support: str = Field(examples=[SUPPORT_URL])


class FieldProblem(Answer):
    """One field of a request that is wrong."""

    field: str
    message: str


class ErrorAPrime(ErrorA):
    """Envelope A': a request on `/v1/*` that is refused, with the fields that are wrong."""

    errors: list[FieldProblem]


class Message(Answer):
    """A text for a person."""

    message: str


class GreetingMessages(Answer):
    """What the client prints at its start."""

    messages: list[str]


class ApiUsage(Answer):
    """Tokens used and allowed; `usage_limit` -1 means unlimited."""

    current_usage: int
    usage_limit: int
    reset_time: str
    daily_tokens_used: int
    daily_token_limit: int
    monthly_tokens_used: int
    monthly_token_limit: int


class ModelLimit(Answer):
    """Size limits of one model version; the client needs all nine."""

    train_set_max_rows: int
    train_set_max_cells: int
    train_set_max_upload_cells: int
    test_set_max_rows: int
    max_classes: int
    max_cols: int
    test_set_max_rows_w_full_regression_output: int
    predict_row_pairs_budget: int
    test_set_max_cells: int


class ModelLimits(Answer):
    """Size limits of all model versions."""

    default_model_version: str
    max_model_limit: ModelLimit
    model_limits: dict[str, ModelLimit]
    dataset_max_size_bytes: int


class AsyncSettings(Answer):
    """From which size on a client should submit and poll, and for how long."""

    use_above_trainset_size_bytes: int
    poll_timeout_secs: float


class ServerSettings(ModelLimits):
    """Size limits, and settings for asynchronous fits."""

    async_settings: AsyncSettings


class FileUploadInfo(Answer):
    """Where to PUT a file: the i-th of k slices to the i-th URL, with exactly these headers."""

    signed_urls: list[str] = Field(min_length=1)
    expires_at: float
    required_headers: dict[str, str]


class PreparedTrainSet(Answer):
    """An open upload of a train set."""

    train_set_upload_id: str
    x_train_info: FileUploadInfo
    y_train_info: FileUploadInfo


class PreparedTestSet(Answer):
    """An open upload of a test set."""

    test_set_upload_id: str
    x_test_info: FileUploadInfo


class FitTimings(Answer):
    """Where the seconds of a fit went."""

    elapsed_s: float
    queue_wait_s: float | None = None
    train_set_transform_s: float | None = None
    fit_s: float | None = None


class Fitted(Answer):
    """A fit, after waiting for it."""

    fitted_train_set_id: str
    status: Status
    timings: FitTimings | None = None


class StreamedError(Answer):
    """Envelope D: the fit has failed after its answer had begun with spaces, so that the status is 200."""

    streamed_error: Literal[True] = Field(alias="_streamed_error")
    message: str
    error_code: str


class SubmittedFit(Answer):
    """A fit that was accepted."""

    fitted_train_set_id: str


class FitStatus(Fitted):
    """Where a fit is; a failed one is an HTTP 200, too."""

    retry_in_secs: float | None = None
    error: str | None = None
    error_code: str | None = None


class PredictionMetadata(Answer):
    """What a prediction was made with."""

    task: Literal["classification", "regression"]
    package_version: str
    tabpfn_config: dict[str, Any]
    test_set_num_rows: int
    test_set_num_cols: int
    n_estimators: int
    billing_model_version: str
    execution_mode: Literal["standard", "thinking", "cache"]
    cache_outcome: Literal["not_requested", "hit", "miss", "fallback"]
    classes: list[str | int | float | bool] | None = None


class PredictTimings(Answer):
    """Where the seconds of a prediction went."""

    test_set_transform_queue_wait_s: float | None
    test_set_transform_s: float | None
    predict_queue_wait_s: float | None
    predict_s: float | None


class Prediction(Answer):
    """Predictions, inline or behind a URL that wants no bearer (contract section 5 has the shapes)."""

    prediction: list[Any] | dict[str, list[Any]] | None = None
    prediction_uri: str | None = None
    prediction_uri_expires_in_secs: int | None = None
    metadata: PredictionMetadata
    timings: PredictTimings | None = None


class CostInputs(Answer):
    """What was priced, defaults resolved."""

    train_rows: int
    raw_columns: int
    test_rows: int
    model_version: str
    operation: str
    n_estimators: int
    thinking_effort: str | None


class CostEstimate(Answer):
    """The price of an operation in tokens."""

    estimated_cost: int
    pricing_version: str
    inputs: CostInputs


class DatasetSummary(Answer):
    """One upload."""

    dataset_uid: str
    kind: Literal["train", "test"]
    description: str | None
    complete: bool
    fitted_train_set_id: str | None


class DataSummary(Answer):
    """What the account has on the server; the contract leaves the shape free."""

    datasets: list[DatasetSummary]
    fitted_train_set_ids: list[str]


class DeletedDatasets(Answer):
    """The ids that are gone."""

    deleted_dataset_uids: list[str]


class PasswordPolicy(Answer):
    """What a password must be, in the notation of the package `password_strength`."""

    requirements: list[str] = Field(examples=[["Length(8)", "Uppercase(1)", "Numbers(1)"]])


class Registered(Answer):
    """A new account; its API answers 403 until the e-mail address is verified."""

    message: str
    token: str
