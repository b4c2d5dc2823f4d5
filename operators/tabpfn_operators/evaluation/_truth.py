"""The target column of a holdout, and the rows of it that are evaluated: one pass, in bounded memory."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from tabpfn_assets import ClassLabel, Task
from tabpfn_operators.errors import InvalidInputError
from tabpfn_operators.target import MAX_COLLECTED_CLASSES


@dataclass(frozen=True)
class Truth:
    """What the holdout says is right, for the rows that are evaluated.

    Args:
        rows: Rows of the holdout.
        missing: Rows without a target.
        positions: Which rows are evaluated, ascending, int64; None for all of the holdout.
        values: Regression: float64. Classification: number of the label in `labels`, int32.
        labels: Different labels of the whole holdout, in the order of their first row.
    """

    rows: int
    missing: int
    positions: Any = field(repr=False)
    values: Any = field(repr=False)
    labels: tuple[ClassLabel, ...] = ()

    @property
    def sampled(self) -> bool:
        """Whether rows that have a target were left out."""
        return len(self.values) < self.rows - self.missing


def read_truth(batches: Iterable[Any], name: str, task: Task, *, most: int, cells: int | None, seed: int) -> Truth:
    """Read the target column and choose the rows that are evaluated.

    Each row gets a seeded random number of its own and the rows of the least ones are taken, so that the sample does
    not depend on how the column comes in batches.

    Args:
        batches: Arrow arrays.
        name: The target column, for messages.
        task: What is predicted.
        most: Most rows that are evaluated.
        cells: Most scores (rows x classes), for a model whose classes are not known: those of the holdout count.
        seed: Seed of the sample.

    Raises:
        InvalidInputError: There is no row with a target, or the target has more labels than a model can have.
    """
    sample = _Sample(most, seed)
    labels: dict[ClassLabel, int] = {}
    rows = missing = 0
    for batch in batches:
        array = _plain(batch)
        absent = _absent(array)
        present = array.filter(pc.invert(absent))
        values = _numbers(present) if task == "regression" else _codes(present, labels, name)
        sample.add(values, rows, absent)
        rows += len(array)
        missing += len(array) - len(present)
    if cells is not None:
        most = min(most, max(cells // max(len(labels), 1), 1))
    positions, values = sample.finish(most)
    if not len(values):
        raise InvalidInputError(
            f"target {name!r} is missing in every row of the holdout; nothing can be compared with it."
        )
    return Truth(rows, missing, None if len(values) == rows else positions, values, tuple(labels))


class _Sample:
    """The rows with the least of seeded random numbers: at most twice as many in memory as are wanted."""

    def __init__(self, most: int, seed: int) -> None:
        self._most = most
        self._random = np.random.default_rng(seed)
        self._bound = 1.0
        self._parts: list[tuple[Any, Any, Any]] = []
        self._held = 0

    def add(self, values: Any, first: int, absent: Any) -> None:
        """Take rows from position `first` on; `values` are those that are not absent."""
        keys = self._random.random(len(absent))
        positions = np.flatnonzero(~absent.to_numpy(zero_copy_only=False))
        keys = keys[positions]
        low = keys < self._bound
        self._parts.append((keys[low], positions[low] + first, values[low]))
        self._held += int(low.sum())
        if self._held > 2 * self._most:
            self._prune(self._most)

    def finish(self, most: int) -> tuple[Any, Any]:
        """Return positions, ascending, and values of at most so many rows."""
        self._prune(most)
        if not self._parts:
            return np.empty(0, np.int64), np.empty(0)
        _, positions, values = self._parts[0]
        order = np.argsort(positions)
        return positions[order], values[order]

    def _prune(self, most: int) -> None:
        if not self._parts:
            return
        keys, positions, values = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        if len(keys) > most:
            least = np.argpartition(keys, most - 1)[:most]
            keys, positions, values = keys[least], positions[least], values[least]
            self._bound = float(keys.max())
        self._parts, self._held = [(keys, positions, values)], len(keys)


def _plain(array: Any) -> Any:
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if pat.is_dictionary(array.type):
        array = array.dictionary_decode()
    if str(array.type) == "string_view":  # which Arrow cannot filter
        array = array.cast(pa.string())
    return array.cast(pa.float32()) if pat.is_float16(array.type) else array


def _absent(array: Any) -> Any:
    absent = pc.is_null(array, nan_is_null=True)
    return pc.or_kleene(absent, pc.is_inf(array)) if pat.is_floating(array.type) else absent


def _numbers(array: Any) -> Any:
    return array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)


def _codes(array: Any, labels: dict[ClassLabel, int], name: str) -> Any:
    encoded = array.dictionary_encode()
    found = encoded.dictionary.slice(0, MAX_COLLECTED_CLASSES + 1).to_pylist()
    numbers = [labels.setdefault(label, len(labels)) for label in found]
    if len(labels) > MAX_COLLECTED_CLASSES:
        raise InvalidInputError(
            f"target {name!r} has more than {MAX_COLLECTED_CLASSES:,} labels; is it an id, or meant for regression?"
        )
    return np.asarray(numbers, np.int32)[encoded.indices.to_numpy()] if numbers else np.empty(0, np.int32)
