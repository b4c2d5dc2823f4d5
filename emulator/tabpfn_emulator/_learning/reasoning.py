"""The model behind the emulator's reasoning API (contract section 11, generation A): one small decision tree.

A stand-in: it learns from the labels of the data set that it is given and claims nothing more; no hyperparameters are
searched. Above `SAMPLE_ROWS` rows it learns from a seeded sample, drawn before the filter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from tabpfn_emulator._envelopes import DataError
from tabpfn_emulator._learning.encoding import ColumnEncoder, choose_encoders, encode
from tabpfn_emulator._learning.model import Label, class_codes, numeric_target, sample_rows, sorted_labels
from tabpfn_emulator._learning.row_filters import matching
from tabpfn_emulator._learning.tables import batches, column_names, count_rows, take_rows

TaskKind = Literal["regression", "binclass", "multiclass"]

_DEPTH = 6
_MIN_SAMPLES_LEAF = 5


@dataclass(frozen=True)
class ReasoningModel:
    """A fitted surrogate.

    Attributes:
        task_kind: What it was fitted for.
        columns: Feature columns, in the file's order.
        classes: Sorted labels, whose probabilities `predict` returns; empty for a regression.
        rows: Rows that it has learnt from.
        encoders: One for each column.
        tree: The scikit-learn estimator.
    """

    task_kind: TaskKind
    columns: tuple[str, ...]
    classes: tuple[Label, ...]
    rows: int
    encoders: tuple[ColumnEncoder, ...]
    tree: DecisionTreeClassifier | DecisionTreeRegressor

    def predict(self, rows: Sequence[Mapping[str, Any]]) -> list[list[float]]:
        """Predict rows given as objects.

        Args:
            rows: One object per row, column name to JSON value; columns that are not there count as missing, others
                are ignored.

        Returns:
            One list per row: the number of a regression, or one probability per class.
        """
        cells = [[row.get(column) for column in self.columns] for row in rows]
        return self._predicted(pd.DataFrame(cells, columns=list(self.columns), dtype=object))

    def predict_file(
        self, path: Path, file_format: str, row_filter: Mapping[str, Any] | None = None
    ) -> list[list[float]]:
        """Predict the rows of a file; the same answers as `predict`.

        Args:
            path: The file.
            file_format: `csv` or `parquet`.
            row_filter: Which rows; None means all.

        Raises:
            DataError: When the file is not readable, lacks columns of the model, or the filter does not fit it:
                correct the request. Columns come in any order, and there may be others, for the filter.
        """
        names = _names(path, file_format)
        missing = [column for column in self.columns if column not in names]
        if missing:
            raise DataError(f"The dataset has no columns {missing}, which the model was fitted on.")
        if row_filter is not None:
            frame = take_rows(path, file_format, None).set_axis(names, axis=1)
            return self._predicted(frame[matching(frame, row_filter)])
        predicted: list[list[float]] = []
        for frame in batches(path, file_format):
            predicted += self._predicted(frame.set_axis(names, axis=1))
        return predicted

    def _predicted(self, frame: pd.DataFrame) -> list[list[float]]:
        if frame.empty:
            return []
        features = encode(frame.reindex(columns=list(self.columns)), self.encoders)
        if isinstance(self.tree, DecisionTreeClassifier):
            shares: list[list[float]] = self.tree.predict_proba(features).tolist()
            return shares
        return [[value] for value in self.tree.predict(features).tolist()]


def fit(
    path: Path,
    file_format: str,
    label_column: str,
    task_kind: TaskKind,
    row_filter: Mapping[str, Any] | None = None,
    random_state: int = 42,
) -> ReasoningModel:
    """Fit the surrogate.

    Args:
        path: The data set.
        file_format: `csv` or `parquet`; `pkl` is refused, because reading one runs its code.
        label_column: Name of the column to predict; rows without a label are left out.
        task_kind: `regression`, `binclass` (two labels at most) or `multiclass`.
        row_filter: What `_row_filters.matching` takes; None means all rows.
        random_state: Seed, any integer.

    Raises:
        DataError: When the data set is not readable, has no such column, or does not fit the task: correct the
            request.
    """
    names = _names(path, file_format)
    if label_column not in names:
        raise DataError(f"The dataset has no column {label_column!r}.")
    if len(names) == 1:
        raise DataError(f"The dataset has no column but {label_column!r}: there is nothing to predict from.")
    seed = random_state % 2**32
    rows, columns = count_rows(path, file_format)
    frame = take_rows(path, file_format, sample_rows(rows, columns, seed))
    if frame.empty:
        raise DataError("The dataset has no rows.")
    frame = frame.set_axis(names, axis=1)
    if row_filter is not None:
        frame = frame[matching(frame, row_filter)]
    frame = frame[frame[label_column].notna()]
    if frame.empty:
        raise DataError(f"No row passes the filter and has a value of {label_column!r}.")
    target, features = frame[label_column], frame.drop(columns=label_column)
    encoders = choose_encoders(features)
    options = {"max_depth": _DEPTH, "min_samples_leaf": _MIN_SAMPLES_LEAF, "random_state": seed}
    classes: tuple[Label, ...] = ()
    values: np.ndarray
    if task_kind == "regression":
        tree, values = DecisionTreeRegressor(**options), numeric_target(target)
    else:
        classes = sorted_labels(target)
        if task_kind == "binclass" and len(classes) > 2:
            raise DataError(f"binclass needs two labels at most; {label_column!r} has {len(classes)}.")
        tree, values = DecisionTreeClassifier(**options), class_codes(target, classes)
    tree.fit(encode(features, encoders), values)
    return ReasoningModel(task_kind, tuple(features.columns), classes, len(frame), encoders, tree)


def _names(path: Path, file_format: str) -> list[str]:
    if file_format not in {"csv", "parquet"}:
        raise DataError(f"The emulator does not read {file_format}: upload the dataset as csv or parquet.")
    names = column_names(path, file_format)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"The dataset has more than one column of the names {twice}.")
    return names
