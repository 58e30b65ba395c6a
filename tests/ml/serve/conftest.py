"""The service on a real socket, in a thread of the test's own process, with whatever limits a test needs."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import uvicorn

from ml.serve.app import create_app
from ml.serve.connection import guarded_protocol
from ml.serve.gateway import Gateway
from ml.serve.server import ServerOptions, uvicorn_config
from ml.serve.settings import ServeSettings
from tests.ml.conftest import Store, TinyModel
from tests.servers import wait_until


@dataclass(frozen=True)
class Served:
    """A running service and a way to speak to it byte by byte."""

    gateway: Gateway
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self, timeout: float = 10) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout)

    def figures(self) -> str:
        return self.gateway.service.metrics.render().decode()


ServeHere = Callable[..., AbstractContextManager[Served]]


@pytest.fixture
def serve_here(store: Store, tiny: TinyModel) -> ServeHere:
    """Serve the tiny model with changed settings until the block ends."""

    @contextmanager
    def serve(**changes: Any) -> Iterator[Served]:
        store.point_at(tiny.artifact.digest)
        settings = replace(ServeSettings(store=store.path, poll_seconds=0.02), **changes)
        gateway = create_app(settings)
        config = uvicorn_config(gateway, ServerOptions("127.0.0.1", 0), guarded_protocol(gateway))
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            wait_until(lambda: server.started, "the server listens")
            wait_until(lambda: gateway.service.state.predictor is not None, "the model is served")
            yield Served(gateway, server.servers[0].sockets[0].getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(timeout=30)
            assert not thread.is_alive()

    return serve


def read_answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Read one answer from a connection: status, headers and body."""
    received = b""
    while b"\r\n\r\n" not in received:
        part = connection.recv(65536)
        assert part, f"closed after {received!r}"
        received += part
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    while len(body) < int(headers["content-length"]):
        part = connection.recv(65536)
        assert part, f"closed after {body!r}"
        body += part
    return int(first.split()[1]), headers, body


def is_closed(connection: socket.socket) -> bool:
    """Wait for the other side to close."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True
