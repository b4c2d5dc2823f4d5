"""The wheel, and each of its extras, alone in an empty environment."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from signal import SIGTERM
from typing import Any

import pytest

REQUIREMENTS = Path(__file__).parents[2] / "requirements"
NewEnvironment = Callable[[str], Any]

USES = {
    "airflow": "from airflow_provider_tabpfn.hooks.tabpfn import TabPFNHook; print(TabPFNHook.conn_type)",
    "prefect": "from prefect_tabpfn import TabPFNCredentials; print(TabPFNCredentials.get_block_type_slug())",
    "dagster": "from dagster_tabpfn import TabPFNResource; print(TabPFNResource.__name__)",
    "evaluation": "import matplotlib.figure, sklearn.metrics; print(sklearn.metrics.accuracy_score([1], [1]))",
    "openlineage": "import openlineage.client as module; print(module.__name__)",
    "storage": "import fsspec; print(*(fsspec.get_filesystem_class(p).__module__[:5] for p in ('s3', 'gs', 'abfs')))",
}
PRINTS = {
    "airflow": "tabpfn",
    "prefect": "tabpfn-credentials",
    "dagster": "TabPFNResource",
    "evaluation": "1.0",
    "openlineage": "openlineage.client",
    "storage": "s3fs. gcsfs adlfs",
}


@pytest.fixture(scope="module")
def empty(new_environment: NewEnvironment, wheel: Path) -> Any:
    environment = new_environment("empty")
    environment.install(str(wheel), "-c", str(REQUIREMENTS / "core.txt"))
    return environment


def test_core_imports(empty: Any):
    empty.python("import tabpfn_assets, tabpfn_operators; tabpfn_operators.Client, tabpfn_operators.AsyncClient")


def test_dependencies_fit_together(empty: Any):
    empty.uv("pip", "check", "-p", str(empty.bin / "python"))


def test_engines_and_estimators_are_not_dragged_in(empty: Any):
    installed = {line.split("==")[0].lower() for line in empty.freeze()}
    assert not installed & {"apache-airflow", "prefect", "dagster", "scikit-learn", "starlette", "uvicorn"}


def test_help_names_every_command(empty: Any):
    done = empty.run("tabpfn-providers", "--help")
    assert done.returncode == 0, done.stderr
    commands = ("demo", "fit", "predict", "journal", "limits", "models", "emulator")
    assert not [name for name in commands if name not in done.stdout]


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (("emulator",), "emulator"),
        (("demo", "--engine", "airflow"), "airflow"),
        (("demo", "--engine", "prefect"), "prefect"),
        (("demo", "--engine", "dagster"), "dagster"),
    ],
)
def test_a_missing_extra_is_named(empty: Any, arguments: tuple[str, ...], extra: str):
    done = empty.run("tabpfn-providers", *arguments)
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode != 0
    assert "pip install" in said
    assert f"tabpfn-providers[{extra}" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("extra", USES)
def test_extra_alone(new_environment: NewEnvironment, wheel: Path, extra: str):
    environment = new_environment(extra)
    environment.install(f"{wheel}[{extra}]", "-c", str(REQUIREMENTS / f"{extra}.txt"))
    assert environment.python(USES[extra]).splitlines()[-1] == PRINTS[extra]


@pytest.fixture
def emulator(new_environment: NewEnvironment, wheel: Path, tmp_path: Path) -> Iterator[tuple[Any, str]]:
    environment = new_environment("emulator")
    environment.install(f"{wheel}[emulator]", "-c", str(REQUIREMENTS / "emulator.txt"))
    command = [environment.bin / "tabpfn-providers", "emulator", "--port", "0", "--data-dir", tmp_path / "data"]
    with subprocess.Popen(
        command, cwd=environment.cwd, env=environment.variables, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield environment, process.stdout.readline().strip()
        finally:
            process.send_signal(SIGTERM)
            rest, _ = process.communicate(timeout=30)
    assert rest == "", "one line on stdout, and no other"


def test_emulator_alone_answers(emulator: tuple[Any, str], monkeypatch: pytest.MonkeyPatch):
    environment, line = emulator
    assert line.startswith("TabPFN emulator listening on http://127.0.0.1:")
    monkeypatch.setenv("TABPFN_TOKEN", "any")
    limits = environment.run("tabpfn-providers", "limits", "--json", "--base-url", line.rpartition(" ")[2])
    assert limits.returncode == 0, limits.stderr
    assert json.loads(limits.stdout)["default_model_version"]
