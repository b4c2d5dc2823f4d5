"""One schema for part files whose schemas differ, as long as no value changes."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.types as pat

from tabpfn_operators.errors import InvalidInputError

#: Whole numbers of at most this many bits have an exact floating-point value.
_MANTISSA = {16: 11, 32: 24, 64: 53}


def unify(schemas: Sequence[tuple[str, Any]]) -> Any:
    """Find the schema that holds the rows of several.

    Args:
        schemas: URL and Arrow schema of each part, in order.

    Returns:
        Every column in order of first appearance; a column that a part lacks is null there.

    Raises:
        InvalidInputError: A column's types differ so that values would change; the message names them.
    """
    first = schemas[0][1]
    if all(schema.equals(first) for _, schema in schemas[1:]):
        return first
    fields: dict[str, Any] = {}
    for url, schema in schemas:
        if len(set(schema.names)) < len(schema.names):
            raise InvalidInputError(f"{url} has a column more than once, and other part files differ; rename one.")
        for one in schema:
            known = fields.get(one.name)
            fields[one.name] = one if known is None else _wider(known, one, url)
    lacking = {name for _, schema in schemas for name in fields.keys() - set(schema.names)}
    named = [one.with_nullable(True) if one.name in lacking else one for one in fields.values()]
    return pa.schema(named, metadata=first.metadata)


def _wider(known: Any, other: Any, url: str) -> Any:
    if known.type == other.type:
        return known.with_nullable(known.nullable or other.nullable)
    try:
        pair = [pa.schema([known.remove_metadata()]), pa.schema([other.with_name(known.name).remove_metadata()])]
        merged = pa.unify_schemas(pair, promote_options="permissive").field(0)
    except pa.ArrowException:
        merged = None
    if merged is None or not (_is_exact(known.type, merged.type) and _is_exact(other.type, merged.type)):
        raise InvalidInputError(
            f"Column {known.name!r} is {other.type} in {url} and {known.type} in part files before it; "
            "write them with one type, or leave the column out with exclude."
        )
    return known.with_type(merged.type).with_nullable(merged.nullable)


def _is_exact(source: Any, target: Any) -> bool:
    """Say whether every value of a type is one of another."""
    if source == target or pat.is_null(source):
        return True
    if pat.is_dictionary(source) and pat.is_dictionary(target):
        return source.ordered == target.ordered and _is_exact(source.value_type, target.value_type)
    if pat.is_integer(source) and (pat.is_integer(target) or pat.is_floating(target) or pat.is_decimal(target)):
        return _fits(source, target)
    if pat.is_floating(source) and pat.is_floating(target):
        return bool(source.bit_width <= target.bit_width)
    if pat.is_decimal(source) and pat.is_decimal(target):
        return bool(source.scale <= target.scale and source.precision - source.scale <= target.precision - target.scale)
    if pat.is_timestamp(source) and pat.is_timestamp(target):
        return bool(source.tz == target.tz)  # the cast of each batch refuses what a finer unit cannot hold
    text = {"string", "large_string"}
    return {str(source), str(target)} == text and str(target) == "large_string"


def _fits(source: Any, target: Any) -> bool:
    signed = pat.is_signed_integer(source)
    bits = source.bit_width - signed
    if pat.is_floating(target):
        return bool(bits <= _MANTISSA[target.bit_width])
    if pat.is_decimal(target):
        return bool(len(str(2**bits)) <= target.precision - target.scale)
    if signed and not pat.is_signed_integer(target):
        return False
    return bool(bits <= target.bit_width - pat.is_signed_integer(target))


def aligned(batch: Any, schema: Any, constants: Mapping[str, Any]) -> Any:
    """Give a batch of one part the columns of all.

    Args:
        batch: Record batch.
        schema: The schema wanted.
        constants: Scalars of columns that the part's path tells.

    Raises:
        InvalidInputError: A value does not fit the type that all parts share.
    """
    from tabpfn_operators.tables._casts import cast

    present = set(batch.schema.names)
    arrays = []
    for one in schema:
        if one.name in present:
            arrays.append(cast(batch.column(one.name), one.name, one.type))
        elif one.name in constants:
            arrays.append(pa.repeat(constants[one.name].cast(one.type), batch.num_rows))
        else:
            arrays.append(pa.nulls(batch.num_rows, one.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
