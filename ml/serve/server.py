"""Running an ASGI application as this service is run: by one process, or by one for each core."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp

_BACKLOG: Final = 1024  # connections that the kernel keeps until they are accepted


@dataclass(frozen=True)
class ServerOptions:
    """Where a server listens, and how long it waits for its clients."""

    host: str
    port: int
    drain_seconds: float = 20.0  # for requests under way when told to stop
    idle_seconds: float = 30.0  # that a connection may stay unused


def uvicorn_config(
    app: ASGIApp, options: ServerOptions, protocol: type[asyncio.Protocol] | None = None
) -> uvicorn.Config:
    """Give the server's settings: uvloop and httptools, and none of what nobody reads here.

    The service logs accesses itself, is asked by its own network without proxies, and speaks no websockets.
    `protocol` stands in for uvicorn's own connection class.
    """
    arguments: dict[str, Any] = {
        "host": options.host,
        "port": options.port,
        "loop": "uvloop",
        "http": protocol or "httptools",
        "ws": "none",
        "interface": "asgi3",
        "lifespan": "on",
        "log_config": None,
        "access_log": False,
        "proxy_headers": False,
        "server_header": False,
        "date_header": False,
        "backlog": _BACKLOG,
        "timeout_keep_alive": max(1, round(options.idle_seconds)),
        "timeout_graceful_shutdown": max(1, round(options.drain_seconds)),
    }
    return uvicorn.Config(app, **arguments)


def run_server(
    app: ASGIApp,
    options: ServerOptions,
    *,
    protocol: type[asyncio.Protocol] | None = None,
    listeners: list[socket.socket] | None = None,
) -> None:
    """Serve until told to stop; on SIGTERM the requests under way are answered first.

    `listeners` are sockets bound already, in place of the options' address.
    """
    server = uvicorn.Server(uvicorn_config(app, options, protocol))
    server.run(sockets=listeners)
