"""Evaluations of predictions that are made already: every form of them, samples, and what cannot be used."""

import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabpfn_assets import Evaluation, PredictionSet
from tabpfn_operators.errors import ConfigurationError, InvalidInputError
from tabpfn_operators.evaluation import _scores, evaluate_scores
from tabpfn_operators.evaluation._truth import read_truth
from tabpfn_operators.predictions import Prediction

LABELS = ("no", "yes")
ROWS = 240


def truth_and_scores(rows=ROWS, classes=LABELS, seed=0):
    random = np.random.default_rng(seed)
    codes = random.integers(0, len(classes), rows)
    matrix = random.dirichlet(np.ones(len(classes)), rows)
    matrix[np.arange(rows), codes] += 0.5
    return [classes[code] for code in codes], matrix / matrix.sum(axis=1, keepdims=True)


def columns_of(matrix, classes=LABELS):
    return {
        "prediction": [classes[index] for index in matrix.argmax(axis=1)],
        **{f"probability_{label}": matrix[:, index] for index, label in enumerate(classes)},
    }


def plain(evaluation):
    """What must be equal, however holdout and scores came."""
    return evaluation.model_dump(exclude={"created_at", "holdout", "latency"})


@pytest.fixture
def regressor(build_model):
    return build_model(parameters={"task": "regression"}, classes=None)


def prediction_set(model, uri, **fields):
    record = {
        "uri": uri,
        "lineage_uri": f"{uri}.json",
        "rows": ROWS,
        "columns": [],
        "output_type": "probas",
        "source": {"uris": ["holdout.parquet"], "rows": ROWS},
        "test_set_upload_id": "test-1",
        "model": model,
        "created_at": "2026-11-21T00:00:00Z",
    }
    return PredictionSet.model_validate({**record, **fields})


def test_scores_come_in_every_form(build_model, write, tmp_path):
    model = build_model()
    labels, matrix = truth_and_scores()
    holdout = write({"a": np.zeros(ROWS), "y": labels}, "holdout.parquet")
    columns = columns_of(matrix)
    folder = tmp_path / "scores"
    folder.mkdir()
    file = write(columns, "scores/predictions.parquet")
    arrays = {name: pa.array(values) for name, values in columns.items()}
    forms = [
        matrix,
        file,
        str(folder),
        pa.table(columns),
        pd.DataFrame(columns),
        Prediction(arrays, {"classes": ["no", "yes"]}, {}),
        prediction_set(model, file),
    ]
    found = [evaluate_scores(model, holdout, scores) for scores in forms]
    assert [plain(one) for one in found] == [plain(found[0])] * len(forms)
    assert (found[0].rows, found[0].rows_scored, found[0].rows_evaluated) == (ROWS, ROWS, ROWS)
    assert found[0].holdout.uris == (holdout,)
    assert found[0].metrics["accuracy"] > found[0].baseline["accuracy"]
    assert Evaluation.model_validate_json(found[0].model_dump_json()) == found[0]


@pytest.mark.parametrize("as_array", [np.array, pd.Series, pa.array, lambda values: pa.chunked_array([values])])
def test_the_target_may_come_alone(build_model, write, as_array):
    labels, matrix = truth_and_scores()
    whole = evaluate_scores(build_model(), write({"y": labels}), matrix)
    assert plain(evaluate_scores(build_model(), as_array(labels), matrix)) == plain(whole)


def test_what_the_record_of_a_prediction_knows_is_taken_over(build_model, write):
    labels, matrix = truth_and_scores()
    record = prediction_set(
        build_model(),
        write(columns_of(matrix)),
        timings={"predict_s": 2.0, "test_set_transform_s": 0.5, "predict_queue_wait_s": 100.0},
        charged=77,
    )
    found = evaluate_scores(build_model(), np.array(labels), record)
    assert (found.latency, found.charged) == (2.5, 77)


