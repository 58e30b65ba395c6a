"""Start, watch and stop a run as processes of this machine: one aggregator, one trainer per site."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Set
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil

from federated.protocol import (
    DIARY,
    TOKEN_VARIABLE,
    TOKENS_VARIABLE,
    ProgressLog,
    RunSpec,
    RunStatus,
    mend_last_line,
    read_progress,
)
from federated.store import STORE_TOKEN_VARIABLE, open_store
from ml.threads import available_cpus

log = logging.getLogger(__name__)

# glibc gives every thread an arena of its own, which keeps what was freed: with a thread for each site it adds up.
# And it gives large blocks back to the system at once, which then come anew, page by page, in every round. Large
# pages spare the processor a part of the search for rows that are spread over the parameters.
AGGREGATOR_MEMORY = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(2**28),
    "MALLOC_TRIM_THRESHOLD_": str(2**29),
}
AGGREGATOR = "aggregator"
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
    created: str  # as `beginning_of` names the moment
    restarts: int = 0  # how often it was started again

    def find(self) -> psutil.Process | None:
        """The living process, or None when it has ended."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            if beginning_of(process) == self.created:
                if process.status() != psutil.STATUS_ZOMBIE:
                    return process
                # Ended, and perhaps our own child: take its exit status, so that the system can forget it.
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(self.pid, os.WNOHANG)
        return None


