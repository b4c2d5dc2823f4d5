"""A DAG file is imported every few seconds: what it imports of the core loads nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ["httpx", "pyarrow", "pandas", "numpy", "fsspec", "sklearn", "typer", "google_crc32c", "rich", "anyio"]
CORE = ("tabpfn_assets", "tabpfn_operators")


def imported_at_the_top(body):
    """Name the core modules that importing this code imports; functions and TYPE_CHECKING blocks do not run."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in CORE)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in CORE:
            yield node.module
            # `from package import module` imports the module as well.
            yield from (f"{node.module}.{alias.name}" for alias in node.names if is_module(node.module, alias.name))
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from imported_at_the_top(node.orelse)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            for part in ("body", "orelse", "finalbody", "handlers"):
                yield from imported_at_the_top(getattr(node, part, []))


def is_module(package, name):
    folder = ROOT / {"tabpfn_assets": "assets", "tabpfn_operators": "operators"}[package.split(".")[0]]
    place = folder.joinpath(*package.split("."), name)
    return place.with_suffix(".py").is_file() or place.is_dir()


def of_package(folder):
    found = set()
    for path in (ROOT / folder).rglob("*.py"):
        found.update(imported_at_the_top(ast.parse(path.read_text(encoding="utf-8")).body))
    return sorted(found)


AIRFLOW = of_package("providers/airflow_provider_tabpfn")
LIGHT = sorted({"tabpfn_assets", "tabpfn_operators", "tabpfn_operators.errors", "tabpfn_operators.jobs", *AIRFLOW})


def loaded_by(*modules):
    code = f"import sys\nfor name in {modules!r}: __import__(name)\nprint(*[m for m in {HEAVY!r} if m in sys.modules])"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_the_list_is_the_providers_own():
    assert "tabpfn_assets" in AIRFLOW
    assert "tabpfn_operators.jobs" in AIRFLOW


def test_the_reader_of_imports_sees_what_runs_and_nothing_else():
    code = """
import tabpfn_assets.names
from tabpfn_operators import jobs, Client
if TYPE_CHECKING:
    import tabpfn_operators.spool
else:
    import tabpfn_operators.fit
try:
    import tabpfn_operators.upload
except ImportError:
    import tabpfn_operators.predict
class A:
    import tabpfn_operators.progress
    def f(self):
        import tabpfn_operators.storage
"""
    assert sorted(set(imported_at_the_top(ast.parse(code).body))) == [
        "tabpfn_assets.names",
        "tabpfn_operators",
        "tabpfn_operators.fit",
        "tabpfn_operators.jobs",
        "tabpfn_operators.predict",
        "tabpfn_operators.progress",
        "tabpfn_operators.upload",
    ]


@pytest.mark.parametrize("module", LIGHT)
def test_a_module_loads_nothing_heavy(module):
    assert loaded_by(module) == []


def test_all_together_load_nothing_heavy():
    assert loaded_by(*LIGHT) == []


def test_the_check_sees_what_is_heavy():
    assert {"httpx", "anyio"} <= set(loaded_by("tabpfn_operators.client"))
