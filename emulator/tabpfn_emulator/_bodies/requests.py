"""Request bodies, as the API's own models have them: unknown keys are refused (contract section 1.0)."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from tabpfn_emulator._envelopes import ApiError, invalid

System = Literal["preprocessing", "text", "thinking"]
Task = Literal["classification", "regression"]
Effort = Literal["medium", "high"]


class RequestBody(BaseModel):
    """Base of all request bodies."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


BodyT = TypeVar("BodyT", bound=RequestBody)


class FileInfo(RequestBody):
    """A file to upload (contract section 1.1)."""

    format: Literal["csv", "parquet"]
    hash: str | None = None
    size_bytes: int | None = Field(default=None, ge=0)
    use_chunks: bool = False


class PrepareTrainSetUpload(RequestBody):
    """Body of `prepare_train_set_upload`."""

    x_train_info: FileInfo
    y_train_info: FileInfo
    description: str | None = None
    force_reupload: bool = False


class PrepareTestSetUpload(RequestBody):
    """Body of `prepare_test_set_upload`."""

    fitted_train_set_id: UUID
    x_test_info: FileInfo
    force_reupload: bool = False


class RegressorConfig(RequestBody):
    """`tabpfn_config` of a regression (contract section 1.8); n_estimators is 1 to 8 on `/tabpfn/*`."""

    n_estimators: int | None = Field(default=None, ge=1, le=8)
    categorical_features_indices: list[int] | None = None
    softmax_temperature: float | None = Field(default=None, gt=0)
    average_before_softmax: bool | None = None
    random_state: int | None = None
    inference_config: dict[str, JsonValue] | None = None
    inference_precision: str | None = None
    ignore_pretraining_limits: bool | None = None
    fit_mode: Literal["fit_preprocessors", "fit_with_cache", "low_memory", "batched"] | None = None
    model_path: str | None = None
    n_preprocessing_jobs: int | None = None
    device: JsonValue = None
    memory_saving_mode: JsonValue = None


class ClassifierConfig(RegressorConfig):
    """`tabpfn_config` of a classification."""

    balance_probabilities: bool | None = None


class ClassifierFitTask(RequestBody):
    """`task_config` of a classification at fit time."""

    task: Literal["classification"]
    tabpfn_config: ClassifierConfig | None = None


class RegressorFitTask(RequestBody):
    """`task_config` of a regression at fit time."""

    task: Literal["regression"]
    tabpfn_config: RegressorConfig | None = None


class ThinkingConfig(RequestBody):
    """`thinking_config` of a nested fit body."""

    effort: Effort | None = None
    timeout_secs: float | None = Field(default=None, gt=0)
    metric: str | None = None
    group_col: str | list[str] | None = None
    time_col: str | None = None
    group_time_col: str | None = None


class NestedFit(RequestBody):
    """Generation 2 of the fit body (contract section 2.1)."""

    train_set_upload_id: UUID
    task_config: Annotated[ClassifierFitTask | RegressorFitTask, Field(discriminator="task")]
    tabpfn_systems: list[System] = ["preprocessing", "text"]
    text_handling: Literal["advanced", "simple"] | None = None
    thinking_config: ThinkingConfig | None = None


class FlatFit(RequestBody):
    """Generation 1 of the fit body (contract section 2.1)."""

    train_set_upload_id: UUID
    task: Task
    tabpfn_systems: list[System] = ["preprocessing", "text"]
    tabpfn_config: dict[str, JsonValue] | None = None
    thinking_effort: Effort | None = None
    thinking_timeout_s: float | None = Field(default=None, gt=0)
    thinking_effort_metric: str | None = None
    force_refit: bool = False


class GetFitStatus(RequestBody):
    """Body of `get_fit_status`."""

    fitted_train_set_id: UUID


class ClassifierPredictParams(RequestBody):
    """`predict_params` of a classification."""

    output_type: Literal["probas", "preds"] = "probas"


class RegressorPredictParams(RequestBody):
    """`predict_params` of a regression."""

    output_type: Literal["mean", "median", "mode", "quantiles", "full", "main"] = "mean"
    quantiles: list[Annotated[float, Field(ge=0, le=1)]] | None = None


class ClassifierPredictTask(ClassifierFitTask):
    """`task_config` of a classification at predict time."""

    predict_params: ClassifierPredictParams | None = None


class RegressorPredictTask(RegressorFitTask):
    """`task_config` of a regression at predict time."""

    predict_params: RegressorPredictParams | None = None


