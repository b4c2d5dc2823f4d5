"""The store's folder on storage: small records, read without a cache and created at most once."""

import os
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any, Self, TypeVar

from pydantic import BaseModel

from tabpfn_assets import public_url
from tabpfn_operators._objects import side_by_side
from tabpfn_operators._stored import decoded, display, names_in, read_fresh, replace
from tabpfn_operators.errors import ConfigurationError, DestinationError, StorageError
from tabpfn_operators.exclusive import create_exclusive, require_exclusive
from tabpfn_operators.lineage._layout import Index, Key, marked_in, marker
from tabpfn_operators.storage import StorageOptions, folder, source_filesystem, trouble

R = TypeVar("R", bound=BaseModel)
T = TypeVar("T")
U = TypeVar("U")


class StoreFiles:
    """What the parts of a store share; `LineageStore` documents the arguments."""

    def __init__(
        self,
        url: str | os.PathLike[str],
        options: StorageOptions | None = None,
        *,
        allow_unsafe_store: bool = False,
    ) -> None:
        self._given = os.fspath(url) if isinstance(url, os.PathLike) else url
        self._options = options
        self._allow_unsafe_store = allow_unsafe_store

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        given = str(self._given)
        if self._options or ("://" in given and self.url != given.rstrip("/")):
            raise ConfigurationError(
                f"The lineage store {self.url} has storage options or keys in its URL, which no pickle may hold. Hand "
                "on the URL alone, with the credentials in the environment, or open the store where it is used."
            )
        return partial(type(self), allow_unsafe_store=self._allow_unsafe_store), (self.url,)

    def __deepcopy__(self, _memo: dict[int, Any]) -> Self:
        return type(self)(self._given, self._options, allow_unsafe_store=self._allow_unsafe_store)

    @cached_property
    def url(self) -> str:
        """The URL of the folder, without secrets."""
        given = str(self._given)
        shown = public_url(given) if "://" in given else os.path.abspath(os.path.expanduser(given))
        return shown.rstrip("/") or shown

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        fs, path = source_filesystem(self._given, self._options)
        return fs, path.rstrip("/")

    @property
    def _fs(self) -> Any:
        return self._opened[0]

    def _path(self, *parts: str) -> str:
        return "/".join([self._opened[1], *parts])

    def _shown(self, *parts: str) -> str:
        return display(self._fs, self._path(*parts))

    def _names(self, *parts: str) -> list[str]:
        return names_in(self._fs, self._path(*parts))

    def _find(self, model: type[R], *parts: str) -> R | None:
        """Read a record; None only where the storage says that nothing is there."""
        content = read_fresh(self._fs, self._path(*parts))
        return None if content is None else decoded(content, model, self._shown(*parts))

    def _read(self, model: type[R], *parts: str) -> R:
        """Read a record that a listing has just shown."""
        record = self._find(model, *parts)
        if record is None:
            raise StorageError(f"{self._shown(*parts)} was removed while its folder was read; run again.")
        return record

    def check_writable(self) -> None:
        """Write and remove a small file, before anything is paid for that is to be recorded here.

        Raises:
            StoreNotExclusiveError: Two writers may both succeed there; the message names stores that will do.
            DestinationError: It cannot be written to; correct path or credentials.
            StorageError: The storage did not answer; run again.
        """
        self._require_exclusive()
        folder(self._given, self._options).check_writable()

    def _create(self, record: BaseModel, *parts: str) -> bool:
        """Create a record; False where there is one already."""
        data = record.model_dump_json().encode()
        return create_exclusive(self._fs, self._path(*parts), data, allow_unsafe_store=self._allow_unsafe_store)

    def _replace(self, record: BaseModel, *parts: str) -> None:
        """Write over a record: only where personal data in it must go."""
        replace(self._fs, self._path(*parts), record.model_dump_json().encode())

    def _require_exclusive(self) -> None:
        if not self._allow_unsafe_store:
            require_exclusive(self._fs, self._path("store"))

    def _many(self, ask: Callable[[T], U], items: Sequence[T]) -> list[U]:
        return side_by_side(ask, items, self._fs)

    def _marked(self, index: Index, key: str) -> list[Key]:
        return marked_in(self._names("index", index, key))

    def _mark(self, folders: Sequence[tuple[Index, str]], key: Key) -> None:
        """Write the markers of a version; those that are there stay."""
        self._many(lambda folder: self._touch("index", *folder, marker(*key)), folders)

    def _touch(self, *parts: str) -> None:
        """Write an empty object: it is the same whoever writes it, and `check` finds one that a power cut took."""
        path = self._path(*parts)
        try:
            try:
                self._fs.pipe_file(path, b"")
            except FileNotFoundError:  # its folder is missing; object stores have none
                self._fs.makedirs(self._fs._parent(path), exist_ok=True)  # noqa: SLF001 - fsspec's own
                self._fs.pipe_file(path, b"")
        except Exception as error:
            raise trouble(self._shown(*parts), error, "written to", DestinationError) from None
