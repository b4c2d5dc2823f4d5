"""From a fitted model to predictions with their lineage, against the emulator."""

import json
import math
import urllib.request
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tabpfn_assets import EngineRun, FitParameters, PredictionSet
from tabpfn_operators import demo
from tabpfn_operators.errors import (
    ApiError,
    FittedModelNotFoundError,
    InvalidInputError,
    OutcomeUnknownError,
    QuotaExceededError,
    RateLimitedError,
    ServerError,
    StaleUploadError,
    UploadError,
)

PREDICT = "/tabpfn/predict"
QUANTILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def answered(emulator, bearer):
    """Ask the emulator itself for a prediction: what it sends for an uploaded test set."""

    def ask(record, **params):
        body = {
            "test_set_upload_id": record.test_set_upload_id,
            "fitted_train_set_id": record.model.fitted_train_set_id,
            "task_config": {"task": record.model.task, "predict_params": params},
        }
        headers = {"Authorization": f"Bearer {bearer}", "Content-Type": "application/json"}
        request = urllib.request.Request(emulator + PREDICT, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    return ask


def predictions(folder):
    return pq.read_table(Path(folder) / "predictions.parquet")


def columns(folder):
    return predictions(folder).to_pydict()


# Every output type, value for value


def test_probabilities(client, fit_once, classification, out, answered):
    record = client.predict(fit_once(classification), classification.score, str(out))
    sent = answered(record, output_type="probas")
    found = columns(out)
    assert list(found) == list(record.columns) == ["prediction", "probability_no", "probability_yes"]
    assert sent["metadata"]["classes"] == ["no", "yes"]
    assert [list(pair) for pair in zip(found["probability_no"], found["probability_yes"], strict=True)] == sent[
        "prediction"
    ]
    assert found["prediction"] == ["no" if no >= yes else "yes" for no, yes in sent["prediction"]]
    assert len(set(found["prediction"])) == 2


def test_labels(client, fit_once, classification, out, answered):
    record = client.predict(fit_once(classification), classification.score, str(out), output_type="preds")
    assert columns(out) == {"prediction": answered(record, output_type="preds")["prediction"]}
    assert (record.output_type, record.columns) == ("preds", ("prediction",))


@pytest.mark.parametrize("output_type", [None, "mean", "median", "mode"])
def test_points(client, fit_once, regression, out, answered, output_type):
    record = client.predict(fit_once(regression), regression.score, str(out), output_type=output_type)
    assert record.output_type == (output_type or "mean")
    assert columns(out) == {"prediction": answered(record, output_type=record.output_type)["prediction"]}


@pytest.mark.parametrize("quantiles", [None, (0.5,), (0.9, 0.05)])
def test_quantiles(client, fit_once, regression, out, answered, quantiles):
    record = client.predict(
        fit_once(regression), regression.score, str(out), output_type="quantiles", quantiles=quantiles
    )
    wanted = quantiles or QUANTILES
    sent = answered(record, output_type="quantiles", **({"quantiles": list(quantiles)} if quantiles else {}))
    assert columns(out) == {f"quantile_{q:g}": row for q, row in zip(wanted, sent["prediction"], strict=True)}
    assert record.quantiles == quantiles


def test_main(client, fit_once, regression, out, answered):
    record = client.predict(fit_once(regression), regression.score, str(out), output_type="main")
    sent = answered(record, output_type="main")["prediction"]
    found = columns(out)
    assert list(found) == ["prediction", "mean", "median", "mode", *(f"quantile_{q:g}" for q in QUANTILES)]
    assert found["prediction"] == sent["mean"]
    assert {name: found[name] for name in ("mean", "median", "mode")} == {
        name: sent[name] for name in ("mean", "median", "mode")
    }
    assert [found[f"quantile_{q:g}"] for q in QUANTILES] == sent["quantiles"]


def test_full_distribution(client, fit_once, regression, out, answered):
    record = client.predict(
        fit_once(regression), regression.score, str(out), output_type="full", quantiles=(0.25, 0.75)
    )
    sent = answered(record, output_type="full", quantiles=[0.25, 0.75])["prediction"]
    found = predictions(out)
    assert [found.column("quantile_0.25").to_pylist(), found.column("quantile_0.75").to_pylist()] == sent["quantiles"]
    logits = found.column("logits").to_pylist()
    assert any(bar is None for row in sent["logits"] for bar in row)
    assert logits == [[-math.inf if bar is None else bar for bar in row] for row in sent["logits"]]
    assert json.loads(found.schema.metadata[b"tabpfn.borders"]) == sent["borders"]
    assert len(sent["borders"]) == len(logits[0]) + 1


def answer_with(control, prediction, **metadata):
    body = {"prediction": prediction, "metadata": {"task": "regression", **metadata}}
    control.inject({"kind": "status", "route": PREDICT, "status": 200, "body": body})


def test_a_null_is_nan(client, fit_once, regression, out, control):
    answer_with(control, [None] + [float(i) for i in range(24)])
    client.predict(fit_once(regression), regression.score, str(out))
    found = columns(out)["prediction"]
    assert math.isnan(found[0])
    assert found[1:] == [float(i) for i in range(24)]


def test_numbers_one_by_one_and_a_flat_quantile_are_understood(client, fit_once, regression, out, control):
    model = fit_once(regression)
    answer_with(control, [[float(i)] for i in range(25)])
    client.predict(model, regression.score, str(out))
    assert columns(out)["prediction"] == [float(i) for i in range(25)]
    answer_with(control, [float(i) for i in range(25)])
    client.predict(model, regression.score, str(out), output_type="quantiles", quantiles=(0.5,))
    assert columns(out) == {"quantile_0.5": [float(i) for i in range(25)]}


def test_an_older_server_names_no_classes(client, fit_once, classification, out, control):
    answer_with(control, [[0.25, 0.75]] * 25, classes=None)
    client.predict(fit_once(classification), classification.score, str(out))
    found = columns(out)
    assert (found["probability_no"][0], found["probability_yes"][0], found["prediction"][0]) == (0.25, 0.75, "yes")


@pytest.mark.parametrize(
    "prediction", [[1.0] * 24, [1.0] * 26, [], "text", {"mean": [1.0] * 25}, [[1.0, 2.0]] * 25, [["a"]] * 25]
)
def test_an_answer_of_another_shape_is_not_written(client, fit_once, regression, out, control, prediction):
    answer_with(control, prediction)
    with pytest.raises(ApiError, match="not of the shape of 'mean' for 25 rows"):
        client.predict(fit_once(regression), regression.score, str(out))
    assert not out.exists()


def test_probabilities_of_another_number_of_classes_are_not_written(client, fit_once, classification, out, control):
    answer_with(control, [[0.2, 0.3, 0.5]] * 25, classes=["no", "yes"])
    with pytest.raises(ApiError, match="2 classes"):
        client.predict(fit_once(classification), classification.score, str(out))
    assert not out.exists()


# Rows, columns, labels


def test_the_row_order_of_the_source_is_kept(client, fit_once, regression, write, out, tmp_path):
    model = fit_once(regression)
    client.predict(model, regression.score, str(out))
    backwards = write(pq.read_table(regression.score).take(list(range(24, -1, -1))), "backwards.parquet")
    client.predict(model, backwards, str(tmp_path / "back"))
    forth, back = columns(out)["prediction"], columns(tmp_path / "back")["prediction"]
    assert len(set(forth)) > 10
    assert back == forth[::-1]


def test_other_columns_stay_at_home(client, fit_once, classification, write, uploaded, out):
    table = pq.read_table(classification.score)
    more = table.append_column("name", pa.array(["secret"] * 25)).append_column("outcome", pa.array(["no"] * 25))
    source = write(more.select(["name", "other", "outcome", "x"]), "more.parquet")
    record = client.predict(fit_once(classification), source, str(out))
    assert uploaded(record.test_set_upload_id, "x_test").column_names == ["x", "other"]
    assert uploaded(record.test_set_upload_id, "x_test").equals(table)


@pytest.mark.parametrize(
    ("labels", "names", "kind"),
    [
        (["b|c", "a"], ["probability_a", "probability_b|c"], pa.string()),
        ([3, 1], ["probability_1", "probability_3"], pa.int64()),
        ([True, False], ["probability_false", "probability_true"], pa.bool_()),
    ],
    ids=["text", "whole numbers", "booleans"],
)
def test_labels_come_back_in_their_type(client, write, out, labels, names, kind):
    source = write({"x": [0.0, 1.0] * 10, "label": labels * 10})
    model = client.fit(source, "label", parameters=FitParameters(task="classification"), streamed=True)
    client.predict(model, source, str(out))
    found = predictions(out)
    assert found.column_names == ["prediction", *names]
    assert found.schema.field("prediction").type == kind
    assert found.column("prediction").to_pylist() == labels * 10
    client.predict(model, source, str(out), output_type="preds")
    assert columns(out) == {"prediction": labels * 10}


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_real_data_is_predicted_better_than_by_a_constant(client, tmp_path, out, task):
    data = demo.write_data(tmp_path / "data", task)
    model = client.fit(str(data.train), data.target, parameters=FitParameters(task=task), streamed=True)
    client.predict(model, str(data.score), str(out))
    found, truth = columns(out)["prediction"], data.truth
    assert len(found) == len(truth)
    if task == "classification":
        right = sum(a == b for a, b in zip(found, truth, strict=True)) / len(truth)
        assert right > 0.9 > max(truth.count(label) for label in set(truth)) / len(truth)
    else:
        mean = sum(data.seen) / len(data.seen)
        error = sum((a - b) ** 2 for a, b in zip(found, truth, strict=True))
        assert error < 0.7 * sum((mean - b) ** 2 for b in truth)


# The destination and the record


def test_the_record_beside_the_predictions(client, fit_once, classification, out):
    model = fit_once(classification, name="churn")
    run = EngineRun(engine="python", run_id="run-7", task_id="score")
    record = client.predict(model, classification.score, str(out), run=run)
    assert PredictionSet.model_validate_json((out / "_lineage.json").read_bytes()) == record
    assert record.model == model
    assert (record.uri, record.lineage_uri) == (str(out / "predictions.parquet"), str(out / "_lineage.json"))
    assert (record.rows, record.source.rows, record.source.uris) == (25, 25, (classification.score,))
    assert record.source.fingerprint != model.source.fingerprint
    assert record.run == run
    assert record.metadata["billing_model_version"] == "v3"
    assert record.timings["predict_s"] > 0
    assert record.packages["tabpfn-providers"]
    assert record.created_at >= model.created_at
    assert predictions(out).schema.metadata[b"tabpfn.fitted_train_set_id"].decode() == model.fitted_train_set_id
    assert sorted(path.name for path in out.iterdir()) == ["_lineage.json", "predictions.parquet"]


def test_a_second_run_replaces_the_first(client, fit_once, regression, write, out):
    model = fit_once(regression)
    client.predict(model, regression.score, str(out))
    (out / "notes.txt").write_text("mine")
    fewer = write(pq.read_table(regression.score).slice(0, 5), "fewer.parquet")
    record = client.predict(model, fewer, f"{out}/", output_type="median")
    assert predictions(out).num_rows == record.rows == 5
    assert PredictionSet.model_validate_json((out / "_lineage.json").read_bytes()) == record
    assert sorted(path.name for path in out.iterdir()) == ["_lineage.json", "notes.txt", "predictions.parquet"]


def test_a_failed_second_run_leaves_the_first(client, fit_once, regression, out, control):
    model = fit_once(regression)
    first = client.predict(model, regression.score, str(out))
    control.inject({"kind": "status", "route": PREDICT, "status": 500})
    with pytest.raises(ServerError):
        client.predict(model, regression.score, str(out))
    assert PredictionSet.model_validate_json((out / "_lineage.json").read_bytes()) == first
    assert predictions(out).num_rows == 25
    assert len(list(out.iterdir())) == 2


def test_other_storage_than_files(client, fit_once, classification, bearer):
    import fsspec

    destination = f"memory://{bearer}/out"
    record = client.predict(fit_once(classification), classification.score, destination)
    memory = fsspec.filesystem("memory")
    with memory.open(record.uri) as file:
        assert pq.read_table(file).num_rows == 25
    assert PredictionSet.model_validate_json(memory.cat_file(record.lineage_uri)) == record
    assert len(memory.ls(destination)) == 2


def test_redacted_records_hold_no_label_and_no_column_name(client, write, out):
    source = write({"salary of Ann": [0.0, 1.0] * 10, "hired?": ["Smith", "Jones"] * 10})
    model = client.fit(source, "hired?", parameters=FitParameters(task="classification"), streamed=True)
    record = client.predict(model, source, str(out), redact_labels=True)
    text = (out / "_lineage.json").read_text()
    for private in ("salary", "hired", "Smith", "Jones"):
        assert private not in text
    assert PredictionSet.model_validate_json(text) == record
    assert record.model.redacted_fields
    assert predictions(out).column_names == ["prediction", "probability_Jones", "probability_Smith"]
    with pytest.raises(InvalidInputError, match="redacted"):
        client.predict(record.model, source, str(out))


# One billed call


def test_equal_rows_are_sent_once_and_billed_twice(client, fit_once, regression, out, journal):
    model = fit_once(regression)
    client.predict(model, regression.score, str(out))
    puts = len(journal.puts())
    client.predict(model, regression.score, str(out))
    assert len(journal.puts()) == puts
    assert [row["charge"] > 0 for row in journal.rows(PREDICT)] == [True, True]


def test_a_prediction_behind_a_url_is_fetched_without_the_token(
    client, fit_once, regression, out, control, journal, answered
):
    control.inject({"kind": "prediction_uri"})
    record = client.predict(fit_once(regression), regression.score, str(out))
    (fetched,) = journal.rows("/storage", "GET")
    assert (fetched["status"], fetched["bearer"]) == (200, False)
    assert columns(out)["prediction"] == answered(record, output_type="mean")["prediction"]


def test_a_billed_prediction_that_cannot_be_fetched_is_not_asked_for_again(
    client, fit_once, regression, out, control, journal
):
    control.inject({"kind": "prediction_uri"}, {"kind": "status", "route": "/storage", "method": "GET", "status": 403})
    with pytest.raises(OutcomeUnknownError, match="made and billed") as caught:
        client.predict(fit_once(regression), regression.score, str(out))
    assert "/storage/" not in str(caught.value)
    assert caught.value.terminal
    assert not out.exists()
    assert journal.posts(PREDICT) == 1


@pytest.mark.parametrize("when", ["before", "middle", "after"])
def test_a_dropped_call_is_sent_once(client, fit_once, regression, out, control, journal, when):
    model = fit_once(regression)
    control.inject({"kind": "drop", "route": PREDICT, "when": when, "times": None})
    with pytest.raises(OutcomeUnknownError, match="usage") as caught:
        client.predict(model, regression.score, str(out))
    assert caught.value.terminal
    assert journal.posts(PREDICT) == 1
    assert not out.exists()


@pytest.mark.parametrize("status", [408, 502, 503, 504])
def test_a_gateways_answer_leaves_the_outcome_unknown(client, fit_once, regression, out, control, journal, status):
    control.inject({"kind": "status", "route": PREDICT, "status": status, "when": "after", "times": None})
    with pytest.raises(OutcomeUnknownError, match=f"HTTP {status}"):
        client.predict(fit_once(regression), regression.score, str(out))
    assert journal.posts(PREDICT) == 1
    assert not out.exists()


@pytest.mark.parametrize(
    "answer",
    [{"status": 503}, {"status": 429, "error_code": "RATE_LIMIT_EXCEEDED"}, {"status": 429, "error_code": "NEW"}],
    ids=["503", "rate limit", "429 of unknown code"],
)
def test_what_was_refused_at_the_door_is_sent_again(client, fit_once, regression, out, control, journal, answer):
    control.inject({"kind": "status", "route": PREDICT, "headers": {"Retry-After": "0"}, **answer})
    client.predict(fit_once(regression), regression.score, str(out))
    assert [row["status"] for row in journal.rows(PREDICT)] == [answer["status"], 200]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"status": 429, "error_code": "INSUFFICIENT_QUOTA", "headers": {"Retry-After": "0"}}, QuotaExceededError),
        ({"status": 429, "error_code": "RATE_LIMIT_EXCEEDED", "headers": {"Retry-After": "3600"}}, RateLimitedError),
        ({"status": 500, "error_code": "USER_ERROR"}, ServerError),
    ],
    ids=["quota", "long rate limit", "500"],
)
def test_what_is_not_sent_again(client, fit_once, regression, out, control, journal, answer, kind):
    control.inject({"kind": "status", "route": PREDICT, "error": "words of the server", "times": None, **answer})
    with pytest.raises(kind, match="words of the server") as caught:
        client.predict(fit_once(regression), regression.score, str(out))
    assert caught.value.code == answer["error_code"]
    assert caught.value.trace_id
    assert journal.posts(PREDICT) == 1
    assert not out.exists()


