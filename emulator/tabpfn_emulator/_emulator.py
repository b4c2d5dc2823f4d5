"""The state of one running emulator, and the few things that all routes need."""

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from starlette.requests import Request
from starlette.types import Scope

from tabpfn_emulator._bodies.requests import RequestBody, read_body
from tabpfn_emulator._books.accounts import Accounts
from tabpfn_emulator._books.journal import Journal
from tabpfn_emulator._books.rates import RateLimiter
from tabpfn_emulator._envelopes import ApiError, invalid, not_found
from tabpfn_emulator._faults import Faults
from tabpfn_emulator._settings import Settings
from tabpfn_emulator._state.database import FILE_NAME, Database
from tabpfn_emulator._state.documents import Documents
from tabpfn_emulator._state.full_disk import is_full, remedy
from tabpfn_emulator._state.reasoning import ReasoningStore
from tabpfn_emulator._state.recall import Models, learn
from tabpfn_emulator._state.records import Fit
from tabpfn_emulator._state.store import Store
from tabpfn_emulator._storage.incoming import remove_unfinished
from tabpfn_emulator._storage.signing import Signer

if TYPE_CHECKING:
    from tabpfn_emulator._learning.model import Learned
    from tabpfn_emulator._learning.reasoning import ReasoningModel

ROW = "tabpfn_emulator.row"
"""Key of a request's journal row in its ASGI scope."""
MAX_BODY_BYTES = 16 * 1024**2
"""Largest JSON body, in bytes."""
_KEY_BYTES = 32
_RETRY_SECONDS = 1.0

BodyT = TypeVar("BodyT", bound=RequestBody)
ResultT = TypeVar("ResultT")


@dataclass
class Emulator:
    """One running emulator.

    Attributes:
        data_dir: Its data folder.
        database: Everything that a restart must not lose, except the uploaded bytes.
        documents: Things with an id, kept there; the predictions behind a `prediction_uri` are `download`s.
        store: Uploads and fits.
        reasoning: What the reasoning API keeps.
        journal: The books.
        accounts: Which token opens which account.
        start_settings: What `DELETE /_emulator/config` goes back to.
        settings: What holds now.
        signer: Signs and checks URLs.
        workers: Threads for everything that computes or reads files.
        models: Fitted models, by the id of their fit.
        reasoning_models: Those of the reasoning API, by their id.
        faults: Injected faults.
        rates: Counts calls for the rate limits.
        tasks: Fits and jobs that are being worked on.
    """

    data_dir: Path
    database: Database
    documents: Documents
    store: Store
    reasoning: ReasoningStore
    journal: Journal
    accounts: Accounts
    start_settings: Settings
    settings: Settings
    signer: Signer
    workers: ThreadPoolExecutor
    models: "Models[Learned]" = field(default_factory=Models)
    reasoning_models: "Models[ReasoningModel]" = field(default_factory=Models)
    faults: Faults = field(default_factory=Faults)
    rates: RateLimiter = field(default_factory=RateLimiter)
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    def account_of_header(self, authorization: str) -> str | None:
        """Return the account that an Authorization header opens; None when it opens none.

        Args:
            authorization: Value of the header; empty when there is none.
        """
        token = bearer_token(authorization)
        return None if token is None else self.accounts.of_token(token)

    async def model_of(self, fit: Fit) -> "Learned":
        """Return the model of a completed fit, learning it again when it is not in memory.

        Args:
            fit: A completed fit.

        Raises:
            ApiError: 404 when the fit was deleted, now or while it was being learnt.
        """
        try:
            upload = self.store.upload(fit.account, fit.plan.train_set_upload_id, "train")
            return await self.models.of(fit.fitted_train_set_id, lambda: self.in_worker(learn, fit, upload))
        except OSError:
            raise not_found(f"The fitted train set {fit.fitted_train_set_id}") from None

    def in_worker(self, work: Callable[..., ResultT], *arguments: Any) -> Awaitable[ResultT]:
        """Let a worker thread compute, or read files; await what this returns."""
        return asyncio.get_running_loop().run_in_executor(self.workers, work, *arguments)

    def begin(self, work: Coroutine[Any, Any, ResultT]) -> asyncio.Task[ResultT]:
        """Begin to work on a fit or a job, for which nobody need wait; call it on the event loop."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def commit(self, change: Callable[[], ResultT]) -> ResultT:
        """Write what such work has come to, in one transaction; on a full disk again and again, until there is room.

        Args:
            change: Writes it.

        Returns:
            What `change` has returned.
        """
        while True:
            try:
                with self.database.transaction():
                    return change()
            except sqlite3.OperationalError as problem:
                if not is_full(problem):
                    raise
            await asyncio.sleep(_RETRY_SECONDS)

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


def open_emulator(
    data_dir: Path, tokens: Sequence[str], settings: Settings, accounts: Sequence[tuple[str, str]] = ()
) -> Emulator:
    """Return an emulator on a data folder, with all that an earlier one has left there.

    Args:
        data_dir: Folder of `uploads/` and the database; made when it is not there.
        tokens: The only tokens to accept, each opening an account of its own.
        settings: What to start with.
        accounts: Name and token of named accounts. Without these and `tokens`, every non-empty token is accepted.

    Raises:
        OSError: When the folder cannot be used: name another.
        ValueError: When an account or a token is not usable.
    """
    uploads = data_dir / "uploads"
    uploads.mkdir(parents=True, exist_ok=True)
    database = Database(data_dir / FILE_NAME)
    # Only now: the database holds the folder's lock, so nobody else's bytes are on their way.
    for folder in (uploads, data_dir / "reasoning"):
        remove_unfinished(folder)
    documents = Documents(database)
    try:
        return Emulator(
            data_dir=data_dir,
            database=database,
            documents=documents,
            store=Store(uploads, documents),
            reasoning=ReasoningStore(documents, data_dir / "reasoning"),
            journal=Journal(database),
            accounts=Accounts(database, tokens, accounts),
            start_settings=settings,
            settings=settings,
            signer=Signer(database.secret("signing key", _KEY_BYTES)),
            workers=ThreadPoolExecutor(max_workers=4, thread_name_prefix="emulator"),
        )
    except sqlite3.OperationalError as problem:
        raise OSError(remedy(data_dir, problem) if is_full(problem) else str(problem)) from None


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
        ApiError: 401 when there is no usable token, or its account was deleted meanwhile; 403 when the account's e-mail
            address is not verified (contract section 1.10).
    """
    found: str | None = row_of(request.scope)["account"]
    if found is None or emulator_of(request).accounts.is_closed(found):
        known = bearer_token(request.headers.get("Authorization", "")) is not None
        raise ApiError(401, "UNAUTHORIZED", "Could not validate credentials" if known else "Not authenticated")
    if not emulator_of(request).accounts.email_verified(found):
        raise ApiError(403, "EMAIL_NOT_VERIFIED", "User account not verified")
    return found


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