def test_regression_in_every_form(regressor, write):
    random = np.random.default_rng(2)
    truth = random.normal(size=ROWS)
    points = truth + random.normal(size=ROWS) / 4
    alone = evaluate_scores(regressor, truth, points)
    assert alone.metrics["rmse"] == pytest.approx(np.sqrt(((truth - points) ** 2).mean()))
    assert alone.interval.low < alone.metrics["rmse"] < alone.interval.high
    assert list(alone.metrics) == ["rmse", "mae", "r2"]
    quantiles = {f"quantile_{q}": points + q - 0.5 for q in (0.1, 0.5, 0.9)}
    main = evaluate_scores(regressor, truth, pa.table({"prediction": points, "mean": points, **quantiles}))
    assert list(main.metrics) == ["rmse", "mae", "r2", "pinball", "coverage_80"]
    assert plain(evaluate_scores(regressor, truth, pa.table(quantiles)))["metrics"] == main.metrics
    assert main.baseline["coverage_80"] == pytest.approx(0.8, abs=0.01)
    assert (main.classes, main.confusion) == (None, None)


def test_decimals_and_whole_numbers_are_numbers(regressor):
    values = [1, 2, 3, None]
    points = np.array([1.0, 2.0, 4.0, 9.0])
    found = [
        evaluate_scores(regressor, pa.array(values).cast(kind), points)
        for kind in (pa.int64(), pa.uint8(), pa.float32(), pa.decimal128(21, 2))
    ]
    assert [one.metrics["mae"] for one in found] == pytest.approx([1 / 3] * 4)
    assert found[0].notes[0] == "Left out: 1 row without a target."


def test_a_target_that_is_not_finite_is_none(regressor):
    found = evaluate_scores(regressor, np.array([1.0, np.inf, np.nan, 3.0, -np.inf]), np.array([1.0, 0, 0, 5.0, 0]))
    assert (found.rows, found.rows_evaluated, found.metrics["mae"]) == (5, 2, 1.0)


@pytest.mark.parametrize(
    "truth",
    [
        pa.array(["no", "yes", None] * 80).dictionary_encode(),
        pa.array(["no", "yes", None] * 80, pa.large_string()),
        pa.array(["no", "yes", None] * 80).cast(pa.string_view()),
    ],
)
def test_text_comes_in_every_arrow_type(build_model, truth):
    _, matrix = truth_and_scores()
    found = evaluate_scores(build_model(), truth, matrix)
    assert (found.rows, found.rows_evaluated) == (240, 160)
    assert found.metrics["accuracy"] == (matrix.argmax(axis=1) == np.arange(240) % 3)[np.arange(240) % 3 < 2].mean()


@pytest.mark.parametrize(
    ("classes", "labels"),
    [([0, 1], ["0", "1"]), (["0", "1"], [0, 1]), ([0, 1], [False, True]), ([False, True], [0.0, 1.0])],
)
def test_labels_of_another_type_find_their_class(build_model, classes, labels):
    codes, matrix = truth_and_scores(classes=(0, 1))
    truth = pa.array([labels[code] for code in codes])
    found = evaluate_scores(build_model(classes=classes), truth, matrix)
    assert found.metrics["accuracy"] == (matrix.argmax(axis=1) == codes).mean()
    assert found.classes == tuple(classes)
    assert found.notes == ()


def test_unseen_labels_are_counted_and_wrong(build_model):
    labels, matrix = truth_and_scores()
    labels[:3] = ["<script>alert(1)</script>", "maybe", "maybe"]
    found = evaluate_scores(build_model(), np.array(labels), matrix)
    assert found.notes[0].startswith(
        "Counted as wrong: 3 rows with a label that the model has never seen ('<script>alert(1)</script>', 'maybe'); "
    )
    assert sum(map(sum, found.confusion)) == ROWS - 3
    assert found.metrics["log_loss"] > 36 * 3 / ROWS


def test_a_class_called_script_stays_what_it_is(build_model):
    classes = ("<script>", "b")
    labels, matrix = truth_and_scores(classes=classes)
    found = evaluate_scores(build_model(classes=classes), np.array(labels), pa.table(columns_of(matrix, classes)))
    assert found.classes == classes
    assert "<script>" not in found.redacted().model_dump_json()


