"""The command that starts the emulator.

Loaded by the CLI in environments without the extra `emulator`, so only typer is imported at module top.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

MISSING_EXTRA_EXIT_CODE = 2
"""Exit code when a package of the extra `emulator` is not installed."""

_EXTRA = ("sklearn", "starlette", "uvicorn")


def emulator(
    host: Annotated[str, typer.Option(help="Address to bind. Anything but loopback is your decision.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to bind; 0 takes a free one.")] = 0,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where uploads and the journal are kept. Default: a temporary folder.")
    ] = None,
    token: Annotated[
        list[str] | None,
        typer.Option(help="Accept this token only (repeatable). Default: any token opens an account of its own."),
    ] = None,
    fit_seconds: Annotated[
        float, typer.Option(min=0, help="Let every fit take at least this many seconds, to try out waiting.")
    ] = 0.0,
    upload_parts: Annotated[
        int | None, typer.Option(min=1, help="Ask for every upload in this many parts. Default: one.")
    ] = None,
) -> None:
    """Serve the TabPFN API on this machine, with scikit-learn models behind it.

    Prints exactly one line on stdout, `TabPFN emulator listening on http://HOST:PORT`, once it answers requests, and
    runs until SIGINT or SIGTERM (exit code 0).

    Exit codes: 0 when it was asked to end, 1 when it cannot start (address, folder), 2 when its extra is missing.
    """
    missing = [name for name in _EXTRA if find_spec(name) is None]
    if missing:
        typer.echo(
            f"The emulator needs packages that are not installed ({', '.join(missing)}). Install them with: "
            'pip install "tabpfn-providers[emulator]"',
            err=True,
        )
        raise typer.Exit(MISSING_EXTRA_EXIT_CODE)
    from tabpfn_emulator._serve import serve

    try:
        serve(
            host=host,
            port=port,
            data_dir=data_dir,
            tokens=tuple(token or ()),
            fit_seconds=fit_seconds,
            upload_parts=upload_parts,
        )
    except OSError as problem:
        typer.echo(f"The emulator cannot start on {host}:{port}: {problem}", err=True)
        raise typer.Exit(1) from None
