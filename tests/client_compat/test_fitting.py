"""How a fit is asked for: at once or as a job, thinking, kept alive, sent again, resumed."""

import time

import httpx
import pandas as pd
import pytest


def test_the_asynchronous_mode(client, control, few, fit, posts):
    control.configure(fit_seconds=1.0, retry_in_secs=0.3)
    model = fit(api_mode="async")
    assert model.predict(few[1]).shape == (len(few[1]),)
    assert posts("/tabpfn/submit_fit_job") == [200]
    assert len(posts("/tabpfn/get_fit_status")) >= 2
    assert posts("/tabpfn/fit") == []


def test_the_automatic_mode_follows_the_servers_threshold(client, control, fit, posts):
    fit()
    assert (posts("/tabpfn/fit"), posts("/tabpfn/submit_fit_job")) == ([200], [])
    control.configure(async_threshold_bytes=1)
    _forget_settings()
    fit()
    assert (posts("/tabpfn/fit"), posts("/tabpfn/submit_fit_job")) == ([200], [200])


def _forget_settings():
    from tabpfn_client.client import ServiceClient

    ServiceClient._api_settings = None


def test_the_environment_beats_the_servers_threshold(client_option, fit, posts):
    client_option("TABPFN_CLIENT_ASYNC_USE_ABOVE_TRAINSET_SIZE", 1)
    fit()
    assert posts("/tabpfn/submit_fit_job") == [200]


def test_a_long_synchronous_fit_with_keepalive(control, few, fit):
    control.configure(fit_seconds=0.5, keepalive_after_secs=0.1, keepalive_every_secs=0.1)
    assert fit(api_mode="sync").predict(few[1]).shape == (len(few[1]),)


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        ({"thinking_mode": True}, {"effort": "medium"}),
        ({"thinking_effort": "medium"}, {"effort": "medium"}),
        (
            {"thinking_effort": "high", "thinking_timeout_s": 30, "thinking_metric": "accuracy"},
            {"effort": "high", "timeout_secs": 30.0, "metric": "accuracy"},
        ),
    ],
)
def test_a_thinking_fit(control, few, account, fit, options, sent):
    assert fit(**options).predict(few[1]).shape == (len(few[1]),)
    (fitted,) = control.fits(account=account)
    assert fitted["thinking"] == sent
    assert fitted["systems"] == ["preprocessing", "text", "thinking"]
    assert fitted["charge"] > 0


def test_a_thinking_regression(client, control, few, account):
    train, test, y_train, _ = few
    model = client.TabPFNRegressor(thinking_effort="medium", thinking_metric="rmse", api_mode="async")
    assert model.fit(train, y_train).predict(test).shape == (len(test),)
    (fitted,) = control.fits(account=account)
    assert fitted["thinking"] == {"effort": "medium", "metric": "rmse"}


@pytest.mark.parametrize(
    "columns",
    [
        pytest.param({"group_col": "patient"}, marks=pytest.mark.needs("group_col")),
        pytest.param({"group_col": ["patient", "ward"]}, marks=pytest.mark.needs("group_col")),
        pytest.param({"group_col": "patient", "group_time_col": "day"}, marks=pytest.mark.needs("group_col")),
        pytest.param({"time_col": "day"}, marks=pytest.mark.needs("time_col")),
    ],
    ids=str,
)
def test_groups_and_time_of_a_thinking_fit(client, control, few, account, columns):
    def with_groups(frame):
        days = pd.Timestamp("2026-01-01") + pd.to_timedelta(range(len(frame)), unit="D")
        numbers = list(range(len(frame)))
        return frame.assign(patient=[f"p{n % 7}" for n in numbers], ward=[n % 3 for n in numbers], day=days)

    train, test, y_train, _ = few
    model = client.TabPFNClassifier(thinking_mode=True, **columns).fit(with_groups(train), y_train)
    assert model.predict(with_groups(test)).shape == (len(test),)
    (fitted,) = control.fits(account=account)
    assert fitted["thinking"] == {"effort": "medium", **columns}


def test_a_failed_asynchronous_fit_is_told(control, fit):
    control.inject({"kind": "fail_fit", "error": "worker lost"})
    with pytest.raises(RuntimeError, match="worker lost"):
        fit(api_mode="async")


@pytest.mark.parametrize("streamed", [False, True])
def test_a_failed_synchronous_fit_is_told(control, fit, streamed):
    if streamed:
        control.configure(fit_seconds=0.3, keepalive_after_secs=0.05, keepalive_every_secs=0.05)
    control.inject({"kind": "fail_fit", "error": "worker lost"})
    with pytest.raises(RuntimeError, match="streamed, worker lost" if streamed else r"\[HTTP 500\] worker lost"):
        fit()


