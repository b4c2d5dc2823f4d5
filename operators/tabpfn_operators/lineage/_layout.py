"""Where things lie in a lineage store, and how versions are told apart. Pure.

models/<name>/<version>.json                             the record, immutable
models/<name>/<version>.evaluations/<when>-<hash>.json   evaluations of it, immutable
models/<name>/<version>.decisions/<when>-<hash>.json     decisions that refused it, immutable
models/<name>/<version>.erasing.json, .erased.json       that its training data is being, or was, deleted
models/<name>/aliases/<alias>/<n>.json                   where an alias pointed from entry n on
index/fits/<fit fingerprint>/<name>@<version>            empty markers
index/sources/<source fingerprint, file or folder>/<name>@<version>
index/uploads/<upload id>/<name>@<version>
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel

from tabpfn_assets import Decision, Evaluation, FittedModel, public_url
from tabpfn_assets.names import NAME_PATTERN
from tabpfn_operators._stored import checked_name
from tabpfn_operators.errors import ConfigurationError, ModelNotRecordedError
from tabpfn_operators.journal import key_part

LATEST = "latest"

Index = Literal["fits", "sources", "uploads"]
#: A name and a version of it.
Key = tuple[str, str]

_VERSION = re.compile(r"\d{8}T\d{9}Z-[0-9a-f]{8}")
_RECORD = re.compile(rf"({_VERSION.pattern})\.json")
_ERASED = re.compile(rf"({_VERSION.pattern})\.erased\.json")
_ERASING = re.compile(rf"({_VERSION.pattern})\.erasing\.json")
_ENTRY = re.compile(r"(\d{8})\.json")
_DIGITS = 8
_SAME_STORE = {"s3a": "s3", "gcs": "gs", "abfss": "abfs"}
_NAMED = 10


def version_id(created_at: datetime, fitted_train_set_id: str) -> str:
    """Name a version after its fit, so that a rerun writes the same name and no two writers compete for one.

    Args:
        created_at: When the fit was submitted, with time zone.
        fitted_train_set_id: The server's id of the fit.

    Returns:
        `<UTC time to the millisecond>-<8 hex digits of the id's SHA-256>`; in order of time.
    """
    at = created_at.astimezone(UTC)
    digits = hashlib.sha256(fitted_train_set_id.encode()).hexdigest()[:_DIGITS]
    return f"{at.year:04d}{at:%m%dT%H%M%S}{at.microsecond // 1000:03d}Z-{digits}"


def versions_of_fit(versions: Iterable[str], fitted_train_set_id: str) -> list[str]:
    """List the versions that may be of a fit, by the digits of its id; two ids may share them.

    Args:
        versions: Whole versions.
        fitted_train_set_id: The server's id of the fit.
    """
    digits = hashlib.sha256(fitted_train_set_id.encode()).hexdigest()[:_DIGITS]
    return [version for version in versions if version.endswith(f"-{digits}")]


def is_version(text: str) -> bool:
    """Whether a text is a whole version."""
    return _VERSION.fullmatch(text) is not None


def checked_version(text: str) -> str:
    """Return a whole version, which becomes part of a path.

    Args:
        text: The version.

    Raises:
        ConfigurationError: It is none; pass one that `versions` lists.
    """
    if not is_version(text):
        raise ConfigurationError(f"{text!r} is no whole version, such as 20261121T120000000Z-0a1b2c3d; see versions().")
    return text


def names_among(names: Iterable[str]) -> list[str]:
    """List the names in a folder that models and aliases may have, in alphabetical order."""
    return sorted(name for name in names if re.fullmatch(NAME_PATTERN, name))


def versions_in(names: Iterable[str]) -> list[str]:
    """List the versions among the names in a model's folder, oldest first."""
    return sorted(found[1] for name in names if (found := _RECORD.fullmatch(name)))


def erased_in(names: Iterable[str]) -> frozenset[str]:
    """List the erased versions among the names in a model's folder."""
    return frozenset(found[1] for name in names if (found := _ERASED.fullmatch(name)))


def half_erased_in(names: Sequence[str]) -> list[str]:
    """List the versions among the names in a model's folder whose erasure was begun and is not done."""
    begun = {found[1] for name in names if (found := _ERASING.fullmatch(name))}
    return sorted(begun - erased_in(names))


def entries_in(names: Iterable[str]) -> list[int]:
    """List the entries among the names in an alias's folder, oldest first."""
    return sorted(int(found[1]) for name in names if (found := _ENTRY.fullmatch(name)))


