"""The vendor's own client, unmodified, against the emulator.

Its base URL is read once, when it is imported, so the import waits for the emulator.
"""

import importlib
import os
import uuid
from collections.abc import Iterator
from types import ModuleType

import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.model_selection import train_test_split

from tabpfn_emulator.testing import account_of

os.environ["TABPFN_DISABLE_TELEMETRY"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "client_compat" in item.path.parts:
            # The client builds torch objects of a "full" output where torch is installed, and says so where it is not.
            item.add_marker(pytest.mark.filterwarnings("ignore:Optional dependencies 'tabpfn' and 'torch':UserWarning"))


@pytest.fixture(scope="session")
def imported_client(emulator: str) -> Iterator[ModuleType]:
    os.environ["TABPFN_CLIENT_API_URL"] = emulator
    module = importlib.import_module("tabpfn_client")
    yield module
    importlib.import_module("tabpfn_client.client").ServiceClient.httpx_client.close()
    del os.environ["TABPFN_CLIENT_API_URL"]


@pytest.fixture
def token() -> str:
    return f"token-{uuid.uuid4()}"


@pytest.fixture
def account(token: str) -> str:
    return account_of(token)


@pytest.fixture
def client(imported_client: ModuleType, control, token: str) -> ModuleType:
    """The client with an account of its own and nothing cached from another test."""
    service = importlib.import_module("tabpfn_client.client").ServiceClient
    service._api_settings = None
    imported_client.set_access_token(token)
    return imported_client


Split = tuple[pd.DataFrame, pd.DataFrame, pd.Series, pd.Series]


@pytest.fixture(scope="session")
def cancer() -> Split:
    frame, target = load_breast_cancer(return_X_y=True, as_frame=True)
    return tuple(train_test_split(frame, target, random_state=0))


@pytest.fixture(scope="session")
def diabetes() -> Split:
    frame, target = load_diabetes(return_X_y=True, as_frame=True)
    return tuple(train_test_split(frame, target, random_state=0))
