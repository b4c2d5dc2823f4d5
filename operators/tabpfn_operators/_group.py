"""Worker threads that start together and end together."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

#: The calling thread looks at its workers this often, because engines deliver their interrupts to the main thread only
#: (reference/dagster.md, fact 2).
SLICE_SECONDS = 0.2


class StoppedError(BaseException):
    """A sibling failed or the calling thread was interrupted: end quietly, retry nothing."""


def pause(seconds: float) -> None:
    """Wait in the calling thread; a signal handler's exception ends the wait at once."""
    time.sleep(seconds)


class ThreadGroup:
    """A stop event, the first error, and the sockets that may be blocking the threads."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Note each new connection's socket (httpx `trace` extension)."""
        if event in {"connection.connect_tcp.complete", "connection.start_tls.complete"}:
            sock = info["return_value"].get_extra_info("socket")
            with self._lock:
                self._sockets.append(sock)
            if self._stop.is_set():
                self._shut()

    def look_at_stop(self) -> None:
        """Raise StoppedError in a thread that is to end."""
        if self._stop.is_set():
            raise StoppedError

    def pause(self, seconds: float) -> None:
        """Wait in a worker thread, which wakes up when the group ends."""
        if self._stop.wait(seconds):
            raise StoppedError

    def run(self, work: Callable[[], None], *, threads: int) -> None:
        """Run `work` in several threads, all of which are gone when this returns or raises.

        Args:
            work: What each thread does.
            threads: How many.

        Raises:
            BaseException: The first error of a thread, or what interrupted the calling thread.
        """
        workers = [threading.Thread(target=self._guarded, args=(work,), name=f"tabpfn-{n}") for n in range(threads)]
        try:
            for worker in workers:
                worker.start()
            for worker in workers:
                while worker.is_alive():
                    worker.join(SLICE_SECONDS)
        except BaseException as error:
            self._end(error)
            raise
        finally:
            for worker in workers:
                if worker.ident is not None:
                    worker.join()
        if self._error is not None:
            raise self._error

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except StoppedError:
            return
        except BaseException as error:  # raised again in the calling thread
            self._end(error)

    def _end(self, error: BaseException) -> None:
        with self._lock:
            self._error = self._error or error
        self._stop.set()
        self._shut()

    def _shut(self) -> None:
        with self._lock:
            for sock in self._sockets:
                # Closing does not wake a thread that is blocked in recv; shutting down does.
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