def test_a_dropped_connection_leads_to_a_second_fit(control, fit, account):
    control.inject({"route": "/tabpfn/fit", "kind": "drop", "when": "after"})
    fit()
    assert len(control.fits(account=account)) == 2


def test_a_client_that_loses_patience_fits_twice(client, control, fit, account):
    from tabpfn_client.models import ClientOptions

    control.configure(fit_seconds=2.5, keepalive_after_secs=60)
    with pytest.raises(httpx.ReadTimeout):
        fit(client_options=ClientOptions(timeout=0.6))
    assert len(control.fits(account=account)) == 2


def test_a_job_is_never_submitted_twice(control, fit, account):
    control.inject({"route": "/tabpfn/submit_fit_job", "kind": "drop", "when": "after"})
    with pytest.raises(httpx.RemoteProtocolError):
        fit(api_mode="async")
    assert len(control.fits(account=account)) == 1


def poll_slowly(control):
    control.configure(fit_seconds=1.2, retry_in_secs=0.3)


def test_a_poll_that_finds_the_server_unavailable_is_repeated(control, few, fit, posts):
    poll_slowly(control)
    control.inject({"route": "/tabpfn/get_fit_status", "kind": "status", "status": 503, "skip": 1})
    assert fit(api_mode="async").predict(few[1]).shape == (len(few[1]),)
    assert posts("/tabpfn/get_fit_status")[:3] == [200, 503, 200]


@pytest.mark.parametrize("status", [429, 500])
@pytest.mark.parametrize("times", [3, 4])
def test_three_other_errors_in_a_row_are_borne_while_polling(control, few, fit, posts, status, times):
    poll_slowly(control)
    fault = {"route": "/tabpfn/get_fit_status", "kind": "status", "status": status, "skip": 1, "times": times}
    control.inject(fault)
    if times == 3:
        assert fit(api_mode="async").predict(few[1]).shape == (len(few[1]),)
    else:
        with pytest.raises(Exception, match=rf"\[HTTP {status}\]"):
            fit(api_mode="async")
    assert posts("/tabpfn/get_fit_status")[: times + 1] == [200, *[status] * times]


def test_a_fit_outlives_the_patience_of_its_client(client, control, few, fit, account):
    control.configure(fit_seconds=2.0, retry_in_secs=0.3, poll_timeout_secs=0.5)
    with pytest.raises(TimeoutError, match="did not reach a terminal state"):
        fit(api_mode="async")
    deadline = time.monotonic() + 30
    while (job := control.fits(account=account)[0])["status"] == "pending" and time.monotonic() < deadline:
        time.sleep(0.1)
    model = client.TabPFNClassifier()
    model.model_id_ = job["fitted_train_set_id"]
    assert model.predict(few[1]).shape == (len(few[1]),)


@pytest.mark.needs("get_timings")
def test_timings_are_reported(client, control, few, fit):
    control.configure(fit_seconds=0.3)
    model = fit()
    assert model.get_timings() == {"fit": model.fit_timings_, "predict": None}
    assert model.fit_timings_["elapsed_s"] >= 0.3
    assert set(model.fit_timings_) == {"elapsed_s", "queue_wait_s", "train_set_transform_s", "fit_s"}
    assert all(value is not None and value >= 0 for value in model.fit_timings_.values())
    model.predict(few[1])
    assert set(model.last_predict_timings) == {
        "test_set_transform_queue_wait_s",
        "test_set_transform_s",
        "predict_queue_wait_s",
        "predict_s",
    }
    assert model.get_timings() == {"fit": model.fit_timings_, "predict": model.last_predict_timings}


@pytest.mark.needs("get_timings")
def test_timings_of_a_job_are_reported(control, fit):
    control.configure(fit_seconds=0.4, retry_in_secs=0.3)
    assert fit(api_mode="async").fit_timings_["elapsed_s"] >= 0.4


@pytest.mark.needs("get_timings")
def test_timings_of_a_split_prediction_are_added_up(client, control, diabetes):
    train, test, y_train, _ = diabetes
    control.configure(limits={"test_set_max_rows_w_full_regression_output": 40})
    model = client.TabPFNRegressor().fit(train, y_train)
    model.predict(test, output_type="full")
    assert model.last_predict_timings["predict_s"] > 0
