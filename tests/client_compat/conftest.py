"""The vendor's own client, unmodified, against the emulator.

Its base URL is read once, when it is imported, so the import waits for the emulator. The same tests run with each
version that has an environment of its own; what a version lacks is in `LACKS`, and `test_features.py` proves it.
"""

import importlib
import os
import uuid
from collections.abc import Iterator
from importlib.metadata import version
from types import ModuleType

import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.model_selection import train_test_split

from tabpfn_emulator.testing import account_of

os.environ["TABPFN_DISABLE_TELEMETRY"] = "1"

VERSION = version("tabpfn-client")
_ESTIMATOR = "tabpfn_client.estimator:TabPFNClassifier"
LACKS = {
    "0.4.1": {
        "save_model": f"{_ESTIMATOR}.save_model",
        "get_timings": f"{_ESTIMATOR}.get_timings",
        "text_handling": f"{_ESTIMATOR}?text_handling",
        "group_col": f"{_ESTIMATOR}?group_col",
        "time_col": f"{_ESTIMATOR}?time_col",
        "a split of full outputs": "tabpfn_client.estimator:_merge_full_outputs",
        "prediction_uri": "tabpfn_client.client:PredictResponseWithDownloadURI",
        "FittedModelNotFoundError": "tabpfn_client.errors:FittedModelNotFoundError",
        "estimate_cost": "tabpfn_client:estimate_cost",
        "interactive_login": "tabpfn_client:interactive_login",
        "v3.5": "tabpfn_client.api_models:ModelVersion.V3_5",
        "v3.5-fast": "tabpfn_client.api_models:ModelVersion.V3_5_FAST",
        "metadata about billing": "tabpfn_client.api_models:ClassifierMetadata?execution_mode",
        "a repeated PUT after 408 or 429": "tabpfn_client.client:_RETRYABLE_STORAGE_STATUSES",
        "an init() that never prompts": "tabpfn_client.prompt_agent:PromptAgent.token_instructions",
    },
    "0.6.1": {
        "password login": "tabpfn_client.client:ServiceClient.login",
        "password reset": "tabpfn_client.client:ServiceClient.send_reset_password_email",
    },
}
"""By version: the features it lacks, and where the client of another version has them."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(feature): skip with a version of tabpfn-client that lacks the feature")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    known = {feature for features in LACKS.values() for feature in features}
    for item in items:
        if "client_compat" not in item.path.parts:
            continue
        # The client builds torch objects of a "full" output where torch is installed, and says so where it is not.
        item.add_marker(pytest.mark.filterwarnings("ignore:Optional dependencies 'tabpfn' and 'torch':UserWarning"))
        for mark in item.iter_markers("needs"):
            assert mark.args[0] in known, f"{item.name} needs {mark.args[0]}, which is not in LACKS"
            if mark.args[0] in LACKS[VERSION]:
                item.add_marker(pytest.mark.skip(reason=f"tabpfn-client {VERSION} lacks {mark.args[0]}"))


@pytest.fixture(scope="session")
def imported_client(emulator: str) -> Iterator[ModuleType]:
    os.environ["TABPFN_CLIENT_API_URL"] = emulator
    os.environ["TABPFN_CLIENT_CI_MODE"] = "1"  # 0.4.1: no spinner, which waits in steps of 0.2 s
    module = importlib.import_module("tabpfn_client")
    yield module
    importlib.import_module("tabpfn_client.client").ServiceClient.httpx_client.close()
    module.reset()  # 0.4.1 keeps the last token in a file beside its code
    del os.environ["TABPFN_CLIENT_API_URL"], os.environ["TABPFN_CLIENT_CI_MODE"]


@pytest.fixture(scope="session")
def lacks() -> dict[str, dict[str, str]]:
    return LACKS


@pytest.fixture(scope="session")
def lacking() -> set[str]:
    """What the installed version does not have."""
    return set(LACKS[VERSION])


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


@pytest.fixture
def client_option(client: ModuleType) -> Iterator:
    """Set an option of the client through the environment, as its users do."""
    options = importlib.import_module("tabpfn_client.options")
    with pytest.MonkeyPatch.context() as patch:

        def set_option(name, value):
            patch.setenv(name, str(value))
            options.reload_opts()

        yield set_option
    options.reload_opts()


@pytest.fixture
def posts(control, account: str):
    """Count this account's requests to a route, or list their statuses."""

    def statuses(route):
        return [row["status"] for row in control.journal(route=route, account=account)]

    return statuses


Split = tuple[pd.DataFrame, pd.DataFrame, pd.Series, pd.Series]


@pytest.fixture(scope="session")
def cancer() -> Split:
    frame, target = load_breast_cancer(return_X_y=True, as_frame=True)
    return tuple(train_test_split(frame, target, random_state=0))


@pytest.fixture(scope="session")
def diabetes() -> Split:
    frame, target = load_diabetes(return_X_y=True, as_frame=True)
    return tuple(train_test_split(frame, target, random_state=0))


@pytest.fixture(scope="session")
def few(cancer: Split) -> Split:
    """A table that is learnt in no time, for tests that do not look at how well."""
    train, test, y_train, y_test = cancer
    return train.iloc[:40, :4], test.iloc[:10, :4], y_train[:40], y_test[:10]


@pytest.fixture
def fit(client: ModuleType, few: Split):
    """Fit a small classifier; arguments are the estimator's."""
    return lambda **options: client.TabPFNClassifier(**options).fit(few[0], few[2])
