from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ml.client import InferenceClient, InferenceError, PredictResponse, Readiness
from ml.prediction import Prediction

ANSWER = {
    "model": "a" * 64,
    "predictions": [
        {
            "label": "positive",
            "score": 0.9,
            "probabilities": {"negative": 0.1, "neutral": 0.0, "positive": 0.9},
        }
    ],
}
Respond = Callable[[BaseHTTPRequestHandler, bytes], None]


@contextmanager
def service_that(respond: Respond) -> Iterator[str]:
    """A stand-in at the door: an HTTP server that answers as told."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            respond(self, self.rfile.read(int(self.headers["Content-Length"])))

        do_GET = lambda self: respond(self, b"")  # noqa: E731

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def answering(status: int, document: object) -> Respond:
    return lambda handler, _: send(handler, status, json.dumps(document).encode())


def test_an_answer_becomes_predictions() -> None:
    with service_that(answering(200, ANSWER)) as url, InferenceClient(url, 5) as client:
        found = client.predict(["很好"])
    expected = Prediction("positive", 0.9, {"negative": 0.1, "neutral": 0.0, "positive": 0.9})
    assert found == PredictResponse("a" * 64, (expected,), found.latency_ms)
    assert 0 < found.latency_ms < 5000


def test_lone_surrogates_are_left_out_instead_of_failing() -> None:
    bodies: list[bytes] = []

    def respond(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        bodies.append(body)
        send(handler, 200, json.dumps(ANSWER).encode())

    with service_that(respond) as url, InferenceClient(url, 5) as client:
        client.predict(["很\ud800好\x00"])
    assert json.loads(bodies[0]) == {"texts": ["很好\x00"]}


@pytest.mark.parametrize(
    ("status", "permanent"), [(400, True), (404, True), (413, True), (422, True), (408, False), (429, False)]
)
def test_a_refused_request_is_permanent_unless_the_service_asks_for_patience(
    status: int, permanent: bool
) -> None:
    with (
        service_that(answering(status, {"detail": "the limit is 256"})) as url,
        InferenceClient(url, 5) as client,
        pytest.raises(InferenceError, match=f"{status}: the limit is 256") as caught,
    ):
        client.predict(["很好"])
    assert caught.value.permanent is permanent


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_service_in_trouble_is_not_permanent(status: int) -> None:
    with (
        service_that(lambda handler, _: send(handler, status, b"<html>proxy</html>")) as url,
        InferenceClient(url, 5) as client,
        pytest.raises(InferenceError, match="proxy") as caught,
    ):
        client.predict(["很好"])
    assert caught.value.permanent is False


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[]",
        b"{}",
        b'{"model": "a", "predictions": []}',
        b'{"model": "a", "predictions": [{}]}',
    ],
)
def test_an_answer_that_is_something_else_is_an_error_of_the_same_type(body: bytes) -> None:
    with (
        service_that(lambda handler, _: send(handler, 200, body)) as url,
        InferenceClient(url, 5) as client,
        pytest.raises(InferenceError, match="something that is not its answer") as caught,
    ):
        client.predict(["很好"])
    assert caught.value.permanent is False


def test_nobody_listening_is_not_permanent_and_names_the_address() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with InferenceClient(url, 2) as client, pytest.raises(InferenceError, match=url) as caught:
        client.ready()
    assert caught.value.permanent is False


def test_silence_ends_with_the_timeout() -> None:
    released = threading.Event()

    def respond(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        released.wait(10)
        handler.close_connection = True

    with service_that(respond) as url, InferenceClient(url, 0.2) as client:
        try:
            with pytest.raises(InferenceError, match="did not answer: timed out") as caught:
                client.predict(["很好"])
        finally:
            released.set()
    assert caught.value.permanent is False


@pytest.mark.parametrize("url", ["ftp://somewhere", "localhost:8100", "http://[::bad"])
def test_a_wrong_address_is_permanent(url: str) -> None:
    with pytest.raises(InferenceError, match="is wrong") as caught:
        InferenceClient(url, 1).predict(["很好"])
    assert caught.value.permanent is True


def test_connections_are_reused_and_a_closed_one_is_replaced_silently() -> None:
    peers: list[tuple[str, int]] = []

    def respond(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        peers.append(handler.client_address)
        if len(peers) == 3:
            handler.close_connection = True  # as a restarting service: it hangs up instead of answering
            return
        send(handler, 200, json.dumps(ANSWER).encode())

    with service_that(respond) as url, InferenceClient(url, 5) as client:
        for _ in range(3):
            client.predict(["很好"])
    assert peers[0] == peers[1] == peers[2]
    assert len(peers) == 4


def test_readiness_is_an_answer_even_without_a_model() -> None:
    document = {"ready": False, "model": None, "wanted": "b" * 64, "error": "champion.json: missing"}
    with service_that(answering(503, document)) as url, InferenceClient(url, 5) as client:
        assert client.ready() == Readiness(False, None, "b" * 64, "champion.json: missing")


def test_a_readiness_that_is_no_readiness_is_an_error() -> None:
    with (
        service_that(answering(502, {"detail": "bad gateway"})) as url,
        InferenceClient(url, 5) as client,
        pytest.raises(InferenceError, match="502") as caught,
    ):
        client.ready()
    assert caught.value.permanent is False


def test_threads_may_share_a_client() -> None:
    failures: list[BaseException] = []

    def ask(client: InferenceClient) -> None:
        try:
            for _ in range(20):
                client.predict(["很好"])
        except BaseException as error:
            failures.append(error)

    with service_that(answering(200, ANSWER)) as url, InferenceClient(url, 5) as client:
        threads = [threading.Thread(target=ask, args=(client,)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
