"""What the reasoning API keeps: uploads, data sets, jobs and the recipes of models, as documents in the database."""

import shutil
import time
import uuid
from functools import partial
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
            Its id; an answer may name it once it is committed.
        """
        new_id = str(uuid.uuid4())
        self._documents.add(kind, new_id, account, {"created_at": time.time(), "owner": account, **data})
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

    def unfinished_jobs(self) -> list[tuple[str, str]]:
        """Return account and id of the jobs of all accounts that have not ended, oldest first."""
        jobs = self._documents.all("reasoning_job")
        return [(account, job_id) for job_id, account, job in jobs if "completed_at" not in job]

    def change_job(self, job_id: str, **fields: Any) -> bool:
        """Set fields of a job.

        Returns:
            Whether it is still there: it may have gone with its account, and then stays away.
        """
        return self._documents.change("reasoning_job", job_id, **fields, updated_at=time.time()) is not None

    def owner_of_upload(self, upload_id: str) -> str | None:
        """Return whose upload a signed URL is for, whoever holds the URL; None when it is gone."""
        return self._documents.owner("reasoning_upload", upload_id)

    def upload_path(self, upload_id: str) -> Path:
        """Return where the bytes of an upload are, or will be."""
        return self._folder / "uploads" / upload_id / "content"

    def result_path(self, job_id: str) -> Path:
        """Return where the artifact of a prediction is, or will be."""
        return self._folder / "results" / job_id / "content"

    def delete_account(self, account: str) -> None:
        """Forget everything of an account."""
        with self._documents.transaction():
            for kind in _NAMES:
                for gone, _, _ in self._documents.all(kind, account):
                    self._documents.delete(kind, gone)
                    for path in (self.upload_path(gone), self.result_path(gone)):
                        self._documents.after_commit(partial(shutil.rmtree, path.parent, ignore_errors=True))
