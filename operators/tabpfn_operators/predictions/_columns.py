"""From the arrays of an answer to columns, some rows at a time (contract 5)."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tabpfn_assets import ClassLabel, FittedModel
from tabpfn_operators.predictions._arrays import MalformedError
from tabpfn_operators.predictions._arrow import float_array, label_array
from tabpfn_operators.predictions._output import (
    DEFAULT_QUANTILES,
    LOGITS,
    POINTS,
    PREDICTION,
    PROBABILITIES,
    QUANTILES,
    probability_column,
    quantile_column,
)
from tabpfn_operators.predictions._reader import array_number
from tabpfn_operators.predictions._shelf import Labels, Numbers, Shelf

if TYPE_CHECKING:
    import pyarrow as pa

#: Columns of the rows [start, start + count).
_Read = Callable[[int, int], "list[pa.Array]"]


@dataclass(frozen=True)
class Columns:
    """Columns of an answer whose numbers are on a shelf.

    Args:
        schema: Their Arrow schema.
        rows: Rows.
        read: Makes the columns of some rows.
        borders: Bar borders of output type `full`; they are the same for every row.
    """

    schema: "pa.Schema" = field(repr=False)
    rows: int
    read: _Read = field(repr=False)
    borders: tuple[float, ...] | None = None

    def batch(self, start: int, count: int) -> "pa.RecordBatch":
        """Return rows as a record batch."""
        import pyarrow as pa

        return pa.RecordBatch.from_arrays(self.read(start, count), schema=self.schema)

    def batches(self, rows: int) -> "Iterator[pa.RecordBatch]":
        """Yield all rows in order, so many at a time."""
        for start in range(0, self.rows, rows):
            yield self.batch(start, min(rows, self.rows - start))


@dataclass(frozen=True)
class Answer:
    """What an answer holds beside its metadata.

    Args:
        shelf: Where its numbers are.
        arrays: Its arrays.
        prediction: The member `prediction`, arrays replaced by their numbers.
        rows: Rows that were sent.
    """

    shelf: Shelf = field(repr=False)
    arrays: Sequence[Numbers | Labels] = field(repr=False)
    prediction: Any = field(repr=False)
    rows: int

    def numbers(self, value: Any, what: str) -> Numbers:
        """Return the array of numbers that a value stands for."""
        found = self._array(value, what)
        if isinstance(found, Labels):
            raise MalformedError(f"{what} is no array of numbers")
        return found

    def labels(self, value: Any) -> Labels:
        """Return the array of labels that a value stands for."""
        found = self._array(value, "the prediction")
        if not isinstance(found, Labels):
            raise MalformedError("it holds no labels")
        return found

    def member(self, name: str) -> Any:
        """Return a member of the prediction."""
        if not isinstance(self.prediction, dict) or name not in self.prediction:
            raise MalformedError(f"it has no {name}")
        return self.prediction[name]

    def _array(self, value: Any, what: str) -> Numbers | Labels:
        number = array_number(value)
        if number is None or number >= len(self.arrays):
            raise MalformedError(f"{what} is no array")
        return self.arrays[number]


def columns_of(
    answer: Answer, *, output_type: str, quantiles: Sequence[float] | None, classes: Sequence[ClassLabel], wide: bool
) -> Columns:
    """Lay an answer out as columns, and check its shape.

    Args:
        answer: The answer.
        output_type: What was asked for.
        quantiles: Quantiles asked for; None means the server's own.
        classes: Class labels in the order of the probabilities.
        wide: One column for each class and quantile; else one of lists.

    Raises:
        MalformedError: The answer is not of that shape.
    """
    wanted = tuple(quantiles or DEFAULT_QUANTILES)
    if output_type == "probas":
        return _probabilities(answer, tuple(classes), wide)
    if output_type == "preds":
        return _labels(answer)
    if output_type in POINTS:
        return _joined(answer.rows, [_point(answer, answer.prediction, PREDICTION)])
    if output_type == "quantiles":
        return _joined(answer.rows, [_quantiles(answer, answer.prediction, wanted, wide)])
    return _distribution(answer, wanted, wide, full=output_type == "full")


def _lists(numbers: Any, width: int) -> "pa.Array":
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(float_array(numbers), width)


def _chosen(labels: "pa.Array", places: Any, known: Any = None) -> "pa.Array":
    import numpy as np
    import pyarrow as pa

    places = np.ascontiguousarray(places, dtype=np.int64)
    valid = None if known is None else pa.py_buffer(np.packbits(known, bitorder="little"))
    return labels.take(pa.Array.from_buffers(pa.int64(), places.size, [valid, pa.py_buffer(places)]))


@dataclass(frozen=True)
class _Part:
    fields: "list[pa.Field]"
    read: _Read


def _joined(rows: int, parts: Sequence[_Part], borders: tuple[float, ...] | None = None) -> Columns:
    import pyarrow as pa

    schema = pa.schema([each for part in parts for each in part.fields])
    return Columns(
        schema, rows, lambda start, count: [each for part in parts for each in part.read(start, count)], borders
    )


def _probabilities(answer: Answer, classes: tuple[ClassLabel, ...], wide: bool) -> Columns:
    import numpy as np
    import pyarrow as pa

    found = answer.numbers(answer.prediction, "the prediction")
    width = len(classes)
    if (found.rows, found.width) != (answer.rows, width):
        raise MalformedError(f"got {_shape(found)} probabilities for {width} classes")
    labels = label_array(classes)
    named = {"tabpfn.classes": json.dumps(classes)}
    several = [pa.field(probability_column(label), pa.float64()) for label in classes]
    fields = several if wide else [pa.field(PROBABILITIES, pa.list_(pa.float64(), width), metadata=named)]

    def read(start: int, count: int) -> "list[pa.Array]":
        values = answer.shelf.read(found.start + start * width, count * width).reshape(count, width)
        known = ~np.isnan(values).any(axis=1)  # of a row that the server could not predict nothing is the likeliest
        best = _chosen(labels, values.argmax(axis=1), None if known.all() else known)
        if not wide:
            return [best, _lists(values.ravel(), width)]
        return [best, *(float_array(column) for column in np.ascontiguousarray(values.T))]

    return _joined(answer.rows, [_Part([pa.field(PREDICTION, labels.type), *fields], read)])


def _labels(answer: Answer) -> Columns:
    import pyarrow as pa

    found = answer.labels(answer.prediction)
    if found.codes.rows != answer.rows:
        raise MalformedError("got another number of labels")
    labels = label_array(found.distinct)
    codes = found.codes.start

    def read(start: int, count: int) -> "list[pa.Array]":
        return [_chosen(labels, answer.shelf.read(codes + start, count))]

    return _joined(answer.rows, [_Part([pa.field(PREDICTION, labels.type)], read)])


def _point(answer: Answer, value: Any, name: str) -> _Part:
    import pyarrow as pa

    found = answer.numbers(value, name)
    if found.rows != answer.rows or found.width not in {None, 1}:  # contract 5: be tolerant of n x 1
        raise MalformedError(f"got {_shape(found)} numbers")

    def read(start: int, count: int) -> "list[pa.Array]":
        return [float_array(answer.shelf.read(found.start + start, count))]

    return _Part([pa.field(name, pa.float64())], read)


def _quantiles(answer: Answer, value: Any, wanted: tuple[float, ...], wide: bool) -> _Part:
    import numpy as np
    import pyarrow as pa

    found = answer.numbers(value, "quantiles")
    rows, count_of = answer.rows, len(wanted)
    flat = count_of == 1 and found.width is None and found.rows == rows  # with one quantile it may arrive flat
    if not flat and (found.rows, found.width) != (count_of, rows):
        raise MalformedError(f"got {_shape(found)} values for {count_of} quantiles")
    named = {"tabpfn.quantiles": json.dumps(wanted)}
    several = [pa.field(quantile_column(quantile), pa.float64()) for quantile in wanted]
    fields = several if wide else [pa.field(QUANTILES, pa.list_(pa.float64(), count_of), metadata=named)]

    def read(start: int, count: int) -> "list[pa.Array]":
        values = [answer.shelf.read(found.start + index * rows + start, count) for index in range(count_of)]
        return [float_array(each) for each in values] if wide else [_lists(np.stack(values, axis=1).ravel(), count_of)]

    return _Part(fields, read)


def _distribution(answer: Answer, wanted: tuple[float, ...], wide: bool, *, full: bool) -> Columns:
    parts = [_point(answer, answer.member("mean"), PREDICTION)]
    parts += [_point(answer, answer.member(name), name) for name in POINTS]
    parts.append(_quantiles(answer, answer.member("quantiles"), wanted, wide))
    if not full:
        return _joined(answer.rows, parts)
    borders = answer.numbers(answer.member("borders"), "borders")
    if borders.width is not None:
        raise MalformedError("borders are no plain numbers")
    parts.append(_logits(answer, borders.rows - 1))
    return _joined(answer.rows, parts, tuple(answer.shelf.read(borders.start, borders.rows).tolist()))


def _logits(answer: Answer, bars: int) -> _Part:
    import numpy as np
    import pyarrow as pa

    found = answer.numbers(answer.member("logits"), LOGITS)
    if (found.rows, found.width) != (answer.rows, bars):
        raise MalformedError(f"got {_shape(found)} logits for {bars} bars")

    def read(start: int, count: int) -> "list[pa.Array]":
        values = answer.shelf.read(found.start + start * bars, count * bars)
        values[np.isnan(values)] = -np.inf  # null stands for -inf (contract 5)
        return [_lists(values, bars)]

    return _Part([pa.field(LOGITS, pa.list_(pa.float64(), bars))], read)


def _shape(found: Numbers) -> tuple[int, ...]:
    return (found.rows,) if found.width is None else (found.rows, found.width)


def classes_of(metadata: Mapping[str, Any], model: FittedModel) -> tuple[ClassLabel, ...]:
    """Take the server's class order where it sends one, else the sorted labels of the train set (contract 5)."""
    sent = metadata.get("classes")
    if isinstance(sent, list) and sent:
        return tuple(sent)
    return model.classes or ()
