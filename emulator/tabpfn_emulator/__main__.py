"""`python -m tabpfn_emulator`: the same command as `tabpfn-providers emulator`."""

import typer

from tabpfn_emulator.cli import emulator

if __name__ == "__main__":
    typer.run(emulator)