# Samples


def test_above_max_rows_a_seeded_sample_is_evaluated(build_model, write):
    labels, matrix = truth_and_scores()
    labels[7] = None
    holdout, scores = write({"y": labels}, "holdout.parquet"), write(columns_of(matrix), "scores.parquet")
    found = evaluate_scores(build_model(), holdout, scores, max_rows=50, seed=3)
    again = evaluate_scores(build_model(), pa.array(labels), matrix, max_rows=50, seed=3)
    other = evaluate_scores(build_model(), holdout, scores, max_rows=50, seed=4)
    assert plain(found) == plain(again)
    assert found.metrics != other.metrics
    assert (found.rows, found.rows_scored, found.rows_evaluated, found.seed) == (ROWS, ROWS, 50, 3)
    assert found.notes == (
        "Left out: 1 row without a target.",
        "A sample of 50 of 239 rows was evaluated, drawn with seed 3.",
    )


def test_scores_beyond_the_bound_are_sampled(build_model, monkeypatch):
    monkeypatch.setattr(_scores, "SAMPLE_BYTES", 100 * 2 * 8)
    labels, matrix = truth_and_scores()
    found = evaluate_scores(build_model(), np.array(labels), matrix)
    assert found.rows_evaluated == 100
    unknown = evaluate_scores(build_model(classes=None), np.array(labels), pa.table(columns_of(matrix)))
    assert plain(unknown) == plain(found)


@given(
    st.integers(1, 300),
    st.integers(1, 60),
    st.integers(0, 2**32),
    st.lists(st.integers(1, 100), min_size=1, max_size=5),
)
def test_a_sample_does_not_depend_on_the_batches(rows, most, seed, sizes):
    values = np.arange(rows, dtype=float)
    values[::7] = np.nan
    whole = read_truth([pa.array(values)], "y", "regression", most=most, cells=None, seed=seed) if rows > 1 else None
    cut, first = [], 0
    while first < rows:
        size = sizes[len(cut) % len(sizes)]
        cut.append(pa.array(values[first : first + size]))
        first += size
    if whole is None:
        with pytest.raises(InvalidInputError, match="missing in every row"):
            read_truth(cut, "y", "regression", most=most, cells=None, seed=seed)
        return
    parts = read_truth(cut, "y", "regression", most=most, cells=None, seed=seed)
    assert parts.values.tolist() == whole.values.tolist()
    assert parts.positions.tolist() == parts.values.tolist() == sorted(parts.values)
    assert len(parts.values) == min(most, rows - whole.missing)


def test_every_row_is_as_likely():
    drawn = np.zeros(50)
    for seed in range(400):
        truth = read_truth([pa.array(np.arange(50.0))], "y", "regression", most=10, cells=None, seed=seed)
        drawn[truth.positions] += 1
    assert drawn.sum() == 4000
    assert abs(drawn - 80).max() < 5 * np.sqrt(80 * 0.8)


# A champion


def test_improvement_is_antisymmetric_and_better_is_positive(build_model, regressor):
    labels, good = truth_and_scores()
    bad = (good + 0.5) / 2
    one, two = build_model(), build_model(fitted_train_set_id="fitted-2")
    for headline, sign in (("log_loss", 1), ("brier", 1), ("accuracy", 0), ("roc_auc_ovr", 0), ("f1_macro", 0)):
        found = evaluate_scores(
            one, np.array(labels), good, champion=two, champion_scores=bad, headline=headline, resamples=100
        )
        turned = evaluate_scores(
            two, np.array(labels), bad, champion=one, champion_scores=good, headline=headline, resamples=100
        )
        mine, theirs = found.comparison, turned.comparison
        assert np.sign(mine.improvement) == sign
        assert mine.improvement == pytest.approx(-theirs.improvement)
        assert (mine.interval.low, mine.interval.high) == pytest.approx((-theirs.interval.high, -theirs.interval.low))
        assert (mine.fitted_train_set_id, mine.metrics) == ("fitted-2", turned.metrics)
    truth = np.arange(100.0)
    found = evaluate_scores(regressor, truth, truth + 1, champion=regressor, champion_scores=truth + 3)
    assert found.comparison.improvement == pytest.approx(2)
    assert (found.comparison.interval.low, found.comparison.interval.high) == pytest.approx((2, 2))


