"""From the JSON of a prediction to columns of a Parquet file (contract 5)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tabpfn_assets import ClassLabel, FittedModel, Task
from tabpfn_operators.errors import ApiError, InvalidInputError

OUTPUT_TYPES: dict[Task, tuple[str, ...]] = {
    "classification": ("probas", "preds"),
    "regression": ("mean", "median", "mode", "quantiles", "main", "full"),
}
#: The server's own quantiles when none are asked for.
DEFAULT_QUANTILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_POINTS = ("mean", "median", "mode")
_WITH_QUANTILES = frozenset({"quantiles", "main", "full"})


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


def default_output_type(task: Task) -> str:
    """Return what is predicted when nobody says: probabilities, or the mean (contract 1.8)."""
    return OUTPUT_TYPES[task][0]


def check_output(model: FittedModel, output_type: str | None, quantiles: Sequence[float] | None) -> str:
    """Settle what is predicted.

    Args:
        model: The fitted model.
        output_type: What is asked for; None takes probabilities or the mean.
        quantiles: Quantiles asked for, each in (0, 1).

    Returns:
        The output type.

    Raises:
        InvalidInputError: The task has no such output, or the quantiles are not usable; the message lists what is.
    """
    known = OUTPUT_TYPES[model.task]
    chosen = output_type or default_output_type(model.task)
    if chosen not in known:
        raise InvalidInputError(f"output_type {chosen!r} is not one of {', '.join(known)}, which {model.task} has.")
    if quantiles is not None:
        if chosen not in _WITH_QUANTILES:
            raise InvalidInputError(f"quantiles go with output_type quantiles, main or full, not {chosen!r}.")
        bad = [q for q in quantiles if isinstance(q, bool) or not 0.0 < q < 1.0]
        if not quantiles or bad or len(set(quantiles)) < len(quantiles):
            raise InvalidInputError(f"quantiles must be different numbers between 0 and 1, not {list(quantiles)}.")
    if model.redacted_fields:
        raise InvalidInputError("This record is redacted: its column names are hashes; predict with the original one.")
    return chosen


def quantile_column(quantile: float) -> str:
    """Name the column of a quantile."""
    return f"quantile_{float(quantile)!r}"


def probability_column(label: ClassLabel) -> str:
    """Name the column of a class's probability, as JSON spells the label (text without its quotes)."""
    return f"probability_{label if isinstance(label, str) else json.dumps(label)}"


def decode(
    answer: Mapping[str, Any],
    model: FittedModel,
    *,
    output_type: str,
    quantiles: Sequence[float] | None,
    rows: int,
) -> Prediction:
    """Turn an answer into columns and check its shape.

    Args:
        answer: The JSON object of the answer.
        model: The fitted model.
        output_type: What was asked for.
        quantiles: Quantiles asked for; None means the server's own.
        rows: Rows sent.

    Returns:
        One column for each output, `rows` long.

    Raises:
        ApiError: The answer does not fit what was asked; report it to the vendor.
    """
    body = answer["prediction"]
    metadata = dict(answer.get("metadata") or {})
    wanted = tuple(quantiles or DEFAULT_QUANTILES)
    try:
        if output_type == "probas":
            columns = _probabilities(body, _classes(metadata, model), rows)
        elif output_type == "preds":
            columns = {"prediction": _labels(body, rows)}
        elif output_type in _POINTS:
            columns = {"prediction": _numbers(body, rows)}
        elif output_type == "quantiles":
            columns = _quantiles(body, wanted, rows)
        else:
            columns = _distribution(body, wanted, rows, full=output_type == "full")
        borders = tuple(float(b) for b in body["borders"]) if output_type == "full" else None
    except (ValueError, TypeError, KeyError) as error:
        # Terminal, unlike other failures of the server: an engine's retry would be billed again.
        raise ApiError(
            f"The prediction is not of the shape of {output_type!r} for {rows:,} rows: {error}. It was billed; report "
            "it to the vendor."
        ) from None
    timings = {str(k): v for k, v in (answer.get("timings") or {}).items() if isinstance(v, int | float | None)}
    return Prediction(columns, metadata, timings, borders)


def _classes(metadata: Mapping[str, Any], model: FittedModel) -> tuple[ClassLabel, ...]:
    """Take the server's class order where it sends one, else the sorted labels of the train set (contract 5)."""
    sent = metadata.get("classes")
    if isinstance(sent, list) and sent:
        return tuple(sent)
    return model.classes or ()


def _probabilities(body: Any, classes: tuple[ClassLabel, ...], rows: int) -> dict[str, Any]:
    import numpy as np
    import pyarrow as pa

    values = np.asarray(body, dtype=np.float64)
    if values.shape != (rows, len(classes)):
        raise ValueError(f"got {values.shape} probabilities for {len(classes)} classes")
    best = values.argmax(axis=1)
    columns: dict[str, Any] = {"prediction": pa.array([classes[i] for i in best.tolist()])}
    for index, label in enumerate(classes):
        columns[probability_column(label)] = pa.array(np.ascontiguousarray(values[:, index]))
    return columns


def _labels(body: Any, rows: int) -> Any:
    import pyarrow as pa

    if not isinstance(body, list) or len(body) != rows:
        raise ValueError("got another number of labels")
    return pa.array(body)


def _numbers(body: Any, rows: int) -> Any:
    import numpy as np
    import pyarrow as pa

    values = np.asarray(body, dtype=np.float64)  # null becomes NaN (contract 5)
    if values.shape == (rows, 1):
        values = values[:, 0]
    if values.shape != (rows,):
        raise ValueError(f"got {values.shape} numbers")
    return pa.array(values)


def _quantiles(body: Any, wanted: tuple[float, ...], rows: int) -> dict[str, Any]:
    import numpy as np
    import pyarrow as pa

    values = np.asarray(body, dtype=np.float64)
    if values.ndim == 1 and len(wanted) == 1:
        values = values[None, :]  # with one quantile it may arrive flat (contract 5)
    if values.shape != (len(wanted), rows):
        raise ValueError(f"got {values.shape} values for {len(wanted)} quantiles")
    return {quantile_column(q): pa.array(values[index]) for index, q in enumerate(wanted)}


def _distribution(body: Any, wanted: tuple[float, ...], rows: int, *, full: bool) -> dict[str, Any]:
    columns: dict[str, Any] = {"prediction": _numbers(body["mean"], rows)}
    columns |= {name: _numbers(body[name], rows) for name in _POINTS}
    columns |= _quantiles(body["quantiles"], wanted, rows)
    if full:
        columns["logits"] = _logits(body["logits"], len(body["borders"]) - 1, rows)
    return columns


def _logits(body: Any, bars: int, rows: int) -> Any:
    import numpy as np
    import pyarrow as pa

    values = np.asarray(body, dtype=np.float64)
    if values.shape != (rows, bars):
        raise ValueError(f"got {values.shape} logits for {bars} bars")
    values[np.isnan(values)] = -np.inf  # null stands for -inf (contract 5)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), bars)


def write_parquet(prediction: Prediction, file: Any, *, fitted_train_set_id: str) -> None:
    """Write the columns as one Parquet file.

    Args:
        prediction: What to write.
        file: A binary file.
        fitted_train_set_id: The model, kept in the file's own metadata so that the file alone can be traced.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(dict(prediction.columns))
    metadata = {"tabpfn.fitted_train_set_id": fitted_train_set_id}
    if prediction.borders is not None:
        metadata["tabpfn.borders"] = json.dumps(prediction.borders)
    pq.write_table(table.replace_schema_metadata(metadata), file, compression="zstd")
