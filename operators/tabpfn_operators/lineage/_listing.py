"""What a store holds, as far as it can be read."""

from tabpfn_assets import FittedModel
from tabpfn_operators._stored import checked_name
from tabpfn_operators.errors import RecordUnreadableError
from tabpfn_operators.lineage import _layout as layout
from tabpfn_operators.lineage._decisions import Decisions
from tabpfn_operators.lineage._entries import ListedModel


class Listings(Decisions):
    """The part of a store that lists everything."""

    def list_models(self, name: str | None = None) -> list[ListedModel]:
        """List versions, oldest first, by model; what cannot be read is named and hides nothing else.

        Args:
            name: One model; None takes all.

        Returns:
            One entry for each version; its `problem` says which file could not be read.

        Raises:
            ModelNotRecordedError: There is no model of that name; the message names those there are.
            RecordUnreadableError: The store may not be listed; check path and credentials.
            StorageError: The storage did not answer; run again.
        """
        if name is not None:
            self._some_versions(name)
        return [listed for each in ([name] if name is not None else self.names()) for listed in self._listed(each)]

    def _listed(self, name: str) -> list[ListedModel]:
        found = self._names("models", checked_name(name))
        erased = layout.erased_in(found)
        pointing: dict[str, list[str]] = {}
        problems: list[str] = []
        for alias in self._alias_names(name) if "aliases" in found else ():
            try:
                entry = self.alias(name, alias)
            except RecordUnreadableError as error:
                problems.append(f"alias {alias}: {error}")
                continue
            if entry is not None:
                pointing.setdefault(entry.version, []).append(alias)
        versions = layout.versions_in(found)

        def read(version: str) -> ListedModel:
            model, problem = None, None
            try:
                model = self.get(name, version)
            except RecordUnreadableError as error:
                model, problem = self._without_evaluation(name, version), str(error)
            return ListedModel(name, version, model, tuple(pointing.get(version, ())), version in erased, problem)

        listed = self._many(read, versions)
        missing = sorted(set(pointing) - set(versions))
        problems += [f"alias {a} points to a version that is not there" for v in missing for a in pointing[v]]
        if problems and listed:
            last = listed[-1]
            listed[-1] = ListedModel(
                name,
                last.version,
                last.model,
                last.aliases,
                last.erased,
                "; ".join(filter(None, [last.problem, *problems])),
            )
        return listed

    def _without_evaluation(self, name: str, version: str) -> FittedModel | None:
        """Read the record alone; None where that is what cannot be read."""
        try:
            return self._record_of(name, version)
        except RecordUnreadableError:
            return None
