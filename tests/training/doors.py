"""What stands behind the doors in tests: a launcher that follows a script, an inference service that says what it
is told to (over real HTTP), and the real inference service as a process."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from federated.protocol import RoundRecord, RunSpec, RunStatus
from tests.servers import is_there, running_server

ROOT = Path(__file__).resolve().parents[2]


class ScriptedLauncher:
    """Takes the place of processes or Jobs: a started run goes through the script, one entry a look."""

    def __init__(self, script: Sequence[RunStatus] = ()) -> None:
        self.script = list(script)
        self.started: list[RunSpec] = []
        self.stopped: list[str] = []
        self.healed: list[str] = []
        self.resumed: list[str] = []
        self.before_start: Callable[[], object] = lambda: None
        self.before_resume: Callable[[], object] = lambda: None
        self._looks: dict[str, int] = {}
        self._lock = threading.Lock()

    def start(self, spec: RunSpec) -> None:
        self.before_start()
        with self._lock:
            if spec.run not in self._looks:
                self._looks[spec.run] = 0
                self.started.append(spec)

    def status(self, run: str) -> RunStatus:
        with self._lock:
            if run not in self._looks:
                return RunStatus("absent")
            look = self._looks[run]
            self._looks[run] = look + 1
            return self.script[min(look, len(self.script) - 1)] if self.script else RunStatus("starting")

    def heal(self, run: str) -> None:
        self.healed.append(run)

    def resume(self, run: str) -> bool:
        if run not in self._looks:
            raise LookupError(f"{run} was never started")
        self.before_resume()
        self.resumed.append(run)
        return True

    def stop(self, run: str) -> bool:
        self.stopped.append(run)
        return True

    def runs(self) -> set[str]:
        return set(self._looks) - set(self.stopped)


def make_rounds(count: int) -> tuple[RoundRecord, ...]:
    return tuple(
        RoundRecord(
            number=number,
            loss=1.0 / number,
            accuracy=1 - 0.5 / number,
            seconds=0.25,
            bytes_up=1000,
            bytes_down=2000,
            sites={
                "food": {"samples": 8, "loss": 1.0 / number, "accuracy": 0.5, "validation_accuracy": 0.75}
            },
            validation_accuracy=0.75 if number == count else None,
        )
        for number in range(1, count + 1)
    )


def make_script(result: Mapping[str, Any], rounds: int = 3) -> list[RunStatus]:
    """A run that goes well: half of its rounds, all of them, the evaluation, the result."""
    records = make_rounds(rounds)
    return [
        RunStatus("training", rounds_planned=rounds, rounds=records[: rounds // 2]),
        RunStatus("evaluating", rounds_planned=rounds, rounds=records),
        RunStatus("done", rounds_planned=rounds, rounds=records, result=result),
    ]


class SayingService:
    """Answers /readyz with what a test sets. It can be stopped and started again on its port."""

    def __init__(self) -> None:
        self.document: dict[str, Any] = {"ready": False, "model": None, "wanted": None, "error": None}
        self.port = 0
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def say(self, *, model: str | None, wanted: str | None, error: str | None = None) -> None:
        self.document = {"ready": model is not None, "model": model, "wanted": wanted, "error": error}

    def serve(self, digest: str) -> None:
        self.say(model=digest, wanted=digest)

    def start(self) -> None:
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                sent = json.dumps(service.document).encode()
                self.send_response(200 if service.document["ready"] else 503)
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


@contextmanager
def real_service(store_url: str, port: int, log: Path) -> Iterator[str]:
    """Run `python -m ml.serve` over a store until the block ends; gives its address once it is up."""
    command = [sys.executable, "-m", "ml.serve", "--store", store_url, "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    with running_server(command, log=log, answers=lambda: is_there(f"{url}/livez")):
        yield url


def answering_model(url: str) -> str:
    """The digest of the model that answers a prediction now."""
    answer = httpx.post(f"{url}/v1/predict", json={"texts": ["味道真好"]}, timeout=10, trust_env=False)
    return str(answer.raise_for_status().json()["model"])
