"""Parts of an upload as requests, and how far they are."""

import threading
from collections.abc import Generator, Iterator

from tabpfn_operators import _messages as messages
from tabpfn_operators._messages import Body, Request, UploadTicket
from tabpfn_operators.progress import Progress, ProgressCallback


class Tally:
    """Bytes of one upload; each part counts as far as it has ever got, so one that is put again counts once.

    Args:
        total: Bytes of all files.
        note: Goes into each report.
    """

    def __init__(self, total: int, note: str = "bytes") -> None:
        self.total = total
        self.done = 0
        self._note = note
        self._progress: ProgressCallback | None = None
        self._lock = threading.Lock()

    def report_to(self, progress: ProgressCallback) -> None:
        """Report from now on, beginning with 0."""
        self._progress = progress
        self.add(0)

    def add(self, count: int) -> None:
        """Count bytes that were sent for the first time; parts report from several threads."""
        with self._lock:
            self.done = min(self.done + count, self.total)
            if self._progress is not None:
                self._progress(Progress("upload", self.done, self.total, self._note))


class _Counted:
    """A body that tells a tally of its bytes."""

    def __init__(self, body: Body, tally: Tally) -> None:
        self._body = body
        self._tally = tally
        self._furthest = 0

    @property
    def size(self) -> int:
        return self._body.size

    def chunks(self, chunk_size: int, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        chunks = self._body.chunks(chunk_size, start, stop)
        at = start
        try:
            for chunk in chunks:
                yield chunk
                at += len(chunk)
                if at > self._furthest:
                    self._tally.add(at - self._furthest)
                    self._furthest = at
        finally:
            close(chunks)


def close(chunks: Iterator[bytes]) -> None:
    """Close a source at once: a cancelled upload must not hold it open until the garbage collector comes by."""
    if isinstance(chunks, Generator):
        chunks.close()


def part_requests(body: Body, ticket: UploadTicket, tally: Tally) -> Iterator[Request]:
    """Build one PUT for each signed URL of a file.

    Args:
        body: The file.
        ticket: Its URLs and required headers.
        tally: What counts the bytes.

    Yields:
        Requests that can be sent any number of times, in any order.
    """
    parts = messages.split_into_parts(body, len(ticket.signed_urls))
    for number, (url, part) in enumerate(zip(ticket.signed_urls, parts, strict=True), start=1):
        label = f"PUT of part {number} of {len(parts)}"
        yield messages.put_part(url, ticket.required_headers, _Counted(part, tally), label=label)
