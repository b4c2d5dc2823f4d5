"""Decisions that refused a version; those that promoted one are in the log of the alias."""

from tabpfn_assets import Decision
from tabpfn_operators._stored import checked_name
from tabpfn_operators.lineage import _layout as layout
from tabpfn_operators.lineage._aliases import Aliases


class Decisions(Aliases):
    """The part of a store that holds decisions which moved no alias."""

    def add_decision(self, name: str, version: str, decision: Decision) -> None:
        """Record beside a version why it was not promoted; a decision that promotes goes with `promote`.

        Args:
            name: The model.
            version: As for `get`.
            decision: A decision on this version.

        Raises:
            InvalidInputError: It is on another model; the message names both.
            ModelNotRecordedError: There is no such version; the message names those there are.
            StoreNotExclusiveError: The store cannot keep two writers apart; the message names those that can.
            DestinationError: The store cannot be written to; correct path or credentials.
            StorageError: The storage did not answer; run again.
        """
        version = self._version_of(name, version, decision.candidate_id, "decision")
        self._create(decision, *self._decisions(name, version), layout.decision_name(decision))

    def decisions(self, name: str, version: str = layout.LATEST) -> list[Decision]:
        """Read the decisions that refused a version, oldest first.

        Args:
            name: The model.
            version: As for `get`.

        Raises:
            ModelNotRecordedError: There is no such model, version or alias; the message names those there are.
            RecordUnreadableError: One is damaged or may not be read; the message names the file.
            StorageError: The storage did not answer; run again.
        """
        folder = self._decisions(name, self.resolve(name, version))
        return self._many(lambda file: self._read(Decision, *folder, file), self._files_beside(*folder))

    @staticmethod
    def _decisions(name: str, version: str) -> tuple[str, ...]:
        return "models", checked_name(name), f"{layout.checked_version(version)}.decisions"
