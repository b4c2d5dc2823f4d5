"""Which rows each prediction of a batch takes. Pure functions."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tabpfn_operators.errors import LimitExceededError


@dataclass(frozen=True)
class Shard:
    """The rows of one prediction.

    Args:
        index: Which shard it is, counted from 0.
        start: First row, counted from 0 through the whole source.
        rows: Rows, 1 or more.
    """

    index: int
    start: int
    rows: int

    @property
    def stop(self) -> int:
        """One past the last row."""
        return self.start + self.rows

    @property
    def name(self) -> str:
        """Its name in paths."""
        return f"{self.index:05d}"


def cut(group_rows: Sequence[int] | None, rows: int, most: int | None) -> tuple[Shard, ...]:
    """Cut a source into predictions that the server takes; the same facts give the same shards everywhere.

    Args:
        group_rows: Rows of each row group, which stay together where they can, so that their bytes can be moved as they
            are; None where the source is decoded anyway.
        rows: Rows of the source.
        most: Most rows of one prediction; None for any number.

    Returns:
        Shards that have every row once, in order. A row group of more than `most` rows is cut into shards of its own,
        as few as can be, and of nearly equal size.

    Raises:
        LimitExceededError: Not even one row fits; use a model of fewer train rows or columns.
        ValueError: The row groups have more or fewer rows than the source.
    """
    if most is not None and most < 1:
        raise LimitExceededError(
            "The server takes not even one row in a prediction of this model; fit it on fewer rows or columns."
        )
    if group_rows is not None and sum(group_rows) != rows:
        raise ValueError(f"the row groups have {sum(group_rows)} rows, the source {rows}")
    most = rows if most is None else most
    sizes = _filled(rows, most) if group_rows is None else _joined(group_rows, most)
    shards: list[Shard] = []
    start = 0
    for size in sizes:
        shards.append(Shard(len(shards), start, size))
        start += size
    return tuple(shards)


def _filled(rows: int, most: int) -> Iterator[int]:
    while rows > 0:
        yield min(rows, most)
        rows -= most


def _joined(group_rows: Sequence[int], most: int) -> Iterator[int]:
    together = 0
    for rows in group_rows:
        if together and together + rows > most:
            yield together
            together = 0
        if rows <= most:
            together += rows
        else:
            parts = -(-rows // most)
            smaller, larger = divmod(rows, parts)
            yield from (smaller + 1 if part < larger else smaller for part in range(parts))
    if together:
        yield together


def plan_id(
    shards: Sequence[Shard],
    *,
    fitted_train_set_id: str,
    fingerprint: str,
    output_type: str,
    quantiles: Sequence[float] | None,
    keep: Sequence[str],
    wide: bool,
    partition_by: Sequence[str],
) -> str:
    """Identify a scoring by everything that its parts depend on.

    Args:
        shards: All shards.
        fitted_train_set_id: The model.
        fingerprint: Fingerprint of the source and its feature columns.
        output_type: What is asked for.
        quantiles: Quantiles asked for.
        keep: Columns copied beside the predictions, in order.
        wide: Whether each class has a probability column of its own.
        partition_by: Kept columns whose values become folders, in order.

    Returns:
        32 hex digits, equal on every machine.
    """
    bounds = hashlib.sha256(json.dumps([(shard.start, shard.rows) for shard in shards]).encode())
    facts = {
        "v": 1,
        "model": fitted_train_set_id,
        "source": fingerprint,
        "output_type": output_type,
        "quantiles": None if quantiles is None else [float(level) for level in quantiles],
        "keep": list(keep),
        "wide": wide,
        "partition_by": list(partition_by),
        "rows": sum(shard.rows for shard in shards),
        "shards": bounds.hexdigest(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
