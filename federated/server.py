"""The aggregator's HTTP side: a thread a connection, plain sockets, each message read once into a lent buffer.

Trainers keep one connection for the whole run. Held requests cost a waiting thread; what is read at a time, and so the
memory, is bounded however many sites there are.
"""

from __future__ import annotations

import hmac
import json
import logging
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Protocol

from federated.averaging import InconsistentUpdates
from federated.protocol import (
    MESSAGE_TYPE,
    NOT_COUNTED_HEADER,
    Message,
    MessageError,
    Tensors,
    Update,
    decode_message,
    read_metrics,
    read_token_counts,
    size_of,
    tidy_reason,
)
from federated.tls import name_failure

MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
READERS: Final = 4  # messages read at once; the others wait in their sockets
IDLE_SECONDS: Final = 900.0  # a connection that says nothing for so long is closed; a trainer opens another
READ_SECONDS: Final = 20.0  # for a message to arrive, and a second more for each megabyte
WRITE_SECONDS: Final = 120.0
HANDSHAKE_SECONDS: Final = 10.0
LINGER_SECONDS: Final = 2.0
PLAIN_REFUSAL: Final = (
    "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: {size}\r\n"
    "Connection: close\r\n\r\n{reason}"
)

log = logging.getLogger(__name__)


class Refused(Exception):
    """A request that is not served: an HTTP status, and the reason as the site will read it."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Requests(Protocol):
    """What the server asks of an aggregator. Each may raise Refused; those that hold the site say so."""

    def name(self) -> str:
        """The run's name."""

    def describe(self, site: str) -> dict[str, Any]:
        """What a site should know before it joins."""

    def announce(self, site: str, token_counts: Mapping[str, int]) -> None:
        """Take a site in."""

    def wait_for_training(self) -> Message:
        """Hold the site until it has a round to answer; gives the plan and the parameters."""

    def receive(self, update: Update, size_bytes: int) -> str:
        """Take an update; its gradient may be overwritten afterwards. Gives the reason when it was not counted."""

    def note_refusal(self, site: str, address: str, status: int, reason: str) -> None:
        """Hear of a refusal: of a site, or of a stranger at an address, for as many as there may be."""

    def wait_for_round(self, after: int) -> Message:
        """Hold the site until the round is closed; gives the next round's parameters."""


class Buffers:
    """Buffers to read messages into: at most READERS at once, used again and again."""

    def __init__(self) -> None:
        self._free: list[bytearray] = []
        self._readers = threading.BoundedSemaphore(READERS)
        self._lock = threading.Lock()

    @contextmanager
    def lend(self, size: int) -> Iterator[memoryview]:
        """Give room for `size` bytes until the block ends; nothing may refer to it afterwards."""
        with self._readers:
            with self._lock:
                buffer = self._free.pop() if self._free else bytearray()
            if len(buffer) < size:
                buffer = bytearray(size)
            try:
                yield memoryview(buffer)[:size]
            finally:
                with self._lock:
                    self._free.append(buffer)


