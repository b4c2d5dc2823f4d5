"""Columns of any type become numbers for the models, the same way at fit and at predict."""

import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Literal

import numpy as np
import pandas as pd

MAX_WIDTH = 1_024
"""Numbers per row that the columns of a table become at most, unless it has more columns than half of that."""

_MAX_CATEGORIES = 24
_TEXT_BUCKETS = 32
_MIN_BUCKETS = 2
_LOOKED_AT = 200
_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_NUMBERS = (bool, int, float, Decimal, np.number, np.bool_)
_TRUTH = {"true": 1.0, "false": 0.0}

Kind = Literal["number", "datetime", "category", "text"]


@dataclass(frozen=True)
class ColumnEncoder:
    """How one column becomes numbers.

    Attributes:
        kind: `number`: as it is, missing stays missing. `datetime`: place in time, month, weekday, hour. `category`:
            one column per value. `text`: counts of hashed words.
        values: The categories seen at fit time, sorted; empty for other kinds.
        buckets: Columns that a `text` becomes.
    """

    kind: Kind
    values: tuple[str, ...] = ()
    buckets: int = _TEXT_BUCKETS

    @property
    def width(self) -> int:
        """Numbers per row."""
        return {"number": 1, "datetime": 4, "category": len(self.values), "text": self.buckets}[self.kind]

    def encode(self, column: pd.Series) -> np.ndarray:
        """Return the column as floats, shape (rows, width); NaN is a missing number or time."""
        if self.kind == "number":
            return numbers(column).reshape(-1, 1)
        if self.kind == "datetime":
            return _calendar(column)
        text = written(column)
        if self.kind == "category":
            place = {value: number for number, value in enumerate(self.values)}
            codes = np.array([place.get(value, -1) for value in text], dtype=np.intp)
            matches: np.ndarray = codes[:, None] == np.arange(len(self.values))
            return matches.astype(np.float32)
        return _words(text, self.buckets)


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
    values = sorted(set(written(filled)))
    if len(values) <= _MAX_CATEGORIES:
        return ColumnEncoder("category", tuple(values))
    return ColumnEncoder("text")


def choose_encoders(frame: pd.DataFrame) -> tuple[ColumnEncoder, ...]:
    """Choose the encodings of a table's columns, within `MAX_WIDTH` numbers per row.

    Args:
        frame: The train set.
    """
    encoders = tuple(choose_encoder(frame[column]) for column in frame.columns)
    if sum(encoder.width for encoder in encoders) <= MAX_WIDTH:
        return encoders
    allowed = max(_MIN_BUCKETS, MAX_WIDTH // len(encoders))
    return tuple(_narrowed(encoder, allowed) for encoder in encoders)


def encode(frame: pd.DataFrame, encoders: Iterable[ColumnEncoder]) -> np.ndarray:
    """Return a table as float32, shape (rows, sum of the widths).

    Args:
        frame: Columns in the train set's order; their names do not matter.
        encoders: What `choose_encoders` returned for the train set.
    """
    encoded = [encoder.encode(frame.iloc[:, number]) for number, encoder in enumerate(encoders)]
    return np.hstack(encoded).astype(np.float32)


def _narrowed(encoder: ColumnEncoder, allowed: int) -> ColumnEncoder:
    if encoder.kind in {"number", "datetime"} or encoder.width <= allowed:
        return encoder
    return replace(encoder, kind="text", values=(), buckets=allowed)


def _is_numeric(filled: pd.Series) -> bool:
    if pd.api.types.is_numeric_dtype(filled.dtype) or pd.api.types.is_timedelta64_dtype(filled.dtype):
        return True
    return filled.dtype == object and all(isinstance(value, _NUMBERS) for value in filled)


def _looks_like_time(filled: pd.Series) -> bool:
    looked_at = [str(value) for value in filled.head(_LOOKED_AT)]
    if not all(_ISO_DATE.match(value) for value in looked_at):
        return False
    return bool(timestamps(pd.Series(looked_at, dtype=object)).notna().all())


def numbers(column: pd.Series) -> np.ndarray:
    """Return a column as floats; NaN for what is missing, is no number, or does not fit into float32."""
    if pd.api.types.is_timedelta64_dtype(column.dtype):
        found = column.dt.total_seconds().to_numpy(dtype=np.float64)
    elif pd.api.types.is_numeric_dtype(column.dtype):
        found = column.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        # Value by value: a test set may hold text where the train set had numbers, which then counts as missing.
        found = np.array([number(value) for value in column], dtype=np.float64)
    # The models compute in float32: what does not fit there counts as missing.
    return np.where(np.abs(found) < np.finfo(np.float32).max, found, np.nan)


def number(value: object) -> float:
    """Return a value as a float; NaN when it is none. True and false count, also as text."""
    if isinstance(value, str) and value.lower() in _TRUTH:
        return _TRUTH[value.lower()]
    try:
        return float(value)  # type: ignore[arg-type]  # anything else is what the except is for
    except (TypeError, ValueError, OverflowError):
        return np.nan


def _calendar(column: pd.Series) -> np.ndarray:
    time = timestamps(column)
    # Not a difference of timestamps: that overflows for dates that a data set may well hold, such as 2999-12-31.
    order = time.dt.year * 366.0 + time.dt.day_of_year + time.dt.hour / 24.0
    parts = [order, time.dt.month, time.dt.day_of_week, time.dt.hour]
    return np.column_stack([part.to_numpy(dtype=np.float64, na_value=np.nan) for part in parts])


def timestamps(column: pd.Series) -> pd.Series:
    """Return a column as times in UTC; NaT for what is missing or no ISO 8601 time."""
    if not pd.api.types.is_datetime64_any_dtype(column.dtype):
        missing = column.isna()
        values = [None if gone else str(value) for value, gone in zip(column, missing, strict=True)]
        column = pd.Series(values, dtype=object)
    return pd.to_datetime(column, errors="coerce", format="ISO8601", utc=True)


def written(column: pd.Series) -> list[str]:
    """Return a column as text; empty for what is missing."""
    return ["" if missing else as_text(value) for value, missing in zip(column, column.isna(), strict=True)]


def as_text(value: object) -> str:
    """Return a value as text."""
    # Whole numbers turn into floats as soon as a column has a missing value: 7 and 7.0 are one category.
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _words(text: list[str], buckets: int) -> np.ndarray:
    counts = np.zeros((len(text), buckets), dtype=np.float32)
    for row, value in enumerate(text):
        for word in value.lower().split():
            # crc32, because Python's hash() of text differs between processes.
            counts[row, zlib.crc32(word.encode(errors="surrogatepass")) % buckets] += 1
    return counts
