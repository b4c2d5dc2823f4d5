"""The target column: whether it can be one, what it holds."""

from dataclasses import dataclass
from typing import Any

from tabpfn_assets import ClassLabel, Task
from tabpfn_operators.tables._source import RowSource

#: More classes than any model takes; collecting stops here, so that an id column as target cannot fill the memory.
MAX_COLLECTED_CLASSES = 10_000


@dataclass(frozen=True)
class TargetProfile:
    """What is known of the values of a target.

    Args:
        rows: Rows.
        nulls: Rows without a target (null, NaN or infinite).
        classes: Sorted labels; None for regression, and for numbers that need not be labels.
        more_classes: Whether there are more than were collected.
    """

    rows: int
    nulls: int
    classes: tuple[ClassLabel, ...] | None
    more_classes: bool = False


def target_type_problem(table: RowSource, target: str, task: Task | None) -> str | None:
    """Say why a column cannot be the target of a task, or None when it can.

    Args:
        table: The source.
        target: Target column.
        task: What the model is to predict; None asks whether it can be the target of any.
    """
    import pyarrow.types as pat

    kind = table.schema.field(target).type
    value = kind.value_type if pat.is_dictionary(kind) else kind
    numeric = pat.is_integer(value) or pat.is_floating(value)
    regression = numeric or pat.is_decimal(value)
    text = pat.is_string(value) or pat.is_large_string(value) or str(value) == "string_view"
    classification = numeric or pat.is_boolean(value) or text
    if task == "regression" and not regression:
        return f"target {target!r} is {kind}; regression needs a number (for labels use task=classification)"
    if (task == "classification" and not classification) or not (regression or classification):
        return f"target {target!r} is {kind}; classification needs text, whole numbers or booleans"
    return None


def profile_target(table: RowSource, target: str, task: Task | None) -> TargetProfile:
    """Count missing values and, unless for regression, collect the classes; of nothing but the target is a value read.

    Args:
        table: The source.
        target: Target column.
        task: What the model is to predict; None for either.

    Returns:
        What was found.
    """
    import pyarrow.compute as pc
    import pyarrow.types as pat

    known = _by_statistics(table, target) if task == "regression" else None
    if known is not None:
        return known
    rows = nulls = 0
    labels: set[ClassLabel] = set()
    kind = table.schema.field(target).type
    kind = kind.value_type if pat.is_dictionary(kind) else kind
    # Without a task, a column of fractions is taken for numbers, not for labels.
    countable = task == "classification" or (task is None and not (pat.is_decimal(kind) or pat.is_floating(kind)))
    for batch in table.batches((target,)):
        values = batch.column(0)
        if pat.is_dictionary(values.type):
            values = values.dictionary_decode()
        if str(values.type) == "string_view":  # which Arrow cannot filter
            values = values.cast("string")
        missing = pc.is_null(values, nan_is_null=True)
        if pat.is_floating(values.type):
            # Not fill_null: whatever turns a Python value into an Arrow one imports pandas, which is 55 MB.
            missing = pc.or_kleene(missing, pc.is_inf(values))
        rows += len(values)
        nulls += pc.sum(missing).as_py() or 0
        if countable and len(labels) <= MAX_COLLECTED_CLASSES:
            found = pc.unique(values.filter(pc.invert(missing)))
            labels.update(found.slice(0, MAX_COLLECTED_CLASSES + 1).to_pylist())
    if not countable:
        return TargetProfile(rows, nulls, None)
    more = len(labels) > MAX_COLLECTED_CLASSES
    if more and task is None:  # an id, or a number; who names no task asks for no classes
        return TargetProfile(rows, nulls, None)
    ordered = sorted(labels, key=lambda label: (isinstance(label, str), label))
    return TargetProfile(rows, nulls, tuple(ordered[:MAX_COLLECTED_CLASSES]), more)


def _by_statistics(table: RowSource, target: str) -> TargetProfile | None:
    """Take the nulls from the footer, where it counts all that is missing: it does not count NaN and infinity."""
    import pyarrow.types as pat

    counted: Any = getattr(table, "nulls", None)
    if counted is None or table.rows is None or not pat.is_integer(table.schema.field(target).type):
        return None
    nulls = counted(target)
    return None if nulls is None else TargetProfile(table.rows, nulls, None)
