"""Objects on any fsspec storage: open, identify, write; errors that name the URL without its secrets."""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from tabpfn_assets import public_url
from tabpfn_operators.errors import (
    ConfigurationError,
    DestinationError,
    InvalidInputError,
    SourceChangedError,
    StorageError,
    TabPFNError,
)

StorageOptions = Mapping[str, Any]

#: The first of these that the store names identifies a version of an object (design.md, Identity).
_VERSION_KEYS = ("version_id", "VersionId", "generation", "etag", "ETag", "content_md5", "md5Hash", "md5", "crc32c")
#: What s3fs makes of a busy or failing server (500, 503, SlowDown), and the system of a network that is away.
_PASSING = frozenset(
    getattr(errno, name, errno.EIO) for name in ("EIO", "EREMOTEIO", "EBUSY", "EAGAIN", "ENETUNREACH", "EHOSTUNREACH")
)
_TIME_KEYS = ("mtime", "LastModified", "last_modified", "updated", "created")


@dataclass(frozen=True)
class StoredObject:
    """One object, as it was when it was first looked at.

    Args:
        fs: The fsspec filesystem.
        path: Path inside it.
        url: The URL without secrets, for records and messages.
        size: Bytes.
        identity: What changes when the object does.
        partitions: Values that the folders below the one that was named spell (`day=7/`), null as None.
    """

    fs: Any
    path: str
    url: str
    size: int
    identity: str
    partitions: tuple[tuple[str, str | None], ...] = ()

    def open(self) -> Any:
        """Open the object for reading with range requests."""
        return self.fs.open(self.path, "rb")

    def check_unchanged(self) -> None:
        """Look at the object again.

        Raises:
            SourceChangedError: It was written to since; run again when nobody does.
        """
        now = _identity(_known_info(self.fs, self.path, self.url))
        if now != self.identity:
            raise SourceChangedError(f"{self.url} changed while it was read; run again when nobody writes to it.")


def filesystem(url: str | os.PathLike[str], options: StorageOptions | None) -> tuple[Any, str]:
    """Open the filesystem of a URL, without a listings cache: identity never comes from a cache.

    Args:
        url: fsspec URL or plain path.
        options: fsspec storage options; never recorded.

    Returns:
        The filesystem and the path inside it.

    Raises:
        ConfigurationError: The protocol is unknown, or its package is not installed; the message names what to install.
        StorageError: A storage that connects at once did not answer; run again.
    """
    from fsspec.core import url_to_fs

    if not isinstance(url, str | os.PathLike):
        raise ConfigurationError(
            f"Pass a path or an fsspec URL, not {type(url).__name__}; write tables as Parquet first."
        )
    url = str(os.fspath(url))
    if not url or url.isspace():
        raise ConfigurationError("The storage URL is empty; pass a path or an fsspec URL.")
    if options is not None and not isinstance(options, Mapping):
        raise ConfigurationError(
            f"storage_options maps names to values, as a dict does; it is a {type(options).__name__}."
        )
    extra = {} if "::" in url else {"use_listings_cache": False}
    try:
        fs, path = url_to_fs(url, **{**extra, **(options or {})})
    except ImportError as error:
        raise ConfigurationError(f'{public_url(url)}: {error}; pip install "tabpfn-providers[storage]".') from None
    except ValueError as error:
        if "rotocol" in str(error):
            raise ConfigurationError(f"{public_url(url)}: unknown storage protocol; use an fsspec URL.") from None
        raise ConfigurationError(
            f"{public_url(url)}: storage options are not usable ({type(error).__name__})."
        ) from None
    except OSError as error:  # some filesystems, FTP for one, connect when they are made
        raise trouble(public_url(url), error, "reached", ConfigurationError) from None
    return fs, path


def recorded_url(url: str, path: str) -> str:
    """Return the URL for records: without secrets, and a relative path made absolute, since a record travels."""
    return public_url(url) if "://" in url else path


def look_up(url: str | os.PathLike[str], options: StorageOptions | None) -> StoredObject:
    """Find one object.

    Args:
        url: fsspec URL or plain path of a file.
        options: fsspec storage options.

    Returns:
        The object with size and identity.

    Raises:
        InvalidInputError: It is missing, a folder, or may not be read; the message says which.
    """
    fs, path = source_filesystem(url, options)
    shown = recorded_url(str(url), path)
    return described(fs, path, shown, _known_info(fs, path, shown))


