"""Things with an id, as JSON in the database: uploads, fits, and whatever else a restart must not lose."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from tabpfn_emulator._state.database import Database


class Documents:
    """JSON objects by kind and id.

    Args:
        database: Where they are.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def transaction(self) -> AbstractContextManager[None]:
        """Commit everything in the block at once; nothing in it may await."""
        return self._database.transaction()

    def after_commit(self, change: Callable[[], None]) -> None:
        """Make a change in memory, or on files, once what was written is committed; see `Database.after_commit`."""
        self._database.after_commit(change)

    def add(self, kind: str, document_id: str, account: str, data: Any) -> None:
        """Keep a new document; call it before the answer that names its id leaves.

        Args:
            kind: For example `upload`; each kind has ids of its own.
            document_id: Its id.
            account: Its owner, who stays the same.
            data: A JSON value, without secrets.
        """
        self._database.execute(
            "INSERT INTO documents (kind, id, account, data) VALUES (?, ?, ?, ?)",
            (kind, document_id, account, json.dumps(data)),
        )

    def change(self, kind: str, document_id: str, **fields: Any) -> Any:
        """Set fields of a document that is a JSON object.

        Args:
            kind: Its kind.
            document_id: Its id.
            fields: JSON values, without secrets.

        Returns:
            The document as it is now; None when there is none: what was deleted meanwhile stays deleted.
        """
        found = self.get(kind, document_id)
        if found is None:
            return None
        changed = {**found, **fields}
        self._database.execute(
            "UPDATE documents SET data = ? WHERE kind = ? AND id = ?", (json.dumps(changed), kind, document_id)
        )
        return changed

    def get(self, kind: str, document_id: str, account: str | None = None) -> Any:
        """Return a document; None when there is none, or it is another account's.

        Args:
            kind: Its kind.
            document_id: Its id.
            account: Its owner; None leaves that to the caller.
        """
        found = self._database.rows(
            "SELECT account, data FROM documents WHERE kind = ? AND id = ?", (kind, document_id)
        )
        return json.loads(found[0][1]) if found and account in {None, found[0][0]} else None

    def owner(self, kind: str, document_id: str) -> str | None:
        """Return the account of a document; None when there is none.

        Args:
            kind: Its kind.
            document_id: Its id.
        """
        found = self._database.rows("SELECT account FROM documents WHERE kind = ? AND id = ?", (kind, document_id))
        return str(found[0][0]) if found else None

    def all(self, kind: str, account: str | None = None) -> list[tuple[str, str, Any]]:
        """Return id, owner and value of the documents of a kind, oldest first.

        Args:
            kind: Their kind.
            account: Their owner; None for all.
        """
        found = self._database.rows(
            "SELECT id, account, data FROM documents WHERE kind = ?1 AND (?2 IS NULL OR account = ?2) ORDER BY number",
            (kind, account),
        )
        return [(document_id, owner, json.loads(data)) for document_id, owner, data in found]

    def delete(self, kind: str, document_id: str) -> None:
        """Forget a document."""
        self._database.execute("DELETE FROM documents WHERE kind = ? AND id = ?", (kind, document_id))

    def delete_all(self, kind: str, account: str) -> None:
        """Forget an account's documents of a kind."""
        self._database.execute("DELETE FROM documents WHERE kind = ? AND account = ?", (kind, account))
