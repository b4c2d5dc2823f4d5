"""What the models do with any data, without a server: columns of all kinds, distributions, samples, determinism."""

import datetime as dt
import json
import subprocess
import sys
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tabpfn_emulator._bodies.requests import FitPlan
from tabpfn_emulator._books.limits import model_limits
from tabpfn_emulator._envelopes import DataError
from tabpfn_emulator._learning import model as _learning
from tabpfn_emulator._learning.encoding import MAX_WIDTH, choose_encoder, choose_encoders, encode
from tabpfn_emulator._learning.estimators import DEFAULT_QUANTILES, grow_classes, grow_number
from tabpfn_emulator._learning.tables import batches, count_rows, take_rows
from tabpfn_emulator._learning.thinking import thinking_duration
from tabpfn_emulator._learning.worker import run_fit, run_predict

relaxed = settings(derandomize=True, deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])


LIMITS = model_limits({})["v3"]
FORMATS = {"x_train": "parquet", "y_train": "parquet"}


def plan(task, thinking=None, **config):
    return FitPlan("upload", task, config, (), thinking, "advanced", "nested")


@pytest.fixture
def table(tmp_path):
    """Write a frame or an Arrow table as Parquet or CSV."""

    def write(frame, name="test", file_format="parquet"):
        path = tmp_path / f"{name}.{file_format}"
        if isinstance(frame, pa.Table):
            pq.write_table(frame, path)
        elif file_format == "csv":
            frame.to_csv(path, index=False)
        else:
            frame.rename(columns=str).to_parquet(path, index=False)
        return path

    return write


@pytest.fixture
def learnt(table):
    """Fit from a frame and its target."""

    def fit(frame, target, task, *, thinking=None, mode="model", **config):
        y = frame_of(target)
        paths = {"x_train": table(frame, "x"), "y_train": table(y, "y")}
        return run_fit(paths, FORMATS, plan(task, thinking, **config), LIMITS, mode=mode)

    return fit


def frame_of(target):
    return target.to_frame() if isinstance(target, pd.Series) else pd.DataFrame({"y": target})


def predicted(model, path, output_type, quantiles=None, **options):
    return run_predict(model, path, "parquet", output_type, quantiles, LIMITS, **options)[0]


def mixed_table(rows, seed):
    """Every Arrow type that a data set is likely to have; the flag alone tells the classes apart."""
    rng = np.random.default_rng(seed)
    signal = rng.integers(0, 2, rows)
    gone = rng.random(rows) < 0.2
    start = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    days = rng.integers(0, 700, rows)

    def holes(values):
        return [None if hole else value for hole, value in zip(gone, values, strict=True)]

    return pa.table(
        {
            "float": pa.array(holes(rng.normal(size=rows).tolist()), pa.float64()),
            "small": pa.array(holes(rng.integers(0, 100, rows).tolist()), pa.int8()),
            "huge": pa.array(rng.integers(0, 2**63, rows).tolist(), pa.uint64()),
            "price": pa.array(
                [Decimal(int(cents)) / 100 for cents in rng.integers(0, 9999, rows)], pa.decimal128(9, 2)
            ),
            "flag": pa.array([bool(one) for one in signal], pa.bool_()),
            "maybe": pa.array(holes([bool(one) for one in rng.integers(0, 2, rows)]), pa.bool_()),
            "city": pa.array(holes([["Oslo", "Rome"][one] for one in rng.integers(0, 2, rows)])).dictionary_encode(),
            "note": pa.array([f"ticket {row} of {rng.integers(9)}" for row in range(rows)]),
            "when": pa.array(holes([start + dt.timedelta(days=int(day)) for day in days]), pa.timestamp("us", "UTC")),
            "day": pa.array([(start + dt.timedelta(days=int(day))).date() for day in days], pa.date32()),
            "took": pa.array([dt.timedelta(seconds=int(day)) for day in days], pa.duration("us")),
            "hour": pa.array([dt.time(int(day) % 24) for day in days], pa.time32("s")),
            "raw": pa.array([bytes([int(day) % 7]) for day in days], pa.binary()),
            "tags": pa.array([[int(day) % 3] for day in days], pa.list_(pa.int64())),
            "empty": pa.nulls(rows),
            "empty_text": pa.array([None] * rows, pa.string()),
        }
    ), signal


