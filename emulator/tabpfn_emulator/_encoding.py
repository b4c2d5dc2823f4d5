"""Columns of any type become numbers for scikit-learn, the same way at fit and at predict."""

import re
import zlib
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

import numpy as np
import pandas as pd

_MAX_CATEGORIES = 24
_TEXT_BUCKETS = 32
_LOOKED_AT = 200
_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_NUMBERS = (bool, int, float, Decimal, np.number, np.bool_)

Kind = Literal["number", "datetime", "category", "text"]


@dataclass(frozen=True)
class ColumnEncoder:
    """How one column becomes numbers.

    Attributes:
        kind: `number`: as it is, missing stays missing. `datetime`: place in time, month, weekday, hour. `category`:
            one column per value. `text`: counts of hashed words.
        values: The categories seen at fit time, sorted; empty for other kinds.
    """

    kind: Kind
    values: tuple[str, ...] = ()

    def encode(self, column: pd.Series) -> np.ndarray:
        """Return the column as floats, shape (rows, width)."""
        if self.kind == "number":
            return _numbers(column).reshape(-1, 1)
        if self.kind == "datetime":
            return _calendar(column)
        text = _text(column)
        if self.kind == "category":
            known = np.asarray(self.values, dtype=object)
            matches: np.ndarray = np.asarray(text, dtype=object)[:, None] == known[None, :]
            return matches.astype(np.float32)
        return _words(text)


def choose_encoder(column: pd.Series) -> ColumnEncoder:
    """Choose the encoding of a column from its values at fit time.

    Args:
        column: The train set's column.
    """
    filled = column.dropna()
    if filled.empty or _is_numeric(filled):
        return ColumnEncoder("number")
    if pd.api.types.is_datetime64_any_dtype(filled.dtype) or _looks_like_time(filled):
        return ColumnEncoder("datetime")
    values = sorted(set(_text(filled)))
    if len(values) <= _MAX_CATEGORIES:
        return ColumnEncoder("category", tuple(values))
    return ColumnEncoder("text")


def _is_numeric(filled: pd.Series) -> bool:
    if pd.api.types.is_numeric_dtype(filled.dtype) or pd.api.types.is_timedelta64_dtype(filled.dtype):
        return True
    return filled.dtype == object and all(isinstance(value, _NUMBERS) for value in filled)


def _looks_like_time(filled: pd.Series) -> bool:
    looked_at = [str(value) for value in filled.head(_LOOKED_AT)]
    if not all(_ISO_DATE.match(value) for value in looked_at):
        return False
    return bool(_timestamps(pd.Series(looked_at, dtype=object)).notna().all())


def _numbers(column: pd.Series) -> np.ndarray:
    if pd.api.types.is_timedelta64_dtype(column.dtype):
        numbers = column.dt.total_seconds().to_numpy(dtype=np.float64)
    else:
        # Value by value: a test set may hold text where the train set had numbers, which then counts as missing.
        numbers = np.array([_number(value) for value in column], dtype=np.float64)
    # Forests compute in float32: what does not fit there counts as missing.
    return np.where(np.abs(numbers) < np.finfo(np.float32).max, numbers, np.nan)


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]  # anything else is what the except is for
    except (TypeError, ValueError):
        return np.nan


def _calendar(column: pd.Series) -> np.ndarray:
    time = _timestamps(column)
    # Not a difference of timestamps: that overflows for dates that a data set may well hold, such as 2999-12-31.
    order = time.dt.year * 366.0 + time.dt.day_of_year + time.dt.hour / 24.0
    parts = [order, time.dt.month, time.dt.day_of_week, time.dt.hour]
    return np.column_stack([part.to_numpy(dtype=np.float64, na_value=np.nan) for part in parts])


def _timestamps(column: pd.Series) -> pd.Series:
    if not pd.api.types.is_datetime64_any_dtype(column.dtype):
        missing = column.isna()
        values = [None if gone else str(value) for value, gone in zip(column, missing, strict=True)]
        column = pd.Series(values, dtype=object)
    return pd.to_datetime(column, errors="coerce", format="ISO8601", utc=True)


def _text(column: pd.Series) -> list[str]:
    return ["" if missing else str(value) for value, missing in zip(column, column.isna(), strict=True)]


def _words(text: list[str]) -> np.ndarray:
    counts = np.zeros((len(text), _TEXT_BUCKETS), dtype=np.float32)
    for row, value in enumerate(text):
        for word in value.lower().split():
            # crc32, because Python's hash() of text differs between processes.
            counts[row, zlib.crc32(word.encode()) % _TEXT_BUCKETS] += 1
    return counts