class Predict(RequestBody):
    """Body of `predict`."""

    test_set_upload_id: UUID
    fitted_train_set_id: UUID
    task_config: Annotated[ClassifierPredictTask | RegressorPredictTask, Field(discriminator="task")]
    force_refit: bool = False


class EstimateCost(RequestBody):
    """Body of `estimate_cost` (contract section 1.9)."""

    train_rows: int = Field(ge=0)
    raw_columns: int = Field(ge=1)
    test_rows: int | None = Field(default=None, ge=0)
    model_version: Literal["v2", "v2.5", "v2.6", "v3", "v3.5", "v3.5-fast"] | None = None
    operation: Literal["predict", "thinking_predict", "thinking_fit", "cache_predict"] = "predict"
    n_estimators: int | None = Field(default=None, ge=1)
    thinking_effort: Effort | None = None


class Register(RequestBody):
    """Body of `/auth/register/` (contract section 1.10); the client adds the fields of its profile form."""

    model_config = ConfigDict(extra="allow", frozen=True)

    email: str = Field(max_length=254)
    password: str = Field(max_length=1024)
    password_confirm: str = Field(max_length=1024)
    validation_link: str


@dataclass(frozen=True)
class FitPlan:
    """A fit request with the generation of its body taken away."""

    train_set_upload_id: str
    task: Task
    config: dict[str, Any]
    systems: tuple[str, ...]
    thinking: dict[str, Any] | None
    text_handling: str
    wire: Literal["nested", "flat", "legacy"]


_ONLY_FLAT = frozenset(FlatFit.model_fields) - frozenset(NestedFit.model_fields)
_ONLY_NESTED = frozenset(NestedFit.model_fields) - frozenset(FlatFit.model_fields)
_OBJECT: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(dict[str, JsonValue])


def refusal(error: ValidationError) -> ApiError:
    """Return the 422 that names every field that is wrong, and never what was in it."""
    problems = [
        (".".join(str(part) for part in problem["loc"]) or "body", problem["msg"])
        for problem in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    return invalid("; ".join(f"{field}: {message}" for field, message in problems), problems)


def read_body(model: type[BodyT], body: bytes) -> BodyT:
    """Read a request body.

    Args:
        model: What it must be.
        body: JSON as it came.

    Raises:
        ApiError: 422, naming every field that is wrong.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise refusal(error) from None


def read_fit(body: bytes, *, flat_allowed: bool) -> FitPlan:
    """Read a fit body of either generation.

    Args:
        body: JSON as it came.
        flat_allowed: False on `submit_fit_job`, which knows generation 2 only (contract section 1.4).

    Raises:
        ApiError: 422 when a field is wrong or unknown, or when the two generations are mixed.
    """
    try:
        keys = set(_OBJECT.validate_json(body))
    except ValidationError as error:
        raise refusal(error) from None
    flat_keys, nested_keys = sorted(keys & _ONLY_FLAT), sorted(keys & _ONLY_NESTED)
    if flat_keys and nested_keys:
        raise invalid(f"The body mixes two generations of the fit request: {flat_keys} with {nested_keys}.")
    if flat_keys and flat_allowed:
        return _plan_of_flat(read_body(FlatFit, body))
    return _plan_of_nested(read_body(NestedFit, body))


def _plan_of_flat(fit: FlatFit) -> FitPlan:
    thinking = {
        "effort": fit.thinking_effort or "medium",
        "timeout_secs": fit.thinking_timeout_s,
        "metric": fit.thinking_effort_metric,
    }
    on = fit.thinking_effort is not None or "thinking" in fit.tabpfn_systems
    return FitPlan(
        train_set_upload_id=str(fit.train_set_upload_id),
        task=fit.task,
        config=dict(fit.tabpfn_config or {}),
        systems=tuple(fit.tabpfn_systems),
        thinking=thinking if on else None,
        text_handling="advanced",
        wire="flat",
    )


def _plan_of_nested(fit: NestedFit) -> FitPlan:
    on = fit.thinking_config is not None or "thinking" in fit.tabpfn_systems
    given = (fit.thinking_config or ThinkingConfig()).model_dump(exclude_none=True)
    config = fit.task_config.tabpfn_config
    return FitPlan(
        train_set_upload_id=str(fit.train_set_upload_id),
        task=fit.task_config.task,
        config=config.model_dump(exclude_none=True) if config else {},
        systems=tuple(fit.tabpfn_systems),
        thinking={"effort": "medium", **given} if on else None,
        text_handling=fit.text_handling or "advanced",
        wire="nested",
    )
