"""What every source of rows has, whatever it is stored as."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from tabpfn_operators.storage import StoredObject


class Described(Protocol):
    """What has columns: known by name and type before a row is read."""

    @property
    def schema(self) -> Any:
        """Arrow schema of its columns."""

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in order."""


class RowSource(Described, Protocol):
    """A table that is read batch by batch, any number of times."""

    @property
    def url(self) -> str:
        """What messages and records call it: a URL without secrets, "DataFrame" or "Table"."""

    @property
    def rows(self) -> int | None:
        """Rows; None where only a scan tells (row filter, CSV, JSON lines)."""

    @property
    def size(self) -> int:
        """Bytes that are read, to check the space of the spool."""

    @property
    def reason(self) -> str:
        """Why it is decoded and not spliced, as one short phrase for the log."""

    @property
    def objects(self) -> tuple[StoredObject, ...]:
        """The stored objects behind it, in order; none for a table in memory."""

    @property
    def digests(self) -> tuple[str, ...]:
        """What is known of each object's content beside its identity: for Parquet, the SHA-256 of its footer."""

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """Read columns in bounded memory, in the order asked for, as Arrow record batches."""

    def check_unchanged(self) -> None:
        """Raise SourceChangedError when an object was written to since it was first looked at."""
