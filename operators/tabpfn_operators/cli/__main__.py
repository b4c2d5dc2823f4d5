"""`python -m tabpfn_operators.cli`, where the script is not on PATH."""

from tabpfn_operators.cli import main

if __name__ == "__main__":
    main()
