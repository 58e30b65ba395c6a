"""Processes on cores of their own: the server that is measured, and functions of the benchmark itself."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import psutil

Result = TypeVar("Result")
ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60  # in which a server is ready
STOP_SECONDS = 30  # between SIGTERM and SIGKILL; a server first answers what it has taken

# Compiling is no part of a service's start, and a token would have to be sent with every request.
NOT_INHERITED = frozenset({"PYTHONDONTWRITEBYTECODE", "INFERENCE_TOKEN"})


class BenchError(Exception):
    """Something cannot be measured; says what and what to do."""


@dataclass(frozen=True)
class Cores:
    """Which core serves (and computes, when nothing is served), and which asks."""

    server: int
    client: int


def choose_cores() -> Cores:
    """Take two of the cores this process may use, the last for the server; raises BenchError where there is one."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise BenchError(
            f"only core {allowed[0]} may be used here: client and server need one each, or each would slow the other"
        )
    return Cores(server=allowed[-1], client=allowed[0])


def run_on_core(core: int, function: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
    """Call a module's function in a fresh process on one core, and give what it returns.

    Raises BenchError with its error when it raises one. The process is ended when this one is interrupted.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_answer, args=(theirs, core, function, arguments, options), daemon=True)
    # Ctrl-C is for us alone, from the first moment of the process: masks are inherited.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    theirs.close()
    try:
        error, result = ours.recv()
    except EOFError:
        process.join()
        raise BenchError(
            f"{function.__name__} ended with {process.exitcode} before it had a result"
        ) from None
    finally:
        process.terminate()
        process.join()
    if error is not None:
        raise BenchError(f"{function.__name__}: {error}")
    return result  # type: ignore[no-any-return]


def _answer(
    pipe: Connection,
    core: int,
    function: Callable[..., Any],
    arguments: Sequence[Any],
    options: dict[str, Any],
) -> None:
    os.sched_setaffinity(0, {core})
    try:
        pipe.send((None, function(*arguments, **options)))
    except Exception as error:
        pipe.send((f"{type(error).__name__}: {error}", None))


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    port: int
    process: psutil.Popen
    ready_seconds: float  # from the start of its process to its first "ready"

    def rss_mb(self) -> float:
        """Memory that it has now."""
        return read_rss_mb(self.process)


@contextmanager
def serving(core: int, module: str, *arguments: str) -> Iterator[Server]:
    """Run `python -m module --port … arguments` on one core, from when it is ready; raises BenchError if it is not."""
    port = find_free_port()
    command = [sys.executable, "-m", module, "--port", str(port), *arguments]
    environment = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
    with tempfile.TemporaryFile() as log:
        began = time.perf_counter()
        process = psutil.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
            start_new_session=True,  # Ctrl-C reaches us alone, and we end it
        )
        try:
            _await_ready(port, process, log)
            yield Server(port, process, time.perf_counter() - began)
        finally:
            _end(process)


def _await_ready(port: int, process: psutil.Popen, log: Any) -> None:
    give_up = time.perf_counter() + START_SECONDS
    while not _is_ready(port):
        if process.poll() is not None or time.perf_counter() > give_up:
            log.seek(0)
            lines = log.read().decode(errors="replace").strip()
            raise BenchError(f"{' '.join(process.args)} is not ready; it says:\n{lines[-2000:]}")
        time.sleep(0.002)


def _is_ready(port: int) -> bool:
    """Ask once, with nothing imported for it: what this costs counts as the server's start."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        return connection.recv(12)[9:] == b"200"
    return False


def _end(process: psutil.Popen) -> None:
    family = process.children(recursive=True) if process.is_running() else []
    with contextlib.suppress(psutil.NoSuchProcess):
        process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except psutil.TimeoutExpired:
        process.kill()
        process.wait()
    for child in family:  # of a server that was killed
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


def measure_start(core: int, module: str, *arguments: str, times: int) -> float:
    """Median seconds from a server's process to its first "ready", its files in the page cache."""
    seconds = []
    for _ in range(times):
        with serving(core, module, *arguments) as server:
            seconds.append(server.ready_seconds)
    return statistics.median(seconds)


def read_rss_mb(process: psutil.Process) -> float:
    """Give the memory a process has now, with that of processes it has started."""
    family = [process, *process.children(recursive=True)]
    return float(sum(member.memory_info().rss for member in family)) / 2**20


def find_free_port() -> int:
    """One that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