def source_filesystem(url: str | os.PathLike[str], options: StorageOptions | None) -> tuple[Any, str]:
    """Open the filesystem of a source, without what keeps copies of objects.

    `simplecache::` and its kin go on serving the copy of an object that was rewritten (measured, fsspec 2026.9).

    Arguments, result and errors are those of `filesystem`.
    """
    fs, path = filesystem(url, options)
    if "::" in str(url):
        from fsspec.implementations.cached import CachingFileSystem

        while isinstance(fs, CachingFileSystem):
            fs = fs.fs
    return fs, path


def described(
    fs: Any, path: str, shown: str, info: Mapping[str, Any], partitions: tuple[tuple[str, str | None], ...] = ()
) -> StoredObject:
    """Make an object of what the storage says about it.

    Args:
        fs: The fsspec filesystem.
        path: Path inside it.
        shown: The URL without secrets.
        info: What `find_info` returned.
        partitions: Values that its folders spell.

    Raises:
        InvalidInputError: It is a folder, or of unknown size.
    """
    if info.get("type") == "directory":
        raise InvalidInputError(f"{shown} is a folder; name one file in it.")
    size = info.get("size")
    if not isinstance(size, int):
        raise InvalidInputError(f"{shown}: the storage does not tell its size; copy it to storage that does.")
    return StoredObject(fs, path, shown, size, _identity(info), partitions)


def _known_info(fs: Any, path: str, shown: str) -> Mapping[str, Any]:
    info = find_info(fs, path, shown)
    if info is None:
        raise InvalidInputError(f"{shown} does not exist; check the path.")
    return info


def find_info(fs: Any, path: str, shown: str) -> Mapping[str, Any] | None:
    """Ask the storage, never a cache, what it knows about a path; None where nothing is there.

    Args:
        fs: The fsspec filesystem.
        path: Path inside it.
        shown: The URL without secrets, for messages.

    Raises:
        InvalidInputError: It may not be read; check the credentials.
        StorageError: The storage did not answer; run again.
    """
    try:
        # A cached listing would hide another writer's change for ever (measured with s3fs, design.md, Identity).
        fs.invalidate_cache(path)
        info: Mapping[str, Any] = fs.info(path)
    except FileNotFoundError:
        return None
    except PermissionError:
        raise InvalidInputError(f"{shown} may not be read; check the storage credentials.") from None
    except Exception as error:
        raise trouble(shown, error, "read", InvalidInputError) from None
    return info


def _identity(info: Mapping[str, Any]) -> str:
    for key in _VERSION_KEYS:
        if value := info.get(key):
            return f"{key}={value}"
    times = [str(info[key]) for key in _TIME_KEYS if info.get(key)]
    return f"size={info.get('size')} time={times[0] if times else None}"


def trouble(shown: str, error: Exception, verb: str, wrong: type[TabPFNError]) -> TabPFNError:
    """Tell a wrong path (an error of class `wrong`) from storage that did not answer; stores have their own classes."""
    lasting = isinstance(error, OSError | NotImplementedError | ValueError | AttributeError)
    passing = isinstance(error, ConnectionError | TimeoutError) or getattr(error, "errno", None) in _PASSING
    if lasting and not passing:
        return wrong(f"{shown} cannot be {verb} ({type(error).__name__}); check path and credentials.")
    return StorageError(f"{shown} could not be {verb} ({type(error).__name__}); run again, or check the credentials.")


