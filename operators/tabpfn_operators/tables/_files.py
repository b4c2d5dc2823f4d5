"""One stored file that is no Parquet: CSV, JSON lines, ORC, Feather or Arrow IPC."""

import contextlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa

from tabpfn_operators._objects import read_trouble
from tabpfn_operators.errors import InvalidInputError, StorageError, TabPFNError
from tabpfn_operators.parquet import BATCH_BYTES
from tabpfn_operators.storage import StoredObject
from tabpfn_operators.tables import _json_lines as json_lines
from tabpfn_operators.tables._shelf import Shelf

#: Bytes of text that are parsed at a time; the first block decides the types of all.
BLOCK_BYTES = 2 << 20
#: Stored bytes of a stripe or record batch that are decoded at a time; of a larger one, columns are read in turns.
TURN_BYTES = 8 << 20
_CSV_COLUMN = re.compile(r"In CSV column #(\d+)")


@dataclass(frozen=True)
class FileSource(ABC):
    """A stored file that Arrow decodes piece by piece.

    Args:
        stored: The object.
        schema: Arrow schema.
        rows: Rows; None where only a scan tells.
    """

    stored: StoredObject
    schema: Any = field(repr=False)
    rows: int | None

    @property
    @abstractmethod
    def reason(self) -> str:
        """Why it is decoded."""

    @abstractmethod
    def _scan(self, file: Any, columns: Sequence[str]) -> Iterator[Any]: ...

    @property
    def url(self) -> str:
        """The URL without secrets."""
        return self.stored.url

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in file order."""
        return tuple(self.schema.names)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.stored.size

    @property
    def objects(self) -> tuple[StoredObject, ...]:
        """The file."""
        return (self.stored,)

    @property
    def digests(self) -> tuple[str, ...]:
        """Nothing is known without reading it."""
        return ("",)

    def check_unchanged(self) -> None:
        """Look at the object again."""
        self.stored.check_unchanged()

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """Read columns piece by piece.

        Args:
            columns: Columns in the order wanted.

        Yields:
            Arrow record batches with the columns in that order.

        Raises:
            InvalidInputError: The file is damaged, or a column changes its type on the way; the message names it.
            SourceChangedError: It was written to meanwhile; run again.
            StorageError: The storage did not answer; run again.
        """
        with _reading(self.stored, self.schema.names) as file:
            self.stored.check_unchanged()  # the schema is known from an earlier look
            for batch in self._scan(file, columns):
                if batch.num_rows:
                    yield batch.select(list(columns))


@contextlib.contextmanager
def _reading(stored: StoredObject, names: Sequence[str] = ()) -> Iterator[Any]:
    try:
        with stored.open() as file:
            yield pa.CompressedInputStream(file, "gzip") if stored.path.lower().endswith(".gz") else file
    except (pa.ArrowException, OSError, KeyError) as error:
        stored.check_unchanged()
        kind = StorageError if isinstance(error, ConnectionError | TimeoutError) else InvalidInputError
        raise kind(_complaint(stored.url, error, names)) from None
    except TabPFNError:
        raise
    except Exception as error:  # of the storage's own library; its text may hold a signed URL
        raise read_trouble(stored, error) from None


def _complaint(url: str, error: Exception, names: Sequence[str]) -> str:
    """Word what Arrow says without the values it quotes."""
    text = str(error)
    column = _CSV_COLUMN.search(text)
    if column is not None and int(column[1]) < len(names):
        name = names[int(column[1])]
        if "UTF8" in text:
            return f"{url}: column {name!r} is not UTF-8 text; convert the file to UTF-8, or to Parquet."
        return (
            f"{url}: column {name!r} has values of another type than in the file's first rows; "
            f"name one that takes all with casts (such as string), or convert the file to Parquet."
        )
    if "straddling" in text:
        return f"{url} has a line of more than {BLOCK_BYTES:,} bytes; convert it to Parquet."
    shape = re.search(r"Expected (\d+) columns, got (\d+)", text)
    if shape is not None:
        return f"{url} has a line of {shape[2]} columns where the first has {shape[1]}; write the file again."
    return f"{url} cannot be read to its end ({type(error).__name__}); if it is damaged, write it again."


class CsvSource(FileSource):
    """Comma- or tab-separated values, plain or gzipped; the first line names the columns."""

    @property
    def reason(self) -> str:
        """Why it is decoded."""
        return "CSV source"

    def _scan(self, file: Any, columns: Sequence[str]) -> Iterator[Any]:
        types = {one.name: one.type for one in self.schema}
        yield from _csv_reader(self.stored, file, types, columns)


def open_csv(stored: StoredObject, casts: Mapping[str, Any]) -> CsvSource:
    """Read the first block of a CSV file, which decides the types that no cast names."""
    with _reading(stored) as file:
        try:
            schema = _csv_reader(stored, file, casts, None).schema
        except pa.ArrowInvalid as error:
            if "Empty CSV" in str(error):
                raise InvalidInputError(f"{stored.url} is empty; is the step that writes it done?") from None
            raise
    return CsvSource(stored, schema, None)


def _csv_reader(stored: StoredObject, file: Any, types: Mapping[str, Any], columns: Sequence[str] | None) -> Any:
    import pyarrow.csv as pcsv

    tabs = ".tsv" in stored.path.lower().rpartition("/")[2]
    # A field left empty is a missing value in text as well, as pandas reads it.
    convert = pcsv.ConvertOptions(column_types=types, include_columns=columns, strings_can_be_null=True)
    return pcsv.open_csv(
        file,
        read_options=pcsv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False),
        parse_options=pcsv.ParseOptions(delimiter="\t" if tabs else ",", newlines_in_values=True),
        convert_options=convert,
    )


class JsonLinesSource(FileSource):
    """One JSON object on each line, plain or gzipped."""

    @property
    def reason(self) -> str:
        """Why it is decoded."""
        return "JSON source"

    def _scan(self, file: Any, columns: Sequence[str]) -> Iterator[Any]:  # noqa: ARG002 - lines are parsed whole
        for block in json_lines.blocks(file, BLOCK_BYTES, self.url):
            yield from json_lines.parse(block, self.schema, self.url).to_batches()


def open_json_lines(stored: StoredObject, casts: Mapping[str, Any]) -> JsonLinesSource:
    """Read the first block of a JSON-lines file, which decides the columns, and the types that no cast names."""
    with _reading(stored) as file:
        schema = json_lines.first_schema(json_lines.blocks(file, BLOCK_BYTES, stored.url), casts, stored.url)
    return JsonLinesSource(stored, schema, None)


class OrcSource(FileSource):
    """An ORC file, read stripe by stripe."""

    @property
    def reason(self) -> str:
        """Why it is decoded."""
        return "ORC source"

    def _scan(self, file: Any, columns: Sequence[str]) -> Iterator[Any]:
        from pyarrow import orc

        opened = orc.ORCFile(file)
        turns = _turns(columns, len(self.names), self.size / max(opened.nstripes, 1))
        for number in range(opened.nstripes):
            yield from _in_turns([partial(opened.read_stripe, number, turn) for turn in turns], len(columns))


def open_orc(stored: StoredObject) -> OrcSource:
    """Read an ORC file's footer."""
    from pyarrow import orc

    with _reading(stored) as file:
        opened = orc.ORCFile(file)
        return OrcSource(stored, opened.schema, opened.nrows)


