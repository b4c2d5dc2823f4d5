"""`python -m tabpfn_emulator`: the same command as `tabpfn-providers emulator`."""

from tabpfn_emulator.cli import app

if __name__ == "__main__":
    app()
