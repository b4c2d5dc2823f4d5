"""The lineage record of a fitted model."""

from typing import Literal, Self

from pydantic import Field

from tabpfn_assets._record import Record, Recorded, UtcTime
from tabpfn_assets._redact import redact_label, redact_name
from tabpfn_assets.evaluation import Evaluation
from tabpfn_assets.names import Name, PublicUrl, Task
from tabpfn_assets.parameters import FitParameters
from tabpfn_assets.run import EngineRun
from tabpfn_assets.sets import ClassLabel, Feature, SourceRef

FitTimings = dict[str, float | None]


class FittedModel(Record):
    """A model on the server, and everything needed to use it, trace it and judge it.

    The fitted id cannot be found again once lost (contract 2.2), so keep this record. It holds class labels and column
    names, which may be personal data: `redacted()` hashes them.

    Args:
        name: The name users know it by.
        fitted_train_set_id: The server's id of the fit.
        train_set_upload_id: The upload it was fitted on; None where a model was taken over of which only the id is
            known (`adopt_fit`, `from_tabpfn_client`).
        status: `pending` until the fit is known to be completed.
        target: Target column.
        features: Feature columns in the order sent; a test set must have them.
        classes: Sorted class labels: the order of the probability columns (contract 5). None for regression.
        rows: Train rows.
        source: Where the train rows came from.
        fingerprint: Fit fingerprint: source, parameters, API and account (design.md, Identity).
        parameters: Task, config, systems and thinking, as sent.
        timings: Seconds by stage, as the server reported them.
        estimated_cost: Estimated tokens of the fit; None where nobody asked.
        charged: Tokens that the fit cost; None where it is not known, because nobody asked or because others used the
            account at the same time.
        possible_orphans: Fits of equal content that may exist beside this one, because an answer was lost and the
            request was sent again.
        evaluation: How good it was on a holdout.
        api_url: The API that holds it: base URL without secrets.
        account: The label of the account that holds it, where one was given.
        run: The engine run that made it.
        packages: Versions of the packages that took part.
        parent_id: The fitted id it was compared with (its champion).
        created_at: When the fit was submitted (UTC).
        redacted_fields: Whether labels and names are hashes.
    """

    schema_version: Literal[1] = 1
    name: Name | None = None
    fitted_train_set_id: str
    train_set_upload_id: str | None
    status: Literal["pending", "completed", "failed"]
    target: str
    features: tuple[Feature, ...]
    classes: tuple[ClassLabel, ...] | None = None
    rows: int = Field(ge=1)
    source: SourceRef
    fingerprint: str | None = None
    parameters: Recorded[FitParameters]
    timings: FitTimings = {}
    estimated_cost: int | None = None
    charged: int | None = Field(default=None, ge=0)
    possible_orphans: int = Field(default=0, ge=0)
    evaluation: Evaluation | None = None
    api_url: PublicUrl | None = None
    account: str | None = None
    run: EngineRun | None = None
    packages: dict[str, str] = {}
    parent_id: str | None = None
    created_at: UtcTime
    redacted_fields: bool = False

    @property
    def task(self) -> Task:
        """What the model predicts."""
        return self.parameters.task

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Feature columns in the order sent."""
        return tuple(feature.name for feature in self.features)

    def redacted(self) -> Self:
        """Return the record with column names and class labels hashed, for places where many people read.

        A redacted record still traces the model; it cannot be used to predict.
        """
        if self.redacted_fields:
            return self
        features = tuple(f.model_copy(update={"name": redact_name(f.name)}) for f in self.features)
        thinking = self.parameters.thinking
        if thinking is not None:
            columns = ("group_col", "time_col", "group_time_col")
            hashed = {c: redact_name(v) for c in columns if (v := getattr(thinking, c)) is not None}
            thinking = thinking.model_copy(update=hashed)
        return self.model_copy(
            update={
                "target": redact_name(self.target),
                "features": features,
                "classes": None if self.classes is None else tuple(redact_label(label) for label in self.classes),
                "parameters": self.parameters.model_copy(update={"thinking": thinking}),
                "evaluation": None if self.evaluation is None else self.evaluation.redacted(),
                "redacted_fields": True,
            }
        )
