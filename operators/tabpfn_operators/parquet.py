"""Parquet sources: what the footer says, and rows in batches that fit in memory."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from tabpfn_assets import Feature
from tabpfn_operators._objects import read_trouble
from tabpfn_operators.errors import InvalidInputError, StorageError, TabPFNError
from tabpfn_operators.storage import StoredObject
from tabpfn_operators.tables._source import Described

#: Decoded bytes of one batch.
BATCH_BYTES = 16 << 20
_MAGIC, _ENCRYPTED_MAGIC = b"PAR1", b"PARE"
#: Behind a plain footer of a file with encrypted columns come a nonce and a tag (parquet-format, Encryption).
_SIGNATURE_BYTES = 28


@dataclass(frozen=True)
class ParquetSource:
    """One Parquet file, known by its footer.

    Args:
        stored: The object.
        schema: Arrow schema.
        rows: Rows.
        footer_digest: SHA-256 of the footer in hex, for the fingerprint.
        row_bytes: Estimated decoded bytes of one row.
    """

    stored: StoredObject
    schema: Any = field(repr=False)
    rows: int
    footer_digest: str = field(repr=False)
    row_bytes: float

    @property
    def url(self) -> str:
        """The URL without secrets."""
        return self.stored.url

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.stored.size

    @property
    def reason(self) -> str:
        """Why it is decoded: nothing in the file asks for it."""
        return "decoding was asked for"

    @property
    def objects(self) -> tuple[StoredObject, ...]:
        """The file."""
        return (self.stored,)

    @property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of the footer, in hex."""
        return (self.footer_digest,)

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in file order."""
        return tuple(self.schema.names)

    @property
    def batch_rows(self) -> int:
        """Rows of one batch, so that it stays within BATCH_BYTES."""
        return max(1, min(self.rows, int(BATCH_BYTES / max(self.row_bytes, 1.0))))

    def check_unchanged(self) -> None:
        """Look at the object again."""
        self.stored.check_unchanged()

    def batches(self, columns: Sequence[str], groups: Sequence[int] | None = None) -> Iterator[Any]:
        """Read columns batch by batch, of all row groups or of some."""
        return batches(self, columns, groups)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Any]:
        """Open the file for reads that name their ranges, and word what goes wrong."""
        import pyarrow as pa

        try:
            # pyarrow joins what it reads; a read-ahead below it would fetch megabytes for every page of every column.
            with self.stored.fs.open(self.stored.path, "rb", cache_type="none") as file:
                self.check_unchanged()  # the schema is known from an earlier look
                yield file
        except (pa.ArrowException, OSError, KeyError) as error:
            self.check_unchanged()
            kind = StorageError if isinstance(error, ConnectionError | TimeoutError) else InvalidInputError
            raise kind(
                f"{self.url} cannot be read to its end ({type(error).__name__}); if it is damaged, write it again."
            ) from None
        except TabPFNError:
            raise
        except Exception as error:  # of the storage's own library; its text may hold a signed URL
            raise read_trouble(self.stored, error) from None


def read_footer(stored: StoredObject) -> ParquetSource:
    """Read the footer of a Parquet file, which may be a part file without rows.

    Args:
        stored: The object.

    Returns:
        What the footer says.

    Raises:
        InvalidInputError: It is no Parquet file, or encrypted; the message names it and what to do.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with stored.open() as file:
            footer = _footer_bytes(file, stored)
            opened = pq.ParquetFile(file, pre_buffer=False)
            metadata, schema = opened.metadata, opened.schema_arrow
    except (pa.ArrowException, OSError) as error:
        raise InvalidInputError(f"{stored.url} is not readable as Parquet ({type(error).__name__}).") from None
    except TabPFNError:
        raise
    except Exception as error:
        raise read_trouble(stored, error) from None
    if len(footer) == metadata.serialized_size + _SIGNATURE_BYTES:
        raise _encrypted(stored)
    encoded = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    # Dictionary-encoded text grows when it is decoded; 16 bytes a value keeps the batch small for such files too.
    row_bytes = max(encoded / max(metadata.num_rows, 1), 16.0 * len(schema))
    return ParquetSource(stored, schema, metadata.num_rows, sha256(footer).hexdigest(), row_bytes)


def _footer_bytes(file: Any, stored: StoredObject) -> bytes:
    not_parquet = InvalidInputError(f"{stored.url} is not a Parquet file; convert it to Parquet first.")
    if stored.size < 12:
        raise not_parquet
    file.seek(stored.size - 8)
    tail = file.read(8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] == _ENCRYPTED_MAGIC:
        raise _encrypted(stored)
    if tail[4:] != _MAGIC or length > stored.size - 12:
        raise not_parquet
    file.seek(stored.size - 8 - length)
    footer: bytes = file.read(length)
    file.seek(0)
    return footer