class LocalLauncher:
    """Runs live in folders: <runs_dir>/<run>/ holds run.json, processes.json, the diary, the journal and the logs.

    Tokens stand in no file: each is made of the run's and the site's name with `secret`, so that a process that died
    can be started again with the one it had.
    """

    def __init__(self, runs_dir: Path, secret: str, max_restarts: int = 3, store_token: str = "") -> None:
        """`max_restarts` is how often each process of a run is started again before it is given up.

        `store_token` is the aggregator's for a store behind HTTP.
        """
        self._runs_dir = runs_dir
        self._store_token = store_token
        self._secret = secret.encode()
        self._max_restarts = max_restarts

    def start(self, spec: RunSpec) -> None:
        """Start a run's processes. A run that was started already, however it ended, is left as it is."""
        # First: a wrong URL must not leave a run that seems to be starting.
        open_store(spec.store_url, token=self._store_token)
        work_dir = self._runs_dir / spec.run
        work_dir.mkdir(parents=True, exist_ok=True)
        try:
            # Exclusive: of two workers that advance the same run, one starts it.
            with (work_dir / "run.json").open("x", encoding="utf-8") as file:
                file.write(spec.to_json())
        except FileExistsError:
            return
        self._start_processes(spec)

    def resume(self, run: str) -> bool:
        """Start a run's processes again that was stopped or has failed; it goes on where its journal ends.

        Always says that it may go on: it does, by then.

        Raises LookupError for a run that was never started here, or is done.
        """
        work_dir = self._runs_dir / run
        if not (work_dir / "run.json").exists():
            raise LookupError(f"{work_dir} holds no run")
        with locked(work_dir, wait=True):
            phase = self.status(run).phase
            if phase == "done":
                raise LookupError(f"{run} is done")
            if phase != "failed":  # somebody else was quicker
                return True
            self.stop(run)
            mend_last_line(work_dir / DIARY)
            ProgressLog(work_dir / DIARY).write("phase", {"phase": "starting"})
            self._start_processes(self._spec(run))
        return True

    def _spec(self, run: str) -> RunSpec:
        return RunSpec.from_json((self._runs_dir / run / "run.json").read_text(encoding="utf-8"))

    def _start_processes(self, spec: RunSpec) -> None:
        """Start the aggregator and the trainers, each written down at once, so that `stop` finds it."""
        started: list[StartedProcess] = []
        work_dir = self._runs_dir / spec.run
        try:
            with listen(0, len(spec.sites)) as listener:
                # The aggregator inherits the listening socket: trainers may connect before it has started up.
                port = listener.getsockname()[1]
                started.append(self._start_aggregator(spec, listener))
                write_processes(work_dir, port, started)
            for site in spec.sites:
                started.append(self._start_trainer(spec, site, port))
                write_processes(work_dir, port, started)
        except BaseException:  # Ctrl-C too: what has been started must not go on without the rest
            end_processes(started)
            raise

    def heal(self, run: str) -> None:
        """Start again what has died of a run under way; each process at most `max_restarts` times."""
        work_dir = self._runs_dir / run
        if not (work_dir / "processes.json").exists():
            return
        with locked(work_dir, wait=False) as alone:
            if alone:  # else somebody is at it
                self._heal(run, work_dir)

    def _heal(self, run: str, work_dir: Path) -> None:
        phase = read_progress(work_dir / DIARY).phase
        port, processes = self._port(run), self._processes(run)
        if phase in ("done", "failed") or len(processes) < 1 + len(self._spec(run).sites):
            return
        healed = [self._restart(run, process, port, phase) for process in processes]
        if healed != processes:
            write_processes(work_dir, port, healed)

    def _restart(self, run: str, process: StartedProcess, port: int, phase: str) -> StartedProcess:
        """The same process when it lives, is not needed any more, or has died too often; else another in its place."""
        is_trainer = process.name != AGGREGATOR
        if process.find() or process.restarts >= self._max_restarts or (is_trainer and phase == "evaluating"):
            return process
        log.warning("%s: %s has died and is started again", run, process.name)
        spec = self._spec(run)
        try:
            if is_trainer:
                started = self._start_trainer(spec, process.name, port)
            else:
                with listen(port, len(spec.sites)) as listener:
                    started = self._start_aggregator(spec, listener)
        except OSError as error:  # such as a port that somebody else has by now
            log.warning("%s: %s cannot be started again: %s", run, process.name, error)
            return replace(process, restarts=process.restarts + 1)
        return replace(started, restarts=process.restarts + 1)

    def _start_aggregator(self, spec: RunSpec, listener: socket.socket) -> StartedProcess:
        work_dir = self._runs_dir / spec.run
        module = ["federated.aggregator", "--spec", str(work_dir / "run.json"), "--work-dir", str(work_dir)]
        command = [*module, "--fd", str(listener.fileno())]
        tokens = {site: self._token(spec.run, site) for site in spec.sites}
        # It computes while the sites wait for it, so it may take all processors.
        environment = {TOKENS_VARIABLE: json.dumps(tokens), "OMP_NUM_THREADS": str(available_cpus())}
        environment |= AGGREGATOR_MEMORY
        if self._store_token:
            environment[STORE_TOKEN_VARIABLE] = self._store_token
        return start_process(AGGREGATOR, command, environment, work_dir, pass_fds=(listener.fileno(),))

    def _start_trainer(self, spec: RunSpec, site: str, port: int) -> StartedProcess:
        store = open_store(spec.store_url, token=self._store_token)
        shard, validation = (
            store.fetch_shard(digest, self._runs_dir / spec.run / "shards" / site)
            for digest in (spec.sites[site].shard_digest, spec.sites[site].validation_digest)
        )
        command = ["federated.trainer", "--aggregator", f"http://127.0.0.1:{port}", "--site", site]
        command += ["--shard", str(shard), "--validation", str(validation)]
        # The sites share the machine's cores; and as many threads after a restart as before, for the same sums.
        threads = str(max(1, available_cpus() // len(spec.sites)))
        environment = {TOKEN_VARIABLE: self._token(spec.run, site), "OMP_NUM_THREADS": threads}
        return start_process(site, command, environment, self._runs_dir / spec.run)

    def _token(self, run: str, site: str) -> str:
        return hmac.new(self._secret, f"{run}/{site}".encode(), hashlib.sha256).hexdigest()

    def status(self, run: str) -> RunStatus:
        """Where a run stands. A run whose aggregator is gone without a last word has failed."""
        work_dir = self._runs_dir / run
        if not (work_dir / "run.json").exists():
            return RunStatus("absent")
        processes = self._processes(run)
        # Asked before reading: the aggregator's last word may come now. Each `find` also takes an exit status.
        alive = [process.name for process in processes if process.find() is not None]
        status = read_progress(work_dir / DIARY)
        if status.phase in ("done", "failed") or AGGREGATOR in alive:
            return status
        if processes:
            log = work_dir / "aggregator.log"
            reason = f"the aggregator ended without a result: {last_line(log)} (see {log})"
        elif time.time() - (work_dir / "run.json").stat().st_mtime < START_SECONDS:
            return status
        else:
            reason = f"its processes were not started within {START_SECONDS} s; start another run"
        return replace(status, phase="failed", reason=reason)

    def stop(self, run: str) -> bool:
        """Stop a run's processes, politely first; a run that has ended or never was is fine. Nothing is left then."""
        end_processes(self._processes(run))
        return True

    def runs(self) -> Set[str]:
        """The runs of which a process lives."""
        recorded = [path.parent.name for path in self._runs_dir.glob("*/processes.json")]
        return {run for run in recorded if any(process.find() for process in self._processes(run))}

    def _port(self, run: str) -> int:
        return int(json.loads((self._runs_dir / run / "processes.json").read_text(encoding="utf-8"))["port"])

    def _processes(self, run: str) -> list[StartedProcess]:
        path = self._runs_dir / run / "processes.json"
        if not path.exists():
            return []
        recorded = json.loads(path.read_text(encoding="utf-8"))
        return [StartedProcess(**fields) for fields in recorded["processes"]]


@contextlib.contextmanager
def locked(work_dir: Path, *, wait: bool) -> Iterator[bool]:
    """Keep others from starting the run's processes meanwhile; without `wait`, gives False where somebody does."""
    with (work_dir / "starting.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def listen(port: int, sites: int) -> socket.socket:
    """A listening socket of this machine alone; port 0 takes a free one."""
    return socket.create_server(("127.0.0.1", port), backlog=sites + 8)


def end_processes(processes: list[StartedProcess]) -> None:
    """End those of the processes that are alive, politely first."""
    end_gently([found for process in processes if (found := process.find())], STOP_SECONDS)


def end_gently(alive: Collection[psutil.Process], seconds: float) -> None:
    """Ask processes to end, and end those that have not after so many seconds."""
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, stubborn = psutil.wait_procs(alive, timeout=seconds)
    for process in stubborn:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(stubborn, timeout=seconds)


def write_processes(work_dir: Path, port: int, processes: list[StartedProcess]) -> None:
    unfinished = work_dir / ".processes.json"
    recorded = {"port": port, "processes": [asdict(process) for process in processes]}
    unfinished.write_text(json.dumps(recorded), encoding="utf-8")
    unfinished.replace(work_dir / "processes.json")


def start_process(
    name: str, module: list[str], environment: dict[str, str], work_dir: Path, pass_fds: tuple[int, ...] = ()
) -> StartedProcess:
    """Start `python -m module…` in a session of its own, so that the starter's Ctrl-C does not reach it."""
    inherited = {key: os.environ[key] for key in INHERITED if key in os.environ}
    with (work_dir / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *module],
            cwd=PACKAGE_ROOT,
            env={**inherited, "PYTHONUNBUFFERED": "1", **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=pass_fds,
        )
    # The process outlives this object by intent; unset, its deletion would warn. `find` takes the true exit status.
    process.returncode = 0
    return StartedProcess(name, process.pid, beginning_of(psutil.Process(process.pid)))


def beginning_of(process: psutil.Process) -> str:
    """Name the moment at which a process began, the same whenever it is asked for.

    Not by the time of day: a clock that is set would make another process of every one that runs. Linux counts ticks
    since the system started (proc(5), field 22 of stat); elsewhere the time of day is all there is.
    """
    try:
        stat = Path(f"/proc/{process.pid}/stat").read_bytes()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except FileNotFoundError:
        return f"{process.create_time():.1f}"  # raises NoSuchProcess where that is why
    return f"{boot}/{stat.rpartition(b')')[2].split()[19].decode()}"


def last_line(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return "no log"
    return lines[-1] if lines else "empty log"
