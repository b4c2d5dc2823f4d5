"""Fitted models as Airflow assets: `tabpfn://<store or host>/models/<name>`."""

from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Asset

DEFAULT_STORE = "api.priorlabs.ai"


def model_asset(name: str, *, store: str = DEFAULT_STORE, extra: dict[str, Any] | None = None) -> "Asset":
    """Return the asset that a fit updates, for `outlets=[...]` and for `schedule=[...]` of a scoring DAG.

    Args:
        name: The model's name: letters, digits, dot, dash, underscore.
        store: Where models of this name live: the API's host, or a label of your own such as `prod`.
        extra: Static facts to keep with the asset.

    Returns:
        An asset with the URI `tabpfn://<store>/models/<name>`.
    """
    from airflow.providers.common.compat.sdk import Asset

    return Asset(name=f"tabpfn/{store}/{name}", uri=f"tabpfn://{store}/models/{name}", extra=extra or {})


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """Check a `tabpfn://` URI for Airflow (provider key `asset-uris`).

    Args:
        uri: The split URI.

    Returns:
        The URI as it came.

    Raises:
        ValueError: It is not `tabpfn://<store>/models/<name>`; write it so, or use `model_asset`.
    """
    folder, _, name = uri.path.removeprefix("/").partition("/")
    if not uri.netloc or folder != "models" or not name or "/" in name or uri.query:
        raise ValueError(f"an asset of TabPFN is written tabpfn://<store>/models/<name>, not {uri.geturl()}")
    return uri
