"""Lineage records as Dagster metadata. Pure: record in, metadata out, and back."""

from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg

from tabpfn_assets import ClassLabel, FittedModel, PredictionSet

#: The whole record, so that a later run, another engine or a notebook can use the model.
MODEL_KEY = "tabpfn/model"
FITTED_ID_KEY = "tabpfn/fitted_train_set_id"

Metadata = dict[str, Any]


def fitted_model_metadata(model: FittedModel) -> Metadata:
    """Describe a fitted model for the asset page, and keep its whole record under `tabpfn/model`.

    Args:
        model: The completed model.

    Returns:
        Metadata of a materialization; numbers are numbers, so that Dagster plots them.
    """
    facts: Metadata = {
        "dagster/row_count": model.rows,
        "dagster/column_schema": _train_schema(model),
        FITTED_ID_KEY: model.fitted_train_set_id,
        "tabpfn/task": model.task,
        "tabpfn/target": model.target,
        "tabpfn/features": dg.MetadataValue.json(list(model.feature_names)),
        "tabpfn/feature_count": len(model.features),
        MODEL_KEY: dg.MetadataValue.json(model.model_dump(mode="json")),
        **_first_uri(model.source.uris),
        **_timings(model.timings),
    }
    if model.classes is not None:
        facts["tabpfn/class_labels"] = dg.MetadataValue.json(list(model.classes))
    if model.source.fingerprint is not None:
        facts["tabpfn/train_fingerprint"] = model.source.fingerprint
    if model.parameters.thinking is not None:
        facts["tabpfn/thinking_effort"] = model.parameters.thinking.effort
    if model.estimated_cost is not None:
        facts["tabpfn/estimated_cost"] = model.estimated_cost
    return facts


def predictions_metadata(predictions: PredictionSet) -> Metadata:
    """Describe a set of predictions for the asset page.

    Args:
        predictions: The record beside the predictions.

    Returns:
        Metadata of a materialization. The whole record is at `tabpfn/lineage_uri`.
    """
    facts: Metadata = {
        "dagster/row_count": predictions.rows,
        "dagster/uri": predictions.uri,
        "dagster/column_schema": _predictions_schema(predictions),
        FITTED_ID_KEY: predictions.model.fitted_train_set_id,
        "tabpfn/lineage_uri": predictions.lineage_uri,
        "tabpfn/output_type": predictions.output_type,
        "tabpfn/test_set_upload_id": predictions.test_set_upload_id,
        **_timings(predictions.timings),
    }
    if predictions.source.uris:
        facts["tabpfn/source_uri"] = predictions.source.uris[0]
    if predictions.source.fingerprint is not None:
        facts["tabpfn/source_fingerprint"] = predictions.source.fingerprint
    return facts


def model_in_metadata(metadata: Mapping[str, dg.MetadataValue]) -> FittedModel | None:
    """Read back the model record of a materialization; None where there is none."""
    value = metadata.get(MODEL_KEY)
    return None if value is None else FittedModel.model_validate(value.value)


def _first_uri(uris: tuple[str, ...]) -> Metadata:
    return {"dagster/uri": uris[0]} if uris else {}


def _timings(timings: Mapping[str, float | None]) -> Metadata:
    return {f"tabpfn/timing/{stage}": float(seconds) for stage, seconds in timings.items() if seconds is not None}


def _train_schema(model: FittedModel) -> dg.TableSchema:
    features = [dg.TableColumn(f.name, f.dtype or "unknown", tags={"role": "feature"}) for f in model.features]
    target = dg.TableColumn(model.target, _label_type(model.classes), tags={"role": "target"})
    return dg.TableSchema([*features, target])


def _predictions_schema(predictions: PredictionSet) -> dg.TableSchema:
    # The point prediction of a classifier is a label of the train set; everything else is a number.
    types = {"prediction": _label_type(predictions.model.classes)}
    return dg.TableSchema([dg.TableColumn(name, types.get(name, "double")) for name in predictions.columns])


def _label_type(classes: Iterable[ClassLabel] | None) -> str:
    if classes is None:
        return "double"
    names = {bool: "bool", int: "int64", float: "double", str: "string"}
    kinds = {names[type(label)] for label in classes}
    return kinds.pop() if len(kinds) == 1 else "string"
