"""The block: the client's names, its secrets, and what it refuses."""

import inspect
import json

import prefect
import pytest
from prefect.client.orchestration import get_client
from pydantic import ValidationError

from prefect_tabpfn import TabPFNCredentials
from tabpfn_operators import Client
from tabpfn_operators.errors import ConfigurationError

CANARY = "canary-9f3c2b7d"
OTHER_THAN_DEFAULT = {
    "base_url": "http://proxy.internal:8080/tabpfn",
    "account": "team-blue",
    "wire": "flat",
    "connect_timeout": 3.0,
    "read_timeout": 30.0,
    "proxy": "http://user:pass@127.0.0.1:3128",
    "verify": False,
    "allow_http": True,
}


def test_the_fields_are_the_arguments_of_the_client():
    arguments = dict(inspect.signature(Client).parameters)
    del arguments["user_agent"]  # says which engine it is; not a person's choice
    del arguments["openlineage"]  # a client of the caller's own, which no block can hold
    assert {name: field.default for name, field in TabPFNCredentials.model_fields.items()} == {
        name: argument.default for name, argument in arguments.items()
    }
    assert {"token", *OTHER_THAN_DEFAULT} == set(arguments)


@pytest.mark.parametrize("make", ["get_client", "get_async_client"])
def test_every_field_reaches_the_client(make):
    client = getattr(TabPFNCredentials(token=CANARY, **OTHER_THAN_DEFAULT), make)()
    reached = {name: getattr(client.settings, name) for name in OTHER_THAN_DEFAULT}
    reached["proxy"] = reached["proxy"].get_secret_value()
    assert reached == OTHER_THAN_DEFAULT
    assert client.settings.bearer() == CANARY
    assert client.settings.user_agent == f"prefect/{prefect.__version__}"


@pytest.mark.parametrize("make", ["get_client", "get_async_client"])
def test_a_block_without_a_key_takes_the_one_of_the_environment(make, monkeypatch):
    monkeypatch.setenv("PRIORLABS_API_KEY", "second")
    assert getattr(TabPFNCredentials(), make)().settings.bearer() == "second"
    monkeypatch.setenv("TABPFN_TOKEN", "first")
    monkeypatch.setenv("TABPFN_API_URL", "http://127.0.0.1:1/from-environment")
    client = getattr(TabPFNCredentials(), make)()
    assert client.settings.bearer() == "first"
    assert client.settings.base_url == "http://127.0.0.1:1/from-environment"
    assert getattr(TabPFNCredentials(token="own"), make)().settings.bearer() == "own"


@pytest.mark.parametrize("make", ["get_client", "get_async_client"])
def test_no_key_anywhere_is_an_error_that_says_where_to_put_one(make):
    with pytest.raises(ConfigurationError, match="TABPFN_TOKEN"):
        getattr(TabPFNCredentials(), make)()


def test_a_saved_block_keeps_its_secrets_and_shows_none():
    block = TabPFNCredentials(token=CANARY, **OTHER_THAN_DEFAULT)
    block.save("kept", overwrite=True)
    loaded = TabPFNCredentials.load("kept")
    assert loaded.model_dump() == block.model_dump()
    assert loaded.get_client().settings.bearer() == CANARY
    with get_client(sync_client=True) as api:
        shown = api.read_block_document_by_name("kept", "tabpfn-credentials", include_secrets=False)
    assert shown.data["account"] == "team-blue"
    for text in (repr(block), str(block), block.model_dump_json(), json.dumps(shown.data)):
        assert CANARY not in text
        assert "user:pass" not in text


def test_a_block_is_saved_and_loaded_asynchronously(run_async):
    run_async(TabPFNCredentials(token=CANARY).asave, "kept-async", overwrite=True)
    loaded = run_async(TabPFNCredentials.aload, "kept-async")
    assert loaded.get_async_client().settings.bearer() == CANARY


@pytest.mark.parametrize("field", ["token", "proxy"])
@pytest.mark.parametrize("mask", ["*", "********", " **** "])
def test_a_mask_is_not_taken_for_a_secret(field, mask):
    with pytest.raises(ValidationError, match=rf"(?s){field}.*Prefect's mask.*credentials_block_name"):
        TabPFNCredentials(**{field: mask})


def test_a_block_in_deployment_parameters_is_refused_instead_of_used_masked():
    stored = json.loads(TabPFNCredentials(token=CANARY).model_dump_json())
    with pytest.raises(ValidationError, match="Pass the block's name"):
        TabPFNCredentials.model_validate(stored)


@pytest.mark.parametrize(
    "fields", [{"connect_timeout": -1}, {"wire": "round"}, {"read_timeout": CANARY}, {"token": [CANARY]}]
)
def test_a_refused_block_quotes_no_value(fields):
    with pytest.raises(ValidationError) as refused:
        TabPFNCredentials(**{"token": CANARY, **fields})
    assert next(iter(fields)) in str(refused.value)
    assert CANARY not in str(refused.value)
