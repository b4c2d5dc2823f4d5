"""What can be predicted, and what its columns are called (contract 5)."""

import json
from collections.abc import Sequence

from tabpfn_assets import ClassLabel, FittedModel, Task
from tabpfn_operators.errors import InvalidInputError

OUTPUT_TYPES: dict[Task, tuple[str, ...]] = {
    "classification": ("probas", "preds"),
    "regression": ("mean", "median", "mode", "quantiles", "main", "full"),
}
#: The server's own quantiles when none are asked for.
DEFAULT_QUANTILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
POINTS = ("mean", "median", "mode")
#: Columns of the Parquet file; the last three hold lists.
PREDICTION = "prediction"
PROBABILITIES = "probabilities"
QUANTILES = "quantiles"
LOGITS = "logits"
_WITH_QUANTILES = frozenset({"quantiles", "main", "full"})


def default_output_type(task: Task) -> str:
    """Return what is predicted when nobody says: probabilities, or the mean (contract 1.8)."""
    return OUTPUT_TYPES[task][0]


def check_output(model: FittedModel, output_type: str | None, quantiles: Sequence[float] | None) -> str:
    """Settle what is predicted.

    Args:
        model: The fitted model.
        output_type: What is asked for; None takes probabilities or the mean.
        quantiles: Quantiles asked for, each in (0, 1).

    Returns:
        The output type.

    Raises:
        InvalidInputError: The task has no such output, or the quantiles are not usable; the message lists what is.
    """
    known = OUTPUT_TYPES[model.task]
    chosen = output_type or default_output_type(model.task)
    if chosen not in known:
        raise InvalidInputError(f"output_type {chosen!r} is not one of {', '.join(known)}, which {model.task} has.")
    if quantiles is not None:
        if chosen not in _WITH_QUANTILES:
            raise InvalidInputError(f"quantiles go with output_type quantiles, main or full, not {chosen!r}.")
        bad = [q for q in quantiles if isinstance(q, bool) or not 0.0 < q < 1.0]
        if not quantiles or bad or len(set(quantiles)) < len(quantiles):
            raise InvalidInputError(f"quantiles must be different numbers between 0 and 1, not {list(quantiles)}.")
    if model.redacted_fields:
        raise InvalidInputError("This record is redacted: its column names are hashes; predict with the original one.")
    return chosen


def numbers_of_row(model: FittedModel, output_type: str, quantiles: Sequence[float] | None) -> int:
    """Count the numbers that an answer holds for one row; of `full` without its logits, whose count no one knows.

    Args:
        model: The fitted model.
        output_type: What is asked for.
        quantiles: Quantiles asked for; None means the server's own.
    """
    several = len(quantiles or DEFAULT_QUANTILES)
    if output_type == "probas":
        return len(model.classes or ())
    return several + (0 if output_type == "quantiles" else 3) if output_type in _WITH_QUANTILES else 1


def quantile_column(quantile: float) -> str:
    """Name the column of a quantile."""
    return f"quantile_{float(quantile)!r}"


def probability_column(label: ClassLabel) -> str:
    """Name the column of a class's probability, as JSON spells the label (text without its quotes)."""
    return f"probability_{label if isinstance(label, str) else json.dumps(label)}"


def column_names(
    model: FittedModel, output_type: str, quantiles: Sequence[float] | None, *, wide: bool = True
) -> tuple[str, ...]:
    """Name the columns that a prediction will have, as far as that is known before.

    Args:
        model: The fitted model; where it does not know its classes, theirs are left out.
        output_type: What is asked for.
        quantiles: Quantiles asked for; None means the server's own.
        wide: Whether each class and quantile has a column of its own.
    """
    several = tuple(map(quantile_column, quantiles or DEFAULT_QUANTILES)) if wide else (QUANTILES,)
    if output_type == "probas":
        classes = tuple(map(probability_column, model.classes or ())) if wide else (PROBABILITIES,)
        return (PREDICTION, *classes)
    if output_type == "quantiles":
        return several
    if output_type in _WITH_QUANTILES:
        return (PREDICTION, *POINTS, *several, *((LOGITS,) if output_type == "full" else ()))
    return (PREDICTION,)
