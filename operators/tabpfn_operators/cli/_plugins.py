"""Commands and parts of commands, found by entry point."""

import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from tabpfn_operators.errors import ConfigurationError

GROUP = "tabpfn_providers.commands"


def commands() -> Iterator[tuple[str, Any]]:
    """Load every installed command, in the order of their names.

    Yields:
        Name, and the function or Typer application. One that does not load is named on stderr and left out, so that a
        broken plug-in does not take the others away.
    """
    for point in _points():
        if "." in point.name:
            continue
        try:
            yield point.name, point.load()
        except Exception as error:  # whatever a plug-in raises at import
            sys.stderr.write(f"The command {point.name} could not be loaded: {type(error).__name__}: {error}\n")


def part(command: str, name: str) -> Callable[..., Any]:
    """Load a part of a command, for instance what `demo` runs for one engine.

    Args:
        command: The command.
        name: The part.

    Returns:
        What the entry point names.

    Raises:
        ConfigurationError: It is not installed; the message names the parts that are, and the extra to install.
    """
    points = {point.name: point for point in _points()}
    wanted = f"{command}.{name}"
    if wanted not in points:
        prefix = f"{command}."
        known = ", ".join(n.removeprefix(prefix) for n in points if n.startswith(prefix)) or "none"
        raise ConfigurationError(f"{command}: there is no {name!r}; installed: {known}.")
    try:
        loaded: Callable[..., Any] = points[wanted].load()
    except ImportError as error:
        raise missing_extra(name, error) from None
    return loaded


def missing_extra(extra: str, error: ImportError) -> ConfigurationError:
    """Build the error for a feature whose extra is not installed."""
    return ConfigurationError(f'{error.name or error} is not installed; pip install "tabpfn-providers[{extra}]".')


def _points() -> list[EntryPoint]:
    unique = {point.name: point for point in entry_points(group=GROUP)}
    return [unique[name] for name in sorted(unique)]
