"""`tabpfn-providers limits`."""

from typing import Annotated

import typer
from rich.table import Table

from tabpfn_operators.cli._report import show_json, stdout


def limits(
    base_url: Annotated[str | None, typer.Option(help="API base URL; default: TABPFN_API_URL.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print them as JSON.")] = False,
) -> None:
    """Print the server's limits by model version."""
    from tabpfn_operators import Client

    with Client(base_url=base_url) as client:
        settings = client.get_settings()
    if as_json:
        show_json(settings.model_dump(mode="json"))
        return
    title = f"Limits by model version (default {settings.default_model_version})"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("limit", overflow="fold")
    for version in settings.model_limits:
        table.add_column(version, justify="right", no_wrap=True)
    for field in type(settings.max_model_limit).model_fields:
        table.add_row(field, *(_short(getattr(limit, field)) for limit in settings.model_limits.values()))
    stdout.print(table)


def _short(figure: int | None) -> str:
    """Write 1,000,000 as 1M, where nothing is lost by it."""
    if figure is None:
        return "-"
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if figure >= size and figure % size == 0:
            return f"{figure // size}{unit}"
    return f"{figure:,}"
