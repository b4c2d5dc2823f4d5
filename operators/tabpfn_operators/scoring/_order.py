"""What is to be scored, with what and how; and what is wrong with it, before anything is sent."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tabpfn_assets import FittedModel
from tabpfn_operators import preflight
from tabpfn_operators.errors import InvalidInputError
from tabpfn_operators.parquet import column_problems, features_of, index_columns
from tabpfn_operators.predictions import check_output, column_names, is_storable
from tabpfn_operators.reading import Reading
from tabpfn_operators.scoring._partitions import type_problems
from tabpfn_operators.tables._source import RowSource


@dataclass(frozen=True)
class ScoringOrder:
    """What is asked for.

    Args:
        model: The fitted model.
        reading: The rows.
        output_type: What to predict; settled.
        quantiles: Quantiles asked for.
        keep: Columns of the source to copy beside the predictions.
        wide: Whether each class and quantile has a column of its own; else one of lists.
        partition_by: Kept columns whose values become folders.
        allow_extra: Whether columns that are neither features nor kept may be there.
        rows_per_shard: Most rows of one prediction, where the server allows more; None takes its limit.
    """

    model: FittedModel
    reading: Reading = field(repr=False)
    output_type: str
    quantiles: tuple[float, ...] | None = None
    keep: tuple[str, ...] = ()
    wide: bool = True
    partition_by: tuple[str, ...] = ()
    allow_extra: bool = False
    rows_per_shard: int | None = None


def ordered(
    model: FittedModel,
    reading: Reading,
    *,
    output_type: str | None,
    quantiles: Sequence[float] | None,
    keep: Sequence[str],
    wide: bool,
    partition_by: Sequence[str],
    allow_extra: bool,
    rows_per_shard: int | None,
) -> ScoringOrder:
    """Settle what is asked for.

    Returns:
        The order.

    Raises:
        InvalidInputError: The model is not fitted yet, or the arguments do not fit it or each other; the message says
            which.
    """
    if model.status != "completed":
        raise InvalidInputError(f"The fit {model.fitted_train_set_id} is {model.status}; wait for it before scoring.")
    for name, columns in (("keep", keep), ("partition_by", partition_by)):
        if isinstance(columns, str):
            raise InvalidInputError(f"{name} is a list of column names, not one text; pass [{columns!r}].")
    missing = [column for column in partition_by if column not in keep]
    if missing:
        raise InvalidInputError(f"partition_by names {missing[0]!r}, which is not kept; name it in keep as well.")
    if rows_per_shard is not None and (type(rows_per_shard) is not int or rows_per_shard < 1):
        raise InvalidInputError(f"rows_per_shard is a whole number of at least 1, not {rows_per_shard!r}.")
    chosen = check_output(model, output_type, quantiles)
    return ScoringOrder(
        model,
        reading,
        chosen,
        None if quantiles is None else tuple(float(quantile) for quantile in quantiles),
        tuple(keep),
        wide,
        tuple(partition_by),
        allow_extra,
        rows_per_shard,
    )


def check_columns(order: ScoringOrder, table: RowSource) -> None:
    """Hold the columns of a source against the model, and say all that is wrong in one error.

    Args:
        order: What is asked for.
        table: The source.

    Raises:
        InvalidInputError: Features are missing or of another type, columns to keep are missing or named as a
            prediction is, or there are columns that nobody asked for; the message names each with its remedy.
    """
    names = frozenset(table.names)
    features, keep = order.model.feature_names, order.keep
    present = [name for name in features if name in names]
    problems = column_problems(table, present)
    if len(names) == len(table.names):
        problems += preflight.schema_problems(order.model, features_of(table, present))
        problems += _unwritable(table, [name for name in dict.fromkeys(keep) if name in names])
    problems += [f"column {name!r} is to be kept and is not there" for name in keep if name not in names]
    problems += [f"column {name!r} is to be kept twice" for name, times in Counter(keep).items() if times > 1]
    problems += type_problems(table.schema, [name for name in order.partition_by if name in names])
    predicted = frozenset(column_names(order.model, order.output_type, order.quantiles, wide=order.wide))
    problems += [
        f"column {name!r} is to be kept and named as a column of predictions is; rename it in the source"
        for name in keep
        if name in predicted
    ]
    if not order.allow_extra:
        known = {*features, *keep, order.model.target, *index_columns(table)}
        extra = [name for name in table.names if name not in known]
        if extra:
            named = ", ".join(map(repr, extra[:12])) + (f" and {len(extra) - 12} more" if len(extra) > 12 else "")
            problems.append(
                f"the model does not know {named}; keep such columns beside the predictions, or allow extra ones"
            )
    preflight.raise_problems(table.url, problems)


def _unwritable(table: RowSource, keep: Sequence[str]) -> list[str]:
    """List the kept columns that Parquet has no type for; an import of Arrow is not paid for where nothing is kept."""
    return [
        f"column {name!r} is to be kept and is {table.schema.field(name).type}, which Parquet cannot hold; cast it"
        for name in keep
        if not is_storable(table.schema.field(name))
    ]
