"""Costs as a person and as a machine reads them."""

from typing import Any

from tabpfn_assets import FitParameters
from tabpfn_operators.pricing import UNLIMITED, CostPlan, PoolsLeft


def cost_facts(cost: CostPlan, parameters: FitParameters) -> dict[str, object]:
    """List what a person wants to know of the cost of a fit and of the predictions after it."""
    thinking = parameters.thinking
    kind = "standard, free" if thinking is None else f"thinking, effort {thinking.effort}"
    facts: dict[str, object] = {"cost of the fit": f"{_amount(cost, cost.fit)} ({kind})"}
    if cost.rows:
        of = _counted(cost.rows, "row") + (f" in {_counted(cost.calls, 'call')}" if cost.calls else "")
        facts["cost of predictions"] = f"{_amount(cost, cost.predictions)} ({of})"
    if cost.pricing_version is not None:
        facts["pricing"] = f"{cost.pricing_version}, in {cost.unit}"
    facts["pools left"] = _pools(cost.pools)
    return facts


def _counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def _amount(cost: CostPlan, amount: int | None) -> str:
    return f"not known: {cost.unpriced}" if amount is None else f"{amount:,} {cost.unit}"


def _pools(pools: PoolsLeft) -> str:
    named = {"daily": pools.daily, "monthly": pools.monthly}
    if not any(left is not None for left in named.values()):
        named = {"current": pools.current}
    known = [f"{name} {_left(left)}" for name, left in named.items() if left is not None]
    reset = [] if pools.reset_time is None else [f"reset at {pools.reset_time}"]
    return "; ".join([", ".join(known), *reset]) if known else "not known"


def _left(left: int) -> str:
    return "unlimited" if left == UNLIMITED else f"{left:,}"


def cost_as_json(cost: CostPlan) -> dict[str, Any]:
    """List the same for a machine: None is what is not known, -1 a pool without an end."""
    pools = cost.pools
    return {
        "fit": cost.fit,
        "predictions": cost.predictions,
        "total": cost.total,
        "unit": cost.unit,
        "rows": cost.rows,
        "calls": cost.calls,
        "pricing_version": cost.pricing_version,
        "not_known_because": cost.unpriced,
        "pools_left": {"daily": pools.daily, "monthly": pools.monthly, "current": pools.current},
        "reset_time": pools.reset_time,
    }
