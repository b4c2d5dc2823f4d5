"""An upload and a fit: what the emulator knows of each."""

import asyncio
import base64
import dataclasses
import shutil
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import google_crc32c

from tabpfn_emulator._bodies.requests import FileInfo, FitPlan
from tabpfn_emulator._envelopes import invalid
from tabpfn_emulator._storage.incoming import scratch_beside

_COPY_BYTES = 1 << 20


@dataclass
class StoredFile:
    """One file of an upload, received in parts."""

    folder: Path
    info: FileInfo
    parts: int

    def part_path(self, part: int) -> Path:
        """Return where a part is kept, or will be."""
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
            "created_at": self.created_at,
            "sealed": self.sealed,
        }


@dataclass(frozen=True)
class Fit:
    """A fit that was accepted, as it was when it was looked up; `Store.change` makes another one of it.

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

    def as_document(self) -> dict[str, Any]:
        """Return what the database keeps."""
        return dataclasses.asdict(self)

    @classmethod
    def from_document(cls, data: dict[str, Any]) -> "Fit":
        """Return the fit that `as_document` has made a document of."""
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
