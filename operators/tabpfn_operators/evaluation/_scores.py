"""Predictions as columns of numbers: from an answer, a table, an array or a file, all rows or some."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from tabpfn_assets import ClassLabel, FittedModel
from tabpfn_operators.errors import InvalidInputError
from tabpfn_operators.predictions import probability_column, quantile_column
from tabpfn_operators.reading import is_spliceable
from tabpfn_operators.tables._source import RowSource

#: Rows that are looked at across all classes at once.
BLOCK_ROWS = 8192
#: The greatest sample of scores, in bytes of float64.
SAMPLE_BYTES = 128 << 20
#: Read one after the other, the columns of a Parquet file need not wait for each other on disk.
_COLUMNS_AT_ONCE = 8
#: What a probability may be off by, having been a float32 or text.
_ROUNDING = 1e-6
_QUANTILE = quantile_column(0.5).removesuffix("0.5")
_PROBABILITY = probability_column("")


@dataclass(frozen=True)
class Probabilities:
    """Probabilities of classes.

    Args:
        classes: Class labels.
        columns: For each class the probabilities of all rows, float64.
    """

    classes: tuple[ClassLabel, ...]
    columns: Sequence[Any] = field(repr=False)

    @property
    def rows(self) -> int:
        """Rows."""
        return len(self.columns[0])

    def block(self, start: int) -> Any:
        """Return BLOCK_ROWS rows from `start` on as an array of rows x classes."""
        return np.stack([column[start : start + BLOCK_ROWS] for column in self.columns], axis=1)

    def usable(self) -> Any:
        """Tell for each row whether every number is finite."""
        found = np.ones(self.rows, bool)
        for column in self.columns:
            found &= np.isfinite(column)
        return found

    def check(self) -> None:
        """Refuse numbers that are no probabilities; those that are not finite are none of its business.

        Raises:
            InvalidInputError: A number is below 0 or above 1.
        """
        for label, column in zip(self.classes, self.columns, strict=True):
            low, high = np.nanmin(column, initial=0.0), np.nanmax(column, initial=0.0)
            if low < -_ROUNDING or (high > 1 + _ROUNDING and np.isfinite(high)):
                raise InvalidInputError(
                    f"The scores of class {label!r} reach from {low:g} to {high:g}; give probabilities, 0 to 1."
                )

    def take(self, rows: Any) -> "Probabilities":
        """Keep some rows: a mask, or positions."""
        return Probabilities(self.classes, [column[rows] for column in self.columns])

    def ordered(self, order: Sequence[int], classes: tuple[ClassLabel, ...]) -> "Probabilities":
        """Put the columns into another order, under the labels of that order."""
        return Probabilities(classes, [self.columns[index] for index in order])


@dataclass(frozen=True)
class Numbers:
    """Predicted numbers.

    Args:
        points: The prediction of each row, float64.
        quantiles: Quantile to its prediction of each row; empty where none were predicted.
    """

    points: Any = field(repr=False)
    quantiles: Mapping[float, Any] = field(default_factory=dict, repr=False)

    @property
    def rows(self) -> int:
        """Rows."""
        return len(self.points)

    def usable(self) -> Any:
        """Tell for each row whether every number is finite."""
        found = np.isfinite(self.points)
        for values in self.quantiles.values():
            found &= np.isfinite(values)
        return found

    def take(self, rows: Any) -> "Numbers":
        """Keep some rows: a mask, or positions."""
        return Numbers(self.points[rows], {quantile: values[rows] for quantile, values in self.quantiles.items()})


Scores: TypeAlias = Probabilities | Numbers


def scores_of_columns(
    columns: Mapping[str, Any], model: FittedModel, classes: Sequence[ClassLabel] | None, shown: str
) -> Scores:
    """Take columns as `predict` names them.

    Args:
        columns: Column name to numbers (Arrow or NumPy).
        model: The model that predicted.
        classes: Its classes as the server told them; None takes the record's.
        shown: What to call them in messages.

    Raises:
        InvalidInputError: They are not the columns of this model's predictions; the message names what is missing.
    """
    wanted, known = columns_wanted(tuple(columns), model, classes, shown)
    return _built({name: _floats(columns[name]) for name in wanted}, known)


def read_scores(
    table: RowSource, model: FittedModel, classes: Sequence[ClassLabel] | None, *, rows: int, positions: Any
) -> Scores:
    """Read a file of predictions batch by batch; only the wanted rows stay in memory.

    Args:
        table: The file.
        model: The model that predicted.
        classes: Its classes as the server told them; None takes the record's.
        rows: Rows that it must have.
        positions: Which rows are wanted, ascending; None for all.

    Raises:
        InvalidInputError: It has other columns or another number of rows; the message names both.
    """
    wanted, known = columns_wanted(table.names, model, classes, table.url)
    found = {name: np.empty(rows if positions is None else len(positions)) for name in wanted}
    width = _COLUMNS_AT_ONCE if is_spliceable(table) else len(wanted)
    for first in range(0, len(wanted), width):
        some = wanted[first : first + width]
        check_rows(_fill([found[name] for name in some], table.batches(some), positions), rows, table.url)
    return _built(found, known)


def _fill(columns: Sequence[Any], batches: Iterable[Any], positions: Any) -> int:
    """Put the wanted rows of each batch into place; return how many rows there were."""
    kept = len(columns[0])
    seen = filled = 0
    for batch in batches:
        stop = seen + batch.num_rows
        upto = min(stop, kept) if positions is None else int(np.searchsorted(positions, stop))
        chosen: Any = slice(0, upto - filled) if positions is None else positions[filled:upto] - seen
        for column, array in zip(columns, batch.columns, strict=True):
            column[filled:upto] = _floats(array)[chosen]
        seen, filled = stop, upto
    return seen


def check_rows(found: int, wanted: int, shown: str) -> None:
    """Refuse predictions of other rows.

    Args:
        found: Rows predicted.
        wanted: Rows of the holdout.
        shown: What to call the predictions.

    Raises:
        InvalidInputError: They differ; predict this holdout.
    """
    if found != wanted:
        raise InvalidInputError(
            f"{shown} has {found:,} predictions and the holdout {wanted:,} rows; predict this holdout, in its order."
        )


def columns_wanted(
    names: Sequence[str], model: FittedModel, classes: Sequence[ClassLabel] | None, shown: str
) -> tuple[tuple[str, ...], tuple[ClassLabel, ...] | None]:
    """Choose the columns of numbers among those of a prediction.

    Args:
        names: Columns there are.
        model: The model that predicted.
        classes: Its classes as the server told them; None takes the record's, else what the columns say.
        shown: What to call them in messages.

    Returns:
        The columns; and for classification the classes in the same order.

    Raises:
        InvalidInputError: They are not those of this model's predictions.
    """
    if model.task == "regression":
        return _regression_columns(names, shown), None
    present = [name for name in names if name.startswith(_PROBABILITY)]
    known = tuple(classes or model.classes or (name.removeprefix(_PROBABILITY) for name in present))
    wanted = tuple(probability_column(label) for label in known)
    missing, strange = sorted(set(wanted) - set(present)), sorted(set(present) - set(wanted))
    if not present or missing or strange:
        named = "; ".join(
            f"{what} {', '.join(map(repr, some[:5]))}"
            for what, some in (("missing:", missing), ("of no class of the model:", strange))
            if some
        )
        raise InvalidInputError(
            f"{shown} does not hold this model's probabilities ({named or 'no classes'}); predict with it, "
            "output_type='probas'."
        )
    return wanted, known


def _regression_columns(names: Sequence[str], shown: str) -> tuple[str, ...]:
    quantiles = tuple(name for name in names if name.startswith(_QUANTILE) and _quantile_of(name) is not None)
    if "prediction" in names:
        return ("prediction", *quantiles)
    if quantile_column(0.5) not in quantiles:
        raise InvalidInputError(
            f"{shown} holds no column 'prediction' and no {quantile_column(0.5)!r}; predict with output_type='main'."
        )
    return quantiles


def _quantile_of(name: str) -> float | None:
    try:
        return float(name.removeprefix(_QUANTILE))
    except ValueError:
        return None


def _built(found: Mapping[str, Any], classes: tuple[ClassLabel, ...] | None) -> Scores:
    if classes is not None:
        return Probabilities(classes, list(found.values()))
    quantiles = {value: found[name] for name in found if (value := _quantile_of(name)) is not None}
    points = found["prediction"] if "prediction" in found else quantiles[0.5]
    return Numbers(points, dict(sorted(quantiles.items())))


def _floats(values: Any) -> Any:
    if hasattr(values, "combine_chunks"):
        values = values.combine_chunks()
    if hasattr(values, "to_numpy"):
        # Arrow's, where a null is no number; pandas and NumPy have the same method without the argument.
        values = values.to_numpy(zero_copy_only=False) if hasattr(values, "null_count") else values.to_numpy()
    return np.asarray(values, np.float64)
