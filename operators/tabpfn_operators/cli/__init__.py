"""The command line; subcommands come by the entry-point group `tabpfn_providers.commands`.

So no layer imports back. An entry point is a function (a typer command) or a Typer application, named as the command.
A name with a dot belongs to the command before the dot and is none itself: `demo.airflow` is what `demo` runs for
Airflow.
"""

import signal
import sys
from types import FrameType

import typer

from tabpfn_assets import __version__
from tabpfn_operators.cli._plugins import commands
from tabpfn_operators.cli._report import exit_code, show_error
from tabpfn_operators.errors import TabPFNError

_HELP = """Run TabPFN, Prior Labs' hosted model for tables, on Parquet files.

The API key comes from TABPFN_TOKEN (or PRIORLABS_API_KEY), never from the command line, where other users could see it.

Exit codes: 0 done. 1 failed; running again may help. 2 running again cannot help: wrong input, setting or usage, or a
failed fit. 3 the account: token, access, quota, or dearer than --max-cost. 4 look before you repeat: a fit is still
running, or nobody knows whether a billed call was carried out, or its output could not be written. 129, 130 and 143:
interrupted.
"""


def _version(value: bool) -> None:
    if value:
        typer.echo(f"tabpfn-providers {__version__}")
        raise typer.Exit


def build_app() -> typer.Typer:
    """Build the application from every command that is installed."""
    # typer's own tracebacks print local variables, which may hold a token.
    app = typer.Typer(help=_HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

    @app.callback()
    def _options(
        version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
    ) -> None:
        """Take the options that stand before a command."""
        del version  # its callback has done the work

    for name, command in commands():
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    return app


def _end(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


def main() -> None:
    """Run the command line and exit with the documented code."""
    # The default ends the process at once and leaves the spooled copy of the data behind; schedulers stop us like this.
    signal.signal(signal.SIGTERM, _end)
    # So does a terminal that closes; under nohup the signal is ignored, and stays so.
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _end)
    try:
        build_app()()
    except TabPFNError as error:
        show_error(error)
        sys.exit(exit_code(error))
