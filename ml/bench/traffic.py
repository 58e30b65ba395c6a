"""Asking a server over HTTP/1.1 so cheaply that the asking is not what limits it.

Requests are bytes made beforehand, connections are sockets under one epoll, and of an answer no more is read than
where it ends. Two ways of asking: clients that each wait for their answer before they ask again (a closed loop), and
arrivals at a rate that does not care how the server does (an open loop).
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import psutil

LOST: Final = 0  # the status of a request whose connection ended before its answer
UNSENT: Final = -1  # of an arrival that found every connection taken
_CHUNK_BYTES: Final = 1 << 18
_CONNECT_SECONDS: Final = 5
_PATIENCE_SECONDS: Final = 10  # without any answer at all, before the server is given up
KEEP_EVERY: Final = 37  # answers, of which one is kept to be looked at


class Answer(NamedTuple):
    """What became of one request."""

    number: int  # of the request, in the sequence that is asked
    status: int  # of HTTP, or LOST, or UNSENT
    head: bytes
    body: bytes
    began: float  # perf_counter seconds: when it was sent, or in an open loop when it should have been
    ended: float


@dataclass(frozen=True)
class Traffic:
    """What was asked within a window of time, and what came of it."""

    seconds: float  # of the window
    statuses: dict[int, int]  # how many ended with which, LOST and UNSENT among them
    latencies_ms: npt.NDArray[np.float64]  # of those answered with 200
    client_cpu_share: float  # of the core that asks
    server_cpu_us: float  # a request that was sent, refused or not; 0 where no process was named
    kept: list[Answer]  # a sample of those answered with 200

    @property
    def answered(self) -> int:
        """Requests answered with 200."""
        return self.statuses.get(200, 0)

    @property
    def failed(self) -> int:
        """Requests that ended otherwise."""
        return sum(self.statuses.values()) - self.answered

    @property
    def rate(self) -> float:
        """Requests answered with 200, a second."""
        return self.answered / self.seconds

    def percentile_ms(self, percent: float) -> float:
        """Give a percentile of the latency of those answered with 200; NaN when there were none."""
        return float(np.percentile(self.latencies_ms, percent)) if len(self.latencies_ms) else float("nan")

    def rate_within(self, limit_ms: float) -> float:
        """Requests answered with 200 and in time, a second."""
        return int((self.latencies_ms <= limit_ms).sum()) / self.seconds


class Connection:
    """One connection, with at most one request under way."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._received = b""
        self.number = 0
        self.began = 0.0
        self.busy = False
        self._connect()

    def _connect(self) -> None:
        self.socket = socket.create_connection(("127.0.0.1", self._port), _CONNECT_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._received = b""

    def ask(self, number: int, request: bytes, began: float) -> None:
        """Send a request; what does not fit into the socket's buffer is waited for, which only large ones do."""
        self.number, self.began, self.busy = number, began, True
        try:
            sent = self.socket.send(request)
        except OSError:  # the server has closed it; reading will tell
            return
        if sent < len(request):
            self.socket.settimeout(_CONNECT_SECONDS)
            self.socket.sendall(request[sent:])
            self.socket.setblocking(False)

    def receive(self) -> Answer | None:
        """Read what has come; gives the answer when all of it is there. Raises ValueError for what is no answer."""
        try:
            part = self.socket.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            part = b""
        if not part:
            return self._end(LOST, b"", b"")
        received = self._received = self._received + part if self._received else part
        end = received.find(b"\r\n\r\n")
        if end < 0:
            return None
        length = read_content_length(received[:end])
        if len(received) < end + 4 + length:
            return None
        self._received = b""
        return self._end(int(received[9:12]), received[:end], received[end + 4 :])

    def reopen(self) -> None:
        """Connect anew, after the server has closed."""
        self.socket.close()
        self._connect()

    def _end(self, status: int, head: bytes, body: bytes) -> Answer:
        self.busy = False
        return Answer(self.number, status, head, body, self.began, time.perf_counter())


def read_content_length(head: bytes) -> int:
    """Find how long the body is; raises ValueError when the head does not say so."""
    lowered = head.lower()
    at = lowered.find(b"\r\ncontent-length:")
    if at < 0:
        raise ValueError(f"an answer without Content-Length, which this client cannot read: {head[:200]!r}")
    return int(lowered[at + 17 :].split(b"\r\n", 1)[0])


class _Clients:
    """Connections by file descriptor, under one epoll."""

    def __init__(self, port: int, count: int) -> None:
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}
        for _ in range(count):
            self._register(Connection(port))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._connections.values():
            connection.socket.close()
        self._epoll.close()

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._connections.values()))

    def wait(self, seconds: float) -> list[tuple[Connection, Answer]]:
        """Wait for answers; gives those that are whole. Returns early when anything comes."""
        if 0 < seconds < 0.01:
            # epoll counts milliseconds, select microseconds; and an epoll is a file that select can watch.
            select.select([self._epoll], [], [], seconds)
            seconds = 0
        found = []
        for descriptor, _ in self._epoll.poll(max(0, seconds)):
            connection = self._connections[descriptor]
            was_busy = connection.busy
            answer = connection.receive()
            if answer is None:
                continue
            if answer.status == LOST:
                self._reopen(descriptor)
            if was_busy:
                found.append((connection, answer))
        return found

    def _register(self, connection: Connection) -> None:
        descriptor = connection.socket.fileno()
        self._connections[descriptor] = connection
        self._epoll.register(descriptor, select.EPOLLIN)

    def _reopen(self, descriptor: int) -> None:
        connection = self._connections.pop(descriptor)  # closing takes it out of the epoll
        connection.reopen()
        self._register(connection)


