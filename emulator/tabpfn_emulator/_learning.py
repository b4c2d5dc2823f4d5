"""The models behind the emulator: random forests of scikit-learn, deterministic for equal input.

Stand-ins for TabPFN: they learn from the data, and nothing more is claimed. Above `SAMPLE_ROWS` rows they learn from a
seeded sample.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

from tabpfn_emulator._encoding import ColumnEncoder, choose_encoder
from tabpfn_emulator._envelopes import DataError
from tabpfn_emulator._tables import batches, count_rows, take_rows

SAMPLE_ROWS = 20_000
"""Rows that a model learns from at most."""
DEFAULT_QUANTILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
BARS = 100
"""Bars of a `full` output."""

_TREES = 60
_ROWS_PER_TREE = 2_000
_RESIDUALS = 201

Label = str | int | float | bool


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
        columns: Feature columns.
        sampled_rows: Rows that the model has learnt from.
        encoders: One for each column.
        forest: The scikit-learn estimator.
        classes: Sorted labels; empty for a regression.
        residuals: Sorted errors on rows that a tree has not seen; empty for a classification.
        borders: The `BARS + 1` borders of `full` outputs; empty for a classification.
    """

    rows: int
    columns: int
    sampled_rows: int
    encoders: tuple[ColumnEncoder, ...]
    forest: Any
    classes: tuple[Label, ...]
    residuals: np.ndarray
    borders: np.ndarray


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
    labels = {_plain(value) for value in target.unique()}
    if any(isinstance(label, str) for label in labels):
        return tuple(sorted(labels, key=str))
    return tuple(sorted(labels))


def learn(files: TrainFiles, target: pd.Series, task: str, config: dict[str, Any]) -> Learned:
    """Fit a forest.

    Args:
        files: The train set.
        target: What `read_target` returned.
        task: `classification` or `regression`.
        config: The effective `tabpfn_config`; `random_state` and `balance_probabilities` are used.

    Raises:
        DataError: When a regression's target is not numeric.
    """
    seed = int(config.get("random_state") or 0) % 2**32
    rows = len(target)
    wanted = None
    if rows > SAMPLE_ROWS:
        wanted = np.sort(np.random.default_rng(seed).choice(rows, SAMPLE_ROWS, replace=False))
    frame = take_rows(files.x_path, files.x_format, wanted)
    encoders = tuple(choose_encoder(frame[column]) for column in frame.columns)
    features = _encode(frame, encoders)
    shared = {
        "n_estimators": _TREES,
        "random_state": seed,
        "max_samples": min(_ROWS_PER_TREE, len(frame)),
        "n_jobs": 1,
    }
    classes: tuple[Label, ...] = ()
    residuals = borders = np.empty(0)
    if task == "classification":
        classes = sorted_labels(target)
        code = {label: number for number, label in enumerate(classes)}
        codes = np.array([code[_plain(value)] for value in target])
        forest = RandomForestClassifier(
            class_weight="balanced" if config.get("balance_probabilities") else None, **shared
        ).fit(features, codes if wanted is None else codes[wanted])
    else:
        values = _numeric(target)
        borders = _borders(values)
        values = values if wanted is None else values[wanted]
        forest = RandomForestRegressor(max_features=0.5, min_samples_leaf=2, **shared).fit(features, values)
        residuals = _residuals(forest, features, values)
    return Learned(rows, len(encoders), len(frame), encoders, forest, classes, residuals, borders)


def predict(
    model: Learned, path: Path, file_format: str, output_type: str, quantiles: list[float] | None
) -> tuple[Any, int]:
    """Predict, batch by batch.

    Args:
        model: A fitted model.
        path: The test set.
        file_format: `parquet` or `csv`.
        output_type: One of the contract's output types for the model's task (section 5).
        quantiles: Levels from 0 to 1, for regressions; None means 0.1 to 0.9.

    Returns:
        The JSON value of `prediction`, and the number of rows.

    Raises:
        DataError: When the test set does not have the train set's columns.
    """
    parts = []
    for frame in batches(path, file_format):
        if frame.shape[1] != model.columns:
            raise DataError(f"The test set has {frame.shape[1]} columns; the model was fitted on {model.columns}.")
        features = _encode(frame, model.encoders)
        parts.append(_probabilities(model, features) if model.classes else model.forest.predict(features))
    if not parts:
        raise DataError("The test set is empty.")
    predicted = np.concatenate(parts)
    if output_type == "probas":
        return predicted.tolist(), len(predicted)
    if output_type == "preds":
        return [model.classes[code] for code in predicted.argmax(axis=1)], len(predicted)
    return _regression(model, predicted, output_type, quantiles), len(predicted)