class IpcSource(FileSource):
    """Feather, or Arrow's IPC file or stream format, read record batch by record batch."""

    @property
    def reason(self) -> str:
        """Why it is decoded."""
        return "Feather or Arrow IPC source"

    def _scan(self, file: Any, columns: Sequence[str]) -> Iterator[Any]:
        reader = self._reader(file, columns)
        if not isinstance(reader, pa.RecordBatchFileReader):
            yield from reader
            return
        count = reader.num_record_batches
        readers = [self._reader(file, turn) for turn in _turns(columns, len(self.names), self.size / max(count, 1))]
        for number in range(count):
            yield from _in_turns([partial(reader.get_batch, number) for reader in readers], len(columns))

    def _reader(self, file: Any, columns: Sequence[str]) -> Any:
        fields = [self.schema.get_field_index(name) for name in columns]
        return _ipc_reader(file, pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False))


def open_ipc(stored: StoredObject) -> IpcSource:
    """Read the schema of a Feather or Arrow IPC file."""
    with _reading(stored) as file:
        if file.read(4) == b"FEA1":
            raise InvalidInputError(f"{stored.url} is Feather version 1; write it as version 2 or Parquet.")
        file.seek(0)
        reader = _ipc_reader(file, pa.ipc.IpcReadOptions())
        return IpcSource(stored, reader.schema, None)


def _ipc_reader(file: Any, options: Any) -> Any:
    file.seek(0)
    is_file = file.read(6) == b"ARROW1"
    file.seek(0)
    return (pa.ipc.open_file if is_file else pa.ipc.open_stream)(file, options=options)


def _turns(columns: Sequence[str], all_columns: int, piece_bytes: float) -> list[list[str]]:
    """Part columns so that what is decoded of a stripe or record batch at a time was about TURN_BYTES."""
    at_a_time = max(1, int(all_columns * TURN_BYTES / max(piece_bytes, 1.0)))
    return [list(columns[start : start + at_a_time]) for start in range(0, len(columns), at_a_time)]


def _in_turns(readings: Sequence[Callable[[], Any]], columns: int) -> Iterator[Any]:
    """Read groups of columns of the same rows one after the other, and join them in batches of bounded size."""
    if len(readings) == 1:
        yield readings[0]()
        return
    rows = max(1, BATCH_BYTES // (16 * columns))
    with Shelf(0) as shelf:  # a slice held in memory would hold all that it is a slice of
        waiting = []
        for read in readings:
            whole = read()
            waiting.append([shelf.put(whole.slice(start, rows)) for start in range(0, whole.num_rows, rows)])
        yield from shelf.joined(waiting)


_OPENERS = {
    (".csv", ".csv.gz", ".tsv", ".tsv.gz"): open_csv,
    (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", ".json", ".json.gz"): open_json_lines,
    (".orc",): lambda stored, casts: open_orc(stored),  # noqa: ARG005 - casts come later for files that know their types
    (".feather", ".arrow", ".arrows", ".ipc"): lambda stored, casts: open_ipc(stored),  # noqa: ARG005
}


def opener_of(path: str) -> Any:
    """Choose by a file's suffix what opens it, or None for Parquet, which needs none."""
    path = path.lower()
    path = path.partition("?")[0] if path.startswith(("http://", "https://")) else path
    return next((opener for suffixes, opener in _OPENERS.items() if path.endswith(suffixes)), None)


def open_file(stored: StoredObject, casts: Mapping[str, Any]) -> Any:
    """Open one stored file as rows, by its suffix.

    Args:
        stored: The object.
        casts: Types that CSV and JSON columns are to be parsed as.

    Raises:
        InvalidInputError: It is not what its suffix says, or empty.
    """
    opener = opener_of(stored.path)
    if opener is not None:
        return opener(stored, casts)
    from tabpfn_operators.parquet import read_footer

    return read_footer(stored)
