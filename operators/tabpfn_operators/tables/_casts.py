"""Casts of columns to other Arrow types, which no value may fail."""

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from tabpfn_operators.errors import InvalidInputError
from tabpfn_operators.parquet import pandas_metadata


def parse_casts(value: Any) -> dict[str, Any]:
    """Read the types of casts.

    Args:
        value: Column name to Arrow type text (`pyarrow.type_for_alias`: int64, double, string, date32, timestamp[us],
            ...) or `pyarrow.DataType`; the same as JSON text; None is none.

    Returns:
        Column name to Arrow type.

    Raises:
        InvalidInputError: It is no mapping, or a type is not known; the message names the column.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else None
        except ValueError as error:
            raise InvalidInputError(f'The casts are no JSON ({error}); write {{"column": "int64"}}.') from None
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise InvalidInputError('Casts map column names to Arrow types; write {"column": "int64"}.')
    return {name: _type_of(name, kind) for name, kind in value.items()}


def _type_of(name: str, kind: Any) -> Any:
    if isinstance(kind, pa.DataType):
        return kind
    try:
        return pa.type_for_alias(kind)
    except (ValueError, TypeError, AttributeError):
        raise InvalidInputError(
            f"The cast of column {name!r} names the type {kind!r}, which Arrow does not know; "
            "use for instance int64, double, string, bool, date32 or timestamp[us]."
        ) from None


def cast_schema(schema: Any, casts: Mapping[str, Any]) -> Any:
    """Return a schema with some types changed, and without what pandas wrote about those columns.

    Args:
        schema: Arrow schema.
        casts: Column name to Arrow type.

    Raises:
        InvalidInputError: A column is not there, or its type cannot become the other.
    """
    for name, kind in casts.items():
        found = schema.get_all_field_indices(name)
        if len(found) != 1:
            why = "is there more than once" if found else "is not there"
            raise InvalidInputError(f"The casts name column {name!r}, which {why}; correct the name.")
        cast(pa.array([], schema.field(found[0]).type), name, kind)
    fields = [one.with_type(casts[one.name]) if one.name in casts else one for one in schema]
    metadata = dict(schema.metadata or {})
    described = pandas_metadata(schema.metadata)
    if described is not None and casts:
        left = [one for one in described.get("columns", []) if one.get("name") not in casts]
        metadata[b"pandas"] = json.dumps({**described, "columns": left}).encode()
    return pa.schema(fields, metadata=metadata or None)


def cast(values: Any, name: str, kind: Any) -> Any:
    """Cast an array.

    Args:
        values: Arrow array.
        name: Its column, for the message.
        kind: Arrow type.

    Raises:
        InvalidInputError: A value does not fit the type, or the types have nothing in common.
    """
    try:
        return values if values.type == kind else values.cast(kind)
    except pa.ArrowNotImplementedError:
        raise InvalidInputError(
            f"Column {name!r} is {values.type} and cannot become {kind}; cast it otherwise."
        ) from None
    except pa.ArrowException:
        raise InvalidInputError(
            f"Column {name!r} ({values.type}) has values that are no {kind}; cast it to a wider type, or to string."
        ) from None
