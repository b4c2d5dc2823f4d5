"""What the reasoning API keeps: uploads, data sets, jobs and the recipes of models, as documents in the database."""

import shutil
import time
import uuid
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, Literal

from tabpfn_emulator._envelopes import not_found
from tabpfn_emulator._state.documents import Documents

Kind = Literal["reasoning_upload", "reasoning_dataset", "reasoning_job", "reasoning_model"]

_NAMES: Final[dict[Kind, str]] = {
    "reasoning_upload": "upload",
    "reasoning_dataset": "dataset",
    "reasoning_job": "job",
    "reasoning_model": "model",
}


class ReasoningStore:
    """Documents of all accounts, and the files that belong to them.

    Args:
        documents: Where the documents go.
        folder: Where uploaded files and results go.
    """

    def __init__(self, documents: Documents, folder: Path) -> None:
        self._documents = documents
        self._folder = folder

    def add(self, kind: Kind, account: str, data: dict[str, Any]) -> str:
        """Keep a new document.

        Returns:
            Its id; committed, so that an answer may name it.
        """
        new_id = str(uuid.uuid4())
        self._documents.put(kind, new_id, account, {"created_at": time.time(), "owner": account, **data})
        return new_id

    def get(self, kind: Kind, account: str, wanted: str) -> dict[str, Any]:
        """Return a document of an account.

        Raises:
            ApiError: 404 when there is none; another account's does not exist either.
        """
        data: dict[str, Any] | None = self._documents.get(kind, wanted, account)
        if data is None:
            raise not_found(f"The {_NAMES[kind]} {wanted}")
        return data

    def transaction(self) -> AbstractContextManager[None]:
        """Commit everything in the block at once; nothing in it may await."""
        return self._documents.transaction()

    def has(self, kind: Kind, account: str, wanted: str) -> bool:
        """Return whether an account has a document."""
        return self._documents.get(kind, wanted, account) is not None

    def unfinished_jobs(self) -> list[tuple[str, str]]:
        """Return account and id of the jobs of all accounts that have not ended, oldest first."""
        jobs = self._documents.all("reasoning_job")
        return [(account, job_id) for job_id, account, job in jobs if "completed_at" not in job]

    def change(self, kind: Kind, account: str, changed: str, **fields: Any) -> None:
        """Set fields of a document; one that was deleted meanwhile stays deleted."""
        data = self._documents.get(kind, changed, account)
        if data is not None:
            self._documents.put(kind, changed, account, {**data, **fields})

    def owner_of_upload(self, upload_id: str) -> str | None:
        """Return whose upload a signed URL is for, whoever holds the URL; None when it is gone."""
        data = self._documents.get("reasoning_upload", upload_id)
        return None if data is None else str(data["owner"])

    def upload_path(self, upload_id: str) -> Path:
        """Return where the bytes of an upload are, or will be; the folder is made."""
        return self._path("uploads", upload_id)

    def result_path(self, job_id: str) -> Path:
        """Return where the artifact of a prediction is, or will be; the folder is made."""
        return self._path("results", job_id)

    def _path(self, group: str, name: str) -> Path:
        folder = self._folder / group / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder / "content"

    def delete_account(self, account: str) -> None:
        """Forget everything of an account."""
        for kind in _NAMES:
            for gone, _, _ in self._documents.all(kind, account):
                self._documents.delete(kind, gone)
                for group in ("uploads", "results"):
                    shutil.rmtree(self._folder / group / gone, ignore_errors=True)
