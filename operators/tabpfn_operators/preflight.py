"""Checks before any byte moves: everything that is wrong with the input, at once. Pure functions."""

from collections.abc import Sequence

from tabpfn_assets import Feature, FittedModel, Task
from tabpfn_operators.errors import InvalidInputError, LimitExceededError
from tabpfn_operators.server import ModelLimit

#: A one-row train set made the server answer 500 (contract 4.1).
MIN_TRAIN_ROWS = 2


def train_limit_problems(limit: ModelLimit, *, rows: int, columns: int, classes: int | None) -> list[str]:
    """List the limits a train set exceeds (contract 4.1).

    Args:
        limit: Limits of the model version.
        rows: Rows.
        columns: Feature columns.
        classes: Classes of the target; None for regression.

    Returns:
        Texts that name figure, limit and remedy; empty when it fits.
    """
    problems = [
        _above("rows", rows, limit.train_set_max_rows, "train on a sample or on fewer row groups"),
        _above("feature columns", columns, limit.max_cols, "leave some out with features or exclude"),
        _above(
            "cells (rows x columns)", rows * columns, limit.train_set_max_upload_cells, "send fewer rows or columns"
        ),
        _above("classes", classes or 0, limit.max_classes, "group rare classes, or use task=regression"),
    ]
    return [problem for problem in problems if problem]


def test_limit_problems(
    limit: ModelLimit, *, rows: int, columns: int, train_rows: int, output_type: str, subsampled: bool
) -> list[str]:
    """List the limits a test set exceeds (contract 4.1).

    Args:
        limit: Limits of the model version.
        rows: Rows to predict.
        columns: Feature columns.
        train_rows: Rows the model was fitted on.
        output_type: What is asked for; `full` has a limit of its own.
        subsampled: Whether the fit subsamples rows, which lifts the row-pairs budget.

    Returns:
        Texts that name figure, limit and remedy; empty when it fits.
    """
    remedy = "predict in several calls, as score does"
    budget = limit.predict_row_pairs_budget
    pairs = None if budget is None or subsampled else budget // max(train_rows, 1)
    full = limit.test_set_max_rows_w_full_regression_output if output_type == "full" else None
    problems = [
        _above("rows", rows, limit.test_set_max_rows, remedy),
        _above(f"rows for a model of {train_rows:,} train rows", rows, pairs, remedy),
        _above("rows with output type full", rows, full, f"{remedy}, or ask for quantiles"),
        _above("cells (rows x columns)", rows * columns, limit.test_set_max_cells, remedy),
    ]
    return [problem for problem in problems if problem]


test_limit_problems.__test__ = False  # type: ignore[attr-defined]  # the API's word; pytest would take it for a test


def size_problems(limit: int | None, *sizes: int) -> list[str]:
    """List the files of an upload that are larger than the server takes (contract 3).

    Args:
        limit: Bytes of one file; None where the server names no limit.
        sizes: Bytes of each file.

    Returns:
        A text that names figure, limit and remedy; empty when they fit.
    """
    largest = max(sizes)
    if limit is None or largest <= limit:
        return []
    return [f"{largest:,} bytes to send, the server takes {limit:,} in one file; send fewer rows or columns"]


def _above(what: str, figure: int, limit: int | None, remedy: str) -> str | None:
    if limit is None or figure <= limit:
        return None
    return f"{figure:,} {what}, the server takes {limit:,}; {remedy}"


def raise_problems(subject: str, problems: Sequence[str], over_limit: Sequence[str] = ()) -> None:
    """Raise one error that lists everything found, or return when there is nothing.

    Args:
        subject: What was checked: a URL without secrets.
        problems: What is wrong with it.
        over_limit: Which limits it exceeds.

    Raises:
        LimitExceededError: Only limits are exceeded; send less.
        InvalidInputError: Something is wrong with it; correct what the message names.
    """
    found = (*problems, *over_limit)
    if not found:
        return
    text = f"{subject}: {found[0]}." if len(found) == 1 else f"{subject}:" + "".join(f"\n  - {text}" for text in found)
    kind = InvalidInputError if problems else LimitExceededError
    raise kind(text, problems=tuple(found))


