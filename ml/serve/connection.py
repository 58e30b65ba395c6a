"""One client's connection: time limits, size limits, and refusals that cost next to nothing."""

from __future__ import annotations

import asyncio
import functools
import logging
import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from ml.serve.admission import units_of
from ml.serve.exchange import overloaded
from ml.serve.gateway import ADMITTED_UNITS, IS_CONNECTED, Gateway, log_access
from ml.serve.metrics import Refusal
from ml.serve.problems import PROBLEM_TYPE, problem_document
from ml.serve.settings import ServeSettings
from ml.trace import REQUEST_ID, TRACE_PARENT, request_id_of, trace_of

log = logging.getLogger(__name__)

MAX_HEADER_BYTES: Final = 32 * 1024  # of a request, its address among them
_SWEEP_SECONDS: Final = 0.5  # between two looks for connections that are too slow
_LINGER_SECONDS: Final = 5.0  # for a client to read the last answer before its connection is cut
_NEVER: Final = float("inf")

_HEADERS_THAT_MATTER: Final = re.compile(
    rb"\n(content-length|transfer-encoding|connection|expect|upgrade|x-request-id):[ \t]*([^\r\n]*?)[ \t]*\r",
    re.IGNORECASE,
)
_HEADERS_OF_PLAIN_REQUESTS: Final = {b"content-length", REQUEST_ID}
_PLAIN_HEAD_BYTES: Final = 1024  # of a longer one the parser takes care
_REMEMBERED_HEADS: Final = 512

Headers = Sequence[tuple[bytes, bytes]]


class _PlainHead(NamedTuple):
    """What must be known of a request for the model to refuse it, when it is as most clients send it."""

    length: int  # of its body
    of_protocol: bool  # whether it speaks the Open Inference Protocol
    request_id: bytes | None  # as the client gives it