def test_the_paired_interval_is_narrower_than_that_of_the_metric(build_model):
    labels, good = truth_and_scores(2000)
    found = evaluate_scores(
        build_model(), np.array(labels), good, champion=build_model(), champion_scores=0.98 * good + 0.01
    )
    own, paired = found.interval, found.comparison.interval
    assert paired.high - paired.low < (own.high - own.low) / 10


def test_a_champion_may_have_its_classes_in_another_order_and_type(build_model):
    codes, matrix = truth_and_scores(classes=(0, 1))
    found = evaluate_scores(
        build_model(classes=[0, 1]),
        np.array(codes),
        matrix,
        champion=build_model(classes=["1", "0"]),
        champion_scores=matrix[:, ::-1].copy(),
    )
    assert found.comparison.improvement == 0
    assert found.comparison.metrics == found.metrics


def test_rows_that_one_of_them_could_not_predict_are_left_out_for_both(build_model):
    labels, matrix = truth_and_scores()
    broken = matrix.copy()
    broken[5] = np.nan
    found = evaluate_scores(
        build_model(), np.array(labels), matrix, champion=build_model(), champion_scores=broken, resamples=10
    )
    assert found.rows_evaluated == ROWS - 1
    assert found.comparison.improvement == 0
    assert found.notes == ("Left out: 1 row whose prediction is not a finite number.",)


# What cannot be used


def refusal(*args, **options):
    with pytest.raises(InvalidInputError) as caught:
        evaluate_scores(*args, **options)
    assert type(pickle.loads(pickle.dumps(caught.value))) is type(caught.value)
    return str(caught.value)


def test_other_classes_cannot_be_compared(build_model):
    labels, matrix = truth_and_scores()
    text = refusal(
        build_model(),
        np.array(labels),
        matrix,
        champion=build_model(classes=["maybe", "no"]),
        champion_scores=matrix,
    )
    assert "only the candidate has 'yes'; only the champion has 'maybe'" in text
    text = refusal(build_model(), np.array(labels), matrix, champion=build_model(target="z"), champion_scores=matrix)
    assert "compare models of one target" in text
    assert "go together" in refusal(build_model(), np.array(labels), matrix, champion=build_model())


def test_a_holdout_without_the_target_names_its_columns(build_model):
    labels, matrix = truth_and_scores()
    text = refusal(build_model(), pa.table({"a": labels}), matrix)
    assert text.startswith("Table: target 'y' is not among the columns ('a')")
    assert "Table: target 'z'" in refusal(build_model(), pa.table({"a": labels}), matrix, "z")


def test_a_target_of_another_kind_is_named(build_model, regressor):
    labels, matrix = truth_and_scores()
    assert "regression needs a number" in refusal(regressor, pa.table({"y": labels}), matrix[:, 0])
    assert "column 'y' is nested" in refusal(build_model(), pa.table({"y": [[1]] * ROWS}), matrix)


def test_a_target_that_is_always_missing_or_never_a_class(build_model):
    _, matrix = truth_and_scores()
    assert "missing in every row" in refusal(build_model(), pa.table({"y": pa.nulls(ROWS, pa.string())}), matrix)
    text = refusal(build_model(), np.array(["No", "Yes"] * 120), matrix)
    assert "holds 'No', 'Yes' and the model's classes are 'no', 'yes'" in text
    ids = np.array([f"id-{number}" for number in range(10_001)])
    assert "more than 10,000 labels" in refusal(build_model(), ids, np.zeros((10_001, 2)))


