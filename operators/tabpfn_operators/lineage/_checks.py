"""Whether a store agrees with itself: markers with records, aliases with versions."""

from collections.abc import Sequence

from tabpfn_operators.errors import RecordUnreadableError
from tabpfn_operators.lineage import _layout as layout
from tabpfn_operators.lineage._entries import ListedModel, StoreCheck
from tabpfn_operators.lineage._erasure import Erasures
from tabpfn_operators.lineage._layout import Key
from tabpfn_operators.storage import trouble


class Checks(Erasures):
    """The part of a store that looks after itself; the server's part is `Client.verify_models`."""

    def check(self, name: str | None = None, *, repair: bool = False) -> StoreCheck:
        """Look whether records can be read, aliases point to versions, and each version has its index markers.

        Args:
            name: One model; None takes all.
            repair: Write the markers that are missing, for instance in a store that was copied without them.

        Returns:
            Every version, what is wrong, and what was repaired.

        Raises:
            ModelNotRecordedError: There is no model of that name; the message names those there are.
            RecordUnreadableError: The store may not be listed; check path and credentials.
            StoreNotExclusiveError: It is to be repaired and cannot keep two writers apart.
            StorageError: The storage did not answer; run again.
        """
        markers = self._all_markers()
        listed = self.list_models(name)  # after the markers: a version that is being added has its markers first
        problems = [f"{each.name} {each.version}: {each.problem}" for each in listed if each.problem]
        problems += [
            f"{each.name}@{alias} points to {each.version}, which is erased; promote another version"
            for each in listed
            for alias in each.aliases
            if each.erased
        ]
        for model in sorted({each.name for each in listed}):
            problems += [
                f"{model} {version}: its erasure was begun and not finished; run it again"
                for version in self._half_erased(model)
            ]
            problems += [
                f"{model}@{alias}: {gap}" for alias in self._alias_names(model) for gap in self._gaps(model, alias)
            ]
        repaired: list[str] = []
        for each in listed:
            missing = self._missing_markers(each, markers)
            if missing and repair:
                self._require_exclusive()
                self._mark(missing, (each.name, each.version))
                repaired.append(f"{each.name} {each.version}: {len(missing)} index markers written")
            elif missing:
                problems.append(
                    f"{each.name} {each.version}: {len(missing)} index markers are missing; repair writes them"
                )
        known = {(each.name, each.version) for each in listed}
        unrecorded = sorted({key for _, key in markers if name in {None, key[0]}} - known)
        return StoreCheck(
            listed=tuple(listed), problems=tuple(problems), repaired=tuple(repaired), unrecorded=tuple(unrecorded)
        )

    def _missing_markers(
        self, listed: ListedModel, markers: frozenset[tuple[str, Key]]
    ) -> Sequence[tuple[layout.Index, str]]:
        if listed.model is None:
            return ()
        key = (listed.name, listed.version)
        return [folder for folder in layout.index_folders(listed.model) if ("/".join(folder), key) not in markers]

    def _half_erased(self, name: str) -> list[str]:
        return layout.half_erased_in(self._names("models", name))

    def _gaps(self, name: str, alias: str) -> list[str]:
        numbers = layout.entries_in(self._names(*self._log(name, alias)))
        missing = sorted(set(range(1, len(numbers) + 1)) - set(numbers))
        return [f"entries {', '.join(map(str, missing))} of its log are gone; restore them"] if missing else []

    def _all_markers(self) -> frozenset[tuple[str, Key]]:
        root = self._path("index")
        try:
            self._fs.invalidate_cache()
            paths: list[str] = self._fs.find(root)
        except FileNotFoundError:
            return frozenset()
        except Exception as error:
            raise trouble(self._shown("index"), error, "listed", RecordUnreadableError) from None
        found = set()
        for path in paths:
            folder, _, name = path.rpartition("/")
            for key in layout.marked_in([name]):
                found.add(("/".join(folder.split("/")[-2:]), key))
        return frozenset(found)
