"""Who ran it, and what of it goes into asset events."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from tabpfn_assets import EngineRun, FittedModel


def engine_run(context: "Context") -> "EngineRun":
    """Describe the running task instance, so that a person can find it again from a model or from predictions."""
    from airflow import __version__

    from tabpfn_assets import EngineRun, public_url

    ti = context["ti"]
    mapped = f"[{ti.map_index}]" if ti.map_index is not None and ti.map_index >= 0 else ""
    return EngineRun(
        engine="airflow",
        engine_version=__version__,
        run_id=ti.run_id,
        task_id=f"{ti.dag_id}.{ti.task_id}{mapped}",
        url=public_url(ti.log_url),
    )


def model_facts(model: "FittedModel") -> dict[str, Any]:
    """Return what an asset event says of a model: ids and counts, no label and no column name but the target."""
    return {
        "fitted_train_set_id": model.fitted_train_set_id,
        "status": model.status,
        "name": model.name,
        "task": model.task,
        "target": model.target,
        "rows": model.rows,
        "feature_count": len(model.features),
        "class_count": None if model.classes is None else len(model.classes),
        "source": list(model.source.uris),
        "source_fingerprint": model.source.fingerprint,
        "train_set_upload_id": model.train_set_upload_id,
        "created_at": model.created_at.isoformat(),
    }


def record_outlets(context: "Context", outlets: Iterable[Any], facts: Mapping[str, Any]) -> None:
    """Put the facts into the events of the task's asset outlets.

    Only from the method that ends the task: what is set before `defer()` never reaches the event (measured, 3.3.2).
    """
    from airflow.providers.common.compat.sdk import Asset

    for outlet in outlets:
        if isinstance(outlet, Asset):
            context["outlet_events"][outlet].extra.update(facts)
