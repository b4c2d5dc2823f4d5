"""What a source names: one object, a list, a pattern or a folder of them."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import unquote

from tabpfn_operators._objects import side_by_side
from tabpfn_operators.errors import InvalidInputError
from tabpfn_operators.storage import (
    StorageOptions,
    StoredObject,
    described,
    find_info,
    recorded_url,
    source_filesystem,
    trouble,
)

#: An fsspec URL or plain path of a file, a folder or a pattern; or several of them.
Source: TypeAlias = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

#: Names that count as Parquet in a folder.
SUFFIXES = (".parquet", ".parq", ".pq")
#: How Hive and Spark spell a null in a folder's name.
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
_MAGIC = re.compile(r"[*?\[]")
#: Table formats by what their folders hold; such a folder also holds files that are no longer part of the table.
_FORMATS = (
    ("a Delta table", re.compile(r"_delta_log/")),
    ("a Hudi table", re.compile(r"\.hoodie/")),
    ("an Iceberg table", re.compile(r"metadata/[^/]*\.metadata\.json$")),
)


@dataclass(frozen=True)
class _Named:
    """What one name of the source stands for: a path of a filesystem."""

    fs: Any
    path: str
    url: str  # as it was given, secrets and all; never shown

    @property
    def shown(self) -> str:
        return recorded_url(self.url, self.path)


@dataclass(frozen=True)
class _Listed:
    """An object that a listing found."""

    fs: Any
    path: str
    shown: str
    partitions: tuple[tuple[str, str | None], ...]


def find_objects(source: Source, options: StorageOptions | None = None) -> tuple[StoredObject, ...]:
    """Find the objects of a source; no answer comes from a cache.

    A file of exactly the given name wins over a pattern. A folder stands for its `*.parquet`, `*.parq` and `*.pq`
    files, also in folders below, without hidden ones (a name, or a folder's, that begins with "." or "_"; `_key=value`
    is not hidden). Files found by a pattern or in a folder come in natural order of their paths (part-2 before
    part-10), those of a list in the order of the list. A pattern that only folders match stands for their files.

    Args:
        source: fsspec URL or plain path of a file, folder or pattern (`*`, `?`, `[...]`, `**`), or a list of them.
        options: fsspec storage options, for all of them.

    Returns:
        The objects with size, identity, and the partition values that folders below the named one spell.

    Raises:
        InvalidInputError: Nothing is there, it is named twice, or it lies on several storages; the message names it.
        ConfigurationError: A URL cannot be opened; the message says what is missing.
        StorageError: The storage did not answer; run again.
    """
    several = isinstance(source, Sequence) and not isinstance(source, str | bytes)
    names: Any = source if several else [source]
    if not names:
        raise InvalidInputError("The source is an empty list; name at least one file.")
    named = []
    for name in names:
        fs, path = source_filesystem(name, options)
        named.append(_Named(fs, path, _without_caches(str(os.fspath(name)))))
    _check_one_storage(named)
    found = [one for some in side_by_side(_resolved, named, named[0].fs) for one in some]
    objects = tuple(side_by_side(_looked_at, found, named[0].fs))
    _check_once(objects)
    return objects


def hive_partitions(path: str) -> tuple[tuple[str, str | None], ...]:
    """Read the partition values that a path's folders spell.

    Args:
        path: Path of a file, below the table's folder.

    Returns:
        Keys and values in order, percent-decoded, null as None; `("day", "7")` for `day=7/part-0.parquet`.
    """
    parts = (part.partition("=") for part in path.split("/")[:-1])
    return tuple(
        (unquote(key), None if value == HIVE_NULL else unquote(value)) for key, equals, value in parts if key and equals
    )


def natural_order(path: str) -> tuple[Any, ...]:
    """Return a sort key of a path: folder by folder, numbers by value; equal only for equal paths."""
    folders = tuple(
        tuple(
            (piece.isdecimal(), int(piece) if piece.isdecimal() else 0, piece) for piece in re.split("([0-9]+)", part)
        )
        for part in path.split("/")
    )
    return (folders, path)


def is_pattern(url: str) -> bool:
    """Whether a URL holds wildcards; in a web address a question mark begins the query."""
    web = url.lower().startswith(("http://", "https://"))
    return bool(_MAGIC.search(url.partition("?")[0] if web else url))


def _resolved(named: _Named) -> list[_Listed]:
    """Tell what a name stands for: the file or the folder of exactly that name, else what matches it."""
    info = find_info(named.fs, named.path, named.shown)
    if info is not None and info.get("type") == "directory":
        return _in_folder(named)
    if info is not None:
        return [_Listed(named.fs, named.path, named.shown, ())]
    if is_pattern(named.url):
        return _matching(named)
    raise InvalidInputError(f"{named.shown} does not exist; check the path.")


def _files_below(fs: Any, folder: str) -> Iterator[str]:
    """List a local folder to its ends: `find` passes over folders that may not be read, and so loses their rows."""
    for info in fs.ls(folder, detail=True):
        path = str(info["name"])
        if info["type"] != "directory":
            yield path
        elif os.access(path, os.R_OK | os.X_OK) or not path.rpartition("/")[2].startswith((".", "_", "lost+found")):
            yield from _files_below(fs, path)


def _in_folder(named: _Named) -> list[_Listed]:
    from fsspec.implementations.local import LocalFileSystem

    local = isinstance(named.fs, LocalFileSystem)
    paths = _ask(named, lambda: sorted(_files_below(named.fs, named.path)) if local else named.fs.find(named.path))
    below = [path.removeprefix(named.path).lstrip("/") for path in paths]
    for kind, mark in _FORMATS:
        if any(map(mark.match, below)):
            raise InvalidInputError(
                f"{named.shown} is {kind}: beside its rows it holds files of older versions. Write the version you "
                "want as Parquet, or name its files in a list."
            )
    found = [
        _listed(named, path, named.path, named.shown)
        for path, inner in zip(paths, below, strict=True)
        if inner.lower().endswith(SUFFIXES) and not _hidden(inner)
    ]
    if not found:
        raise InvalidInputError(
            f"{named.shown} holds no Parquet file (*.parquet, *.parq, *.pq); is the step that writes it done?"
        )
    return sorted(found, key=lambda one: natural_order(one.path))


def _matching(named: _Named) -> list[_Listed]:
    """List the files that match a pattern or, where only folders do, those in the folders."""
    matches = _ask(named, lambda: named.fs.glob(named.path, detail=True))
    root = _MAGIC.split(named.path)[0].rpartition("/")[0]
    first, chained, rest = named.shown.partition("::")
    first = _MAGIC.split(first)[0]
    shown = first[: first.rfind("/") + 1] + chained + rest
    spelled = {part[0] for part in named.path.removeprefix(root).split("/") if part}
    files: list[str] = []
    folders: list[str] = []
    for path, info in matches.items():
        if not _hidden(path.rstrip("/").removeprefix(root).lstrip("/"), spelled):
            (folders if info.get("type") == "directory" else files).append(path)
    if not files:
        inside = [_in_folder(_Named(named.fs, path, _child(root, shown, path))) for path in folders]
        files = [one.path for some in inside for one in some]
    if not files:
        raise InvalidInputError(f"Nothing matches {named.shown}; check the pattern.")
    return sorted((_listed(named, path, root, shown) for path in files), key=lambda one: natural_order(one.path))


def _listed(named: _Named, path: str, root: str, shown: str) -> _Listed:
    return _Listed(named.fs, path, _child(root, shown, path), hive_partitions(path.removeprefix(root).lstrip("/")))


def _child(root: str, shown: str, path: str) -> str:
    """Return the URL of a path below a folder, written the way the folder's was."""
    first, chained, rest = shown.partition("::")
    slash = "" if first.endswith("/") else "/"
    return first + slash + path.removeprefix(root).lstrip("/") + chained + rest


