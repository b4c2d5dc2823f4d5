"""What a batch scoring would do, small enough to be passed between the tasks of a run."""

from typing import Literal

from pydantic import Field

from tabpfn_assets._record import Record
from tabpfn_assets.sets import SourceRef


class ScoringPlan(Record):
    """How a source is cut into predictions, and what they cost.

    The shards are not listed: whoever has the source and this plan cuts the same ones again.

    Args:
        plan_id: Identity of model, source, options and shards, as 32 hex digits; equal wherever the same is planned.
        fitted_train_set_id: The model.
        source: Where the rows come from; of many files the first 20 are named.
        output_type: What is asked for, for instance `probas` or `quantiles`.
        quantiles: Quantiles asked for, in (0, 1).
        keep: Columns of the source that are copied beside the predictions.
        wide: Whether each class has a probability column of its own; else one list column holds them.
        partition_by: Kept columns whose values become folders.
        rows: Rows to predict.
        shards: Predictions that the rows are cut into, each billed with its minimum (contract 4.2).
        rows_per_shard: Most rows of one prediction, by the server's limits; None where it names none.
        spliced: Shards whose bytes are moved as they are; the others are decoded and written anew.
        bytes_to_send: Bytes of all test sets; None where only writing them tells.
        estimated_cost: Tokens of all shards (credits where the server's pricing is an old one), an upper bound where
            they have many sizes; None where nobody asked.
    """

    schema_version: Literal[1] = 1
    plan_id: str = Field(pattern=r"^[0-9a-f]{32}$")
    fitted_train_set_id: str
    source: SourceRef
    output_type: str
    quantiles: tuple[float, ...] | None = None
    keep: tuple[str, ...] = ()
    wide: bool = True
    partition_by: tuple[str, ...] = ()
    rows: int = Field(ge=1)
    shards: int = Field(ge=1)
    rows_per_shard: int | None = Field(default=None, ge=1)
    spliced: int = Field(ge=0)
    bytes_to_send: int | None = Field(default=None, ge=0)
    estimated_cost: int | None = None
