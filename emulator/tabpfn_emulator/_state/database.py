"""The emulator's state on disk: one SQLite file, safe to kill -9.

What an answer names is committed before the answer leaves, so a killed process forgets nothing that it has said. Every
use is on the event loop, on one connection: nothing in a transaction awaits, so transactions never interleave. What is
in memory besides changes after the commit (`after_commit`), so the two agree whether or not it succeeds.
"""

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tabpfn_emulator._state.full_disk import is_full, remedy

FILE_NAME: Final = "emulator.sqlite3"
"""Name of the file in the data folder."""
_VERSION: Final = 2
_WAIT_SECONDS: Final = 10.0

# `journal.charge` is the sum of the request's creations, and `usage` the sum of the account's creations of a day; both
# change in the transaction that writes the creation.
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS accounts (
    name TEXT PRIMARY KEY, email_verified INTEGER NOT NULL DEFAULT 1, closed INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tokens (
    digest TEXT PRIMARY KEY, account TEXT NOT NULL, from_start INTEGER NOT NULL, revoked INTEGER NOT NULL DEFAULT 0,
    expires_at REAL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS documents (
    number INTEGER PRIMARY KEY, kind TEXT NOT NULL, id TEXT NOT NULL, account TEXT NOT NULL, data TEXT NOT NULL,
    UNIQUE (kind, id)
);
CREATE TABLE IF NOT EXISTS journal (
    seq INTEGER PRIMARY KEY, time REAL NOT NULL, method TEXT NOT NULL, route TEXT NOT NULL, account TEXT,
    status INTEGER, bearer INTEGER NOT NULL, bytes_in INTEGER NOT NULL DEFAULT 0, bytes_out INTEGER NOT NULL DEFAULT 0,
    charge INTEGER NOT NULL DEFAULT 0, fault TEXT, ids TEXT NOT NULL DEFAULT '{}', note TEXT, seconds REAL
);
CREATE TABLE IF NOT EXISTS creations (
    id INTEGER PRIMARY KEY, seq INTEGER NOT NULL, time REAL NOT NULL, kind TEXT NOT NULL, route TEXT NOT NULL,
    account TEXT, charge INTEGER NOT NULL, ids TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS usage (
    account TEXT NOT NULL, day TEXT NOT NULL, tokens INTEGER NOT NULL, PRIMARY KEY (account, day)
) WITHOUT ROWID;
"""


class Database:
    """The SQLite file of one emulator.

    Args:
        path: The file; made when it is not there, readable by its owner only because it holds the key that signs URLs.

    Raises:
        OSError: When another emulator uses it, another version has written it, or it is no such file: use another
            folder.
    """

    def __init__(self, path: Path) -> None:
        # What is in memory would not notice what a second process writes. The lock goes with its process.
        self._lock = os.open(path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise OSError(f"{path.parent} is in use by another emulator") from None
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        # The server may run its loop in another thread than the one that has opened the file.
        self._connection = sqlite3.connect(
            path, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        self._waiting: list[Callable[[], None]] | None = None
        try:
            self._prepare(path)
        except BaseException:
            self.close()
            raise

    def _prepare(self, path: Path) -> None:
        try:
            # A killed process loses nothing that it has handed to the system; only a power cut may, so no fsync.
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            if version not in {0, _VERSION}:
                raise OSError(f"{path} was written by another version of the emulator; use another folder")
            self._connection.executescript(_SCHEMA)
            self._connection.execute(f"PRAGMA user_version = {_VERSION}")
        except sqlite3.DatabaseError as error:
            full = is_full(error)
            raise OSError(remedy(path.parent, error) if full else f"{path} cannot be used: {error}") from None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit everything in the block at once, or nothing of it; blocks may be nested."""
        if self._waiting is not None:
            yield
            return
        self._connection.execute("BEGIN IMMEDIATE")
        changes: list[Callable[[], None]] = []
        self._waiting = changes
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            # SQLite ends the transaction itself after some failures (a full disk), and after others it does not.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        finally:
            self._waiting = None
        for change in changes:
            change()

    def after_commit(self, change: Callable[[], None]) -> None:
        """Make a change in memory, or on files, that belongs to what was written.

        Args:
            change: Called once the transaction is committed, and never when it fails; outside of one at once. It does
                not fail.
        """
        if self._waiting is None:
            change()
        else:
            self._waiting.append(change)

    def execute(self, statement: str, values: Sequence[Any] = ()) -> int:
        """Run a statement that changes something.

        Returns:
            The row number of what was inserted.
        """
        return self._connection.execute(statement, values).lastrowid or 0

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        return self._connection.execute(statement, values).fetchall()

    def secret(self, name: str, size: int) -> bytes:
        """Return a random key that stays the same over restarts.

        Args:
            name: What it is for.
            size: Its length in bytes, when it is made.
        """
        self.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (name, os.urandom(size)))
        return bytes(self.rows("SELECT value FROM meta WHERE name = ?", (name,))[0][0])

    def close(self) -> None:
        """Close the file, for another emulator to use."""
        self._connection.close()
        os.close(self._lock)
