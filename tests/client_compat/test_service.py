"""What else the client does with the API: errors, retries, limits, prices, its start with a token."""

import os
import subprocess
import sys

import httpx
import pytest

from tabpfn_emulator.testing import EmulatorControl, running_emulator


def status(control, route, code, **more):
    control.inject({"route": route, "kind": "status", "status": code, **more})


@pytest.mark.parametrize("code", [408, 502, 503, 504])
@pytest.mark.parametrize("route", ["/tabpfn/fit", "/tabpfn/predict"])
def test_an_unavailable_server_is_asked_again(control, few, fit, posts, route, code):
    status(control, route, code)
    assert fit().predict(few[1]).shape == (len(few[1]),)
    assert posts(route) == [code, 200]


def test_a_server_that_stays_unavailable_is_told(control, few, fit, posts):
    model = fit()
    status(control, "/tabpfn/predict", 503, times=2, body={"message": "come back", "trace_id": "trace-7"})
    with pytest.raises(Exception, match=r"\[HTTP 503\] come back. Report trace ID: trace-7"):
        model.predict(few[1])
    assert posts("/tabpfn/predict") == [503, 503]


def test_a_prepare_is_not_repeated(control, fit, posts):
    status(control, "/tabpfn/prepare_train_set_upload", 503)
    with pytest.raises(Exception, match=r"prepare_train_set_upload: \[HTTP 503\]"):
        fit()
    assert posts("/tabpfn/prepare_train_set_upload") == [503]


@pytest.mark.parametrize("code", ["RATE_LIMIT_EXCEEDED", "INSUFFICIENT_QUOTA"])
def test_both_kinds_of_429_are_told(control, few, fit, posts, code):
    model = fit()
    status(control, "/tabpfn/predict", 429, body={"message": f"because of {code}", "error_code": code})
    with pytest.raises(RuntimeError, match=code):
        model.predict(few[1])
    assert posts("/tabpfn/predict") == [429]


def test_an_internal_error_is_told(control, few, fit, posts):
    model = fit()
    status(control, "/tabpfn/predict", 500)
    with pytest.raises(RuntimeError, match=r"\[HTTP 500\]"):
        model.predict(few[1])
    assert posts("/tabpfn/predict") == [500]


def test_a_refused_setting_is_named(client, few, fit):
    with pytest.raises(RuntimeError, match=r"\[HTTP 422\].*n_estimators"):
        fit(n_estimators=9)


def test_a_predict_without_an_answer_is_sent_and_charged_twice(client, control, few, fit, posts, account):
    from tabpfn_client.models import ClientOptions

    model = fit()
    model.client_options = ClientOptions(timeout=1.0)
    control.inject({"route": "/tabpfn/predict", "kind": "hang", "when": "after", "times": 2})
    with pytest.raises(httpx.ReadTimeout):
        model.predict(few[1])
    assert len(posts("/tabpfn/predict")) == 2
    assert [row["charge"] > 0 for row in control.creations(kind="predict_run", account=account)] == [True, True]


def test_a_client_that_is_too_old_is_told_so(control, few, fit):
    model = fit()
    status(
        control,
        "/tabpfn/predict",
        426,
        body={"message": "Upgrade, please"},
        headers={"deprecation": "true", "sunset": "2027-01-01", "link": '<https://example.com/new>; rel="deprecation"'},
    )
    with (
        pytest.warns(DeprecationWarning, match="2027-01-01.*https://example.com/new"),
        pytest.raises(RuntimeError, match="Upgrade, please"),
    ):
        model.predict(few[1])


def test_without_settings_the_client_goes_on_without_limits(control, few, fit):
    control.configure(get_settings=False)
    assert fit().predict(few[1]).shape == (len(few[1]),)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"train_set_max_rows": 10}, "train rows"),
        ({"max_cols": 3}, "train columns"),
        ({"max_classes": 1}, "Number of classes"),
        ({"train_set_max_cells": 100, "train_set_max_upload_cells": 100}, "cells"),
    ],
)
def test_the_servers_limits_are_the_clients_limits(control, fit, posts, limits, words):
    control.configure(limits=limits)
    with pytest.raises(ValueError, match=words):
        fit()
    assert posts("/tabpfn/prepare_train_set_upload") == []


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"test_set_max_rows": 9}, "test rows"),
        ({"predict_row_pairs_budget": 40 * 9}, "test rows"),
        ({"test_set_max_cells": 39}, "test cells"),
    ],
)
def test_the_servers_limits_hold_for_predictions(control, few, fit, posts, limits, words):
    control.configure(limits=limits)
    model = fit()
    with pytest.raises(ValueError, match=words):
        model.predict(few[1])
    assert posts("/tabpfn/prepare_test_set_upload") == []


def test_the_largest_dataset_is_the_servers(control, fit):
    control.configure(dataset_max_size_bytes=100)
    with pytest.raises(ValueError, match="exceeds the server limit of 100 bytes"):
        fit()


