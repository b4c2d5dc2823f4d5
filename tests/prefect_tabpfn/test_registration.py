"""How Prefect finds the package, and what that costs."""

import json
import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.plugins import load_prefect_collections
from prefect.settings import get_current_settings

import prefect_tabpfn

HEAVY = {"pyarrow", "pandas", "numpy", "sklearn", "google_crc32c", "typer"}


def python(code: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_prefect_loads_the_collection_by_its_entry_point():
    (found,) = [e for e in entry_points(group="prefect.collections") if e.name == "prefect_tabpfn"]
    assert load_prefect_collections()["prefect_tabpfn"] is prefect_tabpfn
    assert found.value == "prefect_tabpfn"


def test_the_block_registers_by_the_command_that_the_documents_name():
    api_url = get_current_settings().api.url
    assert api_url
    done = subprocess.run(
        [str(Path(sys.executable).parent / "prefect"), "block", "register", "-m", "prefect_tabpfn"],
        env={**os.environ, "PREFECT_API_URL": api_url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "TabPFN Credentials" in done.stdout
    with get_client(sync_client=True) as api:
        kind = api.read_block_type_by_slug("tabpfn-credentials")
    assert kind.name == "TabPFN Credentials"
    assert str(kind.logo_url).startswith("https://")
    assert 'TabPFNCredentials.load("BLOCK_NAME")' in kind.code_example


def test_loading_the_collection_adds_no_heavy_module_and_no_task():
    before = "import json, sys, prefect, prefect.blocks.abstract; old = set(sys.modules); import prefect_tabpfn;"
    new = set(json.loads(python(before + "print(json.dumps(sorted(set(sys.modules) - old)))")))
    foreign = {name.partition(".")[0] for name in new} - {"prefect_tabpfn", "tabpfn_assets"} - sys.stdlib_module_names
    assert foreign <= {"prefect", "pydantic", "pydantic_core"}
    assert not {"prefect_tabpfn.tasks", "prefect_tabpfn.flows", "tabpfn_operators"} & new


def test_importing_the_flows_reads_no_parquet_library_and_takes_no_global_retries():
    code = (
        "import json, sys, prefect_tabpfn as p;"
        "paid = ['submit_fit', 'asubmit_fit', 'predict', 'apredict', 'retrain_and_score', 'aretrain_and_score'];"
        "print(json.dumps([[getattr(p, name).retries for name in paid], sorted(sys.modules)]))"
    )
    retries, new = json.loads(python(code, PREFECT_TASKS_DEFAULT_RETRIES="5", PREFECT_FLOWS_DEFAULT_RETRIES="5"))
    assert "prefect_tabpfn.tasks" in new
    assert not HEAVY & set(new)
    # Work that may be billed is not repeated because somebody set a default for everything else.
    assert retries == [0] * 6


@pytest.mark.parametrize("name", prefect_tabpfn.__all__)
def test_every_public_name_is_there(name):
    assert getattr(prefect_tabpfn, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = prefect_tabpfn.no_such_name
