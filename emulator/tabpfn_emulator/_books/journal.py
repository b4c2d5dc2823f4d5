"""The books: one row for every request to the API and its storage, one for every accepted creation."""

import json
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

from tabpfn_emulator._patterns import covers, is_pattern
from tabpfn_emulator._state.database import Database

CreationKind = Literal["fit_created", "predict_run", "upload_created"]
"""What a request can make the service do for good."""

_ROW: Final = (
    "seq",
    "time",
    "method",
    "route",
    "account",
    "status",
    "bearer",
    "bytes_in",
    "bytes_out",
    "charge",
    "fault",
    "ids",
    "note",
    "seconds",
)
_CREATION: Final = ("id", "seq", "time", "kind", "route", "account", "charge", "ids")
_ROWS: Final = f"SELECT {', '.join(_ROW)} FROM journal WHERE "  # noqa: S608  # constants
_CREATIONS: Final = f"SELECT {', '.join(_CREATION)} FROM creations WHERE "  # noqa: S608  # constants
SELECT_ROWS: Final = f"{_ROWS}seq > ? ORDER BY seq"
SELECT_CREATIONS: Final = f"{_CREATIONS}id > ? ORDER BY id"
_LAST: Final = 2**63 - 1
"""The largest number that SQLite takes."""


class Journal:
    """The rows, in order of arrival, in the database.

    A row is there from the moment the request arrives, with `status` None until it is answered; a request whose
    connection was dropped, or whose server was killed, keeps None.

    Args:
        database: Where the rows go.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._open: dict[int, dict[str, Any]] = {}
        for table in ("journal", "creations"):
            database.execute(f"CREATE INDEX IF NOT EXISTS {table}_of_account ON {table} (account)")

    def open_row(self, method: str, route: str, *, bearer: bool, account: str | None = None) -> dict[str, Any]:
        """Begin the row of a request.

        Args:
            method: HTTP method.
            route: Path without query; signed URLs count as `/storage`.
            bearer: Whether an Authorization header came with it.
            account: Who has sent it, as far as is known.
        """
        now = time.time()
        seq = self._database.execute(
            "INSERT INTO journal (time, method, route, bearer, account) VALUES (?, ?, ?, ?, ?)",
            (now, method, route, bearer, account),
        )
        row: dict[str, Any] = {
            "seq": seq,
            "time": now,
            "method": method,
            "route": route,
            "account": account,
            "status": None,
            "bearer": bearer,
            "bytes_in": 0,
            "bytes_out": 0,
            "charge": 0,
            "fault": None,
            "ids": {},
            "note": None,
            "seconds": None,
        }
        self._open[seq] = row
        return row

    def close_row(self, row: dict[str, Any]) -> None:
        """Write the row of a request that has ended."""
        if row["seconds"] is None:
            row["seconds"] = round(time.time() - row["time"], 6)
        self._database.execute(
            "UPDATE journal SET account = ?, status = ?, bytes_in = ?, bytes_out = ?, fault = ?, ids = ?, seconds = ?"
            " WHERE seq = ?",
            (
                row["account"],
                row["status"],
                row["bytes_in"],
                row["bytes_out"],
                row["fault"],
                json.dumps(row["ids"]),
                row["seconds"],
                row["seq"],
            ),
        )
        del self._open[row["seq"]]

    def created(self, row: dict[str, Any], kind: CreationKind, charge: int = 0, **ids: str) -> int:
        """Write an accepted creation, before its answer leaves.

        Args:
            row: The row of the request that asked for it.
            kind: What it is.
            charge: Its price in tokens, 0 or more.
            ids: The ids that it made or used; they go into the request's row too.

        Returns:
            The creation's id, for `refund`.
        """
        now = time.time()
        with self._database.transaction():
            creation = self._database.execute(
                "INSERT INTO creations (seq, time, kind, route, account, charge, ids) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (row["seq"], now, kind, row["route"], row["account"], charge, json.dumps(ids)),
            )
            self._database.execute(
                "UPDATE journal SET account = ?, ids = ? WHERE seq = ?",
                (row["account"], json.dumps({**row["ids"], **ids}), row["seq"]),
            )
            self._database.after_commit(partial(row["ids"].update, ids))
            self._add(row["seq"], row["account"], now, charge)
        return creation

    def refund(self, creation: int) -> None:
        """Give back what a creation was charged, because it came to nothing.

        Args:
            creation: What `created` returned.
        """
        with self._database.transaction():
            ((seq, account, when, charge),) = self._database.rows(
                "SELECT seq, account, time, charge FROM creations WHERE id = ?", (creation,)
            )
            self._database.execute("UPDATE creations SET charge = 0 WHERE id = ?", (creation,))
            self._add(seq, account, when, -charge)

    def _add(self, seq: int, account: str | None, when: float, charge: int) -> None:
        if not charge:
            return
        self._database.execute("UPDATE journal SET charge = charge + ? WHERE seq = ?", (charge, seq))
        if account is not None:
            self._database.execute(
                "INSERT INTO usage VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET tokens = tokens + excluded.tokens",
                (account, datetime.fromtimestamp(when, UTC).date().isoformat(), charge),
            )
        if seq in self._open:
            row = self._open[seq]
            self._database.after_commit(lambda: row.update(charge=row["charge"] + charge))

    def remark(self, seq: int, text: str) -> None:
        """Write a note into a row, also when its request has ended.

        Args:
            seq: The row.
            text: What a reader of the books should know.
        """
        self._database.execute("UPDATE journal SET note = ? WHERE seq = ?", (text, seq))
        if seq in self._open:
            self._database.after_commit(partial(self._open[seq].update, note=text))

    def rows(self, after: int = 0, *, account: str | None = None, route: str | None = None) -> list[dict[str, Any]]:
        """Return the rows, oldest first; open ones as they are now.

        Args:
            after: Only rows whose `seq` is greater, 0 or more.
            account: Only this account; None for all.
            route: Only this route, or those that the pattern covers (`_patterns.covers`); None for all.
        """
        where = ["seq > ?"]
        values: list[Any] = [min(after, _LAST)]
        if account is not None:
            # An open row may have got its account meanwhile, which is not in the database yet.
            where.append("(account = ? OR seq IN (SELECT value FROM json_each(?)))")
            values += [account, json.dumps(list(self._open))]
        if route is not None and not is_pattern(route):
            where.append("route = ?")
            values.append(route)
        found = as_rows(self._database.rows(f"{_ROWS}{' AND '.join(where)} ORDER BY seq", values))
        rows = [self._open.get(row["seq"], row) for row in found if route is None or covers(route, row["route"])]
        return rows if account is None else [row for row in rows if row["account"] == account]

    def creations(self, after: int = 0, *, account: str | None = None, kind: str | None = None) -> list[dict[str, Any]]:
        """Return the accepted creations, oldest first.

        Args:
            after: Only those whose `id` is greater, 0 or more.
            account: Only this account; None for all.
            kind: Only this kind; None for all.
        """
        where = ["id > ?"]
        values: list[Any] = [min(after, _LAST)]
        for column, value in (("account", account), ("kind", kind)):
            if value is not None:
                where.append(f"{column} = ?")
                values.append(value)
        return as_creations(self._database.rows(f"{_CREATIONS}{' AND '.join(where)} ORDER BY id", values))

    def totals(self) -> dict[str, Any]:
        """Return the sums over all rows and creations."""
        count, charge = self._database.rows("SELECT count(*), coalesce(sum(charge), 0) FROM journal")[0]
        closed = self._database.rows("SELECT coalesce(sum(bytes_in), 0), coalesce(sum(bytes_out), 0) FROM journal")[0]
        routes = self._database.rows("SELECT route, count(*) FROM journal GROUP BY route ORDER BY route")
        kinds = self._database.rows("SELECT kind, count(*) FROM creations GROUP BY kind ORDER BY kind")
        accounts = self._database.rows("SELECT account, sum(tokens) FROM usage GROUP BY account ORDER BY account")
        return {
            "requests": count,
            "bytes_in": closed[0] + sum(row["bytes_in"] for row in self._open.values()),
            "bytes_out": closed[1] + sum(row["bytes_out"] for row in self._open.values()),
            "charge": charge,
            "routes": dict(routes),
            "creations": dict(kinds),
            "charges": dict(accounts),
        }

    def used(self, account: str, first_day: str) -> int:
        """Return the tokens that an account has been charged.

        Args:
            account: The account.
            first_day: From this day on, UTC, as `YYYY-MM-DD`.
        """
        found = self._database.rows(
            "SELECT coalesce(sum(tokens), 0) FROM usage WHERE account = ? AND day >= ?", (account, first_day)
        )
        return int(found[0][0])


def as_rows(found: Iterable[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Return the result of `SELECT_ROWS` as the control route shows it."""
    rows = [dict(zip(_ROW, values, strict=True)) for values in found]
    for row in rows:
        row["ids"] = json.loads(row["ids"])
        row["bearer"] = bool(row["bearer"])
    return rows


