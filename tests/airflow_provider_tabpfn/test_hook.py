"""The hook: connections to clients, the environment's fallback, the connection test, masked secrets."""

import asyncio
import json

import pytest
from airflow.providers.common.compat.sdk import AirflowNotFoundException
from airflow.sdk import Connection
from airflow.sdk._shared.secrets_masker import redact

from airflow_provider_tabpfn.hooks.tabpfn import TabPFNHook, client_options
from tabpfn_operators.errors import ConfigurationError


def options(**fields):
    connection = Connection(conn_id="c", conn_type="tabpfn", **fields)
    return client_options(connection, connection.extra_dejson)


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({}, None),
        ({"host": "https://api.example.com/v9"}, "https://api.example.com/v9"),
        ({"host": "api.example.com"}, "https://api.example.com"),
        ({"host": "127.0.0.1", "port": 8000, "schema": "http"}, "http://127.0.0.1:8000"),
    ],
)
def test_host_is_the_base_url(fields, url):
    assert options(**fields)["base_url"] == url


def test_extra_has_the_rest():
    extra = {
        "account": "prod",
        "wire": "flat",
        "connect_timeout": "2.5",
        "read_timeout": 60,
        "proxy": "http://proxy:3128",
        "ca_file": "/ca.pem",
        "allow_http": "true",
    }
    found = options(password="key", extra=json.dumps(extra))
    assert found.pop("user_agent").startswith("airflow/3.")
    assert found == {
        "token": "key",
        "base_url": None,
        "account": "prod",
        "wire": "flat",
        "connect_timeout": 2.5,
        "read_timeout": 60.0,
        "proxy": "http://proxy:3128",
        "verify": "/ca.pem",
        "allow_http": True,
    }


def test_an_empty_form_takes_the_defaults():
    form = {"account": "", "wire": None, "connect_timeout": None, "proxy": "", "verify": None, "allow_http": ""}
    found = options(extra=json.dumps(form))
    assert (found["token"], found["account"], found["wire"], found["proxy"]) == (None, None, "nested", None)
    assert (found["connect_timeout"], found["verify"], found["allow_http"]) == (10.0, True, False)


def test_certificates_are_not_checked_only_when_that_is_said():
    assert options(extra='{"verify": "false", "ca_file": "/ca.pem"}')["verify"] is False
    with pytest.raises(ConfigurationError, match="'verify' must be true or false"):
        options(extra='{"verify": "flase"}')


def test_a_timeout_is_a_number():
    with pytest.raises(ConfigurationError, match="'read_timeout' must be a number of seconds"):
        options(extra='{"read_timeout": "long"}')


def test_connection_test_accepts(connection, control):
    assert TabPFNHook().test_connection() == (True, "The TabPFN API accepts the API key.")


def test_the_connection_form_tests_a_connection(connection, control, emulator, token):
    from airflow.models.connection import Connection as StoredConnection

    stored = StoredConnection(conn_id="tabpfn_default", conn_type="tabpfn", host=emulator, password=token)
    assert stored.test_connection() == (True, "The TabPFN API accepts the API key.")


def test_requests_name_the_engine(connection, control):
    with TabPFNHook().get_conn() as client:
        assert client.settings.user_agent.startswith("airflow/3.")


def test_connection_test_says_what_is_wrong(connect, control):
    control.inject({"kind": "status", "status": 401, "times": None})
    connect()
    accepted, text = TabPFNHook().test_connection()
    assert not accepted
    assert "401" in text


def test_connection_test_without_a_server(connect):
    connect(host="http://127.0.0.1:9", extra={"connect_timeout": 0.2})
    accepted, text = TabPFNHook().test_connection()
    assert not accepted
    assert "Check base_url" in text


def test_connection_test_without_a_connection():
    accepted, text = TabPFNHook("nowhere").test_connection()
    assert (accepted, "nowhere" in text) == (False, True)


@pytest.fixture
def nothing_set(monkeypatch):
    for name in ("AIRFLOW_CONN_TABPFN_DEFAULT", "TABPFN_TOKEN", "PRIORLABS_API_KEY", "TABPFN_API_URL"):
        monkeypatch.delenv(name, raising=False)


def test_the_environment_stands_in_for_a_missing_default(nothing_set, monkeypatch, control, emulator, token):
    monkeypatch.setenv("TABPFN_TOKEN", token)
    monkeypatch.setenv("TABPFN_API_URL", emulator)
    assert TabPFNHook().test_connection()[0]
    assert TabPFNHook().get_storage_options("s3://bucket/key") is None

    async def ask():
        async with await TabPFNHook().get_async_client() as client:
            return await client.get_settings()

    assert asyncio.run(ask()) is not None


def test_the_environment_does_not_stand_in_for_a_named_connection(nothing_set, monkeypatch):
    monkeypatch.setenv("TABPFN_TOKEN", "anything")
    with pytest.raises(AirflowNotFoundException):
        TabPFNHook("tabpfn_production").get_client()


def test_without_connection_and_token_the_connection_is_missing(nothing_set):
    with pytest.raises(AirflowNotFoundException, match="tabpfn_default"):
        TabPFNHook().get_client()
    with pytest.raises(AirflowNotFoundException, match="tabpfn_default"):
        asyncio.run(TabPFNHook().get_async_client())


def test_async_client_reads_the_connection(connection, control):
    async def look():
        async with await TabPFNHook().get_async_client() as client:
            await client.check_token()
            return client.settings

    settings = asyncio.run(look())
    assert settings.user_agent.startswith("airflow/")


@pytest.mark.parametrize("as_text", [False, True])
def test_storage_options_are_chosen_by_protocol_and_masked(connect, as_text):
    by_protocol = {
        "s3": {
            "endpoint_url": "https://minio.example",
            "secret": "s3-secret-value",
            "client": {"account_key": "deep-key-1"},
        },
        "file": {"auto_mkdir": True},
    }
    connect(extra={"storage_options": json.dumps(by_protocol) if as_text else by_protocol})
    hook = TabPFNHook()
    assert hook.get_storage_options("s3://bucket/key") == by_protocol["s3"]
    assert hook.get_storage_options("simplecache::s3://bucket/key") == by_protocol["s3"]
    assert hook.get_storage_options("/tmp/x.parquet") == {"auto_mkdir": True}
    assert hook.get_storage_options("gs://bucket/key") is None
    assert redact("a s3-secret-value b deep-key-1 at https://minio.example") == "a *** b *** at https://minio.example"


@pytest.mark.parametrize("wrong", ["{", "[1]", '{"s3": 1}'])
def test_storage_options_must_be_an_object_of_objects(connect, wrong):
    connect(extra={"storage_options": wrong})
    with pytest.raises(ConfigurationError, match="storage_options"):
        TabPFNHook().get_storage_options("s3://bucket/key")


def test_key_and_proxy_are_masked(connect, token):
    connect(extra={"proxy": "http://user:proxy-password-9@proxy:3128"})
    TabPFNHook().get_client()
    assert redact(f"Bearer {token} by http://user:proxy-password-9@proxy:3128") == "Bearer *** by ***"
