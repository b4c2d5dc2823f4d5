"""Numbers of an answer in a temporary file: memory holds a few MiB of them, whatever the answer's size."""

import contextlib
import os
import tempfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from tabpfn_operators.errors import InvalidInputError

if TYPE_CHECKING:
    from tabpfn_assets import ClassLabel

#: Less than this stays in memory: most answers are small, and a file costs more than they do.
_MEMORY_BYTES = 1 << 20
_NUMBER_BYTES = 8


@dataclass(frozen=True)
class Numbers:
    """Where the numbers of an array of the answer are.

    Args:
        start: Numbers on the shelf before them.
        rows: Length of the array.
        width: Length of each of its arrays; None where it holds plain numbers.
    """

    start: int
    rows: int
    width: int | None = None


@dataclass(frozen=True)
class Labels:
    """Labels of an array of the answer, as places in the list of those that are different.

    Args:
        codes: Where the places are.
        distinct: The labels, in the order of their first row; None stands for null.
    """

    codes: Numbers
    distinct: "tuple[ClassLabel | None, ...]" = field(repr=False)


class Shelf:
    """Numbers in the order in which they arrived; a context manager that removes its file."""

    def __init__(self) -> None:
        self._file = _file()
        self.count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the file."""
        with contextlib.suppress(OSError):  # what could not be written cannot be flushed either
            self._file.close()

    def clear(self) -> None:
        """Begin anew: the request is sent again."""
        self.close()
        self._file, self.count = _file(), 0

    def append(self, numbers: Any) -> None:
        """Put numbers at the end.

        Args:
            numbers: Contiguous float64.

        Raises:
            InvalidInputError: The temporary folder is full; set TMPDIR to a larger disk.
        """
        try:
            self._file.write(memoryview(numbers).cast("B"))
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else type(error).__name__
            raise InvalidInputError(
                f"The temporary folder takes no more of the answer ({why}). The call was billed; set TMPDIR to a "
                "larger disk before you repeat it."
            ) from None
        self.count += numbers.size

    def read(self, start: int, count: int) -> Any:
        """Return numbers as a new float64 array.

        Args:
            start: Numbers before them.
            count: How many.
        """
        import numpy as np

        numbers: Any = np.empty(count)
        self._file.seek(start * _NUMBER_BYTES)
        view, filled = memoryview(numbers).cast("B"), 0
        while filled < len(view) and (more := self._file.readinto(view[filled:])):
            filled += more
        if filled < len(view):
            raise ValueError(f"{count} numbers from {start} on are not on the shelf")
        return numbers


def _file() -> Any:
    return tempfile.SpooledTemporaryFile(max_size=_MEMORY_BYTES, prefix="tabpfn-answer-")


def check_room(numbers: int) -> None:
    """Refuse an answer that the temporary folder has no room for, before it is paid for.

    Args:
        numbers: Numbers that it will hold.

    Raises:
        InvalidInputError: There is less space; set TMPDIR to a larger disk.
    """
    import shutil

    wanted = numbers * _NUMBER_BYTES
    if wanted <= _MEMORY_BYTES:
        return
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < wanted:
        raise InvalidInputError(
            f"The prediction is {wanted:,} bytes and the temporary folder has {free:,} free; set TMPDIR to a larger "
            "disk. Nothing was sent."
        )