def chosen_version(name: str, text: str, versions: Sequence[str], erased: frozenset[str]) -> str:
    """Choose the version that a person's text means.

    Args:
        name: The model, for messages.
        text: A version, the beginning of one, or `latest`, which is never an erased one.
        versions: All versions, oldest first.
        erased: Those of them that are erased.

    Raises:
        ModelNotRecordedError: None begins so, or several do; choose one of those that the message names.
    """
    if text == LATEST:
        left = [version for version in versions if version not in erased]
        if not left:
            raise ModelNotRecordedError(f"{name}: every version is erased; fit it again.")
        return left[-1]
    found = [version for version in versions if version.startswith(text)]
    if text in found:
        return text
    if len(found) == 1 and text:
        return found[0]
    problem = f"several versions begin with {text!r}" if found and text else f"there is no version {text!r}"
    raise ModelNotRecordedError(f"{name}: {problem}; choose one of {some_of((found or versions)[::-1])}.")


def some_of(names: Sequence[str]) -> str:
    """Name a few of many, for messages."""
    more = len(names) - _NAMED
    return (", ".join(names[:_NAMED]) or "none") + (f" and {more} more" if more > 0 else "")


def checked_alias(alias: str) -> str:
    """Return a name that an alias may have.

    Args:
        alias: 1 to 128 of `A-Za-z0-9._-`, not starting with a dot, and not `latest`.

    Raises:
        ConfigurationError: It is no such name, or `latest`, which is always the newest version; choose another.
    """
    if alias == LATEST:
        raise ConfigurationError(
            f"{LATEST!r} is always the newest version and cannot be an alias; choose another name."
        )
    return checked_name(alias)


def evaluation_name(evaluation: Evaluation) -> str:
    """Name the file of an evaluation: in order of time, and the same for the same content."""
    return _name_in_time(evaluation.created_at, evaluation)


def decision_name(decision: Decision) -> str:
    """Name the file of a decision, as that of an evaluation."""
    return _name_in_time(decision.decided_at, decision)


def _name_in_time(moment: datetime, record: BaseModel) -> str:
    at = moment.astimezone(UTC)
    digits = hashlib.sha256(record.model_dump_json().encode()).hexdigest()[:_DIGITS]
    return f"{at.year:04d}{at:%m%dT%H%M%S%f}Z-{digits}.json"


def marker(name: str, version: str) -> str:
    """Name the marker of a version; neither part holds an `@`."""
    return f"{name}@{version}"


def marked_in(names: Iterable[str]) -> list[Key]:
    """Read markers, oldest version first."""
    pairs = (name.rpartition("@") for name in names)
    return sorted(
        ((name, version) for name, _, version in pairs if name and is_version(version)), key=lambda k: k[::-1]
    )


def index_folders(model: FittedModel) -> list[tuple[Index, str]]:
    """List the index folders that hold a marker of a model."""
    return [
        *([("fits", key_part(model.fingerprint))] if model.fingerprint else ()),
        *([("uploads", key_part(model.train_set_upload_id))] if model.train_set_upload_id else ()),
        *(("sources", key) for key in sorted(_source_keys(model))),
    ]


def _source_keys(model: FittedModel) -> set[str]:
    keys = {key_part(place) for uri in model.source.uris for place in _with_folders(_canonical(uri))}
    return keys | ({key_part(model.source.fingerprint)} if model.source.fingerprint else set())


def source_key(source: str) -> str:
    """Name the index folder of a source.

    Args:
        source: URL or path of a file or folder, or a source fingerprint; what may be secret in it is dropped.
    """
    return key_part(shown_source(source))


def shown_source(source: str) -> str:
    """Spell a source as records have it, without secrets.

    Args:
        source: As for `source_key`.
    """
    is_fingerprint = re.fullmatch("[0-9a-f]{64}", source) is not None
    local = not is_fingerprint and "::" not in source and "://" not in source
    # A relative path was made absolute when the file was read.
    return _canonical(os.path.abspath(os.path.expanduser(source)) if local else source)


def _canonical(uri: str) -> str:
    """Spell one place one way, however it was named."""
    uri = public_url(uri)
    scheme, found, rest = uri.partition("://")
    if "::" in uri or not found:
        return uri.rstrip("/") or uri
    if scheme in {"file", "local"}:
        return rest.rstrip("/")
    return f"{_SAME_STORE.get(scheme, scheme)}://{rest.rstrip('/')}"


def _with_folders(place: str) -> Iterator[str]:
    """Yield a file and all folders that it is in."""
    yield place
    if "::" in place:
        return
    scheme, found, rest = place.partition("://")
    while (rest := rest.rpartition("/")[0]) if found else (place := place.rpartition("/")[0]):
        yield f"{scheme}://{rest}" if found else place
