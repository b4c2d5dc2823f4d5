"""From a Parquet file to a fitted model, against the emulator."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabpfn_assets import EngineRun, FitParameters, FittedModel, Thinking
from tabpfn_operators import jobs
from tabpfn_operators.errors import (
    AsyncFitUnsupportedError,
    ConfigurationError,
    FitFailedError,
    FittedModelNotFoundError,
    FitTimeoutError,
    NotFoundError,
    OutcomeUnknownError,
    QuotaExceededError,
    RateLimitedError,
    RequestRejectedError,
    StaleUploadError,
    UploadError,
    UploadTooSlowError,
)
from tabpfn_operators.upload import is_stale

FIT = "/tabpfn/fit"
SUBMIT = "/tabpfn/submit_fit_job"
LOOK = "/tabpfn/get_fit_status"
PREPARE = "/tabpfn/prepare_train_set_upload"


def upload(client, tables, **options):
    return client.upload_train_set(tables.train, tables.target, task=tables.task, **options)


# Uploads


def test_what_arrives_is_what_the_file_holds(client, classification, uploaded, journal):
    train_set = upload(client, classification)
    source = pq.read_table(classification.train)
    assert uploaded(train_set.train_set_upload_id, "x_train").equals(source.drop_columns(["outcome"]))
    assert uploaded(train_set.train_set_upload_id, "y_train").equals(source.select(["outcome"]))
    puts = journal.puts()
    assert [row["status"] for row in puts] == [200, 200]
    assert sum(row["bytes_in"] for row in puts) == train_set.bytes_sent


def test_the_token_does_not_go_to_the_storage_host(client, control, classification, journal):
    control.configure(upload_parts=2)
    upload(client, classification)
    assert [row["bearer"] for row in journal.puts()] == [False] * 4
    assert all(row["bearer"] for row in journal.rows() if row["route"] != "/storage")


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_many_parts_join_to_the_same_file(client, control, classification, uploaded, journal, parts):
    control.configure(upload_parts=parts)
    train_set = upload(client, classification)
    assert len(journal.puts()) == 2 * parts
    assert sum(row["bytes_in"] for row in journal.puts()) == train_set.bytes_sent
    assert uploaded(train_set.train_set_upload_id, "x_train").num_rows == 60
    # The emulator compares size and CRC32C with what was announced before it fits.
    model = client.fit_train_set(train_set, parameters=classification.parameters)
    assert model.status == "completed"


def test_the_same_content_is_sent_once(client, classification, journal):
    first = upload(client, classification)
    second = upload(client, classification)
    assert (first.duplicate, second.duplicate) == (False, True)
    assert second.train_set_upload_id == first.train_set_upload_id
    assert (first.bytes_sent > 0, second.bytes_sent) == (True, 0)
    assert len(journal.puts()) == 2
    assert second.model_copy(update={"bytes_sent": first.bytes_sent, "duplicate": False}) == first


def test_content_can_be_sent_again_on_request(client, classification, journal):
    first = upload(client, classification)
    second = upload(client, classification, force_reupload=True)
    assert second.train_set_upload_id != first.train_set_upload_id
    assert second.bytes_sent == first.bytes_sent
    assert len(journal.puts()) == 4


@pytest.mark.parametrize("fault", [{"kind": "status", "status": 503}, {"kind": "drop"}], ids=["503", "dropped"])
def test_a_part_is_put_again(client, control, classification, uploaded, journal, fault):
    control.inject({"route": "/storage", "method": "PUT", **fault})
    train_set = upload(client, classification)
    assert len(journal.puts()) == 3
    assert uploaded(train_set.train_set_upload_id, "x_train").num_rows == 60


def test_a_refused_url_is_not_told(client, control, classification):
    body = "<Error><Code>SignatureDoesNotMatch</Code><StringToSign>PUT /storage/hidden</StringToSign></Error>"
    control.inject(kind="status", status=403, route="/storage", method="PUT", body=body)
    with pytest.raises(UploadError, match=r"PUT of part 1 of 1: the signed URL is refused") as caught:
        upload(client, classification)
    assert (caught.value.status, caught.value.code) == (403, "SignatureDoesNotMatch")
    assert "/storage/" not in str(caught.value) + repr(vars(caught.value))
    assert not caught.value.terminal


def test_columns_can_be_chosen_and_ordered(client, write, uploaded):
    source = write({"a": [1, 2], "b": [3.0, 4.0], "c": ["u", "v"], "y": ["n", "p"], "z": [True, False]})
    chosen = client.upload_train_set(source, "y", task="classification", features=["c", "a"])
    assert uploaded(chosen.train_set_upload_id, "x_train").column_names == ["c", "a"]
    assert [(f.name, f.dtype) for f in chosen.features] == [("c", "string"), ("a", "int64")]
    rest = client.upload_train_set(source, "y", task="classification", exclude=["b", "z"])
    assert uploaded(rest.train_set_upload_id, "x_train").column_names == ["a", "c"]


def test_progress_covers_every_row_and_byte(client, control, classification):
    control.configure(upload_parts=2)
    seen = []
    train_set = upload(client, classification, progress=seen.append)
    last = {step.step: step for step in seen}
    assert set(last) == {"upload"}, "nothing is prepared where column chunks are sent as they are stored"
    assert (last["upload"].done, last["upload"].total) == (train_set.bytes_sent, train_set.bytes_sent)


def test_an_upload_asks_for_the_limits_once(client, classification, journal):
    upload(client, classification)
    assert journal.routes().count("/tabpfn/get_settings") == 1


def test_progress_covers_every_row_that_is_decoded(client, classification):
    seen = []
    train_set = upload(client, classification, progress=seen.append, recompress=("zstd", 3))
    last = {step.step: step for step in seen}
    assert (last["prepare"].done, last["prepare"].total) == (60, 60)
    assert (last["upload"].done, last["upload"].total) == (train_set.bytes_sent, train_set.bytes_sent)


def test_no_fit_runs_on_an_upload_that_expired(client, control, classification, journal):
    control.configure(upload_parts=2)
    control.inject(kind="expired_url", nth=2)
    model = client.fit(classification.train, "outcome", parameters=classification.parameters)
    first, second = [row["ids"]["train_set_upload_id"] for row in journal.rows(PREPARE)]
    assert model.train_set_upload_id == second != first
    assert [fit["train_set_upload_id"] for fit in fits_of(control, journal)] == [second]
    assert {row["bearer"] for row in journal.puts()} == {False}


@pytest.mark.parametrize("streamed", [True, False])
def test_an_upload_that_is_too_slow_is_never_fitted(client, control, classification, journal, streamed):
    control.inject(kind="expired_url", times=None)
    with pytest.raises(UploadTooSlowError):
        client.fit(classification.train, "outcome", parameters=classification.parameters, streamed=streamed)
    assert len(journal.rows(PREPARE)) == 2
    assert journal.posts(SUBMIT) + journal.posts(FIT) == 0


def test_hashes_can_be_left_out(client, classification):
    first, second = (upload(client, classification, checksum=False) for _ in range(2))
    assert (first.duplicate, second.duplicate) == (False, False)
    assert first.train_set_upload_id != second.train_set_upload_id


# Equal content that is not there


@pytest.fixture
def unfinished(client, control, classification):
    """Leave an upload that was never finished, and a server that names it for a duplicate all the same."""
    control.inject(kind="status", status=404, route="/storage", method="PUT", times=None)
    with pytest.raises(UploadError):
        upload(client, classification)
    control.clear_faults()
    control.configure(duplicate_unfinished=True)


@pytest.mark.parametrize("streamed", [True, False])
def test_a_duplicate_that_never_finished_is_sent_after_all(
    client, control, classification, unfinished, journal, streamed
):
    before = len(journal.rows(PREPARE))
    model = client.fit(classification.train, "outcome", parameters=BILLED, streamed=streamed, durable=False)
    assert [row["status"] for row in journal.rows(PREPARE)[before:]] == [409, 200]
    assert [row["status"] for row in journal.rows(FIT if streamed else SUBMIT)] == [422, 200]
    assert len(fits_of(control, journal)) == 1
    assert model.train_set_upload_id == journal.rows(PREPARE)[-1]["ids"]["train_set_upload_id"]
    assert model.status == "completed"


def test_a_duplicate_that_is_gone_is_sent_after_all(client, control, classification, journal):
    upload(client, classification)
    error = {"status": 404, "error_code": "NOT_FOUND", "error": "The train set upload does not exist or has expired."}
    control.inject(kind="status", route=SUBMIT, method="POST", **error)
    client.fit(classification.train, "outcome", parameters=classification.parameters)
    assert [row["status"] for row in journal.rows(SUBMIT, "POST")] == [404, 200]
    assert [row["status"] for row in journal.rows(PREPARE)] == [200, 409, 200]


def test_such_a_duplicate_is_sent_once(client, control, classification, unfinished, journal):
    error = {"status": 422, "error_code": "REQUEST_VALIDATION_ERROR", "error": "The upload is not complete."}
    control.inject(kind="status", route=SUBMIT, method="POST", times=None, **error)
    before = len(journal.puts())
    with pytest.raises(RequestRejectedError, match="not complete") as caught:
        client.fit(classification.train, "outcome", parameters=classification.parameters)
    assert not isinstance(caught.value, StaleUploadError)
    assert journal.posts(SUBMIT) == 2
    assert len(journal.puts()) - before == 2


@pytest.mark.parametrize("streamed", [True, False])
def test_step_by_step_the_remedy_is_told(client, classification, unfinished, journal, streamed):
    train_set = upload(client, classification)
    assert train_set.duplicate
    fit = client.fit_train_set if streamed else client.submit_fit_job
    with pytest.raises(StaleUploadError, match="Upload again with force_reupload=True") as caught:
        fit(train_set, parameters=classification.parameters)
    assert train_set.train_set_upload_id in str(caught.value)
    assert (caught.value.status, caught.value.terminal) == (422, True)
    again = upload(client, classification, force_reupload=True)
    assert fit(again, parameters=classification.parameters).train_set_upload_id == again.train_set_upload_id


def test_other_refusals_of_a_duplicate_are_told_as_they_are(client, control, classification, journal):
    upload(client, classification)
    error = {"status": 422, "error_code": "REQUEST_VALIDATION_ERROR", "error": "n_estimators: at most 8."}
    control.inject(kind="status", route=SUBMIT, method="POST", **error)
    with pytest.raises(RequestRejectedError, match="at most 8") as caught:
        client.fit(classification.train, "outcome", parameters=classification.parameters)
    assert not isinstance(caught.value, StaleUploadError)
    assert (journal.posts(SUBMIT), len(journal.rows(PREPARE))) == (1, 2)


@pytest.mark.parametrize("on_unknown", ["auto", "resubmit"])
def test_a_billed_fit_that_may_have_run_is_not_uploaded_for_again(client, control, classification, journal, on_unknown):
    upload(client, classification)
    gone = {"status": 404, "error_code": "NOT_FOUND", "error": "The train set upload does not exist."}
    control.inject(
        {"kind": "drop", "route": SUBMIT, "method": "POST", "when": "after"},
        {"kind": "status", "route": SUBMIT, "method": "POST", **gone},
    )
    with pytest.raises(NotFoundError if on_unknown == "resubmit" else OutcomeUnknownError):
        client.fit(classification.train, "outcome", parameters=BILLED, on_unknown=on_unknown, durable=False)
    assert journal.posts(SUBMIT) == (2 if on_unknown == "resubmit" else 1)
    assert [row["status"] for row in journal.rows(PREPARE)] == [200, 409]
    assert len(fits_of(control, journal)) == 1


@given(st.sampled_from([400, 402, 409, 413, 422, 500]), st.text(max_size=40))
def test_only_a_404_or_a_422_about_the_bytes_makes_a_duplicate_stale(status, words):
    assert is_stale(RequestRejectedError(f"{words} the upload is incomplete", status=status)) == (status == 422)
    assert is_stale(NotFoundError(words, status=404))
    assert not is_stale(RequestRejectedError("n_estimators: at most 8", status=422))


# Fits in one request


@pytest.mark.parametrize("wire", ["nested", "flat"])
def test_both_forms_of_the_fit_body(connect, classification, control, wire):
    client = connect(wire=wire)
    parameters = FitParameters(
        task="classification", config={"n_estimators": 2, "random_state": 7}, thinking=Thinking(effort="medium")
    )
    model = client.fit(classification.train, "outcome", parameters=parameters, streamed=True, durable=False)
    (fit,) = [row for row in control.fits() if row["fitted_train_set_id"] == model.fitted_train_set_id]
    assert fit["wire"] == wire
    assert fit["task"] == "classification"
    assert fit["config"] == {"n_estimators": 2, "random_state": 7}
    assert fit["systems"] == ["preprocessing", "text", "thinking"]
    assert fit["thinking"]["effort"] == "medium"
    assert fit["train_rows"] == 60


def test_the_flat_form_drops_nothing_in_silence(connect, classification, journal):
    parameters = FitParameters(task="classification", text_handling="simple")
    with pytest.raises(ConfigurationError, match="text_handling"):
        connect(wire="flat").fit(classification.train, "outcome", parameters=parameters, streamed=True)
    assert journal.posts(FIT) == 0


def test_a_long_fit_is_kept_alive_by_whitespace(fit_once, control, classification, journal):
    control.configure(fit_seconds=0.6, keepalive_after_secs=0.05, keepalive_every_secs=0.05)
    model = fit_once(classification)
    assert model.status == "completed"
    assert model.timings["elapsed_s"] >= 0.6
    (row,) = journal.rows(FIT)
    assert row["bytes_out"] > 200  # the JSON, and spaces before it
    assert journal.posts(LOOK) == 0


def test_a_fit_without_a_status_is_completed(fit_once, control, classification, journal):
    control.inject({"kind": "missing_status", "route": FIT})
    assert fit_once(classification).status == "completed"
    assert journal.rows(FIT)[0]["fault"] == "missing_status"


def test_a_fit_that_fails_while_streaming_fails_inside_a_200(fit_once, control, classification, journal):
    control.configure(fit_seconds=0.2, keepalive_after_secs=0.01)
    control.inject({"kind": "fail_fit", "route": FIT, "error": "the target is constant", "error_code": "USER_ERROR"})
    with pytest.raises(FitFailedError, match="the target is constant") as caught:
        fit_once(classification)
    assert (caught.value.status, caught.value.code) == (200, "USER_ERROR")
    assert caught.value.terminal
    assert journal.posts(FIT) == 1


def test_a_fit_that_is_refused(fit_once, control, classification, journal):
    control.inject({"kind": "status", "route": FIT, "status": 422, "error_code": "REQUEST_VALIDATION_ERROR"})
    with pytest.raises(RequestRejectedError) as caught:
        fit_once(classification)
    assert caught.value.terminal
    assert caught.value.trace_id
    assert journal.posts(FIT) == 1


# Fit jobs


def test_a_job_is_pending_then_completed(client, control, classification, journal):
    control.configure(fit_seconds=1.0, retry_in_secs=0.3)
    train_set = upload(client, classification)
    run = EngineRun(engine="python", run_id="run-1")
    pending = client.submit_fit_job(train_set, parameters=classification.parameters, name="churn", run=run)
    assert pending.status == "pending"
    assert client.get_fit_status(pending.fitted_train_set_id).status == "pending"
    assert client.get_fit_status(pending.fitted_train_set_id).retry_in_secs == 0.3
    seen = []
    kept = FittedModel.model_validate_json(pending.model_dump_json())
    done = client.wait_for_fit(kept, progress=seen.append)
    assert done.status == "completed"
    assert done.timings["fit_s"] > 0
    assert done.model_copy(update={"status": "pending", "timings": {}}) == pending
    assert [step.note for step in seen][-1] == "completed"
    assert journal.posts(SUBMIT) == 1
    assert journal.posts(FIT) == 0


def test_the_record_says_what_was_fitted(client, classification, journal):
    model = client.fit(classification.train, "outcome", parameters=classification.parameters, name="churn")
    assert (model.name, model.task, model.target, model.rows) == ("churn", "classification", "outcome", 60)
    assert [(f.name, f.dtype) for f in model.features] == [("x", "double"), ("other", "int64")]
    assert model.classes == ("no", "yes")
    assert model.source.uris == (classification.train,)
    assert model.source.rows == 60
    assert len(model.source.fingerprint) == 64
    assert model.packages["tabpfn-providers"]
    assert model.created_at.utcoffset().total_seconds() == 0
    again = client.fit(classification.train, "outcome", parameters=classification.parameters)
    assert again.source.fingerprint == model.source.fingerprint
    assert again.fitted_train_set_id != model.fitted_train_set_id
    assert again.train_set_upload_id == model.train_set_upload_id
    assert upload(client, classification, exclude=["x"]).source.fingerprint != model.source.fingerprint


def test_one_look_is_one_request(client, fit_once, classification, journal):
    model = fit_once(classification)
    status = client.get_fit_status(model.fitted_train_set_id)
    assert jobs.completed(model, status).status == "completed"
    assert journal.posts(LOOK) == 1


def test_a_completed_model_is_not_waited_for(client, fit_once, classification, journal):
    model = fit_once(classification)
    assert client.wait_for_fit(model) == model
    assert journal.posts(LOOK) == 0


def test_an_unknown_fit(client, fit_once, classification, connect):
    model = fit_once(classification)
    for other in (client, connect("somebody-else")):
        fitted_id = model.fitted_train_set_id if other is not client else "0b8be4c5-13b0-4c60-a6ae-fdd2a0f10b83"
        with pytest.raises(FittedModelNotFoundError, match=fitted_id) as caught:
            other.get_fit_status(fitted_id)
        assert caught.value.status == 404


@pytest.mark.parametrize("status", [404, 405])
def test_a_server_without_jobs_is_told_and_nothing_else_is_tried(client, control, classification, journal, status):
    if status == 404:
        control.configure(async_fit=False)
    else:
        control.inject({"kind": "status", "route": SUBMIT, "status": 405, "times": None})
    with pytest.raises(AsyncFitUnsupportedError, match="streamed=True") as caught:
        client.fit(classification.train, "outcome", parameters=classification.parameters)
    assert caught.value.status == status
    assert caught.value.terminal
    assert journal.posts(SUBMIT) == 1
    assert journal.posts(FIT) == 0
    assert fits_of(control, journal) == []


def test_a_missing_upload_is_not_taken_for_a_missing_route(client, classification):
    train_set = upload(client, classification)
    client.delete_dataset(train_set.train_set_upload_id)
    with pytest.raises(NotFoundError, match=train_set.train_set_upload_id) as caught:
        client.submit_fit_job(train_set, parameters=classification.parameters)
    assert not isinstance(caught.value, AsyncFitUnsupportedError)


def test_a_job_that_fails(client, control, classification, journal):
    control.inject({"kind": "fail_fit", "route": SUBMIT, "error": "the target is constant", "error_code": "USER_ERROR"})
    with pytest.raises(FitFailedError, match="the target is constant") as caught:
        client.fit(classification.train, "outcome", parameters=classification.parameters)
    (fit,) = [row for row in control.fits() if row["fitted_train_set_id"] == caught.value.fitted_train_set_id]
    assert fit["status"] == "failed"
    assert caught.value.code == "USER_ERROR"
    assert caught.value.terminal
    assert journal.posts(SUBMIT) == 1


def test_a_deadline_loses_nothing(client, control, classification, journal):
    control.configure(fit_seconds=1.5, retry_in_secs=0.3)
    train_set = upload(client, classification)
    pending = client.submit_fit_job(train_set, parameters=classification.parameters)
    with pytest.raises(FitTimeoutError, match="longer timeout") as caught:
        client.wait_for_fit(pending, timeout=0.4)
    assert caught.value.fitted_train_set_id == pending.fitted_train_set_id
    assert caught.value.terminal
    assert client.wait_for_fit(pending, timeout=60).status == "completed"
    assert journal.posts(SUBMIT) == 1


def test_the_servers_own_deadline_is_the_default(client, control, classification):
    control.configure(fit_seconds=1.5, retry_in_secs=0.3, poll_timeout_secs=0.4)
    with pytest.raises(FitTimeoutError):
        client.fit(classification.train, "outcome", parameters=classification.parameters)


def test_a_look_that_fails_is_repeated(client, control, classification, journal):
    control.inject(
        {"kind": "status", "route": LOOK, "status": 500},
        {"kind": "drop", "route": LOOK, "when": "after"},
    )
    model = client.fit(classification.train, "outcome", parameters=classification.parameters)
    assert model.status == "completed"
    assert journal.posts(LOOK) >= 3


# What nobody can know

STANDARD = FitParameters(task="classification")
BILLED = FitParameters(task="classification", thinking=Thinking(effort="medium"))


def create(client, tables, route, parameters, **options):
    train_set = upload(client, tables)
    if route == FIT:
        return client.fit_train_set(train_set, parameters=parameters, **options)
    return client.submit_fit_job(train_set, parameters=parameters, **options)


def fits_of(control, journal):
    ids = {row["ids"].get("fitted_train_set_id") for row in journal.rows()}
    return [fit for fit in control.fits() if fit["fitted_train_set_id"] in ids]


@pytest.mark.parametrize("route", [FIT, SUBMIT])
@pytest.mark.parametrize("when", ["before", "middle", "after"])
def test_a_free_fit_of_unknown_outcome_is_sent_once_more(client, control, classification, journal, route, when):
    control.inject({"kind": "drop", "route": route, "when": when})
    model = create(client, classification, route, STANDARD)
    assert client.get_fit_status(model.fitted_train_set_id).status in {"pending", "completed"}
    assert journal.posts(route) == 2
    assert len(fits_of(control, journal)) == (1 if when == "before" else 2)


@pytest.mark.parametrize("route", [FIT, SUBMIT])
@pytest.mark.parametrize(
    ("parameters", "on_unknown"), [(BILLED, "auto"), (BILLED, "raise"), (STANDARD, "raise")], ids=lambda v: str(v)[:12]
)
def test_a_billed_fit_is_sent_once(client, control, classification, journal, route, parameters, on_unknown):
    control.inject({"kind": "drop", "route": route, "when": "after", "times": None})
    with pytest.raises(OutcomeUnknownError, match=rf"POST {route}") as caught:
        create(client, classification, route, parameters, on_unknown=on_unknown)
    assert caught.value.terminal
    assert journal.posts(route) == 1
    assert len(fits_of(control, journal)) == 1


def test_a_billed_fit_is_sent_again_by_order(client, control, classification, journal):
    control.inject({"kind": "drop", "route": SUBMIT, "when": "after"})
    create(client, classification, SUBMIT, BILLED, on_unknown="resubmit")
    assert journal.posts(SUBMIT) == 2
    assert [bool(fit["thinking"]) for fit in fits_of(control, journal)] == [True, True]


def test_even_a_free_fit_is_sent_twice_at_most(client, control, classification, journal):
    control.inject({"kind": "drop", "route": SUBMIT, "when": "after", "times": None})
    with pytest.raises(OutcomeUnknownError):
        create(client, classification, SUBMIT, STANDARD)
    assert journal.posts(SUBMIT) == 2


@pytest.mark.parametrize("status", [408, 502, 503, 504])
def test_a_gateways_answer_does_not_say_whether_a_billed_fit_ran(client, control, classification, journal, status):
    control.inject({"kind": "status", "route": SUBMIT, "status": status, "when": "after", "times": None})
    with pytest.raises(OutcomeUnknownError, match=f"HTTP {status}"):
        create(client, classification, SUBMIT, BILLED)
    assert journal.posts(SUBMIT) == 1


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 429, "error_code": "RATE_LIMIT_EXCEEDED", "headers": {"Retry-After": "0"}},
        {"status": 429, "error_code": "SOMETHING_NEW", "headers": {"Retry-After": "0"}},
        {"status": 503, "headers": {"Retry-After": "0"}},
    ],
    ids=["rate limit", "429 of unknown code", "503"],
)
def test_what_was_refused_at_the_door_is_sent_again(client, control, classification, journal, answer):
    control.inject({"kind": "status", "route": SUBMIT, **answer})
    create(client, classification, SUBMIT, BILLED)
    assert journal.posts(SUBMIT) == 2
    assert len(fits_of(control, journal)) == 1


def test_a_rate_limit_beyond_the_waiting_budget(client, control, classification, journal):
    headers = {"Retry-After": "3600"}
    control.inject(
        {"kind": "status", "route": SUBMIT, "status": 429, "error_code": "RATE_LIMIT_EXCEEDED", "headers": headers}
    )
    with pytest.raises(RateLimitedError) as caught:
        create(client, classification, SUBMIT, BILLED)
    assert caught.value.retry_after == 3600
    assert not caught.value.terminal
    assert journal.posts(SUBMIT) == 1


def test_an_empty_pool_is_not_waited_for(client, control, classification, journal):
    control.inject(
        {
            "kind": "status",
            "route": SUBMIT,
            "status": 429,
            "error_code": "INSUFFICIENT_QUOTA",
            "error": "The daily pool is empty.",
            "headers": {"Retry-After": "0"},
            "times": None,
        }
    )
    with pytest.raises(QuotaExceededError, match="daily pool is empty"):
        create(client, classification, SUBMIT, BILLED)
    assert journal.posts(SUBMIT) == 1


# What is learnt


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["b", "a", "c", "a"], ("a", "b", "c")),
        ([2, 10, 1, 2], (1, 2, 10)),
        ([True, False, True, True], (False, True)),
        (pa.array(["z", "y", "z", "y"]).dictionary_encode(), ("y", "z")),
    ],
    ids=["text", "whole numbers", "booleans", "dictionary"],
)
def test_class_labels_are_sorted_and_keep_their_type(client, write, labels, classes):
    source = write({"x": [1.0, 2.0, 3.0, 4.0], "label": labels})
    model = client.fit(source, "label", parameters=FitParameters(task="classification"), streamed=True)
    assert model.classes == classes
    assert [type(label) for label in model.classes] == [type(label) for label in classes]
    assert FittedModel.model_validate_json(model.model_dump_json()) == model


@pytest.mark.parametrize("kind", [pa.float32(), pa.int16(), pa.decimal128(9, 0)], ids=str)
def test_any_number_can_be_regressed(client, write, kind):
    y = pa.array([1, 2, 3, 4, 5], pa.int8()).cast(kind)
    source = write({"x": [1.0, 2.0, 3.0, 4.0, 5.0], "y": y})
    model = client.fit(source, "y", parameters=FitParameters(task="regression"), streamed=True)
    assert (model.status, model.classes) == ("completed", None)


def test_missing_features_and_many_types_go_through(client, write, uploaded):
    table = pa.table(
        {
            "number": pa.array([1.5, None, float("nan"), 4.0]),
            "text": pa.array(["a", None, "Grüße, |*_", ""]),
            "when": pa.array([0, 1, None, 3], pa.timestamp("us", "Europe/Berlin")),
            "kind": pa.array(["u", "v", None, "u"]).dictionary_encode(),
            "flag": pa.array([True, None, False, True]),
            "y": ["n", "p", "n", "p"],
        }
    )
    train_set = client.upload_train_set(write(table), "y", task="classification")
    sent = uploaded(train_set.train_set_upload_id, "x_train")
    assert sent.schema.equals(table.drop_columns(["y"]).schema)
    assert sent.drop_columns(["number"]).equals(table.drop_columns(["y", "number"]))
    model = client.fit_train_set(train_set, parameters=FitParameters(task="classification"))
    assert model.status == "completed"


def test_a_train_set_is_for_one_task(client, classification, journal):
    train_set = upload(client, classification)
    with pytest.raises(ConfigurationError, match="checked for classification, the parameters say regression"):
        client.submit_fit_job(train_set, parameters=FitParameters(task="regression"))
    assert journal.posts(SUBMIT) == 0
