"""An inference service for tests: real HTTP, with answers and failures that a test chooses."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL_A, MODEL_B = "a" * 64, "b" * 64
Answer = tuple[int, Any]


def judge(text: str) -> dict[str, Any]:
    """Positive when the text says 好, negative when it says 差, else neutral."""
    label = "positive" if "好" in text else "negative" if "差" in text else "neutral"
    probabilities = dict.fromkeys(("negative", "neutral", "positive"), 0.05) | {label: 0.9}
    return {"label": label, "score": 0.9, "probabilities": probabilities}


def explain(text: str) -> list[dict[str, Any]]:
    """A part for each character: 好 and 差 carry weight, the others next to none."""
    label = judge(text)["label"]
    weights = {"positive": {"好": 2.0, "差": -1.0}, "negative": {"差": 2.0, "好": -1.0}}.get(label, {})
    return [
        {"start": place, "end": place + 1, "text": character, "weight": weights.get(character, 0.01)}
        for place, character in enumerate(text)
    ]


class InferenceServer:
    """Speaks POST /v1/predict. It can be stopped and started again on its port, as a service is."""

    def __init__(self) -> None:
        self.model = MODEL_A
        self.asked: list[list[str]] = []
        self.explained: list[list[str]] = []
        self.headers: list[dict[str, str]] = []
        self.before_answering: Callable[[list[str]], None] = lambda texts: None
        self.refusal: Callable[[list[str]], Answer | None] = lambda texts: None
        self.port = 0
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                service.headers.append({name.lower(): value for name, value in self.headers.items()})
                status, body = service.answer(document["texts"], document.get("explain", False))
                sent = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

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

    def answer(self, texts: list[str], with_reasons: bool) -> Answer:
        (self.explained if with_reasons else self.asked).append(texts)
        self.before_answering(texts)
        refused = self.refusal(texts)
        if refused is not None:
            return refused
        reasons = [{"explanation": explain(text)} if with_reasons else {} for text in texts]
        predictions = [judge(text) | reason for text, reason in zip(texts, reasons, strict=True)]
        return 200, {"model": self.model, "predictions": predictions}