def test_columns_of_every_type_are_learnt_from(learnt, table):
    train, y_train = mixed_table(300, seed=1)
    test, y_test = mixed_table(100, seed=2)
    model = learnt(train, y_train, "classification")
    answers = predicted(model, table(test), "preds")
    assert np.mean(np.array(answers) == y_test) > 0.9


def test_a_column_may_have_another_type_at_prediction(learnt, table):
    train, y_train = mixed_table(300, seed=1)
    model = learnt(train, y_train, "classification")
    as_text = pa.table(
        {name: [None if v is None else str(v) for v in train[name].to_pylist()] for name in train.column_names}
    )
    assert np.mean(np.array(predicted(model, table(as_text), "preds")) == y_train) > 0.9
    all_gone = pa.table({name: pa.nulls(5) for name in train.column_names})
    assert np.array(predicted(model, table(all_gone), "probas")).sum(axis=1) == pytest.approx(1)


def test_whole_numbers_are_one_category_with_and_without_missing_values(learnt, table):
    codes = ["7", "8"] * 20
    model = learnt(pd.DataFrame({"code": codes}), codes, "classification")
    for column in ([7, 8], [7.0, 8.0], ["7", "8"], pd.Categorical([7, 8])):
        assert predicted(model, table(pd.DataFrame({"code": column})), "preds") == ["7", "8"]
    floats = pd.DataFrame({"code": [7.0, 8.0, None]})
    assert predicted(model, table(floats), "preds")[:2] == ["7", "8"]


def test_a_missing_value_is_a_value_to_learn_from(learnt, table):
    frame = pd.DataFrame({"a": [None if row % 3 else float(row) for row in range(90)]})
    model = learnt(frame, frame["a"].isna(), "classification")
    assert predicted(model, table(frame.head(6)), "preds") == [False, True, True, False, True, True]


def test_categories_not_seen_before_get_probabilities(learnt, table):
    train = pd.DataFrame({"city": ["Oslo", "Rome"] * 30, "n": range(60)})
    model = learnt(train, ["a", "b"] * 30, "classification")
    strange = pd.DataFrame({"city": ["Paris", None], "n": ["many", None]})
    assert np.array(predicted(model, table(strange), "probas")).sum(axis=1) == pytest.approx(1)


def test_csv_and_parquet_are_learnt_alike(table, diabetes):
    frame, target = diabetes
    means = []
    for file_format in ("csv", "parquet"):
        paths = {"x_train": table(frame, "x", file_format), "y_train": table(target.to_frame(), "y", file_format)}
        model = run_fit(paths, dict.fromkeys(FORMATS, file_format), plan("regression"), LIMITS)
        means.append(run_predict(model, paths["x_train"], file_format, "mean", None, LIMITS)[0])
    assert means[0] == pytest.approx(means[1])


@pytest.mark.parametrize("labels", [["c", "a", "b"], [3, 1, 2], [True, False], [2.5, -1.0]])
def test_probabilities_are_in_sorted_label_order(learnt, table, labels):
    y = labels * 20
    frame = pd.DataFrame({"place": [sorted(labels).index(label) for label in y]})
    model = learnt(frame, y, "classification")
    assert model.classes == tuple(sorted(labels))
    assert predicted(model, table(pd.DataFrame({"place": range(len(labels))})), "preds") == sorted(labels)
    shares = np.array(predicted(model, table(frame), "probas"))
    assert shares.argmax(axis=1).tolist() == frame["place"].tolist()


def test_balanced_probabilities_favour_the_rare_class(learnt, table):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": np.arange(400) % 2})
    target = pd.Series((rng.random(400) < 0.1).astype(int), name="y")
    plain, balanced = (
        np.mean([row[1] for row in predicted(model, table(frame), "probas")])
        for model in (
            learnt(frame, target, "classification"),
            learnt(frame, target, "classification", balance_probabilities=True),
        )
    )
    assert balanced > plain + 0.3


numbers = st.floats(-1e12, 1e12, allow_subnormal=False)
levels = st.lists(st.floats(0, 1), min_size=1, max_size=6)


