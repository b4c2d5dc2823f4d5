"""How good a model was on a holdout, and whether that was good enough."""

from typing import Literal, Self

from pydantic import Field

from tabpfn_assets._record import Record, UtcTime
from tabpfn_assets._redact import redact_label, redact_name
from tabpfn_assets.names import Task
from tabpfn_assets.sets import ClassLabel, SourceRef

#: Points of a curve or bins of a histogram: each a row of numbers, whose meaning the curve's name says.
Curve = tuple[tuple[float, ...], ...]


class Interval(Record):
    """A bootstrap interval of a number.

    Args:
        low: Lower end.
        high: Upper end.
        level: Share of the resamples inside, in (0, 1).
        resamples: How many resamples.
    """

    low: float
    high: float
    level: float = Field(default=0.95, gt=0, lt=1)
    resamples: int = Field(ge=1)


class Comparison(Record):
    """Two models on the same rows of a holdout.

    Args:
        fitted_train_set_id: The other model: the champion.
        metrics: Its metrics on these rows.
        improvement: By how much the evaluated model is better in the headline metric; negative where it is worse.
        interval: Paired bootstrap interval of the improvement; None where the metric has no value for each row.
    """

    fitted_train_set_id: str
    metrics: dict[str, float]
    improvement: float
    interval: Interval | None = None


class Evaluation(Record):
    """Metrics of one model on one holdout.

    Args:
        fitted_train_set_id: The model.
        task: What it predicts.
        target: Target column.
        headline: The metric that decides, a key of `metrics`.
        metrics: Metric name to value, for instance `{"accuracy": 0.97}`; a metric that has no value for this holdout
            is absent, and `notes` says why.
        interval: Bootstrap interval of the headline metric.
        baseline: The same metrics for a constant prediction: the classes' shares, or the mean, of the train set where
            it is known, else of the holdout.
        comparison: The champion on the same rows, where one was given.
        rows: Rows of the holdout.
        rows_scored: Rows that were predicted.
        rows_evaluated: Rows the metrics were computed on.
        seed: Seed of the sample and of the bootstrap.
        classes: Class labels in the order of `confusion`; None for regression.
        confusion: Rows by true class (outer) and predicted class (inner); None for regression.
        curves: Points for plots, by name, for instance `reliability`.
        latency: Seconds that the server took to predict; None where it did not say.
        charged: Tokens that the predictions cost; None where it is not known.
        notes: What a reader must know, for instance why a metric is absent.
        holdout: Where the holdout came from.
        created_at: When it was computed (UTC).
    """

    schema_version: Literal[1] = 1
    fitted_train_set_id: str
    task: Task
    target: str
    headline: str
    metrics: dict[str, float]
    interval: Interval | None = None
    baseline: dict[str, float] = {}
    comparison: Comparison | None = None
    rows: int = Field(ge=0)
    rows_scored: int = Field(ge=0)
    rows_evaluated: int = Field(ge=0)
    seed: int
    classes: tuple[ClassLabel, ...] | None = None
    confusion: tuple[tuple[int, ...], ...] | None = None
    curves: dict[str, Curve] = {}
    latency: float | None = Field(default=None, ge=0)
    charged: int | None = Field(default=None, ge=0)
    notes: tuple[str, ...] = ()
    holdout: SourceRef | None = None
    created_at: UtcTime

    def redacted(self) -> Self:
        """Return the record with target and class labels hashed; notes and curves, which may name them, go."""
        return self.model_copy(
            update={
                "target": redact_name(self.target),
                "classes": None if self.classes is None else tuple(redact_label(label) for label in self.classes),
                "curves": {},
                "notes": (),
            }
        )


class Check(Record):
    """One condition of a promotion, with the numbers it was decided on.

    Args:
        rule: Name of the condition, for instance `min_improvement`.
        passed: Whether it holds.
        actual: What was measured; None where there was nothing to measure.
        required: What it had to reach or to stay under.
        reason: The condition in words, with its numbers.
    """

    rule: str
    passed: bool
    actual: float | None = None
    required: float | None = None
    reason: str


class Decision(Record):
    """Whether a candidate takes the champion's place, and why.

    Args:
        promote: Whether every condition holds.
        candidate_id: Fitted id of the candidate.
        champion_id: Fitted id of the champion; None where there is none yet.
        headline: The metric that decided.
        checks: Every condition, passed or not.
        decided_at: When (UTC).
    """

    schema_version: Literal[1] = 1
    promote: bool
    candidate_id: str
    champion_id: str | None = None
    headline: str
    checks: tuple[Check, ...]
    decided_at: UtcTime