def as_creations(found: Iterable[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Return the result of `SELECT_CREATIONS` as the control route shows it."""
    creations = [dict(zip(_CREATION, values, strict=True)) for values in found]
    for creation in creations:
        creation["ids"] = json.loads(creation["ids"])
    return creations


def read_books(path: Path, *, creations: bool) -> list[dict[str, Any]]:
    """Return the rows or the creations of a data folder's database, whether or not an emulator runs on it.

    Args:
        path: The database file.
        creations: The accepted creations instead of the requests.

    Raises:
        OSError: When there is no such file or it holds no books: name the folder of an emulator.
    """
    if not path.is_file():
        raise OSError(f"there is no {path.name} in {path.parent}")
    try:
        if os.access(path.parent, os.W_OK):
            return _read(path, creations=creations)
        # Reading a database with a write-ahead log writes beside it.
        with tempfile.TemporaryDirectory() as scratch:
            for each in path.parent.glob(f"{path.name}*"):
                shutil.copyfile(each, Path(scratch, each.name))
            return _read(Path(scratch, path.name), creations=creations)
    except sqlite3.DatabaseError as error:
        raise OSError(f"{path} cannot be read: {error}") from None


def _read(path: Path, *, creations: bool) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        if creations:
            return as_creations(connection.execute(SELECT_CREATIONS, (0,)))
        return as_rows(connection.execute(SELECT_ROWS, (0,)))
