"""What earlier calls have left in a destination, before a scoring begins there."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from tabpfn_assets import ScoringManifest
from tabpfn_operators._call import log
from tabpfn_operators._objects import side_by_side
from tabpfn_operators._stored import names_in
from tabpfn_operators.errors import DestinationError, RecordTooNewError, RecordUnreadableError
from tabpfn_operators.predict import LINEAGE_FILE, MANIFEST_FILE, PREDICTIONS_FILE
from tabpfn_operators.scoring._entries import CLAIMS_FOLDER, DESTINATION_LOG, uncached
from tabpfn_operators.scoring._manifest import read_manifest
from tabpfn_operators.storage import Folder
from tabpfn_operators.tables._source import RowSource


@dataclass(frozen=True)
class Earlier:
    """What is in a destination.

    Args:
        manifest: The scoring that is complete there; None where none is.
        damaged: Whether the manifest that is there cannot be read; whoever goes on with its scoring writes it anew.
        begun: Shards of each scoring, by plan id, that somebody has begun.
        predictions: Whether the predictions of a single call (`predict`) are there.
    """

    manifest: ScoringManifest | None = field(default=None, repr=False)
    damaged: bool = False
    begun: Mapping[str, int] = field(default_factory=dict)
    predictions: bool = False

    @property
    def empty(self) -> bool:
        """Whether nothing of any scoring or prediction is there."""
        return self.manifest is None and not (self.damaged or self.begun or self.predictions)

    def complete(self, plan_id: str) -> bool:
        """Whether this scoring is complete there."""
        return self.manifest is not None and self.manifest.plan.plan_id == plan_id

    def holds(self, plan_id: str) -> bool:
        """Whether anything of this scoring is there."""
        return self.complete(plan_id) or plan_id in self.begun

    @property
    def unfinished(self) -> Mapping[str, int]:
        """Shards begun of the scorings that are not complete, by plan id."""
        return {plan_id: shards for plan_id, shards in self.begun.items() if not self.complete(plan_id)}


def find_earlier(target: Folder) -> Earlier:
    """Look at what a destination holds; nothing is written.

    Args:
        target: The destination; one that does not exist is empty.

    Returns:
        What is there.

    Raises:
        RecordTooNewError: A newer version of this package wrote the manifest; upgrade.
        RecordUnreadableError: It may not be listed; check path and credentials.
        StorageError: The storage did not answer; run again.
    """
    fs = uncached(target.fs)
    claims = f"{target.path}/{CLAIMS_FOLDER}"
    names = names_in(fs, target.path)
    plans = [name for name in names_in(fs, claims) if name != DESTINATION_LOG] if CLAIMS_FOLDER in names else []
    shards = side_by_side(lambda plan_id: sum(map(str.isdigit, names_in(fs, f"{claims}/{plan_id}"))), plans, fs)
    manifest, damaged = None, False
    if MANIFEST_FILE in names:
        try:
            manifest = read_manifest(target)
        except RecordTooNewError:
            raise
        except RecordUnreadableError as error:
            log.warning("%s", error.message)
            damaged = True
    return Earlier(
        manifest,
        damaged,
        {plan_id: begun for plan_id, begun in zip(plans, shards, strict=True) if begun},
        PREDICTIONS_FILE in names,
    )


def refuse_predictions(target: Folder) -> None:
    """Leave the predictions of a single call alone, which would be read beside the part files."""
    if PREDICTIONS_FILE in names_in(target.fs, target.path):
        raise DestinationError(
            f"{target.url} holds the predictions of a single call ({PREDICTIONS_FILE}), which whoever reads the folder "
            f"would take for a part of these. Choose another folder, or remove it and {LINEAGE_FILE}. Nothing was sent."
        )


def refuse_own_source(target: Folder, source: object, table: RowSource) -> None:
    """Refuse a destination in the folder that is read: the next scoring would read these predictions as rows.

    Args:
        target: The destination.
        source: What the caller named as source: the name of a file, folder or pattern, or some of them.
        table: What was found there.

    Raises:
        DestinationError: It lies there, or a file of the source lies in it; choose another folder.
    """
    files = {stored.path for stored in table.objects if type(stored.fs) is type(target.fs)}
    named = source if isinstance(source, list | tuple) else [source]
    for one in named if files else ():
        if not isinstance(one, str | os.PathLike) or any(sign in str(one) for sign in "*?["):
            continue
        path = str(target.fs._strip_protocol(os.fspath(one))).rstrip("/")  # noqa: SLF001 - fsspec's own
        if path not in files and f"{target.path}/".startswith(f"{path}/"):
            raise DestinationError(
                f"{target.url} lies in the folder that is scored, where the next scoring would read these predictions "
                "as rows; choose another folder. Nothing was sent."
            )
    if any(path.startswith(f"{target.path}/") for path in files):
        raise DestinationError(
            f"{target.url} holds files of the source, which would be mixed with the predictions; choose another "
            "folder. Nothing was sent."
        )
