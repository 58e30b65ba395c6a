"""A server of the chat completions API for tests: real HTTP, with answers and failures that a test chooses."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

GOOD = {
    "sentiment": "positive",
    "intent": "praise",
    "toxicity": 0.0,
    "confidence": 0.93,
    "reason": "称赞味道",
}


@dataclass(frozen=True)
class Reply:
    """One HTTP answer."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


def completion(
    content: Any, *, finish_reason: str = "stop", refusal: str | None = None, tokens: int = 321
) -> Reply:
    """A chat completion whose message is `content`: a string as it is, anything else as JSON."""
    text = content if isinstance(content, str) or content is None else json.dumps(content, ensure_ascii=False)
    return Reply(
        200,
        json.dumps(
            {
                "id": "chatcmpl-1",
                "object": "chat.completion",
                "created": 1,
                "model": "judge-1",
                "choices": [
                    {
                        "index": 0,
                        "finish_reason": finish_reason,
                        "message": {"role": "assistant", "content": text, "refusal": refusal},
                    }
                ],
                "usage": {"prompt_tokens": tokens - 1, "completion_tokens": 1, "total_tokens": tokens},
            }
        ).encode(),
    )


def failure(status: int, *, code: str | None = None, param: str | None = None, message: str = "no") -> Reply:
    """An error in the API's own shape."""
    error = {"error": {"message": message, "type": "error", "param": param, "code": code}}
    return Reply(status, json.dumps(error).encode())


class LanguageModelServer:
    """Answers POST /v1/chat/completions with what `reply` makes of the request."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.reply: Callable[[dict[str, Any]], Reply] = lambda request: completion(GOOD)
        self._server: ThreadingHTTPServer | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                service.requests.append(request | {"path": self.path, "key": self.headers["Authorization"]})
                reply = service.reply(request)
                try:
                    self.send_response(reply.status)
                    for name, value in ({"Content-Type": "application/json"} | reply.headers).items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(reply.body)))
                    self.end_headers()
                    self.wfile.write(reply.body)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the caller's patience ended first, as a test may want

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


def asked_text(request: dict[str, Any]) -> str:
    """The comment that a request asks about, without its delimiters."""
    lines = request["messages"][1]["content"].split("\n")
    assert lines[0] == lines[-1]
    return "\n".join(lines[1:-1])
