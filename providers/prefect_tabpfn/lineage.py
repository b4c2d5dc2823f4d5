"""Lineage the Prefect way: asset events, and artifacts that last.

Prefect's open-source server keeps events for seven days and has no page for assets, and artifacts for ever; so each
record goes to both, whole.
"""

import hashlib
import re
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact
from prefect.assets import Asset, AssetProperties, add_asset_metadata, materialize
from prefect.cache_policies import NO_CACHE
from prefect.tasks import MaterializingTask

from prefect_tabpfn._markdown import model_report, predictions_report
from tabpfn_assets import FittedModel, PredictionSet, SourceRef, public_url

_KEY_LENGTH = 512
_NOT_IN_KEYS = re.compile(r"""[\s\0#?&%"'<>\[\]{}|\\^`]""")


def asset_key(url: str) -> str:
    """Return the key of the Prefect asset that stands for a storage URL.

    Args:
        url: An fsspec URL, a chained one (its last part is taken) or a plain path.

    Returns:
        The URL without secrets, as Prefect takes it: characters that it refuses become `_`, a plain path becomes a
        `file://` URL, and what is longer than 512 characters ends in a hash.
    """
    last = public_url(url).rpartition("::")[2]
    scheme, separator, rest = last.partition("://")
    if not separator:
        scheme, rest = "file", Path(last).absolute().as_posix()
    key = f"{re.sub('[^a-z0-9]', '', scheme.lower()) or 'file'}://{_NOT_IN_KEYS.sub('_', rest)}"
    if len(key) <= _KEY_LENGTH:
        return key
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    return f"{key[: _KEY_LENGTH - 17]}-{digest}"


def model_asset_key(model: FittedModel) -> str:
    """Return the key of the Prefect asset that stands for a model: its name, or its fitted id if it has none."""
    return asset_key(f"tabpfn://models/{model.name or model.fitted_train_set_id}")


def publish_model(model: FittedModel) -> None:
    """Record a fitted model in the current flow: a materialization that depends on the train data, and an artifact.

    Call it in a flow, not in a task. It holds column names and class labels; pass `model.redacted()` to hash them.

    Args:
        model: The completed model.
    """
    properties = AssetProperties(
        name=model.name or f"TabPFN model {model.fitted_train_set_id}",
        description=f"TabPFN {model.task} model, {model.rows} rows",
    )
    publishing = _publish.with_options(
        name="Publish TabPFN model",
        assets=[Asset(key=model_asset_key(model), properties=properties)],
        asset_deps=_sources(model.source),
    )
    publishing(
        key=_artifact_key("tabpfn-model", model.name),
        report=model_report(model),
        description="A fitted TabPFN model and where it came from",
        facts=model.model_dump(mode="json"),
    )


def publish_predictions(scored: PredictionSet) -> None:
    """Record predictions in the current flow: a materialization that depends on model and data, and an artifact.

    Call it in a flow, not in a task. It holds column names and class labels; pass `scored.redacted()` to hash them.

    Args:
        scored: The predictions.
    """
    properties = AssetProperties(name="TabPFN predictions", description=f"{scored.rows} rows, {scored.output_type}")
    publishing = _publish.with_options(
        name="Publish TabPFN predictions",
        assets=[Asset(key=asset_key(scored.uri), properties=properties)],
        asset_deps=[model_asset_key(scored.model), *_sources(scored.source)],
    )
    publishing(
        key=_artifact_key("tabpfn-predictions", scored.model.name),
        report=predictions_report(scored),
        description="TabPFN predictions and what made them",
        facts=scored.model_dump(mode="json"),
    )


def _add_metadata_and_artifact(key: str, report: str, description: str, facts: dict[str, Any]) -> None:
    from prefect.context import AssetContext

    context = AssetContext.get()
    for asset in context.downstream_assets if context else ():
        add_asset_metadata(asset, facts)
    create_markdown_artifact(report, key=key, description=description)


_publish: MaterializingTask[..., None] = materialize(
    "tabpfn://models/unknown", by="tabpfn", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=2
)(_add_metadata_and_artifact)


def _sources(source: SourceRef) -> list[str | Asset]:
    # Explicit, because Prefect infers them from task inputs only under some task runners.
    return [asset_key(uri) for uri in source.uris]


def _artifact_key(kind: str, name: str | None) -> str:
    # Prefect takes lower-case letters, digits and dashes.
    return f"{kind}-{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}" if name else kind
