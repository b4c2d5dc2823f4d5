"""The journal: one row for every request to the API and its storage, in memory and as JSON lines."""

import json
import time
from pathlib import Path
from typing import Any


class Journal:
    """Rows in order of arrival.

    A row is there from the moment the request arrives, with `status` None until it is answered; a request whose
    connection was dropped keeps None. Its line in the file is written when it ends.

    Args:
        path: The file; rows are appended.
    """

    def __init__(self, path: Path) -> None:
        self.rows: list[dict[str, Any]] = []
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def open_row(self, method: str, route: str, *, bearer: bool) -> dict[str, Any]:
        """Begin the row of a request.

        Args:
            method: HTTP method.
            route: Path without query; signed URLs count as `/storage`.
            bearer: Whether an Authorization header came with it.
        """
        row: dict[str, Any] = {
            "seq": len(self.rows) + 1,
            "time": time.time(),
            "method": method,
            "route": route,
            "account": None,
            "status": None,
            "bearer": bearer,
            "bytes_in": 0,
            "bytes_out": 0,
            "charge": 0,
            "fault": None,
            "ids": {},
        }
        self.rows.append(row)
        return row

    def close_row(self, row: dict[str, Any]) -> None:
        """Write the row of a request that has ended."""
        row["seconds"] = round(time.time() - row["time"], 6)
        self._file.write(json.dumps(row) + "\n")

    def charged(self, account: str) -> int:
        """Return the tokens that an account has been charged."""
        return sum(row["charge"] for row in self.rows if row["account"] == account)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