@relaxed
@given(st.lists(numbers, min_size=1, max_size=40), levels, st.integers(0, 2**32 - 1), st.data())
def test_all_outputs_of_a_regression_describe_one_distribution(values, asked, seed, data):
    target = np.array(values)
    cells = data.draw(st.lists(st.one_of(numbers, st.just(np.nan)), min_size=len(values), max_size=len(values)))
    features = np.array(cells, dtype=np.float32)[:, None]
    estimator = grow_number(features, target, effort=1, seed=seed)
    asked = sorted(asked)
    full = estimator.outputs(features, "full", (*asked, 0.5, 0.0, 1.0))
    unit = max(1e-9, float(np.abs(target).max())) * 1e-6
    borders, mean = full["borders"], full["mean"]
    assert (np.diff(borders) > 0).all()
    assert (mean >= target.min() - unit).all()
    assert (mean <= target.max() + unit).all()
    assert (np.diff(full["quantiles"][: len(asked)], axis=0) >= 0).all()
    median, lowest, highest = full["quantiles"][len(asked) :]
    assert (median == full["median"]).all()
    for name in ("mean", "median", "mode"):
        assert (lowest <= full[name] + unit).all()
        assert (full[name] <= highest + unit).all()
    assert borders[0] <= lowest.min()
    assert highest.max() <= borders[-1]
    mass = np.exp(full["logits"])
    assert mass.sum(axis=1) == pytest.approx(1)
    width = borders[1] - borders[0]
    expectation = (mass * (borders[:-1] + borders[1:]) / 2).sum(axis=1)
    assert (np.abs(expectation - mean) <= width / 2 + unit).all()
    # The bars hold as much below the median as the quantiles say, give or take the bar that it lies in.
    below = (mass * (borders[1:] <= median[:, None])).sum(axis=1)
    upto = (mass * (borders[:-1] <= median[:, None])).sum(axis=1)
    assert (below <= 0.51).all()
    assert (upto >= 0.49).all()


@relaxed
@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.booleans(), st.data())
def test_probabilities_always_sum_to_one(codes, balanced, data):
    cells = data.draw(st.lists(st.one_of(numbers, st.just(np.nan)), min_size=len(codes), max_size=len(codes)))
    features = np.array(cells, dtype=np.float32)[:, None]
    estimator = grow_classes(features, np.array(codes), 5, balanced=balanced, effort=1, seed=0)
    shares = estimator.outputs(features, "probas", ())["probas"]
    assert shares.shape == (len(codes), 5)
    assert shares.sum(axis=1) == pytest.approx(1)
    assert (shares >= 0).all()
    assert (shares[:, 4] == 0).all()


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e12, 1e299])
def test_targets_of_any_size_are_learnt(learnt, table, scale):
    frame = pd.DataFrame({"a": np.arange(60.0)})
    model = learnt(frame, frame["a"].to_numpy() * scale / 60, "regression")
    answer = predicted(model, table(frame), "full")
    assert np.array(answer["mean"]) / scale == pytest.approx(np.arange(60) / 60, abs=0.1)
    assert (np.diff(answer["borders"]) > 0).all()
    json.dumps(answer, allow_nan=False)


@pytest.mark.parametrize("target", [["a", "b"], [1.0, float("inf")], [1.0, 1e301]])
def test_a_target_that_is_no_number_is_refused(learnt, target):
    with pytest.raises(DataError, match="finite numbers"):
        learnt(pd.DataFrame({"a": [1, 2]}), target, "regression")


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_one_row_is_enough(learnt, table, task):
    frame = pd.DataFrame({"a": [None], "b": ["x"]})
    model = learnt(frame, [7], task)
    assert predicted(model, table(frame), "preds" if task == "classification" else "mean") == [7]


def test_quantiles_come_in_the_order_asked_for(learnt, table, diabetes):
    frame, target = diabetes
    model = learnt(frame, target, "regression")
    path = table(frame.head(3))
    answer = predicted(model, path, "main", [0.9, 0.1])
    assert answer["quantiles"][0] > answer["quantiles"][1]
    assert len(predicted(model, path, "quantiles")) == len(DEFAULT_QUANTILES)


