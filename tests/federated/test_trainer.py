from __future__ import annotations

import contextlib
import http.server
import json
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from federated.protocol import TOKEN_VARIABLE, encode_message
from federated.store import FolderStore
from federated.trainer import (
    EXIT_REFUSED,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    AggregatorClient,
    AggregatorError,
    main,
)
from tests.federated.conftest import write_reviews

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "secret-of-food")
    caplog.set_level(logging.INFO)


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    store = FolderStore(tmp_path)
    return store.shard(store.put_shard(write_reviews("food", "", 20)))


def arguments(
    shard: Path, aggregator: str = "http://127.0.0.1:9", validation: Path | None = None
) -> list[str]:
    paths = ["--shard", str(shard), "--validation", str(validation or shard)]
    return ["--aggregator", aggregator, "--site", "food", *paths]


@contextmanager
def answer_always(status: int, body: bytes) -> Iterator[tuple[str, list[str]]]:
    """An aggregator that always says the same; gives its address and the requests it gets."""
    requests: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            requests.append(f"{self.command} {self.path} {self.headers['authorization']}")
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", requests
        finally:
            server.shutdown()
            serving.join()


def test_a_broken_shard_ends_the_trainer_with_2_before_it_calls_anyone(tmp_path: Path) -> None:
    """As a process of its own, as it is started for a run."""
    shard = tmp_path / "shard.jsonl"
    shard.write_text(
        '{"text": "好吃", "label": "positive"}\n{"text": "难吃", "label": "awful"}\n', encoding="utf-8"
    )
    ended = subprocess.run(
        [sys.executable, "-m", "federated.trainer", *arguments(shard)],
        cwd=ROOT,
        env={**os.environ, TOKEN_VARIABLE: "secret-of-food"},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert ended.returncode == EXIT_USAGE == 2, ended.stderr
    assert 'shard.jsonl line 2: "label" must be one of' in ended.stderr
    assert "'awful'" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "attempt" not in ended.stderr
    assert "secret" not in ended.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no sample"),
        (b"no JSON\n", "line 1: not JSON"),
        (b"\xff\xfe\n", "line 1: not JSON"),
        (b'["text"]\n', "line 1: expected a JSON object"),
        (b'{"label": "positive"}\n', 'line 1: "text" must be a string'),
    ],
)
def test_a_shard_that_cannot_be_read_is_named_with_the_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes, said: str
) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_bytes(content)
    assert main(arguments(broken)) == EXIT_USAGE
    assert "broken.jsonl" in caplog.text
    assert said in caplog.text


def test_a_missing_shard_ends_the_trainer_with_2(
    tmp_path: Path, shard: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert main(arguments(tmp_path / "gone.jsonl")) == EXIT_USAGE
    assert main(arguments(shard, validation=tmp_path / "gone.jsonl")) == EXIT_USAGE
    assert caplog.text.count("gone.jsonl") == 2


@pytest.mark.parametrize("token", [None, ""])
def test_without_a_token_the_trainer_ends_with_2_and_says_where_it_belongs(
    shard: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, token: str | None
) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE) if token is None else monkeypatch.setenv(TOKEN_VARIABLE, token)
    assert main(arguments(shard)) == EXIT_USAGE
    assert f"{TOKEN_VARIABLE} is not in the environment" in caplog.text


@pytest.mark.parametrize(("status", "reason"), [(401, "no site has this token"), (410, "the run failed")])
def test_a_refusal_ends_the_trainer_with_10_at_once(
    shard: Path, caplog: pytest.LogCaptureFixture, status: int, reason: str
) -> None:
    with answer_always(status, reason.encode()) as (url, requests):
        assert main(arguments(shard, url)) == EXIT_REFUSED
    assert requests == ["GET /v1/settings Bearer secret-of-food"]
    assert f"{status}: {reason}" in caplog.text


@pytest.mark.parametrize("body", [b"<html>", b"7", encode_message({}, {})])
def test_an_address_that_is_no_aggregator_ends_the_trainer_with_10(
    shard: Path, caplog: pytest.LogCaptureFixture, body: bytes
) -> None:
    with answer_always(200, body) as (url, _):
        assert main(arguments(shard, url)) == EXIT_REFUSED
    assert "something else than a message" in caplog.text


def test_answers_that_are_no_messages_end_the_trainer_with_10(
    shard: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = json.dumps({"tokenizer": {"kind": "jieba", "hmm": False}}).encode()
    with answer_always(200, settings) as (url, requests):  # right for the settings, wrong for joining
        assert main(arguments(shard, url)) == EXIT_REFUSED
    assert [request.split()[1] for request in requests] == ["/v1/settings", "/v1/join"]
    assert "not a safetensors message" in caplog.text


def test_an_aggregator_that_cannot_be_reached_ends_the_trainer_with_11(
    shard: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    assert main([*arguments(shard, address), "--patience-seconds", "0.3"]) == EXIT_UNREACHABLE
    assert "attempt 2 at /v1/settings failed (ConnectionRefusedError" in caplog.text
    assert "no answer from the aggregator at /v1/settings" in caplog.text
    assert "--patience-seconds is 0" in caplog.text


def test_a_failing_server_is_asked_again_and_then_given_up_for_now() -> None:
    with (
        answer_always(503, b"later") as (url, requests),
        contextlib.closing(AggregatorClient(url, "t", patience_seconds=0.2)) as client,
        pytest.raises(AggregatorError, match="answered 503: later") as failure,
    ):
        client.settings()
    assert len(requests) >= 2
    assert not failure.value.permanent


def test_a_name_that_is_not_known_yet_is_looked_up_until_it_is_and_anew_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a headless Service's, which has no address before its pod is there, and another one after the next pod."""
    known: dict[str, tuple[str, int]] = {}
    look_up, asked = socket.getaddrinfo, []

    def getaddrinfo(host: str, port: int, *more: Any, **named: Any) -> Any:
        asked.append(host)
        if len(asked) < 3:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return look_up(*known[host], *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with contextlib.closing(AggregatorClient("http://run-1-aggregator:9000", "t")) as client:
        for pod in ("first", "second"):
            with answer_always(200, json.dumps({"run": pod}).encode()) as (url, _requests):
                known["run-1-aggregator"] = ("127.0.0.1", int(url.rpartition(":")[2]))
                assert client.settings() == {"run": pod}
            client.close()  # the pod's end closed it
    assert asked == ["run-1-aggregator"] * 4


def test_help_needs_neither_token_nor_shard_nor_aggregator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE)
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
