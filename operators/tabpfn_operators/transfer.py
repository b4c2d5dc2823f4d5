"""Bodies to signed URLs: prepare, put every part, look at the source again; anew where the URLs expire on the way.

docs/design/uploads.md says why.
"""

import base64
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any

from tabpfn_operators import _messages as messages
from tabpfn_operators._call import Session, call, log
from tabpfn_operators._envelopes import choose_storage_error, says_expired
from tabpfn_operators._messages import Body, PreparedUpload, Request
from tabpfn_operators._puts import Tally, close, part_requests
from tabpfn_operators.errors import InvalidInputError, UploadError, UploadTooSlowError
from tabpfn_operators.progress import ProgressCallback
from tabpfn_operators.settings import is_loopback

#: Parts of one upload in flight at a time; memory is this times the wire's chunk.
PARALLEL_PARTS = 4
#: Bytes per second that an upload is expected to reach at least; URLs that live shorter are asked for again.
SLOWEST_RATE = 5_000_000
#: Bytes of an upload up to which it is hashed, so that the server can tell that it has it. Above, the pass over a
#: remote source that a hash costs is dearer than the rare second upload of equal bytes.
HASHED_UP_TO = 32 << 20
_CHUNK_SIZE = 1 << 20


@dataclass(frozen=True)
class Opening:
    """The call that opens an upload, and what its answer names (contract 1.1, 1.7).

    Args:
        request: Builds the call from one FileInfo for each file, and whether to force the upload.
        id_key: Key of the upload's id.
        file_keys: Keys of the tickets, in the order of the files.
    """

    request: Callable[[Sequence[Mapping[str, Any]], bool], Request]
    id_key: str
    file_keys: tuple[str, ...]


@dataclass(frozen=True)
class Transferred:
    """What the server holds now.

    Args:
        upload_id: The server's id.
        bytes_sent: Bytes of the upload; 0 when the server had equal content.
        duplicate: Whether it had.
    """

    upload_id: str
    bytes_sent: int
    duplicate: bool


def wants_hash(size: int, checksum: bool | None) -> bool:
    """Decide whether bodies without a ready hash are read once more to compute it.

    Args:
        size: Bytes of all files of the upload; the server compares them together (contract 2.2).
        checksum: What the caller asked for; None leaves it to the size.
    """
    return size <= HASHED_UP_TO if checksum is None else checksum


def seconds_left(expires_at: float | None, headers: Mapping[str, str], now: float) -> float | None:
    """Return how long signed URLs live from the answer that named them.

    Args:
        expires_at: Epoch seconds by the server's clock.
        headers: Headers of that answer. Its Date is the same clock, so that a wrong one here does no harm.
        now: Epoch seconds by the clock here, for an answer without a Date.

    Returns:
        Seconds, negative for URLs that were dead on arrival; None where nobody knows.
    """
    if expires_at is None:
        return None
    try:
        answered = parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        answered = now
    return expires_at - answered


def is_too_short(size: int, lifetime: float | None) -> bool:
    """Tell whether URLs expire before an upload at the slowest expected rate is done.

    Args:
        size: Bytes to send.
        lifetime: Seconds that the URLs live; None where nobody knows.
    """
    return lifetime is not None and lifetime < size / SLOWEST_RATE


async def transfer(
    session: Session,
    opening: Opening,
    bodies: Sequence[Body],
    *,
    force_reupload: bool,
    checksum: bool | None,
    check_unchanged: Callable[[], object] | None,
    progress: ProgressCallback,
) -> Transferred:
    """Bring bodies to the server's storage.

    Args:
        session: Settings, wire and policy.
        opening: How the upload is opened.
        bodies: The files, in the order of the opening's keys; one that has a `crc32c` is not read to hash it.
        force_reupload: Send the bytes even where the server has equal content.
        checksum: Whether to announce hashes; None as `wants_hash` decides.
        check_unchanged: Looks at the sources of the bodies; None where nobody can change them.
        progress: Called with the bytes sent, from several threads. Never beyond the total, and never back but to 0
            when everything is sent again to a new upload.

    Returns:
        The upload, complete.

    Raises:
        SourceChangedError: A source was written to meanwhile; run again. The upload is left behind, unused.
        UploadTooSlowError: The URLs expired twice on the way; send less, or from nearer.
        UploadError: The object store refused; run again.
        TabPFNError: The server did not open the upload; the class says what to do.
    """
    size = sum(body.size for body in bodies)
    infos = [
        messages.file_info(body.size, await _hash(session, body, announce=checksum, compute=wants_hash(size, checksum)))
        for body in bodies
    ]
    attempt = await _open(session, opening, infos, size, force=force_reupload)
    if attempt.prepared.duplicate:
        log.info("The server has this content as %s; nothing is sent.", attempt.prepared.upload_id)
    else:
        try:
            await attempt.send(session, bodies, progress)
        except _ExpiredError:
            await _look(session, check_unchanged)
            log.warning(
                "The upload URLs expired after %.0f s: %s of %s bytes are lost, and everything is sent again.",
                attempt.elapsed(),
                f"{attempt.tally.done:,}",
                f"{size:,}",
            )
            # Forced: that upload never finished, and a duplicate of it would be of no use (contract 3).
            attempt = await _open(session, opening, infos, size, force=True, again=True)
            try:
                await attempt.send(session, bodies, progress)
            except _ExpiredError:
                raise attempt.too_slow() from None
    await _look(session, check_unchanged)
    prepared = attempt.prepared
    return Transferred(prepared.upload_id, 0 if prepared.duplicate else size, prepared.duplicate)


async def _look(session: Session, check_unchanged: Callable[[], object] | None) -> None:
    if check_unchanged is not None:
        await session.wire.call(check_unchanged)


