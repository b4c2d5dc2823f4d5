"""Evaluate predictions that are made already: nothing is sent, nothing billed."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from tabpfn_assets import ClassLabel, Evaluation, FittedModel, PredictionSet
from tabpfn_operators.errors import InvalidInputError
from tabpfn_operators.evaluation._extra import sklearn_metrics
from tabpfn_operators.evaluation._holdout import (
    MAX_ROWS,
    Limits,
    check_holdout,
    check_models,
    holdout_ref,
    read_target,
)
from tabpfn_operators.evaluation._metrics_table import check_headline
from tabpfn_operators.predictions import Prediction
from tabpfn_operators.reading import Casts, Filters, Reading, Table
from tabpfn_operators.sources import Source
from tabpfn_operators.storage import StorageOptions

if TYPE_CHECKING:
    from tabpfn_operators.evaluation._scores import Scores
    from tabpfn_operators.evaluation._truth import Truth

#: What `predict` wrote or returned, a table of its columns, or a NumPy array.
Predicted: TypeAlias = PredictionSet | Prediction | Source | Table


def evaluate_scores(
    model: FittedModel,
    holdout: Source | Table,
    scores: Predicted,
    target: str | None = None,
    *,
    champion: FittedModel | None = None,
    champion_scores: Predicted | None = None,
    storage_options: StorageOptions | None = None,
    filters: Filters | None = None,
    casts: Casts | None = None,
    scores_options: StorageOptions | None = None,
    headline: str | None = None,
    max_rows: int = MAX_ROWS,
    seed: int = 0,
    resamples: int = 1000,
) -> Evaluation:
    """Evaluate predictions that are made already, in bounded memory.

    All rows are evaluated up to `max_rows`, and for classification up to 128 MiB of scores (rows x classes x 8 bytes);
    above it a seeded sample, which the record names. Of stored scores only the rows of the sample stay in memory.

    Args:
        model: The model that predicted.
        holdout: The rows that were predicted, in the same order, with their target; or the target alone as a
            one-dimensional array.
        scores: What `Client.predict` returned, or the URL of what it wrote (a folder or file); what
            `predict_test_set` returned; a table with such columns; or a NumPy array: of shape (rows, classes) in the
            order of `model.classes`, or for regression (rows,).
        target: Target column; None takes the model's.
        champion: A model to compare with.
        champion_scores: Its predictions of the same rows.
        storage_options: fsspec options of the holdout; used, never recorded.
        filters: Rows of the holdout to keep; the same as were predicted.
        casts: As in `Client.upload_train_set`.
        scores_options: fsspec options of the scores; used, never recorded.
        headline: The metric that decides; None takes `log_loss` or `rmse`.
        max_rows: Most rows that are evaluated, at least 1.
        seed: Seed of sample and bootstrap, 0 or more.
        resamples: Resamples of the bootstrap, at least 1.

    Returns:
        The record.

    Raises:
        InvalidInputError: Holdout and scores do not fit each other or the model; the message names columns and rows.
        ConfigurationError: scikit-learn is not installed; the message names the `pip install`.
        StorageError: The storage did not answer; run again.
    """
    from tabpfn_operators.evaluation._judged import Facts, judged

    sklearn_metrics()
    limits = Limits(max_rows, seed, resamples)
    chosen = check_headline(model.task, headline)
    if (champion is None) != (champion_scores is None):
        raise InvalidInputError("champion and champion_scores go together; give both, or neither.")
    check_models(model, champion)
    column = target or model.target
    table = Reading(_as_table(holdout, column), storage_options, filters, casts).open(keep=True)
    check_holdout(table, model, champion, column, features=False)
    truth = read_target(table, model, column, limits)
    other = None
    if champion is not None:
        other = _scores_of(champion_scores, champion, truth, scores_options, "the champion's scores")
    return judged(
        model,
        truth,
        _scores_of(scores, model, truth, scores_options, "scores"),
        Facts(
            target=column,
            headline=chosen,
            rows_scored=truth.rows,
            holdout=holdout_ref(table, model, column, truth.rows, features=False),
            latency=latency_of(scores) if isinstance(scores, PredictionSet | Prediction) else None,
            charged=scores.charged if isinstance(scores, PredictionSet) else None,
        ),
        limits,
        champion=champion,
        champion_scores=other,
    )


def latency_of(predicted: PredictionSet | Prediction) -> float | None:
    """Return the seconds the server worked, without those it was busy with others (contract 1.8); None if unsaid."""
    timings = predicted.timings
    predict, transform = timings.get("predict_s"), timings.get("test_set_transform_s")
    return None if predict is None else predict + (transform or 0.0)


def stored_scores(
    reading: Reading, model: FittedModel, classes: tuple[ClassLabel, ...] | None, *, rows: int, positions: Any
) -> "Scores":
    """Read predictions that `predict` wrote.

    Args:
        reading: The file, or its folder.
        model: The model that predicted.
        classes: Its classes as the server told them.
        rows: Rows that were predicted.
        positions: Which of them are wanted; None for all.
    """
    from tabpfn_operators.evaluation._scores import read_scores

    return read_scores(reading.open(), model, classes, rows=rows, positions=positions)


def classes_told(metadata: Mapping[str, Any]) -> tuple[ClassLabel, ...] | None:
    """Return the classes that the server named with a prediction, in their order; None where it did not."""
    told = metadata.get("classes")
    return tuple(told) if isinstance(told, list | tuple) and told else None


def _scores_of(scores: Any, model: FittedModel, truth: "Truth", options: StorageOptions | None, shown: str) -> "Scores":
    import numpy as np

    from tabpfn_operators.evaluation import _scores as forms

    if isinstance(scores, np.ndarray):
        whole = _of_array(scores, model, shown)
    elif isinstance(scores, Prediction):
        whole = forms.scores_of_columns(scores.columns, model, classes_told(scores.metadata), shown)
    else:
        record = scores if isinstance(scores, PredictionSet) else None
        if record is not None and record.model.fitted_train_set_id != model.fitted_train_set_id:
            raise InvalidInputError(
                f"{shown} were made with {record.model.fitted_train_set_id}, not with {model.fitted_train_set_id}; "
                "name the model that predicted."
            )
        reading = Reading(scores if record is None else record.uri, options)
        classes = None if record is None else classes_told(record.metadata)
        return stored_scores(reading, model, classes, rows=truth.rows, positions=truth.positions)
    forms.check_rows(whole.rows, truth.rows, shown)
    return whole if truth.positions is None else whole.take(truth.positions)


def _of_array(array: Any, model: FittedModel, shown: str) -> "Scores":
    import numpy as np

    from tabpfn_operators.evaluation import _scores as forms

    if model.task == "regression":
        if array.ndim != 1:
            raise InvalidInputError(f"{shown} is an array of shape {array.shape}; regression needs (rows,).")
        return forms.Numbers(array.astype(np.float64, copy=False))
    classes = model.classes or ()
    if array.ndim != 2 or array.shape[1] != len(classes):
        raise InvalidInputError(
            f"{shown} is an array of shape {array.shape}; this model's probabilities are of (rows, {len(classes)})."
        )
    return forms.Probabilities(classes, list(array.astype(np.float64, copy=False).T))


def _as_table(holdout: Any, target: str) -> Any:
    """Make a table of a one-dimensional array (NumPy, pandas, Arrow); anything else is a source already."""
    kind = f"{type(holdout).__module__.partition('.')[0]}.{type(holdout).__name__}"
    if kind in {"numpy.ndarray", "pandas.Series", "pyarrow.ChunkedArray"} or hasattr(holdout, "dictionary_encode"):
        import pyarrow as pa

        return pa.table({target: holdout if kind.startswith("pyarrow") else pa.array(holdout, from_pandas=True)})
    return holdout
