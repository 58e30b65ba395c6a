"""A web process that a test can look into and tell how to behave; and a name service that says what the test says."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

BREAK_OFF = 0  # instead of a status: close the connection without an answer, as a process that dies


@dataclass
class Upstream:
    """What was asked of a web process."""

    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    connections: set[int] = field(default_factory=set)

    def methods(self) -> list[str]:
        return [method for method, _path, _headers in self.requests]


@contextmanager
def running_upstream(
    port: int, answer: Callable[[str, str], int] = lambda method, path: 200, *, host: str = "127.0.0.1"
) -> Iterator[Upstream]:
    """A server that answers each request with the status it is told, and says in the body where it listens."""
    upstream = Upstream()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            upstream.requests.append((self.command, self.path, headers))
            upstream.connections.add(self.client_address[1])
            status = answer(self.command, self.path)
            if status == BREAK_OFF:
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("content-length", str(len(host)))
            self.send_header("x-request-id", "the web process's own")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(host.encode())

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True
        allow_reuse_address = True

        def handle_error(self, request: object, client_address: object) -> None:
            """Say nothing of connections that nginx closes."""

    with Server((host, port), Handler) as server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        serving.start()
        try:
            yield upstream
        finally:
            server.shutdown()
            serving.join()


class Names:
    """What `getent ahosts` says on the gateway's machine: the cluster's name service is the one thing not here."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "bin"
        self._addresses = folder / "addresses"
        self.path.mkdir(parents=True)
        script = f"#!/bin/sh\nsed 's/$/ STREAM web/' '{self._addresses}'\ntest -s '{self._addresses}'\n"
        (self.path / "getent").write_text(script)
        (self.path / "getent").chmod(0o755)
        self.set()

    def set(self, *addresses: str) -> None:
        """From now on, the name has these addresses."""
        unfinished = self._addresses.with_suffix(".new")
        unfinished.write_text("".join(f"{address}\n" for address in addresses))
        unfinished.replace(self._addresses)