async def _hash(session: Session, body: Body, *, announce: bool | None, compute: bool) -> str | None:
    """Return the CRC32C of a body as the API wants it (contract 3), from one pass where the body does not have it."""
    ready: str | None = getattr(body, "crc32c", None)
    if announce is False:
        return None
    if ready is not None or not compute:
        return ready
    steps = _hashing(body)
    try:
        # One chunk at a call, so that a cancelled task stops after the chunk and not after the body.
        step: int | str = 0
        while isinstance(step, int):
            step = await session.wire.call(next, steps)
        return step
    finally:
        steps.close()


def _hashing(body: Body) -> Generator[int | str, None, None]:
    """Yield the length of each chunk, then the hash."""
    import google_crc32c

    checksum = google_crc32c.Checksum()
    chunks = body.chunks(_CHUNK_SIZE)
    try:
        for chunk in chunks:
            checksum.update(chunk)
            yield len(chunk)
    finally:
        close(chunks)
    yield base64.b64encode(checksum.digest()).decode()


class _ExpiredError(Exception):
    """A signed URL was too old; goes no further than this module."""


async def _open(
    session: Session,
    opening: Opening,
    infos: Sequence[Mapping[str, Any]],
    size: int,
    *,
    force: bool,
    again: bool = False,
) -> "_Attempt":
    """Prepare an upload; once more where its URLs would expire before even a fair upload is done."""
    # Only the first call of all may be answered with a duplicate: later it would be our own unfinished upload.
    attempt = await _prepare(session, opening, infos, size, force=force, accept=() if again else (409,))
    if is_too_short(size, attempt.lifetime) and not again:
        attempt = await _prepare(session, opening, infos, size, force=True, accept=())
    if attempt.lifetime is not None and is_too_short(size, attempt.lifetime):
        lifetime = max(attempt.lifetime, 0.0)
        log.warning(
            "The upload URLs live for %.0f s, and %s bytes take longer at %.0f MB/s; going on all the same.",
            lifetime,
            f"{size:,}",
            SLOWEST_RATE / 1e6,
        )
    return replace(attempt, tally=Tally(size, "bytes, sent again")) if again else attempt


async def _prepare(
    session: Session,
    opening: Opening,
    infos: Sequence[Mapping[str, Any]],
    size: int,
    *,
    force: bool,
    accept: tuple[int, ...],
) -> "_Attempt":
    request = opening.request(infos, force)
    answer = await call(session, request, accept=accept)
    prepared = messages.read_prepared(answer, request.label, opening.id_key, *opening.file_keys)
    ends = [ticket.expires_at for ticket in prepared.tickets if ticket.expires_at is not None]
    now = time.time()
    lifetime = seconds_left(min(ends, default=None), answer.headers, now)
    return _Attempt(prepared, size, lifetime, now, Tally(size))


@dataclass(frozen=True)
class _Attempt:
    """One upload that was prepared.

    Args:
        prepared: Its id and its tickets.
        size: Bytes of all files.
        lifetime: Seconds that its URLs live; None where nobody knows.
        started: Epoch seconds at which it was prepared.
        tally: Bytes sent so far.
    """

    prepared: PreparedUpload
    size: int
    lifetime: float | None
    started: float
    tally: Tally

    def elapsed(self) -> float:
        return max(time.time() - self.started, 0.001)

    def expired(self) -> bool:
        """Whether the URLs are dead by the clock; one by which they never lived tells nothing."""
        return self.lifetime is not None and self.elapsed() >= self.lifetime > 0

    async def send(self, session: Session, bodies: Sequence[Body], progress: ProgressCallback) -> None:
        """Put every part of every file."""
        self.tally.report_to(progress)
        requests = [
            request
            for body, ticket in zip(bodies, self.prepared.tickets, strict=True)
            for request in part_requests(body, ticket, self.tally)
        ]
        for request in requests:
            check_storage_url(session, request.url)
        await session.wire.gather(
            [lambda request=request: self._put(session, request) for request in requests],  # type: ignore[misc]  # bound per loop
            PARALLEL_PARTS,
        )

    async def _put(self, session: Session, request: Request) -> None:
        if self.expired():
            raise _ExpiredError
        try:
            answer = await call(session, request, accept=(400, 403))
        except UploadError:
            # A store that refuses and hangs up while bytes are on their way may leave no answer to read.
            if self.expired():
                raise _ExpiredError from None
            raise
        if answer.status >= 400:
            if says_expired(answer) or self.expired():
                raise _ExpiredError
            raise choose_storage_error(answer, request.label)

    def too_slow(self) -> UploadTooSlowError:
        rate = self.tally.done / self.elapsed()
        lived = "an unknown time" if self.lifetime is None else f"{max(self.lifetime, 0):,.0f} s"
        return UploadTooSlowError(
            f"The upload URLs expired twice before {self.size:,} bytes were sent: {self.tally.done:,} bytes went at "
            f"{rate / 1e6:.2f} MB/s, and the server's URLs live for {lived}. Send fewer columns, recompress the file "
            "(zstd), or upload from a region nearer to the server.",
            size=self.size,
            bytes_per_second=rate,
            lifetime=self.lifetime,
        )


def check_storage_url(session: Session, url: str) -> None:
    """Refuse to send data unencrypted (design.md, promise 5).

    Raises:
        InvalidInputError: The URL is not https, and neither is http allowed nor is the server on loopback.
    """
    settings = session.settings
    if url.startswith("https://") or settings.allow_http or is_loopback(settings.base_url):
        return
    raise InvalidInputError("The server named an upload URL that is not https; nothing was sent. Is base_url right?")
