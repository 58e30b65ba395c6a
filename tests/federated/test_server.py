"""The server under hostile and clumsy clients, over plain sockets."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from federated import server
from federated.protocol import REASON_MAX_CHARS, Message, Update, encode_message
from federated.server import AggregatorServer, Buffers

MESSAGE = encode_message(
    {"batch": {"samples": 1, "loss_sum": 0.5, "correct": 1}}, {"bias": np.ones(3, np.float32)}
)


class Recorder:
    """Takes what the server brings it, and holds nobody."""

    def __init__(self) -> None:
        self.received: list[tuple[str, int, float]] = []
        self.refused: list[tuple[str, str, int, str]] = []

    def name(self) -> str:
        return "run-1"

    def describe(self, site: str) -> dict[str, Any]:
        return {"site": site}

    def announce(self, site: str, token_counts: Mapping[str, int]) -> None:
        """Everybody is welcome."""

    def wait_for_training(self) -> Message:
        return [memoryview(b"training")]

    def receive(self, update: Update, size_bytes: int) -> str:
        self.received.append((update.site, update.round, float(update.gradients["bias"].sum())))
        return ""

    def note_refusal(self, site: str, address: str, status: int, reason: str) -> None:
        self.refused.append((site, address, status, reason))

    def wait_for_round(self, after: int) -> Message:
        return [memoryview(b"ne"), memoryview(b""), memoryview(b"xt")]


@contextmanager
def serving() -> Iterator[tuple[Recorder, tuple[str, int]]]:
    recorder = Recorder()
    listener = socket.create_server(("127.0.0.1", 0))
    with AggregatorServer(listener, recorder, {"food": "secret"}).serving():
        yield recorder, listener.getsockname()


def request(
    body: bytes, *, path: str = "/v1/rounds/1/update", token: str = "secret", **headers: str
) -> bytes:
    lines = {"Authorization": f"Bearer {token}", "Content-Length": str(len(body)), **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
    return f"POST {path} HTTP/1.1\r\nHost: a\r\n{head}\r\n".encode() + body


def read_status(connection: socket.socket) -> tuple[int, bytes]:
    """The status of an answer and its body."""
    reader = connection.makefile("rb")
    status = int(reader.readline().split()[1])
    length = 0
    while (line := reader.readline()) not in (b"\r\n", b""):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return status, reader.read(length)


def ask(address: tuple[str, int], *parts: bytes) -> tuple[int, bytes]:
    with socket.create_connection(address, timeout=20) as connection:
        for part in parts:
            connection.sendall(part)
        return read_status(connection)


def test_one_connection_serves_request_after_request() -> None:
    with serving() as (recorder, address), socket.create_connection(address, timeout=20) as connection:
        for number in (1, 2, 3):
            connection.sendall(request(MESSAGE, path=f"/v1/rounds/{number}/update"))
            assert read_status(connection) == (200, b"next")
    assert recorder.received == [("food", number, 3.0) for number in (1, 2, 3)]


def test_a_message_in_small_pieces_is_read_whole() -> None:
    whole = request(MESSAGE)
    with serving() as (recorder, address):
        pieces = [whole[start : start + 50] for start in range(0, len(whole), 50)]
        assert ask(address, *pieces) == (200, b"next")
    assert recorder.received == [("food", 1, 3.0)]


def test_a_message_that_does_not_arrive_in_time_is_given_up_and_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "READ_SECONDS", 1.0)
    with serving() as (recorder, address):
        dribbling = [socket.create_connection(address, timeout=20) for _ in range(server.READERS)]
        for connection in dribbling:
            connection.sendall(request(MESSAGE)[:-8])
        began = time.monotonic()
        assert ask(address, request(MESSAGE)) == (200, b"next")
        assert time.monotonic() - began < 10
        for connection in dribbling:
            with connection:
                status, text = read_status(connection)
                assert (status, b"within 1 s" in text) == (408, True)
    assert recorder.received == [("food", 1, 3.0)]


@pytest.mark.parametrize(
    ("message", "status", "words"),
    [
        (request(MESSAGE, token="wrong"), 401, b"no site has this token"),
        (request(MESSAGE, path="/v1/rounds/x/update"), 404, b"no address"),
        (request(MESSAGE, path="/v1/rounds/-1/update"), 404, b"no address"),
        (request(MESSAGE, path="/v1/rounds/1/update/more"), 404, b"no address"),
        (request(MESSAGE, path="/v2/join"), 404, b"no address"),
        (request(MESSAGE, **{"Content-Length": "many"}), 411, b"Content-Length"),
        (request(MESSAGE, **{"Content-Length": "-5"}), 411, b"Content-Length"),
        (request(MESSAGE, **{"Content-Length": "9" * 5000}), 411, b"Content-Length"),
        (
            request(b"0\r\n\r\n", **{"Transfer-Encoding": "chunked", "Content-Length": ""}),
            411,
            b"Content-Length",
        ),
        (request(b"x", **{"Content-Length": str(2**40)}), 413, b"may have 67108864 bytes"),
        (b"\x16\x03\x01\x02\x00 what TLS says first\r\n\r\n", 400, b"not a request that the aggregator"),
        (b"BREW /v1/join HTTP/1.1\r\n\r\n", 501, b"Not Implemented"),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", 414, b"Long"),
        (b"GET /livez HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n", 431, b"Too Large"),
        (request(b"no message"), 422, b"not a safetensors message"),
        (request(b""), 422, b"not a safetensors message"),
    ],
    ids=[
        "token",
        "round",
        "negative",
        "longer",
        "path",
        "length",
        "below 0",
        "digits",
        "chunked",
        "huge",
        "noise",
        "method",
        "long path",
        "many headers",
        "text",
        "empty",
    ],
)
def test_what_cannot_be_served_is_refused_with_the_reason(message: bytes, status: int, words: bytes) -> None:
    with serving() as (recorder, address):
        answer, text = ask(address, message)
        assert (answer, words in text) == (status, True), text
        assert recorder.received == []
        ((site, stranger, noted, reason),) = recorder.refused
        assert (noted, reason.encode()) == (status, text), "the run's page says what the site's log says"
        assert (site, stranger) == (("food", "") if status in (413, 422) else ("", "127.0.0.1"))
        assert ask(address, request(MESSAGE)) == (200, b"next")


def test_a_refused_site_that_still_sends_gets_to_see_the_reason() -> None:
    """A server that closes at once would make the system throw the answer away."""
    large = b"x" * 20_000_000
    with serving() as (_, address):
        status, text = ask(address, request(large, token="wrong"))
    assert (status, text) == (401, b"no site has this token")


@pytest.mark.parametrize("path", ["/v1/secret", "/v1/settings?token=secret", "/secret/%0a<b>"])
def test_a_reason_repeats_nothing_of_an_address_since_a_token_may_stand_in_it(path: str) -> None:
    with serving() as (recorder, address):
        status, text = ask(address, request(MESSAGE, path=path))
    assert (status, b"secret" in text) == (404, False)
    assert "secret" not in str(recorder.refused)


def test_a_reason_is_short_and_one_line_whatever_a_site_has_put_into_it() -> None:
    name = "\ud800\n\x1b[31m\u202e" + "回" * 5000
    table = {"__metadata__": {"header": "{}"}, "w": {"dtype": name, "shape": [], "data_offsets": [0, 0]}}
    head = json.dumps(table).encode()
    with serving() as (recorder, address):
        status, text = ask(address, request(len(head).to_bytes(8, "little") + head))
    reason = text.decode()
    assert (status, recorder.refused) == (422, [("food", "", 422, reason)])
    assert len(reason) <= REASON_MAX_CHARS
    assert reason.isprintable()


def test_an_update_that_is_not_counted_is_answered_with_the_reason_and_noted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Recorder, "receive", lambda *_: "round 1 was closed already")
    with serving() as (recorder, address), socket.create_connection(address, timeout=20) as connection:
        connection.sendall(request(MESSAGE))
        assert b"X-Update-Not-Counted: round 1 was closed already\r\n" in connection.recv(10_000)
    assert recorder.refused == [("food", "", 200, "round 1 was closed already")]


def test_a_connection_that_breaks_leaves_nothing_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Else whoever opens and breaks connections could fill the disk."""
    with serving() as (_, address):
        for _ in range(20):
            with socket.create_connection(address, timeout=20) as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # reset
                connection.sendall(b"POST /v1/")
        assert ask(address, request(MESSAGE)) == (200, b"next")
    assert caplog.text == ""


def test_a_site_that_leaves_amid_a_message_leaves_nothing_behind() -> None:
    with serving() as (recorder, address):
        for _ in range(2 * server.READERS):
            with socket.create_connection(address, timeout=20) as connection:
                connection.sendall(request(MESSAGE)[:-8])
        assert ask(address, request(MESSAGE)) == (200, b"next")
    assert recorder.received == [("food", 1, 3.0)]


def test_no_more_buffers_are_lent_than_there_are_readers() -> None:
    buffers = Buffers()
    lent: list[int] = []
    most: list[int] = []
    lock = threading.Lock()

    def read() -> None:
        with buffers.lend(1000) as view:
            assert len(view) == 1000
            with lock:
                lent.append(1)
                most.append(len(lent))
            time.sleep(0.01)
            with lock:
                lent.pop()

    threads = [threading.Thread(target=read) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 40
    assert max(most) == server.READERS
    assert len(buffers._free) <= server.READERS
