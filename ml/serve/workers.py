"""The processes of one service: one a core, all at one address, each started again when it dies."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Final

from ml.serve.fleet import COUNTERS_FOLDER, FLEET_FOLDER, state_file
from ml.serve.settings import ServeSettings

log = logging.getLogger(__name__)

_STEADY_SECONDS: Final = 5.0  # a process that lived so long is started again at once
_MOST_QUICK_DEATHS: Final = 5  # of one process in a row, before the service gives up
_KILL_AFTER_SECONDS: Final = 5.0  # beyond the time to drain
_PR_SET_PDEATHSIG: Final = 1


def serve_alone(settings: ServeSettings, host: str, port: int) -> None:
    """Serve in this process until told to stop."""
    _serve(settings, host, port, listeners=None)


def serve_with_workers(settings: ServeSettings, host: str, port: int, workers: int) -> int:
    """Serve in several processes until told to stop; gives the exit status.

    Every process has a socket of its own at the same address, and the kernel spreads connections over them: with one
    shared socket, whoever wakes first takes all that wait. The sockets stay open here, so that those who connect to a
    process that died wait for the next one instead of being turned away.
    """
    try:
        _refuse_taken_address(host, port)
        listeners = [_bind(host, port) for _ in range(workers)]
    except OSError as error:
        print(f"error: cannot listen on {host}:{port}: {error.strerror or error}", file=sys.stderr)
        return 1
    with _shared_folders() as fleet_folder:
        # Imported once, here: the processes are forked, share these pages and start in a moment. Nothing of it may
        # have started a thread by then. The folder for counting must be known before.
        with kept_for_good():
            import ml.serve.app
            import ml.serve.connection  # noqa: F401

        slots = [
            _Slot(number, settings.for_worker(number), sockets) for number, sockets in enumerate(listeners)
        ]
        log.info("serving on %s:%d with %d processes", host, port, workers)
        return _Supervisor(slots, fleet_folder, host, port).run()


def _serve(settings: ServeSettings, host: str, port: int, listeners: list[socket.socket] | None) -> None:
    with kept_for_good():
        from ml.serve.app import create_app
        from ml.serve.connection import guarded_protocol
        from ml.serve.server import ServerOptions, run_server

        gateway = create_app(settings)
    options = ServerOptions(host, port, settings.drain_seconds, settings.idle_seconds)
    run_server(gateway, options, protocol=guarded_protocol(gateway), listeners=listeners)


@contextlib.contextmanager
def kept_for_good() -> Iterator[None]:
    """Keep the garbage collector from what is made meanwhile: it stays as long as the process does.

    Each full look at all of it would be a pause of some 30 ms for those who wait for an answer, and looking over
    half-imported modules again and again slows a start.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@dataclass
class _Slot:
    """One of the processes, whichever fills it now."""

    number: int
    settings: ServeSettings
    listeners: list[socket.socket]
    process: BaseProcess | None = None
    started: float = 0.0  # monotonic seconds
    quick_deaths: int = 0
    start_at: float = 0.0  # monotonic seconds; when it is due while there is no process


class _Supervisor:
    """Starts the processes, starts again what dies, and passes on that it is time to stop."""

    def __init__(self, slots: list[_Slot], fleet_folder: Path, host: str, port: int) -> None:
        self._slots = slots
        self._fleet_folder = fleet_folder
        self._address = host, port
        self._stopping = False
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._forks = multiprocessing.get_context("fork")

    def run(self) -> int:
        """Keep the processes running until a signal says to stop; gives the exit status."""
        self._wake_writer.setblocking(False)
        signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note_stop)
        status = 0
        try:
            while not self._stopping:
                self._start_due()
                if any(slot.quick_deaths >= _MOST_QUICK_DEATHS for slot in self._slots):
                    log.error("a process died %d times in a row; giving up", _MOST_QUICK_DEATHS)
                    status = 1
                    break
                self._wait()
                self._bury_dead()
        finally:
            self._stop_all()
        return status

    def _note_stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True

    def _start_due(self) -> None:
        for slot in self._slots:
            if slot.process is None and time.monotonic() >= slot.start_at:
                slot.started = time.monotonic()
                slot.process = self._forks.Process(target=self._run_worker, args=(slot,))
                slot.process.start()

    def _wait(self) -> None:
        """Wait until a process ends, a signal comes, or the next start is due."""
        due = [slot.start_at for slot in self._slots if slot.process is None]
        timeout = max(0.0, min(due) - time.monotonic()) if due else None
        sentinels = [slot.process.sentinel for slot in self._slots if slot.process is not None]
        if self._wake_reader in wait([*sentinels, self._wake_reader], timeout):
            self._wake_reader.recv(4096)

    def _bury_dead(self) -> None:
        for slot in self._slots:
            process = slot.process
            if process is None or process.exitcode is None:
                continue
            log.error("process %s ended with status %s; starting another", process.pid, process.exitcode)
            self._forget(process)
            now = time.monotonic()
            quick = now - slot.started < _STEADY_SECONDS
            slot.quick_deaths = slot.quick_deaths + 1 if quick else 0
            slot.process, slot.start_at = None, now + (0.1 * 2**slot.quick_deaths if quick else 0.0)

    def _forget(self, process: BaseProcess) -> None:
        """Let nobody take a dead process' state and its gauges for those of a living one."""
        from prometheus_client.multiprocess import mark_process_dead

        assert process.pid is not None
        state_file(self._fleet_folder, process.pid).unlink(missing_ok=True)
        mark_process_dead(process.pid)  # type: ignore[no-untyped-call]

    def _stop_all(self) -> None:
        # From here on nobody new may connect: the kernel would queue for a socket that no process accepts from.
        for slot in self._slots:
            for listener in slot.listeners:
                listener.close()
        running = [slot.process for slot in self._slots if slot.process is not None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + self._slots[0].settings.drain_seconds + _KILL_AFTER_SECONDS
        for process in running:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.exitcode is None:
                log.error("process %s did not stop in time and is killed", process.pid)
                process.kill()
                process.join()

    def _run_worker(self, slot: _Slot) -> None:
        """Be one of the processes."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        self._wake_reader.close()
        self._wake_writer.close()
        for other in self._slots:
            if other is not slot:
                for listener in other.listeners:
                    listener.close()
        _end_with_parent()
        _serve(slot.settings, *self._address, listeners=slot.listeners)


def _end_with_parent() -> None:
    """Be terminated when the process above dies, even by kill -9 (Linux)."""
    parent = os.getppid()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise SystemExit(1)


@contextlib.contextmanager
def _shared_folders() -> Iterator[Path]:
    """Make the folders by which processes count together and know of each other; removed at the end."""
    root = Path(tempfile.mkdtemp(prefix="huisheng-serve-"))
    fleet, counters = root / "fleet", root / "counters"
    try:
        for variable, folder in ((FLEET_FOLDER, fleet), (COUNTERS_FOLDER, counters)):
            folder.mkdir()
            os.environ[variable] = str(folder)
        yield fleet
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _bind(host: str, port: int) -> list[socket.socket]:
    """Give sockets bound to every address of the host, which other sockets may be bound to as well."""
    return [_bind_one(*address, shared=True) for address in _addresses(host, port)]


def _refuse_taken_address(host: str, port: int) -> None:
    """Raise OSError when somebody listens there: shared sockets would quietly divide its clients with us."""
    for address in _addresses(host, port):
        _bind_one(*address, shared=False).close()


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[str | bytes | int, ...]]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _bind_one(
    family: socket.AddressFamily, address: tuple[str | bytes | int, ...], *, shared: bool
) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made
