"""Records as a person reads them, and records read back from storage."""

import json
import os
from collections.abc import Sequence

from tabpfn_assets import FittedModel, PredictionSet, public_url
from tabpfn_operators._stored import decoded
from tabpfn_operators.errors import ConfigurationError, InvalidInputError, RecordTooNewError, RecordUnreadableError
from tabpfn_operators.storage import read_text

_SHOWN_FEATURES = 6
_SHOWN_FILES = 3


def model_facts(model: FittedModel) -> dict[str, object]:
    """List what a person wants to know of a fitted model."""
    names = ", ".join(model.feature_names[:_SHOWN_FEATURES])
    more = len(model.features) - _SHOWN_FEATURES
    facts: dict[str, object] = {
        "fitted id": model.fitted_train_set_id,
        "upload id": model.train_set_upload_id,
        "status": model.status,
        "task": model.task,
        "target": model.target,
        "features": f"{len(model.features)}: {names}{f' and {more} more' if more > 0 else ''}",
        "rows": f"{model.rows:,}",
        "source": some_uris(model.source.uris),
        "fingerprint": model.source.fingerprint,
        "created": model.created_at.isoformat(timespec="seconds"),
    }
    if model.classes is not None:
        facts["classes"] = ", ".join(str(label) for label in model.classes[:_SHOWN_FEATURES])
    if model.name:
        facts["name"] = model.name
    if model.parameters.config:
        facts["config"] = json.dumps(model.parameters.config)
    if model.api_url:
        facts["api"] = f"{model.api_url} ({model.account})" if model.account else model.api_url
    if model.run is not None:
        run = model.run
        facts["run"] = " ".join(str(part) for part in (run.engine, run.engine_version, run.run_id, run.task_id) if part)
    facts["packages"] = ", ".join(f"{name} {version}" for name, version in model.packages.items())
    return {name: value for name, value in facts.items() if value is not None}


def prediction_facts(record: PredictionSet) -> dict[str, object]:
    """List what a person wants to know of a set of predictions."""
    facts: dict[str, object] = {
        "predictions": record.uri,
        "lineage": record.lineage_uri,
        "rows": f"{record.rows:,}",
        "columns": ", ".join(record.columns[:_SHOWN_FEATURES])
        + (", …" if len(record.columns) > _SHOWN_FEATURES else ""),
        "output type": record.output_type,
        "fitted id": record.model.fitted_train_set_id,
        "source": some_uris(record.source.uris),
    }
    if record.plan_id is not None:
        facts["scoring"] = record.plan_id
        facts["shards"] = f"{record.shards:,}"
        facts["manifest"] = record.manifest_uri
    if record.resends:
        facts["possibly charged twice"] = f"{record.resends:,}, named in the manifest"
    if record.estimated_cost is not None:
        facts["estimated cost"] = f"{record.estimated_cost:,}"
        facts["charged"] = "not known" if record.charged is None else f"{record.charged:,}"
    return facts


def some_uris(uris: Sequence[str]) -> str:
    """Name some files; a table that was in memory has none."""
    more = len(uris) - _SHOWN_FILES
    return (", ".join(uris[:_SHOWN_FILES]) + (f" and {more:,} more" if more > 0 else "")) or "a table in memory"


def read_model(url: str) -> FittedModel:
    """Read a model record: what `fit --output` wrote, or the `_lineage.json` beside predictions.

    Args:
        url: fsspec URL or path.

    Raises:
        RecordTooNewError: A newer version of this package wrote it; upgrade.
        InvalidInputError: It is missing or is no such record; name another file.
    """
    text = read_text(url, None)
    shown = public_url(url)
    try:
        data = json.loads(text)
        if not (isinstance(data, dict) and "model" in data):
            return decoded(text.encode(), FittedModel, shown)
        model = decoded(json.dumps(data["model"]).encode(), FittedModel, shown)
        decoded(text.encode(), PredictionSet, shown)
    except RecordTooNewError:
        raise
    except (ValueError, RecordUnreadableError):
        raise InvalidInputError(
            f"{shown} is no model record; name what `tabpfn-providers fit --output` wrote, or a _lineage.json."
        ) from None
    return model


def find_model(text: str, store: str | None) -> FittedModel:
    """Find a model by what a person writes: a record's file, or a model of a lineage store.

    Args:
        text: What was written. A path (it has a `/`, ends in `.json`, or is a file here) is a record; `name@alias` and
            `name@version` are models of the store, and so is a fitted id.
        store: URL of the store; None where there is none.

    Raises:
        ConfigurationError: There is no store to look into; name one.
        ModelNotRecordedError: The store has no such model; the message names those it has.
        InvalidInputError: The file is missing or is no model record; name another.
    """
    name, named, version = text.partition("@")
    if "/" in text or text.endswith(".json") or (not named and os.path.isfile(text)):
        return read_model(text)
    if store is None:
        meant = (
            "names a model of a lineage store" if named else "is no file, and a fitted id is found by a lineage store"
        )
        raise ConfigurationError(
            f"{text} {meant}: pass --store, or set TABPFN_LINEAGE_STORE. (A file's path has a '/' or ends in .json.)"
        )
    from tabpfn_operators.lineage import LineageStore

    opened = LineageStore(store)
    if not named:
        return opened.find_fit(text)
    return opened.get(name, f"@{version}" if version in opened.aliases(name) else version)
