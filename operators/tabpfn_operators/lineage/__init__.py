"""The lineage store: models, their evaluations and aliases, on any storage, for every engine and every reader."""

from typing import Protocol

from tabpfn_assets import FittedModel
from tabpfn_operators.lineage._aliases import CHAMPION, UNSET, Unset
from tabpfn_operators.lineage._checks import Checks
from tabpfn_operators.lineage._entries import (
    AliasEntry,
    Change,
    Difference,
    ErasedEntry,
    Erasure,
    ListedModel,
    UploadErasure,
    Verification,
    VerifiedModel,
)
from tabpfn_operators.lineage._layout import version_id

__all__ = [
    "CHAMPION",
    "UNSET",
    "AliasEntry",
    "Change",
    "Difference",
    "ErasedEntry",
    "Erasure",
    "LineageStore",
    "ListedModel",
    "ModelIndex",
    "Unset",
    "UploadErasure",
    "Verification",
    "VerifiedModel",
    "version_id",
]


class ModelIndex(Protocol):
    """Where earlier fits are found again: what `reuse="always"` asks."""

    def find(self, fingerprint: str) -> list[FittedModel]:
        """Find the models of one fit, by fingerprint.

        Args:
            fingerprint: Fit fingerprint, as records hold it.

        Returns:
            Models that are not erased, newest first.

        Raises:
            RecordUnreadableError: There is one, and none of those there are can be read; see the message.
            StorageError: The storage did not answer; run again.
        """
        ...


class LineageStore(Checks):
    """Models and where they came from, in a folder on local disk, S3, Google Cloud Storage or Azure.

    Records are created once and never changed; an alias is moved by creating the next entry of its log. Nothing is
    cached: what another client writes is seen at the next call. Nothing is touched before the first call.

    It pickles only without options and without keys in its URL.

    Records hold class labels and column names, which may be personal data: record `model.redacted()` where many read.

    Args:
        url: fsspec URL or plain path of the folder.
        options: fsspec storage options; used, never recorded.
        allow_unsafe_store: Take a store on which two writers may both succeed, where there is never more than one.

    Raises:
        ConfigurationError: At the first call: the URL cannot be opened; the message names what is missing.
    """
