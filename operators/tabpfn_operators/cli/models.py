"""`tabpfn-providers models`: what a lineage store holds, and the life of a model in it."""

from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from tabpfn_operators.cli._lineage import (
    alias_facts,
    as_plain,
    diff_table,
    erasure_lines,
    erasure_table,
    models_table,
    notes,
    verification_table,
    version_facts,
)
from tabpfn_operators.cli._report import show_facts, show_json, show_table
from tabpfn_operators.errors import ConfigurationError
from tabpfn_operators.lineage import CHAMPION, UNSET, AliasEntry, Unset

if TYPE_CHECKING:
    from tabpfn_operators.lineage import Erasure, LineageStore

_HELP = """List, show, compare, promote, roll back, verify and erase the models of a lineage store.

The store is a folder, named by --store or TABPFN_LINEAGE_STORE. Its credentials come from the storage's own
environment or files (AWS_..., GOOGLE_..., FSSPEC_...), never from the command line.

A VERSION is a version, a unique beginning of one, `latest`, or an alias such as `@champion`.
"""

app = typer.Typer(help=_HELP, no_args_is_help=True)

StoreOption: TypeAlias = Annotated[
    str | None, typer.Option("--store", envvar="TABPFN_LINEAGE_STORE", help="fsspec URL or path of the store.")
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]
NameArgument: TypeAlias = Annotated[str, typer.Argument(help="The model.")]
AliasOption: TypeAlias = Annotated[str, typer.Option(help="The alias.")]
BaseUrlOption: TypeAlias = Annotated[str | None, typer.Option(help="API base URL; default: TABPFN_API_URL.")]
UnsafeOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--allow-unsafe-store", help="Take a store on which two writers may both succeed; only if there is one."
    ),
]
RuleOption: TypeAlias = Annotated[
    str | None,
    typer.Option(help='Conditions as JSON, e.g. \'{"min_improvement": 0, "must_beat_baseline": true}\'.'),
]
ExpectedOption: TypeAlias = Annotated[
    str | None,
    typer.Option(help="Version that the alias must point to, or `none`; exit code 2 and no change if it does not."),
]

FOUND = 1


