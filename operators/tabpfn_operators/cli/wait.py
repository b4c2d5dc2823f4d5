"""`tabpfn-providers wait`."""

from typing import Annotated

import typer

from tabpfn_operators.cli._models import ModelRecord
from tabpfn_operators.cli._records import read_model
from tabpfn_operators.cli._report import watching


def wait(
    model: Annotated[str, typer.Argument(help="The record that fit --output wrote; it is completed in place.")],
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
    folder_url, _, file_name = model.rpartition("/")
    record = ModelRecord(folder(folder_url or ".", None), file_name, submitted=pending)
    with Client(base_url=base_url) as client, watching() as progress, record:
        completed = client.wait_for_fit(pending, timeout=timeout, progress=progress)
    record.write(completed)
    record.show(completed, as_json=as_json)
