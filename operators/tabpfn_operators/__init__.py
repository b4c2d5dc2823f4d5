"""Engine-neutral operations on the shared core client; Airflow's own operators live in `airflow_provider_tabpfn`.

Operators are how: upload, fit, wait, predict, and the storage and Parquet work around them. Importing this package
loads no HTTP and no Parquet library, so that a DAG file may do it.
"""

from typing import TYPE_CHECKING, Any

from tabpfn_assets import __version__

if TYPE_CHECKING:
    from tabpfn_operators.client import AsyncClient, Client
    from tabpfn_operators.settings import Settings

__all__ = ["AsyncClient", "Client", "Settings", "__version__"]

_LAZY = {
    "AsyncClient": "tabpfn_operators.client",
    "Client": "tabpfn_operators.client",
    "Settings": "tabpfn_operators.settings",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
