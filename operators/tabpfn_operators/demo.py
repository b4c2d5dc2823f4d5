"""The demo's parts that no engine needs to know: real data, a workspace, a report."""

import json
import math
import os
import subprocess
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabpfn_assets import PredictionSet, Task
from tabpfn_operators.errors import TabPFNError
from tabpfn_operators.predict import LINEAGE_FILE

_LOG_TAIL_LINES = 30
_HELD_OUT_EVERY = 5
_TOKEN = "demo-token"  # noqa: S105 - the emulator takes any; it opens an account of its own


class DemoFailedError(TabPFNError):
    """The engine's example did not run to its end. Not terminal: read the log that is named."""

    terminal = False


@dataclass(frozen=True)
class DemoData:
    """A data set as Parquet, split into rows to train on and rows held out.

    Args:
        title: What it is.
        target: Target column.
        train: Train file.
        score: Held-out rows without the target.
        truth: Targets of the held-out rows.
        seen: Targets of the train rows.
    """

    title: str
    target: str
    train: Path
    score: Path
    truth: tuple[Any, ...]
    seen: tuple[Any, ...]


@dataclass(frozen=True)
class DemoWorkspace:
    """Everything an engine needs to run its example.

    Args:
        engine: The engine's name.
        task: What is predicted.
        folder: Where an embedded home may live.
        base_url: The emulator.
        token: A token for it.
        train_url: Parquet to fit on.
        score_url: Parquet to predict.
        target: Target column.
        destination: Folder for predictions and lineage.
        log_path: Where the engine's output goes.
        example: The engine's folder of examples.
    """

    engine: str
    task: Task
    folder: Path
    base_url: str
    token: str
    train_url: str
    score_url: str
    target: str
    destination: str
    log_path: Path
    example: Path

    def run(self, argv: Sequence[str], env: Mapping[str, str]) -> None:
        """Run a program to its end, its output going to the log.

        Args:
            argv: Program and arguments.
            env: Variables on top of the current environment.

        Raises:
            DemoFailedError: It exited with another code than 0; the message holds the end of the log.
        """
        with self.log_path.open("ab") as log:
            done = subprocess.run(
                list(argv), env={**os.environ, **env}, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False
            )
        if done.returncode != 0:
            tail = self.log_path.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
            raise DemoFailedError(
                f"{self.engine}: {Path(argv[0]).name} exited with {done.returncode}. The end of {self.log_path}:\n"
                + "\n".join(tail)
            )


@dataclass(frozen=True)
class DemoReport:
    """What came out.

    Args:
        record: The lineage record beside the predictions.
        metric: `accuracy` or `RMSE`.
        score: The metric on the held-out rows.
        baseline: The metric of always predicting the majority class or the mean.
        baseline_name: Which of them.
    """

    record: PredictionSet
    metric: str
    score: float
    baseline: float
    baseline_name: str

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON."""
        return {
            "metric": self.metric,
            "score": self.score,
            "baseline": self.baseline,
            "baseline_name": self.baseline_name,
            "record": self.record.model_dump(mode="json"),
        }


def write_data(folder: Path, task: Task) -> DemoData:
    """Write a data set that ships inside scikit-learn as Parquet; every fifth row is held out.

    Args:
        folder: Where to write; it is made.
        task: `classification` writes breast cancer, `regression` diabetes.

    Returns:
        Files and targets.

    Raises:
        ImportError: scikit-learn is not installed; it comes with the extra `emulator`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from sklearn.datasets import load_breast_cancer, load_diabetes

    folder.mkdir(parents=True)
    classification = task == "classification"
    bunch = load_breast_cancer() if classification else load_diabetes()
    target = "diagnosis" if classification else "progression"
    values = [str(bunch.target_names[i]) for i in bunch.target] if classification else bunch.target.tolist()
    columns = {str(name): bunch.data[:, i] for i, name in enumerate(bunch.feature_names)}
    table = pa.table({**columns, target: values})
    held_out = [i % _HELD_OUT_EVERY == 0 for i in range(table.num_rows)]
    train = table.filter(pa.array([not flag for flag in held_out]))
    held = table.filter(pa.array(held_out))
    pq.write_table(train, folder / "train.parquet")
    pq.write_table(held.drop_columns([target]), folder / "score.parquet")
    return DemoData(
        title="breast cancer" if classification else "diabetes",
        target=target,
        train=folder / "train.parquet",
        score=folder / "score.parquet",
        truth=tuple(held.column(target).to_pylist()),
        seen=tuple(train.column(target).to_pylist()),
    )


def workspace(engine: str, task: Task, *, folder: Path, base_url: str, data: DemoData) -> DemoWorkspace:
    """Lay out the folder of a demo.

    Args:
        engine: The engine's name.
        task: What is predicted.
        folder: Where everything goes.
        base_url: The emulator.
        data: The data set.

    Returns:
        What the engine's runner gets.

    Raises:
        DemoFailedError: The examples are not installed; install the wheel or run in a checkout.
    """
    return DemoWorkspace(
        engine=engine,
        task=task,
        folder=folder,
        base_url=base_url,
        token=_TOKEN,
        train_url=str(data.train),
        score_url=str(data.score),
        target=data.target,
        destination=str(folder / "predictions"),
        log_path=folder / f"{engine}.log",
        example=_example_folder(engine),
    )


def _example_folder(engine: str) -> Path:
    """Prefer the checkout's examples over the installed ones."""
    places = (
        Path(__file__).parents[2] / "example_dags" / engine,
        Path(sysconfig.get_path("data")) / "share" / "tabpfn-providers" / "example_dags" / engine,
    )
    for place in places:
        if place.is_dir():
            return place
    raise DemoFailedError(f"No examples for {engine} in {' or '.join(str(p) for p in places)}; reinstall the package.")


def read_report(space: DemoWorkspace, data: DemoData) -> DemoReport:
    """Read what the run left behind and judge it on the held-out rows.

    Args:
        space: The workspace of the run.
        data: The data set.

    Returns:
        The report.

    Raises:
        DemoFailedError: The run left no predictions; read the log that is named.
    """
    import pyarrow.parquet as pq

    lineage = Path(space.destination) / LINEAGE_FILE
    if not lineage.is_file():
        raise DemoFailedError(f"{space.engine} left no predictions; read {space.log_path}.")
    record = PredictionSet.model_validate(json.loads(lineage.read_text()))
    predicted = pq.read_table(record.uri, columns=["prediction"]).column("prediction").to_pylist()
    if space.task == "classification":
        majority = max(set(data.seen), key=data.seen.count)
        guess = [majority] * len(data.truth)
        score, baseline = _accuracy(predicted, data.truth), _accuracy(guess, data.truth)
        return DemoReport(record, "accuracy", score, baseline, "majority class")
    guess = [sum(data.seen) / len(data.seen)] * len(data.truth)
    return DemoReport(record, "RMSE", _rmse(predicted, data.truth), _rmse(guess, data.truth), "train rows' mean")


def _accuracy(predicted: Sequence[Any], truth: Sequence[Any]) -> float:
    return [p == t for p, t in zip(predicted, truth, strict=True)].count(True) / len(truth)


def _rmse(predicted: Sequence[float], truth: Sequence[float]) -> float:
    return math.sqrt(math.fsum((p - t) ** 2 for p, t in zip(predicted, truth, strict=True)) / len(truth))
