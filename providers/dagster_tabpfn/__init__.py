"""TabPFN in Dagster: a resource, assets for models and predictions, and the helpers to write your own.

`dg` imports this module to find components, and breaks when it fails, so it takes only long-stable names from Dagster.
"""

from dagster_shared.libraries import DagsterLibraryRegistry

from dagster_tabpfn.assets import (
    TabPFNFitConfig,
    TabPFNPredictConfig,
    build_tabpfn_fitted_model_asset,
    build_tabpfn_predictions_asset,
)
from dagster_tabpfn.lineage import fitted_model_result, materialized_model, predictions_result
from dagster_tabpfn.resources import TabPFNResource
from tabpfn_assets import __version__

__all__ = [
    "TabPFNFitConfig",
    "TabPFNPredictConfig",
    "TabPFNResource",
    "__version__",
    "build_tabpfn_fitted_model_asset",
    "build_tabpfn_predictions_asset",
    "fitted_model_result",
    "materialized_model",
    "predictions_result",
]

# The flag matters: without it Dagster expects its own version number and warns about another.
DagsterLibraryRegistry.register("dagster-tabpfn", __version__, is_dagster_package=False)