class AggregatorServer(ThreadingHTTPServer):
    """Serves one run on a listening socket; `tokens` maps each site to its bearer token. With `tls`, HTTPS only."""

    daemon_threads = True  # a held request must not keep the process from ending

    def __init__(
        self,
        listener: socket.socket,
        requests: Requests,
        tokens: Mapping[str, str],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(listener.getsockname()[:2], SiteConnection, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.requests = requests
        self.tokens = tokens
        self.buffers = Buffers()
        self._tls = tls

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection, in a thread of its own; so is the handshake, which nobody else has to wait for."""
        if self._tls is None:
            super().finish_request(request, client_address)
            return
        request.settimeout(HANDSHAKE_SECONDS)
        # The handshake comes after: where it fails within wrap_socket, the reason does not reach the site.
        secured = self._tls.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
        try:
            secured.do_handshake()
        except OSError as error:
            self._refuse_handshake(secured, str(client_address[0]), error)
        else:
            super().finish_request(secured, client_address)
        finally:
            self.shutdown_request(secured)

    def _refuse_handshake(self, secured: ssl.SSLSocket, address: str, error: OSError) -> None:
        """Say so to a site that spoke plain HTTP, and let another see the alert that says why."""
        with socket.socket(fileno=secured.detach()) as plain, suppress(OSError):
            plain.settimeout(LINGER_SECONDS)
            if isinstance(error, TimeoutError):
                self.requests.note_refusal(
                    "", address, 0, f"no TLS handshake within {HANDSHAKE_SECONDS:.0f} s"
                )
                return
            if name_failure(error) == "http request":
                reason = "this port speaks TLS only: give the aggregator's address as https://"
                self.requests.note_refusal("", address, 400, reason)
                plain.sendall(PLAIN_REFUSAL.format(size=len(reason), reason=reason).encode())
            elif isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
                self.requests.note_refusal("", address, 0, f"no TLS connection: {name_failure(error)}")
            # Closed at once with something unread, the site would not get to see why.
            plain.shutdown(socket.SHUT_WR)
            deadline = time.monotonic() + LINGER_SECONDS
            while time.monotonic() < deadline and plain.recv(2**16):
                pass

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Leave a word in the log about a connection that ended in an unexpected way; not about one that broke."""
        if not isinstance(sys.exception(), OSError):
            log.exception("a connection from %s failed", client_address)

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serve in a thread until the block ends."""
        thread = threading.Thread(target=self.serve_forever, args=(0.1,), name="server", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.shutdown()
            thread.join()
            self.server_close()


class SiteConnection(BaseHTTPRequestHandler):
    """One connection of a site, request after request."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = IDLE_SECONDS
    server: AggregatorServer
    _unread = 0  # bytes of the present request's body that nobody has read
    _speaker = ""  # the site whose token came with the present request

    def do_GET(self) -> None:
        """Answer what asks for no message."""
        self._answer({"/livez": self._say_alive, "/v1/settings": self._tell_settings})

    def do_POST(self) -> None:
        """Answer what brings one."""
        self._answer({"/v1/join": self._join}, otherwise=self._take_update)

    def log_message(self, *arguments: Any) -> None:
        """Say nothing of ordinary requests."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse what is no HTTP request that this server knows, without repeating any of it."""
        self.close_connection = True  # nobody knows where the next request begins
        self._unread, self._speaker = 0, ""
        self.request_version = self.protocol_version  # else what has none would be answered without a status
        self._refuse(code, f"not a request that the aggregator understands: {HTTPStatus(code).phrase}")

    def _answer(self, routes: Mapping[str, Any], otherwise: Any = None) -> None:
        route = routes.get(self.path, otherwise or self._not_found)
        self._speaker = ""
        try:
            self._unread = self._announced_bytes()
            route()
        except Refused as refusal:
            self._refuse(refusal.status, str(refusal))
        except (MessageError, InconsistentUpdates) as error:
            self._refuse(422, str(error))
        except OSError:  # the site is gone, or too slow
            self.close_connection = True

    # -- Routes --------------------------------------------------------------------------------------------------

    def _say_alive(self) -> None:
        self._send(200, json.dumps({"run": self.server.requests.name()}).encode(), "application/json")

    def _tell_settings(self) -> None:
        document = self.server.requests.describe(self._site())
        self._send(200, json.dumps(document, ensure_ascii=False).encode(), "application/json")

    def _join(self) -> None:
        site = self._site()
        with self._message() as (header, _tensors):
            self.server.requests.announce(site, read_token_counts(header.get("token_counts")))
        self._send(200, self.server.requests.wait_for_training(), MESSAGE_TYPE)

    def _take_update(self) -> None:
        number = self._round_of_path()
        site = self._site()
        size_bytes = self._unread
        with self._message() as (header, tensors):
            validation = read_metrics(header["validation"]) if header.get("validation") else None
            update = Update(site, number, tensors, read_metrics(header.get("batch")), validation)
            not_counted = self.server.requests.receive(update, size_bytes)
            del update, tensors  # they lie in the lent buffer
        headers = {NOT_COUNTED_HEADER: not_counted} if not_counted else {}
        if not_counted:
            self._note(200, not_counted)
        self._send(200, self.server.requests.wait_for_round(number), MESSAGE_TYPE, headers)

    def _not_found(self) -> None:
        # Not repeated: in the wrong place, a token may stand in it.
        raise Refused(404, "this is no address of the aggregator: /v1/settings, /v1/join and others are")

    def _round_of_path(self) -> int:
        parts = self.path.split("/")
        shape = parts[:3] == ["", "v1", "rounds"] and parts[4:] == ["update"]
        if not shape or not parts[3].isascii() or not parts[3].isdigit() or len(parts[3]) > 12:
            self._not_found()
        return int(parts[3])

    # -- Reading and writing -------------------------------------------------------------------------------------

    def _site(self) -> str:
        given = self.headers.get("authorization", "").removeprefix("Bearer ").encode("utf-8", "replace")
        # Every token is compared, in constant time, so that the answer's delay tells nothing.
        matches = [
            site for site, token in self.server.tokens.items() if hmac.compare_digest(given, token.encode())
        ]
        if not matches:
            raise Refused(401, "no site has this token")
        self._speaker = matches[0]
        return self._speaker

    def _announced_bytes(self) -> int:
        announced = self.headers.get("content-length", "0")
        is_number = announced.isascii() and announced.isdigit() and len(announced) <= 18
        if self.headers.get("transfer-encoding") or not is_number:
            self.close_connection = True  # nobody knows where the next request begins
            raise Refused(411, "a message must announce its Content-Length")
        return int(announced)

    @contextmanager
    def _message(self) -> Iterator[tuple[dict[str, Any], Tensors]]:
        """Read the body's message; it lies in a lent buffer until the block ends."""
        if self._unread > MAX_MESSAGE_BYTES:
            raise Refused(413, f"a message may have {MAX_MESSAGE_BYTES} bytes")
        with self.server.buffers.lend(self._unread) as view:
            self._read_into(view)
            yield decode_message(view)

    def _read_into(self, view: memoryview) -> None:
        seconds = READ_SECONDS + len(view) / 2**20
        deadline = time.monotonic() + seconds
        read = 0
        while read < len(view):
            try:
                count = self._read_until(deadline, view[read:])
            except TimeoutError as error:
                raise Refused(408, f"the message did not arrive within {seconds:.0f} s") from error
            if not count:
                raise ConnectionError("the site left amid a message")
            read += count
            self._unread -= count
        self.connection.settimeout(IDLE_SECONDS)

    def _read_until(self, deadline: float, view: memoryview) -> int:
        """Read what is there, at least a byte; 0 at the end. Raises TimeoutError, also for one that only dribbles."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.connection.settimeout(left)
        return self.rfile.readinto1(view)

    def _refuse(self, status: int, text: str) -> None:
        reason = tidy_reason(text)
        # That the run is over is no fault of the site's, and has its own place in the diary.
        if status != HTTPStatus.GONE:
            self._note(status, reason)
        with suppress(OSError):
            self._send(status, reason.encode(), "text/plain; charset=utf-8")
            if self._unread:
                self._let_finish()

    def _note(self, status: int, reason: str) -> None:
        address = "" if self._speaker else str(self.client_address[0])
        self.server.requests.note_refusal(self._speaker, address, status, reason)

    def _send(
        self,
        status: int,
        body: bytes | Message,
        media_type: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        pieces = [memoryview(body)] if isinstance(body, bytes) else body
        self.connection.settimeout(WRITE_SECONDS)
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(size_of(pieces)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if self._unread or self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        for piece in pieces:
            self.wfile.write(piece)
        self.connection.settimeout(IDLE_SECONDS)

    def _let_finish(self) -> None:
        """Read on for a while after a refusal: closed at once, the site would not get to see the reason."""
        self.close_connection = True
        # Not what TLS makes of shutdown: that would forget how to read.
        socket.socket.shutdown(self.connection, socket.SHUT_WR)
        self.connection.settimeout(LINGER_SECONDS)
        left = min(self._unread, 2 * MAX_MESSAGE_BYTES)
        deadline = time.monotonic() + 5
        while left > 0 and time.monotonic() < deadline and (chunk := self.rfile.read1(2**16)):
            left -= len(chunk)
