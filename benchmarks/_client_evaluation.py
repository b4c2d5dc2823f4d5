"""One `client.evaluate` in a process of its own, its prediction included; started by evaluate.py.

Usage: `_client_evaluation.py BASE_URL FOLDER`
"""

import sys

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
from tabpfn_assets import FitParameters
from tabpfn_operators import Client

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


def main(base_url: str, folder: str) -> None:
    """Fit, evaluate, and hand over the figures of the latter."""
    with Client(token="benchmark", base_url=base_url) as client:
        parameters = FitParameters(task="classification")
        model = client.fit(f"{folder}/train.parquet", TARGET, parameters=parameters)
        watch = Watch()
        found = client.evaluate(model, f"{folder}/holdout.parquet")
        answer(**watch.stop(), rows_evaluated=found.rows_evaluated)


main(*sys.argv[1:])