@pytest.mark.parametrize(
    "body", [None, {"detail": "worker failed"}, {"message": "worker failed", "error_code": "USER_ERROR"}]
)
def test_a_failure_inside_a_200(client, fit_once, regression, out, control, journal, body):
    fault = {"kind": "streamed_error", "route": PREDICT, "error": "worker failed"}
    control.inject(fault if body is None else {**fault, "body": body})
    with pytest.raises(ServerError, match="worker failed"):
        client.predict(fit_once(regression), regression.score, str(out))
    assert journal.posts(PREDICT) == 1
    assert not out.exists()


# Equal rows that are not there

PREPARE = "/tabpfn/prepare_test_set_upload"


@pytest.fixture
def unfinished(client, control, fit_once, regression):
    """A model, an upload for it that was never finished, and a server that names that one for a duplicate."""
    model = fit_once(regression)
    control.inject(kind="status", status=404, route="/storage", method="PUT", times=None)
    with pytest.raises(UploadError):
        client.upload_test_set(model, regression.score)
    control.clear_faults()
    control.configure(duplicate_unfinished=True)
    return model


def test_rows_that_never_arrived_are_sent_after_all_and_billed_once(client, regression, out, unfinished, journal):
    record = client.predict(unfinished, regression.score, str(out))
    assert [row["status"] for row in journal.rows(PREPARE)[-2:]] == [409, 200]
    assert [(row["status"], row["charge"] > 0) for row in journal.rows(PREDICT)] == [(422, False), (200, True)]
    assert record.test_set_upload_id == journal.rows(PREPARE)[-1]["ids"]["test_set_upload_id"]
    assert predictions(out).num_rows == 25


