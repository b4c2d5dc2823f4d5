"""pytest fixtures: a local TabPFN API with an account of each test's own, and its faults.

Loaded by pytest in every environment that has this distribution, so it imports nothing but pytest: the emulator is
started, and its packages are looked for, when a test asks for a fixture.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tabpfn_emulator.testing import EmulatorAccount, FaultInjector


@pytest.fixture(scope="session")
def _tabpfn_emulator_url() -> Iterator[str]:
    """Base URL of one emulator for the session; with pytest-xdist each worker is a session."""
    from tabpfn_emulator._extra import missing_extra

    lack = missing_extra("The fixture tabpfn_emulator")
    if lack is not None:
        pytest.fail(lack, pytrace=False)
    from tabpfn_emulator.testing import running_emulator

    with running_emulator() as url:
        yield url


@pytest.fixture
def tabpfn_emulator(_tabpfn_emulator_url: str, monkeypatch: pytest.MonkeyPatch) -> "Iterator[EmulatorAccount]":
    """A local TabPFN API with a new account, which TABPFN_API_URL and TABPFN_TOKEN point at; no faults, no settings."""
    import uuid

    from tabpfn_emulator.testing import EmulatorAccount, EmulatorControl

    control = EmulatorControl(_tabpfn_emulator_url)
    control.clear()
    emulator = EmulatorAccount(_tabpfn_emulator_url, f"test-{uuid.uuid4().hex}", control)
    monkeypatch.setenv("TABPFN_API_URL", emulator.url)
    monkeypatch.setenv("TABPFN_TOKEN", emulator.token)
    yield emulator
    control.clear()


@pytest.fixture
def tabpfn_faults(tabpfn_emulator: "EmulatorAccount") -> "FaultInjector":
    """Faults for this test only: `tabpfn_faults.inject(kind="status", status=503, route="/tabpfn/predict")`."""
    from tabpfn_emulator.testing import FaultInjector

    return FaultInjector(tabpfn_emulator.control)
