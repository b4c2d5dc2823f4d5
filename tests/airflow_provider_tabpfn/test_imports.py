"""What a DAG file costs: our modules load next to nothing that Airflow has not loaded already."""

import json
import subprocess
import sys

#: Top-level packages that our modules may load on top of Airflow's base classes and the standard library.
ALLOWED = {
    "airflow",
    "airflow_provider_tabpfn",
    "tabpfn_assets",
    "tabpfn_operators",
}
ABSENT = {"pyarrow", "pandas", "numpy", "sklearn", "google_crc32c", "typer"}

PROBE = """
import json, pkgutil, sys
from airflow.sdk import DAG, BaseHook, BaseOperator, BaseOperatorLink, BaseSensorOperator
from airflow.sdk.configuration import conf
from airflow.triggers.base import BaseTrigger

before = set(sys.modules)
import airflow_provider_tabpfn
ours = pkgutil.walk_packages(airflow_provider_tabpfn.__path__, "airflow_provider_tabpfn.")
names = [module.name for module in ours]
for name in names:
    __import__(name)
print(json.dumps([names, sorted(set(sys.modules) - before), sorted(sys.modules)]))
"""


def run(probe):
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_our_modules_load_only_what_airflow_has_loaded():
    names, new, loaded = run(PROBE)
    assert {"airflow_provider_tabpfn.operators.fit", "airflow_provider_tabpfn.triggers.fit"} <= set(names)
    new_packages = {module.partition(".")[0] for module in new}
    assert len(ALLOWED) <= 10
    assert new_packages - set(sys.stdlib_module_names) - ALLOWED == set()
    assert {module.partition(".")[0] for module in loaded} & ABSENT == set()


def test_a_dag_file_needs_neither_the_client_nor_the_records():
    probe = (
        "import json, sys\n"
        "from airflow_provider_tabpfn.operators.fit import TabPFNFitOperator\n"
        "from airflow_provider_tabpfn.operators.predict import TabPFNPredictOperator\n"
        "from airflow.sdk import DAG\n"
        "with DAG('d'):\n"
        "    fit = TabPFNFitOperator(task_id='f', source='s', target='t', task='regression')\n"
        "    TabPFNPredictOperator(task_id='p', model=fit.output, source='s', destination='d')\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    loaded = run(probe)
    assert "airflow_provider_tabpfn.operators.predict" in loaded
    assert [name for name in loaded if name.startswith(("tabpfn_assets", "tabpfn_operators"))] == []
