"""A stand-in at the door, which answers as a test tells it, and the two clients under one face."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

from anyio.from_thread import start_blocking_portal

from ml.client import AsyncInferenceClient, CallPolicy, InferenceClient, PredictResponse, Readiness

Respond = Callable[[BaseHTTPRequestHandler, bytes], None]

PREDICTION = {
    "label": "positive",
    "score": 0.9,
    "probabilities": {"negative": 0.1, "neutral": 0.0, "positive": 0.9},
}
ANSWER = {"model": "a" * 64, "predictions": [PREDICTION]}


@contextmanager
def service_that(respond: Respond, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """A real HTTP server on a free port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 20  # of a connection on which nothing comes

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with suppress(ConnectionError, ssl.SSLError):  # a client that gave up has closed its connection
                respond(self, body)

        def do_GET(self) -> None:
            with suppress(ConnectionError, ssl.SSLError):
                respond(self, b"")

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True  # those that idle connections hold
        request_queue_size = 128  # many clients may connect at once

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http{'s' if context else ''}://{'localhost' if context else '127.0.0.1'}:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def send_answer(handler: BaseHTTPRequestHandler) -> None:
    send(handler, 200, json.dumps(ANSWER).encode())


def answering(status: int, document: object) -> Respond:
    return lambda handler, _: send(handler, status, json.dumps(document).encode())


class Recorder:
    """Answers what its script says, one entry a request, then properly; keeps the requests' headers and times."""

    def __init__(self, *script: Callable[[BaseHTTPRequestHandler], None]) -> None:
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self._script = list(script)
        self._lock = threading.Lock()

    @property
    def asked(self) -> int:
        return len(self.headers)

    def __call__(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        with self._lock:
            self.headers.append({name.lower(): value for name, value in handler.headers.items()})
            self.bodies.append(body)
            act = self._script.pop(0) if self._script else send_answer
        act(handler)


def refusing(status: int, detail: str = "no", **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    return lambda handler: send(handler, status, json.dumps({"detail": detail}).encode(), **headers)


class Client(Protocol):
    """What both clients can do, as a thread sees it."""

    def predict(self, texts: Sequence[str], **options: Any) -> PredictResponse: ...
    def ready(self) -> Readiness: ...


OpenClient = Callable[..., Any]


@contextmanager
def blocking(
    url: str, timeout_seconds: float, *, token: str = "", policy: CallPolicy | None = None
) -> Iterator[Client]:
    with InferenceClient(url, timeout_seconds, token=token, policy=policy) as client:
        yield client


@contextmanager
def asynchronous(
    url: str, timeout_seconds: float, *, token: str = "", policy: CallPolicy | None = None
) -> Iterator[Client]:
    """The asynchronous client, its event loop in a thread of its own."""
    with start_blocking_portal() as portal:
        client = AsyncInferenceClient(url, timeout_seconds, token=token, policy=policy)

        class FromThread:
            def predict(self, texts: Sequence[str], **options: Any) -> PredictResponse:
                return portal.call(partial(client.predict, texts, **options))

            def ready(self) -> Readiness:
                return portal.call(client.ready)

        try:
            yield FromThread()
        finally:
            portal.call(client.aclose)
