"""Traffic against a small real HTTP server whose answers a test chooses, one after the other."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from blog_site.demo.traffic import CLIENTS, Traffic, ask_once
from tests.servers import wait_until

pytestmark = pytest.mark.once

OLD, NEW = "a" * 64, "b" * 64
TEXTS = ["味道真好", "太差了"]
Answer = tuple[int, bytes]


def answer_of(model: str, predictions: int = 2) -> Answer:
    prediction = {"label": "neutral", "score": 1.0, "probabilities": {}}
    return 200, json.dumps({"model": model, "predictions": [prediction] * predictions}).encode()


class Answering:
    """Gives every client of its own accord: `choose` gets the number of requests before this one."""

    def __init__(self) -> None:
        self.choose: Callable[[int], Answer] = lambda number: answer_of(OLD)
        self.requests = 0
        lock = threading.Lock()
        answering = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                with lock:
                    number = answering.requests
                    answering.requests += 1
                status, body = answering.choose(number)
                if status == 0:  # hang up in the midst of the exchange
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Answering]:
    answering = Answering()
    yield answering
    answering.stop()


@pytest.fixture
def traffic(server: Answering) -> Iterator[Traffic]:
    made = Traffic(server.url, TEXTS)
    yield made
    made.stop()


def models_seen(traffic: Traffic, *expected: str) -> bool:
    return len(traffic.models) == CLIENTS and all(
        seen[-1:] == list(expected) for seen in traffic.models.values()
    )


def test_a_swap_without_a_failure_is_seen_by_every_client(server: Answering, traffic: Traffic) -> None:
    traffic.start()
    wait_until(lambda: models_seen(traffic, OLD), "every client has seen the old model")
    assert not traffic.swapped(OLD, NEW)

    server.choose = lambda number: answer_of(NEW)
    wait_until(lambda: models_seen(traffic, NEW), "every client has seen the new model")
    traffic.stop()

    assert traffic.swapped(OLD, NEW)
    assert traffic.failures == []
    assert traffic.requests == server.requests > CLIENTS


def test_a_swap_that_some_client_has_not_seen_is_none(server: Answering, traffic: Traffic) -> None:
    traffic.start()
    wait_until(lambda: models_seen(traffic, OLD), "every client has seen the old model")
    traffic.stop()

    assert not traffic.swapped(OLD, NEW)
    traffic.models = {number: [OLD, NEW] for number in range(CLIENTS)}
    assert traffic.swapped(OLD, NEW)
    traffic.models[3] = [OLD]
    assert not traffic.swapped(OLD, NEW)


def test_a_flip_back_to_the_old_model_is_noticed(server: Answering, traffic: Traffic) -> None:
    traffic.start()
    wait_until(lambda: models_seen(traffic, OLD), "every client has seen the old model")
    server.choose = lambda number: answer_of(NEW)
    wait_until(lambda: traffic.swapped(OLD, NEW), "every client has seen the new model")

    flip = server.requests
    server.choose = lambda number: answer_of(OLD if number == flip else NEW)
    wait_until(lambda: server.requests > flip + CLIENTS, "one request was answered by the old model")
    traffic.stop()

    assert not traffic.swapped(OLD, NEW)
    assert sorted(len(seen) for seen in traffic.models.values()) == [2] * (CLIENTS - 1) + [4]


@pytest.mark.parametrize(
    ("failing", "words"),
    [
        pytest.param((503, b"no model is being served"), "503: no model is being served", id="refusal"),
        pytest.param((0, b""), "RemoteProtocolError", id="hanging up"),
        pytest.param((200, b"<html>a proxy's page</html>"), "not an answer", id="another page"),
        pytest.param((200, b"[]"), "not an answer", id="another document"),
        pytest.param((200, b'{"predictions": []}'), "not an answer", id="an answer without a model"),
        pytest.param(answer_of(OLD, predictions=1), "1 predictions for 2 texts", id="half an answer"),
    ],
)
def test_a_single_failing_answer_is_noticed_and_the_traffic_goes_on(
    server: Answering, traffic: Traffic, failing: Answer, words: str
) -> None:
    server.choose = lambda number: failing if number == 20 else answer_of(OLD)
    traffic.start()
    wait_until(lambda: traffic.requests > 20 + 2 * CLIENTS, "the traffic went on")
    traffic.stop()

    assert len(traffic.failures) == 1
    assert words in traffic.failures[0]
    assert len(traffic.models) == CLIENTS


def test_a_service_that_is_gone_is_a_failure(server: Answering) -> None:
    server.stop()

    with httpx.Client(base_url=server.url, trust_env=False) as http:
        model, failure = ask_once(http, TEXTS)

    assert model == ""
    assert failure.startswith("ConnectError")
