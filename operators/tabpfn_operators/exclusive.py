"""Create an object only where there is none: the step on which claims, alias logs and immutable records rest.

What each store does, and what was measured, is in docs/design/exclusive.md.
"""

import contextlib
import errno
import os
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from tabpfn_operators._stored import class_path, display, is_local, sync_folder, synced_beside
from tabpfn_operators.errors import DestinationError, StoreNotExclusiveError, TabPFNError
from tabpfn_operators.storage import trouble

_MEMORY = "fsspec.implementations.memory.MemoryFileSystem"
_S3 = "s3fs.core.S3FileSystem"
#: Their `pipe_file(mode="create")` is one conditional PUT, which the service decides.
_CONDITIONAL = (_S3, "gcsfs.core.GCSFileSystem", "adlfs.spec.AzureBlobFileSystem")
_AMAZON = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")
#: What link(2) says where a filesystem has no hard links.
_NO_LINKS = frozenset({errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EXDEV})
#: Amazon answers 409 while another conditional write of the key is under way, and asks to send it again.
_CONFLICTS = 10

_memory_lock = threading.Lock()
_tested: dict[tuple[str, str], bool] = {}


def is_exclusive(fs: Any, path: str) -> bool:
    """Tell whether a store lets only one of two writers create an object.

    Local folders, Amazon S3, Google Cloud Storage, Azure and (in one process) memory do. An S3-compatible endpoint is
    tested once per process and bucket, by creating one random key twice. No other class is exclusive: a test in
    sequence proves nothing of two writers at once (design.md, Identity).

    Args:
        fs: The fsspec filesystem.
        path: A path inside it; an S3-compatible endpoint is tested in its folder.

    Raises:
        DestinationError: The test could not write there; correct path or credentials.
        StorageError: The storage did not answer; run again.
    """
    if class_path(fs, _S3):
        with _refusals(fs, path):
            return _s3_is_conditional(fs, fs._strip_protocol(path))  # noqa: SLF001 - fsspec's own
    return is_local(fs) or any(class_path(fs, name) for name in (*_CONDITIONAL, _MEMORY))


def require_exclusive(fs: Any, path: str) -> None:
    """Refuse a store on which two writers may both succeed.

    Args:
        fs: The fsspec filesystem.
        path: A path inside it.

    Raises:
        StoreNotExclusiveError: It is one; use another store, or `allow_unsafe_store=True` with one writer at a time.
        DestinationError: An S3-compatible endpoint could not be tested; correct path or credentials.
        StorageError: The storage did not answer; run again.
    """
    if not is_exclusive(fs, path):
        raise _not_exclusive(fs, path, "two writers may both succeed there")


def create_exclusive(fs: Any, path: str, data: bytes, *, allow_unsafe_store: bool = False) -> bool:
    """Create an object whole and durably, unless there is one.

    A storage client may lose the answer to its own write, send it again and then find the object: with False, whoever
    must know reads it back and looks for something of its own in it (`claims` does).

    Args:
        fs: The fsspec filesystem.
        path: Path inside it; missing folders are made.
        data: Content, less than 50 MiB, so that it is one request.
        allow_unsafe_store: Look first and then write, where the store cannot do both in one step.

    Returns:
        Whether this call created it; of any number of callers one gets True.

    Raises:
        StoreNotExclusiveError: Two writers may both succeed there; use another store, or `allow_unsafe_store=True`.
        DestinationError: It cannot be written there; correct path or credentials.
        StorageError: The storage did not answer, and the object may exist; run again.
    """
    safe = is_exclusive(fs, path)
    if not safe and not allow_unsafe_store:
        require_exclusive(fs, path)
    path = fs._strip_protocol(path)  # noqa: SLF001 - fsspec's own
    with _refusals(fs, path):
        if not safe:
            return _look_and_write(fs, path, data)
        if is_local(fs):
            return _link(fs, path, data, allow_unsafe_store=allow_unsafe_store)
        if class_path(fs, _MEMORY):
            with _memory_lock:
                return _look_and_write(fs, path, data)
        return _put(fs, path, data)


def _link(fs: Any, path: str, data: bytes, *, allow_unsafe_store: bool) -> bool:
    if os.path.lexists(path):
        return False
    with synced_beside(path, data) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            # NFS may make the link, lose the answer and refuse the second asking.
            return os.stat(temporary).st_nlink > 1
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if not allow_unsafe_store:
                raise _not_exclusive(fs, path, "this filesystem has no hard links") from None
            return _look_and_write(fs, path, data)
    sync_folder(path)
    return True


def _look_and_write(fs: Any, path: str, data: bytes) -> bool:
    fs.invalidate_cache(path)
    if fs.exists(path):
        return False
    fs.makedirs(fs._parent(path), exist_ok=True)  # noqa: SLF001 - fsspec's own
    fs.pipe_file(path, data)
    return True


def _put(fs: Any, path: str, data: bytes) -> bool:
    for attempt in range(_CONFLICTS):
        try:
            fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        except OSError as error:
            status = _http_status(error)
            # Only Amazon names the condition that failed, which s3fs waits for before it says FileExistsError.
            if status == 412:
                return False
            if status != 409 or attempt == _CONFLICTS - 1:
                raise
        else:
            return True
    raise AssertionError("the last attempt returns or raises")


def _http_status(error: OSError) -> int | None:
    response = getattr(error.__cause__, "response", None)
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(response, dict) else None
    return status if isinstance(status, int) else None


def _s3_is_conditional(fs: Any, path: str) -> bool:
    known = fs.s3.meta.service_model.operation_model("PutObject").input_shape.members
    if "IfNoneMatch" not in known:  # s3fs silently drops what an older botocore does not know
        return False
    endpoint = str(fs.s3.meta.endpoint_url)
    if (urlsplit(endpoint).hostname or "").endswith(_AMAZON):
        return True
    place = (endpoint, path.partition("/")[0])
    if place not in _tested:
        _tested[place] = _refuses_a_second(fs, f"{fs._parent(path)}/tabpfn-exclusive-check-{uuid4().hex}")  # noqa: SLF001 - fsspec's own
    return _tested[place]


def _refuses_a_second(fs: Any, path: str) -> bool:
    try:
        _put(fs, path, b"1")  # False only where the client's own first sending was carried out, and its answer lost
        return not _put(fs, path, b"2")
    finally:
        with contextlib.suppress(Exception):
            fs.rm_file(path)


def _not_exclusive(fs: Any, path: str, reason: str) -> StoreNotExclusiveError:
    return StoreNotExclusiveError(
        f"{display(fs, path)} is no place for claims, aliases or shared records: {reason}. Use a local folder, S3, "
        "Google Cloud Storage or Azure, or pass allow_unsafe_store=True if there is never more than one writer."
    )


@contextlib.contextmanager
def _refusals(fs: Any, path: str) -> Iterator[None]:
    try:
        yield
    except TabPFNError:
        raise
    except Exception as error:
        raise trouble(display(fs, path), error, "written to", DestinationError) from None
