"""Lineage records as Markdown that shows names and labels as they are and obeys none of them."""

import json
import string
from collections.abc import Iterable

from tabpfn_assets import FittedModel, PredictionSet

_ESCAPES = str.maketrans({character: f"\\{character}" for character in string.punctuation})
_FEATURES_SHOWN = 20


def escape(text: object) -> str:
    """Return text that any Markdown renderer shows literally, in a table cell too.

    Every ASCII punctuation character may be escaped by a backslash (CommonMark 2.4), which also defuses HTML, links and
    cell borders. Line breaks become spaces; characters that are not printable become U+FFFD.
    """
    words = " ".join(str(text).split())
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in words).translate(_ESCAPES)


def model_report(model: FittedModel) -> str:
    """Return the Markdown report of a fitted model, its whole record included."""
    title = model.name or model.fitted_train_set_id
    return f"# TabPFN model {escape(title)}\n\n{_table(_model_rows(model))}\n{_record(model.model_dump_json())}"


def predictions_report(scored: PredictionSet) -> str:
    """Return the Markdown report of a set of predictions, its whole record included."""
    rows = [
        ("Predictions", escape(scored.uri)),
        ("Lineage record", escape(scored.lineage_uri)),
        ("Rows", str(scored.rows)),
        ("Columns", _some(scored.columns)),
        ("Output type", escape(scored.output_type)),
        ("Scored data", _some(scored.source.uris)),
        *_model_rows(scored.model),
    ]
    return f"# TabPFN predictions\n\n{_table(rows)}\n{_record(scored.model_dump_json())}"


def _model_rows(model: FittedModel) -> list[tuple[str, str]]:
    rows = [
        ("Fitted id", escape(model.fitted_train_set_id)),
        ("Task", escape(model.task)),
        ("Target", escape(model.target)),
        ("Features", _some(model.feature_names)),
        ("Train rows", str(model.rows)),
        ("Train data", _some(model.source.uris)),
        ("Train data fingerprint", escape(model.source.fingerprint or "unknown")),
        ("Submitted", escape(model.created_at.isoformat(timespec="seconds"))),
    ]
    if model.classes is not None:
        rows.insert(3, ("Classes", _some(model.classes)))
    if model.run is not None:
        rows.append(("Flow run", escape(model.run.run_id or "unknown")))
    return rows


def _some(values: Iterable[object]) -> str:
    known = [escape(value) for value in values]
    more = f" and {len(known) - _FEATURES_SHOWN} more" if len(known) > _FEATURES_SHOWN else ""
    return ", ".join(known[:_FEATURES_SHOWN]) + more


def _table(rows: list[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows), ""])


def _record(as_json: str) -> str:
    # No line of indented JSON starts with a backtick, so nothing in it can close the fence; ASCII hides no characters.
    return f"```json\n{json.dumps(json.loads(as_json), indent=2)}\n```\n"