def _regression(model: Learned, mean: np.ndarray, output_type: str, quantiles: list[float] | None) -> Any:
    if output_type == "quantiles":
        return _quantiles(model, mean, quantiles)
    main = {
        "mean": mean.tolist(),
        "median": (mean + np.median(model.residuals)).tolist(),
        "mode": (mean + _peak(model.residuals)).tolist(),
    }
    if output_type in main:
        return main[output_type]
    answer = {**main, "quantiles": _quantiles(model, mean, quantiles)}
    if output_type == "full":
        answer |= {"logits": _logits(model, mean), "borders": model.borders.tolist()}
    return answer


def _quantiles(model: Learned, mean: np.ndarray, quantiles: list[float] | None) -> list[list[float]]:
    offsets = np.quantile(model.residuals, DEFAULT_QUANTILES if quantiles is None else quantiles)
    rows: list[list[float]] = (offsets[:, None] + mean[None, :]).tolist()
    return rows


def _logits(model: Learned, mean: np.ndarray) -> list[list[float | None]]:
    borders = model.borders
    # Mass beyond the outermost border belongs to the outermost bar.
    samples = np.clip(mean[:, None] + model.residuals[None, :], borders[0], np.nextafter(borders[-1], -np.inf))
    bars = np.clip(np.searchsorted(borders, samples, side="right") - 1, 0, BARS - 1)
    share = np.apply_along_axis(np.bincount, 1, bars, minlength=BARS) / samples.shape[1]
    logs = np.log(share, where=share > 0, out=np.zeros_like(share))
    return [
        [float(log) if mass > 0 else None for log, mass in zip(log_row, mass_row, strict=True)]
        for log_row, mass_row in zip(logs, share, strict=True)
    ]


def _probabilities(model: Learned, features: np.ndarray) -> np.ndarray:
    shares = np.zeros((len(features), len(model.classes)))
    # A rare class may be absent from the sample that the forest has learnt from.
    shares[:, model.forest.classes_] = model.forest.predict_proba(features)
    return shares


def _encode(frame: pd.DataFrame, encoders: tuple[ColumnEncoder, ...]) -> np.ndarray:
    encoded = [encoder.encode(frame[column]) for column, encoder in enumerate(encoders)]
    return np.hstack(encoded).astype(np.float32)


def _residuals(forest: RandomForestRegressor, features: np.ndarray, values: np.ndarray) -> np.ndarray:
    unseen_sum, unseen_count = np.zeros(len(values)), np.zeros(len(values))
    for tree, seen in zip(forest.estimators_, forest.estimators_samples_, strict=True):
        unseen = np.ones(len(values), dtype=bool)
        unseen[seen] = False
        if unseen.any():
            unseen_sum[unseen] += tree.predict(features[unseen])
            unseen_count[unseen] += 1
    usable = unseen_count > 0
    errors = values[usable] - unseen_sum[usable] / unseen_count[usable] if usable.any() else np.zeros(1)
    return np.quantile(errors, np.linspace(0, 1, _RESIDUALS))


def _peak(residuals: np.ndarray) -> float:
    # The mode of a sample: the middle of the shortest stretch that holds a fifth of it.
    width = max(1, len(residuals) // 5)
    start = int(np.argmin(residuals[width:] - residuals[:-width]))
    return float((residuals[start] + residuals[start + width]) / 2)


def _borders(values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    margin = 0.1 * (high - low) or max(1.0, abs(high))
    return np.linspace(low - margin, high + margin, BARS + 1)


def _numeric(target: pd.Series) -> np.ndarray:
    numbers = pd.to_numeric(target.astype(object), errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    if not np.isfinite(numbers).all():
        raise DataError("The target of a regression must be finite numbers.")
    return numbers


def _plain(value: Any) -> Label:
    item = value.item() if isinstance(value, np.generic) else value
    return item if isinstance(item, (str, int, float, bool)) else str(item)
