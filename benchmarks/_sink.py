"""An HTTP server that reads bodies and drops them: what a PUT costs where the server costs next to nothing.

Prints its address, and serves one connection at a time until its standard input ends.
"""

import os
import re
import socket
import sys
import threading

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_BUFFER = bytearray(1 << 20)


def serve(connection: socket.socket) -> None:
    """Answer the requests of one connection; each has a Content-Length."""
    while True:
        head = b""
        while b"\r\n\r\n" not in head:
            more = connection.recv(1 << 16)
            if not more:
                return
            head += more
        head, _, body = head.partition(b"\r\n\r\n")
        length = re.search(rb"(?im)^content-length: *(\d+)", head)
        left = int(length[1]) - len(body) if length else 0
        while left:
            count = connection.recv_into(_BUFFER, min(left, len(_BUFFER)))
            if not count:
                return
            left -= count
        connection.sendall(_ANSWER)


def main() -> None:
    """Listen on a free port of loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        sys.stdout.write(f"http://127.0.0.1:{server.getsockname()[1]}\n")
        sys.stdout.flush()
        threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()  # type: ignore[func-returns-value]  # the parent is gone
        while True:
            connection, _ = server.accept()
            with connection:
                serve(connection)


if __name__ == "__main__":
    main()
