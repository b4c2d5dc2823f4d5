"""Small records on storage: read without a cache, told apart from what is no record, written whole or not at all."""

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar
from uuid import uuid4

from pydantic import BaseModel, ValidationError

from tabpfn_assets import public_url
from tabpfn_assets.names import NAME_PATTERN
from tabpfn_operators.errors import ConfigurationError, DestinationError, RecordTooNewError, RecordUnreadableError
from tabpfn_operators.storage import trouble

R = TypeVar("R", bound=BaseModel)


def checked_name(name: str) -> str:
    """Return a name that becomes part of a path.

    Args:
        name: 1 to 128 of `A-Za-z0-9._-`, not starting with a dot.

    Raises:
        ConfigurationError: It is no such name; choose another.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise ConfigurationError(
            f"{name!r} is no name: use 1 to 128 letters, digits, '.', '_' or '-', and start with no dot."
        )
    return name


def display(fs: Any, path: str) -> str:
    """Name a path in messages, without secrets."""
    return path if is_local(fs) else public_url(fs.unstrip_protocol(path))


def is_local(fs: Any) -> bool:
    """Tell whether a filesystem is this machine's own, where a file is replaced by renaming."""
    return class_path(fs, "fsspec.implementations.local.LocalFileSystem")


def class_path(fs: Any, name: str) -> bool:
    """Tell whether a filesystem is of a class; by name, so that nothing is imported, and never asking a wrapper."""
    return any(f"{cls.__module__}.{cls.__qualname__}" == name for cls in type(fs).__mro__)


@contextlib.contextmanager
def synced_beside(path: str, data: bytes) -> Iterator[str]:
    """Write a local file of another name in the same folder, down to the disk; what is left of it goes in the end.

    Args:
        path: Local path whose folder takes the file; the folder is made.
        data: Content.

    Yields:
        Path of the file. Its name starts with a dot, which no record's does.
    """
    folder, name = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    temporary = os.path.join(folder, f".{name}.{uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def sync_folder(path: str) -> None:
    """Bring the name of a local file down to the disk; its content is there already."""
    handle = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        # Some network filesystems cannot; they have written the name already.
        with contextlib.suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def replace(fs: Any, path: str, data: bytes) -> None:
    """Write a small object so that a reader sees the old or the new one, whole.

    Args:
        fs: The fsspec filesystem.
        path: Path inside it.
        data: Content.

    Raises:
        DestinationError: It cannot be written there; correct path or credentials.
        StorageError: The storage did not answer; run again.
    """
    try:
        if is_local(fs):
            with synced_beside(path, data) as temporary:
                os.replace(temporary, path)
            sync_folder(path)
        else:
            fs.pipe_file(path, data)
    except Exception as error:
        raise trouble(display(fs, path), error, "written to", DestinationError) from None


def read_fresh(fs: Any, path: str) -> bytes | None:
    """Read a small object from the storage, never from a cache.

    Args:
        fs: The fsspec filesystem.
        path: Path inside it.

    Returns:
        Content; None only where the storage says that nothing is there.

    Raises:
        RecordUnreadableError: It may not be read; check path and credentials.
        StorageError: The storage did not answer; run again.
    """
    try:
        fs.invalidate_cache(path)
        content: bytes = fs.cat_file(path)
    except FileNotFoundError:
        return None
    except Exception as error:
        raise trouble(display(fs, path), error, "read", RecordUnreadableError) from None
    return content


def names_in(fs: Any, path: str) -> list[str]:
    """List the names in a folder, never from a cache.

    Args:
        fs: The fsspec filesystem.
        path: Path of the folder; one that is not there is empty.

    Raises:
        RecordUnreadableError: It may not be listed; check path and credentials.
        StorageError: The storage did not answer; run again.
    """
    try:
        # Measured with s3fs: a listing stays as it was after another client's write, for ever (design.md, Identity).
        fs.invalidate_cache(path)
        found: Sequence[str] = fs.ls(path, detail=False)
    except FileNotFoundError:
        return []
    except Exception as error:
        raise trouble(display(fs, path), error, "listed", RecordUnreadableError) from None
    return [str(name).rstrip("/").rpartition("/")[2] for name in found]


def decoded(content: bytes, model: type[R], shown: str) -> R:
    """Read a record.

    Args:
        content: JSON.
        model: Class of the record; its `schema_version` is the newest that can be read.
        shown: The URL without secrets, for messages.

    Raises:
        RecordTooNewError: A newer version of this package wrote it; upgrade.
        RecordUnreadableError: It is damaged or no such record; move it away once you know what it was.
    """
    remedy = "It is damaged or something else; look at it and move it away to start without it."
    try:
        facts = json.loads(content)
    except ValueError:
        raise RecordUnreadableError(f"{shown} holds no JSON. {remedy}") from None
    if not isinstance(facts, Mapping):
        raise RecordUnreadableError(f"{shown} holds no {model.__name__}. {remedy}")
    known = model.model_fields.get("schema_version")
    version = facts.get("schema_version")
    if known is not None and isinstance(version, int) and version > known.default:
        raise RecordTooNewError(
            f"{shown} is a {model.__name__} of schema {version}, and this version reads up to {known.default}; "
            "upgrade tabpfn-providers where this runs."
        )
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        wrong = sorted({".".join(map(str, problem["loc"])) or "the record" for problem in error.errors()})
        raise RecordUnreadableError(
            f"{shown} is no {model.__name__}: {', '.join(wrong)} cannot be used. {remedy}"
        ) from None
