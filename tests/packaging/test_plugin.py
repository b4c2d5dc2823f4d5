"""The pytest plugin, in every pytest run of everyone who has the wheel: it costs nothing and warns of nothing."""

import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

REQUIREMENTS = Path(__file__).parents[2] / "requirements"
REMEDY = 'pip install "tabpfn-providers[emulator]"'

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def environments(new_environment: Callable[[str], Any], wheel: Path) -> Callable[[str], Any]:
    """Return an environment with the bare wheel, or with its extra, and pytest."""
    made: dict[str, Any] = {}

    def make(name: str) -> Any:
        if name not in made:
            environment = made[name] = new_environment(f"plugin-{name}")
            what = {"bare": str(wheel), "extra": f"{wheel}[emulator]"}[name]
            pins = REQUIREMENTS / "emulator.txt"  # the versions of pytest that the emulator's own tests run with
            environment.install(what, "pytest", "-c", str(pins))
        return made[name]

    return make


@pytest.fixture
def run(environments: Callable[[str], Any], tmp_path: Path) -> Run:
    """Run one test file where all warnings are errors."""

    def run_file(name: str, code: str, *arguments: str) -> Any:
        (tmp_path / "test_it.py").write_text(textwrap.dedent(code))
        options = ("-W", "error", "-m", "pytest", "-W", "error", "-p", "no:cacheprovider", *arguments)
        return environments(name).run("python", *options, str(tmp_path), cwd=tmp_path)

    return run_file


@pytest.mark.parametrize("name", ["bare", "extra"])
def test_a_run_that_does_not_use_it_passes(run: Run, name: str):
    done = run(name, "def test_nothing(): pass")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tabpfn-providers-" in done.stdout, "the plugin was loaded"
    assert "1 passed in" in done.stdout
    assert done.stderr == ""


def test_it_loads_nothing_but_pytest(run: Run):
    done = run(
        "extra",
        """
        import sys

        def test_what_is_loaded():
            ours = {name for name in sys.modules if name.startswith("tabpfn_")}
            assert ours == {"tabpfn_emulator", "tabpfn_emulator.plugin"}
            heavy = {"httpx", "numpy", "pandas", "pyarrow", "pydantic", "sklearn", "starlette", "typer", "uvicorn"}
            assert not heavy & set(sys.modules)
        """,
    )
    assert done.returncode == 0, done.stdout


def test_its_fixtures_are_described(run: Run):
    done = run("bare", "def test_nothing(): pass", "--fixtures")
    assert done.returncode == 0
    for name in ("tabpfn_emulator", "tabpfn_faults"):
        assert re.search(rf"\n{name} -- .*plugin.py:\d+\n    (?!no docstring)\w", done.stdout)


@pytest.mark.parametrize("fixture", ["tabpfn_emulator", "tabpfn_faults"])
def test_without_the_extra_the_remedy_is_told(run: Run, fixture: str):
    done = run("bare", f"def test_it({fixture}): pass\ndef test_another(): pass")
    assert done.returncode == 1
    assert REMEDY in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert "1 passed" in done.stdout


FIRST_TEST = """
import urllib.error
import urllib.request

import pytest


def limits(emulator):
    headers = {"Authorization": f"Bearer {emulator.token}"}
    request = urllib.request.Request(f"{emulator.url}/tabpfn/get_settings", headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=30) as response:
        return response.status


def test_it_answers(tabpfn_emulator):
    assert limits(tabpfn_emulator) == 200
    assert [row["route"] for row in tabpfn_emulator.journal()] == ["/tabpfn/get_settings"]


def test_it_fails_on_demand(tabpfn_emulator, tabpfn_faults):
    assert tabpfn_emulator.journal() == []
    tabpfn_faults.inject(kind="status", status=503, route="/tabpfn/get_settings", times=None)
    with pytest.raises(urllib.error.HTTPError, match="503") as refusal:
        limits(tabpfn_emulator)
    refusal.value.close()


def test_what_the_last_test_broke_is_whole_again(tabpfn_emulator):
    assert limits(tabpfn_emulator) == 200


def test_the_client_of_the_wheel_finds_it(tabpfn_emulator):
    from tabpfn_operators import Client

    with Client() as client:
        assert client.get_model_limits()
    assert tabpfn_emulator.journal()
"""


def test_with_the_extra_it_works(run: Run):
    done = run("extra", FIRST_TEST)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout
