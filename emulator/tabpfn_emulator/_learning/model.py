"""The models behind the emulator: stand-ins for TabPFN that learn from the data, deterministic for equal input.

Small forests of scikit-learn; nothing more is claimed of them. Above `SAMPLE_ROWS` rows, or `SAMPLE_CELLS` cells, they
learn from a seeded sample.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from tabpfn_emulator._envelopes import DataError
from tabpfn_emulator._learning.encoding import ColumnEncoder, choose_encoders, encode
from tabpfn_emulator._learning.estimators import (
    DEFAULT_QUANTILES,
    Estimator,
    constant_classes,
    constant_number,
    grow_classes,
    grow_number,
)
from tabpfn_emulator._learning.tables import batches, column_names, count_rows, take_rows

SAMPLE_ROWS = 20_000
"""Rows that a model learns from at most."""
SAMPLE_CELLS = 4_000_000
"""Cells that a model learns from at most; tables of more than 200 columns reach this one first."""
MAX_TARGET = 1e300
"""Largest absolute value of a regression's target."""

_MIN_SAMPLE_ROWS = 1_000
_EFFORT = {"medium": 3, "high": 6}
_MAIN = ("mean", "median", "mode", "quantiles")
_FULL = (*_MAIN, "logits", "borders")

Label = str | int | float | bool
Backend = Literal["sklearn", "tabpfn"]
Mode = Literal["model", "constant"]


@dataclass(frozen=True)
class TrainFiles:
    """The two files of a train set."""

    x_path: Path
    x_format: str
    y_path: Path
    y_format: str


@dataclass(frozen=True)
class Learned:
    """A fitted model.

    Attributes:
        rows: Rows of the train set.
        names: Names of the feature columns, in the train set's order.
        sampled_rows: Rows that the model has learnt from; 0 when only rows and classes were counted.
        encoders: One for each column; empty when only rows and classes were counted.
        estimator: What has been learnt.
        constant: What `--predict constant` answers.
        classes: Sorted labels; empty for a regression.
    """

    rows: int
    names: tuple[str, ...]
    sampled_rows: int
    encoders: tuple[ColumnEncoder, ...]
    estimator: Estimator
    constant: Estimator
    classes: tuple[Label, ...]

    @property
    def columns(self) -> int:
        """How many feature columns there are."""
        return len(self.names)

    @property
    def note(self) -> str | None:
        """What the books say about the learning; None when it used every row."""
        if self.sampled_rows == self.rows:
            return None
        if self.sampled_rows == 0:
            return f"learnt nothing from {self.rows} rows: predictions are constant"
        return f"trained on a seeded sample of {self.sampled_rows} of {self.rows} rows"


def read_shape(files: TrainFiles) -> tuple[int, int]:
    """Return rows and columns of a train set.

    Raises:
        DataError: When X and y do not fit together, or are empty.
    """
    rows, columns = count_rows(files.x_path, files.x_format)
    y_rows, y_columns = count_rows(files.y_path, files.y_format)
    if rows == 0 or columns == 0:
        raise DataError("The train set is empty.")
    if y_columns != 1:
        raise DataError(f"y must have one column; it has {y_columns}.")
    if y_rows != rows:
        raise DataError(f"X has {rows} rows and y has {y_rows}.")
    return rows, columns


def read_target(files: TrainFiles) -> pd.Series:
    """Return the whole target column.

    Raises:
        DataError: When it has missing values.
    """
    target = take_rows(files.y_path, files.y_format, None)[0]
    if target.isna().any():
        raise DataError(f"y has {int(target.isna().sum())} missing values.")
    return target


def sorted_labels(target: pd.Series) -> tuple[Label, ...]:
    """Return the class labels in sorted order, as JSON has them (contract section 5)."""
    labels = {plain(value) for value in target.unique()}
    if any(isinstance(label, str) for label in labels):
        return tuple(sorted(labels, key=str))
    return tuple(sorted(labels))


def plain(value: Any) -> Label:
    """Return a label as JSON has it: its own type where JSON knows it, else text."""
    item = value.item() if isinstance(value, np.generic) else value
    return item if isinstance(item, (str, int, float, bool)) else str(item)


def class_codes(target: pd.Series, classes: tuple[Label, ...]) -> np.ndarray:
    """Return each row's place in the sorted labels.

    Args:
        target: The labels.
        classes: What `sorted_labels` returned for them.
    """
    place = {label: number for number, label in enumerate(classes)}
    found, values = pd.factorize(target)
    codes: np.ndarray = np.array([place[plain(value)] for value in values], dtype=np.intp)[found]
    return codes


def numeric_target(target: pd.Series) -> np.ndarray:
    """Return a regression's target as floats.

    Raises:
        DataError: When it is not finite numbers of at most `MAX_TARGET`.
    """
    if not pd.api.types.is_numeric_dtype(target.dtype):
        target = pd.to_numeric(target.astype(object), errors="coerce")
    numbers: np.ndarray = target.to_numpy(dtype=np.float64, na_value=np.nan)
    if not (np.abs(numbers) <= MAX_TARGET).all():
        raise DataError(f"The target of a regression must be finite numbers, at most {MAX_TARGET:g} in size.")
    return numbers


