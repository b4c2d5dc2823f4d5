"""Arrays of numbers or labels out of a JSON text that arrives in pieces, each parsed on its own (contract 5).

Why simdjson, and what else was measured: docs/design/answers.md.
"""

import json
import re
from collections.abc import Callable
from typing import Any

from tabpfn_operators.predictions._shelf import Labels, Numbers, Shelf

#: Bytes that are parsed at once.
BLOCK_BYTES = 256 << 10
#: No label, and no number, has more.
_LONGEST_VALUE = 16 << 20
_SPACE = b" \t\r\n"
_END_OF_ROWS = re.compile(rb"\]\s*\]")
_NO_ROW = re.compile(rb"\]\s*+[^\],]")
_STRING = rb'"(?:[^"\\]++|\\.)*+"'
#: Values that are followed by a comma, and one that is followed by the end of the array; possessive, so that neither
#: goes back over what it has read.
_VALUES = re.compile(rb'(?:(?:[^",\[\]{}]++|' + _STRING + rb")++,)++", re.DOTALL)
_LAST_VALUE = re.compile(rb'(?:[^",\[\]{}]++|' + _STRING + rb")*+\]", re.DOTALL)


class MalformedError(ValueError):
    """The text is not what an answer is made of."""


class NumberArray:
    """An array of numbers, or of arrays of numbers of one length.

    Args:
        shelf: Takes the numbers.
    """

    def __init__(self, shelf: Shelf) -> None:
        import simdjson

        self._shelf = shelf
        self._parser = simdjson.Parser()
        self._start = shelf.count
        self._nested: bool | None = None
        self._rows = 0
        self._width: int | None = None
        self._carried = 0

    def feed(self, buffer: bytearray, *, last: bool) -> bool:
        """Take what is whole from the front of a buffer that begins behind the array's bracket, or behind a comma.

        Args:
            buffer: The text; what is taken is removed from it.
            last: Whether no more will come.

        Returns:
            Whether the array is over; the buffer then begins behind it.

        Raises:
            MalformedError: It holds something else than numbers, or arrays of different lengths.
        """
        if self._nested is None:
            first = bytes(buffer[:_LONGEST_VALUE]).lstrip(_SPACE)[:1]
            if not first:
                return False
            self._nested = first == b"["
        while len(buffer) >= BLOCK_BYTES or last:
            before = len(buffer)
            if self._take_rows(buffer) if self._nested else self._take_numbers(buffer):
                return True
            if len(buffer) == before:
                break
        if len(buffer) > _LONGEST_VALUE:
            raise MalformedError("a number has no end")
        if last and _NO_ROW.search(buffer):
            raise MalformedError("not every element is an array")
        return False

    def finish(self) -> Numbers:
        """Say where the numbers are."""
        return Numbers(self._start, self._rows, (self._width or 0) if self._nested else None)

    def _take_numbers(self, buffer: bytearray) -> bool:
        end = buffer.find(b"]")
        cut = buffer.rfind(b",") if end < 0 else end
        if cut < 0:
            return False
        self._rows += self._plain(bytes(buffer[:cut]), may_be_empty=end >= 0 and not self._rows)
        del buffer[: cut + 1]
        return end >= 0

    def _take_rows(self, buffer: bytearray) -> bool:
        cut = _end_of_whole_rows(buffer)
        if cut and self._parsed_rows(bytes(buffer[:cut]), careful=False):
            del buffer[: cut + buffer[cut:].index(b",") + 1]
            return False
        # Either the array ends within the buffer, or something in it is no plain number.
        if end := _END_OF_ROWS.search(buffer):
            self._parsed_rows(bytes(buffer[: end.start() + 1]), careful=True)
            del buffer[: end.end()]
            return True
        if cut:
            self._parsed_rows(bytes(buffer[:cut]), careful=True)
            del buffer[: cut + buffer[cut:].index(b",") + 1]
        else:
            self._take_part_of_row(buffer)
        return False

    def _take_part_of_row(self, buffer: bytearray) -> None:
        # A row may be as long as the test set: quantiles come one after the other.
        cut = buffer.rfind(b",")
        if cut < 0 or b"]" in buffer:
            return
        row = bytes(buffer[:cut]).lstrip(_SPACE)
        if row[:1] != b"[":
            raise MalformedError("not every element is an array")
        self._carried += self._plain(row[1:], may_be_empty=False)
        buffer[: cut + 1] = b"["

    def _plain(self, text: bytes, *, may_be_empty: bool) -> int:
        """Put plain numbers on the shelf and count them."""
        whole = b"[" + text + b"]"
        numbers = self._fast(whole, None)
        if numbers is None:
            numbers = _slow(whole)
            if numbers.ndim != 1:
                raise MalformedError("not every element is a number")
        if not numbers.size and not may_be_empty:
            raise MalformedError("a comma has no number behind it")
        self._shelf.append(numbers)
        return int(numbers.size)

    def _parsed_rows(self, text: bytes, *, careful: bool) -> bool:
        whole, widths = b"[" + text + b"]", list[int]()
        numbers = self._fast(whole, widths)
        if numbers is None:
            if not careful:
                return False
            numbers = _slow_rows(whole, widths)
        if sum(widths) != numbers.size:
            raise MalformedError("an array holds more than numbers")
        widths[0] += self._carried
        self._carried = 0
        self._width = widths[0] if self._width is None else self._width
        if widths.count(self._width) != len(widths):
            raise MalformedError("its arrays have different lengths")
        self._shelf.append(numbers)
        self._rows += len(widths)
        return True

    def _fast(self, whole: bytes, widths: list[int] | None) -> Any:
        import numpy as np

        document: Any = None
        try:
            document = self._parser.parse(whole)
            if widths is not None:
                widths[:] = map(len, document)
            return np.frombuffer(document.as_buffer(of_type="d"))
        except (ValueError, TypeError, RuntimeError):  # null, NaN, a number beyond 64 bits, or no JSON
            return None
        finally:
            del document  # the parser's memory serves the next one


