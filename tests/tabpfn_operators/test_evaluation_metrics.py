"""Each metric against scikit-learn on the same numbers, and against what a person can compute."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from tabpfn_operators.evaluation._classification import Classified
from tabpfn_operators.evaluation._metrics_table import DEFAULT_HEADLINE, HIGHER_IS_BETTER, METRICS, improvement
from tabpfn_operators.evaluation._regression import Regressed
from tabpfn_operators.evaluation._scores import BLOCK_ROWS, Numbers, Probabilities

QUANTILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def classified(truth, matrix):
    matrix = np.asarray(matrix, float)
    classes = tuple(f"c{index}" for index in range(matrix.shape[1]))
    return Classified(np.asarray(truth), Probabilities(classes, list(matrix.T)))


def random_scores(seed, rows, classes):
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, rows)
    matrix = random.dirichlet(np.ones(classes), rows)
    matrix[np.arange(rows), truth] += random.random(rows)
    return truth, matrix / matrix.sum(axis=1, keepdims=True)


def ece(truth, matrix, bins=10):
    """The textbook's expected calibration error."""
    confidence, predicted = matrix.max(axis=1), matrix.argmax(axis=1)
    total = 0.0
    for low in np.arange(bins) / bins:
        inside = (confidence >= low) & ((confidence < low + 1 / bins) | (low == (bins - 1) / bins))
        if inside.any():
            gap = confidence[inside].mean() - (predicted[inside] == truth[inside]).mean()
            total += inside.mean() * abs(gap)
    return total


def test_every_metric_says_which_way_is_better():
    assert {*HIGHER_IS_BETTER, "coverage_80"} == {name for names in METRICS.values() for name in names}
    assert {task: name for task, name in DEFAULT_HEADLINE.items() if name not in METRICS[task]} == {}
    assert improvement("log_loss", 0.3, 0.5) == pytest.approx(0.2)
    assert improvement("accuracy", 0.3, 0.5) == pytest.approx(-0.2)


@pytest.mark.parametrize(("rows", "classes"), [(50, 2), (400, 3), (BLOCK_ROWS + 7, 5), (300, 20)])
def test_classification_is_what_scikit_learn_says(rows, classes):
    truth, matrix = random_scores(rows, rows, classes)
    found, notes = classified(truth, matrix).metrics()
    predicted = matrix.argmax(axis=1)
    area = (
        sk.roc_auc_score(truth, matrix[:, 1])
        if classes == 2
        else sk.roc_auc_score(truth, matrix, multi_class="ovr", average="macro")
    )
    assert list(found) == list(METRICS["classification"])
    assert found == pytest.approx(
        {
            "accuracy": sk.accuracy_score(truth, predicted),
            "balanced_accuracy": sk.balanced_accuracy_score(truth, predicted),
            "log_loss": sk.log_loss(truth, matrix),
            "roc_auc_ovr": area,
            "f1_macro": sk.f1_score(truth, predicted, average="macro"),
            "brier": sk.brier_score_loss(truth, matrix[:, 1] if classes == 2 else matrix),
            "ece": ece(truth, matrix),
        }
    )
    assert notes == []


@pytest.mark.parametrize("metric", METRICS["classification"])
@pytest.mark.parametrize("classes", [2, 4])
def test_classification_by_counts_is_the_same_as_with_the_rows_repeated(metric, classes):
    truth, matrix = random_scores(7, 120, classes)
    matrix = np.round(matrix, 1)  # ties
    counts = np.random.default_rng(8).integers(0, 4, 120)
    repeated, _ = classified(np.repeat(truth, counts), np.repeat(matrix, counts, axis=0)).metrics()
    assert classified(truth, matrix).weighted(metric)(counts.astype(float)) == pytest.approx(repeated[metric])