@pytest.mark.needs("estimate_cost")
def test_costs_are_estimated(client, cancer, posts):
    train, test, _, _ = cancer
    quote = client.estimate_cost(train, test, model_version="v2.6")
    assert quote.estimated_cost == (len(train) + len(test)) * train.shape[1] * 8
    assert quote.inputs.n_estimators == 8
    assert posts("/tabpfn/prepare_train_set_upload") == []


@pytest.mark.needs("estimate_cost")
@pytest.mark.parametrize(
    ("operation", "options"),
    [
        ("predict", {"n_estimators": 2}),
        ("thinking_predict", {"model_version": "v3", "n_estimators": 2}),
        ("cache_predict", {"model_version": "v3.5"}),
        ("thinking_fit", {"thinking_effort": "high"}),
        ("thinking_fit", {}),
    ],
)
def test_every_operation_has_a_price(client, cancer, operation, options):
    train, test, _, _ = cancer
    quote = client.estimate_cost(train, None if operation == "thinking_fit" else test, operation=operation, **options)
    assert quote.estimated_cost >= 10_000
    assert quote.pricing_version == "quota_v3"
    assert quote.inputs.operation.value == operation
    assert quote.inputs.model_version.value == options.get("model_version", "v3")
    assert quote.inputs.train_rows == len(train)


@pytest.mark.needs("estimate_cost")
def test_an_estimate_is_what_is_charged(client, control, account, cancer):
    train, test, y_train, _ = cancer
    quote = client.estimate_cost(train, test)
    client.TabPFNClassifier().fit(train, y_train).predict(test)
    (row,) = control.journal(route="/tabpfn/predict", account=account)
    assert row["charge"] == quote.estimated_cost
    assert f"you have used {quote.estimated_cost} of" in client.get_api_usage()


@pytest.mark.needs("estimate_cost")
def test_the_estimate_of_a_thinking_fit_is_what_is_charged(client, control, account, few, fit):
    quote = client.estimate_cost(few[0], operation="thinking_fit", thinking_effort="high")
    fit(thinking_effort="high")
    assert [job["charge"] for job in control.fits(account=account)] == [quote.estimated_cost]
    assert f"you have used {quote.estimated_cost} of" in client.get_api_usage()


@pytest.mark.parametrize("pool", ["daily", "monthly"])
def test_an_empty_pool_is_named(client, control, few, fit, posts, pool):
    model = fit()
    model.predict(few[1])
    control.configure(**{f"{pool}_tokens": 10_001})
    with pytest.raises(RuntimeError, match=rf"\[HTTP 429\] The {pool} pool"):
        model.predict(few[1])
    with pytest.raises(RuntimeError, match=rf"\[HTTP 429\] The {pool} pool"):
        fit(thinking_mode=True)
    assert posts("/tabpfn/predict") == [200, 429]


def test_the_books_hold_what_a_fit_and_its_predictions_created(control, account, few, fit):
    fit()
    fit().predict(few[1])
    kinds = [row["kind"] for row in control.creations(account=account)]
    assert kinds == ["upload_created", "fit_created", "fit_created", "upload_created", "predict_run"]


def test_usage_is_told(client, control, account, few, fit):
    assert "you have used 0 of" in client.get_api_usage()
    fit().predict(few[1])
    (row,) = control.journal(route="/tabpfn/predict", account=account)
    assert f"you have used {row['charge']} of" in client.get_api_usage()


SCRIPT = """
import numpy
from tabpfn_client import TabPFNClassifier
rows = numpy.arange(40.0).reshape(20, 2)
print(TabPFNClassifier().fit(rows, numpy.arange(20) % 2).predict(rows).shape)
"""


@pytest.fixture(scope="module")
def one_token():
    """An emulator that takes the token `right` only."""
    with running_emulator(extra_args=("--token", "right")) as url:
        yield url


def run_script(url, token):
    environment = {**os.environ, "TABPFN_CLIENT_API_URL": url, "TABPFN_TOKEN": token, "TABPFN_NO_BROWSER": "1"}
    environment.pop("TABPFN_CLIENT_CI_MODE", None)
    return subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_token_from_the_environment_is_taken(one_token):
    mark = len(EmulatorControl(one_token).journal())
    done = run_script(one_token, "right")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "(20,)"
    routes = [row["route"] for row in EmulatorControl(one_token).journal(after=mark)]
    assert routes[:3] == ["/protected/", "/retrieve_greeting_messages/", "/tabpfn/get_settings"]


def test_a_wrong_token_is_refused(lacking, one_token):
    done = run_script(one_token, "wrong")
    rows = [row["status"] for row in EmulatorControl(one_token).journal(route="/protected/")]
    assert done.returncode == 1
    assert rows[-1] == 401
    assert "wrong" not in done.stdout
    if "an init() that never prompts" in lacking:
        assert "Login to your TabPFN account" in done.stdout
    else:
        assert "RuntimeError" in done.stderr
        assert "token" in done.stderr.lower()


def test_a_token_that_has_become_wrong_is_told(client, few, fit, control):
    model = fit()
    status(control, "/tabpfn/prepare_test_set_upload", 401, body={"message": "Could not validate credentials"})
    with pytest.raises(RuntimeError, match=r"\[HTTP 401\] Could not validate credentials"):
        model.predict(few[1])
