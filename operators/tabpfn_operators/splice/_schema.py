"""The Arrow schema behind a footer, and the metadata that keeps it for some of the columns."""

import base64
import logging
from collections.abc import Sequence
from typing import Any

from tabpfn_operators.parquet import sent_schema
from tabpfn_operators.splice import _footer as footers
from tabpfn_operators.splice import _thrift as thrift
from tabpfn_operators.splice._footer import MAGIC, Footer
from tabpfn_operators.splice._thrift import MalformedError

log = logging.getLogger("tabpfn_operators")

ARROW_SCHEMA = b"ARROW:schema"
PANDAS = b"pandas"

KeyValues = tuple[tuple[bytes, bytes], ...]


def schema_list(footer: Footer, kept: Sequence[int]) -> bytes:
    """Encode the schema of some of the top-level columns, in the order given."""
    fields, _ = thrift.read_struct(footer.root, 0)
    root = [(field.id, field.type, footer.root[field.start : field.stop]) for field in fields]
    counted = [
        (number, kind, thrift.integer(len(kept)) if number == footers.CHILDREN else value)
        for number, kind, value in root
    ]
    columns = [footer.columns[index] for index in kept]
    elements = 1 + sum(len(column.shape) for column in columns)
    encoded = (thrift.struct(counted), *(column.elements for column in columns))
    # A list's header counts elements, of which one column may hold several.
    head = thrift.list_of(thrift.STRUCT, [b""] * elements)
    return b"".join((head, *encoded))


def key_value_list(key_values: KeyValues) -> bytes:
    """Encode key-value metadata."""
    pairs = [
        thrift.struct([(1, thrift.BINARY, thrift.binary(key)), (2, thrift.BINARY, thrift.binary(value))])
        for key, value in key_values
    ]
    return thrift.list_of(thrift.STRUCT, pairs)


def arrow_schema(footer: Footer, subject: str) -> Any:
    """Let pyarrow read the schema of a footer, without its row groups.

    Args:
        footer: The footer.
        subject: What it belongs to, for the log: a URL without secrets.

    Returns:
        The Arrow schema, as reading the file would give it.

    Raises:
        MalformedError: The schema is damaged.
    """
    try:
        return _read_schema(footer, footer.key_values)
    except MalformedError:
        rest = tuple((key, value) for key, value in footer.key_values if key != ARROW_SCHEMA)
        if len(rest) == len(footer.key_values):
            raise
        schema = _read_schema(footer, rest)
        log.warning("%s: its ARROW:schema is not readable; categories are sent as text, times without a zone.", subject)
        return schema


def _read_schema(footer: Footer, key_values: KeyValues) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = [
        (footers.VERSION, thrift.I32, thrift.integer(footer.version)),
        (footers.SCHEMA, thrift.LIST, schema_list(footer, range(len(footer.columns)))),
        (footers.ROWS, thrift.I64, thrift.integer(0)),
        (footers.ROW_GROUPS, thrift.LIST, thrift.list_of(thrift.STRUCT, [])),
        *([(footers.KEY_VALUES, thrift.LIST, key_value_list(key_values))] if key_values else []),
    ]
    data = thrift.struct(fields)
    file = b"".join((MAGIC, data, len(data).to_bytes(4, "little"), MAGIC))
    try:
        schema = pq.read_schema(pa.BufferReader(file))
        names = schema.names
    except (pa.ArrowException, OSError, ValueError, KeyError, IndexError) as error:
        raise MalformedError(f"its schema is not readable ({type(error).__name__})") from None
    if len(names) != len(footer.columns):
        raise MalformedError(f"its schema has {len(footer.columns)} columns, read as {len(names)}")
    return schema


def kept_key_values(footer: Footer, schema: Any, kept: Sequence[int]) -> KeyValues:
    """Rewrite the metadata that readers need for the kept columns; without it a category would be sent as plain text.

    Args:
        footer: The footer.
        schema: Its Arrow schema.
        kept: Top-level columns that are kept.

    Returns:
        Key-value metadata; what other tools wrote is left out.
    """
    import pyarrow as pa

    selected = sent_schema(schema, kept)
    described = (selected.metadata or {}).get(PANDAS)
    pandas: KeyValues = () if described is None else ((PANDAS, described),)
    stored = dict(footer.key_values).get(ARROW_SCHEMA)
    if stored is None:
        return pandas
    try:
        original = pa.ipc.read_schema(pa.BufferReader(base64.b64decode(stored)))
        if len(original) != len(footer.columns):
            return pandas
        arrow = pa.schema([original.field(index) for index in kept], metadata=selected.metadata)
    except (pa.ArrowException, OSError, ValueError, KeyError, IndexError):
        return pandas  # the warning was given when the schema was read
    return (*pandas, (ARROW_SCHEMA, base64.b64encode(arrow.serialize().to_pybytes())))
