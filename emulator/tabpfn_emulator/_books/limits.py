"""Size limits per model version, and the price list.

Values for v3, v2.6 and v2.5 are the published ones (contract section 4.1); what is not published (v2, the v3.5 family,
the gaps in the table) repeats the nearest published version and is a stand-in.
"""

import re
from math import isqrt
from typing import Any, Final

DEFAULT_MODEL_VERSION: Final = "v3"
UNMARKED_MODEL_VERSION: Final = "v2"
"""The version of a model whose name says none; `gn2p4bpt` and its like are models of v2."""
MODEL_VERSIONS: Final = ("v2", "v2.5", "v2.6", "v3", "v3.5", "v3.5-fast")
DATASET_MAX_SIZE_BYTES: Final = 5 * 1024**3
DAILY_TOKENS: Final = 5_000_000
"""Pool of a free account per day, in tokens (contract section 4.2)."""
MONTHLY_TOKENS: Final = 20_000_000
"""Pool of a free account per month, in tokens (contract section 4.2)."""

_V3: Final[dict[str, int]] = {
    "train_set_max_rows": 1_000_000,
    "train_set_max_cells": 100_000_000,
    "train_set_max_upload_cells": 200_000_000,
    "test_set_max_rows": 200_000,
    "max_classes": 160,
    "max_cols": 2_000,
    "test_set_max_rows_w_full_regression_output": 400,
    "predict_row_pairs_budget": 250_000 * 1_000_000,
    "test_set_max_cells": 100_000_000,
}
_SMALLER: Final[dict[str, int]] = {
    "train_set_max_cells": 20_000_000,
    "train_set_max_upload_cells": 20_000_000,
    "test_set_max_cells": 20_000_000,
    "test_set_max_rows": 100_000,
    "max_classes": 10,
}
_OVERRIDES: Final[dict[str, dict[str, int]]] = {
    "v2": {**_SMALLER, "train_set_max_rows": 10_000, "max_cols": 500},
    "v2.5": {**_SMALLER, "train_set_max_rows": 50_000},
    "v2.6": {**_SMALLER, "train_set_max_rows": 100_000},
    "v3": {},
    "v3.5": {},
    "v3.5-fast": {},
}

LIMIT_FIELDS: Final = frozenset(_V3)
"""The nine integers of a ModelLimit; tabpfn-client 0.6.1 requires every one (contract section 1.6)."""

_VERSIONS = r"(v3\.5-fast|v3\.5|v3|v2\.6|v2\.5|v2)"
_VERSION_IN_PATH = re.compile(rf"^{_VERSIONS}(?=[_-]|$)|-{_VERSIONS}-")


def model_limits(overrides: dict[str, int]) -> dict[str, dict[str, int]]:
    """Return the ModelLimit of each version.

    Args:
        overrides: Fields to set on all versions.
    """
    return {version: {**_V3, **_OVERRIDES[version], **overrides} for version in MODEL_VERSIONS}


def limits_answer(overrides: dict[str, int], dataset_max_size_bytes: int) -> dict[str, Any]:
    """Return the body of `GET /tabpfn/get_model_limits` (contract section 1.6).

    Args:
        overrides: ModelLimit fields to set on all versions.
        dataset_max_size_bytes: Largest upload, in bytes.
    """
    versions = model_limits(overrides)
    largest = {field: max(limit[field] for limit in versions.values()) for field in _V3}
    return {
        "default_model_version": DEFAULT_MODEL_VERSION,
        "max_model_limit": largest,
        "model_limits": versions,
        "dataset_max_size_bytes": dataset_max_size_bytes,
    }


def version_of(model_path: str | None) -> str:
    """Return the model version that a `model_path` selects.

    Where the version stands in a name, and that a name without one is a model of v2, is what tabpfn-client 0.6.1 says
    (its `model_version_from_path`, contract section 8, row 27), but that versions are told apart exactly.

    Args:
        model_path: For example `auto`, `v3.5-fast_default` or `tabpfn-v3-classifier-v3_default.ckpt`.

    Returns:
        The version; the default one for None and `auto`, v2 for names without one of `MODEL_VERSIONS`.
    """
    if model_path in {None, "", "auto"}:
        return DEFAULT_MODEL_VERSION
    match = _VERSION_IN_PATH.search(model_path)
    return match[1] or match[2] if match else UNMARKED_MODEL_VERSION


def price(
    operation: str, train_rows: int, test_rows: int, columns: int, n_estimators: int, version: str, effort: str | None
) -> int:
    """Return what an operation costs, in tokens.

    For v2.x the published formula, `max(5000, (train_rows + test_rows) * columns * n_estimators)`. The v3 formula is
    not published: here it grows with the square root of the v2.x amount, with the published minimum of 10,000
    (contract section 4.2). Thinking is priced as a stand-in, at 20 (medium) or 40 (high) times a prediction over the
    train set alone. That a hit of the cache is cheaper is published, its price is not: here the train set, which is in
    the cache, costs nothing, and the minimum stays.

    Args:
        operation: `predict`, `thinking_predict`, `thinking_fit` or `cache_predict`.
        train_rows: Rows of the train set, 0 or more.
        test_rows: Rows of the test set, 0 or more.
        columns: Feature columns, 1 or more.
        n_estimators: Ensemble size, 1 or more.
        version: One of `MODEL_VERSIONS`.
        effort: `medium` or `high`, for thinking fits only.
    """
    rows = test_rows if operation == "cache_predict" else train_rows + test_rows
    work = rows * columns * n_estimators
    tokens = max(5_000, work) if version.startswith("v2") else max(10_000, isqrt(100 * work))
    if operation == "thinking_fit":
        tokens *= 40 if effort == "high" else 20
    return tokens
