"""Running the application: one socket, one line on stdout, a clean end."""

import importlib
import math
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from threading import Thread

import uvicorn

from tabpfn_emulator._app import build_app
from tabpfn_emulator._connections import KnownConnectionProtocol
from tabpfn_emulator._emulator import open_emulator
from tabpfn_emulator._settings import Settings

_GRACE_SECONDS = 2


class _AnnouncingServer(uvicorn.Server):
    """Goes on with what an earlier process has left, and prints its address once it accepts connections."""

    def __init__(self, config: uvicorn.Config, resume: Callable[[], None]) -> None:
        super().__init__(config)
        self._resume = resume

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._resume()
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
    accounts: tuple[tuple[str, str], ...] = (),
    settings: Settings,
    control: bool = False,
) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        host: Address to bind.
        port: Port to bind; 0 takes a free one.
        data_dir: Folder of uploads and database; None means a temporary one, removed at the end.
        tokens: Tokens to accept, each opening an account of its own.
        accounts: Name and token of named accounts. Without these and `tokens`, every non-empty token is accepted.
        settings: What to start with.
        control: Whether the control routes `/_emulator/*` are there, which inject faults and show the books.

    Raises:
        OSError: When the address cannot be bound or the folder not be used: choose another.
        ValueError: When an account or a token is not usable: give another.
    """
    with ExitStack() as stack:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = stack.enter_context(socket.create_server((host, port), family=family, backlog=2048))
        # asyncio does so for sockets whose protocol number is set, which `create_server` leaves at 0; without it the
        # second packet of an answer waits 40 ms for the acknowledgement of the first. Connections inherit it.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        folder = data_dir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tabpfn-emulator-")))
        emulator = open_emulator(folder, tokens, settings, accounts)
        stack.callback(emulator.database.close)
        stack.callback(emulator.workers.shutdown, wait=True, cancel_futures=True)
        # Loaded while the server already answers; a fit waits for it in its own thread, and the end of the process
        # does not wait for it.
        Thread(target=importlib.import_module, args=("tabpfn_emulator._learning.worker",), daemon=True).start()
        app = build_app(emulator, control=control)
        config = uvicorn.Config(
            app,
            http=KnownConnectionProtocol,
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=math.ceil(settings.idle_close_secs),
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        # uvicorn raises the signal again once it has shut down; being asked to end is no failure here.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        _AnnouncingServer(config, app.resume).run(sockets=[listener])
