"""Many stored objects at a time, and why the bytes of one could not be read."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from tabpfn_operators.errors import InvalidInputError, SourceChangedError, StorageError, TabPFNError
from tabpfn_operators.storage import StoredObject, trouble

T = TypeVar("T")
R = TypeVar("R")

#: Questions that are with a store at a time; an answer takes tens of ms.
_QUESTIONS = 16


def side_by_side(ask: Callable[[T], R], items: Sequence[T], fs: Any) -> list[R]:
    """Ask something about many objects, in a bounded number of threads where the filesystem is made for several.

    Args:
        ask: Called with each item.
        items: What to ask about.
        fs: The filesystem that is asked.

    Returns:
        The answers, in order. The first error is raised, and what was not yet asked stays unasked.
    """
    if len(items) < 2 or not getattr(fs, "async_impl", False):
        return [ask(item) for item in items]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(_QUESTIONS, len(items)), thread_name_prefix="tabpfn-look") as threads:
        try:
            return list(threads.map(ask, items))
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def check_all_unchanged(objects: Sequence[StoredObject]) -> None:
    """Look at the objects of one storage again.

    Args:
        objects: The objects.

    Raises:
        SourceChangedError: One was written to since; run again when nobody does.
        InvalidInputError: One is gone or may not be read; the message says which.
        StorageError: The storage did not answer; run again.
    """
    if objects:
        side_by_side(StoredObject.check_unchanged, objects, objects[0].fs)


def read_trouble(stored: StoredObject, error: Exception) -> TabPFNError:
    """Say why bytes of an object could not be read, by looking at it again.

    Args:
        stored: The object.
        error: What the filesystem raised; its text is not repeated, since it may hold secrets.

    Returns:
        The error to raise: it changed, is gone, may not be read, or the storage failed in a way that may pass.
    """
    try:
        stored.check_unchanged()
    except TabPFNError as now:
        return now
    if isinstance(error, OSError) and not isinstance(error, PermissionError):
        # Path and credentials have just been right; s3fs raises a bare OSError for a busy server.
        return StorageError(f"{stored.url} could not be read ({type(error).__name__}); run again.")
    return trouble(stored.url, error, "read", InvalidInputError)


def read_ranges(objects: Sequence[StoredObject], ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Read one byte range of each of several objects, side by side where their storage can.

    Args:
        objects: Objects of one filesystem.
        ranges: First byte, and one past the last.

    Returns:
        The bytes of each range, whole.

    Raises:
        SourceChangedError: An object is shorter than it was; run again when nobody writes to it.
        InvalidInputError: An object is gone or may not be read; the message says which.
        StorageError: The storage did not answer; run again.
    """
    if not objects:
        return []
    paths = [stored.path for stored in objects]
    starts, stops = zip(*ranges, strict=True)
    answers = objects[0].fs.cat_ranges(paths, list(starts), list(stops), on_error="return")
    for stored, (start, stop), answer in zip(objects, ranges, answers, strict=True):
        if isinstance(answer, Exception):
            raise read_trouble(stored, answer)
        if len(answer) != stop - start:
            raise SourceChangedError(f"{stored.url} is shorter than it was; run again when nobody writes to it.")
    return list(answers)
