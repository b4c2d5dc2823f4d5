"""Options that say how a source is read, and their texts as the library's values."""

from collections.abc import Sequence
from typing import Annotated, TypeAlias

import typer

from tabpfn_operators.errors import ConfigurationError
from tabpfn_operators.reading import Compression

FiltersOption: TypeAlias = Annotated[
    str | None, typer.Option(help='Rows to keep, as JSON, e.g. \'[["age", ">", 17]]\'; [[...], [...]] for "or".')
]
CastOption: TypeAlias = Annotated[
    list[str] | None, typer.Option(help="COLUMN=TYPE with an Arrow type, e.g. code=string; repeat it.")
]
RecompressOption: TypeAlias = Annotated[
    str | None, typer.Option(help="CODEC or CODEC:LEVEL to send with, for slow links, e.g. zstd:9.")
]


def read_casts(texts: Sequence[str] | None) -> dict[str, str] | None:
    """Read `COLUMN=TYPE` texts; a column's name may hold a `=`.

    Args:
        texts: The texts.

    Returns:
        Column name to Arrow type text, or None.

    Raises:
        ConfigurationError: A text has no `=`, or nothing on a side of it.
    """
    pairs = [text.rpartition("=") for text in texts or ()]
    wrong = next((name + equals + kind for name, equals, kind in pairs if not name or not kind), None)
    if wrong is not None:
        raise ConfigurationError(f"--cast is COLUMN=TYPE, for instance code=string; not {wrong!r}.")
    return {name: kind for name, _, kind in pairs} or None


def read_compression(text: str | None) -> Compression | None:
    """Read `CODEC` or `CODEC:LEVEL`.

    Args:
        text: The text.

    Returns:
        Codec and level, or None.

    Raises:
        ConfigurationError: The level is no whole number.
    """
    if text is None:
        return None
    codec, _, level = text.partition(":")
    try:
        return codec, int(level) if level else None
    except ValueError:
        raise ConfigurationError(f"--recompress is CODEC:LEVEL, for instance zstd:9; not {text!r}.") from None
