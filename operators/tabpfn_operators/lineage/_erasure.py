"""Erasure: what hangs on a model's training data, and the marks that it was deleted."""

from collections.abc import Sequence
from datetime import UTC, datetime

from tabpfn_assets import Evaluation, FittedModel
from tabpfn_operators.errors import ModelNotRecordedError, RecordUnreadableError
from tabpfn_operators.lineage import _layout as layout
from tabpfn_operators.lineage._entries import ErasedEntry, Erasure, ErasureOutcome, Hanging, UploadErasure
from tabpfn_operators.lineage._forget import evaluation_without_names, without_names
from tabpfn_operators.lineage._layout import Key
from tabpfn_operators.lineage._listing import Listings


class Erasures(Listings):
    """The part of a store that plans and marks erasures; the server's part is `Client.erase_model`."""

    def plan_erasure(self, name: str, version: str) -> Erasure:
        """Say what goes with the training data of a version: every model fitted on the same upload. Changes nothing.

        Args:
            name: The model.
            version: As for `get`.

        Returns:
            The plan, as `Client.erase_model` would carry it out.

        Raises:
            ModelNotRecordedError: There is no such model, version or alias; the message names those there are.
            RecordUnreadableError: The record is damaged or may not be read; the message names the file.
            StorageError: The storage did not answer; run again.
        """
        version = self.resolve(name, version)
        self._record_of(name, version)
        return self._plan(f"{name} {version}", [(name, version)])

    def plan_erasure_of(self, source: str) -> Erasure:
        """Say what goes with all training data from a source. Changes nothing.

        Args:
            source: As for `find_by_source`.

        Returns:
            The plan, as `Client.erase_source` would carry it out.

        Raises:
            ModelNotRecordedError: No recorded model was trained on it; name it as it was passed to `fit`.
            StorageError: The storage did not answer; run again.
        """
        shown = layout.shown_source(source)
        keys = self.find_by_source(source)
        if not keys:
            raise ModelNotRecordedError(
                f"{self.url} holds no model that was trained on {shown}; name the file as it was passed to fit, a "
                "folder above it, or the source's fingerprint."
            )
        return self._plan(shown, keys)

    def erased(self, name: str, version: str) -> ErasedEntry | None:
        """Read the mark of an erased version; None where it is not erased.

        Args:
            name: The model.
            version: The whole version.

        Raises:
            ConfigurationError: One of them is no name, or no whole version.
            RecordUnreadableError: The mark is damaged or may not be read; the message names the file.
            StorageError: The storage did not answer; run again.
        """
        return self._find(ErasedEntry, *self._mark_of(name, version, "erased"))

    def mark_erased(
        self, name: str, version: str, *, deleted: Sequence[str] = (), proof: str | None = None
    ) -> ErasedEntry:
        """Mark that the training data of a version is gone from the server; the record stays, and is never "latest".

        Args:
            name: The model.
            version: As for `get`.
            deleted: Ids that the server said it deleted.
            proof: As in `ErasedEntry`.

        Returns:
            The mark; where there is one already, that.

        Raises:
            ModelNotRecordedError: There is no such model, version or alias; the message names those there are.
            StoreNotExclusiveError: The store cannot keep two writers apart; the message names those that can.
            DestinationError: The store cannot be written to; correct path or credentials.
            StorageError: The storage did not answer; run again.
        """
        version = self.resolve(name, version)
        entry = self._erasure_entry(name, version, tuple(deleted), proof)
        if self._create(entry, *self._mark_of(name, version, "erased")):
            return entry
        return self._read(ErasedEntry, *self._mark_of(name, version, "erased"))

    def mark_erasing(self, keys: Sequence[Key], proof: str) -> None:
        """Note that an account that holds these models is about to delete them, so that a rerun after a kill knows.

        Args:
            keys: Names and whole versions.
            proof: As in `ErasedEntry`.

        Raises:
            DestinationError: The store cannot be written to; correct path or credentials.
            StorageError: The storage did not answer; run again.
        """
        for name, version in keys:
            self._replace(self._erasure_entry(name, version, (), proof), *self._mark_of(name, version, "erasing"))

    def was_erasing(self, keys: Sequence[Key], proof: str) -> bool:
        """Whether an earlier call with this proof was about to delete one of these models.

        Args:
            keys: Names and whole versions.
            proof: As in `ErasedEntry`.

        Raises:
            RecordUnreadableError: A mark is damaged or may not be read; the message names the file.
            StorageError: The storage did not answer; run again.
        """
        marks = [self._find(ErasedEntry, *self._mark_of(*key, "erasing")) for key in keys]
        return any(mark is not None and mark.proof == proof for mark in marks)

    def forget_names(self, name: str, version: str) -> None:
        """Write a version and its evaluations anew without column names and class labels, for good.

        The one change that a record ever sees. Copies elsewhere are not reached: beside predictions, in journals, in
        engines, in events, and earlier versions of the object where the storage keeps them.

        Args:
            name: The model.
            version: As for `get`.

        Raises:
            ModelNotRecordedError: There is no such model, version or alias; the message names those there are.
            RecordUnreadableError: A record is damaged or may not be read; the message names the file.
            DestinationError: The store cannot be written to; correct path or credentials.
            StorageError: The storage did not answer; run again.
        """
        version = self.resolve(name, version)
        self._replace(without_names(self._record_of(name, version)), *self._record(name, version))
        folder = self._evaluations(name, version)
        for file in self._files_beside(*folder):
            evaluation = self._read(Evaluation, *folder, file)
            self._replace(evaluation_without_names(evaluation), *folder, file)

    def _plan(self, target: str, keys: Sequence[Key]) -> Erasure:
        problems: list[str] = []
        uploads: dict[str, tuple[FittedModel, list[Key]]] = {}
        nameless: list[UploadErasure] = []
        for key in keys:
            model = self._readable(key, problems)
            if model is None:
                continue
            if model.train_set_upload_id is None:
                nameless.append(self._upload(model, [key], "no_upload_id", problems))
            else:
                uploads.setdefault(model.train_set_upload_id, (model, []))[1].append(key)
        planned = [
            # A store that was copied without its markers finds at least what was named.
            self._upload(model, sorted({*named, *self.find_by_upload(upload)}), "planned", problems)
            for upload, (model, named) in uploads.items()
        ]
        return Erasure(target=target, uploads=(*planned, *nameless), problems=tuple(dict.fromkeys(problems)))

    def _upload(
        self, model: FittedModel, keys: Sequence[Key], outcome: ErasureOutcome, problems: list[str]
    ) -> UploadErasure:
        found = {key: each for key in keys if (each := self._readable(key, problems)) is not None}
        pointing: dict[Key, list[str]] = {}
        for name in sorted({name for name, _ in found}):
            for alias, entry in self.aliases(name).items():
                pointing.setdefault((name, entry.version), []).append(alias)
        hanging = tuple(
            Hanging(
                name=key[0],
                version=key[1],
                fitted_train_set_id=each.fitted_train_set_id,
                aliases=tuple(pointing.get(key, ())),
                erased=self.is_erased(*key),
                names=0 if each.redacted_fields else len(each.features) + 1,
                labels=0 if each.redacted_fields else len(each.classes or ()),
            )
            for key, each in found.items()
        )
        return UploadErasure(
            train_set_upload_id=model.train_set_upload_id,
            api_url=model.api_url,
            sources=model.source.uris,
            rows=model.rows,
            models=hanging,
            outcome=outcome,
        )

    def _readable(self, key: Key, problems: list[str]) -> FittedModel | None:
        try:
            model = self._find(FittedModel, *self._record(*key))
        except RecordUnreadableError as error:
            problems.append(str(error))
            return None
        if model is None:
            problems.append(
                f"{key[0]} {key[1]} was about to be recorded, and is not: run again what records it, so that its "
                "upload is known."
            )
        return model

    def _erasure_entry(self, name: str, version: str, deleted: tuple[str, ...], proof: str | None) -> ErasedEntry:
        model = self._record_of(name, version)
        return ErasedEntry(
            name=name,
            version=version,
            fitted_train_set_id=model.fitted_train_set_id,
            train_set_upload_id=model.train_set_upload_id,
            api_url=model.api_url,
            deleted=deleted,
            proof=proof,
            at=datetime.now(UTC),
        )
