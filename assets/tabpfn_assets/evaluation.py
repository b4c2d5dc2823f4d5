"""How good a model was on a holdout."""

from pydantic import Field

from tabpfn_assets._record import Record, UtcTime
from tabpfn_assets.names import Task
from tabpfn_assets.sets import SourceRef


class Evaluation(Record):
    """Metrics of one model on one holdout.

    Args:
        task: What the model predicts.
        metrics: Metric name to value, for instance `{"accuracy": 0.97}`.
        baseline: The same metrics for the majority class or the mean of the train set.
        rows_scored: Rows of the holdout that were predicted.
        rows_evaluated: Rows the metrics were computed on.
        holdout: Where the holdout came from.
        created_at: When it was computed (UTC).
    """

    schema_version: int = 1
    task: Task
    metrics: dict[str, float]
    baseline: dict[str, float] = {}
    rows_scored: int = Field(ge=0)
    rows_evaluated: int = Field(ge=0)
    holdout: SourceRef | None = None
    created_at: UtcTime
