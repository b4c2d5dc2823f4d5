"""What the emulator keeps: uploads (bytes in files) and fits.

Everything is in memory for reading and in the database for a restart. Changed on the event loop only, so no locks;
worker threads read files.
"""

import asyncio
import base64
import dataclasses
import json
import re
import shutil
import struct
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import google_crc32c

from tabpfn_emulator._bodies.requests import FileInfo, FitPlan
from tabpfn_emulator._envelopes import invalid, not_found
from tabpfn_emulator._state.documents import Documents
from tabpfn_emulator._storage.incoming import scratch_beside

_COPY_BYTES = 1 << 20
_UPLOAD_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass
class StoredFile:
    """One file of an upload, received in parts."""

    folder: Path
    info: FileInfo
    parts: int

    def part_path(self, part: int) -> Path:
        """Return where a part is kept."""
        return self.folder / f"{part:05d}.part"

    @property
    def complete(self) -> bool:
        """Whether every part has arrived."""
        return all(self.part_path(part).exists() for part in range(self.parts))

    @property
    def whole(self) -> Path:
        """Where the whole content is, once `assemble` has returned."""
        return self.part_path(0) if self.parts == 1 else self.folder / "whole"

    def assemble(self) -> Path:
        """Join the parts in URL order and check the result against what was announced (contract section 3).

        Returns:
            A file with the whole content.

        Raises:
            ApiError: 422 when size or hash differ: upload again.
        """
        whole = self.whole
        if self.parts > 1:
            scratch = scratch_beside(whole)
            try:
                with scratch.open("wb") as target:
                    for part in range(self.parts):
                        with self.part_path(part).open("rb") as source:
                            shutil.copyfileobj(source, target, _COPY_BYTES)
                scratch.replace(whole)
            finally:
                scratch.unlink(missing_ok=True)
        self._verify(whole)
        return whole

    def _verify(self, whole: Path) -> None:
        size = whole.stat().st_size
        if self.info.size_bytes is not None and size != self.info.size_bytes:
            raise invalid(f"{self.folder.name}: {size} bytes arrived, {self.info.size_bytes} were announced.")
        if self.info.hash is None:
            return
        checksum = 0
        with whole.open("rb") as source:
            while chunk := source.read(_COPY_BYTES):
                checksum = google_crc32c.extend(checksum, chunk)
        found = base64.b64encode(struct.pack(">I", checksum)).decode()
        if found != self.info.hash:
            raise invalid(f"{self.folder.name}: the CRC32C of the bytes is {found}, announced was {self.info.hash}.")


@dataclass
class Upload:
    """A train set (x_train, y_train) or a test set (x_test) of one fitted model.

    Attributes:
        sealed: Whether a fit was accepted on it: its models are learnt again from these bytes, which must not change.
        arrivals: Parts that have arrived since the start of the process, repeated ones included.
        checked_arrivals: What `arrivals` was when the bytes were last found to be what was announced.
        checking: Held while they are checked.
    """

    upload_id: str
    kind: Literal["train", "test"]
    account: str
    files: dict[str, StoredFile]
    fitted_train_set_id: str | None = None
    description: str | None = None
    created_at: float = field(default_factory=time.time)
    sealed: bool = False
    arrivals: int = 0
    checked_arrivals: int = -1
    checking: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def complete(self) -> bool:
        """Whether every part of every file has arrived."""
        return all(file.complete for file in self.files.values())

    @property
    def checked(self) -> bool:
        """Whether the files are as they were when they were found to be what was announced."""
        return self.sealed or self.checked_arrivals == self.arrivals

    def as_document(self) -> dict[str, Any]:
        """Return what the database keeps; where the bytes are follows from the id."""
        return {
            "kind": self.kind,
            "files": {name: {"info": file.info.model_dump(), "parts": file.parts} for name, file in self.files.items()},
            "fitted_train_set_id": self.fitted_train_set_id,
            "description": self.description,
            "created_at": self.created_at,
            "sealed": self.sealed,
        }


