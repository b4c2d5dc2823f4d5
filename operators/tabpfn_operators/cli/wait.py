"""`tabpfn-providers wait`."""

from typing import Annotated

import typer

from tabpfn_operators.cli._models import finish, show_model, write_model
from tabpfn_operators.cli._records import read_model
from tabpfn_operators.cli._report import watching


def wait(
    model: Annotated[str, typer.Argument(help="The model.json that fit --output wrote; it is completed in place.")],
    timeout: Annotated[
        float | None, typer.Option(help="Seconds from the submission on; default: the server's own.")
    ] = None,
    base_url: Annotated[str | None, typer.Option(help="API base URL; default: TABPFN_API_URL.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """Wait for a fit that was submitted before, and complete its record."""
    from tabpfn_operators import Client
    from tabpfn_operators.storage import folder

    pending = read_model(model)
    destination = folder(model.rpartition("/")[0] or ".", None)
    with Client(base_url=base_url) as client, watching() as progress:
        completed = finish(client, pending, destination, timeout=timeout, progress=progress)
    write_model(completed, destination)
    show_model(completed, destination, as_json=as_json)
