"""Airflow finds the provider, its connection type, its form and its asset scheme."""

import subprocess
import sys
from pkgutil import resolve_name

import pytest
from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService
from airflow.providers_manager import ProvidersManager
from airflow.sdk import Asset
from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime

from airflow_provider_tabpfn.assets import model_asset
from airflow_provider_tabpfn.get_provider_info import get_provider_info
from airflow_provider_tabpfn.hooks.tabpfn import TabPFNHook


def test_discovery_finds_the_provider():
    provider = ProvidersManager().providers["tabpfn-providers"]
    assert provider.data["name"] == "TabPFN"
    assert provider.version == resolve_name("tabpfn_assets.__version__")


def test_the_connection_type_leads_to_the_hook():
    hook = ProvidersManagerTaskRuntime().hooks["tabpfn"]
    assert hook is not None
    assert hook.hook_name == "TabPFN"
    assert hook.connection_id_attribute_name == "tabpfn_conn_id"
    assert resolve_name(hook.hook_class_name) is TabPFNHook
    assert hook.connection_testable


def test_the_form_has_what_the_hook_reads():
    (form,) = [meta for meta in HookMetaService.hook_meta_data() if meta.connection_type == "tabpfn"]
    assert form.standard_fields.password.title == "API key"
    assert form.standard_fields.host.placeholder == "https://api.priorlabs.ai"
    assert form.standard_fields.login.hidden
    assert set(form.extra_fields) == {
        "account",
        "wire",
        "connect_timeout",
        "read_timeout",
        "proxy",
        "ca_file",
        "verify",
        "allow_http",
        "storage_options",
    }
    assert form.extra_fields["storage_options"]["schema"]["format"] == "password"


def test_the_form_of_older_versions_says_the_same():
    old = TabPFNHook.get_ui_field_behaviour()
    new = get_provider_info()["connection-types"][0]["ui-field-behaviour"]
    assert old["relabeling"] == new["relabeling"]
    assert new["placeholders"].items() <= old["placeholders"].items()


def test_every_module_it_names_is_there():
    info = get_provider_info()
    for kind in ("hooks", "operators", "triggers"):
        for entry in info[kind]:
            for module in entry["python-modules"]:
                resolve_name(f"{module}.__name__")
    for uris in info["asset-uris"]:
        assert callable(resolve_name(uris["handler"]))
        assert callable(resolve_name(uris["factory"]))


def test_it_is_called_without_airflow():
    probe = (
        "import sys; from airflow_provider_tabpfn.get_provider_info import get_provider_info; get_provider_info();"
        "heavy = {m.partition('.')[0] for m in sys.modules} & {'airflow', 'pydantic', 'httpx', 'tabpfn_assets'};"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_model_is_an_asset_with_a_normalized_uri():
    asset = model_asset("churn", store="prod")
    assert asset.uri == "tabpfn://prod/models/churn"
    assert asset.normalized_uri == "tabpfn://prod/models/churn"


@pytest.mark.parametrize(
    "uri", ["tabpfn://prod", "tabpfn://prod/churn", "tabpfn://prod/models/a/b", "tabpfn:///models/a"]
)
def test_other_uris_of_the_scheme_are_refused(uri):
    with pytest.raises(ValueError, match="tabpfn://<store>/models/<name>"):
        Asset(uri=uri, name="x")
