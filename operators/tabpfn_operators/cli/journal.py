"""`tabpfn-providers journal`: what is remembered of fits, and what may be forgotten."""

import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer
from rich.table import Table

from tabpfn_assets import JobRecord
from tabpfn_operators.cli._lineage import notes, plain
from tabpfn_operators.cli._report import show_json, show_table
from tabpfn_operators.errors import ConfigurationError

if TYPE_CHECKING:
    from tabpfn_operators.journals import JournalFolder

_HELP = """List what a journal remembers of fits, and forget what is over.

The journal is a folder, named by --journal or TABPFN_JOURNAL. Its credentials come from the storage's own environment
or files (AWS_..., GOOGLE_..., FSSPEC_...), never from the command line.
"""
_SECONDS = {"m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
UNREADABLE = 1

app = typer.Typer(help=_HELP, no_args_is_help=True)

JournalOption: TypeAlias = Annotated[
    str | None, typer.Option("--journal", envvar="TABPFN_JOURNAL", help="fsspec URL or path of the journal's folder.")
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_places(journal: JournalOption = None, as_json: JsonOption = False) -> None:
    """List every place and what was done there; exits with 1 when a record cannot be read, after listing the others."""
    opened = _opened(journal)
    entries = list(opened.entries())
    if not entries:
        notes([f"Nothing is remembered in {opened.url}."])
    if as_json:
        show_json([{"key": each.key, "problem": each.problem, "record": _brief(each.record)} for each in entries])
    else:
        table = Table("place", "phase", "generation", "fit", "submitted", "delivered", "resubmitted", box=None)
        for each in entries:
            table.add_row(plain(each.key), *(plain(value) for value in _row(each.record)))
        show_table(table)
    notes(f"{each.key}: {each.problem}" for each in entries if each.problem)
    if any(each.problem for each in entries):
        raise typer.Exit(UNREADABLE)


@app.command("gc")
def gc(
    older_than: Annotated[str, typer.Option(help="Age since delivery or failure, such as 30d, 12h, 90m.")] = "30d",
    dry_run: Annotated[bool, typer.Option(help="Say what would be forgotten, and forget nothing.")] = False,
    journal: JournalOption = None,
    as_json: JsonOption = False,
) -> None:
    """Forget what was delivered or has failed long ago; what is open stays, whatever its age."""
    age = read_age(older_than)
    opened = _opened(journal)
    from tabpfn_operators.journals import is_over

    now = time.time()
    entries = list(opened.entries())
    over = [each for each in entries if each.record and is_over(each.record, older_than=age, now=now)]
    forgotten = [] if dry_run else [each for each in over if opened.forget(each, older_than=age)]
    notes(f"{each.key}: {each.problem}" for each in entries if each.problem)
    if as_json:
        show_json({"forgotten": [each.key for each in forgotten], "over": [each.key for each in over]})
        return
    told, verb = (over, "would be forgotten") if dry_run else (forgotten, "forgotten")
    notes([*(each.key for each in told), f"{len(told)} {verb}."])


def read_age(text: str) -> float:
    """Read an age such as 30d.

    Args:
        text: A number and one of m, h, d, w.

    Returns:
        Seconds.

    Raises:
        ConfigurationError: It is no such text.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([mhdw])", text.strip())
    if found is None:
        raise ConfigurationError(f"--older-than {text!r}: write a number and one of m, h, d, w, for instance 30d.")
    return float(found[1]) * _SECONDS[found[2]]


def _opened(journal: str | None) -> "JournalFolder":
    from tabpfn_operators.journals import JournalFolder

    if not journal:
        raise ConfigurationError("Name the journal: --journal URL, or set TABPFN_JOURNAL.")
    return JournalFolder(journal)


def _row(record: JobRecord | None) -> tuple[object, ...]:
    if record is None:
        return ("unreadable", *[None] * 5)
    submitted = record.submitted_at
    when = None if submitted is None else datetime.fromtimestamp(submitted, UTC).isoformat(timespec="seconds")
    delivered = "yes" if record.delivered else "no"
    return record.phase, record.generation, record.job_id, when, delivered, record.resubmissions or None


def _brief(record: JobRecord | None) -> dict[str, object] | None:
    return None if record is None else record.model_dump(mode="json", exclude={"train_set", "model"})
