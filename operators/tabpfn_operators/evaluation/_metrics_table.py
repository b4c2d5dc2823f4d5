"""The metrics by name: what each task has, which way is better, which one decides."""

from typing import Any, TypeVar

from tabpfn_assets import Task
from tabpfn_operators.errors import InvalidInputError

N = TypeVar("N", float, Any)

#: Metrics that can decide, and whether more is better. `pinball` is the mean over the predicted quantiles.
#: `coverage_80`, the share of rows between the quantiles 0.1 and 0.9, is not among them: wide intervals would win.
HIGHER_IS_BETTER: dict[str, bool] = {
    "accuracy": True,
    "balanced_accuracy": True,
    "log_loss": False,
    "roc_auc_ovr": True,
    "f1_macro": True,
    "brier": False,
    "ece": False,
    "rmse": False,
    "mae": False,
    "r2": True,
    "pinball": False,
}
METRICS: dict[Task, tuple[str, ...]] = {
    "classification": ("accuracy", "balanced_accuracy", "log_loss", "roc_auc_ovr", "f1_macro", "brier", "ece"),
    "regression": ("rmse", "mae", "r2", "pinball", "coverage_80"),
}
DEFAULT_HEADLINE: dict[Task, str] = {"classification": "log_loss", "regression": "rmse"}
#: One sort of all rows for each class: above this many, ROC AUC is left out.
MAX_AUC_CLASSES = 20


def check_headline(task: Task, headline: str | None) -> str:
    """Settle the metric that decides.

    Args:
        task: What the model predicts.
        headline: The metric asked for; None takes log loss, or RMSE.

    Raises:
        InvalidInputError: The task has no such metric that can decide; the message lists those it has.
    """
    chosen = headline or DEFAULT_HEADLINE[task]
    deciding = [name for name in METRICS[task] if name in HIGHER_IS_BETTER]
    if chosen not in deciding:
        raise InvalidInputError(f"headline {chosen!r} is not one of {', '.join(deciding)}, which {task} has.")
    return chosen


def improvement(headline: str, candidate: N, champion: N) -> N:
    """Return by how much a candidate is better than a champion; negative where it is worse.

    Args:
        headline: The metric.
        candidate: Its value for the candidate, or an array of values.
        champion: Its value for the champion, in the same form.
    """
    return candidate - champion if HIGHER_IS_BETTER[headline] else champion - candidate