def select_features(
    names: Sequence[str],
    *,
    target: str,
    features: Sequence[str] | None,
    exclude: Sequence[str],
    index_columns: frozenset[str],
) -> tuple[tuple[str, ...], list[str]]:
    """Choose the feature columns of a train set.

    Args:
        names: Columns of the source.
        target: Target column.
        features: Columns wanted, in order; None takes all but target, excluded ones and pandas index columns.
        exclude: Columns to leave out.
        index_columns: Columns that hold a pandas index.

    Returns:
        The columns in order, and texts for what is wrong.
    """
    if isinstance(features, str) or isinstance(exclude, str):
        return (), ["features and exclude are lists of column names, not one text"]
    known = set(names)
    problems = [] if target in known else [f"target {target!r} is not among the columns ({_some(names)})"]
    missing = [name for name in dict.fromkeys((*(features or ()), *exclude)) if name not in known]
    problems += [f"column {name!r} is not there ({_some(names)})" for name in missing]
    if features is not None and target in features:
        problems.append(f"target {target!r} is among the features; remove it, or the model would learn the answer")
    if target in exclude:
        problems.append(f"target {target!r} is among the excluded columns; a fit cannot do without it, remove it there")
    if features is None:
        left_out = {target, *exclude, *index_columns}
        chosen = tuple(name for name in dict.fromkeys(names) if name not in left_out)
    else:
        chosen = tuple(name for name in dict.fromkeys(features) if name in known and name not in {target, *exclude})
    if not chosen and not problems:
        problems.append("no feature column is left; name some with features, or exclude fewer")
    return chosen, problems


def _some(names: Sequence[str], most: int = 12) -> str:
    shown = ", ".join(repr(name) for name in names[:most])
    return f"{shown}, and {len(names) - most} more" if len(names) > most else shown


def target_problems(
    target: str,
    task: Task | None,
    *,
    rows: int,
    nulls: int,
    classes: int | None,
    more_classes: bool,
) -> list[str]:
    """List what is wrong with a target's values.

    Args:
        target: Target column.
        task: What the model is to predict; None checks what holds for either.
        rows: Rows.
        nulls: Rows without a target.
        classes: Classes found; None where they were not collected.
        more_classes: Whether there are more classes than were counted.

    Returns:
        Texts that name the column and the remedy.
    """
    problems = []
    if nulls:
        problems.append(
            f"target {target!r} is missing or not finite in {nulls:,} of {rows:,} rows; drop or fill those rows"
        )
    if rows < MIN_TRAIN_ROWS:
        few = "1 row is" if rows == 1 else "0 rows are"
        problems.append(f"{few} too few to train on; at least {MIN_TRAIN_ROWS} are needed")
    if task == "classification" and classes is not None and classes < 2 and nulls < rows:
        problems.append(f"target {target!r} has one class only; nothing can be learned from it")
    if task == "classification" and classes is not None and more_classes:
        problems.append(f"target {target!r} has more than {classes:,} classes; is it an id, or meant for regression?")
    return problems


def schema_problems(model: FittedModel, found: Sequence[Feature]) -> list[str]:
    """List how a test set's columns differ from the model's features (contract 9: the vendor's client never looks).

    Args:
        model: The fitted model.
        found: Columns of the test set.

    Returns:
        Texts that name the column and the remedy. Columns the model does not know are no problem, they stay at home;
        nor is a type where one of the two is not known.
    """
    have = {feature.name: feature.dtype for feature in found}
    problems = []
    for feature in model.features:
        dtype = have.get(feature.name)
        if feature.name not in have:
            problems.append(f"feature {feature.name!r} of the model is missing")
        elif dtype is not None and feature.dtype is not None and kind_of(dtype) != kind_of(feature.dtype):
            problems.append(f"feature {feature.name!r} is {dtype}, the model was fitted with {feature.dtype}; cast it")
    return problems


def kind_of(dtype: str) -> str:
    """Reduce an Arrow type's text to what the model sees: number, text, boolean, time or time with a zone."""
    text = dtype.lower()
    if text.startswith("dictionary<values="):
        text = text.removeprefix("dictionary<values=").rpartition(", indices=")[0]
    if text.startswith(("int", "uint", "float", "double", "half", "decimal")):
        return "number"
    if text.startswith(("string", "large_string", "utf8", "large_utf8")):
        return "text"
    if text.startswith(("timestamp", "date")):
        return "time with a zone" if "tz=" in text else "time"
    return text