@app.command("list")
def list_models(
    name: Annotated[str | None, typer.Argument(help="One model; default: all.")] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """List versions with their aliases; exits with 1 when a record cannot be read, after listing the others."""
    listed = _opened(store).list_models(name)
    if as_json:
        show_json([as_plain(each) for each in listed])
    else:
        show_table(models_table(listed))
    notes(f"{each.name} {each.version}: {each.problem}" for each in listed if each.problem)
    if any(each.problem for each in listed):
        raise typer.Exit(FOUND)


@app.command("show")
def show(
    name: NameArgument,
    version: Annotated[str, typer.Argument(help="The version.")] = "latest",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the record of a version, its newest evaluation, and the aliases that point to it."""
    opened = _opened(store)
    version = opened.resolve(name, version)
    model = opened.get(name, version)
    aliases = {alias: entry for alias, entry in opened.aliases(name).items() if entry.version == version}
    erased = opened.erased(name, version)
    if as_json:
        show_json(
            {
                "name": name,
                "version": version,
                "aliases": {alias: entry.model_dump(mode="json") for alias, entry in aliases.items()},
                "erased": erased.model_dump(mode="json") if erased else None,
                "model": model.model_dump(mode="json"),
            }
        )
        return
    show_facts(f"{name} {version}", version_facts(model, sorted(aliases), erased))


@app.command("diff")
def diff(
    name: NameArgument,
    a: Annotated[str, typer.Argument(help="First version.")],
    b: Annotated[str, typer.Argument(help="Second version.")] = "latest",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show every field that differs between two versions of a model."""
    difference = _opened(store).diff(name, a, b)
    if as_json:
        show_json(difference.model_dump(mode="json"))
        return
    show_table(diff_table(difference))


@app.command("promote")
def promote(
    name: NameArgument,
    version: Annotated[str, typer.Argument(help="The version.")],
    alias: AliasOption = CHAMPION,
    expected: ExpectedOption = None,
    rule: RuleOption = None,
    store: StoreOption = None,
    allow_unsafe_store: UnsafeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Point an alias to a version; where it points there already, nothing is written.

    With --rule only if the version's evaluation meets every condition; exits with 1 when it does not. The decision is
    kept either way.
    """
    opened = _opened(store, allow_unsafe_store=allow_unsafe_store)
    if rule is not None:
        if expected is not None:
            raise ConfigurationError("--rule looks at where the alias points by itself; leave --expected out.")
        _judge(opened, name, version, alias, rule, as_json=as_json)
        return
    _show_entry(opened.promote(name, version, alias=alias, expected=_expected(expected)), as_json=as_json)


@app.command("rollback")
def rollback(
    name: NameArgument,
    alias: AliasOption = CHAMPION,
    expected: ExpectedOption = None,
    store: StoreOption = None,
    allow_unsafe_store: UnsafeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Point an alias to the version before; a second rollback goes one further, so pass --expected in scripts."""
    opened = _opened(store, allow_unsafe_store=allow_unsafe_store)
    _show_entry(opened.rollback(name, alias=alias, expected=_expected(expected)), as_json=as_json)


@app.command("verify")
def verify(
    name: Annotated[str | None, typer.Argument(help="One model; default: all.")] = None,
    version: Annotated[str | None, typer.Argument(help="One version; default: all.")] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Write the index markers that are missing.")] = False,
    concurrency: Annotated[int, typer.Option(help="Models that are asked for at a time.")] = 8,
    base_url: BaseUrlOption = None,
    store: StoreOption = None,
    allow_unsafe_store: UnsafeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Ask the server whether each model still exists, and check the store's records, aliases and index; free.

    Exits with 1 when something is wrong: a model is gone (deleted, or another account's), an erased one is still
    there, a record cannot be read, an alias points nowhere, or index markers are missing and not repaired.
    """
    from tabpfn_operators import Client

    opened = _opened(store, allow_unsafe_store=allow_unsafe_store)
    with Client(base_url=base_url) as client:
        found = client.verify_models(opened, name=name, version=version, repair=repair, concurrency=concurrency)
    if as_json:
        show_json({"ok": found.ok, **found.model_dump(mode="json")})
    else:
        show_table(verification_table(found))
    notes(found.problems)
    notes(f"repaired: {line}" for line in found.repaired)
    notes(f"{line}: its recording was killed, or is under way; run again what records it" for line in found.unrecorded)
    if not found.ok:
        raise typer.Exit(FOUND)


@app.command("delete")
def delete(
    name: Annotated[str | None, typer.Argument(help="The model; or pass --source.")] = None,
    version: Annotated[str | None, typer.Argument(help="The version.")] = None,
    source: Annotated[
        str | None, typer.Option(help="All that was trained on this file, folder or source fingerprint.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, only say what would be deleted.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also delete what an alias points to.")] = False,
    forget_names: Annotated[
        bool, typer.Option("--forget-names", help="Number column names and class labels in the records, for good.")
    ] = False,
    accept_gone: Annotated[
        bool, typer.Option("--accept-gone", help='Take the server\'s "not found" for deleted.')
    ] = False,
    base_url: BaseUrlOption = None,
    store: StoreOption = None,
    allow_unsafe_store: UnsafeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Delete training data at the server, with every model fitted on it, and mark the records as erased.

    Without --yes nothing is asked of the server and nothing changes: it says what would be deleted. The record stays,
    as the proof of what was trained on what; --forget-names takes column names and class labels out of it. Not
    reached: predictions and the records beside them, journals, engines' own records, and older versions of an object
    where the storage keeps them. A rerun after a kill does what is left. Exits with 1 when something is left.
    """
    opened = _opened(store, allow_unsafe_store=allow_unsafe_store)
    options = {"force": force, "forget_names": forget_names, "accept_gone": accept_gone}
    erasure = (
        _erased(opened, name, version, source, base_url, options) if yes else _planned(opened, name, version, source)
    )
    if as_json:
        show_json({"complete": erasure.complete, **erasure.model_dump(mode="json")})
    else:
        show_table(erasure_table(erasure))
    notes(erasure_lines(erasure, forget_names=forget_names))
    if erasure.problems or not (erasure.dry_run or erasure.complete):
        raise typer.Exit(FOUND)


def _planned(store: "LineageStore", name: str | None, version: str | None, source: str | None) -> "Erasure":
    if source is not None and name is None:
        return store.plan_erasure_of(source)
    if source is None and name is not None and version is not None:
        return store.plan_erasure(name, version)
    raise ConfigurationError("Say what to delete: NAME VERSION, or --source FILE; one of the two.")


def _erased(
    store: "LineageStore",
    name: str | None,
    version: str | None,
    source: str | None,
    base_url: str | None,
    options: dict[str, Any],
) -> "Erasure":
    from tabpfn_operators import Client

    _planned(store, name, version, source)  # says what is wrong before a token is asked for
    with Client(base_url=base_url) as client:
        if source is not None:
            return client.erase_source(store, source, dry_run=False, **options)
        return client.erase_model(store, str(name), str(version), dry_run=False, **options)


def _opened(url: str | None, *, allow_unsafe_store: bool = False) -> "LineageStore":
    from tabpfn_operators.lineage import LineageStore

    if not url:
        raise ConfigurationError("No lineage store is named; pass --store or set TABPFN_LINEAGE_STORE.")
    return LineageStore(url, allow_unsafe_store=allow_unsafe_store)


def _expected(text: str | None) -> str | Unset | None:
    if text is None:
        return UNSET
    return None if text == "none" else text


def _judge(store: "LineageStore", name: str, version: str, alias: str, rule: str, *, as_json: bool) -> None:
    from pydantic import ValidationError

    from tabpfn_operators.promotion import PromotionRule
    from tabpfn_operators.promotion import promote as promote_by

    try:
        conditions = PromotionRule.model_validate_json(rule)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(f"--rule: {f'{place}: ' if place else ''}{first['msg']}.") from None
    decision = promote_by(store, name, version, rule=conditions, alias=alias)
    if as_json:
        show_json(decision.model_dump(mode="json"))
    else:
        show_facts(
            f"{name}@{alias}",
            {"promoted": "yes" if decision.promote else "no"}
            | {check.rule: f"{'passed' if check.passed else 'failed'}: {check.reason}" for check in decision.checks},
        )
    if not decision.promote:
        raise typer.Exit(FOUND)


def _show_entry(entry: AliasEntry, *, as_json: bool) -> None:
    if as_json:
        show_json(entry.model_dump(mode="json"))
        return
    show_facts(f"{entry.name}@{entry.alias}", alias_facts(entry))
