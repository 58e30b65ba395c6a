"""Both clients against a real server that misbehaves, and against the real service."""

from __future__ import annotations

import gzip
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import anyio
import pytest
import trustme

from ml.client import (
    AsyncInferenceClient,
    CallPolicy,
    CircuitOpen,
    InferenceClient,
    InferenceError,
    PredictResponse,
    Readiness,
)
from ml.prediction import Attribution, Prediction
from tests.ml.client.service import (
    ANSWER,
    PREDICTION,
    OpenClient,
    Recorder,
    answering,
    asynchronous,
    blocking,
    refusing,
    send,
    send_answer,
    service_that,
)
from tests.ml.conftest import ServeStore, Store, TinyModel
from tests.servers import wait_until

ONE_ATTEMPT = CallPolicy(attempts=1)


@pytest.fixture(params=[blocking, asynchronous], ids=lambda kind: kind.__name__)
def open_client(request: pytest.FixtureRequest) -> OpenClient:
    kind: OpenClient = request.param
    return kind


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True


def hang_up_midway(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"model": "aaa')
    handler.close_connection = True


def dribble(handler: BaseHTTPRequestHandler, prefix: bytes) -> None:
    """Send a byte every so often, for longer than any test waits, or until the client hangs up."""
    handler.wfile.write(prefix)
    for _ in range(200):
        handler.wfile.write(b"x")
        handler.wfile.flush()
        time.sleep(0.05)
    handler.close_connection = True


def dribble_headers(handler: BaseHTTPRequestHandler) -> None:
    dribble(handler, b"HTTP/1.1 200 OK\r\nX-Long: ")


def dribble_body(handler: BaseHTTPRequestHandler) -> None:
    dribble(handler, b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")


# -- Answers -----------------------------------------------------------------------------------------------------


def test_an_answer_becomes_predictions(open_client: OpenClient) -> None:
    with service_that(answering(200, ANSWER)) as url, open_client(url, 5) as client:
        found = client.predict(["很好"])
    expected = Prediction("positive", 0.9, {"negative": 0.1, "neutral": 0.0, "positive": 0.9})
    assert found == PredictResponse("a" * 64, (expected,), found.latency_ms)
    assert 0 < found.latency_ms < 5000


def test_an_explanation_is_asked_for_and_read(open_client: OpenClient) -> None:
    spans = [
        {"start": 0, "end": 1, "text": "很", "weight": 0.25},
        {"start": 1, "end": 2, "text": "好", "weight": -1},
    ]
    answer = {"model": "a" * 64, "predictions": [{**PREDICTION, "explanation": spans}]}
    recorder = Recorder(lambda handler: send(handler, 200, json.dumps(answer).encode()))
    with service_that(recorder) as url, open_client(url, 5) as client:
        found = client.predict(["很好"], explain=True)
    assert json.loads(recorder.bodies[0]) == {"texts": ["很好"], "explain": True}
    assert found.explanations == ((Attribution(0, 1, "很", 0.25), Attribution(1, 2, "好", -1.0)),)


def test_lone_surrogates_are_left_out_and_places_still_are_those_of_the_callers_text() -> None:
    spans = [
        {"start": 0, "end": 2, "text": "很好", "weight": 1},
        {"start": 2, "end": 3, "text": "\x00", "weight": 0},
    ]
    answer = {"model": "a" * 64, "predictions": [{**PREDICTION, "explanation": spans}]}
    recorder = Recorder(lambda handler: send(handler, 200, json.dumps(answer).encode()))
    with service_that(recorder) as url, InferenceClient(url, 5) as client:
        found = client.predict(["\udc00很\ud800好\x00"], explain=True).explanations
    assert json.loads(recorder.bodies[0])["texts"] == ["很好\x00"]
    assert found is not None
    assert [(part.start, part.end) for part in found[0]] == [(1, 4), (4, 5)]


@pytest.mark.parametrize(
    "spans",
    [
        [{"start": 0, "end": 3, "text": "很好", "weight": 1}],
        [{"start": -1, "end": 1, "text": "很", "weight": 1}],
        [{"start": 1, "end": 1, "text": "", "weight": 1}],
        [
            {"start": 1, "end": 2, "text": "好", "weight": 1},
            {"start": 0, "end": 1, "text": "很", "weight": 1},
        ],
        [{"start": 0, "end": 1}],
        None,
    ],
)
def test_an_explanation_that_does_not_fit_the_text_is_no_answer(spans: object) -> None:
    answer = {"model": "a" * 64, "predictions": [{**PREDICTION, "explanation": spans}]}
    with (
        service_that(answering(200, answer)) as url,
        InferenceClient(url, 5) as client,
        pytest.raises(InferenceError, match="something that is not its answer"),
    ):
        client.predict(["很好"], explain=True)


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
def test_an_answer_that_is_something_else_is_an_error_of_the_same_type(
    open_client: OpenClient, body: bytes
) -> None:
    recorder = Recorder(lambda handler: send(handler, 200, body))
    with (
        service_that(recorder) as url,
        open_client(url, 5) as client,
        pytest.raises(InferenceError, match="something that is not its answer") as caught,
    ):
        client.predict(["很好"])
    assert caught.value.permanent is False
    assert recorder.asked == 1


def test_the_token_and_what_finds_the_request_in_logs_go_along(open_client: OpenClient) -> None:
    recorder = Recorder()
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with service_that(recorder) as url, open_client(url, 5, token="secret") as client:
        client.predict(["很好"], request_id="req-7", traceparent=traceparent)
        client.predict(["很好"])
    asked, plain = recorder.headers
    assert asked["authorization"] == plain["authorization"] == "Bearer secret"
    assert (asked["x-request-id"], asked["traceparent"]) == ("req-7", traceparent)
    assert not {"x-request-id", "traceparent"} & set(plain)
    assert 4000 < int(asked["x-request-timeout-ms"]) <= 5000


@pytest.mark.parametrize(
    "options",
    [
        {"request_id": "a\r\nX: b"},
        {"request_id": "名"},
        {"request_id": "a" * 129},
        {"traceparent": "00-1-2-3"},
    ],
)
def test_what_cannot_be_a_header_is_refused_before_it_is_sent(options: dict[str, str]) -> None:
    with (
        service_that(answering(200, ANSWER)) as url,
        InferenceClient(url, 5) as client,
        pytest.raises(ValueError, match="expected"),
    ):
        client.predict(["很好"], **options)


# -- Refusals and retries ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "permanent"), [(400, True), (401, True), (404, True), (413, True), (422, True), (429, False)]
)
def test_a_refused_request_is_permanent_unless_the_service_asks_for_patience(
    open_client: OpenClient, status: int, permanent: bool
) -> None:
    recorder = Recorder(*[refusing(status, "the limit is 256")] * 9)
    with (
        service_that(recorder) as url,
        open_client(url, 5) as client,
        pytest.raises(InferenceError, match=f"{status}: the limit is 256") as caught,
    ):
        client.predict(["很好"])
    assert caught.value.permanent is permanent
    assert recorder.asked == (1 if permanent else 3)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_service_in_trouble_is_not_permanent(status: int) -> None:
    with (
        service_that(lambda handler, _: send(handler, status, b"<html>proxy</html>")) as url,
        InferenceClient(url, 5) as client,
        pytest.raises(InferenceError, match="proxy") as caught,
    ):
        client.predict(["很好"])
    assert caught.value.permanent is False


@pytest.mark.parametrize("failure", [hang_up, hang_up_midway, refusing(503), refusing(429)])
def test_a_failure_that_passes_is_not_seen(
    open_client: OpenClient, failure: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    recorder = Recorder(failure, failure)
    with service_that(recorder) as url, open_client(url, 5) as client:
        assert client.predict(["很好"]).predictions[0].label == "positive"
    assert recorder.asked == 3


def test_a_busy_service_is_asked_again_no_earlier_than_it_said(open_client: OpenClient) -> None:
    recorder = Recorder(refusing(429, Retry_After="1"))
    started = time.monotonic()
    with service_that(recorder) as url, open_client(url, 5) as client:
        client.predict(["很好"])
    assert 1.0 <= time.monotonic() - started < 2.5


def test_a_service_that_is_busy_for_longer_than_there_is_time_is_not_waited_for(
    open_client: OpenClient,
) -> None:
    recorder = Recorder(refusing(503, Retry_After="60"))
    started = time.monotonic()
    with (
        service_that(recorder) as url,
        open_client(url, 5) as client,
        pytest.raises(InferenceError) as caught,
    ):
        client.predict(["很好"])
    assert time.monotonic() - started < 2
    assert (caught.value.retry_after_seconds, recorder.asked) == (60, 1)


def test_nobody_listening_is_not_permanent_and_names_the_address(open_client: OpenClient) -> None:
    url = free_address()
    with open_client(url, 2) as client, pytest.raises(InferenceError, match=url) as caught:
        client.ready()
    assert caught.value.permanent is False


def test_a_dead_service_costs_callers_next_to_nothing_and_is_found_again(open_client: OpenClient) -> None:
    policy = CallPolicy(
        breaker_failures=3, breaker_first_pause_seconds=0.2, breaker_longest_pause_seconds=0.2
    )
    recorder = Recorder(*[hang_up] * 3)
    with service_that(recorder) as url, open_client(url, 5, policy=policy) as client:
        with pytest.raises(InferenceError):
            client.predict(["很好"])
        with pytest.raises(CircuitOpen, match="tried again in") as caught:
            client.predict(["很好"])
        assert recorder.asked == 3
        assert caught.value.retry_after_seconds is not None
        time.sleep(caught.value.retry_after_seconds + 0.01)
        client.predict(["很好"])


def test_refusing_while_the_circuit_is_open_takes_microseconds() -> None:
    policy = CallPolicy(breaker_failures=1, breaker_first_pause_seconds=60, breaker_longest_pause_seconds=60)
    with InferenceClient(free_address(), 5, policy=policy) as client:
        with pytest.raises(InferenceError):
            client.predict(["很好"])
        took = []
        for _ in range(200):
            started = time.perf_counter()
            with pytest.raises(CircuitOpen):
                client.predict(["很好"])
            took.append(time.perf_counter() - started)
    assert sorted(took)[100] < 0.001


def test_readiness_is_asked_for_even_while_the_circuit_is_open(open_client: OpenClient) -> None:
    policy = CallPolicy(breaker_failures=1, breaker_first_pause_seconds=60, breaker_longest_pause_seconds=60)
    document = {"ready": True, "model": "a" * 64, "wanted": "a" * 64, "error": None}
    recorder = Recorder(hang_up, lambda handler: send(handler, 200, json.dumps(document).encode()))
    with service_that(recorder) as url, open_client(url, 5, policy=policy) as client:
        with pytest.raises(InferenceError):
            client.predict(["很好"])
        assert client.ready().ready


# -- Time and size -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("misbehave", [dribble_headers, dribble_body])
def test_bytes_that_come_one_by_one_do_not_stretch_the_deadline(
    open_client: OpenClient, misbehave: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    with service_that(Recorder(misbehave)) as url, open_client(url, 0.5) as client:
        started = time.monotonic()
        with pytest.raises(InferenceError, match="did not answer: timed out") as caught:
            client.predict(["很好"])
        assert 0.4 < time.monotonic() - started < 1.5
    assert caught.value.permanent is False


def test_a_service_that_does_not_read_does_not_stretch_the_deadline(open_client: OpenClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, open_client(url_of(listener), 0.5) as client:
        started = time.monotonic()
        with pytest.raises(InferenceError, match="timed out"):
            client.predict(["好" * 10_000_000])
        assert time.monotonic() - started < 2.5


def test_silence_ends_with_the_time_of_the_call_not_of_the_client(open_client: OpenClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, open_client(url_of(listener), 60) as client:
        started = time.monotonic()
        with pytest.raises(InferenceError, match="timed out"):
            client.predict(["很好"], timeout_seconds=0.3)
        assert time.monotonic() - started < 2


def flood(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    for _ in range(4096):  # 256 MiB
        handler.wfile.write(piece)
    handler.wfile.write(b"0\r\n\r\n")


def announce_much(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(10**12))
    handler.end_headers()


@pytest.mark.parametrize("misbehave", [flood, announce_much])
def test_a_huge_reply_is_broken_off_at_the_limit(
    open_client: OpenClient, misbehave: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    recorder = Recorder(misbehave)
    with (
        service_that(recorder) as url,
        open_client(url, 10, policy=CallPolicy(max_response_bytes=100_000)) as client,
    ):
        with pytest.raises(InferenceError, match="larger than the limit of 100000 bytes") as caught:
            client.predict(["很好"])
        assert recorder.asked == 1
        client.predict(["很好"])  # over another connection
    assert caught.value.permanent is False


def test_a_reply_that_would_grow_by_unpacking_is_refused(open_client: OpenClient) -> None:
    bomb = gzip.compress(b" " * 10_000_000)
    recorder = Recorder(lambda handler: send(handler, 200, bomb, Content_Encoding="gzip"))
    with (
        service_that(recorder) as url,
        open_client(url, 5) as client,
        pytest.raises(InferenceError, match="compressed"),
    ):
        client.predict(["很好"])
    assert recorder.headers[0]["accept-encoding"] == "identity"


@pytest.mark.parametrize("url", ["ftp://somewhere", "localhost:8100", "http://[::bad"])
def test_a_wrong_address_is_permanent(open_client: OpenClient, url: str) -> None:
    with pytest.raises(InferenceError, match="is wrong") as caught, open_client(url, 1) as client:
        client.predict(["很好"])
    assert caught.value.permanent is True


# -- Readiness ---------------------------------------------------------------------------------------------------


def test_readiness_is_an_answer_even_without_a_model(open_client: OpenClient) -> None:
    document = {"ready": False, "model": None, "wanted": "b" * 64, "error": "champion.json: missing"}
    with service_that(answering(503, document)) as url, open_client(url, 5) as client:
        assert client.ready() == Readiness(False, None, "b" * 64, "champion.json: missing")


def test_a_readiness_that_is_no_readiness_is_an_error() -> None:
    with (
        service_that(answering(502, {"detail": "bad gateway"})) as url,
        InferenceClient(url, 5) as client,
        pytest.raises(InferenceError, match="502") as caught,
    ):
        client.ready()
    assert caught.value.permanent is False


# -- Connections, threads, processes -----------------------------------------------------------------------------


def test_connections_are_reused_and_a_closed_one_is_replaced_silently(open_client: OpenClient) -> None:
    peers: list[tuple[str, int]] = []

    def respond(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        peers.append(handler.client_address)
        if len(peers) == 3:
            handler.close_connection = True  # as a restarting service: it hangs up instead of answering
            return
        send_answer(handler)

    with service_that(respond) as url, open_client(url, 5) as client:
        for _ in range(3):
            client.predict(["很好"])
    assert peers[0] == peers[1] == peers[2]
    assert len(peers) == 4


def test_a_reply_that_was_broken_off_does_not_leave_its_rest_to_the_next_call(
    open_client: OpenClient,
) -> None:
    """The connection of a call that timed out is not used again: its answer is still on the way."""
    slow = [True]

    def respond(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        if slow.pop() if slow else False:
            time.sleep(0.5)
        text = json.loads(body)["texts"][0]
        send(handler, 200, json.dumps({**ANSWER, "model": text}).encode())

    with service_that(respond) as url, open_client(url, 5, policy=ONE_ATTEMPT) as client:
        with pytest.raises(InferenceError, match="timed out"):
            client.predict(["first"], timeout_seconds=0.1)
        assert client.predict(["second"]).model == "second"


def echo(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    send(handler, 200, json.dumps({**ANSWER, "model": json.loads(body)["texts"][0]}).encode())


def test_threads_may_share_a_client_and_each_gets_its_own_answer() -> None:
    failures: list[object] = []

    def ask(client: InferenceClient, name: str) -> None:
        try:
            for number in range(20):
                found = client.predict([f"{name}-{number}"]).model
                if found != f"{name}-{number}":
                    failures.append(found)
        except BaseException as error:
            failures.append(error)

    with service_that(echo) as url, InferenceClient(url, 5) as client:
        threads = [threading.Thread(target=ask, args=(client, f"thread{n}")) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []


def test_forked_processes_use_connections_of_their_own() -> None:
    peers: dict[str, set[tuple[str, int]]] = {}

    def respond(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        peers.setdefault(json.loads(body)["texts"][0].split("-")[0], set()).add(handler.client_address)
        echo(handler, body)

    def ask(client: InferenceClient, name: str) -> bool:
        return all(client.predict([f"{name}-{n}"]).model == f"{name}-{n}" for n in range(20))

    with service_that(respond) as url, InferenceClient(url, 5) as client:
        assert ask(client, "before")
        children = [fork(lambda name=f"child{n}": ask(client, name)) for n in range(3)]
        assert ask(client, "parent")
        assert [ends_well(child) for child in children] == [True] * 3
    assert peers["before"] == peers["parent"]
    own = [peers[f"child{n}"] for n in range(3)]
    assert all(not one & peers["parent"] for one in own)
    assert len(set.union(*own)) == sum(map(len, own))


def test_a_process_forked_while_threads_are_asking_can_ask() -> None:
    """The locks of the pool, the breaker and the budget may be held by threads that are not in the child."""
    stop = threading.Event()

    def ask_on(client: InferenceClient) -> None:
        while not stop.is_set():
            client.predict(["thread"])

    with service_that(echo) as url, InferenceClient(url, 5) as client:
        threads = [threading.Thread(target=ask_on, args=(client,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(10):
                assert ends_well(fork(lambda: client.predict(["child"]).model == "child"))
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def fork(work: Callable[[], bool]) -> int:
    pid = os.fork()
    if pid:
        return pid
    done = False
    try:
        done = work()
    finally:
        os._exit(0 if done else 1)


def ends_well(pid: int) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.01)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return False


def test_a_cancelled_probe_leaves_the_next_one_free() -> None:
    policy = CallPolicy(attempts=1, breaker_failures=1, breaker_first_pause_seconds=0.1)
    held = threading.Event()

    def hold(handler: BaseHTTPRequestHandler) -> None:
        held.wait(5)
        handler.close_connection = True

    async def run(url: str) -> None:
        async with AsyncInferenceClient(url, 5, policy=policy) as client:
            with pytest.raises(InferenceError):
                await client.predict(["很好"])
            await anyio.sleep(0.15)
            with anyio.move_on_after(0.1) as scope:
                await client.predict(["很好"])
            assert scope.cancelled_caught
            await client.predict(["很好"])

    with service_that(Recorder(hang_up, hold)) as url:
        anyio.run(run, url)
        held.set()


def test_many_coroutines_share_a_client() -> None:
    async def run(url: str) -> list[str]:
        answers: dict[int, str] = {}
        async with AsyncInferenceClient(url, 10) as client, anyio.create_task_group() as group:
            for number in range(60):
                group.start_soon(ask, client, number, answers)
        return [answers[number] for number in range(60)]

    async def ask(client: AsyncInferenceClient, number: int, answers: dict[int, str]) -> None:
        answers[number] = (await client.predict([str(number)])).model

    with service_that(echo) as url:
        assert anyio.run(run, url) == [str(number) for number in range(60)]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's context, whose authority this process trusts."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


def test_the_same_holds_over_tls(open_client: OpenClient, tls: ssl.SSLContext) -> None:
    recorder = Recorder(send_answer, dribble_headers, hang_up)
    with service_that(recorder, tls) as url, open_client(url, 5, policy=CallPolicy(attempts=2)) as client:
        client.predict(["很好"])
        started = time.monotonic()
        with pytest.raises(InferenceError, match="timed out"):
            client.predict(["很好"], timeout_seconds=0.5)
        assert time.monotonic() - started < 1.5
        client.predict(["很好"])


def test_a_certificate_of_somebody_else_is_not_trusted(open_client: OpenClient, tls: ssl.SSLContext) -> None:
    trustme.CA().issue_cert("localhost").configure_cert(tls)
    with (
        service_that(Recorder(), tls) as url,
        open_client(url, 5) as client,
        pytest.raises(InferenceError, match="(?i)certificate"),
    ):
        client.predict(["很好"])


# -- The real service --------------------------------------------------------------------------------------------


def test_the_real_service_answers_both_clients_alike(
    store: Store, tiny: TinyModel, serve_store: ServeStore
) -> None:
    store.point_at(tiny.artifact.digest)
    with serve_store(store) as server, blocking(server.url, 20) as one, asynchronous(server.url, 20) as other:
        wait_until(lambda: one.ready().ready, "the service is ready")
        texts = ["很好看", "太差了", "", "\ud800好"]
        first, second = one.predict(texts), other.predict(texts)
        assert first.model == second.model == tiny.artifact.digest == other.ready().model
        assert first.predictions == second.predictions
        with pytest.raises(InferenceError, match="422: .*the limit is") as caught:
            one.predict(["好"] * 10_000)
        assert caught.value.permanent


def test_the_real_service_without_a_model_is_waited_for(
    store: Store, tiny: TinyModel, serve_store: ServeStore
) -> None:
    with serve_store(store) as server, InferenceClient(server.url, 10) as client:
        promoted = threading.Timer(0.5, store.point_at, [tiny.artifact.digest])
        promoted.start()
        assert client.predict(["很好看"]).model == tiny.artifact.digest
        promoted.join()


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def url_of(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}"
