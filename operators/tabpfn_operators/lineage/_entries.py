"""What a lineage store holds beside models and evaluations. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import uuid4

from pydantic import Field

from tabpfn_assets import Decision, FittedModel
from tabpfn_assets._record import Record, UtcTime
from tabpfn_assets.names import Name, PublicUrl


class AliasEntry(Record):
    """Where an alias points from this entry of its log on.

    Args:
        name: The model.
        alias: The alias, for instance `champion`.
        number: Place in the log, from 1.
        version: Version it points to.
        fitted_train_set_id: Fitted id of that version.
        action: How it got there.
        replaced: Version it pointed to before; None for the first entry.
        previous: Number of the entry that a rollback returns to; None where there is nothing before.
        decision: The numbers it was decided on, where somebody decided by rule.
        moved_at: When (UTC).
        nonce: Tells the writer its own entry, where the answer to the write was lost.
    """

    schema_version: int = 1
    name: Name
    alias: Name
    number: int = Field(ge=1)
    version: str
    fitted_train_set_id: str
    action: Literal["promote", "rollback"]
    replaced: str | None = None
    previous: int | None = Field(default=None, ge=1)
    decision: Decision | None = None
    moved_at: UtcTime
    nonce: str


def promoted(
    last: AliasEntry | None, model: FittedModel, alias: str, version: str, decision: Decision | None, at: datetime
) -> AliasEntry:
    """Build the entry that points an alias to a version.

    Args:
        last: The newest entry; None where there is none.
        model: The model of the version, which has a name.
        alias: The alias.
        version: The version.
        decision: What it was decided on.
        at: When.
    """
    return AliasEntry(
        name=str(model.name),
        alias=alias,
        number=last.number + 1 if last else 1,
        version=version,
        fitted_train_set_id=model.fitted_train_set_id,
        action="promote",
        replaced=last.version if last else None,
        previous=last.number if last else None,
        decision=decision,
        moved_at=at,
        nonce=uuid4().hex,
    )


def rolled_back(last: AliasEntry, target: AliasEntry, at: datetime) -> AliasEntry:
    """Build the entry that takes an alias back; the next rollback goes on from there, not to and fro.

    Args:
        last: The newest entry.
        target: An earlier entry, whose version it returns to.
        at: When.
    """
    return target.model_copy(
        update={
            "number": last.number + 1,
            "action": "rollback",
            "replaced": last.version,
            "decision": None,
            "moved_at": at,
            "nonce": uuid4().hex,
        }
    )


class ErasedEntry(Record):
    """That the training data of a version is being deleted (`.erasing.json`) or was (`.erased.json`).

    Args:
        name: The model.
        version: The version.
        fitted_train_set_id: Its fitted id, which is gone from the server.
        train_set_upload_id: Its train set, which was deleted.
        api_url: The API that held it.
        deleted: Ids that the server said it deleted; none where they were gone already.
        proof: Hash of the account that was seen to hold the model, and of the upload; never of the account alone.
        at: When (UTC).
    """

    schema_version: int = 1
    name: Name
    version: str
    fitted_train_set_id: str
    train_set_upload_id: str | None
    api_url: PublicUrl | None = None
    deleted: tuple[str, ...] = ()
    proof: str | None = None
    at: UtcTime


class Change(Record):
    """One field that differs between two versions.

    Args:
        path: Names of the fields from the outside in.
        before: Value in the first version; None where it has none.
        after: Value in the second.
    """

    path: tuple[str, ...]
    before: Any = None
    after: Any = None

    @property
    def field(self) -> str:
        """The path as one text."""
        return ".".join(self.path)


class Difference(Record):
    """What differs between two versions of a model.

    Args:
        name: The model.
        a: First version.
        b: Second version.
        changes: Every field that differs, in the order of the record.
    """

    name: Name
    a: str
    b: str
    changes: tuple[Change, ...]


#: Hundreds of points say nothing side by side; the metrics do.
_NOT_COMPARED = frozenset({("evaluation", "curves"), ("evaluation", "confusion")})


def changes_between(before: FittedModel, after: FittedModel) -> tuple[Change, ...]:
    """Compare two models field by field: features by their names, metrics and parameters one by one."""
    return tuple(_changes((), _comparable(before), _comparable(after)))


def _comparable(model: FittedModel) -> dict[str, Any]:
    facts: dict[str, Any] = model.model_dump(mode="json")
    facts["feature_order"] = [feature["name"] for feature in facts["features"]]
    facts["features"] = {feature["name"]: feature["dtype"] for feature in facts["features"]}
    return facts


def _changes(path: tuple[str, ...], before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    found: list[Change] = []
    for key in [*before, *(key for key in after if key not in before)]:
        a, b = before.get(key), after.get(key)
        here = (*path, key)
        if here in _NOT_COMPARED or _same(a, b):
            continue
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += _changes(here, a, b)
        else:
            found.append(Change(path=here, before=a, after=b))
    return found


def _same(a: Any, b: Any) -> bool:
    """Compare as JSON: 1 == True, and as class labels they differ."""
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


@dataclass(frozen=True)
class ListedModel:
    """One version in a listing; a record that cannot be read does not hide the others.

    Args:
        name: The model.
        version: The version.
        model: The record; None where it cannot be read.
        aliases: Aliases that point to it.
        erased: Whether its training data was deleted.
        problem: Why the record, or something beside it, cannot be read.
    """

    name: str
    version: str
    model: FittedModel | None
    aliases: tuple[str, ...] = ()
    erased: bool = False
    problem: str | None = None


#: `planned`: not asked yet. `deleted`: by this call. `gone`: deleted before, by whoever holds the account's key.
#: `unknown`: the server knows neither upload nor models under this account. `still_there`: it knows a model still.
ErasureOutcome = Literal["planned", "deleted", "gone", "unknown", "still_there", "other_api", "no_upload_id"]


class Hanging(Record):
    """A recorded model that goes when an upload goes.

    Args:
        name: The model.
        version: The version.
        fitted_train_set_id: Its fitted id.
        aliases: Aliases that point to it.
        erased: Whether it was erased before.
        names: Column names that its record holds, the target's too; 0 where they are hashes or numbers.
        labels: Class labels that its record holds, as `names`.
    """

    name: Name
    version: str
    fitted_train_set_id: str
    aliases: tuple[str, ...] = ()
    erased: bool = False
    names: int
    labels: int


class UploadErasure(Record):
    """One upload at the server, and what hangs on it.

    Args:
        train_set_upload_id: The server's id; None where it was never known, and only the vendor's account page helps.
        api_url: The API that holds it.
        sources: Files it was made of.
        rows: Train rows.
        models: Recorded models fitted on it, which go with it; the server may hold others that nobody recorded.
        outcome: What became of it.
        deleted: Ids that the server said it deleted.
    """

    train_set_upload_id: str | None
    api_url: PublicUrl | None = None
    sources: tuple[str, ...] = ()
    rows: int
    models: tuple[Hanging, ...]
    outcome: ErasureOutcome = "planned"
    deleted: tuple[str, ...] = ()


class Erasure(Record):
    """What an erasure would do, or did.

    Args:
        target: What was asked to be erased, without secrets.
        uploads: Uploads concerned.
        dry_run: Whether nothing was done yet.
        names_forgotten: Whether column names and class labels went from the records too.
        problems: Records that could not be read, so that nobody knows what hangs on them.
    """

    target: str
    uploads: tuple[UploadErasure, ...]
    dry_run: bool = True
    names_forgotten: bool = False
    problems: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether all of it is gone."""
        return not self.problems and all(upload.outcome in {"deleted", "gone"} for upload in self.uploads)


