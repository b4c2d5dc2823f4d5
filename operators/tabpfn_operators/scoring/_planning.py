"""Plan a scoring: look at the source, cut it, identify and price it. Nothing is sent but questions."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tabpfn_assets import ScoringPlan, SourceRef
from tabpfn_operators._call import Session
from tabpfn_operators.account import get_settings
from tabpfn_operators.cost import prices_of_predictions
from tabpfn_operators.errors import InvalidInputError
from tabpfn_operators.plan import fingerprint_of
from tabpfn_operators.pricing import rows_per_call
from tabpfn_operators.scoring._order import ScoringOrder, check_columns
from tabpfn_operators.scoring._plan import Shard, cut, plan_id
from tabpfn_operators.scoring._rows import count_rows, group_rows, to_send
from tabpfn_operators.server import ModelLimit, ServerSettings, model_version_of
from tabpfn_operators.tables._source import RowSource
from tabpfn_operators.upload import source_ref

#: A plan passes through engines that keep small values only (Airflow's XCom).
_MOST_URIS = 20


@dataclass(frozen=True)
class Planned:
    """A plan, and what only the process has that made it.

    Args:
        plan: The plan.
        source: Where the rows come from, every file named.
        shards: All its shards.
        table: The source.
        server: The server's limits, which are not asked for again for each shard.
        prices: Tokens of a prediction of so many rows; empty where the server does not tell.
    """

    plan: ScoringPlan
    source: SourceRef
    shards: tuple[Shard, ...] = field(repr=False)
    table: RowSource = field(repr=False)
    server: ServerSettings = field(repr=False)
    prices: Mapping[int, int] = field(repr=False)

    def price(self, shard: Shard) -> int | None:
        """Return the tokens of a shard; None where nobody knows."""
        return self.prices.get(shard.rows)


async def plan_scoring(session: Session, order: ScoringOrder, *, expected: ScoringPlan | None = None) -> Planned:
    """Plan what an order asks for.

    Args:
        session: The session.
        order: What is asked for.
        expected: A plan that was made before.

    Raises:
        InvalidInputError: Source, model and arguments do not fit each other, or it is another plan than was expected.
        LimitExceededError: The server takes not even one row of this model.
    """
    table = await session.wire.call(lambda: order.reading.open(keep=True))
    await session.wire.call(check_columns, order, table)
    server = await get_settings(session)
    planned = await session.wire.call(_cut, order, table, server)
    if expected is not None and expected.plan_id != planned.plan.plan_id:
        raise InvalidInputError(
            f"{table.url}: this is scoring {planned.plan.plan_id}, and {expected.plan_id} was planned: model, source "
            "or options are others than they were. Plan it anew."
        )
    sizes = Counter(shard.rows for shard in planned.shards)
    prices = await prices_of_predictions(session, order.model, sizes)
    known = [prices.get(rows) for rows in sizes]
    total = None if None in known else sum(prices[rows] * calls for rows, calls in sizes.items())
    priced = planned.plan.model_copy(update={"estimated_cost": total})
    return replace(planned, plan=priced, prices=prices)


def _cut(order: ScoringOrder, table: RowSource, server: ServerSettings) -> Planned:
    model = order.model
    limit = server.limit_for(model_version_of(model.parameters.config))
    rows = count_rows(table)
    if not rows:
        raise InvalidInputError(f"{table.url} holds no rows; is the source empty, or the filter too narrow?")
    most = _most_rows(order, limit)
    shards = cut(group_rows(table), rows, most)
    spliced, size = to_send(table, shards, model.feature_names)
    fingerprint = fingerprint_of(table, _read(model.feature_names, order.keep), None)
    ref = source_ref(table, rows, fingerprint)
    plan = ScoringPlan(
        plan_id=plan_id(
            shards,
            fitted_train_set_id=model.fitted_train_set_id,
            fingerprint=fingerprint,
            output_type=order.output_type,
            quantiles=order.quantiles,
            keep=order.keep,
            wide=order.wide,
            partition_by=order.partition_by,
        ),
        fitted_train_set_id=model.fitted_train_set_id,
        source=ref.model_copy(update={"uris": ref.uris[:_MOST_URIS]}),
        output_type=order.output_type,
        quantiles=order.quantiles,
        keep=order.keep,
        wide=order.wide,
        partition_by=order.partition_by,
        rows=rows,
        shards=len(shards),
        rows_per_shard=most,
        spliced=spliced,
        bytes_to_send=size,
    )
    return Planned(plan, ref, shards, table, server, {})


def _most_rows(order: ScoringOrder, limit: ModelLimit) -> int | None:
    model = order.model
    most = rows_per_call(
        limit,
        train_rows=model.rows,
        columns=max(len(model.features), 1),
        output_type=order.output_type,
        subsampled="SUBSAMPLE_SAMPLES" in (model.parameters.config.get("inference_config") or {}),
    )
    known = [each for each in (most, order.rows_per_shard) if each is not None]
    return min(known, default=None)


def _read(features: Sequence[str], keep: Sequence[str]) -> tuple[str, ...]:
    """Name the columns that the parts depend on: what is kept identifies a table in memory too."""
    return tuple(dict.fromkeys((*features, *keep)))
