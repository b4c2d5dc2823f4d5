"""Requests and answers of the deprecated multipart routes /v1/fit and /v1/predict (contract section 1.11)."""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import ConfigDict, Field, JsonValue, field_validator

from tabpfn_emulator._bodies.answers import Answer
from tabpfn_emulator._bodies.requests import FitPlan, RequestBody, Task

LegacySystem = Literal["preprocessing", "text"]
OutputType = Literal[
    "probas", "preds", "probabilities", "predictions", "mean", "median", "mode", "quantiles", "full", "main"
]

LEGACY_DEFAULTS: dict[str, Any] = {
    "average_before_softmax": False,
    "categorical_features_indices": None,
    "device": ["cpu"],
    "differentiable_input": False,
    "fit_mode": "fit_preprocessors",
    "ignore_pretraining_limits": True,
    "inference_config": None,
    "inference_precision": "auto",
    "memory_saving_mode": True,
    "model_path": "auto",
    "n_estimators": 8,
    "n_jobs": None,
    "n_preprocessing_jobs": 4,
    "random_state": 42,
    "softmax_temperature": 0.2,
}
"""`params` of an answer without a `config`, as the examples of the stored page show it."""

# The page's prose says probas and preds, its examples say probabilities (contract section 8, row 13).
_SPELLINGS = {"probabilities": "probas", "predictions": "preds"}


class LegacyFitConfig(RequestBody):
    """`config` of /v1/fit."""

    n_estimators: int | None = Field(default=None, ge=1, le=10)
    softmax_temperature: float | None = Field(default=None, gt=0)
    average_before_softmax: bool | None = None
    ignore_pretraining_limits: bool | None = None
    random_state: int | None = None


class LegacyPredictConfig(LegacyFitConfig):
    """`config` of /v1/predict."""

    model_path: str | None = None
    categorical_features_indices: list[int] | None = None
    inference_precision: str | None = None
    inference_config: dict[str, JsonValue] | None = None
    balance_probabilities: bool | None = None


class LegacySchema(RequestBody):
    """`schema` of /v1/fit."""

    target: str = "target"
    description: str | None = None


class LegacyFit(RequestBody):
    """The part `data` of /v1/fit."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), populate_by_name=False)

    task: Task
    table: LegacySchema = Field(default=LegacySchema(), alias="schema")
    systems: list[LegacySystem] = ["preprocessing", "text"]
    config: LegacyFitConfig | None = None

    def plan(self, train_set_upload_id: str) -> FitPlan:
        """Return the fit as the current API would ask for it.

        Args:
            train_set_upload_id: Where the files of the request were put.
        """
        return FitPlan(
            train_set_upload_id=train_set_upload_id,
            task=self.task,
            config=self.config.model_dump(exclude_none=True) if self.config else {},
            systems=tuple(self.systems),
            thinking=None,
            text_handling="advanced",
            wire="legacy",
        )


class LegacyParams(RequestBody):
    """`params` of /v1/predict: what to answer."""

    output_type: OutputType | None = None
    quantiles: list[Annotated[float, Field(ge=0, le=1)]] | None = Field(default=None, min_length=1)


class LegacyPredict(RequestBody):
    """The part `data` of /v1/predict; `dataset_id` is listed by the stored schema and explained nowhere."""

    model_id: UUID
    task: Task
    systems: list[LegacySystem] = ["preprocessing", "text"]
    config: LegacyPredictConfig | None = None
    params: LegacyParams = LegacyParams()
    dataset_id: str | None = None

    @field_validator("params", mode="after")
    @classmethod
    def _fits_the_task(cls, params: LegacyParams, info: Any) -> LegacyParams:
        task = info.data.get("task")
        classifies = params.output_type in {"probas", "preds", *_SPELLINGS}
        if params.output_type is not None and task is not None and classifies != (task == "classification"):
            raise ValueError(f"a {task} has no output_type {params.output_type}")
        return params

    @property
    def output_type(self) -> str:
        """The output type in the current API's spelling."""
        default = "probas" if self.task == "classification" else "mean"
        wanted = self.params.output_type or default
        return _SPELLINGS.get(wanted, wanted)


class LegacyFitted(Answer):
    """Answer of /v1/fit."""

    model_id: str
    task: Task


class LegacyPrediction(Answer):
    """Answer of /v1/predict."""

    duration_seconds: int
    prediction: list[Any] | dict[str, list[Any]]
    task: Task
    params: dict[str, Any]
    used_credits: int
    remaining_quota: int
