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
    table = Table("limit", *settings.model_limits, title=f"Limits (default model {settings.default_model_version})")
    for field in type(settings.max_model_limit).model_fields:
        values = [getattr(limit, field) for limit in settings.model_limits.values()]
        table.add_row(field, *("-" if value is None else f"{value:,}" for value in values))
    stdout.print(table)