@dataclass
class Fit:
    """A fit that was accepted.

    Attributes:
        fitted_train_set_id: Its id.
        account: Its owner.
        plan: What was asked.
        route: The route that was called.
        seq: The journal row of that call.
        creation: The books' row of this fit.
        limits: The ModelLimit that held then; learning the same model again must not meet other ones.
        mode: `Settings.predict` then, for the same reason.
        backend: `Settings.backend` then.
        ready_at: Epoch seconds before which it does not end; None lets it never end.
        doomed: Error and error code that it ends with instead of being worked on.
        created_at: Epoch seconds.
        status: Where it is.
        error: Why it has failed.
        error_code: Machine-readable reason of that.
        timings: What the status route tells.
        charge: Tokens that it has cost.
        deleted: Whether it went with its train set.
        train_rows: Rows of the train set, once it is completed.
        sampled_rows: Rows that the model has learnt from, once it is completed.
    """

    fitted_train_set_id: str
    account: str
    plan: FitPlan
    route: str
    seq: int
    creation: int
    limits: dict[str, int]
    mode: Literal["model", "constant"] = "model"
    backend: Literal["sklearn", "tabpfn"] = "sklearn"
    ready_at: float | None = 0.0
    doomed: tuple[str, str] | None = None
    created_at: float = field(default_factory=time.time)
    status: Literal["pending", "completed", "failed"] = "pending"
    error: str | None = None
    error_code: str | None = None
    timings: dict[str, float] | None = None
    charge: int = 0
    deleted: bool = False
    train_rows: int | None = None
    sampled_rows: int | None = None

    @classmethod
    def from_document(cls, data: dict[str, Any]) -> "Fit":
        """Return the fit that `dataclasses.asdict` has made a document of."""
        plan = FitPlan(**{**data["plan"], "systems": tuple(data["plan"]["systems"])})
        doomed = None if data["doomed"] is None else (data["doomed"][0], data["doomed"][1])
        return cls(**{**data, "plan": plan, "doomed": doomed})

    def as_row(self) -> dict[str, Any]:
        """Return the fit as `GET /_emulator/fits` shows it."""
        return {
            "fitted_train_set_id": self.fitted_train_set_id,
            "train_set_upload_id": self.plan.train_set_upload_id,
            "account": self.account,
            "route": self.route,
            "wire": self.plan.wire,
            "task": self.plan.task,
            "config": self.plan.config,
            "systems": list(self.plan.systems),
            "thinking": self.plan.thinking,
            "text_handling": self.plan.text_handling,
            "created_at": self.created_at,
            "status": self.status,
            "error": self.error,
            "error_code": self.error_code,
            "charge": self.charge,
            "deleted": self.deleted,
            "train_rows": self.train_rows,
            "sampled_rows": self.sampled_rows,
        }


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
            self._remember(Upload(upload_id=upload_id, account=account, files=files, **data))
        for fitted_id, _, data in documents.all("fit"):
            self._fits[fitted_id] = Fit.from_document(data)
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
            description: The caller's words about the data.
        """
        upload_id = str(uuid.uuid4())
        stored = {}
        for name, info in files.items():
            folder = self._folder / upload_id / name
            folder.mkdir(parents=True)
            stored[name] = StoredFile(folder, info, parts[name])
        kind: Literal["train", "test"] = "train" if fitted_id is None else "test"
        upload = Upload(upload_id, kind, account, stored, fitted_id, description)
        self._documents.put("upload", upload_id, account, upload.as_document())
        self._remember(upload)
        return upload

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
        upload.sealed = True
        self._documents.put("upload", upload.upload_id, upload.account, upload.as_document())

    def save(self, fit: Fit) -> None:
        """Keep a fit, new or changed; every accepted call makes another one (contract section 2.2)."""
        self._documents.put("fit", fit.fitted_train_set_id, fit.account, dataclasses.asdict(fit))
        self._fits[fit.fitted_train_set_id] = fit

    def fit(self, account: str, fitted_id: str) -> Fit:
        """Return an account's fit.

        Raises:
            ApiError: 404 when there is none, or it was deleted with its train set.
        """
        fit = self._fits.get(fitted_id)
        if fit is None or fit.account != account or fit.deleted:
            raise not_found(f"The fitted train set {fitted_id}")
        return fit

    def all_fits(self) -> list[Fit]:
        """Return every fit ever accepted, oldest first."""
        return list(self._fits.values())

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
        models = [fit for fit in self._fits.values() if fit.plan.train_set_upload_id in gone and not fit.deleted]
        ids = {fit.fitted_train_set_id for fit in models}
        gone |= {each.upload_id: None for each in self._uploads.values() if each.fitted_train_set_id in ids}
        with self._documents.transaction():
            for fit in models:
                fit.deleted = True
                self.save(fit)
            for upload_id in gone:
                self._documents.delete("upload", upload_id)
        for upload_id in gone:
            self._forget(upload_id)
            shutil.rmtree(self._folder / upload_id, ignore_errors=True)
        return list(gone)


def _content_of(upload: Upload) -> str:
    infos = {name: file.info for name, file in upload.files.items()}
    return _content(upload.account, infos, upload.fitted_train_set_id)


def _content(account: str, files: dict[str, FileInfo], fitted_id: str | None) -> str:
    contents = sorted((name, info.format, info.hash or "") for name, info in files.items())
    return json.dumps([account, fitted_id, contents])
