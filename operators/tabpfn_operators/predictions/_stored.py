"""A prediction as it was received: its numbers in a file, its metadata at hand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from tabpfn_assets import FittedModel
from tabpfn_operators.errors import ApiError
from tabpfn_operators.predictions._arrays import MalformedError
from tabpfn_operators.predictions._columns import Answer, Columns, classes_of, columns_of
from tabpfn_operators.predictions._reader import AnswerReader
from tabpfn_operators.predictions._shelf import Shelf


@dataclass(frozen=True)
class Prediction:
    """A prediction as columns.

    Args:
        columns: Column name to an Arrow array, in order.
        metadata: What the server said about the call.
        timings: Seconds by stage.
        borders: Bar borders of output type `full`; they are the same for every row.
    """

    columns: Mapping[str, Any] = field(repr=False)
    metadata: Mapping[str, Any]
    timings: Mapping[str, float | None]
    borders: tuple[float, ...] | None = None


@dataclass(frozen=True)
class StoredPrediction:
    """A prediction whose numbers are on a shelf; usable while the shelf is.

    Args:
        columns: Its columns.
        metadata: What the server said about the call.
        timings: Seconds by stage.
    """

    columns: Columns
    metadata: Mapping[str, Any]
    timings: Mapping[str, float | None]

    def loaded(self) -> Prediction:
        """Read all columns into memory."""
        batch = self.columns.batch(0, self.columns.rows)
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        return Prediction(columns, self.metadata, self.timings, self.columns.borders)


class AnswerIntake:
    """Takes the answer to one prediction; a context manager that removes its temporary file.

    Args:
        output_type: What is asked for.
    """

    def __init__(self, output_type: str) -> None:
        self._output_type = output_type
        self._shelf = Shelf()
        self.reader = AnswerReader(self._shelf, labels=output_type == "preds")

    def follow(self) -> AnswerReader:
        """Return the reader of a prediction that is stored apart from its answer, from now on this one's `reader`."""
        self.reader = AnswerReader(self._shelf, labels=self._output_type == "preds", stored=True)
        return self.reader

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._shelf.close()

    def decoded(
        self,
        answer: Mapping[str, Any],
        model: FittedModel,
        *,
        quantiles: Sequence[float] | None,
        rows: int,
        wide: bool = True,
    ) -> StoredPrediction:
        """Lay the answer out as columns, and check its shape.

        Args:
            answer: The JSON object that the reader left.
            model: The fitted model.
            quantiles: Quantiles asked for; None means the server's own.
            rows: Rows sent.
            wide: One column for each class and quantile; else one of lists.

        Returns:
            One column for each output, `rows` long.

        Raises:
            ApiError: The answer does not fit what was asked; report it to the vendor.
        """
        metadata = answer.get("metadata")
        metadata = dict(metadata) if isinstance(metadata, dict) else {}
        try:
            self.reader.raise_problem()
            columns = columns_of(
                Answer(self._shelf, self.reader.arrays, answer.get("prediction"), rows),
                output_type=self._output_type,
                quantiles=quantiles,
                classes=classes_of(metadata, model),
                wide=wide,
            )
        except MalformedError as error:
            # Terminal, unlike other failures of the server: an engine's retry would be billed again.
            raise ApiError(
                f"The prediction is not of the shape of {self._output_type!r} for {rows:,} rows: {error}. It was "
                "billed; report it to the vendor."
            ) from None
        told = answer.get("timings")
        told = told if isinstance(told, dict) else {}
        timings = {str(key): value for key, value in told.items() if isinstance(value, int | float | None)}
        return StoredPrediction(columns, metadata, timings)
