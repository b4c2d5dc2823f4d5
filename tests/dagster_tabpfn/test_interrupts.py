"""A run that ends in mid-fit: a person's Terminate is final, an eviction is not ours to decide."""

import os
import signal
import threading
from contextlib import contextmanager

import dagster as dg
import pytest

from tabpfn_assets import FitParameters, Thinking
from tabpfn_emulator.testing import account_of

POLICY = dg.RetryPolicy(max_retries=2, delay=0)


@contextmanager
def interrupt_once(fitting, first=lambda: None):
    """Send this process what Dagster's launcher sends, as soon as `fitting()` is true."""

    over = threading.Event()

    def send():
        while not over.wait(0.02):
            if fitting():
                first()
                os.kill(os.getpid(), signal.SIGINT)
                return

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        over.set()
        sender.join()


@pytest.fixture
def waiting(control, token):
    """Whether this test's fit has been looked at, so that the step is certainly waiting for it."""
    control.configure(fit_seconds=30, retry_in_secs=20)
    account = account_of(token)
    return lambda: bool(control.journal(route="/tabpfn/get_fit_status", account=account))


def only_run(instance):
    (run,) = instance.get_runs()
    return run


def test_terminate_is_final_and_names_the_fit_that_goes_on(build, stored_instance, control, token, waiting, failure_of):
    pipeline = build(fit={"retry_policy": POLICY})

    with interrupt_once(waiting, lambda: stored_instance.report_run_canceling(only_run(stored_instance))):
        result = pipeline.materialize(stored_instance)

    (fit,) = control.fits(account=account_of(token))
    failure, tries = failure_of(result)
    assert tries == 1
    assert fit["fitted_train_set_id"] in failure.user_failure_data.description
    assert "goes on at the server" in failure.user_failure_data.description
    assert only_run(stored_instance).status is dg.DagsterRunStatus.CANCELED
    assert stored_instance.get_latest_materialization_event(dg.AssetKey("model")) is None


def test_an_eviction_is_left_to_dagster(build, instance, control, token, waiting, failure_of):
    pipeline = build()

    with interrupt_once(waiting):
        result = pipeline.materialize(instance)

    failure, _ = failure_of(result)
    assert failure.error.cls_name == "DagsterExecutionInterruptedError"
    assert only_run(instance).status is dg.DagsterRunStatus.FAILURE
    assert len(control.fits(account=account_of(token))) == 1
    assert instance.get_latest_materialization_event(dg.AssetKey("model")) is None


def test_a_billed_fit_is_not_fitted_again_after_an_eviction(build, instance, control, token, waiting, failure_of):
    thinking = FitParameters(task="classification", thinking=Thinking(effort="medium"))
    pipeline = build(fit={"parameters": thinking, "retry_policy": POLICY})

    with interrupt_once(waiting):
        result = pipeline.materialize(instance, ["model"])

    (fit,) = control.fits(account=account_of(token))
    failure, tries = failure_of(result)
    assert tries == 1
    assert fit["fitted_train_set_id"] in failure.user_failure_data.description


def test_no_thread_is_left(build, instance, waiting):
    before = set(threading.enumerate())

    with interrupt_once(waiting):
        result = build().materialize(instance, ["model"])

    assert not result.success
    assert set(threading.enumerate()) <= before
