"""The command that starts the emulator.

Loaded by the CLI in environments without the extra `emulator`, so nothing of it is imported at module top.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tabpfn_emulator import _extra
from tabpfn_emulator._books.limits import DAILY_TOKENS, MONTHLY_TOKENS
from tabpfn_emulator._learning.thinking import DEFAULT_TIME_SCALE

MISSING_EXTRA_EXIT_CODE = 2
"""Exit code when a package of the extra `emulator` is not installed."""

# typer's own tracebacks print local variables, which may hold a token.
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def _not_empty(text: str) -> str:
    if not text:
        raise typer.BadParameter("must not be empty; was a shell variable not set?")
    return text


@app.callback(invoke_without_command=True)
def emulator(
    context: typer.Context,
    host: Annotated[
        str, typer.Option(parser=_not_empty, help="Address to bind. Anything but loopback is your decision.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to bind; 0 takes a free one.")] = 0,
    data_dir: Annotated[
        str | None,
        typer.Option(parser=_not_empty, help="Where uploads and the journal are kept. Default: a temporary folder."),
    ] = None,
    token: Annotated[
        list[str] | None,
        typer.Option(help="Accept this token only (repeatable). Default: any token opens an account of its own."),
    ] = None,
    account: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=TOKEN", help="Open an account with this token (repeatable, several per name)."),
    ] = None,
    fit_seconds: Annotated[
        float, typer.Option(min=0, help="Let every fit take at least this many seconds, to try out waiting.")
    ] = 0.0,
    upload_parts: Annotated[
        int | None, typer.Option(min=1, help="Ask for every upload in this many parts. Default: one.")
    ] = None,
    chunk_above_bytes: Annotated[
        int | None, typer.Option(min=1, help="Ask for larger uploads in many parts. Default: when the caller asks.")
    ] = None,
    storage: Annotated[
        Literal["gcs", "s3"],
        typer.Option(help="Let signed URLs behave like Google Cloud Storage's (gcs) or Amazon S3's (s3)."),
    ] = "gcs",
    latency: Annotated[
        list[str] | None,
        typer.Option(metavar="ROUTE=SECONDS", help="Let a route take at least so long (repeatable); * is every route."),
    ] = None,
    daily_tokens: Annotated[int, typer.Option(min=0, help="Tokens that an account may use a day.")] = DAILY_TOKENS,
    monthly_tokens: Annotated[
        int, typer.Option(min=0, help="Tokens that an account may use a month.")
    ] = MONTHLY_TOKENS,
    time_scale: Annotated[
        float, typer.Option(min=0, help="Seconds that a second of a thinking fit's time limit takes here.")
    ] = DEFAULT_TIME_SCALE,
    predict: Annotated[
        Literal["model", "constant"],
        typer.Option(help="constant: learn nothing, predict the same for every row; for benchmarks."),
    ] = "model",
    backend: Annotated[
        Literal["sklearn", "tabpfn"],
        typer.Option(help="Whose models: small stand-ins, or the local ones of the package tabpfn."),
    ] = "sklearn",
    rate_limits: Annotated[
        bool, typer.Option("--rate-limits", help="Enforce the published limits of calls per minute and hour.")
    ] = False,
    faults: Annotated[
        bool, typer.Option("--faults", help="Open the control routes /_emulator/*: faults, settings, journal.")
    ] = False,
) -> None:
    """Serve the TabPFN API on this machine, with scikit-learn models behind it; or read its books (`journal`).

    Prints exactly one line on stdout, `TabPFN emulator listening on http://HOST:PORT`, once it answers requests, and
    runs until SIGINT or SIGTERM (exit code 0).

    Exit codes: 0 when it was asked to end, 1 when it cannot start (address, folder), 2 when its extra, or the package
    of the backend, is missing.
    """
    if context.invoked_subcommand is not None:
        return
    lack = _extra.missing_extra("The emulator")
    if lack is None and backend == "tabpfn" and not _extra.has_tabpfn():
        lack = _extra.TABPFN_REMEDY
    if lack is not None:
        typer.echo(lack, err=True)
        raise typer.Exit(MISSING_EXTRA_EXIT_CODE)
    from pydantic import ValidationError

    from tabpfn_emulator._serve import serve
    from tabpfn_emulator._settings import Settings

    try:
        serve(
            host=host,
            port=port,
            data_dir=Path(data_dir) if data_dir else None,
            tokens=tuple(_usable(each, "--token") for each in token or ()),
            accounts=_accounts(account or ()),
            settings=Settings(
                fit_seconds=fit_seconds,
                upload_parts=upload_parts,
                chunk_above_bytes=chunk_above_bytes,
                storage=storage,
                latency=_latency(latency or ()),
                daily_tokens=daily_tokens,
                monthly_tokens=monthly_tokens,
                rate_limits=rate_limits,
                time_scale=time_scale,
                predict=predict,
                backend=backend,
            ),
            control=faults,
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        raise typer.BadParameter(first["msg"].removeprefix("Value error, "), param_hint=option) from None
    except ValueError as problem:
        raise typer.BadParameter(f"{problem}") from None
    except OSError as problem:
        typer.echo(f"The emulator cannot start on {host}:{port}: {problem}", err=True)
        raise typer.Exit(1) from None


def _usable(token: str, option: str) -> str:
    # The text does not repeat the token.
    if not token or not token.isascii() or not token.isprintable() or token != token.strip():
        raise typer.BadParameter("a token is printable ASCII without space around it, and not empty", param_hint=option)
    return token


def _latency(options: Sequence[str]) -> dict[str, float]:
    latency = {}
    for option in options:
        route, _, text = option.rpartition("=")
        seconds = float(text) if text.replace(".", "", 1).isdecimal() else None
        if not route or seconds is None:
            raise typer.BadParameter(f"{option!r} is not ROUTE=SECONDS", param_hint="--latency")
        latency[route] = seconds
    return latency


def _accounts(options: Sequence[str]) -> tuple[tuple[str, str], ...]:
    named = []
    for option in options:
        name, _, token = option.partition("=")
        if not name or not token:
            # The text does not repeat the option: it may be a token.
            raise typer.BadParameter("an account is given as NAME=TOKEN", param_hint="--account")
        named.append((name, _usable(token, "--account")))
    return tuple(named)


@app.command()
def journal(
    data_dir: Annotated[Path, typer.Option(help="The folder that the emulator was started with.")],
    account: Annotated[str | None, typer.Option(help="Only this account.")] = None,
    route: Annotated[
        str | None,
        typer.Option(help="Only this route, '/v1/status/{job_id}' for any id, or '/v1/*'; signed URLs are /storage."),
    ] = None,
    creations: Annotated[
        bool, typer.Option("--creations", help="The accepted creations instead of the requests.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document with everything that is known.")] = False,
) -> None:
    """Print the books of an emulator, running or stopped: every request, or every accepted creation.

    Exit codes: 0, or 1 when the folder holds no books.
    """
    from tabpfn_emulator._books.journal import read_books
    from tabpfn_emulator._patterns import covers
    from tabpfn_emulator._state.database import FILE_NAME

    try:
        books = read_books(data_dir / FILE_NAME, creations=creations)
    except OSError as problem:
        typer.echo(f"No books to read: {problem}", err=True)
        raise typer.Exit(1) from None
    rows = [
        row for row in books if account in {None, row["account"]} and (route is None or covers(route, row["route"]))
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        typer.echo(_printable(_line(row)))
    typer.echo(f"{len(rows)} rows, {sum(row['charge'] for row in rows)} tokens")


def _printable(line: str) -> str:
    # Routes are what callers have asked for: a line end in one would make a row that was never booked.
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)


def _line(row: dict[str, Any]) -> str:
    when = datetime.fromtimestamp(row["time"], UTC).isoformat(timespec="milliseconds")
    what = row["kind"] if "kind" in row else f"{row['method']} {row['status'] or '-'}"
    ids = " ".join(f"{name}={value}" for name, value in row["ids"].items())
    parts = [f"{row['seq']:>6}", when, f"{what:<14}", row["route"], row["account"] or "-", f"{row['charge']}", ids]
    if row.get("fault"):
        parts.append(f"fault={row['fault']}")
    return "  ".join(parts).rstrip()