@dataclass(frozen=True)
class StoreCheck:
    """Whether a store agrees with itself.

    Args:
        listed: Every version.
        problems: What is wrong, each with what to do.
        repaired: What was put right.
        unrecorded: Versions that have markers and no record: of an `add` that was killed, or is under way.
    """

    listed: tuple[ListedModel, ...]
    problems: tuple[str, ...] = ()
    repaired: tuple[str, ...] = ()
    unrecorded: tuple[tuple[str, str], ...] = ()


class VerifiedModel(Record):
    """One version, as store and server have it.

    Args:
        name: The model.
        version: The version.
        fitted_train_set_id: Its fitted id; None where the record cannot be read.
        state: `present`; `gone` (404: deleted, or another account's); `erased` here and gone there; `not_erased` there
            though it is here; `elsewhere` (another API holds it, which was not asked); `unreadable`; or what else the
            server says, such as `failed`.
    """

    name: Name
    version: str
    fitted_train_set_id: str | None = None
    state: str

    @property
    def ok(self) -> bool:
        """Whether it is as it should be."""
        return self.state in {"present", "erased", "elsewhere"}


class Verification(Record):
    """Whether every model of a store exists, and the store agrees with itself.

    Args:
        store: URL of the store, without secrets.
        models: Every version.
        problems: What else is wrong, each with what to do.
        repaired: What was put right.
        unrecorded: Versions whose recording was killed, or is under way: run again what records them.
    """

    store: str
    models: tuple[VerifiedModel, ...]
    problems: tuple[str, ...] = ()
    repaired: tuple[str, ...] = ()
    unrecorded: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems and all(model.ok for model in self.models)
