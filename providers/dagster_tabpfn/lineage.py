"""Models and predictions as Dagster results, and the way back from an asset to the model it stands for."""

import dagster as dg

from dagster_tabpfn._context import AnyContext
from dagster_tabpfn._metadata import MODEL_KEY, fitted_model_metadata, model_in_metadata, predictions_metadata
from tabpfn_assets import FittedModel, PredictionSet

#: How far back a run looks for a materialization of its own, which others may have overtaken.
_RECENT = 20


def fitted_model_result(model: FittedModel, *, asset_key: dg.AssetKey | None = None) -> "dg.MaterializeResult[None]":
    """Make the result of an asset that fitted a model; return it from your own `@dg.asset`.

    Args:
        model: The completed model.
        asset_key: The asset, in a `@dg.multi_asset`.

    Returns:
        A result without a value, so that no IO manager is asked: the record is in the metadata, and the data version is
        the fitted id, so that what depends on the model is stale exactly when the model changed.
    """
    return dg.MaterializeResult(
        asset_key=asset_key,
        metadata=fitted_model_metadata(model),
        data_version=dg.DataVersion(model.fitted_train_set_id),
    )


def predictions_result(
    predictions: PredictionSet, *, asset_key: dg.AssetKey | None = None
) -> "dg.MaterializeResult[None]":
    """Make the result of an asset that wrote predictions; return it from your own `@dg.asset`.

    Args:
        predictions: The record of the predictions.
        asset_key: The asset, in a `@dg.multi_asset`.

    Returns:
        A result without a value: the predictions are on storage, at `dagster/uri`.
    """
    return dg.MaterializeResult(asset_key=asset_key, metadata=predictions_metadata(predictions))


def materialized_model(context: AnyContext, asset_key: dg.AssetKey) -> FittedModel:
    """Find the model that a fitted-model asset stands for now.

    It comes from the event log, so it works within the run that fitted it and in any later one. What this run
    materialized comes first: another run may have fitted again since.

    Args:
        context: Context of the asset or op that needs the model.
        asset_key: Key of the fitted-model asset.

    Returns:
        The model as it was recorded.

    Raises:
        dagster.Failure: The asset was never materialized, or its materialization (reported by hand, for instance) holds
            no model: materialize it, then run again.
    """
    records = context.instance.fetch_materializations(dg.AssetRecordsFilter(asset_key=asset_key), limit=_RECENT).records
    if not records:
        raise dg.Failure(
            f"The fitted-model asset {asset_key.to_user_string()} has no materialization: materialize it first.",
            allow_retries=False,
        )
    chosen = next((record for record in records if record.run_id == context.run.run_id), records[0])
    materialization = chosen.asset_materialization
    model = None if materialization is None else model_in_metadata(materialization.metadata)
    if model is None:
        raise dg.Failure(
            f"The latest materialization of {asset_key.to_user_string()} has no {MODEL_KEY} metadata, so it names no "
            "model: materialize the asset again.",
            allow_retries=False,
        )
    return model
