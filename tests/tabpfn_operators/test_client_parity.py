"""`Client` and `AsyncClient` are one surface, written twice."""

import inspect

import pytest

from tabpfn_operators import AsyncClient, Client
from tabpfn_operators._wire import AsyncWire, SyncWire

PUBLIC = sorted(name for name in dir(Client) if not name.startswith("_"))
METHODS = [name for name in PUBLIC if callable(getattr(Client, name))]


def test_both_have_the_same_names():
    assert [name for name in dir(AsyncClient) if not name.startswith("_")] == PUBLIC
    assert len(METHODS) >= 16


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_the_same_signature(name):
    sync, twin = getattr(Client, name), getattr(AsyncClient, name)
    assert inspect.signature(sync) == inspect.signature(twin)
    assert not inspect.iscoroutinefunction(sync)
    assert inspect.iscoroutinefunction(twin)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_the_same_docstring(name):
    text = inspect.getdoc(getattr(Client, name))
    assert text == inspect.getdoc(getattr(AsyncClient, name))
    assert text.splitlines()[0].endswith(".")


@pytest.mark.parametrize("name", [name for name in METHODS if name != "close"])
def test_a_docstring_names_every_argument_and_what_is_raised(name):
    method = getattr(Client, name)
    text = inspect.getdoc(method)
    arguments = [argument for argument in inspect.signature(method).parameters if argument != "self"]
    assert [argument for argument in arguments if f"\n    {argument}: " not in text] == []
    assert "Raises:" in text


def test_the_constructors_are_the_same():
    assert inspect.signature(Client) == inspect.signature(AsyncClient)
    text = inspect.getdoc(Client)
    assert [name for name in inspect.signature(Client).parameters if f"\n    {name}: " not in text] == []


def test_each_is_its_own_context_manager():
    assert hasattr(Client, "__enter__")
    assert hasattr(Client, "__exit__")
    assert hasattr(AsyncClient, "__aenter__")
    assert hasattr(AsyncClient, "__aexit__")


def test_both_wires_have_the_same_four_methods():
    for name in ("send", "sleep", "call", "gather"):
        sync, twin = getattr(SyncWire, name), getattr(AsyncWire, name)
        assert inspect.signature(sync) == inspect.signature(twin)
        assert inspect.iscoroutinefunction(sync)
        assert inspect.iscoroutinefunction(twin)
