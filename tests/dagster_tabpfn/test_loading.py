"""What Dagster loads: the package, its entry point, the example."""

import importlib.util
import json
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import dagster as dg
import pytest

EXAMPLE = Path(__file__).parents[2] / "example_dags" / "dagster" / "retrain_and_score.py"

NEW_MODULES = """
import json, sys
import dagster
before = set(sys.modules)
import dagster_tabpfn
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def load_example():
    spec = importlib.util.spec_from_file_location("retrain_and_score", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def example_environment(monkeypatch, datasets, tmp_path, emulator, token):
    data = datasets["regression"]
    variables = {
        "TRAIN_URL": str(data.train),
        "SCORE_URL": str(data.score),
        "TARGET": data.target,
        "TASK": "regression",
        "PREDICTIONS_URL": str(tmp_path / "scores"),
        "TABPFN_API_URL": emulator,
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_importing_the_package_loads_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", NEW_MODULES], capture_output=True, text=True, check=True)

    heavy = {"httpx", "pyarrow", "pandas", "numpy", "fsspec", "sklearn", "google_crc32c", "typer", "anyio"}
    assert not heavy & {name.partition(".")[0] for name in json.loads(done.stdout)}


def test_the_example_loads_without_any_setting():
    example = load_example()

    dg.Definitions.validate_loadable(example.defs)
    assert example.defs.resolve_schedule_def("retrain_and_score_schedule").cron_schedule == "0 3 * * *"


@pytest.mark.usefixtures("example_environment")
def test_the_example_job_runs_in_a_process_per_step(tmp_path):
    done = subprocess.run(
        [sys.executable, "-P", "-m", "dagster", "job", "execute", "-f", str(EXAMPLE), "-j", "retrain_and_score"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )

    assert done.returncode == 0, done.stderr
    assert "multiprocess executor" in done.stderr
    assert (tmp_path / "scores" / "_lineage.json").is_file()


def test_dg_lists_components_with_the_package_installed():
    (point,) = entry_points(group="dagster_dg_cli.registry_modules", name="dagster_tabpfn")
    assert point.load().__name__ == "dagster_tabpfn"

    done = subprocess.run(
        [Path(sys.executable).with_name("dg"), "list", "components"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "dagster_tabpfn" not in done.stderr


def test_dagster_knows_the_library():
    from dagster_shared.libraries import DagsterLibraryRegistry

    import dagster_tabpfn

    assert DagsterLibraryRegistry.get()["dagster-tabpfn"] == dagster_tabpfn.__version__
