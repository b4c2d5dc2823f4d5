"""Assets that fit and predict. Thin: what they do is in `TabPFNResource` and `lineage`, for assets of your own.

No `from __future__ import annotations` here: Dagster 1.13 cannot load an asset whose config annotation is a string.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from dagster_tabpfn._errors import reported
from dagster_tabpfn.lineage import fitted_model_result, materialized_model, predictions_result
from dagster_tabpfn.resources import TabPFNResource
from tabpfn_assets import FitParameters, public_url
from tabpfn_operators.errors import InvalidInputError

if TYPE_CHECKING:
    from tabpfn_operators.reading import Casts, Compression, Filters

KeyLike = dg.AssetKey | str | Sequence[str]
Upstream = dg.AssetKey | str | Sequence[str] | dg.AssetsDefinition | dg.AssetSpec | dg.AssetDep


class TabPFNFitConfig(dg.Config):
    """What one run of a fitted-model asset may change."""

    source: str | None = Field(
        default=None,
        description="fsspec URL or path of the Parquet file to fit on, instead of the asset's own. No keys in it.",
    )


class TabPFNPredictConfig(dg.Config):
    """What one run of a predictions asset may change."""

    source: str | None = Field(
        default=None,
        description="fsspec URL or path of the Parquet file to predict, instead of the asset's own. No keys in it.",
    )
    destination: str | None = Field(
        default=None,
        description="fsspec URL or path of the folder to write to, instead of the asset's own. No keys in it.",
    )


def build_tabpfn_fitted_model_asset(
    key: KeyLike,
    *,
    source: str,
    target: str,
    parameters: FitParameters,
    features: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    storage_options: Mapping[str, Any] | None = None,
    filters: "Filters | None" = None,
    casts: "Casts | None" = None,
    recompress: "Compression | None" = None,
    model_name: str | None = None,
    streamed: bool = False,
    timeout: float | None = None,
    resource_key: str = "tabpfn",
    deps: Iterable[Upstream] = (),
    description: str | None = None,
    group_name: str | None = None,
    owners: Sequence[str] | None = None,
    tags: Mapping[str, str] | None = None,
    code_version: str | None = None,
    retry_policy: dg.RetryPolicy | None = None,
    pool: str | None = None,
    automation_condition: dg.AutomationCondition[Any] | None = None,
) -> dg.AssetsDefinition:
    """Build an asset that is a TabPFN model fitted on a Parquet file.

    A materialization holds the model's whole record as metadata, and its data version is the fitted id. Nothing is
    pickled. `TabPFNFitConfig` lets a run name another source.

    Args:
        key: Asset key.
        source: fsspec URL or path of a Parquet file.
        target: Column to predict.
        parameters: Task, config, systems, thinking.
        features: Feature columns in order; None takes all but the target and `exclude`.
        exclude: Columns that stay at home.
        storage_options: fsspec options of the source; `dg.EnvVar` values are resolved in the run. Never recorded.
        filters: Rows to keep, as `[("age", ">", 17)]`, `[[...], [...]]`, the same as JSON text, or a
            `pyarrow.compute.Expression`; None keeps all.
        casts: Columns to convert, as `{"code": "string"}` with Arrow's type names; no value may change by it.
        recompress: Codec and level to send with, for slow links, as `("zstd", 9)`; None sends what is stored.
        model_name: A name for the model, `[A-Za-z0-9._-]`, up to 128 characters.
        streamed: Fit in one long POST, for servers without the job API.
        timeout: Seconds to wait for the fit; None takes the server's own limit.
        resource_key: Key of the `TabPFNResource`.
        deps: Assets that the source comes from.
        description: Text of the asset page.
        group_name: Asset group.
        owners: E-mail addresses and `team:...`.
        tags: Asset tags.
        code_version: Version of what is fitted; change it with target, features or parameters.
        retry_policy: For server and network trouble; what cannot pass is not retried.
        pool: Concurrency pool, for instance one with the account's limit.
        automation_condition: When to materialize by itself.

    Returns:
        The asset.
    """

    @dg.asset(
        key=key,
        deps=deps,
        description=description or f"TabPFN {parameters.task} model of `{target}`",
        group_name=group_name,
        owners=owners,
        tags=tags,
        kinds={"tabpfn"},
        code_version=code_version,
        retry_policy=retry_policy,
        pool=pool,
        automation_condition=automation_condition,
        required_resource_keys={resource_key},
    )
    def fitted_model(context: dg.AssetExecutionContext, config: TabPFNFitConfig) -> dg.MaterializeResult[None]:
        model = _resource(context, resource_key).fit(
            context,
            _chosen(context, "source", config.source, source),
            target,
            parameters=parameters,
            features=features,
            exclude=exclude,
            storage_options=storage_options,
            filters=filters,
            casts=casts,
            recompress=recompress,
            name=model_name,
            streamed=streamed,
            timeout=timeout,
        )
        return fitted_model_result(model)

    return fitted_model


def build_tabpfn_predictions_asset(
    key: KeyLike,
    *,
    fitted_model: KeyLike | dg.AssetsDefinition,
    source: str,
    destination: str,
    output_type: str | None = None,
    quantiles: Sequence[float] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    filters: "Filters | None" = None,
    casts: "Casts | None" = None,
    recompress: "Compression | None" = None,
    destination_options: Mapping[str, Any] | None = None,
    redact_labels: bool = False,
    resource_key: str = "tabpfn",
    deps: Iterable[Upstream] = (),
    description: str | None = None,
    group_name: str | None = None,
    owners: Sequence[str] | None = None,
    tags: Mapping[str, str] | None = None,
    code_version: str | None = None,
    retry_policy: dg.RetryPolicy | None = None,
    pool: str | None = None,
    automation_condition: dg.AutomationCondition[Any] | None = None,
) -> dg.AssetsDefinition:
    """Build an asset that is the predictions of a fitted-model asset, as Parquet in a folder.

    The model is the one that this run fitted, else the latest one: it is read from the event log, so that scoring works
    in the retraining run and in any later one. `TabPFNPredictConfig` lets a run name another source and destination.

    Args:
        key: Asset key.
        fitted_model: The fitted-model asset, or its key.
        source: fsspec URL or path of a Parquet file with the model's features.
        destination: fsspec URL or path of the folder for `predictions.parquet` and `_lineage.json`.
        output_type: Classification: `probas` (default), `preds`. Regression: `mean` (default), `median`, `mode`,
            `quantiles`, `main`, `full`.
        quantiles: Numbers in (0, 1), for `quantiles`, `main` and `full`.
        storage_options: fsspec options of the source; `dg.EnvVar` values are resolved in the run. Never recorded.
        filters: As in `build_tabpfn_fitted_model_asset`.
        casts: As in `build_tabpfn_fitted_model_asset`.
        recompress: As in `build_tabpfn_fitted_model_asset`.
        destination_options: fsspec options of the destination, likewise.
        redact_labels: Hash column names and class labels in `_lineage.json` and in the metadata.
        resource_key: Key of the `TabPFNResource`.
        deps: Assets that the source comes from; the fitted model is always one.
        description: Text of the asset page.
        group_name: Asset group.
        owners: E-mail addresses and `team:...`.
        tags: Asset tags.
        code_version: Version of what is predicted.
        retry_policy: For server and network trouble; what cannot pass is not retried.
        pool: Concurrency pool.
        automation_condition: When to materialize by itself.

    Returns:
        The asset.
    """
    model_key = _key_of(fitted_model)

    @dg.asset(
        key=key,
        deps=[model_key, *deps],
        description=description or f"Predictions of `{model_key.to_user_string()}`",
        group_name=group_name,
        owners=owners,
        tags=tags,
        kinds={"tabpfn", "parquet"},
        code_version=code_version,
        retry_policy=retry_policy,
        pool=pool,
        automation_condition=automation_condition,
        required_resource_keys={resource_key},
    )
    def predictions(context: dg.AssetExecutionContext, config: TabPFNPredictConfig) -> dg.MaterializeResult[None]:
        written = _resource(context, resource_key).predict(
            context,
            materialized_model(context, model_key),
            _chosen(context, "source", config.source, source),
            _chosen(context, "destination", config.destination, destination),
            output_type=output_type,
            quantiles=quantiles,
            storage_options=storage_options,
            filters=filters,
            casts=casts,
            recompress=recompress,
            destination_options=destination_options,
            redact_labels=redact_labels,
        )
        return predictions_result(written)

    return predictions


def _key_of(asset: KeyLike | dg.AssetsDefinition) -> dg.AssetKey:
    if isinstance(asset, dg.AssetsDefinition):
        return asset.key
    return asset if isinstance(asset, dg.AssetKey) else dg.AssetKey(asset)


def _resource(context: dg.AssetExecutionContext, resource_key: str) -> TabPFNResource:
    resource = getattr(context.resources, resource_key)
    if not isinstance(resource, TabPFNResource):
        raise dg.DagsterInvariantViolationError(
            f"The resource {resource_key!r} is a {type(resource).__name__}; bind a TabPFNResource to that key."
        )
    return resource


def _chosen(context: dg.AssetExecutionContext, name: str, of_the_run: str | None, of_the_asset: str) -> str:
    """Take the run's URL if it has one; Dagster stores run config in clear text, so it must hold no key."""
    if of_the_run is None:
        return of_the_asset
    with reported(context, left_behind="Nothing was sent."):
        if public_url(of_the_run) != of_the_run:
            raise InvalidInputError(
                f"{name}: the URL in the run config holds user info or a query, and Dagster stores run config in clear "
                "text; pass the plain URL, and the keys by the asset's storage options."
            )
    return of_the_run
