"""What Airflow's provider discovery reads; it is called while Airflow starts, so it imports nothing of Airflow."""

from typing import Any

_INTEGRATION = "TabPFN"


def get_provider_info() -> dict[str, Any]:
    """Describe the provider to Airflow (entry point `apache_airflow_provider`).

    Returns:
        The provider's metadata; `package-name` equals the distribution's name, or Airflow would refuse all providers.
    """
    return {
        "package-name": "tabpfn-providers",
        "name": _INTEGRATION,
        "description": "Fit and score tables with `TabPFN <https://docs.priorlabs.ai/>`__, Prior Labs' hosted model.",
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "external-doc-url": "https://docs.priorlabs.ai/",
                "tags": ["ai"],
            }
        ],
        "hooks": [_modules("hooks.tabpfn")],
        "operators": [_modules("operators.fit", "operators.predict")],
        "triggers": [_modules("triggers.fit")],
        "connection-types": [
            {
                "connection-type": "tabpfn",
                "hook-class-name": "airflow_provider_tabpfn.hooks.tabpfn.TabPFNHook",
                "hook-name": _INTEGRATION,
                "ui-field-behaviour": {
                    "hidden-fields": ["schema", "login", "port", "extra"],
                    "relabeling": RELABELING,
                    "placeholders": PLACEHOLDERS,
                },
                "conn-fields": _connection_fields(),
            }
        ],
        "asset-uris": [
            {
                "schemes": ["tabpfn"],
                "handler": "airflow_provider_tabpfn.assets.sanitize_uri",
                "factory": "airflow_provider_tabpfn.assets.model_asset",
            }
        ],
    }


RELABELING = {"host": "API base URL", "password": "API key"}
PLACEHOLDERS = {"host": "https://api.priorlabs.ai"}


def _modules(*names: str) -> dict[str, Any]:
    return {
        "integration-name": _INTEGRATION,
        "python-modules": [f"airflow_provider_tabpfn.{name}" for name in names],
    }


def _field(label: str, kind: str, description: str, **schema: Any) -> dict[str, Any]:
    return {"label": label, "description": description, "schema": {"type": [kind, "null"], **schema}}


def _connection_fields() -> dict[str, Any]:
    """Fields of the connection form, stored in the connection's extra under these names."""
    return {
        "account": _field(
            "Account label", "string", "Names the account in lineage, so that a rotated key stays the same account."
        ),
        "wire": _field("Wire form", "string", "Form of the fit request.", enum=["nested", "flat"], default="nested"),
        "connect_timeout": _field(
            "Connect timeout", "number", "Seconds to wait for a connection.", default=10, exclusiveMinimum=0
        ),
        "read_timeout": _field(
            "Read timeout", "number", "Seconds to wait for the next byte.", default=120, exclusiveMinimum=0
        ),
        "proxy": _field("Proxy URL", "string", "Empty takes the environment's (HTTPS_PROXY).", format="password"),
        "ca_file": _field("CA file", "string", "Path of a CA bundle on the workers and triggerers."),
        "verify": _field("Check certificates", "boolean", "Leave on outside of tests.", default=True),
        "allow_http": _field(
            "Allow plain http", "boolean", "Accept an http base URL that is not loopback.", default=False
        ),
        "storage_options": _field(
            "Storage options",
            "string",
            'JSON: fsspec protocol to its options, for instance {"s3": {"endpoint_url": "https://..."}}.',
            format="password",
        ),
    }