def test_rows_that_are_gone_are_sent_after_all(client, fit_once, regression, out, control, journal):
    model = fit_once(regression)
    client.upload_test_set(model, regression.score)
    error = {"status": 404, "error_code": "NOT_FOUND", "error": "The test set upload does not exist or has expired."}
    control.inject(kind="status", route=PREDICT, **error)
    client.predict(model, regression.score, str(out))
    assert [row["status"] for row in journal.rows(PREDICT)] == [404, 200]
    assert [row["status"] for row in journal.rows(PREPARE)] == [200, 409, 200]


def test_step_by_step_the_remedy_is_told(client, regression, unfinished, journal):
    test_set = client.upload_test_set(unfinished, regression.score)
    with pytest.raises(StaleUploadError, match="Upload again with force_reupload=True") as caught:
        client.predict_test_set(unfinished, test_set)
    assert test_set.test_set_upload_id in str(caught.value)
    again = client.upload_test_set(unfinished, regression.score, force_reupload=True)
    assert len(client.predict_test_set(unfinished, again).columns["prediction"]) == 25


def test_a_model_that_is_gone_is_no_matter_of_the_upload(client, fit_once, regression, out, control, journal):
    model = fit_once(regression)
    client.upload_test_set(model, regression.score)
    error = f"The fitted train set {model.fitted_train_set_id} does not exist."
    control.inject(kind="status", route=PREDICT, status=404, error_code="NOT_FOUND", error=error)
    with pytest.raises(FittedModelNotFoundError):
        client.predict(model, regression.score, str(out))
    assert (journal.posts(PREDICT), len(journal.rows(PREPARE))) == (1, 2)


