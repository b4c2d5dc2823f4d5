"""Close a scoring: its record, then its manifest, then away with what it makes superfluous."""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from tabpfn_assets import EngineRun, PredictionSet, ScoredShard, redact_columns
from tabpfn_operators._call import log
from tabpfn_operators._stored import decoded, read_fresh
from tabpfn_operators.errors import DestinationError, RecordUnreadableError
from tabpfn_operators.packages import package_versions
from tabpfn_operators.predict import LINEAGE_FILE, MANIFEST_FILE
from tabpfn_operators.scoring._entries import uncached
from tabpfn_operators.scoring._manifest import (
    build,
    damage,
    read_manifest,
    tidy,
    write_manifest,
)
from tabpfn_operators.scoring._order import ScoringOrder
from tabpfn_operators.scoring._planning import Planned
from tabpfn_operators.scoring._shard import Scored
from tabpfn_operators.storage import Folder, trouble


def found_finished(target: Folder, planned: Planned, *, redact_labels: bool) -> PredictionSet | None:
    """Find a scoring that is closed, and hold its files against its manifest.

    Args:
        target: The destination.
        planned: The plan.
        redact_labels: Whether its records are to be redacted; others are written anew.

    Returns:
        Its record; None where something is still to be done, and the log says what is wrong with what is there.

    Raises:
        StorageError: The storage did not answer; run again.
    """
    shown = target.file_url(LINEAGE_FILE)
    try:
        manifest = read_manifest(target)
        if manifest is None or manifest.plan.plan_id != planned.plan.plan_id:
            return None
        content = read_fresh(uncached(target.fs), f"{target.path}/{LINEAGE_FILE}")
        record = None if content is None else decoded(content, PredictionSet, shown)
    except RecordUnreadableError as error:
        log.warning("%s The scoring is closed anew.", error.message)
        return None
    wrong = next(filter(None, damage(target, manifest.shards)), None)
    if wrong is not None:
        log.warning("%s is closed, but %s.", target.url, wrong)
    if wrong or record is None or record.plan_id != planned.plan.plan_id:
        return None
    return record if bool(record.model.redacted_fields) is redact_labels else None


def finished(
    target: Folder,
    order: ScoringOrder,
    planned: Planned,
    shards: Sequence[ScoredShard],
    *,
    confirm: Callable[[], None],
    first: Scored | None,
    started_at: datetime,
    charged: int | None,
    run: EngineRun | None,
    redact_labels: bool,
) -> PredictionSet:
    """Close a scoring whose every shard is done.

    Args:
        target: The destination.
        order: What was asked for.
        planned: The plan.
        shards: All shards.
        confirm: Raises where the destination is not this plan's any more.
        first: One that was scored by this call; None where others did them all.
        started_at: When this call began.
        charged: Tokens that it cost; None where that is not known.
        run: The engine run, for lineage.
        redact_labels: Hash column names and class labels in the records.

    Returns:
        The record beside the predictions.

    Raises:
        DestinationBusyError: Another plan has taken the destination over; run again when it has ended.
        DestinationError: It cannot be written there; correct path or credentials and run again, which scores nothing.
        InvalidInputError: Shards are missing or do not fit each other; run again.
        StorageError: The storage did not answer; run again.
    """
    columns = first.columns if first is not None else _columns(target, shards[0])
    plan = planned.plan
    if redact_labels:
        columns = redact_columns(columns, keep=order.keep)
        plan = plan.model_copy(update={"keep": redact_columns(order.keep, keep=order.keep)})
    manifest = build(
        plan,
        columns,
        shards,
        started_at=min(started_at, *(shard.scored_at for shard in shards)),
        finished_at=max(shard.scored_at for shard in shards),
        charged=charged,
    )
    timings: Counter[str] = Counter()
    for shard in shards:
        timings.update({stage: seconds for stage, seconds in shard.timings.items() if seconds is not None})
    record = PredictionSet(
        uri=target.url,
        lineage_uri=target.file_url(LINEAGE_FILE),
        rows=manifest.rows,
        columns=columns,
        output_type=order.output_type,
        quantiles=order.quantiles,
        source=planned.source,
        model=order.model,
        metadata=dict(first.metadata if first is not None else shards[0].metadata),
        timings=dict(timings),
        estimated_cost=manifest.estimated_cost,
        charged=charged,
        plan_id=planned.plan.plan_id,
        manifest_uri=target.file_url(MANIFEST_FILE),
        shards=len(shards),
        resends=len(manifest.resends),
        run=run,
        packages=package_versions(),
        created_at=datetime.now(UTC),
    )
    if redact_labels:
        record = record.model_copy(update={"columns": ()}).redacted().model_copy(update={"columns": columns})
    confirm()
    with target.replacing(LINEAGE_FILE) as file:
        file.write(record.model_dump_json(indent=2).encode())
    confirm()
    write_manifest(target, manifest)
    confirm()
    tidy(target, manifest)
    return record


def _columns(target: Folder, shard: ScoredShard) -> tuple[str, ...]:
    import pyarrow.parquet as pq

    name = shard.files[0].name
    try:
        with uncached(target.fs).open(f"{target.path}/{name}", "rb") as file:
            return tuple(pq.read_schema(file).names)
    except Exception as error:
        raise trouble(target.file_url(name), error, "read", DestinationError) from None
