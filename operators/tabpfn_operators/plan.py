"""What an upload of a train set would send, known before any byte moves."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, get_args

from tabpfn_assets import ClassLabel, Feature, Task
from tabpfn_operators import preflight
from tabpfn_operators.errors import InvalidInputError
from tabpfn_operators.parquet import column_problems, features_of, index_columns
from tabpfn_operators.reading import Reading, is_spliceable
from tabpfn_operators.server import ModelLimit
from tabpfn_operators.storage import source_fingerprint
from tabpfn_operators.tables._source import RowSource
from tabpfn_operators.target import profile_target, target_type_problem

if TYPE_CHECKING:
    from tabpfn_operators.splice import VirtualParquet


@dataclass(frozen=True)
class TrainPlan:
    """What an upload of a train set would send, and everything that is wrong with it.

    Args:
        url: The source without secrets; of several files the first.
        files: Stored files; 0 for a table in memory.
        rows: Rows to send; None where only a scan tells (row filter, CSV) and problems made it pointless.
        target: Column to predict.
        target_dtype: Its Arrow type; None where there is no such column.
        features: Columns that would leave beside it, in order.
        stays: Columns of the source that stay at home.
        nulls: Rows without a target; None where it was not read.
        classes: Sorted labels; None for regression, for numbers that need not be labels, or where it was not read.
        reason: Why rows are decoded and written anew; None where column chunks are moved as bytes.
        bytes_to_send: Bytes of features and target; None where only writing them tells.
        problems: What is wrong with the source, each naming the column and the remedy.
        over_limit: Which limits of the server it exceeds.
    """

    url: str
    files: int
    rows: int | None
    target: str
    target_dtype: str | None
    features: tuple[Feature, ...]
    stays: tuple[str, ...]
    nulls: int | None
    classes: tuple[ClassLabel, ...] | None
    reason: str | None
    bytes_to_send: tuple[int, int] | None
    problems: tuple[str, ...]
    over_limit: tuple[str, ...]
    table: RowSource = field(repr=False, compare=False)
    bodies: "tuple[VirtualParquet, VirtualParquet] | None" = field(default=None, repr=False, compare=False)

    @property
    def cells(self) -> int | None:
        """Rows x feature columns, which the server limits; None where the rows are not known."""
        return None if self.rows is None else self.rows * len(self.features)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features, in order."""
        return tuple(feature.name for feature in self.features)

    def raise_problems(self) -> None:
        """Raise one error that lists everything found, or return when there is nothing.

        Raises:
            LimitExceededError: Only limits are exceeded; send less.
            InvalidInputError: Something is wrong with the source; correct what the message names.
        """
        preflight.raise_problems(self.url, self.problems, self.over_limit)


def plan_train_set(
    reading: Reading,
    target: str,
    *,
    task: Task | None,
    features: Sequence[str] | None,
    exclude: Sequence[str],
    limit: ModelLimit,
    largest_file: int | None = None,
) -> TrainPlan:
    """Look at footers, and at the target where footers do not tell, and plan an upload.

    Args:
        reading: The source.
        target: Column to predict.
        task: What the model is to predict; None checks what holds for both.
        features: Feature columns in order; None takes all but the target, `exclude` and pandas index columns.
        exclude: Columns that stay at home.
        limit: The server's limits for the model version.
        largest_file: Bytes that the server takes in one file; None where it names no limit.

    Returns:
        The plan; what is wrong is in it.

    Raises:
        InvalidInputError: The source cannot be read at all, or there is no such task; the message says what to correct.
        StorageError: The storage did not answer; run again.
    """
    if task is not None and task not in get_args(Task):
        raise InvalidInputError(f"The task is {task!r}; name classification or regression.")
    table = reading.open()
    chosen, problems = preflight.select_features(
        table.names, target=target, features=features, exclude=exclude, index_columns=index_columns(table)
    )
    problems += column_problems(table, (*chosen, *((target,) if target in table.names else ())))
    if not problems and (problem := target_type_problem(table, target, task)):
        problems.append(problem)
    profile = None if problems else profile_target(table, target, task)
    rows = profile.rows if profile else table.rows
    classes = profile.classes if profile else None
    counted = len(classes) if classes is not None and task is not None else None
    if profile:
        problems += preflight.target_problems(
            target, task, rows=profile.rows, nulls=profile.nulls, classes=counted, more_classes=profile.more_classes
        )
    over = preflight.train_limit_problems(limit, rows=rows or 0, columns=len(chosen), classes=counted)
    bodies = _bodies(table, chosen, target) if profile else None
    if bodies is not None:
        over += preflight.size_problems(largest_file, *(body.size for body in bodies))
    names = table.names
    counts = Counter(names)
    leaves = {target, *chosen}
    return TrainPlan(
        url=table.url,
        files=len(table.objects),
        rows=rows,
        target=target,
        target_dtype=str(table.schema.field(target).type) if counts[target] == 1 else None,
        features=features_of(table, [name for name in chosen if counts[name] == 1]),
        stays=tuple(name for name in names if name not in leaves),
        nulls=profile.nulls if profile else None,
        classes=classes,
        reason=None if is_spliceable(table) else table.reason,
        bytes_to_send=None if bodies is None else (bodies[0].size, bodies[1].size),
        problems=tuple(problems),
        over_limit=tuple(over),
        table=table,
        bodies=bodies,
    )


def fingerprint_of(table: RowSource, columns: Sequence[str], target: str | None) -> str:
    """Identify what is read of a source: without reading it where it is stored, by its values where it is in memory.

    Args:
        table: The source.
        columns: Columns, in order.
        target: Target column; None for a test set.

    Returns:
        64 hex digits (design.md, Identity).
    """
    digests = table.digests
    if not table.objects:
        from tabpfn_operators.tables._digest import content_digest

        digests = (content_digest(table, (*columns, *((target,) if target is not None else ()))),)
    return source_fingerprint(table.objects, digests, columns, target, refinement=getattr(table, "refinement", ""))


def train_set_fingerprint(
    reading: Reading, target: str, *, features: Sequence[str] | None, exclude: Sequence[str]
) -> str:
    """Identify a train set from its footers, before anything is planned, and keep the opened source for the plan.

    Args:
        reading: The source.
        target: Column to predict.
        features: Feature columns in order; None takes all but the target, `exclude` and pandas index columns.
        exclude: Columns that stay at home.

    Returns:
        64 hex digits (design.md, Identity).

    Raises:
        InvalidInputError: The source cannot be read at all, or has no such columns; the message says what to correct.
        StorageError: The storage did not answer; run again.
    """
    table = reading.open(keep=True)
    chosen, problems = preflight.select_features(
        table.names, target=target, features=features, exclude=exclude, index_columns=index_columns(table)
    )
    preflight.raise_problems(table.url, problems)
    return fingerprint_of(table, chosen, target)


def _bodies(table: RowSource, features: Sequence[str], target: str) -> "tuple[VirtualParquet, VirtualParquet] | None":
    return (table.virtual(features), table.virtual((target,))) if is_spliceable(table) else None
