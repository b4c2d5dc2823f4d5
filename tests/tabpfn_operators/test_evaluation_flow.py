"""From a fitted model and a holdout to an evaluation, against the emulator."""

import json
import logging
import pickle
import tempfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tabpfn_assets import Evaluation, FitParameters, PredictionSet
from tabpfn_operators.errors import (
    ConfigurationError,
    CostExceededError,
    DestinationError,
    InvalidInputError,
    LimitExceededError,
    OutcomeUnknownError,
)
from tabpfn_operators.evaluation import METRICS, evaluate_scores

PREDICT = "/tabpfn/predict"
ROWS = 120


def table_of(task, rows=ROWS, seed=1):
    random = np.random.default_rng(seed)
    x, other = random.random(rows), random.integers(0, 7, rows)
    outcome = np.where(x + random.normal(size=rows) / 8 > 0.5, "yes", "no") if task == "classification" else 10 * x
    return pa.table({"id": np.arange(rows), "x": x, "other": other, "outcome": outcome})


@pytest.fixture
def fit(client, write):
    """Fit in one request, without the flows that wrap it."""

    def fitted(task="classification", features=("x", "other"), **columns):
        table = table_of(task, 80, seed=2)
        for name, values in columns.items():
            table = table.set_column(table.column_names.index(name), name, values(table[name]))
        source = write(table, f"train-{len(features)}.parquet")
        train_set = client.upload_train_set(source, "outcome", task=task, features=list(features))
        return client.fit_train_set(train_set, parameters=FitParameters(task=task))

    return fitted


