"""The command `python -m ml.bench.noop`: the service's own HTTP server, answering a constant to every request."""

from __future__ import annotations

import argparse
import json
from typing import Any

import uvicorn

from ml.label_set import LABELS

_PREDICTION = {"label": LABELS[-1], "score": 0.912345, "probabilities": dict.fromkeys(LABELS, 0.333333)}
_BODY = json.dumps({"model": "0" * 64, "predictions": [_PREDICTION]}).encode()
_HEADERS = [
    (b"content-length", str(len(_BODY)).encode()),
    (b"content-type", b"application/json"),
    (b"x-model-digest", b"0" * 64),
]


async def answer_constant(scope: Any, receive: Any, send: Any) -> None:
    """Read the whole request, as the service has to, and answer as long as it does for one text."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _BODY})


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(
        prog="python -m ml.bench.noop", description="Answer a constant to any request."
    )
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    uvicorn.run(
        answer_constant,
        host="127.0.0.1",
        port=options.port,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_keep_alive=30,
        timeout_graceful_shutdown=20,
    )


if __name__ == "__main__":
    main()