def _encrypted(stored: StoredObject) -> InvalidInputError:
    return InvalidInputError(f"{stored.url} is encrypted, and no key is at hand; write it without encryption.")


def column_problems(source: Described, columns: Sequence[str]) -> list[str]:
    """List what makes columns unusable: duplicate names, nested and binary types.

    Args:
        source: The source.
        columns: Columns that would be sent.

    Returns:
        Texts that name the column and the remedy; empty when all is well.
    """
    import pyarrow.types as pat

    names = source.names
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    problems = [f"column {name!r} is there more than once; rename one of them" for name in twice]
    for name in dict.fromkeys(columns):
        if name in twice:
            continue
        kind = source.schema.field(name).type
        stored = _stored_type(kind)
        if pat.is_nested(stored):
            problems.append(f"column {name!r} is nested ({kind}); flatten it or leave it out with exclude")
        elif (
            pat.is_binary(stored)
            or pat.is_large_binary(stored)
            or pat.is_fixed_size_binary(stored)
            or str(stored) == "binary_view"
        ):
            problems.append(f"column {name!r} is binary; decode it or leave it out with exclude")
    return problems


def _stored_type(kind: Any) -> Any:
    """Look through categories and extension types (a UUID is stored as binary, a pandas interval as a struct)."""
    import pyarrow as pa

    while True:
        if isinstance(kind, pa.DictionaryType):
            kind = kind.value_type
        elif isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        else:
            return kind


def index_columns(source: Described) -> frozenset[str]:
    """Name the columns that hold a pandas index, which are no features (`index=False` would not have written them)."""
    return pandas_index_columns(source.schema.metadata)


def pandas_index_columns(metadata: dict[bytes, bytes] | None) -> frozenset[str]:
    """Name the columns that hold a pandas index, by a schema's metadata."""
    described = pandas_metadata(metadata)
    names = described.get("index_columns") if described else None
    return frozenset(name for name in names if isinstance(name, str)) if isinstance(names, list) else frozenset()


def pandas_metadata(metadata: dict[bytes, bytes] | None) -> dict[str, Any] | None:
    """Read what pandas wrote about the columns, or None where it did not or it is unreadable."""
    try:
        described = json.loads((metadata or {}).get(b"pandas", b"null"))
    except ValueError:
        return None
    return described if isinstance(described, dict) else None


def sent_schema(schema: Any, kept: Sequence[int]) -> Any:
    """Build the Arrow schema of a file that is sent: only its columns, and pandas metadata that speaks of no other.

    Attributes, index names and other tools' metadata may speak of columns that stay at home. An index column that is
    kept becomes a plain one.

    Args:
        schema: Arrow schema of the source.
        kept: Numbers of the columns that are sent, in order.
    """
    import pyarrow as pa

    fields = [schema.field(index) for index in kept]
    described = pandas_metadata(schema.metadata)
    if described is None:
        return pa.schema(fields)
    names = {field.name for field in fields}
    listed = described.get("columns")
    columns = [
        column
        for column in (listed if isinstance(listed, list) else [])
        if isinstance(column, dict) and column.get("field_name", column.get("name")) in names
    ]
    others: dict[str, object] = {"index_columns": [], "column_indexes": [], "attributes": {}}
    return pa.schema(fields, metadata={b"pandas": json.dumps({**described, **others, "columns": columns}).encode()})


def features_of(source: Described, columns: Sequence[str]) -> tuple[Feature, ...]:
    """Describe columns as features."""
    return tuple(Feature(name=name, dtype=str(source.schema.field(name).type)) for name in columns)


def batches(source: ParquetSource, columns: Sequence[str], groups: Sequence[int] | None = None) -> Iterator[Any]:
    """Read columns batch by batch.

    Args:
        source: The source.
        columns: Columns in the order wanted.
        groups: Row groups to read, in order; None for all.

    Yields:
        Arrow record batches with the columns in that order.

    Raises:
        InvalidInputError: The file is damaged, write it again; or the temporary folder is full, set TMPDIR to a larger
            disk.
        SourceChangedError: It was written to meanwhile; run again.
        StorageError: The storage did not answer; run again.
    """
    from tabpfn_operators.tables._rowgroups import read_row_groups

    with source.reading() as file:
        yield from read_row_groups(file, columns, source.batch_rows, groups)
