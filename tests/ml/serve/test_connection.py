"""Slow, rude and too many clients, byte by byte."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from typing import Any

import httpx
import pytest

from ml.serve.admission import REQUEST_UNITS, Admission
from ml.serve.batcher import Probabilities
from ml.serve.exchange import Exchange
from ml.serve.service import InferenceService
from tests.ml.serve.conftest import Served, ServeHere, is_closed, read_answer
from tests.servers import wait_until

BODY = json.dumps({"texts": ["很好看"]}).encode()


def request(body: bytes = BODY, more_headers: bytes = b"", path: bytes = b"/v1/predict") -> bytes:
    return b"POST %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s" % (
        path,
        more_headers,
        len(body),
        body,
    )


def fill(served: Served) -> Admission:
    """Make the service believe that it has more to do than it can."""
    admission = served.gateway.service.admission
    admission.enter(10**9)
    return admission


def test_a_client_that_never_finishes_its_headers_is_told_so_and_closed(serve_here: ServeHere) -> None:
    with serve_here(headers_seconds=0.3) as served, served.connect() as slow, served.connect() as silent:
        slow.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\n")
        started = time.monotonic()
        status, headers, body = read_answer(slow)
        assert (status, headers["content-type"]) == (408, "application/problem+json")
        assert json.loads(body)["status"] == 408
        assert is_closed(slow)
        assert is_closed(silent)
        assert time.monotonic() - started < 5
        assert 'inference_refusals_total{reason="slow"} 1.0' in served.figures()


def test_a_client_that_drips_its_body_is_closed_however_often_it_drips(serve_here: ServeHere) -> None:
    with serve_here(body_seconds=0.5) as served, served.connect() as slow:
        whole = request(BODY + b" " * 10_000)
        slow.sendall(whole[:-10_000])
        closed = threading.Event()

        def drip() -> None:
            while not closed.wait(0.05):
                try:
                    slow.sendall(b" ")
                except OSError:
                    return

        dripping = threading.Thread(target=drip)
        dripping.start()
        status, _, _ = read_answer(slow)
        closed.set()
        dripping.join()
        assert status == 408


def test_slow_clients_do_not_keep_others_waiting(serve_here: ServeHere) -> None:
    with serve_here() as served, contextlib.ExitStack() as stack:
        slow = [stack.enter_context(served.connect()) for _ in range(100)]
        for connection in slow:
            connection.sendall(b"POST /v1/predict HTTP/1.1\r\nContent-Length: 100\r\n\r\n{")
        time.sleep(0.3)
        started = time.monotonic()
        assert httpx.post(f"{served.url}/v1/predict", content=BODY).status_code == 200
        assert time.monotonic() - started < 2
        assert served.gateway.service.admission.under_way == 0


def test_bodies_that_are_not_complete_are_bounded_in_memory(serve_here: ServeHere) -> None:
    with serve_here(max_waiting_bytes=100_000) as served, contextlib.ExitStack() as stack:
        whole = request(BODY + b" " * 60_000)
        first, second = (stack.enter_context(served.connect()) for _ in range(2))
        first.sendall(whole[:-1])
        time.sleep(0.2)
        second.sendall(whole[:-1])
        assert read_answer(second)[0] == 429
        first.sendall(b" ")
        assert read_answer(first)[0] == 200


def test_an_unused_connection_is_closed_after_a_while_and_a_used_one_is_not(serve_here: ServeHere) -> None:
    with serve_here(idle_seconds=1.0) as served, served.connect() as used, served.connect() as unused:
        for turn in range(4):
            used.sendall(request())
            assert read_answer(used)[0] == 200
            if turn == 0:
                unused.sendall(request())
                assert read_answer(unused)[0] == 200
            time.sleep(0.6)
        assert is_closed(unused)


def test_more_connections_than_the_limit_are_turned_away_with_the_limit(serve_here: ServeHere) -> None:
    with serve_here(max_connections=3) as served:
        kept = [served.connect() for _ in range(3)]
        for connection in kept:
            connection.sendall(request())
            assert read_answer(connection)[0] == 200
        with served.connect() as one_more:
            status, headers, body = read_answer(one_more)
            assert (status, headers["retry-after"]) == (503, "1")
            assert "3 connections" in json.loads(body)["detail"]
            assert is_closed(one_more)
        kept.pop().close()
        time.sleep(0.1)
        with served.connect() as later:
            later.sendall(request())
            assert read_answer(later)[0] == 200
        for connection in kept:
            connection.close()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
        (b"POST /v1/predict HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 40_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 400),
    ],
)
def test_what_is_no_request_gets_a_problem_document_and_the_connection_ends(
    serve_here: ServeHere, sent: bytes, status: int
) -> None:
    with serve_here() as served, served.connect() as rude:
        rude.sendall(sent)
        found, headers, body = read_answer(rude)
        assert (found, headers["content-type"]) == (status, "application/problem+json"), body
        assert json.loads(body)["status"] == status
        assert is_closed(rude)


@pytest.mark.parametrize("more_headers", [b"", b"Connection: keep-alive\r\n", b"X-Request-ID: mine-1\r\n"])
@pytest.mark.parametrize("path", [b"/v1/predict", b"/v1/predict?explain=true", b"/v2/models/sentiment/infer"])
def test_under_overload_a_request_is_refused_and_its_connection_serves_the_next(
    serve_here: ServeHere, path: bytes, more_headers: bytes
) -> None:
    with serve_here(always_admitted=1) as served, served.connect() as client:
        admission = fill(served)
        request_ids = set()
        for _ in range(3):
            client.sendall(request(more_headers=more_headers, path=path))
            status, headers, body = read_answer(client)
            assert (status, headers["content-type"]) == (429, "application/problem+json")
            assert int(headers["retry-after"]) >= 1
            assert json.loads(body)["status"] == 429
            assert ("error" in json.loads(body)) == path.startswith(b"/v2")
            request_ids.add(headers["x-request-id"])
        assert request_ids == {"mine-1"} if b"mine-1" in more_headers else len(request_ids) == 3
        assert 'inference_refusals_total{reason="overload"} 3.0' in served.figures()
        admission.leave(10**9)
        client.sendall(request())
        assert read_answer(client)[0] == 200


def test_a_refused_request_whose_body_comes_late_leaves_nothing_behind_in_the_connection(
    serve_here: ServeHere,
) -> None:
    with serve_here(always_admitted=1) as served, served.connect() as client:
        admission = fill(served)
        whole = request(BODY + b" " * 200_000)
        client.sendall(whole[:60])
        time.sleep(0.05)
        client.sendall(whole[60:300])
        assert read_answer(client)[0] == 429
        client.sendall(whole[300:])
        admission.leave(10**9)
        client.sendall(request())
        assert read_answer(client)[0] == 200


def test_health_is_answered_under_overload(serve_here: ServeHere) -> None:
    with serve_here(always_admitted=1) as served:
        fill(served)
        for path in ("/livez", "/readyz", "/metrics"):
            assert httpx.get(f"{served.url}{path}").status_code == 200


def test_pipelined_requests_are_answered_in_order(serve_here: ServeHere) -> None:
    with serve_here() as served, served.connect() as client:
        many = b"".join(request(json.dumps({"texts": ["好"] * number}).encode()) for number in range(1, 6))
        client.sendall(many)
        received = b""
        while received.count(b"HTTP/1.1 200") < 5 or not received.endswith(b"]}"):
            part = client.recv(65536)
            assert part
            received += part
        sizes = [part.count(b'"label"') for part in received.split(b"HTTP/1.1 200")[1:]]
        assert sizes == [1, 2, 3, 4, 5]
        admission = served.gateway.service.admission
        wait_until(lambda: admission.under_way == 0, "all are done with")


def test_a_client_that_leaves_before_its_answer_gives_back_its_place(serve_here: ServeHere) -> None:
    with serve_here() as served:
        large = json.dumps({"texts": ["很好看，强烈推荐" * 1000] * 256}).encode()
        admission = served.gateway.service.admission
        with served.connect() as client:
            client.sendall(request(large))  # and the end follows at once
        wait_until(lambda: 'reason="abandoned"} 1.0' in served.figures(), "its work is dropped")
        assert admission.under_way == 0
        assert httpx.post(f"{served.url}/v1/predict", content=BODY).status_code == 200


def test_a_client_that_does_not_read_its_answer_is_cut_off(serve_here: ServeHere) -> None:
    with serve_here(idle_seconds=0.5) as served, served.connect() as deaf:
        body = json.dumps({"texts": ["好"] * 256}).encode()
        deaf.settimeout(1)
        with pytest.raises(OSError):  # full at first, cut off then
            while True:
                deaf.sendall(request(body))
        with pytest.raises(OSError):
            for _ in range(100):
                time.sleep(0.1)
                deaf.sendall(b" ")
        admission = served.gateway.service.admission
        wait_until(lambda: admission.under_way == 0, "its work is dropped")


def test_who_has_no_token_takes_nobodys_place(serve_here: ServeHere) -> None:
    with serve_here(token="s3cret", always_admitted=1) as served, served.connect() as stranger:
        for _ in range(5):
            stranger.sendall(request())
            assert read_answer(stranger)[0] == 401
        assert served.gateway.service.admission.under_way == 0
        assert served.gateway.service.admission.wait_seconds == 0


def test_a_body_that_does_not_say_its_length_counts_as_much_as_one_that_does(
    serve_here: ServeHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, float]] = []
    real = InferenceService.probabilities

    async def look(service: InferenceService, exchange: Exchange, *rest: Any) -> Probabilities:
        seen.append((exchange.units, service.admission.wait_seconds))
        return await real(service, exchange, *rest)

    monkeypatch.setattr(InferenceService, "probabilities", look)
    body = BODY + b" " * 50_000
    chunked = (
        b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"
    )
    with serve_here() as served:
        for sent in (request(body), chunked % (len(body), body)):
            with served.connect() as client:
                client.sendall(sent)
                assert read_answer(client)[0] == 200
        assert served.gateway.service.admission.wait_seconds == 0
    assert [units for units, _ in seen] == [REQUEST_UNITS + len(body)] * 2
    assert all(wait > 0 for _, wait in seen)
