"""One evaluation in a process of its own, with its time and memory; started by evaluate.py.

Usage: `_evaluation.py classification|regression CLASSES FOLDER alone|champion`
"""

import sys
from datetime import UTC, datetime

import fsspec.implementations.local
import numpy as np
import pandas as pd
import pyarrow.compute
import pyarrow.parquet
import sklearn.metrics
from _memory import Watch, answer
from _tables import TARGET

import tabpfn_operators.evaluation._judged
import tabpfn_operators.evaluation._scores
import tabpfn_operators.evaluation._truth
import tabpfn_operators.splice
import tabpfn_operators.tables
from tabpfn_assets import FitParameters, FittedModel, SourceRef
from tabpfn_operators.evaluation import evaluate_scores

#: Imported before the watch starts, because every process that evaluates pays for them once.
IMPORTED = (
    fsspec.implementations.local,
    np,
    pd,
    pyarrow.compute,
    pyarrow.parquet,
    sklearn.metrics,
    tabpfn_operators.evaluation._judged,  # noqa: SLF001 - loaded at the first call
    tabpfn_operators.evaluation._scores,  # noqa: SLF001
    tabpfn_operators.evaluation._truth,  # noqa: SLF001
    tabpfn_operators.splice,
    tabpfn_operators.tables,
)


def fitted(task: str, classes: int, name: str) -> FittedModel:
    """Build the record of a model."""
    return FittedModel(
        fitted_train_set_id=name,
        train_set_upload_id="upload",
        status="completed",
        target=TARGET,
        features=(),
        classes=tuple(f"c{number}" for number in range(classes)) if task == "classification" else None,
        rows=2,
        source=SourceRef(uris=(), rows=2),
        parameters=FitParameters.model_validate({"task": task}),
        created_at=datetime(2026, 11, 21, tzinfo=UTC),
    )


def main(task: str, classes: str, folder: str, champion: str) -> None:
    """Evaluate, and hand over the figures."""
    scores = f"{folder}/{task}-scores.parquet"
    rival = {"champion": fitted(task, int(classes), "champion"), "champion_scores": scores}
    watch = Watch()
    found = evaluate_scores(
        fitted(task, int(classes), "candidate"),
        f"{folder}/{task}-holdout.parquet",
        scores,
        **(rival if champion == "champion" else {}),
    )
    answer(**watch.stop(), rows_evaluated=found.rows_evaluated)


main(*sys.argv[1:])
