"""A holdout: held against the model before anything is billed, its target read, and the rows of it that are sent."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tabpfn_assets import FittedModel, SourceRef
from tabpfn_operators import preflight
from tabpfn_operators.errors import InvalidInputError
from tabpfn_operators.parquet import column_problems, features_of
from tabpfn_operators.plan import fingerprint_of
from tabpfn_operators.reading import Reading
from tabpfn_operators.storage import StoredObject
from tabpfn_operators.tables._source import RowSource
from tabpfn_operators.target import target_type_problem

if TYPE_CHECKING:
    from tabpfn_operators.evaluation._truth import Truth

log = logging.getLogger("tabpfn_operators")

MAX_ROWS = 200_000
#: Bytes of one score.
_SCORE = 8


@dataclass(frozen=True)
class Limits:
    """How much of a holdout is evaluated, and the seed of what is drawn.

    Args:
        max_rows: Most rows that are evaluated.
        seed: Seed of the sample and of the bootstrap, not negative.
        resamples: Resamples of the bootstrap.

    Raises:
        InvalidInputError: One of them is no such number; the message names it.
    """

    max_rows: int = MAX_ROWS
    seed: int = 0
    resamples: int = 1000

    def __post_init__(self) -> None:
        for name, least in (("max_rows", 1), ("seed", 0), ("resamples", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InvalidInputError(f"{name} is a whole number, {least} or more, not {value!r}.")


def check_models(model: FittedModel, champion: FittedModel | None) -> None:
    """Refuse models that cannot be evaluated, or not against each other.

    Args:
        model: The model to evaluate.
        champion: The model to compare it with.

    Raises:
        InvalidInputError: The message says what differs, or which record is redacted or not completed.
    """
    for one in (model, champion):
        if one is not None and one.redacted_fields:
            raise InvalidInputError(
                f"The record of {one.fitted_train_set_id} is redacted: its column names are hashes; evaluate with the "
                "original one."
            )
    if champion is None:
        return
    if champion.task != model.task or champion.target != model.target:
        raise InvalidInputError(
            f"The champion predicts {champion.target!r} ({champion.task}), the candidate {model.target!r} "
            f"({model.task}); compare models of one target."
        )
    if model.classes is not None and champion.classes is not None:
        class_order(model.classes, champion.classes)


def class_order(classes: Sequence[Any], others: Sequence[Any]) -> tuple[int, ...]:
    """Find each class of the candidate among those of the champion.

    Args:
        classes: The candidate's.
        others: The champion's.

    Raises:
        InvalidInputError: They are not the same classes; the message names those that one of them lacks.
    """
    from tabpfn_operators.evaluation._labels import UNSEEN, match_labels

    order = match_labels(classes, others)
    new = [label for label, index in zip(classes, order, strict=True) if index == UNSEEN]
    old = [label for index, label in enumerate(others) if index not in order]
    if new or old:
        facts = [f"only the candidate has {named(new)}"] if new else []
        facts += [f"only the champion has {named(old)}"] if old else []
        raise InvalidInputError(
            f"Candidate and champion have other classes ({'; '.join(facts)}), so their scores cannot be compared; "
            "fit both on the same classes, or evaluate without champion."
        )
    return order


def named(labels: Sequence[Any], most: int = 5) -> str:
    """List labels or columns for a message."""
    shown = ", ".join(repr(label) for label in labels[:most])
    return f"{shown} and {len(labels) - most} more" if len(labels) > most else shown


def check_holdout(
    table: RowSource, model: FittedModel, champion: FittedModel | None, target: str, *, features: bool = True
) -> None:
    """Hold a holdout's columns against the models, before anything is sent.

    Args:
        table: The holdout.
        model: The model to evaluate.
        champion: The model to compare it with.
        target: Its target column.
        features: Whether it must have the models' features too, because it will be predicted.

    Raises:
        InvalidInputError: The target or a feature is missing, or of another type; the message names each.
    """
    names = frozenset(table.names)
    problems = []
    if target not in names:
        problems.append(
            f"target {target!r} is not among the columns ({named(table.names, 12)}); name it with target=, or join it "
            "to the holdout"
        )
    else:
        problems += column_problems(table, (target,)) or _filled(target_type_problem(table, target, model.task))
    if any(one is not None and target in one.feature_names for one in (model, champion)):
        problems.append(f"target {target!r} is a feature of the model, so it would be told the answer; name another")
    for one in (model, champion) if features else ():
        if one is not None:
            present = [name for name in one.feature_names if name in names]
            found = column_problems(table, present) or preflight.schema_problems(one, features_of(table, present))
            problems += [problem if one is model else f"{problem} (champion)" for problem in found]
    preflight.raise_problems(table.url, tuple(dict.fromkeys(problems)))


def _filled(problem: str | None) -> list[str]:
    return [] if problem is None else [problem]


def read_target(table: RowSource, model: FittedModel, target: str, limits: Limits) -> "Truth":
    """Read the target column and choose the rows.

    Args:
        table: The holdout, checked.
        model: The model to evaluate.
        target: Its target column.
        limits: Most rows, seed.

    Raises:
        InvalidInputError: No row has a target, or no label of the holdout is a class of the model.
    """
    from tabpfn_operators.evaluation._scores import SAMPLE_BYTES
    from tabpfn_operators.evaluation._truth import read_truth

    columns = (batch.column(0) for batch in table.batches((target,)))
    cells = SAMPLE_BYTES // _SCORE
    most = min(limits.max_rows, max(cells // len(model.classes or (0,)), 1))
    unknown = model.task == "classification" and not model.classes
    truth = read_truth(columns, target, model.task, most=most, cells=cells if unknown else None, seed=limits.seed)
    if model.classes and not unknown:
        check_labels(truth.labels, model.classes, target)
    return truth


def check_labels(labels: Sequence[Any], classes: Sequence[Any], target: str) -> None:
    """Refuse a holdout none of whose labels the model knows: it is another column, or another spelling.

    Args:
        labels: Labels of the holdout.
        classes: Classes of the model.
        target: Target column.

    Raises:
        InvalidInputError: The message names labels of both.
    """
    from tabpfn_operators.evaluation._labels import UNSEEN, match_labels

    if set(match_labels(labels, classes)) == {UNSEEN}:
        raise InvalidInputError(
            f"target {target!r} of the holdout holds {named(labels)} and the model's classes are {named(classes)}: "
            "none is the same. Is it the right column, and spelled as in the train set?"
        )


def holdout_ref(table: RowSource, model: FittedModel, target: str, rows: int, *, features: bool = True) -> SourceRef:
    """Describe a holdout for the record.

    Args:
        table: The holdout.
        model: The model that is evaluated.
        target: Target column.
        rows: Rows.
        features: Whether the model's features are part of it.

    Returns:
        Where it came from.
    """
    return SourceRef(
        uris=tuple(stored.url for stored in table.objects),
        fingerprint=fingerprint_of(table, model.feature_names if features else (), target),
        size_bytes=table.size,
        rows=rows,
    )


class ChosenReading(Reading):
    """Some rows of a source: they are decoded and spooled, the others stay at home."""

    def choosing(self, table: RowSource, positions: Any, wording: str) -> "ChosenReading":
        """Name the rows.

        Args:
            table: The source, opened.
            positions: Their positions, ascending.
            wording: How they were chosen, for the fingerprint and the log.
        """
        self._kept[:] = [ChosenRows(table, positions, wording)]
        log.info("%s is decoded and spooled to disk, because of: %s.", table.url, wording)
        return self


@dataclass(frozen=True)
class ChosenRows:
    """Rows of a source by their positions.

    Args:
        base: The source.
        positions: Positions, ascending, int64.
        reason: How they were chosen.
    """

    base: RowSource
    positions: Any = field(repr=False)
    reason: str

    @property
    def schema(self) -> Any:
        """The source's Arrow schema, with plain text for views, which Arrow cannot choose from (pyarrow 26)."""
        import pyarrow as pa

        schema = self.base.schema
        plain = [one.with_type(pa.string()) if str(one.type) == "string_view" else one for one in schema]
        return pa.schema(plain, metadata=schema.metadata)

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in order."""
        return self.base.names

    @property
    def url(self) -> str:
        """The source's URL without secrets."""
        return self.base.url

    @property
    def rows(self) -> int:
        """Rows that were chosen."""
        return len(self.positions)

    @property
    def size(self) -> int:
        """About the bytes of these rows: what the spool must have room for."""
        every = max(self.base.rows or 0, int(self.positions[-1]) + 1)
        return -(-self.base.size * len(self.positions) // every)

    @property
    def objects(self) -> tuple[StoredObject, ...]:
        """The stored objects behind it."""
        return self.base.objects

    @property
    def digests(self) -> tuple[str, ...]:
        """What is known of each."""
        return self.base.digests

    @property
    def refinement(self) -> str:
        """What is done to the rows, for the fingerprint."""
        import hashlib

        chosen = hashlib.sha256(self.positions.astype("<i8").tobytes()).hexdigest()
        return f"{getattr(self.base, 'refinement', '')} rows {chosen}"

    def check_unchanged(self) -> None:
        """Look at the objects again."""
        self.base.check_unchanged()

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """Read columns and keep the chosen rows of each batch."""
        import numpy as np
        import pyarrow as pa

        whole = self.schema
        schema = pa.schema([whole.field(name) for name in columns])
        seen = filled = 0
        for batch in self.base.batches(columns):
            stop = seen + batch.num_rows
            upto = int(np.searchsorted(self.positions, stop))
            if upto > filled:
                yield batch.cast(schema).take(pa.array(self.positions[filled:upto] - seen))
            seen, filled = stop, upto
