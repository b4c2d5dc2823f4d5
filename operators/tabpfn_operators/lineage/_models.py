"""Versions of models: added once, never changed, found again by fit and by source."""

from abc import abstractmethod
from collections.abc import Sequence

from tabpfn_assets import Evaluation, FittedModel
from tabpfn_operators._stored import checked_name
from tabpfn_operators.errors import InvalidInputError, ModelNotRecordedError, RecordUnreadableError, TabPFNError
from tabpfn_operators.journal import key_part
from tabpfn_operators.lineage import _layout as layout
from tabpfn_operators.lineage._entries import Difference, ErasedEntry, changes_between
from tabpfn_operators.lineage._files import StoreFiles
from tabpfn_operators.lineage._layout import Key


class Models(StoreFiles):
    """The part of a store that holds models and their evaluations."""

    def add(self, model: FittedModel) -> str:
        """Record a fitted model as a new version; one that is recorded already stays as it is.

        Markers come before the record: after a kill in between, a rerun of the same call completes it, and no record
        is ever without its markers.

        Args:
            model: A completed model with a name.

        Returns:
            The version.

        Raises:
            InvalidInputError: It has no name or is not completed; fit with `name=`, or wait for it.
            StoreNotExclusiveError: The store cannot keep two writers apart; the message names those that can.
            DestinationError: The store cannot be written to; correct path or credentials.
            StorageError: The storage did not answer; run again.
        """
        if model.name is None:
            raise InvalidInputError("The model has no name to be recorded by; fit it with name='...'.")
        if model.status != "completed":
            raise InvalidInputError(
                f"The fit of {model.name} is {model.status}; wait_for_fit() first: only completed models are recorded."
            )
        version = layout.version_id(model.created_at, model.fitted_train_set_id)
        key = (checked_name(model.name), version)
        self._require_exclusive()
        known = self._find(FittedModel, *self._record(*key))
        if known is None:
            self._mark(layout.index_folders(model), key)
            if self._create(model, *self._record(*key)):
                return version
            known = self._read(FittedModel, *self._record(*key))
        if known.fitted_train_set_id != model.fitted_train_set_id:
            raise InvalidInputError(
                f"{self._shown(*self._record(*key))} is another model, {known.fitted_train_set_id}; "
                "record this one under another name."
            )
        return version

    def add_evaluation(self, name: str, version: str, evaluation: Evaluation) -> None:
        """Record an evaluation beside a version; the newest is what `get` returns with the model.

        Args:
            name: The model.
            version: As for `get`.
            evaluation: An evaluation of this version.

        Raises:
            InvalidInputError: It is of another model; the message names both.
            ModelNotRecordedError: There is no such version; the message names those there are.
            StoreNotExclusiveError: The store cannot keep two writers apart; the message names those that can.
            DestinationError: The store cannot be written to; correct path or credentials.
            StorageError: The storage did not answer; run again.
        """
        version = self._version_of(name, version, evaluation.fitted_train_set_id, "evaluation")
        self._create(evaluation, *self._evaluations(name, version), layout.evaluation_name(evaluation))

    def get(self, name: str, version: str = layout.LATEST) -> FittedModel:
        """Read a model, with the newest evaluation recorded beside it.

        Args:
            name: The model.
            version: A version or a unique beginning of one, `latest` (the newest that is not erased), or an alias as
                `@champion`.

        Raises:
            ModelNotRecordedError: There is no such model, version or alias; the message names those there are.
            RecordTooNewError: A newer version of this package wrote it; upgrade.
            RecordUnreadableError: The record is damaged or may not be read; the message names the file.
            StorageError: The storage did not answer; run again.
        """
        version = self.resolve(name, version)
        model = self._record_of(name, version)
        newest = self._newest_evaluation(name, version)
        own = model.evaluation
        if newest is None or (own is not None and own.created_at > newest.created_at):
            return model
        return model.model_copy(update={"evaluation": newest})

    def evaluations(self, name: str, version: str = layout.LATEST) -> list[Evaluation]:
        """Read all evaluations recorded beside a version, oldest first.

        Args:
            name: The model.
            version: As for `get`.

        Raises:
            ModelNotRecordedError: There is no such model, version or alias; the message names those there are.
            RecordUnreadableError: One is damaged or may not be read; the message names the file.
            StorageError: The storage did not answer; run again.
        """
        folder = self._evaluations(name, self.resolve(name, version))
        return self._many(lambda file: self._read(Evaluation, *folder, file), self._files_beside(*folder))

    def names(self) -> list[str]:
        """List the models, in alphabetical order.

        Raises:
            RecordUnreadableError: The store may not be listed; check path and credentials.
            StorageError: The storage did not answer; run again.
        """
        return layout.names_among(self._names("models"))

    def versions(self, name: str) -> list[str]:
        """List the versions of a model, oldest first; none where there is no such model.

        Args:
            name: The model.

        Raises:
            ConfigurationError: It is no name; choose another.
            RecordUnreadableError: The store may not be listed; check path and credentials.
            StorageError: The storage did not answer; run again.
        """
        return layout.versions_in(self._names("models", checked_name(name)))

    def resolve(self, name: str, version: str) -> str:
        """Find the whole version that a text means, now.

        Args:
            name: The model.
            version: As for `get`.

        Raises:
            ModelNotRecordedError: There is no such model, version or alias; the message names those there are.
            ConfigurationError: The model's or the alias's name is no name.
            StorageError: The storage did not answer; run again.
        """
        if version.startswith("@"):
            return self._pointed_to(name, version[1:])
        if layout.is_version(version):
            checked_name(name)
            return version
        found = self._names("models", checked_name(name))
        return layout.chosen_version(name, version, self._some_versions(name, found), layout.erased_in(found))

    def find(self, fingerprint: str) -> list[FittedModel]:
        """Find the models of one fit, by fingerprint; `reuse="always"` does.

        Args:
            fingerprint: Fit fingerprint, as records hold it.

        Returns:
            Models that are not erased, newest first.

        Raises:
            RecordUnreadableError: There is one, and none of those there are can be read; see the message.
            StorageError: The storage did not answer; run again.
        """
        models: list[FittedModel] = []
        trouble: TabPFNError | None = None
        for key in reversed(self._marked("fits", key_part(fingerprint))):
            try:
                model = self._find(FittedModel, *self._record(*key))
            except RecordUnreadableError as error:
                trouble = error
                continue
            # A marker without a record is of an `add` that was killed, or is under way.
            if model is not None and model.fingerprint == fingerprint and not self.is_erased(*key):
                models.append(model)
        if trouble is not None and not models:
            raise trouble
        return models

    def find_fit(self, fitted_train_set_id: str) -> FittedModel:
        """Find a model by the server's id of its fit; two listings and one read for each name in the store, at most.

        Args:
            fitted_train_set_id: The server's id of the fit.

        Returns:
            The model, with the newest evaluation recorded beside it.

        Raises:
            ModelNotRecordedError: No version of any model is of that fit, or it was erased; name another.
            RecordUnreadableError: A record is damaged or may not be read; the message names the file.
            StorageError: The storage did not answer; run again.
        """
        names = self.names()
        for name, found in zip(names, self._many(self.versions, names), strict=True):
            for version in layout.versions_of_fit(found, fitted_train_set_id):
                model = self.get(name, version)
                if model.fitted_train_set_id != fitted_train_set_id:
                    continue
                if self.is_erased(name, version):
                    raise ModelNotRecordedError(
                        f"{name} {version} is the fit {fitted_train_set_id}, and it was erased; fit it again."
                    )
                return model
        raise ModelNotRecordedError(
            f"{self.url} holds no model of the fit {fitted_train_set_id}; it holds the models {layout.some_of(names)}."
        )

    def find_by_source(self, source: str) -> list[Key]:
        """Find every version that was trained on a file, on anything in a folder, or on a source of a fingerprint.

        One listing of one folder. Erased versions are in it: that they were trained on it stays true.

        Args:
            source: URL or path as it was passed to `fit`, a folder above it, or a source fingerprint. A chained URL
                is found as a whole only.

        Returns:
            Name and version of each, oldest first.

        Raises:
            RecordUnreadableError: The store may not be listed; check path and credentials.
            StorageError: The storage did not answer; run again.
        """
        return self._marked("sources", layout.source_key(source))

    def find_by_upload(self, train_set_upload_id: str) -> list[Key]:
        """Find every version fitted on one upload: they all go when the upload is deleted.

        Args:
            train_set_upload_id: The server's id of the upload.

        Returns:
            Name and version of each, oldest first.

        Raises:
            RecordUnreadableError: The store may not be listed; check path and credentials.
            StorageError: The storage did not answer; run again.
        """
        return self._marked("uploads", key_part(train_set_upload_id))

    def is_erased(self, name: str, version: str) -> bool:
        """Whether the training data of a version was deleted.

        Args:
            name: The model.
            version: The whole version.

        Raises:
            RecordUnreadableError: The mark may not be read; check path and credentials.
            StorageError: The storage did not answer; run again.
        """
        return self._find(ErasedEntry, *self._mark_of(name, version, "erased")) is not None

    def diff(self, name: str, a: str, b: str) -> Difference:
        """Compare two versions of a model, field by field.

        Args:
            name: The model.
            a: First version, as for `get`.
            b: Second version.

        Raises:
            ModelNotRecordedError: There is no such model, version or alias; the message names those there are.
            RecordUnreadableError: A record is damaged or may not be read; the message names the file.
            StorageError: The storage did not answer; run again.
        """
        a, b = self.resolve(name, a), self.resolve(name, b)
        changes = changes_between(self.get(name, a), self.get(name, b))
        return Difference(name=name, a=a, b=b, changes=changes)

    @abstractmethod
    def _pointed_to(self, name: str, alias: str) -> str:
        """Return the version that an alias points to now."""

    def _version_of(self, name: str, version: str, fitted_train_set_id: str, what: str) -> str:
        """Resolve the version that something is to stand beside, and refuse what is of another model."""
        version = self.resolve(name, version)
        model = self._record_of(name, version)
        if fitted_train_set_id != model.fitted_train_set_id:
            raise InvalidInputError(
                f"{name} {version} is the fit {model.fitted_train_set_id}, and this {what} is of "
                f"{fitted_train_set_id}; name its own version."
            )
        return version

    def _record_of(self, name: str, version: str) -> FittedModel:
        model = self._find(FittedModel, *self._record(name, version))
        if model is None:
            # Says what there is instead.
            layout.chosen_version(name, version, self._some_versions(name), frozenset())
            raise ModelNotRecordedError(f"{name}: version {version} was just removed; run again.")
        return model

    def _some_versions(self, name: str, found: Sequence[str] | None = None) -> list[str]:
        """List the versions of a model that must have some."""
        versions = layout.versions_in(self._names("models", checked_name(name)) if found is None else found)
        if not versions:
            raise ModelNotRecordedError(f"{self.url} holds no model {name!r}; it holds {layout.some_of(self.names())}.")
        return versions

    def _newest_evaluation(self, name: str, version: str) -> Evaluation | None:
        folder = self._evaluations(name, version)
        files = self._files_beside(*folder)
        return self._read(Evaluation, *folder, files[-1]) if files else None

    def _files_beside(self, *folder: str) -> list[str]:
        return sorted(file for file in self._names(*folder) if file.endswith(".json") and not file.startswith("."))

    @staticmethod
    def _record(name: str, version: str) -> tuple[str, ...]:
        return "models", checked_name(name), f"{layout.checked_version(version)}.json"

    @staticmethod
    def _evaluations(name: str, version: str) -> tuple[str, ...]:
        return "models", checked_name(name), f"{layout.checked_version(version)}.evaluations"

    @staticmethod
    def _mark_of(name: str, version: str, mark: str) -> tuple[str, ...]:
        return "models", checked_name(name), f"{layout.checked_version(version)}.{mark}.json"
