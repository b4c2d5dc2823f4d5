"""An answer to a prediction, from JSON in pieces to a Parquet file, in a process of its own; started by score.py.

Usage: `_answers.py write FILE ROWS CLASSES`, `_answers.py stream|whole FILE ROWS CLASSES`
"""

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import simdjson
from _memory import Watch, answer
from _tables import TARGET

from tabpfn_assets import FitParameters, FittedModel, SourceRef
from tabpfn_operators.predictions import AnswerIntake, probability_column, write_parquet

#: Imported before the watch starts.
IMPORTED = (pyarrow.compute, simdjson)
#: What httpx hands over at once.
_PIECE_BYTES = 64 << 10
_WRITTEN_AT_ONCE = 2_000


def labels(classes: int) -> list[str]:
    """Return class labels."""
    return [f"c{number}" for number in range(classes)]


def write(path: str, rows: int, classes: int) -> None:
    """Write an answer of noise, in bounded memory."""
    random = np.random.default_rng(20261125)
    with Path(path).open("wb") as file:
        file.write(b'{"prediction": [')
        for first in range(0, rows, _WRITTEN_AT_ONCE):
            noise = random.random((min(_WRITTEN_AT_ONCE, rows - first), classes))
            noise /= noise.sum(axis=1, keepdims=True)
            text = json.dumps(noise.tolist())[1:-1]
            file.write((", " if first else "").encode() + text.encode())
        rest = {"metadata": {"classes": labels(classes), "test_set_num_rows": rows}, "timings": {"predict_s": 1.0}}
        file.write(b"], " + json.dumps(rest)[1:].encode())
    answer(size=Path(path).stat().st_size)


def pieces(path: str) -> Iterator[bytes]:
    """Yield the bytes of a file as the wire does those of an answer."""
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


def fitted(classes: int) -> FittedModel:
    """Build the record of a model."""
    return FittedModel(
        fitted_train_set_id="model",
        train_set_upload_id="upload",
        status="completed",
        target=TARGET,
        features=(),
        classes=tuple(labels(classes)),
        rows=2,
        source=SourceRef(uris=(), rows=2),
        parameters=FitParameters(task="classification"),
        created_at=datetime(2026, 11, 21, tzinfo=UTC),
    )


def stream(path: str, rows: int, classes: int) -> None:
    """Do it as a prediction does."""
    with AnswerIntake("probas") as intake:
        for piece in pieces(path):
            intake.reader.feed(piece)
        left = json.loads(intake.reader.end())
        stored = intake.decoded(left, fitted(classes), quantiles=None, rows=rows)
        with Path(path + ".parquet").open("wb") as file:
            write_parquet(stored.columns, file, fitted_train_set_id="model")


def whole(path: str, rows: int, classes: int) -> None:
    """Do it in memory: the body, then Python's lists, then an array, then the same file."""
    body = b"".join(pieces(path))
    loaded = orjson.loads(body)
    names = np.array(loaded["metadata"]["classes"])
    numbers = np.array(loaded["prediction"])
    if numbers.shape != (rows, classes):
        raise SystemExit(f"{numbers.shape} is not {(rows, classes)}")
    columns = {"prediction": pa.array(names[numbers.argmax(axis=1)])}
    columns |= {probability_column(name): pa.array(numbers[:, place]) for place, name in enumerate(names.tolist())}
    pq.write_table(pa.table(columns), path + ".parquet", compression="zstd", use_dictionary=["prediction"])


def main(way: str, path: str, rows: str, classes: str) -> None:
    """Do one of the three, and hand over the figures."""
    if way == "write":
        write(path, int(rows), int(classes))
        return
    if way == "whole":
        import pandas as pd  # `pa.array` of an ndarray does, and every process pays for that once

        del pd
    watch = Watch()
    (stream if way == "stream" else whole)(path, int(rows), int(classes))
    figures = watch.stop()
    made = pq.read_metadata(path + ".parquet")
    answer(**figures, rows=made.num_rows, columns=made.num_columns)


main(*sys.argv[1:])