def test_classification_by_hand():
    found, _ = classified([0, 0, 1, 1], [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]]).metrics()
    assert found["accuracy"] == 0.75
    assert found["balanced_accuracy"] == 0.75
    assert found["log_loss"] == pytest.approx(-(math.log(0.9) + math.log(0.4) + math.log(0.8) + math.log(0.7)) / 4)
    assert found["brier"] == pytest.approx((0.01 + 0.36 + 0.04 + 0.09) / 4)
    assert found["roc_auc_ovr"] == 1.0
    assert found["f1_macro"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    # Bins 0.6, 0.7, 0.8, 0.9: one row in each, of which only the first is wrong.
    assert found["ece"] == pytest.approx((0.6 + 0.3 + 0.2 + 0.1) / 4)


def test_a_label_that_was_never_seen_is_wrong_everywhere():
    matrix = [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]
    judged = classified([0, 1, -1], matrix)
    found, _ = judged.metrics()
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["balanced_accuracy"] == pytest.approx(2 / 3)  # recalls 1, 1, 0
    assert found["f1_macro"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert found["brier"] == pytest.approx((0.01 + 0.04 + (0.36 + 0.16 + 1) / 2) / 3)
    assert found["log_loss"] == pytest.approx(sk.log_loss([0, 1, 2], [[*row, 0.0] for row in matrix], labels=[0, 1, 2]))
    assert found["roc_auc_ovr"] == 1.0  # 0.8 for the row of the class, 0.1 and 0.4 for the rest
    assert judged.confusion() == ((1, 0), (0, 1))


def test_the_confusion_matrix_is_scikit_learns():
    truth, matrix = random_scores(3, 200, 4)
    found = classified(truth, matrix).confusion()
    assert np.array_equal(found, sk.confusion_matrix(truth, matrix.argmax(axis=1)))


def test_one_class_in_the_holdout_has_no_area_and_many_are_not_ranked():
    found, notes = classified([1, 1], [[0.2, 0.8], [0.7, 0.3]]).metrics()
    assert "roc_auc_ovr" not in found
    assert notes == ["roc_auc_ovr has no value: it needs rows of at least two classes."]
    truth, matrix = random_scores(1, 200, 21)
    found, notes = classified(truth, matrix).metrics()
    assert "roc_auc_ovr" not in found
    assert notes == ["roc_auc_ovr is left out: 21 classes, it is computed for up to 20."]


def test_the_area_is_the_mean_over_the_classes_that_are_there():
    _, matrix = random_scores(2, 60, 4)
    truth = np.arange(60) % 3
    found, notes = classified(truth, matrix).metrics()
    assert found["roc_auc_ovr"] == pytest.approx(
        np.mean([sk.roc_auc_score(truth == i, matrix[:, i]) for i in range(3)])
    )
    assert notes == ["roc_auc_ovr is the mean over 3 classes; not in the holdout: 1."]


def test_curves_of_a_classification():
    truth, matrix = random_scores(5, 5000, 7)
    truth[truth == 6] = 0
    curves = classified(truth, matrix).curves()
    frequent = sorted(np.argsort(-np.bincount(truth, minlength=7), kind="stable")[:5])
    assert list(curves) == ["reliability", *(f"{kind}:{index}" for index in frequent for kind in ("roc", "pr"))]
    assert sum(rows for _, _, rows in curves["reliability"]) == 5000
    for _, _, rows in curves["reliability"]:
        assert rows > 0
    for index in frequent:
        roc, pr = np.array(curves[f"roc:{index}"]), np.array(curves[f"pr:{index}"])
        assert len(roc) <= 101
        assert len(pr) <= 101
        assert roc[0].tolist() == [0, 0]
        assert roc[-1].tolist() == [1, 1]
        assert sk.auc(*roc.T) == pytest.approx(sk.roc_auc_score(truth == index, matrix[:, index]), abs=0.005)
        assert sk.auc(*pr.T) == pytest.approx(sk.average_precision_score(truth == index, matrix[:, index]), abs=0.01)


def test_two_classes_have_one_curve_of_each_kind():
    truth, matrix = random_scores(6, 100, 2)
    assert list(classified(truth, matrix).curves()) == ["reliability", "roc:1", "pr:1"]


# Regression


def numbers(seed, rows, quantiles=QUANTILES):
    random = np.random.default_rng(seed)
    truth = random.normal(size=rows)
    points = truth + random.normal(size=rows) / 3
    return truth, Numbers(points, {q: points + (q - 0.5) for q in quantiles})


def test_regression_is_what_scikit_learn_says():
    truth, scores = numbers(1, 500)
    found, notes = Regressed(truth, scores, 0).metrics()
    inside = (scores.quantiles[0.1] <= truth) & (truth <= scores.quantiles[0.9])
    assert list(found) == list(METRICS["regression"])
    assert found == pytest.approx(
        {
            "rmse": sk.root_mean_squared_error(truth, scores.points),
            "mae": sk.mean_absolute_error(truth, scores.points),
            "r2": sk.r2_score(truth, scores.points),
            "pinball": np.mean([sk.mean_pinball_loss(truth, scores.quantiles[q], alpha=q) for q in QUANTILES]),
            "coverage_80": inside.mean(),
        }
    )
    assert notes == []


@pytest.mark.parametrize("metric", [name for name in METRICS["regression"] if name in HIGHER_IS_BETTER])
def test_regression_by_counts_is_the_same_as_with_the_rows_repeated(metric):
    truth, scores = numbers(2, 90)
    counts = np.random.default_rng(3).integers(0, 4, 90)
    rows = np.repeat(np.arange(90), counts)
    repeated, _ = Regressed(truth[rows], scores.take(rows), 0).metrics()
    assert Regressed(truth, scores, 0).weighted(metric)(counts.astype(float)) == pytest.approx(repeated[metric])


def test_regression_by_hand():
    quantiles = {0.1: np.array([0.0, 3.0, 2.0]), 0.9: np.array([2.0, 4.0, 2.5])}
    found, _ = Regressed(np.array([1.0, 2.0, 3.0]), Numbers(np.array([1.0, 4.0, 2.0]), quantiles), 0).metrics()
    assert found["rmse"] == pytest.approx(math.sqrt(5 / 3))
    assert found["mae"] == 1.0
    assert found["r2"] == pytest.approx(1 - 5 / 2)
    assert found["coverage_80"] == pytest.approx(1 / 3)
    assert found["pinball"] == pytest.approx(((0.1 + 0.9 + 0.1) + (0.1 + 0.2 + 0.45)) / 3 / 2)


def test_what_has_no_value_is_absent_and_named():
    found, notes = Regressed(np.array([2.0, 2.0]), Numbers(np.array([1.0, 2.0])), 0).metrics()
    assert list(found) == ["rmse", "mae"]
    assert [note.split()[0] for note in notes] == ["r2", "pinball", "coverage_80"]


def test_curves_of_a_regression():
    truth, scores = numbers(4, 2000)
    curves = Regressed(truth, scores, 0).curves()
    assert list(curves) == ["residuals", "predicted_actual", "coverage"]
    residuals = np.array(curves["residuals"])
    assert residuals.shape == (40, 3)
    assert residuals[:, 2].sum() == 2000
    assert residuals[1:, 0].tolist() == residuals[:-1, 1].tolist()
    assert len(curves["predicted_actual"]) == 500
    assert set(curves["predicted_actual"]) <= set(zip(truth.tolist(), scores.points.tolist(), strict=True))
    assert [level for level, _ in curves["coverage"]] == [0.2, 0.4, 0.6, 0.8]
    assert dict(curves["coverage"])[0.8] == Regressed(truth, scores, 0).metrics()[0]["coverage_80"]


def test_the_curves_of_a_perfect_prediction_and_of_no_quantiles():
    truth = np.array([5.0, 6.0])
    curves = Regressed(truth, Numbers(truth.copy()), 0).curves()
    assert list(curves) == ["residuals", "predicted_actual"]
    assert sum(rows for _, _, rows in curves["residuals"]) == 2


@given(st.integers(0, 2**32), st.integers(2, 6), st.integers(3, 40))
def test_metrics_stay_in_their_ranges(seed, classes, rows):
    truth, matrix = random_scores(seed, rows, classes)
    truth[0] = -1
    found, _ = classified(truth, matrix).metrics()
    for name in ("accuracy", "balanced_accuracy", "f1_macro", "ece"):
        assert 0 <= found[name] <= 1
    assert 0 <= found["brier"] <= 2
    assert found["log_loss"] >= 0
