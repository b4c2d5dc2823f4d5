"""Running the application: one socket, one line on stdout, a clean end."""

import importlib
import signal
import socket
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from threading import Thread

import uvicorn

from tabpfn_emulator._app import build_app
from tabpfn_emulator._connections import KnownConnectionProtocol
from tabpfn_emulator._emulator import open_emulator
from tabpfn_emulator._settings import Settings

KEEP_ALIVE_SECONDS = 75
"""How long an idle connection stays open; the vendor's client polls every 5 s."""
_GRACE_SECONDS = 2


class _AnnouncingServer(uvicorn.Server):
    """Prints its address once it accepts connections."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            sys.stdout.write(f"TabPFN emulator listening on http://{shown}:{port}\n")
            sys.stdout.flush()


def serve(
    *,
    host: str,
    port: int,
    data_dir: Path | None,
    tokens: tuple[str, ...],
    fit_seconds: float,
    upload_parts: int | None,
) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        host: Address to bind.
        port: Port to bind; 0 takes a free one.
        data_dir: Folder of uploads and journal; None means a temporary one, removed at the end.
        tokens: The only tokens to accept; empty accepts every non-empty one.
        fit_seconds: Shortest duration of a fit, in seconds.
        upload_parts: Signed URLs per file; None leaves it to the request.

    Raises:
        OSError: When the address cannot be bound or the folder not be made: choose another.
    """
    with ExitStack() as stack:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = stack.enter_context(socket.create_server((host, port), family=family, backlog=2048))
        folder = data_dir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tabpfn-emulator-")))
        emulator = open_emulator(folder, tokens, Settings(fit_seconds=fit_seconds, upload_parts=upload_parts))
        stack.callback(emulator.journal.close)
        stack.callback(emulator.workers.shutdown, wait=True, cancel_futures=True)
        # Loaded while the server already answers; a fit waits for it in its own thread, and the end of the process
        # does not wait for it.
        Thread(target=importlib.import_module, args=("tabpfn_emulator._worker",), daemon=True).start()
        config = uvicorn.Config(
            build_app(emulator),
            http=KnownConnectionProtocol,
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        # uvicorn raises the signal again once it has shut down; being asked to end is no failure here.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        _AnnouncingServer(config).run(sockets=[listener])
