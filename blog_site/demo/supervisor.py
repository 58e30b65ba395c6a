"""Starts the demo's services, waits until each is ready, restarts what dies, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

READY_SECONDS = 60
STOP_SECONDS = 5  # between SIGTERM and SIGKILL
STEADY_SECONDS = 30  # a service that lived this long may be restarted at once
LOOK_EVERY_SECONDS = 0.1
PR_SET_PDEATHSIG = 1


class ServiceFailed(Exception):
    """A service did not become ready, or dies again and again; the text names its log."""


@dataclass(frozen=True)
class Service:
    name: str
    command: Sequence[str]  # arguments for this Python, e.g. ["-m", "ml.serve"]
    environment: Mapping[str, str]
    is_ready: Callable[[], bool]


@dataclass
class Running:
    service: Service
    process: subprocess.Popen[bytes]
    started: float
    quick_deaths: int = 0


class Supervisor:
    def __init__(self, services: Sequence[Service], log_dir: Path) -> None:
        self._services = services
        self._log_dir = log_dir
        self._running: list[Running] = []

    def start(self) -> None:
        self._log_dir.mkdir(parents=True, exist_ok=True)
        for service in self._services:
            self._running.append(Running(service, self._start(service), time.monotonic()))

    def _start(self, service: Service) -> subprocess.Popen[bytes]:
        with self.log(service).open("ab") as log:
            return subprocess.Popen(
                [sys.executable, *service.command],
                env={**os.environ, **service.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the supervisor, which stops the services in turn
                preexec_fn=end_with_parent,
            )

    def log(self, service: Service) -> Path:
        return self._log_dir / f"{service.name}.log"

    def wait_until_ready(self) -> Iterator[Service]:
        """Give each service when it is ready. Raises ServiceFailed when one ends or takes too long."""
        waiting = list(self._running)
        deadline = time.monotonic() + READY_SECONDS
        while waiting:
            for running in list(waiting):
                if running.process.poll() is not None:
                    raise ServiceFailed(self._describe_end(running))
                if running.service.is_ready():
                    waiting.remove(running)
                    yield running.service
            if waiting and time.monotonic() > deadline:
                tails = "\n".join(
                    f"{running.service.name}: {self._describe_log(running)}" for running in waiting
                )
                raise ServiceFailed(f"not ready after {READY_SECONDS} s:\n{tails}")
            time.sleep(LOOK_EVERY_SECONDS)

    def watch(self, say: Callable[[str], None]) -> None:
        """Restart what dies, until interrupted. Raises ServiceFailed for a service that dies at once, thrice."""
        while True:
            for running in self._running:
                if running.process.poll() is not None:
                    self._restart(running, say)
            time.sleep(LOOK_EVERY_SECONDS)

    def _restart(self, running: Running, say: Callable[[str], None]) -> None:
        steady = time.monotonic() - running.started > STEADY_SECONDS
        running.quick_deaths = 0 if steady else running.quick_deaths + 1
        if running.quick_deaths >= 3:
            raise ServiceFailed(self._describe_end(running))
        say(self._describe_end(running))
        running.process, running.started = self._start(running.service), time.monotonic()

    def _describe_end(self, running: Running) -> str:
        status = running.process.returncode
        return f"{running.service.name} ended with status {status}; {self._describe_log(running)}"

    def _describe_log(self, running: Running) -> str:
        log = self.log(running.service)
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        tail = "\n  ".join(lines[-5:])
        return f"{log} says\n  {tail}"

    def stop(self) -> None:
        """End every service and what it started, politely first."""
        for running in self._running:
            signal_group(running.process, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for running in self._running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.process.wait(max(0.1, deadline - time.monotonic()))
        for running in self._running:
            signal_group(running.process, signal.SIGKILL)  # also a child that outlived its ended parent
            running.process.wait()
        self._running = []


def signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def end_with_parent() -> None:
    """In the child, before exec: be terminated when the supervisor dies, even by kill -9 (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def find_free_port(wanted: int) -> int:
    """The wanted port, or the next one that nobody listens on."""
    for port in range(max(wanted, 1), min(wanted + 100, 65_536)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ServiceFailed(f"no free port between {wanted} and {wanted + 99}")
