"""Evaluations: how much memory they take above what the imports took, of stored scores and with their prediction.

Run on Linux, where scikit-learn is installed::

    python benchmarks/evaluate.py --check

Needs 0.6 GB of disk. Prints one row for each goal.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from _tables import TARGET, check_space

from tabpfn_emulator.testing import running_emulator
from tabpfn_operators.predictions import probability_column, quantile_column

MIB = 1 << 20
GOAL_MIB = 400
_CHILD = Path(__file__).with_name("_evaluation.py")
_CLIENT = Path(__file__).with_name("_client_evaluation.py")
_SIZES = {False: (200_000, 160), True: (20_000, 160)}
"""Rows and classes: usual, and with --small."""
_GROUP_ROWS = 1 << 20


@dataclass(frozen=True)
class Case:
    """One evaluation.

    Args:
        what: What the table calls it.
        task: What the model predicts.
        champion: Whether a second model's scores are compared with.
    """

    what: str
    task: str
    champion: bool


CASES = (
    Case("scores", "classification", champion=False),
    Case("scores, and as many of a champion", "classification", champion=True),
    Case("means and nine quantiles", "regression", champion=False),
)


def write_holdout(path: Path, task: str, *, rows: int, classes: int) -> None:
    """Write a target column: labels `c0`, `c1`..., or numbers."""
    random = np.random.default_rng(20261121)
    numbers = random.integers(0, classes, rows)
    values = [f"c{number}" for number in numbers.tolist()] if task == "classification" else random.normal(size=rows)
    pq.write_table(pa.table({TARGET: pa.array(values)}), path)


def write_scores(path: Path, task: str, *, rows: int, classes: int) -> None:
    """Write predictions as `predict` names their columns, of noise, in bounded memory."""
    random = np.random.default_rng(20261122)
    if task == "classification":
        names = ["prediction", *(probability_column(f"c{number}") for number in range(classes))]
    else:
        names = ["prediction", *(quantile_column(tenth / 10) for tenth in range(1, 10))]
    kinds = [pa.string() if task == "classification" and name == "prediction" else pa.float64() for name in names]
    schema = pa.schema(list(zip(names, kinds, strict=True)))
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=False) as writer:
        for first in range(0, rows, _GROUP_ROWS):
            count = min(_GROUP_ROWS, rows - first)
            noise = random.random((len(names) - (task == "classification"), count))
            if task == "classification":
                noise /= noise.sum(axis=0)
            columns = [pa.array(column) for column in (noise if task == "classification" else np.sort(noise, axis=0))]
            if task == "classification":
                columns.insert(0, pa.array(["c0"] * count))
            writer.write_table(pa.table(columns, schema=schema))


def write_tables(folder: Path, *, rows: int, classes: int) -> None:
    """Write a train set of ten rows for each class, and a holdout; a feature of noise and the label in each."""
    random = np.random.default_rng(20261123)
    for name, count in (("train", 10 * classes), ("holdout", rows)):
        labels = np.resize(np.arange(classes), count)
        columns = {"x": random.random(count), TARGET: [f"c{label}" for label in labels.tolist()]}
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")


def _measured(child: Path, *arguments: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, str(child), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _rows(what: str, size: str, figures: dict[str, float]) -> Iterator[tuple[str, str, str, bool | None]]:
    grown = figures["grown"] / MIB
    yield f"{what}, {size}", f"<= {GOAL_MIB} MiB", f"{grown:.0f} MiB", grown <= GOAL_MIB
    evaluated = f"{figures['rows_evaluated']:,} rows evaluated in {figures['seconds']:.1f} s"
    yield f"{what}, {size}", "-", evaluated, None


def rows_of_table(folder: Path, *, small: bool) -> Iterator[tuple[str, str, str, bool | None]]:
    """Measure each case in a process of its own; yield what, goal, figure and whether it was met."""
    rows, classes = _SIZES[small]
    for task in ("classification", "regression"):
        write_holdout(folder / f"{task}-holdout.parquet", task, rows=rows, classes=classes)
        write_scores(folder / f"{task}-scores.parquet", task, rows=rows, classes=classes)
    for case in CASES:
        arguments = [case.task, str(classes), str(folder), "champion" if case.champion else "alone"]
        size = f"{rows:,} x {classes}" if case.task == "classification" else f"{rows:,} rows"
        yield from _rows(case.what, size, _measured(_CHILD, *arguments))
    write_tables(folder, rows=rows, classes=classes)
    with running_emulator(extra_args=("--predict", "constant")) as base_url:
        figures = _measured(_CLIENT, base_url, str(folder))
    yield from _rows("client.evaluate, prediction and all", f"{rows:,} x {classes}", figures)


def main() -> int:
    """Print goals and figures; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a tenth of the rows")
    parser.add_argument("--folder", type=Path, help="where to make the temporary folder (default: the system's)")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a goal is missed")
    options = parser.parse_args()
    missed = []
    with tempfile.TemporaryDirectory(prefix="tabpfn-benchmark-", dir=options.folder) as folder:
        check_space(Path(folder), 60e6 if options.small else 600e6)
        print("| what | goal | figure | |\n|---|---|---|---|", flush=True)
        for what, goal, figure, met in rows_of_table(Path(folder), small=options.small):
            verdict = {True: "met", False: "MISSED", None: ""}[met]
            print(f"| {what} | {goal} | {figure} | {verdict} |", flush=True)
            if met is False:
                missed.append(what)
    print(f"\n{'Missed: ' + '; '.join(missed) if missed else 'No goal missed.'}")
    return int(bool(options.check and missed))


if __name__ == "__main__":
    sys.exit(main())
