"""Requests of the blocking client under one deadline, and connections that are not shared with a forked process.

httpx's timeouts hold for each wait: a service that sends a byte a second would hold a caller for ever. The deadline
travels as what httpx takes for a timeout, a number that shrinks, down to the socket, which is the one to wait.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import time
import weakref
from collections.abc import Iterable, Iterator
from typing import Any, Final, Self

import httpcore
import httpx

from ml.client.calls import NoReply, Reply, Request

_PIECE_BYTES: Final = 65_536
LIMITS: Final = httpx.Limits(
    max_connections=32,
    max_keepalive_connections=16,
    keepalive_expiry=10,  # shorter than the service keeps idle connections, so that ours is never the one just closed
)


class Countdown(float):
    """Seconds until a deadline: as a number those that were left when it was made, `left()` those that are now."""

    _deadline: float

    def __new__(cls, seconds: float) -> Self:
        made = super().__new__(cls, seconds)
        made._deadline = time.monotonic() + seconds
        return made

    def left(self) -> float:
        """Give the seconds that are left now, never none: a socket takes 0 for "do not wait" and None for ever."""
        return max(self._deadline - time.monotonic(), 1e-6)


def timeouts(seconds: float) -> dict[str, float]:
    """Give httpx's timeouts of a request that must be over, with its reply read, in so many seconds."""
    countdown = Countdown(seconds)
    return dict.fromkeys(("connect", "read", "write", "pool"), countdown)


def plain_headers(token: str) -> dict[str, str]:
    """Give the headers of every request. No compression: what a reply grows to could not be bounded."""
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    return {**headers, "Authorization": f"Bearer {token}"} if token else headers


def build_request(
    client: httpx.Client | httpx.AsyncClient, request: Request, seconds: float
) -> httpx.Request:
    """Make httpx's request of ours."""
    content_type = {"Content-Type": "application/json"} if request.body is not None else {}
    return client.build_request(
        request.method,
        request.path,
        content=request.body,
        headers={**content_type, **request.headers},
        extensions={"timeout": timeouts(seconds)},
    )


def failed_exchange(error: Exception) -> NoReply:
    """Say what a failure of httpx means for the call."""
    if isinstance(error, (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError)):
        return NoReply(f"its address or the request is wrong: {error}", permanent=True)
    if isinstance(error, (httpx.TimeoutException, TimeoutError)):
        return NoReply("timed out")
    return NoReply(str(error) or type(error).__name__)


class BoundedBody:
    """Collects a reply's body up to a limit."""

    def __init__(self, response: httpx.Response, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._parts: list[bytes] = []
        self._size = 0
        encoding = response.headers.get("content-encoding", "identity")
        announced = response.headers.get("content-length", "0")
        self.refusal = (
            None if encoding == "identity" else f"its reply is compressed ({encoding}), which was not asked"
        )
        if announced.isdecimal() and int(announced) > limit_bytes:
            self._refuse()

    def add(self, part: bytes) -> bool:
        """Take a part; False when it was one too many."""
        self._size += len(part)
        if self._size > self._limit:
            self._refuse()
            return False
        self._parts.append(part)
        return True

    def reply(self, response: httpx.Response, seconds: float) -> Reply | NoReply:
        """Give the whole."""
        if self.refusal:
            return NoReply(self.refusal, again=False)
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Reply(response.status_code, headers, b"".join(self._parts), seconds)

    def _refuse(self) -> None:
        self.refusal = f"its reply is larger than the limit of {self._limit} bytes"


class DeadlineTransport(httpx.HTTPTransport):
    """httpx's own transport over sockets that keep to a Countdown."""

    def __init__(self) -> None:
        context = httpx.create_ssl_context()
        super().__init__(verify=context, limits=LIMITS)
        self._backend = DeadlineBackend()
        # httpx has no argument for the network backend of its pool; httpcore has, and documents it.
        self._pool = httpcore.ConnectionPool(
            ssl_context=context,
            max_connections=LIMITS.max_connections,
            max_keepalive_connections=LIMITS.max_keepalive_connections,
            keepalive_expiry=LIMITS.keepalive_expiry,
            network_backend=self._backend,
        )

    def abandon(self) -> None:
        """Close the sockets that a fork has left here as well, without a word to the other side.

        Not the pool: its lock may have been held, by a thread that is not in this process, when the fork came.
        """
        self._backend.abandon()


class DeadlineBackend(httpcore.SyncBackend):
    """Connects, and knows what it has connected."""

    def __init__(self) -> None:
        self._streams: weakref.WeakSet[DeadlineStream] = weakref.WeakSet()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect; looking up a name is the system's affair, and keeps its own time."""
        stream = super().connect_tcp(host, port, _left(timeout), local_address, socket_options)
        return self._keep(stream.get_extra_info("socket"))

    def abandon(self) -> None:
        """Close every socket."""
        for stream in list(self._streams):
            stream.close()

    def _keep(self, connected: socket.socket) -> DeadlineStream:
        stream = DeadlineStream(connected, self)
        self._streams.add(stream)
        return stream


class DeadlineStream(httpcore.NetworkStream):
    """A connected socket whose every wait ends with the Countdown it is given as a timeout."""

    def __init__(self, connected: socket.socket, backend: DeadlineBackend) -> None:
        self._socket = connected
        self._backend = backend

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Receive what is there, waiting for the first of it."""
        with _named(httpcore.ReadTimeout, httpcore.ReadError):
            self._socket.settimeout(_left(timeout))
            return self._socket.recv(max_bytes)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of it."""
        rest = memoryview(buffer)
        with _named(httpcore.WriteTimeout, httpcore.WriteError):
            while rest:
                self._socket.settimeout(_left(timeout))
                rest = rest[self._socket.send(rest[:_PIECE_BYTES]) :]

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """Go on encrypted, over the same connection."""
        try:
            with _named(httpcore.ConnectTimeout, httpcore.ConnectError):
                self._socket.settimeout(_left(timeout))
                encrypted = ssl_context.wrap_socket(self._socket, server_hostname=server_hostname)
        except BaseException:
            self.close()
            raise
        return self._backend._keep(encrypted)

    def get_extra_info(self, info: str) -> Any:
        """Answer httpcore's questions about the socket."""
        if info == "socket":
            return self._socket
        if info == "ssl_object":
            return self._socket if isinstance(self._socket, ssl.SSLSocket) else None
        if info == "is_readable":
            return _is_readable(self._socket)
        return None


@contextlib.contextmanager
def _named(timed_out: type[Exception], failed: type[Exception]) -> Iterator[None]:
    """Raise what httpcore raises where a socket fails."""
    try:
        yield
    except TimeoutError as error:
        raise timed_out(str(error)) from error
    except OSError as error:
        raise failed(str(error)) from error


def _left(timeout: float | None) -> float | None:
    if isinstance(timeout, Countdown):
        if timeout.left() <= 1e-6:
            raise httpcore.ReadTimeout("timed out")
        return timeout.left()
    return timeout


def _is_readable(connected: socket.socket) -> bool:
    """Whether something waits to be read; of an idle connection that is its end."""
    if connected.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(connected, select.POLLIN)
    return bool(poll.poll(0))
