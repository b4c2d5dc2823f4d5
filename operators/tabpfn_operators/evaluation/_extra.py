"""What the extra `evaluation` brings, imported where it is used."""

from typing import Any

from tabpfn_operators.errors import ConfigurationError


def sklearn_metrics() -> Any:
    """Import scikit-learn's metrics.

    Raises:
        ConfigurationError: It is not installed; the message names the `pip install`.
    """
    try:
        from sklearn import metrics
    except ImportError as error:
        name = (error.name or "scikit-learn").replace("sklearn", "scikit-learn")
        raise ConfigurationError(f'{name} is not installed; pip install "tabpfn-providers[evaluation]".') from None
    return metrics