def test_a_lost_answer_about_equal_rows_is_not_asked_for_again(client, fit_once, regression, out, control, journal):
    model = fit_once(regression)
    client.upload_test_set(model, regression.score)
    control.inject(kind="drop", route=PREDICT, when="after")
    with pytest.raises(OutcomeUnknownError):
        client.predict(model, regression.score, str(out))
    assert (journal.posts(PREDICT), len(journal.rows(PREPARE))) == (1, 2)


# Refused before anything is sent


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"output_type": "probas"}, r"'probas' is not one of mean, median, mode, quantiles, main, full"),
        ({"quantiles": (0.5,)}, "quantiles go with output_type quantiles, main or full"),
        ({"output_type": "quantiles", "quantiles": (0.5, 0.5)}, "different numbers between 0 and 1"),
        ({"output_type": "quantiles", "quantiles": (1.5,)}, "between 0 and 1"),
        ({"output_type": "quantiles", "quantiles": ()}, "between 0 and 1"),
    ],
)
def test_what_the_task_does_not_have(client, fit_once, regression, out, journal, options, text):
    model = fit_once(regression)
    before = len(journal.rows())
    with pytest.raises(InvalidInputError, match=text):
        client.predict(model, regression.score, str(out), **options)
    assert len(journal.rows()) == before


