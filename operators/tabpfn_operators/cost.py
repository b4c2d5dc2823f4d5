"""The cost guard: what a fit and predictions would cost, refused where it is too much, and what they did cost."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from tabpfn_assets import FitParameters, FittedModel
from tabpfn_operators import account
from tabpfn_operators._call import Session, log
from tabpfn_operators._retry import RetryPolicy
from tabpfn_operators.errors import ApiError, ConfigurationError, InvalidInputError, LimitExceededError, TabPFNError
from tabpfn_operators.pricing import (
    CostPlan,
    Shape,
    charge_of,
    check_max_cost,
    fit_dimensions,
    predict_dimensions,
    rows_per_call,
    split_rows,
)
from tabpfn_operators.reading import Reading
from tabpfn_operators.server import ApiUsage, ModelLimit, model_version_of

if TYPE_CHECKING:
    from tabpfn_operators.plan import TrainPlan

_NO_ROUTE = frozenset({404, 405})
_ONE_LOOK = RetryPolicy(attempts=1, budget=0.0)
_LOOK_SECONDS = 20.0

#: How often each is asked for, and its dimensions.
_Work: TypeAlias = Sequence[tuple[int, Mapping[str, Any]]]


async def usage_before(session: Session) -> ApiUsage | None:
    """Look at what the account has used: one call, and None where it fails, for bookkeeping ends nobody's fit."""
    try:
        return await account.get_api_usage(replace(session, policy=_ONE_LOOK), read_timeout=_LOOK_SECONDS)
    except TabPFNError as error:
        log.info("The account's usage is not known: %s", error.message)
        return None


async def charged(session: Session, before: ApiUsage | None, estimate: int | None, *, billed: bool) -> int | None:
    """Tell what a call cost, once it was carried out: as `charge_of`, with one look at the usage, or none.

    Args:
        session: The session of the call.
        before: What `usage_before` said right before the call.
        estimate: What it was to cost.
        billed: Whether it costs anything at all.

    Returns:
        Tokens; None where it is not known, which no error of the look changes.
    """
    known = billed and before is not None and estimate is not None
    return charge_of(before, await usage_before(session) if known else None, estimate, billed=billed)


async def check_fit_cost(
    session: Session, parameters: FitParameters, *, rows: int, columns: int, max_cost: int | None
) -> CostPlan:
    """Refuse a fit that is dearer than is allowed or left, before any byte moves.

    A standard fit is free, and nobody is asked. A thinking fit costs two calls, which are free. Where the server does
    not tell the price, only `max_cost` makes that an error.

    Args:
        session: The session of the fit.
        parameters: Parameters of the fit.
        rows: Train rows.
        columns: Feature columns.
        max_cost: The most that it may cost; None sets no limit beside the account's pools.

    Returns:
        What it would cost; `total` is what a record calls `estimated_cost`.

    Raises:
        CostExceededError: It would cost more than is allowed or left.
        ConfigurationError: `max_cost` is no such number, or cannot be kept because the server does not tell prices.
    """
    check_max_cost(max_cost)
    if not parameters.billed:
        return CostPlan(fit=0)
    shape = Shape(rows, columns, model_version_of(parameters.config))
    prices = await _prices(session, ((1, fit_dimensions(parameters, shape)),), needed=max_cost is not None)
    cost = CostPlan(prices.cost, pricing_version=prices.version, unpriced=prices.unpriced)
    return await _held_against_pools(session, cost, max_cost)


async def check_predict_cost(session: Session, model: FittedModel, *, rows: int, max_cost: int | None) -> CostPlan:
    """Refuse a prediction that is dearer than is allowed or left, before any byte moves; two calls, which are free.

    Args:
        session: The session of the prediction.
        model: The model.
        rows: Rows to predict in one call.
        max_cost: The most that it may cost; None sets no limit beside the account's pools.

    Returns:
        What it would cost.

    Raises:
        CostExceededError: It would cost more than is allowed or left.
        ConfigurationError: `max_cost` is no such number, or cannot be kept because the server does not tell prices.
    """
    check_max_cost(max_cost)
    shape = Shape(model.rows, len(model.features), model_version_of(model.parameters.config))
    work = ((1, predict_dimensions(model.parameters, shape, rows)),)
    prices = await _prices(session, work, needed=max_cost is not None)
    cost = CostPlan(0, prices.cost, rows, 1, prices.version, prices.unpriced)
    return await _held_against_pools(session, cost, max_cost)


#: Sizes of predictions that are priced; of more, the others are said to cost what the next larger one does.
_MOST_PRICED = 8