def test_scores_of_other_rows_columns_or_models(build_model, regressor, write):
    labels, matrix = truth_and_scores()
    holdout = np.array(labels)
    assert "239 predictions and the holdout 240 rows" in refusal(build_model(), holdout, matrix[1:])
    file = write(columns_of(matrix[1:]))
    text = refusal(build_model(), holdout, file)
    assert text == f"{file} has 239 predictions and the holdout 240 rows; predict this holdout, in its order."
    assert "of (rows, 2)" in refusal(build_model(), holdout, matrix[:, :1])
    assert "regression needs (rows,)" in refusal(regressor, np.zeros(ROWS), matrix)
    text = refusal(build_model(), holdout, pa.table(columns_of(matrix, ("no", "x"))))
    assert "missing: 'probability_yes'; of no class of the model: 'probability_x'" in text
    text = refusal(build_model(), holdout, pa.table({"prediction": labels}))
    assert "output_type='probas'" in text
    assert "output_type='main'" in refusal(regressor, np.zeros(ROWS), pa.table({"quantile_0.1": np.zeros(ROWS)}))
    other = prediction_set(build_model(fitted_train_set_id="fitted-9"), file)
    assert "made with fitted-9, not with fitted-1" in refusal(build_model(), holdout, other)
    text = refusal(build_model(), holdout, 5 * matrix - 1)
    assert text.startswith("The scores of class 'no' reach from -")
    assert text.endswith("give probabilities, 0 to 1.")
    assert "No prediction is a finite number" in refusal(build_model(), holdout, matrix * np.nan)


def test_the_scores_of_a_redacted_record_are_refused(build_model):
    labels, matrix = truth_and_scores()
    assert "redacted" in refusal(build_model().redacted(), np.array(labels), matrix, "y")


@pytest.mark.parametrize(
    ("option", "value"),
    [("max_rows", 0), ("seed", -1), ("resamples", 0), ("max_rows", 1.5), ("seed", True)],
)
def test_a_number_that_is_none_is_named(build_model, option, value):
    labels, matrix = truth_and_scores()
    assert refusal(build_model(), np.array(labels), matrix, **{option: value}).startswith(f"{option} is a whole number")


def test_a_headline_is_one_of_the_tasks_metrics(build_model, regressor):
    labels, matrix = truth_and_scores()
    assert "'rmse' is not one of accuracy" in refusal(build_model(), np.array(labels), matrix, headline="rmse")
    found = evaluate_scores(regressor, np.arange(5.0), np.arange(5.0), headline="pinball")
    assert found.headline == "rmse"
    assert found.notes[0] == "pinball was to decide and has no value for this holdout; rmse decides."


@pytest.mark.parametrize("headline", ["accuracy", "balanced_accuracy", "roc_auc_ovr", "ece"])
def test_every_headline_has_an_interval_around_it(build_model, headline):
    labels, matrix = truth_and_scores(1000)
    found = evaluate_scores(build_model(), np.array(labels), matrix, headline=headline, resamples=200)
    margin = 0.05 if headline == "ece" else 0.0  # a resample has chance gaps of its own
    assert found.interval.low - margin <= found.metrics[headline] <= found.interval.high + margin
    assert found.interval.resamples == 200


def test_importing_it_loads_nothing_heavy():
    code = "import sys, tabpfn_operators.evaluation; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "tabpfn_operators.evaluation" in loaded
    assert {"numpy", "pyarrow", "pandas", "sklearn", "fsspec", "httpx", "matplotlib"} & set(loaded) == set()


def test_without_scikit_learn_the_extra_is_named(build_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    with pytest.raises(ConfigurationError, match=r'pip install "tabpfn-providers\[evaluation\]"'):
        evaluate_scores(build_model(), np.array(["no"]), np.zeros((1, 2)))


def test_no_secret_of_a_url_is_recorded(build_model, write):
    labels, matrix = truth_and_scores()
    file = write({"y": labels})
    found = evaluate_scores(
        build_model(), file, pa.table(columns_of(matrix)), storage_options={"auto_mkdir": False, "token": "canary-7"}
    )
    assert "canary-7" not in found.model_dump_json()
