"""Arrow arrays made of memory: `pa.array` and `pa.scalar` import pandas, which costs 40 MiB (measured, pyarrow 26)."""

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from tabpfn_assets import ClassLabel
from tabpfn_operators.predictions._arrays import MalformedError

if TYPE_CHECKING:
    import pyarrow as pa


def float_array(numbers: Any) -> "pa.Array":
    """Make an Arrow array of contiguous float64."""
    import pyarrow as pa

    return pa.Array.from_buffers(pa.float64(), numbers.size, [None, pa.py_buffer(numbers)])


def label_array(labels: Sequence[ClassLabel | None]) -> "pa.Array":
    """Make an Arrow array of labels of one kind; whole numbers beside fractions become fractions.

    Args:
        labels: Labels; None stands for null.

    Raises:
        MalformedError: They are of different kinds, or whole numbers beyond 64 bits.
    """
    import numpy as np
    import pyarrow as pa

    kinds = {type(label) for label in labels if label is not None}
    if not kinds:
        return pa.nulls(len(labels))
    filled: Any = labels
    if kinds == {str}:
        try:
            texts = [(label or "").encode() for label in filled]
        except UnicodeEncodeError:
            raise MalformedError("a label is no text that UTF-8 can hold") from None
        offsets = np.array(list(accumulate(map(len, texts), initial=0)), np.int64)
        kind, buffers = pa.large_string(), [pa.py_buffer(offsets), pa.py_buffer(b"".join(texts))]
    elif kinds == {bool}:
        kind, buffers = pa.bool_(), [_bits([bool(label) for label in filled])]
    elif kinds <= {int, float}:
        kind = pa.int64() if kinds == {int} else pa.float64()
        try:
            values = np.array([label or 0 for label in filled], np.int64 if kinds == {int} else np.float64)
        except OverflowError:
            raise MalformedError("a label is a whole number beyond 64 bits") from None
        buffers = [pa.py_buffer(values)]
    else:
        raise MalformedError("the labels are of different kinds")
    valid = _bits([label is not None for label in filled])
    array = pa.Array.from_buffers(kind, len(labels), [valid, *buffers])
    return array.cast(pa.string()) if kinds == {str} else array


def _bits(values: Sequence[bool]) -> "pa.Buffer":
    import numpy as np
    import pyarrow as pa

    return pa.py_buffer(np.packbits(np.array(values, bool), bitorder="little"))
