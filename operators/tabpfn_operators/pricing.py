"""What fits and predictions cost: what to ask, what is allowed, and what was charged. Pure functions."""

from dataclasses import dataclass, field
from typing import Any, Literal

from tabpfn_assets import FitParameters
from tabpfn_operators.errors import ConfigurationError, CostExceededError
from tabpfn_operators.server import ApiUsage, ModelLimit

#: What `PoolsLeft` and `ApiUsage` say of a pool without an end (contract 1.10).
UNLIMITED = -1


@dataclass(frozen=True)
class PoolsLeft:
    """What an account may still use; -1 is unlimited, None is what the server does not say (contract 1.10).

    Args:
        daily: Tokens left today.
        monthly: Tokens left this month.
        current: Tokens left in the period that older servers count alone.
        reset_time: When the current period ends, in the server's words.
    """

    daily: int | None = None
    monthly: int | None = None
    current: int | None = None
    reset_time: str | None = None

    @property
    def smallest(self) -> tuple[str, int] | None:
        """Name and tokens of the pool that runs out first; None where none is known to be limited."""
        pools = (("daily", self.daily), ("monthly", self.monthly), ("current", self.current))
        limited = [(name, left) for name, left in pools if left is not None and left != UNLIMITED]
        return min(limited, key=lambda pool: pool[1], default=None)


@dataclass(frozen=True)
class CostPlan:
    """What a fit and the predictions after it would cost, and what the account has left.

    Args:
        fit: Cost of the fit: 0 for a standard one (contract 4.2); None where it cannot be known.
        predictions: Cost of all predictions: 0 where none are planned; None where it cannot be known.
        rows: Rows to predict.
        calls: Predictions that the server's limits split them into, each billed with its minimum.
        pricing_version: What the server says of its prices: `quota_v3` counts tokens, `legacy_v2` credits.
        unpriced: Why a cost cannot be known.
        usage: What the account had used; None where the server did not say.
    """

    fit: int | None
    predictions: int | None = 0
    rows: int = 0
    calls: int = 0
    pricing_version: str | None = None
    unpriced: str | None = None
    usage: ApiUsage | None = field(default=None, repr=False)

    @property
    def total(self) -> int | None:
        """Cost of fit and predictions; None where either cannot be known."""
        return None if self.fit is None or self.predictions is None else self.fit + self.predictions

    @property
    def unit(self) -> Literal["tokens", "credits"]:
        """What costs are counted in."""
        return "credits" if (self.pricing_version or "").startswith("legacy") else "tokens"

    @property
    def pools(self) -> PoolsLeft:
        """What the account has left."""
        return pools_left(self.usage)

    def raise_exceeded(self, max_cost: int | None) -> None:
        """Raise when it would cost more than is allowed or left, or return.

        Args:
            max_cost: The most it may cost, in `unit`; None sets no limit beside the account's pools.

        Raises:
            CostExceededError: It would cost more; allow more, fit or predict less, or wait for the pools' reset.
            ConfigurationError: `max_cost` is given and the price cannot be known; leave it out to go on without one.
        """
        cost = self.total
        if cost is None:
            if max_cost is None:
                return
            raise ConfigurationError(
                f"max_cost={max_cost} cannot be kept, because the price cannot be known: {self.unpriced}. Leave "
                "max_cost out to go on without a limit; nothing was sent."
            )
        price = f"{cost:,} {self.unit}"
        if self.unit == "credits":
            price += f", as the server counts in its pricing {self.pricing_version},"
        if max_cost is not None and cost > max_cost:
            raise CostExceededError(
                f"This would cost {price} and max_cost allows {max_cost:,}; allow more, or send fewer rows or columns. "
                "Nothing was sent.",
                estimated_cost=cost,
                allowed=max_cost,
            )
        smallest = self.pools.smallest
        # Pools hold tokens, of which nobody says how many a credit is.
        if self.unit == "tokens" and smallest is not None and cost > smallest[1]:
            name, left = smallest
            until = self.pools.reset_time
            raise CostExceededError(
                f"This would cost {price} and the {name} pool has {left:,} left; wait for its reset"
                f"{f' ({until})' if until and name != 'monthly' else ''} or send less. Nothing was sent.",
                estimated_cost=cost,
                allowed=left,
            )


def check_max_cost(max_cost: int | None) -> None:
    """Refuse a limit that is none.

    Raises:
        ConfigurationError: It is not a whole number of at least 0; correct it.
    """
    if max_cost is not None and (type(max_cost) is not int or max_cost < 0):
        raise ConfigurationError(f"max_cost is a whole number of tokens, 0 or more; not {max_cost!r}.")


def pools_left(usage: ApiUsage | None) -> PoolsLeft:
    """Tell what an account has left.

    Args:
        usage: What the server said; None where it did not.

    Returns:
        The pools; at least 0 where a pool is limited.
    """
    if usage is None:
        return PoolsLeft()
    return PoolsLeft(
        daily=_left(usage.daily_tokens_used, usage.daily_token_limit),
        monthly=_left(usage.monthly_tokens_used, usage.monthly_token_limit),
        current=_left(usage.current_usage, usage.usage_limit),
        reset_time=usage.reset_time,
    )


