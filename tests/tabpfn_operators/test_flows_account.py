"""Settings, limits, usage, cost, deletion, and which token and base URL are used."""

import pytest

from tabpfn_emulator.testing import account_of
from tabpfn_operators.errors import (
    AccessDeniedError,
    ApiError,
    AuthenticationError,
    ConfigurationError,
    ConnectionFailedError,
    FittedModelNotFoundError,
    NotFoundError,
    QuotaExceededError,
    RateLimitedError,
    ServerError,
    UpgradeRequiredError,
)


def test_settings_hold_the_limits_of_each_version(client, control):
    control.configure(limits={"max_cols": 7}, poll_timeout_secs=123.0, dataset_max_size_bytes=4096)
    settings = client.get_settings()
    assert settings.default_model_version == "v3"
    assert settings.limit_for(None) == settings.limit_for("v3")
    assert settings.limit_for("v3").train_set_max_rows == 1_000_000
    assert settings.limit_for("v2.6").max_classes == 10
    assert settings.limit_for("v3").max_cols == 7
    assert settings.async_settings.poll_timeout_secs == 123.0
    assert settings.dataset_max_size_bytes == 4096


def test_an_older_server_has_limits_only(client, control, journal):
    newer = client.get_settings()
    control.configure(get_settings=False)
    older = client.get_settings()
    assert older.model_limits == newer.model_limits
    assert older.max_model_limit == newer.max_model_limit
    assert older.async_settings.poll_timeout_secs == 7200.0
    assert journal.routes() == ["/tabpfn/get_settings", "/tabpfn/get_settings", "/tabpfn/get_model_limits"]


def test_limits_by_the_older_route(client, journal):
    limits = client.get_model_limits()
    assert limits.limit_for("v2.5").train_set_max_rows == 50_000
    assert journal.routes() == ["/tabpfn/get_model_limits"]


def test_a_server_that_is_not_the_api_is_named(client, control):
    control.inject({"kind": "status", "route": "/tabpfn/get_settings", "status": 200, "body": "<html>hello</html>"})
    with pytest.raises(ServerError, match=r"GET /tabpfn/get_settings: the answer is not a JSON object"):
        client.get_settings()


def test_usage_is_what_the_calls_were_charged(client, fit_once, classification, tmp_path, journal):
    assert client.get_api_usage().current_usage == 0
    client.predict(fit_once(classification), classification.score, str(tmp_path / "out"))
    usage = client.get_api_usage()
    charged = sum(row["charge"] for row in journal.rows())
    assert usage.current_usage == usage.daily_tokens_used == usage.monthly_tokens_used == charged > 0
    assert usage.usage_limit == usage.daily_token_limit
    assert usage.reset_time


def test_an_estimate_costs_nothing_and_sends_dimensions_only(client, journal):
    estimate = client.estimate_cost(
        1000, 20, test_rows=50, model_version="v3", operation="thinking_fit", n_estimators=4, thinking_effort="high"
    )
    assert estimate.estimated_cost > 0
    assert estimate.pricing_version == "quota_v3"
    assert estimate.inputs == {
        "train_rows": 1000,
        "raw_columns": 20,
        "test_rows": 50,
        "model_version": "v3",
        "operation": "thinking_fit",
        "n_estimators": 4,
        "thinking_effort": "high",
    }
    assert client.estimate_cost(1000, 20).inputs["operation"] == "predict"
    assert [row["charge"] for row in journal.rows("/tabpfn/estimate_cost")] == [0, 0]


