"""Start, watch and stop a run as processes of this machine: one aggregator, one trainer per site."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil

from federated.protocol import TOKEN_VARIABLE, TOKENS_VARIABLE, RunSpec, RunStatus, read_progress
from federated.store import FolderStore, open_store

STOP_SECONDS = 3  # between SIGTERM and SIGKILL
START_SECONDS = 60  # in which whoever starts a run has surely started its processes
PACKAGE_ROOT = Path(__file__).resolve().parents[2]
# A trainer inherits nothing that leads to the database, the broker or the language model.
INHERITED = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "HOME", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")


@dataclass(frozen=True)
class StartedProcess:
    """A process and when it began: a process id alone may by now belong to somebody else."""

    name: str  # "aggregator" or the site
    pid: int
    created: float  # seconds since the epoch, as psutil gives it

    def find(self) -> psutil.Process | None:
        """The living process, or None when it has ended."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.created) < 0.1:
                if process.status() != psutil.STATUS_ZOMBIE:
                    return process
                # Ended, and perhaps our own child: take its exit status, so that the system can forget it.
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(self.pid, os.WNOHANG)
        return None


class LocalLauncher:
    """Runs live in folders: <runs_dir>/<run>/ holds run.json, processes.json, progress.jsonl and the logs."""

    def __init__(self, runs_dir: Path) -> None:
        self._runs_dir = runs_dir

    def start(self, spec: RunSpec) -> None:
        """Start a run's processes. A run that was started already, however it ended, is left as it is."""
        # First: a wrong URL must not leave a run that seems to be starting.
        store = open_store(spec.store_url)
        work_dir = self._runs_dir / spec.run
        work_dir.mkdir(parents=True, exist_ok=True)
        try:
            # Exclusive: of two workers that advance the same run, one starts it.
            with (work_dir / "run.json").open("x", encoding="utf-8") as file:
                file.write(spec.to_json())
        except FileExistsError:
            return
        try:
            self._start_processes(work_dir, store, spec)
        except BaseException:  # Ctrl-C too: what has been started must not go on without the rest
            self.stop(spec.run)
            raise

    def _start_processes(self, work_dir: Path, store: FolderStore, spec: RunSpec) -> None:
        """Start the aggregator and the trainers, each written down at once, so that `stop` finds it."""
        tokens = {site: secrets.token_urlsafe(32) for site in spec.sites}
        with socket.create_server(("127.0.0.1", 0), backlog=len(tokens) + 8) as listener:
            # The aggregator inherits the listening socket: trainers may connect before it has started up.
            address = f"http://127.0.0.1:{listener.getsockname()[1]}"
            started = [self._start_aggregator(work_dir, listener, tokens)]
            write_processes(work_dir, started)
        for site, token in tokens.items():
            started.append(self._start_trainer(work_dir, store, spec, site, address, token))
            write_processes(work_dir, started)

    def _start_aggregator(
        self, work_dir: Path, listener: socket.socket, tokens: dict[str, str]
    ) -> StartedProcess:
        module = ["federated.aggregator", "--spec", str(work_dir / "run.json"), "--work-dir", str(work_dir)]
        command = [*module, "--fd", str(listener.fileno())]
        environment = {TOKENS_VARIABLE: json.dumps(tokens)}
        return start_process("aggregator", command, environment, work_dir, pass_fds=(listener.fileno(),))

    def _start_trainer(
        self, work_dir: Path, store: FolderStore, spec: RunSpec, site: str, address: str, token: str
    ) -> StartedProcess:
        shard, validation = (
            store.shard(spec.sites[site].shard_digest),
            store.shard(spec.sites[site].validation_digest),
        )
        command = ["federated.trainer", "--aggregator", address, "--site", site]
        command += ["--shard", str(shard), "--validation", str(validation)]
        return start_process(site, command, {TOKEN_VARIABLE: token}, work_dir)

    def status(self, run: str) -> RunStatus:
        """Where a run stands. A run whose aggregator is gone without a last word has failed."""
        work_dir = self._runs_dir / run
        if not (work_dir / "run.json").exists():
            return RunStatus("absent")
        processes = self._processes(run)
        # Asked before reading: the aggregator's last word may come now. Each `find` also takes an exit status.
        alive = [process.name for process in processes if process.find() is not None]
        status = read_progress(work_dir / "progress.jsonl")
        if status.phase in ("done", "failed") or "aggregator" in alive:
            return status
        if processes:
            log = work_dir / "aggregator.log"
            reason = f"the aggregator ended without a result: {last_line(log)} (see {log})"
        elif time.time() - (work_dir / "run.json").stat().st_mtime < START_SECONDS:
            return status
        else:
            reason = f"its processes were not started within {START_SECONDS} s; start another run"
        return replace(status, phase="failed", reason=reason)

    def stop(self, run: str) -> None:
        """Stop a run's processes, politely first; a run that has ended or never was is fine."""
        alive = [found for process in self._processes(run) if (found := process.find())]
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        _, stubborn = psutil.wait_procs(alive, timeout=STOP_SECONDS)
        for process in stubborn:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(stubborn, timeout=STOP_SECONDS)

    def _processes(self, run: str) -> list[StartedProcess]:
        path = self._runs_dir / run / "processes.json"
        if not path.exists():
            return []
        return [StartedProcess(**fields) for fields in json.loads(path.read_text(encoding="utf-8"))]


def write_processes(work_dir: Path, processes: list[StartedProcess]) -> None:
    unfinished = work_dir / ".processes.json"
    unfinished.write_text(json.dumps([asdict(process) for process in processes]), encoding="utf-8")
    unfinished.replace(work_dir / "processes.json")


def start_process(
    name: str, module: list[str], environment: dict[str, str], work_dir: Path, pass_fds: tuple[int, ...] = ()
) -> StartedProcess:
    """Start `python -m module…` in a session of its own, so that the starter's Ctrl-C does not reach it."""
    inherited = {key: os.environ[key] for key in INHERITED if key in os.environ}
    # One thread each: the sites share the machine's cores.
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with (work_dir / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *module],
            cwd=PACKAGE_ROOT,
            env={**inherited, **threads, **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=pass_fds,
        )
    # The process outlives this object by intent; unset, its deletion would warn. `find` takes the true exit status.
    process.returncode = 0
    return StartedProcess(name, process.pid, psutil.Process(process.pid).create_time())


def last_line(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return "no log"
    return lines[-1] if lines else "empty log"
