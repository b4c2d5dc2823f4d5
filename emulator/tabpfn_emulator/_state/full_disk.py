"""A full disk: how it shows, and what to say about it."""

import errno
import sqlite3
import tempfile
from pathlib import Path
from typing import Final

_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# With a quota or a limit on the size of files SQLite says that it cannot write, not that the disk is full.
_NO_SPACE_OF_SQLITE: Final = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_SHMMAP}
)


def is_full(problem: BaseException) -> bool:
    """Return whether an error says that the disk is full, or a quota used up.

    Args:
        problem: An error of a file or of the database.
    """
    if isinstance(problem, sqlite3.Error):
        return getattr(problem, "sqlite_errorcode", None) in _NO_SPACE_OF_SQLITE
    return isinstance(problem, OSError) and problem.errno in _NO_SPACE


def remedy(data_dir: Path, problem: BaseException) -> str:
    """Return what whoever has met it is told.

    Args:
        data_dir: The emulator's data folder.
        problem: What `is_full` has recognised.
    """
    return (
        f"The emulator's disk is full ({problem}). Free space where its data folder {data_dir} is, and its scratch "
        f"folder {tempfile.gettempdir()}, or start it with another --data-dir; then try again."
    )
