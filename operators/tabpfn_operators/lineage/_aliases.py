"""Aliases: logs of immutable entries, each moved by creating the next."""

from datetime import UTC, datetime
from enum import Enum
from typing import Final

from tabpfn_assets import Decision
from tabpfn_operators._stored import checked_name
from tabpfn_operators.errors import AliasMovedError, ConfigurationError, InvalidInputError, ModelNotRecordedError
from tabpfn_operators.lineage import _layout as layout
from tabpfn_operators.lineage._entries import AliasEntry, promoted, rolled_back
from tabpfn_operators.lineage._models import Models

CHAMPION: Final = "champion"


class Unset(Enum):
    """What stands for "not given", where None means something."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET


class Aliases(Models):
    """The part of a store that holds aliases. Where one points is read anew at every call."""

    def alias(self, name: str, alias: str = CHAMPION) -> AliasEntry | None:
        """Look where an alias points now; never from a cache.

        Args:
            name: The model.
            alias: The alias.

        Returns:
            The newest entry of its log; None where it points nowhere.

        Raises:
            ConfigurationError: It is no name of an alias.
            RecordUnreadableError: The newest entry is damaged or may not be read; the message names the file.
            StorageError: The storage did not answer; run again.
        """
        numbers = layout.entries_in(self._names(*self._log(name, alias)))
        return self._entry(name, alias, numbers[-1]) if numbers else None

    def aliases(self, name: str) -> dict[str, AliasEntry]:
        """Look where all aliases of a model point now.

        Args:
            name: The model.

        Raises:
            RecordUnreadableError: An entry is damaged or may not be read; the message names the file.
            StorageError: The storage did not answer; run again.
        """
        found = {alias: self.alias(name, alias) for alias in self._alias_names(name)}
        return {alias: entry for alias, entry in found.items() if entry is not None}

    def history(self, name: str, alias: str = CHAMPION) -> list[AliasEntry]:
        """Read the whole log of an alias, oldest entry first.

        Args:
            name: The model.
            alias: The alias.

        Raises:
            ConfigurationError: It is no name of an alias.
            RecordUnreadableError: An entry is damaged or may not be read; the message names the file.
            StorageError: The storage did not answer; run again.
        """
        numbers = layout.entries_in(self._names(*self._log(name, alias)))
        return self._many(lambda number: self._entry(name, alias, number), numbers)

    def promote(
        self,
        name: str,
        version: str,
        *,
        alias: str = CHAMPION,
        expected: str | Unset | None = UNSET,
        decision: Decision | None = None,
    ) -> AliasEntry:
        """Point an alias to a version, unless another moves it at the same time.

        Where it points there already nothing is written, so a rerun after a kill is harmless.

        Args:
            name: The model.
            version: As for `get`; not an erased one.
            alias: The alias.
            expected: Version that the decision was made against, as for `get`; None where the alias did not exist.
                By default where it points when this call begins.
            decision: The numbers it was decided on; kept in the log.

        Returns:
            The entry that points there.

        Raises:
            AliasMovedError: It does not point to `expected`, or another moved it meanwhile; decide anew.
            ModelNotRecordedError: There is no such version; the message names those there are.
            ConfigurationError: The version is erased, or the alias has no name of an alias.
            InvalidInputError: The decision is on another model; the message names both.
            StoreNotExclusiveError: The store cannot keep two writers apart; the message names those that can.
            DestinationError: The store cannot be written to; correct path or credentials.
            StorageError: The storage did not answer; run again.
        """
        layout.checked_alias(alias)
        self._require_exclusive()
        version = self.resolve(name, version)
        model = self._record_of(name, version)
        if self.is_erased(name, version):
            raise ConfigurationError(f"{name} {version} is erased and cannot serve; choose another version.")
        if decision is not None and decision.candidate_id != model.fitted_train_set_id:
            raise InvalidInputError(
                f"{name} {version} is the fit {model.fitted_train_set_id}, and this decision is on "
                f"{decision.candidate_id}; name the version that was judged."
            )
        last = self.alias(name, alias)
        if last is not None and last.version == version:
            return last
        self._check_expected(name, alias, last, expected)
        # The folder's name counts: a record that was copied there keeps the name it was fitted with.
        entry = promoted(last, model.model_copy(update={"name": name}), alias, version, decision, datetime.now(UTC))
        return self._append(entry)

    def rollback(self, name: str, *, alias: str = CHAMPION, expected: str | Unset | None = UNSET) -> AliasEntry:
        """Point an alias to the version before, passing over erased ones; the log keeps what happened.

        A second rollback goes one version further back: pass `expected` where a call may be repeated after a kill.

        Args:
            name: The model.
            alias: The alias.
            expected: Version to roll back from, as for `get`; by default where it points when this call begins.

        Returns:
            The entry that points there.

        Raises:
            AliasMovedError: It does not point to `expected`, or another moved it meanwhile; look again.
            ModelNotRecordedError: There is no such alias, or nothing before to return to; promote a version.
            StoreNotExclusiveError: The store cannot keep two writers apart; the message names those that can.
            DestinationError: The store cannot be written to; correct path or credentials.
            StorageError: The storage did not answer; run again.
        """
        layout.checked_alias(alias)
        self._require_exclusive()
        last = self._current(name, alias)
        self._check_expected(name, alias, last, expected)
        number = last.previous
        while number is not None:
            target = self._entry(name, alias, number)
            if target.version != last.version and not self.is_erased(name, target.version):
                return self._append(rolled_back(last, target, datetime.now(UTC)))
            number = target.previous
        raise ModelNotRecordedError(
            f"{name}@{alias} points to {last.version}, and to nothing before that could serve; promote a version."
        )

    def _pointed_to(self, name: str, alias: str) -> str:
        return self._current(name, alias).version

    def _current(self, name: str, alias: str) -> AliasEntry:
        entry = self.alias(name, alias)
        if entry is None:
            self._some_versions(name)
            raise ModelNotRecordedError(
                f"{name} has no alias {alias!r}; it has {layout.some_of(self._alias_names(name))}. Promote a version."
            )
        return entry

    def _check_expected(self, name: str, alias: str, last: AliasEntry | None, expected: str | Unset | None) -> None:
        if isinstance(expected, str):
            expected = self.resolve(name, expected)
        if expected is not UNSET and expected != (last.version if last else None):
            raise self._moved(name, alias, last, f"not to {expected}" if expected else "though it was to be new")

    def _append(self, entry: AliasEntry) -> AliasEntry:
        path = (*self._log(entry.name, entry.alias), f"{entry.number:08d}.json")
        if self._create(entry, *path):
            return entry
        # A storage client that lost the answer to its write sends it again, and is refused by its own entry.
        there = self._entry(entry.name, entry.alias, entry.number)
        if there.nonce == entry.nonce:
            return entry
        raise self._moved(entry.name, entry.alias, there, "where another moved it meanwhile")

    def _moved(self, name: str, alias: str, now: AliasEntry | None, why: str) -> AliasMovedError:
        version = now.version if now else ""
        return AliasMovedError(
            f"{name}@{alias} points to {version or 'nothing'}, {why}; nothing was changed. Decide against what it "
            "points to now, then move it again.",
            alias=alias,
            version=version,
        )

    def _alias_names(self, name: str) -> list[str]:
        found = layout.names_among(self._names("models", checked_name(name), "aliases"))
        return [alias for alias in found if alias != layout.LATEST]

    def _entry(self, name: str, alias: str, number: int) -> AliasEntry:
        return self._read(AliasEntry, *self._log(name, alias), f"{number:08d}.json")

    @staticmethod
    def _log(name: str, alias: str) -> tuple[str, ...]:
        return "models", checked_name(name), "aliases", layout.checked_alias(alias)
