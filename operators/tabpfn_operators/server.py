"""What the server says of itself: limits, usage, cost. Fields that are missing stay None, unknown ones are ignored."""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict

Operation = Literal["predict", "thinking_predict", "thinking_fit", "cache_predict"]
Effort = Literal["medium", "high"]

DEFAULT_POLL_TIMEOUT_SECONDS = 7200.0


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ModelLimit(_Answer):
    """Size limits of one model version (contract 1.6); a check is skipped where the server names no limit.

    Args:
        train_set_max_rows: Rows of a train set.
        train_set_max_cells: Rows x columns that one estimator is fitted on.
        train_set_max_upload_cells: Rows x columns of an uploaded train set.
        test_set_max_rows: Rows of a test set.
        test_set_max_cells: Rows x columns of a test set.
        test_set_max_rows_w_full_regression_output: Rows of a test set for output type `full`.
        predict_row_pairs_budget: Train rows x test rows of one prediction.
        max_classes: Classes of a target.
        max_cols: Feature columns.
    """

    train_set_max_rows: int | None = None
    train_set_max_cells: int | None = None
    train_set_max_upload_cells: int | None = None
    test_set_max_rows: int | None = None
    test_set_max_cells: int | None = None
    test_set_max_rows_w_full_regression_output: int | None = None
    predict_row_pairs_budget: int | None = None
    max_classes: int | None = None
    max_cols: int | None = None


class AsyncSettings(_Answer):
    """How long fits are to be handled.

    Args:
        use_above_trainset_size_bytes: Size from which the vendor's client uses the job API.
        poll_timeout_secs: Seconds after which waiting is given up.
    """

    use_above_trainset_size_bytes: int | None = None
    poll_timeout_secs: float = DEFAULT_POLL_TIMEOUT_SECONDS


class ServerSettings(_Answer):
    """Answer of get_settings, or of the older get_model_limits (contract 1.6).

    Args:
        default_model_version: Version used when a fit names none.
        max_model_limit: The widest limits of any version.
        model_limits: Limits by version.
        dataset_max_size_bytes: Bytes of one uploaded file.
        async_settings: How long fits are to be handled.
    """

    default_model_version: str | None = None
    max_model_limit: ModelLimit = ModelLimit()
    model_limits: Mapping[str, ModelLimit] = {}
    dataset_max_size_bytes: int | None = None
    async_settings: AsyncSettings = AsyncSettings()

    def limit_for(self, model_version: str | None) -> ModelLimit:
        """Return the limits of a version, resolved exactly (contract 8, row 27); the widest ones for an unknown one."""
        version = model_version or self.default_model_version
        return self.model_limits.get(version or "", self.max_model_limit)


class ApiUsage(_Answer):
    """Tokens used and allowed (contract 1.10); -1 means unlimited.

    Args:
        current_usage: Tokens used in the current period.
        usage_limit: Tokens allowed in it.
        reset_time: When it resets, in the server's words.
        daily_tokens_used: Tokens used today.
        daily_token_limit: Tokens allowed a day.
        monthly_tokens_used: Tokens used this month.
        monthly_token_limit: Tokens allowed a month.
    """

    current_usage: int | None = None
    usage_limit: int | None = None
    reset_time: str | None = None
    daily_tokens_used: int | None = None
    daily_token_limit: int | None = None
    monthly_tokens_used: int | None = None
    monthly_token_limit: int | None = None


class CostEstimate(_Answer):
    """Answer of estimate_cost, which is free (contract 1.9).

    Args:
        estimated_cost: Tokens (or credits, see `pricing_version`).
        pricing_version: `quota_v3` counts tokens, `legacy_v2` credits.
        inputs: The dimensions that were priced, as the server resolved them.
    """

    estimated_cost: int
    pricing_version: str | None = None
    inputs: Mapping[str, object] = {}


def model_version_of(config: Mapping[str, object]) -> str | None:
    """Read the model version out of a fit config's `model_path` (`v3_default` -> `v3`); None means the default one.

    The vendor's client sends a short alias (contract 7); a checkpoint file name such as
    `tabpfn-v3-classifier-v3_default.ckpt` names its version too.
    """
    path = config.get("model_path")
    if not isinstance(path, str) or path == "auto":
        return None
    alias = path.removesuffix(".ckpt").rpartition("-v")
    stem = f"v{alias[2]}" if alias[1] else path
    return stem.rpartition("_")[0] or stem
