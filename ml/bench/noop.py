"""The command `python -m ml.bench.noop`: the service's own HTTP server, answering a constant to every request."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ml.label_set import LABELS
from ml.serve.server import ServerOptions, run_server

_PREDICTION = {"label": LABELS[-1], "score": 0.912345, "probabilities": dict.fromkeys(LABELS, 0.333333)}
_BODY = json.dumps({"model": "0" * 64, "predictions": [_PREDICTION]}).encode()
_HEADERS = [
    (b"content-length", str(len(_BODY)).encode()),
    (b"content-type", b"application/json"),
    (b"x-model-digest", b"0" * 64),
]


async def answer_constant(scope: Any, receive: Any, send: Any) -> None:
    """Read the whole request, as the service has to, and answer as long as it does for one text."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _BODY})


async def _live(receive: Any, send: Any) -> None:
    """Say that starting and stopping have been done: there is nothing to do."""
    for ended in ("lifespan.startup.complete", "lifespan.shutdown.complete"):
        await receive()
        await send({"type": ended})


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(
        prog="python -m ml.bench.noop", description="Answer a constant to any request."
    )
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    run_server(answer_constant, ServerOptions("127.0.0.1", options.port))


if __name__ == "__main__":
    main()