def source_fingerprint(
    objects: Sequence[StoredObject],
    digests: Sequence[str],
    columns: Sequence[str],
    target: str | None,
    *,
    refinement: str = "",
) -> str:
    """Identify the data of a source without reading it (design.md, Identity).

    Args:
        objects: The objects, in order.
        digests: What is known of each one's content, for Parquet the SHA-256 of its footer; for a table in memory, the
            hash of what is sent.
        columns: Columns selected, in order.
        target: Target column, or None for a test set.
        refinement: What is done to its rows: filter, casts.

    Returns:
        Hex digest, equal on every machine and for every account.
    """
    facts = {
        "v": 2,
        # A file that is moved to another day's folder has other rows, and the same identity.
        "objects": [
            [stored.identity, stored.size, *([stored.partitions] if stored.partitions else [])] for stored in objects
        ],
        "digests": list(digests),
        "columns": list(columns),
        "target": target,
        "refinement": refinement,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Folder:
    """A destination folder.

    Args:
        fs: The fsspec filesystem.
        path: Path inside it, without a trailing slash.
        url: The URL without secrets.
    """

    fs: Any
    path: str
    url: str

    def file_url(self, name: str) -> str:
        """Return the URL of a file in the folder, without secrets."""
        return f"{self.url}/{name}"

    def check_writable(self, *, keep: bool = False) -> None:
        """Write and remove a small file, before anything is billed.

        Args:
            keep: Leave a folder that was made for it, which another worker that begins at this moment counts on.

        Raises:
            DestinationError: It cannot be written to; correct path or credentials.
        """
        made: list[str] = []
        name = f"{self.path}/tabpfn-write-check-{uuid4().hex}"
        try:
            above = self.path
            while above and not self.fs.exists(above):
                made.append(above)
                above = "" if self.fs._parent(above) == above else self.fs._parent(above)  # noqa: SLF001 - fsspec's own
            self.fs.makedirs(self.path, exist_ok=True)
            self.fs.pipe_file(name, b"")
            self.fs.rm_file(name)
        except Exception as error:
            raise trouble(self.url, error, "written to", DestinationError) from None
        finally:
            for path in () if keep else made:
                # Nothing half-written stays behind when what follows fails; object stores have no folders to remove.
                with contextlib.suppress(Exception):
                    self.fs.rmdir(path)

    def remove(self, name: str) -> None:
        """Remove a file of the folder; one that is not there counts as removed.

        Args:
            name: File name in the folder.

        Raises:
            DestinationError: The storage refused; correct the destination and run again.
        """
        with self._refusals(), contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(f"{self.path}/{name}")

    def discard(self, name: str) -> None:
        """Remove a file, and the folder too where it is a local one and now empty.

        Args:
            name: File name in the folder.

        Raises:
            DestinationError: The storage refused; correct the destination and run again.
        """
        self.remove(name)
        if "file" in self.fs.protocol:  # elsewhere a folder is a name, or a bucket
            with contextlib.suppress(OSError):
                self.fs.rmdir(self.path)

    @contextlib.contextmanager
    def replacing(self, name: str) -> Iterator[Any]:
        """Write a file under a temporary name and move it into place only when the block succeeds.

        Args:
            name: File name in the folder.

        Yields:
            A binary file to write to.

        Raises:
            DestinationError: The storage refused the write; correct the destination and run again.
        """
        temporary = f"{self.path}/{name}.{uuid4().hex}.tmp"
        try:
            with self._refusals():
                self.fs.makedirs(self.path, exist_ok=True)
                with self.fs.open(temporary, "wb") as file:
                    yield file
                    if "file" in self.fs.protocol:
                        # Whoever finds the name after a power cut finds the content too.
                        file.flush()
                        os.fsync(file.fileno())
                self.fs.mv(temporary, f"{self.path}/{name}")
        except BaseException:
            with contextlib.suppress(Exception):
                self.fs.rm_file(temporary)
            raise

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise trouble(self.url, error, "written to", DestinationError) from None


def folder(url: str | os.PathLike[str], options: StorageOptions | None) -> Folder:
    """Open a destination folder; nothing is created yet.

    Args:
        url: fsspec URL or plain path of a folder.
        options: fsspec storage options.

    Raises:
        ConfigurationError: The URL cannot be opened; the message names what is missing.
    """
    fs, path = filesystem(url, options)
    return Folder(fs, path.rstrip("/"), recorded_url(str(url), path).rstrip("/"))


def read_text(url: str, options: StorageOptions | None) -> str:
    """Read a small text object whole, for instance a model record.

    Args:
        url: fsspec URL or plain path.
        options: fsspec storage options.

    Raises:
        InvalidInputError: It is missing or may not be read.
    """
    stored = look_up(url, options)
    with stored.open() as file:
        text: str = file.read().decode("utf-8", "replace")
    return text
