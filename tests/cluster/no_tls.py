"""A server that breaks off every TLS handshake, as an API server does that is being restarted."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def broken_handshakes(folder: Path) -> Iterator[Path]:
    """Listen until the end; gives a kubeconfig that leads there."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_break_off, args=(listener,), daemon=True).start()
        entry = {"server": f"https://127.0.0.1:{listener.getsockname()[1]}", "insecure-skip-tls-verify": True}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": entry}],
            "users": [{"name": "test", "user": {"token": "t"}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
        path = folder / "kubeconfig"
        path.write_text(json.dumps(config), encoding="utf-8")
        yield path
        listener.shutdown(socket.SHUT_RDWR)


def _break_off(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.recv(1024)
            connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
