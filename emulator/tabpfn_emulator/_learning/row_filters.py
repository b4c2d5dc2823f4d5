"""Filters of the reasoning API (contract section 11): which rows of a table take part.

The names of the operators and of the keys of `BoolExpr` and `Not` are not on the page that documents the route.
"""

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from tabpfn_emulator._envelopes import DataError
from tabpfn_emulator._learning.encoding import as_text, choose_encoder, number, numbers, timestamps, written

_ORDERS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "ge": operator.ge,
    "lt": operator.lt,
    "le": operator.le,
}


def matching(frame: pd.DataFrame, row_filter: Mapping[str, Any]) -> np.ndarray:
    """Return which rows a filter lets through.

    Args:
        frame: A table with named columns.
        row_filter: `{"kind": "cmp", "col", "op", "value"}`, `{"kind": "bool", "op": "and"|"or", "args"}` or
            `{"kind": "not", "arg"}`. A missing value passes no comparison but `is_null`; `not` lets through all that
            its argument does not.

    Returns:
        One bool per row.

    Raises:
        DataError: When it names a column that is not there, or a value that does not fit one: correct the filter.
    """
    kind = row_filter.get("kind", "cmp")
    if kind == "not":
        return ~matching(frame, row_filter["arg"])
    if kind == "bool":
        combine = np.logical_and if row_filter["op"] == "and" else np.logical_or
        masks = [matching(frame, part) for part in row_filter["args"]]
        passed: np.ndarray = combine.reduce(masks)
        return passed
    name = row_filter["col"]
    if name not in frame.columns:
        raise DataError(f"The filter names the column {name!r}, which the dataset does not have.")
    return _compared(frame[name], row_filter.get("op") or "eq", row_filter.get("value"))


def _compared(column: pd.Series, name: str, value: Any) -> np.ndarray:
    filled: np.ndarray = column.notna().to_numpy(dtype=bool)
    if name == "is_not_null":
        return filled
    if name == "is_null":
        return ~filled
    if not filled.any():
        return filled
    if name in {"in", "not_in"}:
        if not isinstance(value, list):
            raise DataError(f"The filter on {column.name!r} needs a list for {name}.")
        found = np.zeros(len(column), dtype=bool)
        for each in value:
            found |= _compared(column, "eq", each)
        return filled & ~found if name == "not_in" else found
    if name not in _ORDERS:
        raise DataError(f"The filter on {column.name!r} has an operator that is not known: {name!r}.")
    cells, wanted = _alike(column, value)
    passed: np.ndarray = filled & np.asarray(_ORDERS[name](cells, wanted), dtype=bool)
    return passed


def _alike(column: pd.Series, value: Any) -> tuple[Any, Any]:
    kind = choose_encoder(column).kind
    if kind == "number":
        wanted = number(value)
        if not np.isnan(wanted):
            return numbers(column), wanted
    elif kind == "datetime":
        time = timestamps(pd.Series([value], dtype=object)).iloc[0]
        if not pd.isna(time):
            return timestamps(column), time
    elif isinstance(value, (str, int, float)):
        return np.array(written(column), dtype=object), as_text(value)
    raise DataError(f"The filter compares {column.name!r} with {value!r}, which is not of that column's type ({kind}).")
