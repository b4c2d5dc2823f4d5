"""Prefect integration of TabPFN: the credentials block, tasks with asynchronous twins, and flows.

Prefect imports this package at every start (entry point `prefect.collections`), so only the block is loaded here.
"""

from typing import TYPE_CHECKING, Any

from prefect_tabpfn.credentials import TabPFNCredentials
from tabpfn_assets import __version__  # Prefect takes it as the version of the block's schema

if TYPE_CHECKING:
    from prefect_tabpfn.flows import RetrainResult, aretrain_and_score, retrain_and_score
    from prefect_tabpfn.lineage import publish_model, publish_predictions
    from prefect_tabpfn.retries import retry_unless_terminal
    from prefect_tabpfn.tasks import (
        apredict,
        asubmit_fit,
        aupload_train_set,
        await_for_fit,
        predict,
        submit_fit,
        upload_train_set,
        wait_for_fit,
    )

__all__ = [
    "RetrainResult",
    "TabPFNCredentials",
    "__version__",
    "apredict",
    "aretrain_and_score",
    "asubmit_fit",
    "aupload_train_set",
    "await_for_fit",
    "predict",
    "publish_model",
    "publish_predictions",
    "retrain_and_score",
    "retry_unless_terminal",
    "submit_fit",
    "upload_train_set",
    "wait_for_fit",
]

_LAZY = {
    "RetrainResult": "prefect_tabpfn.flows",
    "apredict": "prefect_tabpfn.tasks",
    "aretrain_and_score": "prefect_tabpfn.flows",
    "asubmit_fit": "prefect_tabpfn.tasks",
    "aupload_train_set": "prefect_tabpfn.tasks",
    "await_for_fit": "prefect_tabpfn.tasks",
    "predict": "prefect_tabpfn.tasks",
    "publish_model": "prefect_tabpfn.lineage",
    "publish_predictions": "prefect_tabpfn.lineage",
    "retrain_and_score": "prefect_tabpfn.flows",
    "retry_unless_terminal": "prefect_tabpfn.retries",
    "submit_fit": "prefect_tabpfn.tasks",
    "upload_train_set": "prefect_tabpfn.tasks",
    "wait_for_fit": "prefect_tabpfn.tasks",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