def sample_rows(rows: int, columns: int, seed: int) -> np.ndarray | None:
    """Return the rows to learn from, sorted; None for all.

    Args:
        rows: Rows of the train set.
        columns: Feature columns.
        seed: 0 or more; the same seed and shape choose the same rows.
    """
    allowed = min(SAMPLE_ROWS, max(_MIN_SAMPLE_ROWS, SAMPLE_CELLS // columns))
    if rows <= allowed:
        return None
    return np.sort(np.random.default_rng(seed).choice(rows, allowed, replace=False))


def learn(
    files: TrainFiles,
    target: pd.Series,
    task: str,
    config: dict[str, Any],
    *,
    thinking: dict[str, Any] | None = None,
    mode: Mode = "model",
    backend: Backend = "sklearn",
) -> Learned:
    """Fit a model.

    Args:
        files: The train set.
        target: What `read_target` returned.
        task: `classification` or `regression`.
        config: The effective `tabpfn_config`; `random_state` and `balance_probabilities` are used, by the backend
            `tabpfn` some more.
        thinking: The thinking of the plan: a stand-in thinks by growing a larger forest, three times as large for
            effort `medium`, six times for `high`; a local TabPFN does not think.
        mode: `constant` counts only and reads no features.
        backend: Whose models.

    Raises:
        DataError: When the data does not fit the task: correct it and fit again.
    """
    rows, names = len(target), tuple(column_names(files.x_path, files.x_format))
    classes = sorted_labels(target) if task == "classification" else ()
    values = class_codes(target, classes) if classes else numeric_target(target)
    constant: Estimator = constant_classes(values, len(classes)) if classes else constant_number(values)
    if mode == "constant":
        return Learned(rows, names, 0, (), constant, constant, classes)
    seed = int(config.get("random_state") or 0) % 2**32
    wanted = sample_rows(rows, len(names), seed)
    frame = take_rows(files.x_path, files.x_format, wanted)
    encoders = choose_encoders(frame)
    features = encode(frame, encoders)
    values = values if wanted is None else values[wanted]
    estimator: Estimator
    if backend == "tabpfn":
        from tabpfn_emulator._learning.backend import fit_local

        estimator = fit_local(features, values, len(classes), config)
    elif classes:
        estimator = grow_classes(
            features,
            values,
            len(classes),
            balanced=bool(config.get("balance_probabilities")),
            effort=_effort(thinking),
            seed=seed,
        )
    else:
        estimator = grow_number(features, values, effort=_effort(thinking), seed=seed)
    return Learned(rows, names, len(frame), encoders, estimator, constant, classes)


def predict(
    model: Learned,
    path: Path,
    file_format: str,
    output_type: str,
    quantiles: list[float] | None,
    rows: int,
    *,
    mode: Mode = "model",
    places: list[int] | None = None,
) -> Any:
    """Predict, batch by batch.

    Args:
        model: A fitted model.
        path: The test set.
        file_format: `parquet` or `csv`.
        output_type: One of the contract's output types for the model's task (section 5).
        quantiles: Levels from 0 to 1, for regressions; None means 0.1 to 0.9.
        rows: Rows of the test set, 1 or more; its columns are as many as the train set's.
        mode: `constant` reads no features.
        places: Where each column of the model is in the test set; None means in the order of the train set.

    Returns:
        The JSON value of `prediction`.

    Raises:
        DataError: When the test set is not readable to its end.
    """
    asked = "probas" if output_type == "preds" else output_type
    levels = DEFAULT_QUANTILES if quantiles is None else tuple(quantiles)
    if mode == "constant" or not model.encoders:
        parts = [model.constant.outputs(np.empty((rows, 0)), asked, levels)]
    else:
        parts = [
            model.estimator.outputs(encode(frame if places is None else frame[places], model.encoders), asked, levels)
            for frame in batches(path, file_format)
        ]
    if output_type == "preds":
        return [model.classes[code] for part in parts for code in part["probas"].argmax(axis=1)]
    names = {"main": _MAIN, "full": _FULL}.get(output_type)
    if names is None:
        return _joined(parts, output_type)
    return {name: _joined(parts, name) for name in names}


def _joined(parts: list[dict[str, np.ndarray]], name: str) -> Any:
    if name == "borders":
        return parts[0][name].tolist()
    whole = np.concatenate([part[name] for part in parts], axis=1 if name == "quantiles" else 0)
    if name != "logits":
        return whole.tolist()
    # JSON has no infinity: null stands for a bar without mass (contract section 5).
    return [[None if log == -math.inf else log for log in row] for row in whole.tolist()]


def _effort(thinking: dict[str, Any] | None) -> int:
    return 1 if thinking is None else _EFFORT[thinking.get("effort") or "medium"]
