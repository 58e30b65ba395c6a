"""The program that `make e2e-load` runs inside a cluster, against a service of this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.ml.serve.conftest import ServeHere

PROGRAM = Path(__file__).parents[2] / "e2e" / "inside" / "ask_steadily.py"


def ask(url: str, token: str, seconds: str = "1.5") -> dict[str, Any]:
    address = urlsplit(url)
    done = subprocess.run(
        [sys.executable, "-", str(address.hostname), str(address.port), "4", seconds],
        input=PROGRAM.read_text(encoding="utf-8"),
        env={"INFERENCE_TOKEN": token},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_it_counts_answers_and_tells_what_went_wrong(serve_here: ServeHere) -> None:
    with serve_here(token="right") as served:
        told = ask(served.url, "right")
        refused = ask(served.url, "wrong", "0.3")

    assert told["answers"] > 10
    assert told["troubles"] == {}
    assert 0 < told["p50_ms"] <= told["p99_ms"]
    assert refused["answers"] == 0
    assert set(refused["troubles"]) == {"401"}
