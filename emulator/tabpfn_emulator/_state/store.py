"""What the emulator keeps: uploads (bytes in files) and fits.

What is there is in memory for reading and in the database for a restart; what was deleted is in the database at most.
Changed on the event loop only, so no locks; worker threads read files.
"""

import json
import re
import shutil
import uuid
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, Literal

from tabpfn_emulator._bodies.requests import FileInfo
from tabpfn_emulator._envelopes import not_found
from tabpfn_emulator._state.documents import Documents
from tabpfn_emulator._state.records import Fit, StoredFile, Upload

_UPLOAD_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Store:
    """Uploads and fits of all accounts, those of earlier runs on the same folder included.

    Args:
        folder: Where the bytes go.
        documents: Where the rest goes.
    """

    def __init__(self, folder: Path, documents: Documents) -> None:
        self._folder = folder
        self._documents = documents
        self._uploads: dict[str, Upload] = {}
        self._by_content: dict[str, dict[str, None]] = {}
        self._fits: dict[str, Fit] = {}
        for upload_id, account, data in documents.all("upload"):
            files = {
                name: StoredFile(folder / upload_id / name, FileInfo(**file["info"]), file["parts"])
                for name, file in data.pop("files").items()
            }
            data.pop("description", None)
            self._remember(Upload(upload_id=upload_id, account=account, files=files, **data))
        for fit in self.all_fits():
            self._remember_fit(fit)
        self._sweep()

    def _sweep(self) -> None:
        # What a killed process was in the middle of: bytes of an upload that nobody was told of, or that was deleted.
        for folder in self._folder.iterdir():
            if _UPLOAD_ID.fullmatch(folder.name) and folder.name not in self._uploads:
                shutil.rmtree(folder, ignore_errors=True)

    def _remember(self, upload: Upload) -> None:
        self._uploads[upload.upload_id] = upload
        self._by_content.setdefault(_content_of(upload), {})[upload.upload_id] = None

    def _forget(self, upload_id: str) -> None:
        content = _content_of(self._uploads.pop(upload_id))
        del self._by_content[content][upload_id]
        if not self._by_content[content]:
            del self._by_content[content]
        shutil.rmtree(self._folder / upload_id, ignore_errors=True)

    def _remember_fit(self, fit: Fit) -> None:
        if fit.deleted:
            self._fits.pop(fit.fitted_train_set_id, None)
        else:
            self._fits[fit.fitted_train_set_id] = fit

    def find_duplicate(
        self, account: str, hashes: dict[str, FileInfo], fitted_id: str | None, *, unfinished: bool
    ) -> Upload | None:
        """Return an earlier upload of the same bytes by the same account (contract section 2.2).

        Args:
            account: Whose uploads to look at.
            hashes: The files; without a hash on each there is no duplicate.
            fitted_id: The model of a test set; None for a train set.
            unfinished: Whether an upload counts whose bytes have not all arrived.
        """
        if any(info.hash is None for info in hashes.values()):
            return None
        for upload_id in reversed(self._by_content.get(_content(account, hashes, fitted_id), {})):
            upload = self._uploads[upload_id]
            if unfinished or upload.complete:
                return upload
        return None

    def add_upload(
        self,
        account: str,
        files: dict[str, FileInfo],
        parts: dict[str, int],
        fitted_id: str | None = None,
        description: str | None = None,
    ) -> Upload:
        """Open an upload.

        Args:
            account: Its owner.
            files: What will come, by name.
            parts: Number of signed URLs of each file, 1 or more.
            fitted_id: The model of a test set; None for a train set.
            description: The caller's words about the data, of any length, so not kept in memory.
        """
        upload = self.draft(account, files, parts, fitted_id)
        self.add(upload, description)
        return upload

    def draft(self, account: str, files: dict[str, FileInfo], parts: dict[str, int], fitted_id: str | None) -> Upload:
        """Return a new upload that is not there before `add`: a restart sweeps its bytes away.

        Args:
            account: Its owner.
            files: What will come, by name.
            parts: Number of parts of each file, 1 or more.
            fitted_id: The model of a test set; None for a train set.
        """
        upload_id = str(uuid.uuid4())
        stored = {name: StoredFile(self._folder / upload_id / name, info, parts[name]) for name, info in files.items()}
        return Upload(upload_id, "train" if fitted_id is None else "test", account, stored, fitted_id)

    def add(self, upload: Upload, description: str | None) -> None:
        """Keep a draft.

        Args:
            upload: What `draft` returned.
            description: The caller's words about the data.
        """
        self._documents.add(
            "upload", upload.upload_id, upload.account, {**upload.as_document(), "description": description}
        )
        self._documents.after_commit(partial(self._remember, upload))

    def discard(self, upload: Upload) -> None:
        """Forget the bytes of a draft; an upload that was added stays."""
        if upload.upload_id not in self._uploads:
            shutil.rmtree(self._folder / upload.upload_id, ignore_errors=True)

    def descriptions(self, account: str) -> dict[str, str | None]:
        """Return what an account has said about its uploads, by their id."""
        return {upload_id: data["description"] for upload_id, _, data in self._documents.all("upload", account)}

    def storage_upload(self, upload_id: str) -> Upload | None:
        """Return the upload of a signed URL, whoever holds the URL."""
        return self._uploads.get(upload_id)

    def upload(self, account: str, upload_id: str, kind: Literal["train", "test"]) -> Upload:
        """Return an account's upload.

        Raises:
            ApiError: 404 when there is none; another account's does not exist either.
        """
        upload = self._uploads.get(upload_id)
        if upload is None or upload.account != account or upload.kind != kind:
            raise not_found(f"The {kind} set upload {upload_id}")
        return upload

    def seal(self, upload: Upload) -> None:
        """Let the bytes of an upload never change again; goes into the transaction that accepts the fit."""
        self._documents.change("upload", upload.upload_id, sealed=True)
        self._documents.after_commit(partial(setattr, upload, "sealed", True))

    def add_fit(self, fit: Fit) -> None:
        """Keep a new fit; every accepted call makes another one (contract section 2.2)."""
        self._documents.add("fit", fit.fitted_train_set_id, fit.account, fit.as_document())
        self._documents.after_commit(partial(self._remember_fit, fit))

    def change_fit(self, fitted_id: str, **fields: Any) -> Fit:
        """Change a fit, also one that was deleted.

        Args:
            fitted_id: Its id.
            fields: Attributes of `Fit`.

        Returns:
            The fit as it is now.
        """
        fit = Fit.from_document(self._documents.change("fit", fitted_id, **fields))
        self._documents.after_commit(partial(self._remember_fit, fit))
        return fit

    def fit(self, account: str, fitted_id: str) -> Fit:
        """Return an account's fit.

        Raises:
            ApiError: 404 when there is none, or it was deleted with its train set.
        """
        fit = self._fits.get(fitted_id)
        if fit is None or fit.account != account:
            raise not_found(f"The fitted train set {fitted_id}")
        return fit

    def fits(self) -> list[Fit]:
        """Return the fits that were not deleted, oldest first."""
        return list(self._fits.values())

    def all_fits(self, account: str | None = None) -> list[Fit]:
        """Return every fit ever accepted, deleted ones too, oldest first.

        Args:
            account: Their owner; None for all.
        """
        return [Fit.from_document(data) for _, _, data in self._documents.all("fit", account)]

    def account_uploads(self, account: str) -> list[Upload]:
        """Return an account's uploads, oldest first."""
        return [upload for upload in self._uploads.values() if upload.account == account]

    def delete(self, account: str, upload_id: str) -> list[str]:
        """Delete an upload; a train set takes its models and their test sets with it (contract section 1.10).

        Returns:
            The ids of the uploads that are gone.

        Raises:
            ApiError: 404 when the account has no such upload.
        """
        return self.delete_many(account, [upload_id])

    def delete_many(self, account: str, upload_ids: Iterable[str]) -> list[str]:
        """Delete uploads, all of them or none, in the way of `delete`.

        Args:
            account: Their owner.
            upload_ids: Their ids; may name test sets that go with a train set anyway.

        Returns:
            The ids of the uploads that are gone, each once.

        Raises:
            ApiError: 404 when the account has not all of them.
        """
        gone = dict.fromkeys(upload_ids)
        for upload_id in gone:
            if upload_id not in self._uploads or self._uploads[upload_id].account != account:
                raise not_found(f"The dataset {upload_id}")
        models = {fit_id for fit_id, fit in self._fits.items() if fit.plan.train_set_upload_id in gone}
        gone |= {each.upload_id: None for each in self._uploads.values() if each.fitted_train_set_id in models}
        with self._documents.transaction():
            for fitted_id in models:
                self.change_fit(fitted_id, deleted=True)
            for upload_id in gone:
                self._documents.delete("upload", upload_id)
                self._documents.after_commit(partial(self._forget, upload_id))
        return list(gone)


def _content_of(upload: Upload) -> str:
    infos = {name: file.info for name, file in upload.files.items()}
    return _content(upload.account, infos, upload.fitted_train_set_id)


def _content(account: str, files: dict[str, FileInfo], fitted_id: str | None) -> str:
    contents = sorted((name, info.format, info.hash or "") for name, info in files.items())
    return json.dumps([account, fitted_id, contents])