def test_a_pending_model(client, classification, out, control, journal):
    control.configure(fit_seconds=0.5)
    train_set = client.upload_train_set(classification.train, "outcome", task="classification")
    pending = client.submit_fit_job(train_set, parameters=classification.parameters)
    with pytest.raises(InvalidInputError, match=rf"{pending.fitted_train_set_id} is pending; wait for it"):
        client.predict(pending, classification.score, str(out))
    assert journal.posts("/tabpfn/prepare_test_set_upload") == 0


def test_a_model_of_another_account(fit_once, connect, classification, out, journal):
    model = fit_once(classification)
    with pytest.raises(FittedModelNotFoundError, match=r"another account.*client\.fit"):
        connect("somebody-else").predict(model, classification.score, str(out))
    assert journal.posts(PREDICT) == 0
    assert not out.exists()


def test_a_test_set_belongs_to_one_model(client, fit_once, regression, journal):
    first, second = fit_once(regression), fit_once(regression)
    test_set = client.upload_test_set(first, regression.score)
    with pytest.raises(InvalidInputError, match=second.fitted_train_set_id):
        client.predict_test_set(second, test_set)
    assert journal.posts(PREDICT) == 0
    found = client.predict_test_set(first, test_set)
    assert len(found.columns["prediction"]) == 25