def _end_of_whole_rows(buffer: bytearray) -> int:
    """Return where the last row ends that a comma follows; 0 where none does."""
    end = buffer.rfind(b"]")
    while end >= 0:
        behind = bytes(buffer[end + 1 :]).lstrip(_SPACE)[:1]
        if behind == b",":
            return end + 1
        if behind:
            return 0
        end = buffer.rfind(b"]", 0, end)
    return 0


def _slow(whole: bytes) -> Any:
    return _as_numbers(_loaded(whole))


def _slow_rows(whole: bytes, widths: list[int]) -> Any:
    import numpy as np

    rows = _loaded(whole)
    if not all(isinstance(row, list) for row in rows):
        raise MalformedError("not every element is an array")
    widths[:] = map(len, rows)
    return np.concatenate([_as_numbers(row) for row in rows])


def _loaded(whole: bytes) -> list[Any]:
    if b'"' in whole:  # NumPy would make numbers of text
        raise MalformedError("text where numbers are expected")
    try:
        values: list[Any] = json.loads(whole)
    except (ValueError, RecursionError):
        raise MalformedError("it is no JSON") from None
    return values


def _as_numbers(values: list[Any]) -> Any:
    import numpy as np

    try:
        return np.asarray(values, dtype=np.float64)  # null becomes NaN (contract 5)
    except (ValueError, TypeError, OverflowError):
        raise MalformedError("it holds something else than numbers of one shape") from None


class LabelArray:
    """An array of labels: text, numbers, truth values.

    Args:
        shelf: Takes the place of each label in the list of different ones.
    """

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._start = shelf.count
        self._rows = 0
        self._places: dict[tuple[type, Any], int] = {}

    def feed(self, buffer: bytearray, *, last: bool) -> bool:
        """As `NumberArray.feed`."""
        if len(buffer) < BLOCK_BYTES and not last:
            return False
        if whole := _VALUES.match(buffer):
            self._take(bytes(buffer[: whole.end() - 1]))
            del buffer[: whole.end()]
        if end := _LAST_VALUE.match(buffer):
            text = bytes(buffer[: end.end() - 1])
            if text.strip(_SPACE) or self._rows:
                self._take(text)
            del buffer[: end.end()]
            return True
        if len(buffer) > _LONGEST_VALUE or last:
            raise MalformedError("not every element is a label")
        return False

    def finish(self) -> Labels:
        """Say where the labels are."""
        return Labels(Numbers(self._start, self._rows), tuple(value for _, value in self._places))

    def _take(self, text: bytes) -> None:
        import numpy as np

        try:
            labels = json.loads(b"[" + text + b"]")
        except (ValueError, RecursionError):
            raise MalformedError("it is no JSON") from None
        places = self._places
        # True is 1, and 1 is 1.0, to a dict; to a model they are three labels.
        codes = [places.setdefault((type(label), label), len(places)) for label in labels]
        self._shelf.append(np.array(codes, dtype=np.float64))
        self._rows += len(codes)


ArrayReader = NumberArray | LabelArray
NewArray = Callable[[Shelf], ArrayReader]
