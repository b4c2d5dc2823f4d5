"""Waiting for a fit, decided by pure functions."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabpfn_assets import FitStatus, FittedModel, JobRecord
from tabpfn_operators import jobs
from tabpfn_operators.errors import FitFailedError, FitTimeoutError

NOW = 1_800_000_000.0
JITTER = st.floats(0, 1, exclude_max=True)
HINTS = st.none() | st.floats(-10, 10_000)
RUNNING = st.sampled_from(["pending", "running", "transforming", ""])


def job(deadline_at=NOW + 100, submitted_at=NOW - 50):
    return JobRecord(
        kind="tabpfn_async", phase="submitted", job_id="f", submitted_at=submitted_at, deadline_at=deadline_at
    )


@given(RUNNING, HINTS, st.floats(0.001, 10_000), JITTER)
def test_a_running_fit_is_looked_at_again_before_the_deadline(word, hint, left, jitter):
    status = FitStatus(fitted_train_set_id="f", status=word, retry_in_secs=hint)
    seconds = jobs.next_look(job(NOW + left), status, now=NOW, jitter=jitter)
    assert 0 <= seconds <= (NOW + left) - NOW
    earliest = max(0.3, 5.0 if hint is None else hint)
    if seconds < (NOW + left) - NOW:
        assert earliest <= seconds <= earliest + min(30.0, earliest / 2)


@given(RUNNING, HINTS, JITTER)
def test_without_a_deadline_the_hint_alone_decides(word, hint, jitter):
    status = FitStatus(fitted_train_set_id="f", status=word, retry_in_secs=hint)
    seconds = jobs.next_look(job(None), status, now=NOW, jitter=jitter)
    assert seconds >= max(0.3, 5.0 if hint is None else hint)


@given(RUNNING, HINTS, st.floats(0, 10_000), JITTER)
def test_a_running_fit_at_the_deadline_is_given_up_with_its_id(word, hint, over, jitter):
    status = FitStatus(fitted_train_set_id="f", status=word, retry_in_secs=hint)
    with pytest.raises(FitTimeoutError) as caught:
        jobs.next_look(job(NOW - over), status, now=NOW, jitter=jitter)
    assert caught.value.fitted_train_set_id == "f"
    assert "f" in str(caught.value)
    assert caught.value.terminal


@given(st.none() | st.floats(-10_000, 10_000), HINTS, JITTER)
def test_a_completed_fit_is_taken_even_after_the_deadline(left, hint, jitter):
    status = FitStatus(fitted_train_set_id="f", status="completed", retry_in_secs=hint)
    deadline = None if left is None else NOW + left
    assert jobs.next_look(job(deadline), status, now=NOW, jitter=jitter) is None


def test_a_failed_fit_raises_the_servers_words():
    status = FitStatus(fitted_train_set_id="f", status="failed", error="one class only", error_code="USER_ERROR")
    with pytest.raises(FitFailedError, match="one class only") as caught:
        jobs.next_look(job(), status, now=NOW, jitter=0)
    assert (caught.value.fitted_train_set_id, caught.value.code) == ("f", "USER_ERROR")


def test_a_failed_fit_without_a_reason_says_so():
    with pytest.raises(FitFailedError, match="gave no reason"):
        jobs.next_look(job(), FitStatus(fitted_train_set_id="f", status="failed"), now=NOW, jitter=0)


@given(st.floats(1, 10_000), st.floats(-1000, 1000))
def test_the_deadline_counts_from_submission_and_never_from_the_future(timeout, age):
    submitted = datetime.fromtimestamp(NOW - age, UTC)
    model = FittedModel(
        fitted_train_set_id="f",
        train_set_upload_id="u",
        status="pending",
        target="y",
        features=(),
        rows=2,
        source={"uris": ["a"], "rows": 2},
        parameters={"task": "regression"},
        created_at=submitted,
    )
    found = jobs.job_of(model, timeout_seconds=timeout, now=NOW)
    assert found.submitted_at == min(submitted.timestamp(), NOW)
    assert found.deadline_at == found.submitted_at + timeout
    assert (found.kind, found.phase, found.job_id) == ("tabpfn_async", "submitted", "f")


def test_a_completed_model_takes_the_timings(build_model):
    model = build_model(status="pending", timings={"elapsed_s": 1.0})
    status = FitStatus(fitted_train_set_id="fitted-1", status="completed", timings={"fit_s": 2.0})
    done = jobs.completed(model, status)
    assert (done.status, done.timings) == ("completed", {"elapsed_s": 1.0, "fit_s": 2.0})
    assert model.status == "pending"


@pytest.mark.parametrize(("fitted_id", "word"), [("other", "completed"), ("fitted-1", "pending")])
def test_another_look_completes_nothing(build_model, fitted_id, word):
    with pytest.raises(ValueError, match="expected fitted-1 completed"):
        jobs.completed(build_model(status="pending"), FitStatus(fitted_train_set_id=fitted_id, status=word))
