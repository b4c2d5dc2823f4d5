"""The work of a fit and of a prediction, as it runs in a worker thread. Loads scikit-learn, pandas and pyarrow."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tabpfn_emulator._bodies.requests import FitPlan
from tabpfn_emulator._envelopes import DataError
from tabpfn_emulator._learning.model import (
    Backend,
    Learned,
    Mode,
    TrainFiles,
    learn,
    predict,
    read_shape,
    read_target,
    sorted_labels,
)
from tabpfn_emulator._learning.tables import column_names, count_rows, places_of


def run_fit(
    paths: Mapping[str, Path],
    formats: Mapping[str, str],
    plan: FitPlan,
    limits: Mapping[str, int],
    *,
    mode: Mode = "model",
    backend: Backend = "sklearn",
) -> Learned:
    """Check a train set and fit it.

    Args:
        paths: Files `x_train` and `y_train`.
        formats: Their formats.
        plan: What is asked.
        limits: ModelLimit of the chosen version.
        mode: `Settings.predict`: `constant` counts rows and classes only.
        backend: `Settings.backend`.

    Raises:
        DataError: When the data cannot be fitted, or is larger than the limits.
    """
    train = TrainFiles(paths["x_train"], formats["x_train"], paths["y_train"], formats["y_train"])
    rows, columns = read_shape(train)
    problems = [
        f"{what} {found} exceeds the limit of {limits[limit]}"
        for what, found, limit in (
            ("the number of train rows", rows, "train_set_max_rows"),
            ("the number of columns", columns, "max_cols"),
            ("the number of train cells", rows * columns, "train_set_max_upload_cells"),
        )
        if found > limits[limit]
    ]
    if problems:
        raise DataError(f"The train set is too large: {'; '.join(problems)}.")
    _check_group_columns(plan, train)
    target = read_target(train)
    if plan.task == "classification" and len(labels := sorted_labels(target)) > limits["max_classes"]:
        raise DataError(f"The number of classes {len(labels)} exceeds the limit of {limits['max_classes']}.")
    return learn(train, target, plan.task, plan.config, thinking=plan.thinking, mode=mode, backend=backend)


def _check_group_columns(plan: FitPlan, train: TrainFiles) -> None:
    thinking: dict[str, Any] = plan.thinking or {}
    wanted: list[str] = []
    for key in ("group_col", "time_col", "group_time_col"):
        value = thinking.get(key) or []
        wanted += [value] if isinstance(value, str) else value
    missing = sorted(set(wanted) - set(column_names(train.x_path, train.x_format))) if wanted else []
    if missing:
        raise DataError(f"thinking_config names columns that X does not have: {missing}.")


def run_predict(
    model: Learned,
    path: Path,
    file_format: str,
    output_type: str,
    quantiles: list[float] | None,
    limits: Mapping[str, int],
    *,
    mode: Mode = "model",
    by_name: bool = False,
) -> tuple[Any, int]:
    """Check a test set and predict.

    Args:
        model: A fitted model.
        path: The test set.
        file_format: Its format.
        output_type: One of the output types of the model's task.
        quantiles: Levels from 0 to 1; None means 0.1 to 0.9.
        limits: ModelLimit of the chosen version.
        mode: `Settings.predict`: `constant` answers the same for every row.
        by_name: Whether the test set's columns are found by their names; otherwise their order is the train set's.

    Returns:
        The JSON value of `prediction`, and the number of rows.

    Raises:
        DataError: When the data does not fit the model, or is larger than the limits.
    """
    rows, columns = count_rows(path, file_format)
    _check_limits(rows, columns, output_type, model.rows, limits)
    places = places_of(model.names, column_names(path, file_format)) if by_name else None
    if columns != model.columns:
        raise DataError(f"The test set has {columns} columns; the model was fitted on {model.columns}.")
    if rows == 0:
        raise DataError("The test set is empty.")
    return predict(model, path, file_format, output_type, quantiles, rows, mode=mode, places=places), rows


def _check_limits(rows: int, columns: int, output_type: str, train_rows: int, limits: Mapping[str, int]) -> None:
    allowed = min(limits["test_set_max_rows"], limits["predict_row_pairs_budget"] // max(1, train_rows))
    if output_type == "full":
        allowed = min(allowed, limits["test_set_max_rows_w_full_regression_output"])
    if rows > allowed:
        raise DataError(f"The number of test rows {rows} exceeds the limit of {allowed} for {output_type}.")
    if rows * columns > limits["test_set_max_cells"]:
        raise DataError(f"The number of test cells exceeds the limit of {limits['test_set_max_cells']}.")