def _hidden(inner: str, spelled: frozenset[str] | set[str] = frozenset()) -> bool:
    return any(
        part[0] not in spelled and (part[0] == "." or (part[0] == "_" and "=" not in part))
        for part in inner.split("/")
        if part
    )


def _without_caches(url: str) -> str:
    """Drop what `source_filesystem` leaves out: the parts of a chained URL that only keep copies."""
    while "::" in url and "://" not in url.partition("::")[0]:
        url = url.partition("::")[2]
    return url


def _ask(named: _Named, listing: Callable[[], Any]) -> Any:
    try:
        # A user's options may have turned a listings cache on; its parts for inner folders go only with all of it.
        named.fs.invalidate_cache()
        return listing()
    except FileNotFoundError:
        raise InvalidInputError(f"{named.shown} does not exist; check the path.") from None
    except PermissionError:
        raise InvalidInputError(f"{named.shown} may not be listed; check the storage credentials.") from None
    except Exception as error:
        raise trouble(named.shown, error, "listed", InvalidInputError) from None


def _looked_at(listed: _Listed) -> StoredObject:
    # Listings know less of an object than `info` does (s3: no version id), so identity is never taken from them.
    info = find_info(listed.fs, listed.path, listed.shown)
    if info is None:
        raise InvalidInputError(f"{listed.shown} is gone since it was listed; run again when nobody writes there.")
    return described(listed.fs, listed.path, listed.shown, info, listed.partitions)


def _check_one_storage(named: Sequence[_Named]) -> None:
    other = next((one for one in named if type(one.fs) is not type(named[0].fs)), None)
    if other is not None:
        raise InvalidInputError(
            f"{named[0].shown} and {other.shown} lie on different storages; copy them to one and name them there."
        )


def _check_once(objects: Sequence[StoredObject]) -> None:
    seen: set[str] = set()
    for stored in objects:
        if stored.path in seen:
            raise InvalidInputError(f"{stored.url} is named twice, so its rows would count twice; name it once.")
        seen.add(stored.path)
