"""An answer of any size, read as it arrives: its arrays go to a file, the rest is small JSON."""

import json
import re
from typing import Any

from tabpfn_operators.predictions._arrays import ArrayReader, LabelArray, MalformedError, NumberArray
from tabpfn_operators.predictions._shelf import Labels, Numbers, Shelf

_SPACE = b" \t\r\n"
_TOKEN = re.compile(rb'[ \t\r\n]*+(?:("(?:[^"\\]++|\\.)*+")|([{}\[\],:])|([^ \t\r\n"{}\[\],:]++))', re.DOTALL)
#: Arrays of an answer of output type `full` (contract 5); other types have some of them.
MEMBERS = (b"mean", b"median", b"mode", b"quantiles", b"logits", b"borders")
#: Beside its arrays an answer holds metadata and timings: kilobytes.
_MOST_BESIDE = 16 << 20
_PREDICTION = b'"prediction"'
_STORED_MEMBERS = frozenset({_PREDICTION, *(b'"%b"' % name for name in MEMBERS)})
#: Stands in the small JSON for the array of that number.
ARRAY_KEY = "$array"


class AnswerReader:
    """Takes an answer to a prediction piece by piece; what is left in the end is its JSON without the large arrays.

    Arrays are taken out of the member `prediction`, which is one or an object of some, and out of an answer that is
    nothing but an array (contract 1.8: what a `prediction_uri` names).

    Args:
        shelf: Takes the arrays.
        labels: Whether the arrays hold labels; else numbers.
        stored: Whether it is what a `prediction_uri` names, where the members of a prediction may stand alone.
    """

    def __init__(self, shelf: Shelf, *, labels: bool, stored: bool = False) -> None:
        self._shelf = shelf
        self._members = _STORED_MEMBERS if stored else frozenset({_PREDICTION})
        self._labels = labels
        self.begin()

    def begin(self) -> None:
        """Begin anew."""
        self._shelf.clear()
        self.arrays: list[Numbers | Labels] = []
        self.problem: str | None = None
        self._buffer = bytearray()
        self._beside = bytearray()
        self._step = self._beside_prediction
        self._array: ArrayReader | None = None
        self._depth = 0
        self._last = b""
        self._key: bytes | None = None
        self._within = False

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes.

        Args:
            chunk: Bytes of the answer.

        Raises:
            InvalidInputError: The temporary folder is full; set TMPDIR to a larger disk.
        """
        if self.problem is None:
            # Forty minutes of keepalive whitespace (contract 1.3) must not add up in memory.
            self._buffer += chunk if self._buffer or self._beside else chunk.lstrip(_SPACE)
            self._run(last=False)

    def end(self) -> bytes:
        """Take the end of the answer.

        Returns:
            Its JSON, each array replaced by `{"$array": number}`; as it is where it holds none, and no JSON where it
            was cut off.
        """
        if self.problem is None:
            self._run(last=True)
        return bytes(self._beside + self._buffer)

    def raise_problem(self) -> None:
        """Raise MalformedError where the arrays could not be read."""
        if self.problem is not None:
            raise MalformedError(self.problem)

    def _run(self, *, last: bool) -> None:
        try:
            while self._step(last=last):
                pass
        except MalformedError as error:
            self.problem = str(error)
            self._buffer.clear()

    def _beside_prediction(self, *, last: bool) -> bool:
        """Pass over what is no array of the prediction, token by token."""
        token = _TOKEN.match(self._buffer)
        waits = token is None or (token.end() == len(self._buffer) and not last and not token[2])
        if len(self._beside) + (len(self._buffer) if waits else 0) > _MOST_BESIDE:
            raise MalformedError("the answer holds more than a prediction")
        if token is None or waits:
            return False
        text = token[0].lstrip(_SPACE)
        opens = text == b"[" and (not self._depth or self._key is not None)
        if opens:
            bare = not self._depth
            del self._buffer[: token.end()]
            self._beside += (b'{"prediction":' if bare else b"") + self._placeholder()
            self._array = LabelArray(self._shelf) if self._labels else NumberArray(self._shelf)
            self._step = self._in_bare_array if bare else self._in_array
            return True
        self._note(text)
        self._beside += token[0]
        del self._buffer[: token.end()]
        return True

    def _note(self, text: bytes) -> None:
        """Follow where in the answer this token is."""
        if text in (b"{", b"["):
            self._depth += 1
            if self._key == _PREDICTION and self._depth == 2:
                self._within = True
            self._key = None
        elif text in (b"}", b"]"):
            self._depth -= 1
            self._within = self._within and self._depth >= 2
            self._key = None
        elif text == b":":
            at_prediction = self._depth == 1 and self._last in self._members
            self._key = self._last if at_prediction or (self._within and self._depth == 2) else None
        elif text != b",":
            self._key = None
        self._last = text

    def _placeholder(self) -> bytes:
        return json.dumps({ARRAY_KEY: len(self.arrays)}).encode()

    def _in_array(self, *, last: bool) -> bool:
        array = self._array
        if array is None or not array.feed(self._buffer, last=last):
            return False
        self.arrays.append(array.finish())
        self._array, self._key, self._step = None, None, self._beside_prediction
        return True

    def _in_bare_array(self, *, last: bool) -> bool:
        if not self._in_array(last=last):
            return False
        self._beside += b"}"
        self._step = self._at_end
        return True

    def _at_end(self, *, last: bool) -> bool:
        if bytes(self._buffer).strip(_SPACE) or len(self._buffer) > _MOST_BESIDE:
            raise MalformedError("something follows the array")
        if last:
            self._buffer.clear()
        return False


def array_number(value: Any) -> int | None:
    """Return the number of the array that a value of the small JSON stands for; None for any other value."""
    if isinstance(value, dict) and set(value) == {ARRAY_KEY} and isinstance(value[ARRAY_KEY], int):
        return int(value[ARRAY_KEY])
    return None
