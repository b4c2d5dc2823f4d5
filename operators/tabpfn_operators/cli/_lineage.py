"""What `tabpfn-providers models` shows: tables and lines, in which data can be neither markup nor a control code."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from tabpfn_assets import FittedModel
from tabpfn_operators.cli._records import model_facts
from tabpfn_operators.cli._report import stderr
from tabpfn_operators.lineage import (
    AliasEntry,
    Difference,
    ErasedEntry,
    Erasure,
    ListedModel,
    UploadErasure,
    Verification,
)

_OUTCOMES = {
    "planned": "would be deleted",
    "deleted": "deleted",
    "gone": "gone before",
    "unknown": "not found",
    "still_there": "still there",
    "other_api": "at another API",
    "no_upload_id": "upload unknown",
}
_REMEDIES = {
    "unknown": "the server knows neither it nor a model on it under this account. Use the key of the account that "
    "holds it; if it is gone for certain, pass --accept-gone. Nothing was marked.",
    "still_there": "it was deleted, and the server still knows a model on it. Run again; if it stays, ask the vendor.",
    "other_api": "{api} holds it; name that with --base-url. Nothing was deleted.",
    "no_upload_id": "the model was taken over by its fitted id alone, so nobody knows the upload. Delete it by its id "
    "(client.delete_dataset), or on the account's page.",
}
_LONGEST = 120


def plain(value: object) -> Text:
    """Show a value as text: no markup, and control codes as escapes."""
    text = "" if value is None else str(value)
    return Text("".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text))


def notes(lines: Iterable[str]) -> None:
    """Print lines on stderr."""
    for line in lines:
        stderr.print(plain(line), highlight=False, soft_wrap=True)


def as_plain(listed: ListedModel) -> dict[str, Any]:
    """Write one version of a listing as JSON-plain data."""
    return {
        "name": listed.name,
        "version": listed.version,
        "aliases": list(listed.aliases),
        "erased": listed.erased,
        "problem": listed.problem,
        "model": listed.model.model_dump(mode="json") if listed.model else None,
    }


def models_table(listed: Iterable[ListedModel]) -> Table:
    """Show versions, oldest first, by model."""
    table = _table("model", "version", "aliases", "rows", "score", "state")
    for each in listed:
        model = each.model
        state = "unreadable" if model is None else "erased" if each.erased else model.status
        table.add_row(
            plain(each.name),
            plain(each.version),
            plain(" ".join(f"@{alias}" for alias in each.aliases)),
            plain(f"{model.rows:,}" if model else None),
            plain(_headline(model)),
            plain(state),
        )
    return table


def version_facts(model: FittedModel, aliases: Iterable[str], erased: ErasedEntry | None) -> Mapping[str, object]:
    """List what a person wants to know of a version."""
    facts: dict[str, object] = dict(model_facts(model))
    if text := " ".join(f"@{alias}" for alias in aliases):
        facts["aliases"] = text
    if model.fingerprint:
        facts["fit fingerprint"] = model.fingerprint
    if model.parent_id:
        facts["compared with"] = model.parent_id
    if model.evaluation is not None:
        evaluation = model.evaluation
        facts["metrics"] = ", ".join(f"{name} {value:.6g}" for name, value in evaluation.metrics.items())
        facts["evaluated"] = f"{evaluation.created_at:%Y-%m-%d %H:%M} UTC on {evaluation.rows_evaluated:,} rows"
    if erased is not None:
        facts["erased"] = f"{erased.at:%Y-%m-%d %H:%M} UTC; its training data is gone from the server"
    return {name: plain(value).plain for name, value in facts.items()}


def alias_facts(entry: AliasEntry) -> Mapping[str, object]:
    """List what a person wants to know of an alias that was moved."""
    return {
        "points to": entry.version,
        "fitted id": plain(entry.fitted_train_set_id).plain,
        "before": entry.replaced or "nothing",
        "moved": f"{entry.moved_at:%Y-%m-%d %H:%M:%S} UTC, entry {entry.number} ({entry.action})",
    }


def diff_table(difference: Difference) -> Table:
    """Show what differs, a field a row."""
    table = _table("field", difference.a, difference.b)
    for change in difference.changes:
        table.add_row(plain(change.field), plain(_short(change.before)), plain(_short(change.after)))
    return table


def verification_table(found: Verification) -> Table:
    """Show the state of each version."""
    table = _table("model", "version", "fitted id", "state")
    for model in found.models:
        words = {"gone": "gone (deleted, or another account's)", "not_erased": "erased here, still on the server"}
        state = words.get(model.state, model.state)
        table.add_row(
            plain(model.name),
            plain(model.version),
            plain(model.fitted_train_set_id),
            plain(state),
        )
    return table


def erasure_table(erasure: Erasure) -> Table:
    """Show uploads, and the models that go with each."""
    table = _table("upload", "outcome", "model", "version", "fitted id", "aliases")
    for upload in erasure.uploads:
        cells = [plain(upload.train_set_upload_id or "?"), plain(_outcome(upload))]
        for model in upload.models:
            aliases = " ".join(f"@{alias}" for alias in model.aliases)
            rest = (model.name, model.version, model.fitted_train_set_id, aliases)
            table.add_row(*cells, *map(plain, rest))
            cells = [Text(), Text()]
    return table


def erasure_lines(erasure: Erasure, *, forget_names: bool) -> Iterator[str]:
    """Say what is left to do."""
    yield from erasure.problems
    for upload in erasure.uploads:
        if remedy := _REMEDIES.get(upload.outcome):
            yield f"Upload {upload.train_set_upload_id or '?'}: {remedy.format(api=upload.api_url)}"
    models = [model for upload in erasure.uploads for model in upload.models]
    if erasure.dry_run:
        held = sorted(f"{model.name}@{alias}" for model in models for alias in model.aliases if not model.erased)
        yield (
            f"{len(erasure.uploads)} uploads of {erasure.target} would be deleted at the server, with all models on "
            "them, also those that are not recorded here. Nothing was done; --yes does it."
        )
        if held:
            yield f"{', '.join(held)} would lose its model: point it to another version first, or add --force."
    names, labels = sum(model.names for model in models), sum(model.labels for model in models)
    if not forget_names and models:
        verb = "keep" if erasure.dry_run else "still hold"
        yield (
            f"The records {verb} {names} column names and {labels} class labels, which may be personal: "
            "--forget-names takes them out."
        )


def _outcome(upload: UploadErasure) -> str:
    if upload.outcome == "planned" and upload.models and all(model.erased for model in upload.models):
        return "erased before"
    return _OUTCOMES[upload.outcome]


def _headline(model: FittedModel | None) -> str | None:
    evaluation = model.evaluation if model else None
    if evaluation is None or evaluation.headline not in evaluation.metrics:
        return None
    return f"{evaluation.headline} {evaluation.metrics[evaluation.headline]:.4g}"


def _short(value: object) -> str:
    if value is None:
        return "-"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(plain(column), overflow="fold", no_wrap=column == "version")
    return table
