"""What the emulator needs beyond the bare distribution, and what to say where it is absent. Standard library only."""

from importlib.util import find_spec
from typing import Final

_PACKAGES: Final = ("python_multipart", "sklearn", "starlette", "uvicorn")
"""Modules of the packages of the extra `emulator`."""

TABPFN_REMEDY: Final = (
    'The backend "tabpfn" needs the package tabpfn, which is not installed. Install it with: pip install tabpfn'
)
"""What to say where the package `tabpfn` is absent."""


def missing_extra(who: str) -> str | None:
    """Say what the emulator lacks, without loading any of it.

    Args:
        who: What asks for it, at the start of a sentence.

    Returns:
        One line that names the packages and the remedy; None when all are installed.
    """
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if not missing:
        return None
    return (
        f"{who} needs packages that are not installed ({', '.join(missing)}). Install them with: "
        'pip install "tabpfn-providers[emulator]"'
    )


def has_tabpfn() -> bool:
    """Return whether the package `tabpfn` is installed, without loading it."""
    return find_spec("tabpfn") is not None
