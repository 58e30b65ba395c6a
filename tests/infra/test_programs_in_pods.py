"""The programs that `make e2e` runs inside pods, run here: they must tell what is open from what is not."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.once
INSIDE = Path(__file__).parents[1] / "e2e" / "inside"


class Door(BaseHTTPRequestHandler):
    """Says 200, or 403 under /shut; asks for the token where predictions are asked for."""

    def do_GET(self) -> None:
        self._answer(403 if self.path.startswith("/shut") else 200)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        welcome = self.headers["Authorization"] == "Bearer right" and len(asked["texts"]) == 1
        self._answer(200 if welcome else 401)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_looking_around_tells_open_ways_from_shut_ones(port: int, tmp_path: Path) -> None:
    (tmp_path / "shard.jsonl").write_text("")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        asked = {
            "connect": {"open": ["127.0.0.1", port], "shut": ["127.0.0.1", taken.getsockname()[1]]},
            "fetch": {"own": f"http://127.0.0.1:{port}/", "other": f"http://127.0.0.1:{port}/shut"},
            "write": [str(tmp_path), str(tmp_path / "missing")],
            "folder": str(tmp_path),
        }
        program = (INSIDE / "look_around.py").read_text(encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-", json.dumps(asked)],
            input=program,
            capture_output=True,
            text=True,
            check=False,
        )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "connect": {"open": "open", "shut": "ConnectionRefusedError"},
        "fetch": {"own": 200, "other": 403},
        "write": {str(tmp_path): "written", str(tmp_path / "missing"): "FileNotFoundError"},
        "files": ["shard.jsonl", "written"],
        "api_token": False,
    }


@pytest.mark.parametrize(("token", "failures"), [("right", 0), ("wrong", 3)])
def test_steady_traffic_names_each_failure_and_counts_what_was_answered(
    port: int, token: str, failures: int
) -> None:
    program = (INSIDE / "visit_steadily.py").read_text(encoding="utf-8")
    addresses = [f"http://127.0.0.1:{port}/", f"http://127.0.0.1:{port}/v1/predict"]
    with subprocess.Popen(
        [sys.executable, "-c", program, *addresses],
        env={"INFERENCE_TOKEN": token},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        told: list[dict[str, Any]] = []
        while sum("failed" in line for line in told) < failures or not any(
            "answered" in line for line in told
        ):
            told.append(json.loads(process.stdout.readline()))
        process.kill()

    for line in told:
        assert "failed" not in line or "/v1/predict: 401" in line["failed"]
    assert any("failed" in line for line in told) == (token == "wrong")
