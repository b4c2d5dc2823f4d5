"""Rows by the values of some of their columns, which become folders (`day=7/`) as Hive names them."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tabpfn_operators.errors import InvalidInputError

if TYPE_CHECKING:
    import pyarrow as pa

#: Folders of one shard: each is a file of its own.
MOST_FOLDERS = 500
#: What Hive, and all that read its folders, call the folder of rows without a value.
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
#: Bytes of a folder's name that every filesystem takes.
_LONGEST_NAME = 200


def type_problems(schema: "pa.Schema", names: Sequence[str]) -> list[str]:
    """List the columns whose values make no folder names.

    Args:
        schema: Schema of the source.
        names: Columns to partition by, which are there.

    Returns:
        Texts that name column and remedy.
    """
    import pyarrow as pa

    def usable(kind: Any) -> bool:
        plain = kind.value_type if pa.types.is_dictionary(kind) else kind
        kinds = (
            pa.types.is_integer,
            pa.types.is_boolean,
            pa.types.is_date,
            pa.types.is_string,
            pa.types.is_large_string,
        )
        return any(is_kind(plain) for is_kind in kinds)

    return [
        f"column {name!r} is {schema.field(name).type} and cannot name folders; partition by text, whole numbers, "
        "truth values or dates"
        for name in names
        if not usable(schema.field(name).type)
    ]


def by_folder(table: "pa.Table", names: Sequence[str]) -> "Iterator[tuple[str, pa.Table]]":
    """Split rows by folder; their order stays within each.

    Args:
        table: The rows.
        names: Columns to partition by, in order.

    Yields:
        The folder, such as `day=7/shop=north`, and its rows with the columns that the folder does not tell.
    """
    import numpy as np
    import pyarrow as pa

    if not table.num_rows:
        return
    codes = np.zeros(table.num_rows, np.int64)
    texts: list[list[str]] = []
    for name in names:
        column = table.column(name)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
        encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
        found: dict[str, int] = {}
        # Values may share a folder, as null and the empty text do.
        places = [found.setdefault(_text(name, value), len(found)) for value in encoded.dictionary.to_pylist()]
        texts.append(list(found))
        # Not `to_numpy`, which imports pandas.
        codes = codes * len(found) + np.array(places, np.int64)[np.from_dlpack(encoded.indices)]
    order = np.argsort(codes, kind="stable")
    chosen = pa.Array.from_buffers(pa.int64(), order.size, [None, pa.py_buffer(order.astype(np.int64, copy=False))])
    rows = table.drop_columns(list(names)).take(chosen)
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1)).tolist()
    for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
        code, parts = int(codes[order[start]]), list[str]()
        for each in reversed(texts):
            code, place = divmod(code, len(each))
            parts.append(each[place])
        yield "/".join(reversed(parts)), rows.slice(start, stop - start)


def check_folders(kept: "Iterator[pa.RecordBatch]", names: Sequence[str], shown: str) -> None:
    """Refuse a shard whose rows would make too many folders, or none that can be named, before it is paid for.

    Args:
        kept: Batches that have the columns.
        names: Columns to partition by.
        shown: What to call the shard.

    Raises:
        InvalidInputError: The message says how many, or which value; partition by fewer or other columns.
    """
    import pyarrow as pa

    found: set[str] = set()
    for batch in kept:
        # Not what else is kept, some kinds of which Arrow can take no rows of.
        found.update(folder for folder, _ in by_folder(pa.Table.from_batches([batch.select(names)]), names))
        if len(found) > MOST_FOLDERS:
            raise InvalidInputError(
                f"{shown} would be spread over more than {MOST_FOLDERS:,} folders by {', '.join(names)}; partition by "
                "columns of fewer values, or not at all."
            )


def _text(name: str, value: Any) -> str:
    text = _NO_VALUE if value is None or value == "" else str(value).lower() if isinstance(value, bool) else str(value)
    folder = f"{quote(name, safe=' ')}={quote(text, safe=' ')}"
    if len(folder.encode()) > _LONGEST_NAME:
        raise InvalidInputError(
            f"A value of column {name!r} has {len(text):,} letters, too many for a folder; partition by another column."
        )
    return folder
