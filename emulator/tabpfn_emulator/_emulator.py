"""The state of one running emulator, and the few things that all routes need."""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

from starlette.requests import Request
from starlette.types import Scope

from tabpfn_emulator._envelopes import ApiError, invalid
from tabpfn_emulator._faults import Faults
from tabpfn_emulator._identity import account_of
from tabpfn_emulator._journal import Journal
from tabpfn_emulator._models import RequestBody, read_body
from tabpfn_emulator._settings import Settings
from tabpfn_emulator._signing import Signer
from tabpfn_emulator._store import Store

ROW = "tabpfn_emulator.row"
"""Key of a request's journal row in its ASGI scope."""
MAX_BODY_BYTES = 16 * 1024**2
"""Largest JSON body, in bytes."""

BodyT = TypeVar("BodyT", bound=RequestBody)


@dataclass
class Emulator:
    """One running emulator.

    Attributes:
        store: Uploads, fits, models.
        journal: The books.
        tokens: The only tokens to accept; empty accepts every one.
        start_settings: What `DELETE /_emulator/config` goes back to.
        settings: What holds now.
        faults: Injected faults.
        signer: Signs and checks URLs.
        workers: Threads for everything that computes or reads files.
        downloads: Predictions behind a `prediction_uri`, by id.
    """

    store: Store
    journal: Journal
    tokens: frozenset[str]
    start_settings: Settings
    settings: Settings
    faults: Faults = field(default_factory=Faults)
    signer: Signer = field(default_factory=Signer)
    workers: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(max_workers=4, thread_name_prefix="emulator")
    )
    downloads: dict[str, Any] = field(default_factory=dict)

    def account_of_header(self, authorization: str) -> str | None:
        """Return the account that an Authorization header opens; None when it opens none.

        Args:
            authorization: Value of the header; empty when there is none.
        """
        token = bearer_token(authorization)
        if token is None or (self.tokens and token not in self.tokens):
            return None
        return account_of(token)

    def signed_url(self, request_base: str, method: str, path: str, headers: Mapping[str, str]) -> tuple[str, float]:
        """Return a signed URL on this server and when it expires.

        Args:
            request_base: Scheme and host that the caller has used.
            method: HTTP method that the URL is for.
            path: Its path.
            headers: Headers that must come with it, names in lower case.

        Returns:
            The URL, and epoch seconds.
        """
        expires_at = time.time() + self.settings.url_ttl_secs
        query = self.signer.sign(method, path, expires_at, headers)
        return f"{request_base.rstrip('/')}{path}?{query}", float(int(expires_at))


def bearer_token(authorization: str) -> str | None:
    """Return the token of an Authorization header, None when it holds none."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def open_emulator(data_dir: Path, tokens: tuple[str, ...], settings: Settings) -> Emulator:
    """Return an emulator on a data folder.

    Args:
        data_dir: Folder of `uploads/` and `journal.jsonl`; made when it is not there.
        tokens: The only tokens to accept; empty accepts every non-empty one.
        settings: What to start with.
    """
    uploads = data_dir / "uploads"
    uploads.mkdir(parents=True, exist_ok=True)
    return Emulator(
        store=Store(uploads),
        journal=Journal(data_dir / "journal.jsonl"),
        tokens=frozenset(tokens),
        start_settings=settings,
        settings=settings,
    )


def emulator_of(request: Request) -> Emulator:
    """Return the emulator that a request has come to."""
    return cast("Emulator", request.app.state.emulator)


def row_of(scope: Scope) -> dict[str, Any]:
    """Return the journal row of a request."""
    row: dict[str, Any] = scope[ROW]
    return row


def account(request: Request) -> str:
    """Return the account of a request's bearer token.

    Raises:
        ApiError: 401 when there is no usable token.
    """
    found: str | None = row_of(request.scope)["account"]
    if found is not None:
        return found
    known = bearer_token(request.headers.get("Authorization", "")) is not None
    raise ApiError(401, "UNAUTHORIZED", "Could not validate credentials" if known else "Not authenticated")


def note(request: Request, **ids: str) -> None:
    """Write ids into the request's journal row."""
    row_of(request.scope)["ids"].update(ids)


async def json_bytes(request: Request) -> bytes:
    """Return the body of a JSON request.

    Raises:
        ApiError: 422 when it is larger than `MAX_BODY_BYTES`.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise invalid(f"The body is larger than {MAX_BODY_BYTES} bytes.")
    return bytes(body)


async def body_of(request: Request, model: type[BodyT]) -> BodyT:
    """Return the validated body of a request.

    Raises:
        ApiError: 422 when it is not what the route takes.
    """
    return read_body(model, await json_bytes(request))