def _left(used: int | None, limit: int | None) -> int | None:
    if limit is None or limit < 0:
        return None if limit is None else UNLIMITED
    return None if used is None else max(0, limit - used)


def rows_per_call(
    limit: ModelLimit, *, train_rows: int, columns: int, output_type: str | None, subsampled: bool
) -> int | None:
    """Tell how many rows one prediction takes (contract 4.1).

    Args:
        limit: Limits of the model version.
        train_rows: Rows the model is fitted on.
        columns: Feature columns, 1 or more.
        output_type: What is asked for; `full` has a limit of its own.
        subsampled: Whether the fit subsamples rows, which lifts the row-pairs budget.

    Returns:
        Rows, 0 where not even one fits; None where the server names no limit.
    """
    budget, cells = limit.predict_row_pairs_budget, limit.test_set_max_cells
    known = [
        limit.test_set_max_rows,
        None if budget is None or subsampled else budget // max(train_rows, 1),
        limit.test_set_max_rows_w_full_regression_output if output_type == "full" else None,
        None if cells is None else cells // columns,
    ]
    return min((most for most in known if most is not None), default=None)


def split_rows(rows: int, most: int | None) -> tuple[tuple[int, int], ...]:
    """Split rows into predictions that the server takes.

    Args:
        rows: Rows to predict, 1 or more.
        most: Rows of one prediction, 1 or more; None for any number.

    Returns:
        How many predictions, and rows of each: full ones, then the rest.
    """
    full, rest = (0, rows) if most is None else divmod(rows, most)
    return tuple(part for part in ((full, most or 0), (1 if rest else 0, rest)) if part[0])


@dataclass(frozen=True)
class Shape:
    """What of a train set decides a price.

    Args:
        rows: Train rows.
        columns: Feature columns.
        model_version: For instance `v3`; None for the server's default.
    """

    rows: int
    columns: int
    model_version: str | None = None


def fit_dimensions(parameters: FitParameters, shape: Shape) -> dict[str, Any]:
    """Build what `estimate_cost` is asked about a thinking fit (contract 1.9).

    Args:
        parameters: Parameters of the fit.
        shape: What it is fitted on.
    """
    return {**_dimensions(parameters, shape), "operation": "thinking_fit", "thinking_effort": _effort(parameters)}


def predict_dimensions(parameters: FitParameters, shape: Shape, test_rows: int) -> dict[str, Any]:
    """Build what `estimate_cost` is asked about one prediction (contract 1.9).

    Args:
        parameters: Parameters of the fit; a thinking one is priced as such, even where it is cached as well.
        shape: What the model was fitted on.
        test_rows: Rows of this prediction.
    """
    cached = parameters.config.get("fit_mode") == "fit_with_cache"
    operation = "thinking_predict" if parameters.thinking else "cache_predict" if cached else "predict"
    asked = {"test_rows": test_rows, "operation": operation, "thinking_effort": _effort(parameters)}
    return {**_dimensions(parameters, shape), **asked}


def _dimensions(parameters: FitParameters, shape: Shape) -> dict[str, Any]:
    return {
        "train_rows": shape.rows,
        "raw_columns": shape.columns,
        "model_version": shape.model_version,
        "n_estimators": parameters.config.get("n_estimators"),
    }


def _effort(parameters: FitParameters) -> str | None:
    return parameters.thinking.effort if parameters.thinking else None


_COUNTERS = (
    ("current_usage", "usage_limit"),
    ("daily_tokens_used", "daily_token_limit"),
    ("monthly_tokens_used", "monthly_token_limit"),
)


def charge_of(before: ApiUsage | None, after: ApiUsage | None, estimate: int | None, *, billed: bool) -> int | None:
    """Tell what a call cost from what the account had used before and after it (contract 4.2: no answer says it).

    It is known only where every counter of a limited pool grew by exactly the estimate: others use the account at the
    same time, and any other difference may be theirs. A reset between the two looks, a counter that one of them lacks,
    and an account without limited pools leave it unknown.

    Args:
        before: Usage before the call; None where nobody knows.
        after: Usage after it; None where nobody knows.
        estimate: What the call was to cost; None where nobody knows.
        billed: Whether the call costs anything at all; a standard fit does not.

    Returns:
        Tokens, 0 for what is free; None where it is not known.
    """
    if not billed:
        return 0
    if before is None or after is None or estimate is None or before.reset_time != after.reset_time:
        return None
    proofs = 0
    for counter, pool in _COUNTERS:
        size, first, last = getattr(before, pool), getattr(before, counter), getattr(after, counter)
        if size is None or size < 0 or (first is None and last is None):
            continue
        if first is None or last is None or last - first != estimate:
            return None
        proofs += 1
    return estimate if proofs else None