def ask_in_turns(port: int, requests: Sequence[bytes], clients: int) -> Generator[Answer, None, None]:
    """Let clients ask for ever, each its next request when its last is answered; gives the answers as they come.

    Raises TimeoutError when no answer comes for long, ConnectionError when the server is gone.
    """
    number = 0
    with _Clients(port, clients) as connections:
        for connection in connections:
            connection.ask(number % len(requests), requests[number % len(requests)], time.perf_counter())
            number += 1
        heard = time.perf_counter()
        while time.perf_counter() - heard < _PATIENCE_SECONDS:
            for connection, answer in connections.wait(1.0):
                next_number = number % len(requests)
                connection.ask(next_number, requests[next_number], time.perf_counter())
                number += 1
                heard = answer.ended
                yield answer
    raise TimeoutError(f"the server at port {port} gave no answer for {_PATIENCE_SECONDS} s")


def ask_at_rate(
    port: int, requests: Sequence[bytes], *, rate: float, seconds: float, connections: int
) -> Iterator[Answer]:
    """Let requests arrive at `rate` a second, at random (Poisson), whatever the server does; gives what became of each.

    Each arrival is a client of its own, up to `connections` at once; one that finds all taken is UNSENT. Times count
    from when a request should have been sent, so that no wait is hidden (Tene's "coordinated omission"). After the
    last arrival answers are awaited for some seconds; what is open then is LOST.
    """
    generator = np.random.default_rng(1)
    arrivals = np.cumsum(generator.exponential(1 / rate, int(rate * seconds))).tolist()
    with _Clients(port, connections) as clients:
        idle = list(clients)
        began = time.perf_counter()
        due = 0
        while due < len(arrivals) or len(idle) < connections:
            now = time.perf_counter()
            if now - began > arrivals[-1] + _PATIENCE_SECONDS:
                break
            while due < len(arrivals) and began + arrivals[due] <= now:
                number, intended = due % len(requests), began + arrivals[due]
                due += 1
                if idle:
                    idle.pop().ask(number, requests[number], intended)
                else:
                    yield Answer(number, UNSENT, b"", b"", intended, intended)
            until = arrivals[due] + began - time.perf_counter() if due < len(arrivals) else 0.05
            for connection, answer in clients.wait(until):
                idle.append(connection)
                yield answer
        for connection in clients:
            if connection.busy:
                yield Answer(connection.number, LOST, b"", b"", connection.began, time.perf_counter())


def measure_turns(
    port: int,
    requests: Sequence[bytes],
    *,
    clients: int,
    seconds: float,
    warm_up_seconds: float = 0.5,
    server_pid: int | None = None,
) -> Traffic:
    """Let clients ask in turns for some seconds; what was answered during the warm-up before does not count."""
    start = time.perf_counter() + warm_up_seconds
    tally = _Tally(seconds, server_pid)
    with contextlib.closing(ask_in_turns(port, requests, clients)) as answers:
        for answer in answers:
            if answer.ended > start + seconds:
                break
            if answer.ended >= start:
                tally.add(answer)
    return tally.conclude()


def measure_rate(
    port: int,
    requests: Sequence[bytes],
    *,
    rate: float,
    connections: int,
    seconds: float,
    warm_up_seconds: float = 1.0,
    server_pid: int | None = None,
) -> Traffic:
    """Let requests arrive at a rate for some seconds; those that arrived during the warm-up before do not count."""
    start = time.perf_counter() + warm_up_seconds
    tally = _Tally(seconds, server_pid)
    for answer in ask_at_rate(
        port, requests, rate=rate, seconds=warm_up_seconds + seconds, connections=connections
    ):
        if answer.began >= start:
            tally.add(answer)
    return tally.conclude()


class _Tally:
    """Counts answers, and what both processors do from the first to the last of them."""

    def __init__(self, seconds: float, server_pid: int | None) -> None:
        self._seconds = seconds
        self._server = psutil.Process(server_pid) if server_pid else None
        self._statuses: Counter[int] = Counter()
        self._latencies: list[float] = []
        self._kept: list[Answer] = []
        self._began: tuple[float, float, float] | None = None

    def add(self, answer: Answer) -> None:
        if self._began is None:
            self._began = self._read_clocks()
        self._statuses[answer.status] += 1
        if answer.status == 200:
            self._latencies.append(answer.ended - answer.began)
            if len(self._latencies) % KEEP_EVERY == 0:
                self._kept.append(answer)

    def conclude(self) -> Traffic:
        ended = self._read_clocks()
        clock, ours, servers = (end - begin for begin, end in zip(self._began or ended, ended, strict=True))
        return Traffic(
            seconds=self._seconds,
            statuses=dict(self._statuses),
            latencies_ms=np.array(self._latencies) * 1000,
            client_cpu_share=ours / clock if clock else 0.0,
            server_cpu_us=servers * 1e6 / max(1, self._statuses.total() - self._statuses[UNSENT]),
            kept=self._kept,
        )

    def _read_clocks(self) -> tuple[float, float, float]:
        """Seconds of the clock, of this process and of the server's, with what that has started."""
        family = [self._server, *self._server.children(recursive=True)] if self._server else []
        servers = sum(sum(process.cpu_times()[:2]) for process in family)
        return time.perf_counter(), time.process_time(), servers
