"""Names, tasks and URLs as records may hold them."""

from typing import Annotated, Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import AfterValidator, StringConstraints

NAME_PATTERN = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$"

Task = Literal["classification", "regression"]

#: A model, alias, plan or shard name: it becomes part of a path and so may hold nothing that moves one.
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]


def public_url(url: str) -> str:
    """Strip what may be secret from a storage URL: user info, query and fragment.

    Args:
        url: An fsspec URL, a chained one (`simplecache::s3://...`) or a plain path.

    Returns:
        The URL as a record may keep it (design.md, promise 5). A plain path comes back as it is.
    """
    return "::".join(_public_part(part) for part in url.split("::"))


def _public_part(url: str) -> str:
    if "://" not in url:
        return url
    parts = urlsplit(url)
    # A local path may hold '#' or '?'; on an object store they would be markup.
    if parts.scheme in {"file", "local", "memory"}:
        return url
    host = parts.netloc.rpartition("@")[2]
    if parts.scheme in {"abfs", "abfss", "wasb", "wasbs"} and ":" not in parts.netloc.rpartition("@")[0]:
        host = parts.netloc  # container@account: an address, not user info
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


PublicUrl = Annotated[str, AfterValidator(public_url)]