def test_deleting_a_train_set_takes_its_models(client, fit_once, classification, tmp_path):
    model = fit_once(classification)
    test_set = client.upload_test_set(model, classification.score)
    gone = client.delete_dataset(model.train_set_upload_id)
    assert set(gone) == {model.train_set_upload_id, test_set.test_set_upload_id}
    with pytest.raises(FittedModelNotFoundError, match=model.fitted_train_set_id):
        client.predict(model, classification.score, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_deleting_twice_deletes_once(client, fit_once, classification):
    model = fit_once(classification)
    assert client.delete_dataset(model.train_set_upload_id) == (model.train_set_upload_id,)
    assert client.delete_dataset(model.train_set_upload_id) == ()
    assert client.delete_dataset("a/b?c=d&e#f") == ()


def test_deleting_everything(client, fit_once, classification, regression):
    ids = {fit_once(classification).train_set_upload_id}
    assert set(client.delete_all_datasets()) == ids
    assert client.delete_all_datasets() == ()


def test_deleting_does_not_reach_another_account(connect, fit_once, classification, client):
    model = fit_once(classification)
    assert connect("somebody-else").delete_dataset(model.train_set_upload_id) == ()
    assert client.get_fit_status(model.fitted_train_set_id).status == "completed"


def test_a_token_is_checked(connect, strict_emulator):
    assert connect("the-right-token", base_url=strict_emulator).check_token() is None
    with pytest.raises(AuthenticationError, match="TABPFN_TOKEN") as caught:
        connect("a-wrong-token", base_url=strict_emulator).check_token()
    assert caught.value.status == 401
    assert caught.value.code == "UNAUTHORIZED"
    assert caught.value.trace_id
    assert caught.value.terminal
    assert "a-wrong-token" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"status": 403, "error_code": "auth.forbidden"}, AccessDeniedError),
        ({"status": 404, "error_code": "NOT_FOUND"}, NotFoundError),
        ({"status": 426, "body": {"message": "too old"}}, UpgradeRequiredError),
        ({"status": 429, "error_code": "INSUFFICIENT_QUOTA"}, QuotaExceededError),
        ({"status": 429, "error_code": "RATE_LIMIT_EXCEEDED", "headers": {"Retry-After": "3600"}}, RateLimitedError),
        ({"status": 418, "body": "teapot"}, ApiError),
    ],
)
def test_a_refusal_is_told_once(client, control, journal, answer, kind):
    control.inject({"kind": "status", "route": "/protected/", "times": None, **answer})
    with pytest.raises(kind) as caught:
        client.check_token()
    assert type(caught.value) is kind
    assert caught.value.status == answer["status"]
    assert journal.routes() == ["/protected/"]


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 500},
        {"kind": "status", "status": 503},
        {"kind": "status", "status": 408},
        {"kind": "status", "status": 429, "error_code": "RATE_LIMIT_EXCEEDED", "headers": {"Retry-After": "0"}},
        {"kind": "drop", "when": "after"},
        {"kind": "drop", "when": "middle"},
    ],
    ids=["500", "503", "408", "429", "dropped", "cut off"],
)
def test_what_costs_nothing_is_sent_again(client, control, journal, fault):
    control.inject({"route": "/get_api_usage/", **fault})
    assert client.get_api_usage().current_usage == 0
    assert journal.posts("/get_api_usage/") == 2


def test_a_server_that_stays_down_is_named(client, control, journal):
    control.inject({"kind": "status", "route": "/protected/", "status": 503, "times": None})
    with pytest.raises(ServerError, match=r"GET /protected/") as caught:
        client.check_token()
    assert not caught.value.terminal
    assert len(journal.rows()) == 5


def test_nobody_listens(connect):
    with pytest.raises(ConnectionFailedError, match=r"base_url, proxy and network") as caught:
        connect(base_url="http://127.0.0.1:9").check_token()
    assert not caught.value.terminal


def account_used(client, journal):
    client.check_token()
    return journal.rows("/protected/")[-1]["account"]


def test_the_token_given_wins(connect, journal, monkeypatch):
    monkeypatch.setenv("TABPFN_TOKEN", "from-the-variable")
    assert account_used(connect("given"), journal) == account_of("given")


def test_tabpfn_token_comes_before_priorlabs_api_key(connect, journal, monkeypatch):
    monkeypatch.setenv("PRIORLABS_API_KEY", "second")
    assert account_used(connect(None), journal) == account_of("second")
    monkeypatch.setenv("TABPFN_TOKEN", "first")
    assert account_used(connect(None), journal) == account_of("first")


def test_without_a_token_nothing_is_sent(connect, journal):
    with pytest.raises(ConfigurationError, match=r"TABPFN_TOKEN \(or PRIORLABS_API_KEY\)"):
        connect(None)
    assert journal.rows() == []


def test_a_function_is_asked_for_the_token_at_every_call(connect, journal):
    tokens = iter(["monday", "tuesday"])
    client = connect(lambda: next(tokens))
    assert account_used(client, journal) == account_of("monday")
    assert account_used(client, journal) == account_of("tuesday")


def test_the_base_url_given_wins(connect, monkeypatch):
    monkeypatch.setenv("TABPFN_API_URL", "http://127.0.0.1:9")
    assert connect().check_token() is None


def test_the_base_url_of_the_variable(connect, emulator, monkeypatch):
    monkeypatch.setenv("TABPFN_API_URL", f"{emulator}/")
    assert connect(base_url=None).check_token() is None


def test_the_base_url_is_the_vendors_else(connect):
    assert connect(base_url=None).settings.base_url == "https://api.priorlabs.ai"