SCRIPT = """
import json, sys
from pathlib import Path
from tabpfn_emulator._books.limits import model_limits
from tabpfn_emulator._bodies.requests import FitPlan
from tabpfn_emulator._learning.worker import run_fit, run_predict
folder, limits = Path(sys.argv[1]), model_limits({})["v3"]
paths = {"x_train": folder / "x.parquet", "y_train": folder / "y.parquet"}
plan = FitPlan("upload", "classification", {"random_state": 5}, (), None, "advanced", "nested")
model = run_fit(paths, dict.fromkeys(paths, "parquet"), plan, limits)
print(json.dumps(run_predict(model, paths["x_train"], "parquet", "probas", None, limits)[0]))
"""


def test_another_process_learns_the_same(learnt, tmp_path, monkeypatch):
    train, y_train = mixed_table(80, seed=3)
    model = learnt(train, y_train, "classification", random_state=5)
    here = predicted(model, tmp_path / "x.parquet", "probas")
    # Text is hashed by Python with another seed in every process.
    monkeypatch.setenv("PYTHONHASHSEED", "12345")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, timeout=120, check=True
    )
    assert json.loads(done.stdout) == here


def test_thinking_grows_a_larger_forest(learnt, diabetes):
    frame, target = diabetes
    sizes = [
        len(learnt(frame, target, "regression", thinking=thinking).estimator.forest.trees)
        for thinking in (None, {"effort": "medium"}, {"effort": "high"})
    ]
    assert sizes[1] == 3 * sizes[0]
    assert sizes[2] == 6 * sizes[0]


@pytest.mark.parametrize(
    ("thinking", "seconds"),
    [
        (None, 0.0),
        ({"effort": "medium"}, 0.6),
        ({"effort": "medium", "timeout_secs": None}, 0.6),
        ({"effort": "high", "timeout_secs": 600}, 6.0),
        ({"effort": "high", "timeout_secs": 9000.0}, 24.0),
    ],
)
def test_thinking_takes_its_limit_scaled_down(thinking, seconds):
    assert thinking_duration(plan("regression", thinking), 0.01) == pytest.approx(seconds)


def test_a_large_table_is_learnt_from_a_seeded_sample(learnt, monkeypatch):
    monkeypatch.setattr(_learning, "SAMPLE_ROWS", 1500)
    frame = pd.DataFrame({"a": np.arange(4000.0)})
    models = [learnt(frame, frame["a"], "regression", random_state=seed) for seed in (1, 1, 2)]
    assert {(model.rows, model.sampled_rows) for model in models} == {(4000, 1500)}
    assert models[0].note == "trained on a seeded sample of 1500 of 4000 rows"
    centres = [model.estimator.centre for model in models]
    assert centres[0] == centres[1] != centres[2]


def test_all_rows_are_learnt_from_below_the_sample(learnt):
    model = learnt(pd.DataFrame({"a": range(50)}), range(50), "regression")
    assert (model.sampled_rows, model.note) == (50, None)


def test_wide_tables_have_smaller_samples():
    assert _learning.sample_rows(20_000, 200, 0) is None
    assert len(_learning.sample_rows(20_001, 10, 0)) == 20_000
    assert len(_learning.sample_rows(20_000, 2_000, 0)) == 2_000
    assert len(_learning.sample_rows(20_000, 100_000, 0)) == 1_000


@relaxed
@given(st.integers(1, 60_000), st.integers(1, 3_000), st.integers(0, 2**32 - 1))
def test_a_sample_is_sorted_rows_without_repetition(rows, columns, seed):
    wanted = _learning.sample_rows(rows, columns, seed)
    if wanted is not None:
        assert (np.diff(wanted) > 0).all()
        assert 0 <= wanted[0] <= wanted[-1] < rows
        assert len(wanted) * columns <= max(_learning.SAMPLE_CELLS, 1_000 * columns)


@pytest.mark.parametrize("file_format", ["parquet", "csv"])
def test_only_the_rows_asked_for_are_taken(table, file_format):
    frame = pd.DataFrame({"a": range(40_000), "b": [f"row {row}" for row in range(40_000)]})
    path = table(frame, "long", file_format)
    assert count_rows(path, file_format) == frame.shape
    wanted = np.array([0, 16_383, 16_384, 39_999])
    taken = take_rows(path, file_format, wanted)
    assert taken[0].tolist() == wanted.tolist()
    assert taken[1].tolist() == [f"row {row}" for row in wanted]
    assert max(len(batch) for batch in batches(path, file_format)) <= 16_384


