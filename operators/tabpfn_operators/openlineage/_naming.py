"""Names of datasets, as OpenLineage's naming rules have them, so that other jobs' events meet ours."""

import os
import re
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from tabpfn_assets import FittedModel, SourceRef, public_url

#: A source of more files stands in events as the folders that hold them.
MOST_FILES = 100

#: One store may be spelled in several ways; the naming rules know one.
_SCHEMES = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "local": "file"}
_OBJECT_STORES = frozenset({"s3", "gs", "abfs", "abfss", "wasb", "wasbs", "az", "adl", "oss", "r2"})
_NO_AUTHORITY = frozenset({"file", "memory"})
_MODELS = "tabpfn"
_FILE = re.compile(r"\.[A-Za-z0-9]+$")
_PATTERN = re.compile(r"[*?\[]")


class DatasetId(NamedTuple):
    """Where a dataset is, and what it is called there.

    Args:
        namespace: The store, for instance `s3://bucket` or `file`.
        name: The dataset in it, for instance `sales/2026.parquet`.
    """

    namespace: str
    name: str


def dataset_id(uri: str) -> DatasetId:
    """Name the dataset that a URL stands for.

    Args:
        uri: An fsspec URL, a chained one, or a plain path; user info and query are left out.

    Returns:
        Namespace and name; a plain path is in the namespace `file`.
    """
    url = public_url(uri).rpartition("::")[2]
    scheme, found, rest = url.partition("://")
    if not found:
        return DatasetId("file", url or "/")
    scheme = _SCHEMES.get(scheme.lower(), scheme.lower())
    if scheme in _NO_AUTHORITY:
        return DatasetId(scheme, "/" + rest.lstrip("/"))
    authority, _, path = rest.partition("/")
    if scheme == "abfs" and "@" in authority:
        scheme = "abfss"  # the account is named: the same place under both
    name = path.lstrip("/") if scheme in _OBJECT_STORES else f"/{path}"
    return DatasetId(f"{scheme}://{authority}", name or "/")


def source_ids(source: SourceRef) -> tuple[DatasetId, ...]:
    """Name the datasets of a source.

    Args:
        source: Where rows came from.

    Returns:
        One for each file, or for each folder where there are more than 100 files; none for a table in memory.
    """
    ids = list(dict.fromkeys(dataset_id(uri) for uri in source.uris))
    if len(ids) > MOST_FILES:
        ids = list(dict.fromkeys(DatasetId(each.namespace, each.name.rpartition("/")[0] or "/") for each in ids))
    return tuple(ids)


def named_uris(source: object) -> tuple[str, ...]:
    """Return the files that a caller named, before anything is looked up.

    Folders and patterns are left out: what they stand for is known once they are read, and one source should not
    appear under two names.

    Args:
        source: A URL, a path, a list of them, or a table in memory.

    Returns:
        URLs without secrets, local paths made absolute as records have them.
    """
    names = source if isinstance(source, Sequence) and not isinstance(source, str | bytes) else [source]
    texts = [os.fspath(name) for name in names if isinstance(name, str | os.PathLike)]
    public = [public_url(text) for text in texts if isinstance(text, str)]
    files = [url for url in public if _FILE.search(url) and not _PATTERN.search(url)]
    return tuple(url if "://" in url else os.path.abspath(url) for url in files)


def model_id(fitted_train_set_id: str | None, name: str | None, api_url: str | None) -> DatasetId | None:
    """Name a model as a dataset: by its name, which stays when it is fitted again, else by its fitted id.

    Args:
        fitted_train_set_id: The fitted id; None while the fit has none.
        name: The model's name.
        api_url: The API that holds it; None where it is not known.

    Returns:
        A dataset such as (`tabpfn://api.priorlabs.ai`, `churn`); None where there is nothing to call it by.
    """
    called = name or fitted_train_set_id
    if called is None:
        return None
    host = urlsplit(public_url(api_url)).netloc if api_url else ""
    return DatasetId(f"{_MODELS}://{host}" if host else _MODELS, called)


def id_of(model: FittedModel) -> DatasetId:
    """Name a fitted model as a dataset."""
    found = model_id(model.fitted_train_set_id, model.name, model.api_url)
    return found if found is not None else DatasetId(_MODELS, model.fitted_train_set_id)
