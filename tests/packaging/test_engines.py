"""The wheel in each engine's pinned environment: the engine finds our entry points, and the demo runs."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ENGINES = ("airflow", "prefect", "dagster")
EngineEnvironment = Callable[[str], tuple[Any, list[str]]]

LOAD_ALL = """
import sys
from importlib.metadata import distribution
engine, other = sys.argv[1], {"airflow", "prefect", "dagster"} - {sys.argv[1]}
groups = {"airflow": "apache_airflow_provider", "prefect": "prefect.collections",
          "dagster": "dagster_dg_cli.registry_modules"}
foreign = {groups[name] for name in other}
for point in distribution("tabpfn-providers").entry_points:
    if point.group not in foreign and point.name.removeprefix("demo.") not in other:
        point.load()
        print(point.group, point.name)
"""


@pytest.mark.parametrize("engine", ENGINES)
def test_the_wheel_changes_nothing_that_the_engine_pinned(engine_environment: EngineEnvironment, engine: str):
    environment, before = engine_environment(engine)
    ours = [line for line in environment.freeze() if line.startswith("tabpfn-providers")]
    assert len(ours) == 1
    assert sorted(set(environment.freeze()) - set(ours)) == sorted(before)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_entry_point_loads(engine_environment: EngineEnvironment, engine: str):
    environment, _ = engine_environment(engine)
    done = environment.run("python", "-c", LOAD_ALL, engine)
    assert done.returncode == 0, done.stderr
    assert f"tabpfn_providers.commands demo.{engine}" in done.stdout
    assert "console_scripts tabpfn-providers" in done.stdout


def test_airflow_lists_the_provider(engine_environment: EngineEnvironment):
    environment, _ = engine_environment("airflow")
    done = environment.run("airflow", "providers", "list", "--output", "json")
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout[done.stdout.index("[") :])
    assert "tabpfn-providers" in {provider["package_name"] for provider in listed}


def test_prefect_loads_the_collection(engine_environment: EngineEnvironment):
    environment, _ = engine_environment("prefect")
    loaded = environment.python(
        "from prefect.plugins import load_prefect_collections\n"
        "from prefect.utilities.dispatch import lookup_type\n"
        "from prefect.blocks.core import Block\n"
        "print(load_prefect_collections()['prefect_tabpfn'].__name__)\n"
        "print(lookup_type(Block, 'tabpfn-credentials').__name__)"
    )
    assert loaded.splitlines()[-2:] == ["prefect_tabpfn", "TabPFNCredentials"]


def test_dagster_lists_the_registry_module(engine_environment: EngineEnvironment):
    environment, _ = engine_environment("dagster")
    done = environment.run("dg", "list", "registry-modules", "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "dagster_tabpfn" in done.stdout


def test_demo_from_the_wheel_in_an_empty_directory(engine_environment: EngineEnvironment, tmp_path: Path):
    environment, _ = engine_environment("dagster")
    done = environment.run("tabpfn-providers", "demo", "--engine", "dagster", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"accuracy", done.stdout, re.IGNORECASE)
    assert list(tmp_path.iterdir()) == [], "nothing is left beside the caller"