def test_wide_files_are_read_in_short_batches(table):
    frame = pd.DataFrame(np.zeros((3_000, 500)))
    sizes = [batch.size for batch in batches(table(frame), "parquet")]
    assert max(sizes) <= 500_000
    assert sum(sizes) == frame.size


MEMORY = """
import re, sys
from pathlib import Path
from tabpfn_emulator._learning.model import sample_rows
from tabpfn_emulator._learning.tables import take_rows
def peak():  # not ru_maxrss, which a process inherits from the one that has started it
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
before, wanted = peak(), sample_rows(1_000_000, 20, seed=0)
assert take_rows(Path(sys.argv[1]), "parquet", wanted).shape == (20_000, 20)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_sample_of_a_large_file_needs_a_part_of_its_memory(tmp_path):
    path = tmp_path / "large.parquet"
    values = np.random.default_rng(0).normal(size=1_000_000)
    columns = {f"c{number}": values + number for number in range(20)}
    pq.write_table(pa.table(columns), path, compression="none", row_group_size=len(values))
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(path)], capture_output=True, text=True, timeout=120, check=True
    )
    assert int(done.stdout) < 0.75 * path.stat().st_size


def test_many_text_columns_stay_within_the_width():
    frame = pd.DataFrame({column: [f"word {row} {column}" for row in range(60)] for column in range(200)})
    encoders = choose_encoders(frame)
    features = encode(frame, encoders)
    assert features.shape == (60, sum(encoder.width for encoder in encoders))
    assert features.shape[1] <= MAX_WIDTH


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a,b\n1,2,3\n4,5,6\n", "more fields"),
        (b"a\n\xff\n", "not readable as csv"),
        (b'a\n"1\n2', "not readable as csv"),
    ],
)
def test_a_broken_csv_is_refused(tmp_path, content, words):
    path = tmp_path / "broken.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words):
        take_rows(path, "csv", None)


def test_a_broken_parquet_file_is_refused(tmp_path):
    path = tmp_path / "broken.parquet"
    path.write_bytes(b"PAR1 not really PAR1")
    for read in (lambda: count_rows(path, "parquet"), lambda: take_rows(path, "parquet", None)):
        with pytest.raises(DataError, match="not readable as parquet"):
            read()


def test_text_that_looks_like_a_time_is_one():
    dates = pd.Series(["2024-01-31", "2024-02-29T10:00:00Z", None, "2199-12-31"])
    encoder = choose_encoder(dates)
    assert encoder.kind == "datetime"
    order = encoder.encode(dates)[:, 0]
    assert order[0] < order[1] < order[3]
    assert np.isnan(order[2])


@pytest.mark.parametrize(
    ("task", "outputs"), [("classification", ["probas", "preds"]), ("regression", ["mean", "full"])]
)
def test_constant_predictions_read_no_features(learnt, table, tmp_path, task, outputs):
    train, _ = mixed_table(40, seed=1)
    y = ["a", "b", "b", "b"] * 10 if task == "classification" else [1.0, 3.0] * 20
    model = learnt(train, y, task, mode="constant")
    assert (model.rows, model.sampled_rows, model.encoders) == (40, 0, ())
    assert model.note == "learnt nothing from 40 rows: predictions are constant"
    path = table(train.slice(0, 3))
    answers = {name: predicted(model, path, name) for name in outputs}
    if task == "classification":
        assert answers == {"probas": [[0.25, 0.75]] * 3, "preds": ["b"] * 3}
    else:
        assert answers["mean"] == [2.0] * 3 == answers["full"]["mean"]


def test_a_learnt_model_can_predict_constants_too(learnt, table):
    frame = pd.DataFrame({"a": np.arange(40.0)})
    model = learnt(frame, frame["a"], "regression")
    assert predicted(model, table(frame.head(2)), "mean", mode="constant") == [19.5, 19.5]
    assert predicted(model, table(frame.head(2)), "mean")[0] < 10
