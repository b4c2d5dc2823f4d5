"""JSON lines in blocks of whole lines, parsed by one schema."""

import io
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.json as pj
import pyarrow.types as pat

from tabpfn_operators.errors import InvalidInputError

_CHANGED = re.compile(r"Column\(/([^)]*)\) changed from (\w+) to (\w+)")
_REMEDY = "name a type that takes all with casts, or convert the file to Parquet"


def blocks(file: Any, block_bytes: int, url: str) -> Iterator[bytes]:
    """Cut a file into blocks that end with a line.

    Args:
        file: Binary file.
        block_bytes: Bytes of a block, about; no line may be longer than 16 of them.
        url: For messages.

    Raises:
        InvalidInputError: A line is longer.
    """
    rest = b""
    while chunk := file.read(block_bytes):
        rest += chunk
        end = rest.rfind(b"\n") + 1
        if end:
            if rest[:end].strip():
                yield rest[:end]
            rest = rest[end:]
        elif len(rest) > 16 * block_bytes:
            raise InvalidInputError(
                f"{url} has a line of more than {16 * block_bytes:,} bytes; write one JSON object on each line."
            )
    if rest.strip():
        yield rest


def first_schema(found: Iterator[bytes], casts: Mapping[str, Any], url: str) -> Any:
    """Infer the columns from the first block.

    Args:
        found: Blocks.
        casts: Types that are given.
        url: For messages.

    Raises:
        InvalidInputError: There is no line, or it is no JSON object.
    """
    block = next(found, None)
    if block is None:
        raise InvalidInputError(f"{url} is empty; is the step that writes it done?")
    given = pa.schema(list(casts.items()))
    inferred = _read(block, url, explicit_schema=given).schema
    # Columns come in the file's order: without this, those with a given type would come first.
    order = _read(block, url, explicit_schema=None).schema.names if casts else inferred.names
    return pa.schema([inferred.field(name) for name in order])


def parse(block: bytes, schema: Any, url: str) -> Any:
    """Parse a block.

    Args:
        block: Whole lines.
        schema: Arrow schema of all lines; what a line lacks is null.
        url: For messages.

    Returns:
        An Arrow table of that schema.

    Raises:
        InvalidInputError: A column is new or changes its type; the message names it.
    """
    try:
        return _parsed(block, explicit_schema=schema, unexpected_field_behavior="error")
    except pa.ArrowInvalid as error:
        changed = _CHANGED.search(str(error))
        if changed is not None:
            raise _flip(url, changed[1]) from None
    for one in _read(block, url, explicit_schema=None).schema:
        index = schema.get_field_index(one.name)
        if index < 0:
            raise InvalidInputError(
                f"{url}: column {one.name!r} first appears after the file's first rows; "
                "name it in the first line too, or convert the file to Parquet."
            )
        if one.type != schema.field(index).type and not pat.is_null(one.type):
            raise _flip(url, one.name)
    raise InvalidInputError(f"{url} cannot be read to its end; write one JSON object on each line.")


def _read(block: bytes, url: str, **options: Any) -> Any:
    try:
        return _parsed(block, **options)
    except pa.ArrowInvalid as error:
        changed = _CHANGED.search(str(error))
        if changed is not None and changed[1]:
            raise _flip(url, changed[1]) from None
        raise InvalidInputError(f"{url} is no JSON lines; write one JSON object on each line, or Parquet.") from None


def _parsed(block: bytes, **options: Any) -> Any:
    reading = pj.ReadOptions(use_threads=False, block_size=len(block) + 1)
    return pj.read_json(io.BytesIO(block), read_options=reading, parse_options=pj.ParseOptions(**options))


def _flip(url: str, name: str) -> InvalidInputError:
    return InvalidInputError(f"{url}: column {name!r} has values of more than one type; {_REMEDY}.")