@pytest.fixture
def holdout(write):
    return write(table_of("classification"), "holdout.parquet")


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """A temporary folder of this test's own."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def plain(evaluation):
    return evaluation.model_dump(exclude={"created_at", "latency", "holdout"})


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_an_evaluation_is_one_billed_call(client, fit, write, journal, temporary, task):
    model = fit(task)
    file = write(table_of(task), "holdout.parquet")
    found = client.evaluate(model, file)
    assert journal.posts(PREDICT) == 1
    assert list(found.metrics) == list(METRICS[task])
    assert (found.fitted_train_set_id, found.task, found.target) == (model.fitted_train_set_id, task, "outcome")
    assert (found.rows, found.rows_scored, found.rows_evaluated, found.seed) == (ROWS, ROWS, ROWS, 0)
    assert found.headline == {"classification": "log_loss", "regression": "rmse"}[task]
    assert found.interval.low <= found.metrics[found.headline] <= found.interval.high
    better = {"classification": "brier", "regression": "rmse"}[task]
    assert found.metrics[better] < found.baseline[better]
    assert (found.notes, found.comparison, found.charged) == ((), None, None)
    assert found.latency > 0
    assert found.holdout.uris == (file,)
    assert found.holdout.rows == ROWS
    assert Evaluation.model_validate_json(found.model_dump_json()) == found
    assert list(temporary.iterdir()) == []


def test_it_is_what_the_predictions_say(client, fit, holdout, tmp_path):
    model = fit()
    found = client.evaluate(model, holdout, seed=5)
    record = client.predict(model, holdout, str(tmp_path / "out"))
    assert plain(evaluate_scores(model, holdout, record, seed=5)) == plain(found)
    predicted = pq.read_table(tmp_path / "out" / "predictions.parquet")["prediction"].to_pylist()
    truth = pq.read_table(holdout)["outcome"].to_pylist()
    assert found.metrics["accuracy"] == np.mean([a == b for a, b in zip(predicted, truth, strict=True)])


def test_only_rows_with_a_target_are_sent_and_of_a_sample_only_the_sample(client, fit, write):
    model = fit()
    table = table_of("classification")
    labels = table["outcome"].to_pylist()
    labels[:10] = [None] * 10
    table = table.set_column(3, "outcome", pa.array(labels))
    file = write(table, "holdout.parquet")
    whole = client.evaluate(model, file)
    assert (whole.rows, whole.rows_scored, whole.rows_evaluated) == (ROWS, ROWS - 10, ROWS - 10)
    assert whole.notes == ("Left out: 10 rows without a target.",)
    found = client.evaluate(model, file, max_rows=30, seed=9)
    assert (found.rows, found.rows_scored, found.rows_evaluated) == (ROWS, 30, 30)
    assert found.notes[1] == f"A sample of 30 of {ROWS - 10} rows was evaluated, drawn with seed 9."
    assert client.evaluate(model, file, max_rows=30, seed=9).metrics == found.metrics
    assert client.evaluate(model, file, max_rows=30, seed=10).metrics != found.metrics


def test_the_rows_of_a_sample_are_those_of_their_labels(client, fit, write, uploaded, tmp_path):
    model = fit()
    file = write(table_of("classification", 300), "holdout.parquet")
    client.evaluate(model, file, max_rows=40, scores=str(tmp_path / "scores"))
    (record,) = (tmp_path / "scores").glob("*/_lineage.json")
    sent = uploaded(PredictionSet.model_validate_json(record.read_text()).test_set_upload_id, "x_test")
    assert sent.column_names == ["x", "other"]
    every = pq.read_table(file)
    positions = [every["x"].to_pylist().index(value) for value in sent["x"].to_pylist()]
    assert len(positions) == 40
    assert positions == sorted(positions)
    assert sent.equals(every.select(["x", "other"]).take(positions))


def test_an_evaluation_on_the_train_set_says_so(client, write, tmp_path):
    source = write(table_of("classification"), "train.parquet")
    train_set = client.upload_train_set(source, "outcome", task="classification", features=["x"])
    model = client.fit_train_set(train_set, parameters=FitParameters(task="classification"))
    assert client.evaluate(model, source).notes[0].startswith("The holdout is the train set itself")
    other = write(table_of("classification", seed=3), "other.parquet")
    assert client.evaluate(model, other).notes == ()


@pytest.mark.parametrize("kind", ["frame", "table", "csv", "filter", "reader", "views"])
def test_a_holdout_comes_in_every_form(client, fit, write, holdout, tmp_path, kind):
    model = fit()
    table = pq.read_table(holdout)
    options = {}
    if kind == "csv":
        source = str(tmp_path / "holdout.csv")
        table.to_pandas().to_csv(source, index=False)
    elif kind == "filter":
        twice = pa.concat_tables([table.append_column("day", pa.array([day] * ROWS)) for day in (1, 2)])
        source, options = write(twice, "twice.parquet"), {"filters": [("day", "=", 2)]}
    elif kind == "views":
        source = table.set_column(3, "outcome", table["outcome"].cast(pa.string_view()))
    else:
        source = {"frame": table.to_pandas, "table": lambda: table, "reader": lambda: table.to_reader(50)}[kind]()
    found = client.evaluate(model, source, max_rows=60, **options)
    assert plain(found) == plain(client.evaluate(model, holdout, max_rows=60))


def test_a_text_feature_that_is_a_view_can_be_sampled(client, write):
    random = np.random.default_rng(3)
    words = pa.array(random.choice(["a", "b", "a word longer than a view holds"], 90)).cast(pa.string_view())
    table = pa.table({"word": words, "x": random.random(90), "outcome": random.choice(["no", "yes"], 90)})
    plain_words = table.set_column(0, "word", words.cast(pa.string()))
    train_set = client.upload_train_set(write(plain_words, "train.parquet"), "outcome", task="classification")
    model = client.fit_train_set(train_set, parameters=FitParameters(task="classification"))
    found = [client.evaluate(model, source, max_rows=50) for source in (table, plain_words)]
    assert plain(found[0]) == plain(found[1])


@pytest.mark.parametrize(
    ("train", "test"),
    [
        (lambda column: pa.array([int(v == "yes") for v in column.to_pylist()]), lambda v: str(int(v == "yes"))),
        (lambda column: pa.array([v == "yes" for v in column.to_pylist()]), lambda v: int(v == "yes")),
        (lambda column: pa.array([str(int(v == "yes")) for v in column.to_pylist()]), lambda v: float(v == "yes")),
    ],
)
def test_labels_may_have_another_type_than_in_the_train_set(client, fit, holdout, train, test):
    model = fit(outcome=train)
    table = pq.read_table(holdout)
    values = pa.array([test(value) for value in table["outcome"].to_pylist()])
    found = client.evaluate(model, table.set_column(3, "outcome", values))
    assert found.metrics["accuracy"] > 0.8
    assert found.notes == ()
    assert found.classes == model.classes


def test_a_model_whose_classes_nobody_wrote_down(client, fit, holdout):
    model = fit()
    known = client.evaluate(model, holdout)
    unknown = client.evaluate(model.model_copy(update={"classes": None}), holdout)
    assert plain(unknown) == plain(known)
    assert known.classes == ("no", "yes")


def test_labels_that_the_model_never_saw_are_noted(client, fit, write):
    model = fit()
    table = table_of("classification")
    labels = ["<script>alert(1)</script>", *table["outcome"].to_pylist()[1:]]
    found = client.evaluate(model, table.set_column(3, "outcome", pa.array(labels)))
    assert "('<script>alert(1)</script>')" in found.notes[0]
    assert sum(map(sum, found.confusion)) == ROWS - 1


# A champion


def test_a_champion_with_other_features_is_compared_on_the_same_rows(client, fit, holdout, journal):
    candidate, champion = fit(), fit(features=("other",))
    found = client.evaluate(candidate, holdout, champion=champion, max_rows=100)
    assert journal.posts(PREDICT) == 2
    assert found.comparison.fitted_train_set_id == champion.fitted_train_set_id
    assert found.comparison.improvement > 0
    assert found.comparison.interval.low <= found.comparison.improvement <= found.comparison.interval.high
    turned = client.evaluate(champion, holdout, champion=candidate, max_rows=100)
    assert turned.comparison.improvement == pytest.approx(-found.comparison.improvement)
    assert turned.metrics == found.comparison.metrics


def test_a_candidate_that_is_champion_already_is_predicted_once(client, fit, holdout, journal):
    model = fit()
    found = client.evaluate(model, holdout, champion=model)
    assert journal.posts(PREDICT) == 1
    assert found.comparison.improvement == 0
    assert found.comparison.metrics == found.metrics


def test_a_champion_of_other_classes_costs_nothing(client, fit, holdout, journal):
    candidate = fit()
    champion = candidate.model_copy(update={"fitted_train_set_id": "other", "classes": ("maybe", "no", "yes")})
    with pytest.raises(InvalidInputError, match="only the champion has 'maybe'"):
        client.evaluate(candidate, holdout, champion=champion)
    assert journal.posts(PREDICT) == 0


# Kept scores


def test_kept_scores_are_not_paid_for_again(client, fit, holdout, journal, tmp_path, caplog):
    caplog.set_level(logging.INFO, "tabpfn_operators")
    scores = tmp_path / "scores"
    candidate, champion = fit(), fit(features=("other",))
    first = client.evaluate(champion, holdout, scores=str(scores))
    assert journal.posts(PREDICT) == 1
    both = client.evaluate(candidate, holdout, champion=champion, scores=str(scores))
    assert journal.posts(PREDICT) == 2  # the champion's are there
    calls = len(journal.rows())
    again = client.evaluate(candidate, holdout, champion=champion, scores=str(scores), max_cost=0)
    assert len(journal.rows()) == calls
    assert plain(again) == plain(both)
    assert again.latency == both.latency
    assert both.comparison.metrics == first.metrics
    assert sorted(path.name for path in scores.rglob("*") if path.is_file()) == [
        "_lineage.json",
        "_lineage.json",
        "predictions.parquet",
        "predictions.parquet",
    ]
    assert "holds the predictions of this holdout; nothing is sent" in caplog.text


def test_scores_are_kept_on_any_storage(client, fit, holdout, journal, tmp_path):
    model, place = fit(), f"memory://{tmp_path.name}/scores/"
    assert plain(client.evaluate(model, holdout, scores=place)) == plain(client.evaluate(model, holdout, scores=place))
    assert journal.posts(PREDICT) == 1


def test_kept_scores_of_a_table_in_memory_are_found_again(client, fit, journal, tmp_path):
    model = fit()
    for seed in (1, 1, 2):
        frame = table_of("classification", seed=seed).to_pandas()
        client.evaluate(model, frame, scores=str(tmp_path / "scores"))
    assert journal.posts(PREDICT) == 2


@pytest.mark.parametrize(
    "damage", ["other rows", "sample", "no json", "no record", "newer", "truncated", "fewer", "gone"]
)
def test_what_else_is_in_the_folder_is_predicted_again(client, fit, write, journal, tmp_path, damage, caplog):
    model = fit()
    source = write(table_of("classification"), "holdout.parquet")
    scores = tmp_path / "scores"
    expected = client.evaluate(model, source, scores=str(scores), max_rows=20 if damage == "sample" else 1000)
    folder = scores / model.fitted_train_set_id
    lineage, predictions = folder / "_lineage.json", folder / "predictions.parquet"
    record = json.loads(lineage.read_text())
    if damage == "other rows":
        source = write(table_of("classification", seed=7), "holdout.parquet")
    elif damage == "no json":
        lineage.write_text("{")
    elif damage == "no record":
        lineage.write_text("{}")
    elif damage == "newer":
        lineage.write_text(json.dumps({**record, "schema_version": 99}))
    elif damage == "truncated":
        predictions.write_bytes(predictions.read_bytes()[:-30])
    elif damage == "fewer":
        pq.write_table(pq.read_table(predictions).slice(1), predictions)
    elif damage == "gone":
        predictions.unlink()
    found = client.evaluate(model, source, scores=str(scores))
    assert journal.posts(PREDICT) == 2
    assert "predicted again, over it" in caplog.text
    if damage not in {"other rows", "sample"}:
        assert plain(found) == plain(expected)
    assert plain(client.evaluate(model, source, scores=str(scores))) == plain(found)
    assert journal.posts(PREDICT) == 2


# What cannot be used costs nothing


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.drop_columns(["outcome"]), ["target 'outcome' is not among the columns ('id', 'x', 'other')"]),
        (
            lambda t: t.drop_columns(["x", "other", "outcome"]),
            ["target 'outcome'", "feature 'x' of the model is missing", "feature 'other' of the model is missing"],
        ),
        (lambda t: t.set_column(1, "x", t["x"].cast(pa.string())), ["feature 'x' is string", "double"]),
        (lambda t: t.set_column(3, "outcome", pa.array([b"no"] * ROWS)), ["column 'outcome' is binary"]),
        (lambda t: t.set_column(3, "outcome", pa.array(["NO"] * ROWS)), ["holds 'NO'", "'no', 'yes'"]),
        (lambda t: t.set_column(3, "outcome", pa.nulls(ROWS, pa.string())), ["missing in every row"]),
        (lambda t: t.append_column("x", t["other"]), ["column 'x' is there more than once"]),
    ],
)
def test_a_holdout_that_does_not_fit_is_named_and_costs_nothing(client, fit, holdout, journal, change, said):
    model = fit()
    before = len(journal.rows())
    with pytest.raises(InvalidInputError) as caught:
        client.evaluate(model, change(pq.read_table(holdout)))
    assert [text for text in said if text not in str(caught.value)] == []
    assert len(journal.rows()) == before
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_feature_is_no_target(client, fit, holdout, journal):
    with pytest.raises(InvalidInputError, match="target 'x' is a feature of the model"):
        client.evaluate(fit("regression"), holdout, "x")
    assert journal.posts(PREDICT) == 0


def test_a_feature_that_only_the_champion_lacks(client, fit, holdout, journal):
    candidate, champion = fit(features=("x",)), fit()
    with pytest.raises(InvalidInputError, match=r"feature 'other' of the model is missing \(champion\)"):
        client.evaluate(candidate, pq.read_table(holdout).drop_columns(["other"]), champion=champion)
    assert journal.posts(PREDICT) == 0


def test_a_model_that_is_not_completed_or_redacted(client, fit, holdout, journal):
    model = fit()
    with pytest.raises(InvalidInputError, match="is pending; wait for it"):
        client.evaluate(
            model, holdout, champion=model.model_copy(update={"status": "pending", "fitted_train_set_id": "x"})
        )
    with pytest.raises(InvalidInputError, match="redacted"):
        client.evaluate(model.redacted(), holdout, "outcome")
    assert journal.posts(PREDICT) == 0


def test_a_headline_that_would_have_no_value_is_refused_before_it_is_paid_for(client, fit, holdout, journal):
    model = fit().model_copy(update={"classes": tuple(f"c{number}" for number in range(21))})
    with pytest.raises(InvalidInputError, match="computed for up to 20; name another headline"):
        client.evaluate(model, holdout, headline="roc_auc_ovr")
    with pytest.raises(InvalidInputError, match="not one of accuracy"):
        client.evaluate(model, holdout, headline="rmse")
    assert journal.posts(PREDICT) == 0


def test_more_rows_than_the_server_takes_ask_for_a_sample(client, fit, holdout, control, journal):
    candidate = fit()
    champion = candidate.model_copy(update={"fitted_train_set_id": "other", "rows": 10**12})
    with pytest.raises(LimitExceededError, match="max_rows below 120"):
        client.evaluate(candidate, holdout, champion=champion)
    assert journal.posts(PREDICT) == 0


def test_a_price_that_is_too_high_for_both_is_refused_before_the_first(client, fit, holdout, journal):
    candidate, champion = fit(), fit(features=("other",))
    found = client.evaluate(candidate, holdout, champion=champion, max_cost=10**9)
    one = client.evaluate(candidate, holdout, max_cost=10**9)
    assert found.charged == one.charged > 0
    posts = journal.posts(PREDICT)
    with pytest.raises(CostExceededError):
        client.evaluate(candidate, holdout, champion=champion, max_cost=one.charged)
    assert journal.posts(PREDICT) == posts
    assert client.evaluate(candidate, holdout, max_cost=one.charged).charged == one.charged


def test_a_lost_answer_leaves_nothing_behind(client, fit, holdout, control, temporary):
    model = fit()
    control.inject({"kind": "drop", "route": PREDICT, "when": "after"})
    with pytest.raises(OutcomeUnknownError):
        client.evaluate(model, holdout)
    assert list(temporary.iterdir()) == []


def test_a_scores_folder_of_no_use_costs_nothing(client, fit, holdout, journal, tmp_path):
    model = fit()
    with pytest.raises(ConfigurationError, match="URL is empty"):
        client.evaluate(model, holdout, scores="")
    with pytest.raises(ConfigurationError, match="unknown storage protocol"):
        client.evaluate(model, holdout, scores="nowhere://x")
    (tmp_path / "file").write_text("")
    with pytest.raises(DestinationError, match="cannot be written to"):
        client.evaluate(model, holdout, scores=str(tmp_path / "file"))
    assert journal.posts(PREDICT) == 0


def test_nothing_secret_is_in_the_record(client, fit, holdout, tmp_path, bearer, caplog):
    caplog.set_level(logging.DEBUG)
    model = fit()
    found = client.evaluate(
        model,
        f"file://{holdout}",
        storage_options={"auto_mkdir": False, "password": "canary-source"},
        scores=str(tmp_path / "scores"),
        scores_options={"auto_mkdir": True, "password": "canary-scores"},
    )
    kept = "".join(path.read_text() for path in tmp_path.glob("scores/*/_lineage.json"))
    assert kept
    for secret in ("canary-source", "canary-scores", bearer):
        assert secret not in found.model_dump_json() + kept + caplog.text


def test_progress_is_told(client, fit, holdout):
    seen = []
    client.evaluate(fit(), holdout, progress=lambda step: seen.append(step.step))
    assert {"upload", "predict", "write"} <= set(seen)
