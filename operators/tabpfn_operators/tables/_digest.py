"""A hash of a table's values: the same however it is cut into batches, and whatever library wrote it."""

import hashlib
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from tabpfn_operators.tables._source import RowSource


def content_digest(table: RowSource, columns: Sequence[str]) -> str:
    """Hash columns by what they hold; what lies under a missing value does not count.

    Args:
        table: The table; it is read once.
        columns: Columns, in order.

    Returns:
        64 hex digits.
    """
    hashes = [_ColumnHash() for _ in columns]
    for batch in table.batches(columns):
        for column, array in zip(hashes, batch.columns, strict=True):
            column.update(array)
    types = [str(table.schema.field(name).type) for name in columns]
    facts = [f"{name}\n{kind}\n{column.hexdigest()}" for name, kind, column in zip(columns, types, hashes, strict=True)]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


class _ColumnHash:
    """Validity, lengths and values each in a hash of their own, so that no boundary of a batch shows."""

    def __init__(self) -> None:
        self._validity, self._lengths, self._values = (hashlib.sha256() for _ in range(3))

    def update(self, array: Any) -> None:
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        is_text = str(array.type).removeprefix("large_").removesuffix("_view") in {"string", "binary"}
        if is_text:
            array = array.cast(pa.large_binary())
        elif pa.types.is_boolean(array.type):
            array = array.cast(pa.uint8())
        self._validity.update(array.is_valid().cast(pa.uint8()).to_numpy(zero_copy_only=False))
        array = array.drop_null()
        if is_text:
            self._update_text(array)
            return
        try:
            width = array.type.bit_width // 8
        except ValueError:  # lists, structs: no feature, but perhaps a column that a filter looks at
            for value in array.to_pylist():
                self._values.update(f"{value!r}\n".encode())
            return
        self._values.update(_bytes_of(array, 1, array.offset * width, (array.offset + len(array)) * width))

    def _update_text(self, array: Any) -> None:
        import numpy as np

        ends = np.frombuffer(_bytes_of(array, 1, array.offset * 8, (array.offset + len(array) + 1) * 8), np.int64)
        self._lengths.update(np.diff(ends).tobytes())
        self._values.update(_bytes_of(array, 2, int(ends[0]), int(ends[-1])) if len(ends) else b"")

    def hexdigest(self) -> str:
        return f"{self._validity.hexdigest()} {self._lengths.hexdigest()} {self._values.hexdigest()}"


def _bytes_of(array: Any, buffer: int, start: int, stop: int) -> memoryview:
    return memoryview(array.buffers()[buffer] or b"")[start:stop]
