"""Scores that an earlier evaluation left in a folder: taken again where they are of this model and this holdout."""

import hashlib
import os
import re
from dataclasses import dataclass, field
from typing import Any

from tabpfn_assets import FittedModel, PredictionSet
from tabpfn_assets.names import NAME_PATTERN
from tabpfn_operators._call import log
from tabpfn_operators._stored import decoded, read_fresh
from tabpfn_operators.errors import InvalidInputError, RecordUnreadableError
from tabpfn_operators.predict import LINEAGE_FILE, PREDICTIONS_FILE
from tabpfn_operators.reading import Reading
from tabpfn_operators.storage import StorageOptions, folder


@dataclass(frozen=True)
class Place:
    """Where the scores of one model are.

    Args:
        url: Folder of its own, secrets and all; never shown.
        options: fsspec options of the folder.
    """

    url: str = field(repr=False)
    options: StorageOptions | None = field(default=None, repr=False)

    @property
    def reading(self) -> Reading:
        """The predictions there."""
        return Reading(f"{self.url}/{PREDICTIONS_FILE}", self.options)

    def find(self, model: FittedModel, *, output_type: str, fingerprint: str, rows: int) -> PredictionSet | None:
        """Find the predictions of a holdout that were paid for before.

        Args:
            model: The model.
            output_type: What was predicted.
            fingerprint: Fingerprint of the rows as `predict` records it.
            rows: How many there are.

        Returns:
            Their record; None where there is none, or one of something else, and the log says of what.

        Raises:
            StorageError: The storage did not answer; run again.
        """
        target = folder(self.url, self.options)
        shown = target.file_url(LINEAGE_FILE)
        try:
            content = read_fresh(target.fs, f"{target.path}/{LINEAGE_FILE}")
            record = None if content is None else decoded(content, PredictionSet, shown)
        except RecordUnreadableError as error:
            log.warning("%s The holdout is predicted again, over it.", error.message)
            return None
        if record is None:
            return None
        differs = _difference(record, model, output_type, fingerprint, rows) or self._damage(record)
        if differs:
            log.warning("%s is of %s; the holdout is predicted again, over it.", shown, differs)
            return None
        log.info("%s holds the predictions of this holdout; nothing is sent.", target.url)
        return record

    def _damage(self, record: PredictionSet) -> str | None:
        try:
            table = self.reading.open()
        except InvalidInputError as error:
            return f"predictions that cannot be read ({error.message.rstrip('.')})"
        return None if table.rows == record.rows else f"{record.rows:,} rows beside a file of {table.rows or 0:,}"


def place_for(scores: str | os.PathLike[str], model: FittedModel, options: StorageOptions | None) -> Place:
    """Name the folder of a model's scores: one below `scores`, so that a champion's are found by every evaluation."""
    identity = model.fitted_train_set_id
    if not re.fullmatch(NAME_PATTERN, identity):
        identity = hashlib.sha256(identity.encode()).hexdigest()
    return Place(f"{str(os.fspath(scores)).rstrip('/')}/{identity}", options)


def _difference(record: PredictionSet, model: FittedModel, output_type: str, fingerprint: str, rows: int) -> str | None:
    facts: tuple[tuple[str, Any, Any], ...] = (
        ("another model", record.model.fitted_train_set_id, model.fitted_train_set_id),
        ("another output type", record.output_type, output_type),
        ("other rows", record.source.fingerprint, fingerprint),
        ("another number of rows", record.rows, rows),
    )
    return next((what for what, found, wanted in facts if found != wanted), None)