class GuardedConnection(HttpToolsProtocol):
    """uvicorn's connection, and what a service open to slow and to many clients needs beside it.

    A client that is too slow is found by one sweep over all connections, so that the others pay for no timers. A
    request for the model is let in or refused when its headers are there. A refusal is written without a task, without
    a scope and before the body comes: under overload most requests are refused, and what that costs is taken from
    those that are answered.
    """

    guard: ConnectionGuard  # set by guarded_protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a client in, or turn it away when there are too many."""
        super().connection_made(transport)
        limit = self.guard.settings.max_connections
        self.slow_at = self.loop.time() + self.guard.settings.headers_seconds
        self._receiving = False  # in the midst of a request
        self._header_bytes = 0
        self._deaf_at = _NEVER  # when a client that does not take its answer is cut off
        self.guard.watch(self.loop, self.server_state)
        if len(self.connections) > limit:
            detail = f"there are {limit} connections already, which is the limit; ask again later"
            self.refuse_connection(503, detail, "connections", [(b"retry-after", b"1")])

    def data_received(self, data: bytes) -> None:
        """Read on; what is no HTTP gets a problem document and is closed."""
        if self.transport.is_closing():
            return
        guard = self.guard
        if (
            guard.admission.is_full
            and not self._receiving
            and (self.cycle is None or self.cycle.response_complete)
        ):
            refusal = guard.refuse_unparsed(data)
            if refusal is not None:
                self.transport.write(refusal)
                self.slow_at = guard.idle_until
                return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.refuse_connection(400, "this service speaks HTTP/1.1 and upgrades to nothing else")
        except httptools.HttpParserError as error:
            if self._header_bytes > MAX_HEADER_BYTES:
                detail = f"address and headers are larger than the limit of {MAX_HEADER_BYTES} bytes"
                self.refuse_connection(431, detail)
            else:
                self.refuse_connection(400, f"the request cannot be understood as HTTP/1.1: {error}")

    def on_message_begin(self) -> None:
        """A request begins: its headers have so much time."""
        super().on_message_begin()
        self._receiving, self._header_bytes = True, 0
        self.slow_at = self.loop.time() + self.guard.settings.headers_seconds

    def on_url(self, url: bytes) -> None:
        """Take a part of the address."""
        self._count_header_bytes(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._count_header_bytes(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Refuse the request when there is too much to do already, now that all is known but its body."""
        self.slow_at = self.loop.time() + self.guard.settings.body_seconds
        busy = self.cycle is not None and not self.cycle.response_complete
        if not busy and self.url.partition(b"?")[0] in self.guard.direct_paths:
            if self.guard.admission.is_full:
                self._refuse_request()
                return
            scope: dict[str, Any] = self.scope  # type: ignore[assignment]  # of our own keys the type knows nothing
            scope[IS_CONNECTED] = self._is_connected
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is here: from now on it is our turn, unless it was answered before its body came.

        Only now does it count as work under way: clients that send their bodies slowly must not keep others out.
        """
        self._receiving = False
        if self.cycle.response_complete:
            self.slow_at = self._idle_until()
            return
        self.slow_at = _NEVER
        scope: dict[str, Any] = self.cycle.scope  # type: ignore[assignment]
        if IS_CONNECTED in scope:
            units = units_of(
                dict(scope["headers"]).get(b"content-length"), self.guard.settings.max_body_bytes
            )
            self.guard.admission.enter(units)
            scope[ADMITTED_UNITS] = units
        super().on_message_complete()
        if not self.pipeline:
            # A large body has paused reading, and a client that leaves is only seen where something is read.
            self.flow.resume_reading()

    def on_response_complete(self) -> None:
        """The answer is out: go on with what the client sent meanwhile, or wait for more, without a timer."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self.slow_at = self.loop.time() + _LINGER_SECONDS
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif not self._receiving:
            self.slow_at = self._idle_until()

    def refuse_connection(
        self, status: int, detail: str, reason: Refusal | None = None, headers: Headers = ()
    ) -> None:
        """Answer with a problem, where there is still place for an answer, and close."""
        if reason is not None:
            self.guard.metrics.count_refusal(reason)
        cycle = self.cycle
        if cycle is None or cycle.response_complete or not cycle.response_started:
            content = problem_document(status, detail, "")
            self.transport.write(render_answer(status, content, [*headers, (b"connection", b"close")]))
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.close()
        self.slow_at = self.loop.time() + _LINGER_SECONDS

    def check_speed(self, now: float) -> None:
        """Close a client that took too long to send something, or to take its answer; politely at first."""
        if not self.flow.write_paused:
            self._deaf_at = _NEVER
        elif self._deaf_at == _NEVER:
            self._deaf_at = now + self.guard.settings.idle_seconds
        if now < min(self.slow_at, self._deaf_at):
            return
        if self.transport.is_closing() or self.transport.get_write_buffer_size() > 0:
            self.transport.abort()  # it does not even read
        elif self._receiving:
            self.refuse_connection(408, "the request did not arrive in time", "slow")
        else:
            self.transport.close()
            self.slow_at = self.loop.time() + _LINGER_SECONDS

    def _idle_until(self) -> float:
        return self.loop.time() + self.guard.settings.idle_seconds

    def _is_connected(self) -> bool:
        return not self.transport.is_closing()

    def _count_header_bytes(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > MAX_HEADER_BYTES:
            raise ValueError("headers too large")  # ends the parsing; data_received says what it was

    def _refuse_request(self) -> None:
        """Answer 429 and keep the connection; the body, when it comes, is thrown away."""
        headers = dict(self.headers)
        # A client that waits to be told to send its body would leave us waiting for it.
        keep_alive = self.parser.should_keep_alive() and not self.expect_100_continue
        request_id = request_id_of(headers.get(REQUEST_ID))
        guard = self.guard
        of_protocol = self.url.startswith(b"/v2")
        self.transport.write(guard.render_refusal(of_protocol, request_id, keep_alive=keep_alive))
        guard.metrics.count_refusal("overload")
        self.cycle = guard.answered_cycle
        if guard.settings.access_log:
            log_access(
                request_id=request_id,
                trace=trace_of(headers.get(TRACE_PARENT)),
                method=self.parser.get_method().decode(),
                path=self.url.decode("ascii", "replace"),
                status=429,
                seconds=0.0,
            )
        if not keep_alive:
            self.transport.close()


class ConnectionGuard:
    """What all connections of a service share: its limits, who is let in, and the sweep."""

    def __init__(self, gateway: Gateway) -> None:
        service = gateway.service
        self.settings: ServeSettings = service.settings
        self.admission = service.admission
        self.metrics = service.metrics
        self.direct_paths = gateway.direct_paths
        self._access_log = service.settings.access_log
        self._request_lines = tuple(b"POST %s HTTP/1.1\r\n" % path for path in self.direct_paths)
        # Of one client's requests the heads differ in the length of the body, if in anything.
        self._plain_head = functools.lru_cache(_REMEMBERED_HEADS)(self._read_plain_head)
        # Stands where uvicorn keeps the request under way; typed as such, of which it has what is asked of one that
        # is over.
        self.answered_cycle: Any = _AnsweredCycle()
        self._sweeping = False
        self.idle_until = (
            _NEVER  # for connections that are refused now, near enough: asking for the time costs as well
        )
        self._refusals: dict[tuple[bool, bool, int], bytes] = {}

    def watch(self, loop: asyncio.AbstractEventLoop, server: ServerState) -> None:
        """See to it that slow connections are closed, while there is any connection."""
        if not self._sweeping:
            self._sweeping = True
            self.idle_until = loop.time() + _SWEEP_SECONDS + self.settings.idle_seconds
            loop.call_later(_SWEEP_SECONDS, self._sweep, loop, server)

    def _sweep(self, loop: asyncio.AbstractEventLoop, server: ServerState) -> None:
        now = loop.time()
        self.idle_until = now + _SWEEP_SECONDS + self.settings.idle_seconds
        for connection in list(server.connections):
            if isinstance(connection, GuardedConnection):
                connection.check_speed(now)
        self.metrics.record_overloads()
        self._sweeping = False
        if server.connections:
            self.watch(loop, server)

    def refuse_unparsed(self, data: bytes) -> bytes | None:
        """Give the bytes of a 429 for a request that is plainly whole and plainly for the model; None for any other.

        Parsing costs five times what this does; whatever is not as most clients send it is left to the parser, which
        refuses it as well.
        """
        end = data.find(b"\r\n\r\n")
        if self._access_log or not 0 <= end <= _PLAIN_HEAD_BYTES:
            return None
        plain = self._plain_head(data[: end + 2])
        if plain is None or plain.length != len(data) - end - 4:
            return None
        self.metrics.count_overload()
        return self.render_refusal(plain.of_protocol, request_id_of(plain.request_id), keep_alive=True)

    def _read_plain_head(self, head: bytes) -> _PlainHead | None:
        """Look for the few headers that matter."""
        found = _HEADERS_THAT_MATTER.findall(head)
        headers = {name.lower(): value for name, value in found}
        length = headers.get(b"content-length", b"")
        plain = (
            head.startswith(self._request_lines)
            and length.isdigit()
            and len(length) < 9
            and len(headers) == len(found)
            and headers.keys() <= _HEADERS_OF_PLAIN_REQUESTS
        )
        if not plain:
            return None
        return _PlainHead(int(length), head[5:].startswith(b"/v2"), headers.get(REQUEST_ID))

    def render_refusal(self, of_protocol: bool, request_id: bytes, *, keep_alive: bool) -> bytes:
        """Give the bytes of a 429, which are the same but for the request's id."""
        seconds = self.admission.retry_after_seconds
        key = (of_protocol, keep_alive, seconds)
        head = self._refusals.get(key)
        if head is None:
            problem = overloaded(seconds)
            content = problem_document(problem.status, problem.detail, "/v2" if of_protocol else "")
            headers = [(b"retry-after", b"%d" % seconds)]
            if not keep_alive:
                headers.append((b"connection", b"close"))
            head = render_answer(problem.status, content, [*headers, (REQUEST_ID, b"%s")])
            self._refusals[key] = head
        return head % request_id


class _AnsweredCycle:
    """A request that is over, as far as uvicorn asks."""

    response_started = response_complete = True
    disconnected = False
    keep_alive = True

    def __init__(self) -> None:
        self.message_event = asyncio.Event()


def render_answer(status: int, content: bytes, headers: Headers) -> bytes:
    """Give the bytes of a whole answer that is a problem document."""
    lines = [STATUS_LINE[status]]
    for name, value in ((b"content-type", PROBLEM_TYPE), (b"content-length", b"%d" % len(content)), *headers):
        lines.append(b"%s: %s\r\n" % (name, value))
    return b"".join([*lines, b"\r\n", content])


def guarded_protocol(gateway: Gateway) -> type[asyncio.Protocol]:
    """Make the connection class of a service, for uvicorn's `http` setting."""
    return type("Connection", (GuardedConnection,), {"guard": ConnectionGuard(gateway)})