async def prices_of_predictions(session: Session, model: FittedModel, sizes: Iterable[int]) -> dict[int, int]:
    """Ask what predictions of some sizes cost; free, and empty where the server does not tell.

    Args:
        session: The session.
        model: The model.
        sizes: Rows of each prediction.

    Returns:
        Rows to tokens; of many sizes some are an upper bound.
    """
    shape = Shape(model.rows, len(model.features), model_version_of(model.parameters.config))
    different = sorted(set(sizes), reverse=True)
    step = -(-len(different) // _MOST_PRICED)
    prices: dict[int, int] = {}
    for start in range(0, len(different), max(step, 1)):
        some = different[start : start + step]
        price = await _prices(session, ((1, predict_dimensions(model.parameters, shape, some[0])),), needed=False)
        if price.cost is None:
            return {}
        prices.update(dict.fromkeys(some, price.cost))
    return prices


async def check_total_cost(session: Session, cost: int | None, *, rows: int, calls: int, max_cost: int | None) -> None:
    """Refuse predictions that are together dearer than is allowed or left; one call, which is free.

    Args:
        session: The session.
        cost: What they cost; None where the server does not tell.
        rows: Rows of all.
        calls: How many they are.
        max_cost: The most that they may cost; None sets no limit beside the account's pools.

    Raises:
        CostExceededError: They would cost more than is allowed or left.
        ConfigurationError: `max_cost` is no such number, or cannot be kept because the server does not tell prices.
    """
    check_max_cost(max_cost)
    unpriced = "the server does not tell prices" if cost is None else None
    await _held_against_pools(session, CostPlan(0, cost, rows, calls, unpriced=unpriced), max_cost)


async def _held_against_pools(session: Session, cost: CostPlan, max_cost: int | None) -> CostPlan:
    # First without the pools: what is dearer than max_cost needs no second question.
    cost.raise_exceeded(max_cost)
    if cost.total is None:
        return cost
    cost = replace(cost, usage=await usage_before(session))
    cost.raise_exceeded(max_cost)
    return cost


async def plan_cost(
    session: Session,
    planned: "TrainPlan",
    parameters: FitParameters,
    *,
    predict_rows: int | None,
    predict: Reading | None,
    output_type: str | None,
    model_version: str | None,
) -> CostPlan:
    """Ask what a planned fit and predictions with it would cost, and what the account has left; all free."""
    rows = await session.wire.call(_rows_to_predict, predict_rows, predict)
    usage = await usage_before(session)
    if not parameters.billed and not rows:
        return CostPlan(0, usage=usage)
    if planned.problems or planned.rows is None:
        fit, predictions = (None if parameters.billed else 0), (None if rows else 0)
        return CostPlan(fit, predictions, rows, unpriced="the source cannot be fitted as it is", usage=usage)
    columns, version = len(planned.features), model_version or model_version_of(parameters.config)
    parts: tuple[tuple[int, int], ...] = ()
    if rows:
        limit = (await account.get_settings(session)).limit_for(version)
        parts = _parts(limit, parameters, rows, planned.rows, columns, output_type)
    shape = Shape(planned.rows, columns, version)
    fit_work = ((1, fit_dimensions(parameters, shape)),) if parameters.billed else ()
    work = [(calls, predict_dimensions(parameters, shape, each)) for calls, each in parts]
    priced_fit = await _prices(session, fit_work, needed=True)
    priced = await _prices(session, work, needed=True)
    return CostPlan(
        fit=priced_fit.cost,
        predictions=priced.cost,
        rows=rows,
        calls=sum(calls for calls, _ in parts),
        pricing_version=priced.version or priced_fit.version,
        unpriced=priced_fit.unpriced or priced.unpriced,
        usage=usage,
    )


def _rows_to_predict(rows: int | None, reading: Reading | None) -> int:
    if rows is not None and reading is not None:
        raise ConfigurationError("Name the rows to predict or the source that holds them, not both.")
    if reading is not None:
        table = reading.open()
        if table.rows is None:
            raise InvalidInputError(
                f"{table.url} does not tell its rows without being read, because of {table.reason}; count them, and "
                "give the number as predict_rows."
            )
        return table.rows
    if rows is not None and (type(rows) is not int or rows < 1):
        raise ConfigurationError(f"The rows to predict are a whole number of at least 1, not {rows!r}.")
    return rows or 0


def _parts(
    limit: ModelLimit, parameters: FitParameters, rows: int, train_rows: int, columns: int, output_type: str | None
) -> tuple[tuple[int, int], ...]:
    most = rows_per_call(
        limit,
        train_rows=train_rows,
        columns=columns,
        output_type=output_type,
        subsampled="SUBSAMPLE_SAMPLES" in (parameters.config.get("inference_config") or {}),
    )
    if most == 0:
        raise LimitExceededError(
            f"With {train_rows:,} train rows and {columns:,} columns the server predicts not even one row; fit on "
            "fewer of them."
        )
    return split_rows(rows, most)


@dataclass(frozen=True)
class _Prices:
    cost: int | None
    version: str | None = None
    unpriced: str | None = None


async def _prices(session: Session, work: _Work, *, needed: bool) -> _Prices:
    """Price work, each as often as it is done; a guess that nobody asked for may fail, and is unknown then."""
    cost, version = 0, None
    asking = session if needed else replace(session, policy=_ONE_LOOK)
    for calls, dimensions in work:
        try:
            estimate = await account.estimate_cost(asking, dimensions)
        except ApiError as error:
            if error.status in _NO_ROUTE:
                reason = f"this server has no estimate_cost (HTTP {error.status})"
            elif needed:
                raise
            else:
                reason = error.message.rstrip(". ")
            log.info("The price is not known: %s.", reason)
            return _Prices(None, unpriced=reason)
        cost, version = cost + calls * estimate.estimated_cost, estimate.pricing_version
    return _Prices(cost, version)
