"""Names, tasks and URLs as records may hold them."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, StringConstraints

#: `container@account` is an address there, not user info.
_CONTAINERS = frozenset({"abfs", "abfss", "wasb", "wasbs"})
_NO_PORTS = frozenset({"s3", "s3a", "gs", "gcs"})

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
    scheme, found, rest = url.partition("://")
    scheme = scheme.lower()
    # A local path may hold '#' or '?'; on an object store they would be markup.
    if not found or scheme in {"file", "local", "memory"}:
        return url
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    user, _, host = authority.rpartition("@")
    after = rest[len(authority) :]
    port = host.rpartition(":")[2] if ":" in host and not host.endswith("]") else ""
    if user and scheme in _CONTAINERS and ":" not in user:
        host = authority
    elif "@" in after and port and (not port.isdigit() or scheme in _NO_PORTS):
        # Keys are base64: an unquoted '/' in one ends the authority too early, and user info reaches to the last '@'.
        return _public_part(f"{scheme}://{after.rpartition('@')[2]}")
    elif not port.isdigit():
        host = host.removesuffix(f":{port}")
    return f"{scheme}://{host}{re.split('[?#]', after, maxsplit=1)[0]}"


PublicUrl = Annotated[str, AfterValidator(public_url)]
