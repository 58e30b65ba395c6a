"""What a round costs in Flower, with gradients that are ready: what `bench` measures of this engine.

Flower lives in an environment of its own (`make bench-flower-setup`); this starts its programs, each in a temporary
folder that is their home as well, and ends them with all that they have started. Nothing is loaded from the network.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import psutil

from federated.launch.local import end_gently
from federated.protocol import Tensors

FLOWER_BIN = Path(__file__).resolve().parents[1] / ".venv-bench" / "bin"
APP_MODULE = Path(__file__).with_name("flower_app.py")
STOP_SECONDS = 5  # between SIGTERM and SIGKILL
START_SECONDS = 60  # in which a server listens


@dataclass(frozen=True)
class Engine:
    """One of Flower's two ways of running rounds, and how long it is measured."""

    name: str
    simulated: bool
    rounds: int  # that count
    warm_up_rounds: int
    limit_seconds: float  # for all of them


# All sites in one program's worker processes, by way of Ray.
SIMULATION = Engine("simulation", simulated=True, rounds=20, warm_up_rounds=5, limit_seconds=180)
# A server, and a program for each site, over loopback. A round takes about 10 s there, so few are measured.
DEPLOYMENT = Engine("deployment", simulated=False, rounds=4, warm_up_rounds=1, limit_seconds=300)

# Without the last two Flower would look for a newer version of itself, and install what the app depends on.
SILENCE = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}
INHERITED = ("LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH")  # no proxy: everything is on loopback


class FlowerFailed(Exception):
    """Flower could not be measured; the text says why."""


def is_installed(flower_bin: Path = FLOWER_BIN) -> bool:
    return (flower_bin / "python").exists()


def measure_flower(
    gradients: Sequence[Tensors], flower_bin: Path = FLOWER_BIN
) -> dict[str, float | None] | None:
    """Milliseconds of a round beside the sites' computing, by engine; None where Flower is not installed.

    `gradients` are the sites', with the same names and shapes. An engine that could not be measured is None, and a
    line on stderr says why.
    """
    if not is_installed(flower_bin):
        return None
    figures: dict[str, float | None] = {}
    for engine in (SIMULATION, DEPLOYMENT):
        try:
            figures[engine.name] = round(measure_engine(engine, gradients, flower_bin) * 1000, 1)
        except (FlowerFailed, OSError, subprocess.SubprocessError) as error:
            print(f"Flower's {engine.name} engine could not be measured: {error}", file=sys.stderr)
            figures[engine.name] = None
    return figures


def measure_engine(engine: Engine, gradients: Sequence[Tensors], flower_bin: Path = FLOWER_BIN) -> float:
    """Seconds of a round beside the sites' computing: the median of the rounds that count. Raises FlowerFailed."""
    # A short name: Ray has sockets below it, and a socket's path holds 107 bytes.
    with tempfile.TemporaryDirectory(prefix="flower-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        write_app(folder, gradients, engine.rounds + engine.warm_up_rounds)
        with FlowerPrograms(folder, flower_bin) as programs:
            server = programs.start_server(simulation=engine.simulated)
            if engine.simulated:
                # A worker for each site, whatever the number of cores: each of ours has a process, too.
                federation = {
                    "num-supernodes": len(gradients),
                    "init-args-num-cpus": len(gradients),
                    "client-resources-num-cpus": 1,
                }
            else:
                federation = {}
                for site in range(len(gradients)):
                    programs.start_site(site, server)
            programs.run_app(server, federation, engine.limit_seconds)
        overheads: list[float] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return statistics.median(overheads[engine.warm_up_rounds :])


def write_app(folder: Path, gradients: Sequence[Tensors], rounds: int) -> None:
    """The app as Flower wants it: a folder with a pyproject.toml, here with the gradients beside it."""
    (folder / "gradients").mkdir()
    for site, gradient in enumerate(gradients):
        np.savez(folder / "gradients" / f"{site}.npz", allow_pickle=False, **gradient)
    (folder / "app").mkdir()
    shutil.copy(APP_MODULE, folder / "app")
    # A JSON string is a TOML string.
    (folder / "app" / "pyproject.toml").write_text(
        f"""
[project]
name = "ready-gradients"
version = "1.0.0"

[tool.flwr.app]
publisher = "huisheng"

[tool.flwr.app.components]
serverapp = "flower_app:server_app"
clientapp = "flower_app:client_app"

[tool.flwr.app.config]
gradients_dir = {json.dumps(str(folder / "gradients"))}
result = {json.dumps(str(folder / "result.json"))}
sites = {len(gradients)}
rounds = {rounds}
""",
        encoding="utf-8",
    )


class FlowerPrograms:
    """Flower's programs that run in a folder; leaving the block ends them and whatever they have started."""

    def __init__(self, folder: Path, flower_bin: Path) -> None:
        self._folder = folder
        self._bin = flower_bin
        self._started: list[subprocess.Popen[bytes]] = []
        self._environment = {
            **{name: os.environ[name] for name in INHERITED if name in os.environ},
            **SILENCE,
            "PATH": f"{flower_bin}{os.pathsep}{os.environ.get('PATH', os.defpath)}",  # they start one another
            "HOME": str(folder),
            "FLWR_HOME": str(folder / "home"),
            "RAY_TMPDIR": str(folder),
            "OMP_NUM_THREADS": "1",  # the sites share the machine's cores
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        while remaining := self._find_processes():
            end_gently(remaining, STOP_SECONDS)
        for process in self._started:
            process.wait()

    def start_server(self, *, simulation: bool) -> str:
        """Start a SuperLink and wait until it listens; gives its address."""
        port = find_free_port()
        command = ["flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", str(port)]
        process = self._start("server", [*command, "--simulation"] if simulation else command)
        give_up = time.monotonic() + START_SECONDS
        while not is_listening(port):
            if process.poll() is not None or time.monotonic() > give_up:
                raise FlowerFailed(f"its server does not listen: {self._last_line('server')}")
            time.sleep(0.1)
        return f"127.0.0.1:{port}"

    def start_site(self, site: int, server: str) -> None:
        """Start a SuperNode, which tries to reach the server until it does."""
        command = ["flower-supernode", "--insecure", "--superlink", server]
        command += ["--host", "127.0.0.1", "--port", str(find_free_port())]
        self._start(f"site-{site}", [*command, "--node-config", f"partition-id={site}"])

    def run_app(self, server: str, federation: dict[str, int], limit_seconds: float) -> None:
        """Hand the app to the server and wait until it has left its result."""
        home = self._folder / "home"
        home.mkdir(exist_ok=True)
        (home / "config.toml").write_text(
            f'[superlink.bench]\naddress = "{server}"\ninsecure = true\n', encoding="utf-8"
        )
        command = ["flwr", "run", str(self._folder / "app"), "bench", "--stream"]
        if federation:
            settings = " ".join(f"{name}={value}" for name, value in federation.items())
            command += ["--federation-config", settings]
        process = self._start("app", command)
        try:
            process.wait(limit_seconds)
        except subprocess.TimeoutExpired:
            raise FlowerFailed(f"no result within {limit_seconds:.0f} s") from None
        if not (self._folder / "result.json").exists():
            raise FlowerFailed(f"its app left no result: {self._last_line('app')}")

    def _start(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        with (self._folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [str(self._bin / command[0]), *command[1:]],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches us alone, and we end them
            )
        self._started.append(process)
        return process

    def _find_processes(self) -> set[psutil.Process]:
        """What lives with our environment, and its children: some leave their parent, some overwrite what they had."""
        found = set()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("HOME") == str(self._folder):
                    found |= {process, *process.children(recursive=True)}
        return found

    def _last_line(self, name: str) -> str:
        lines = (self._folder / f"{name}.log").read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it has said nothing")


def find_free_port() -> int:
    """One that nobody has at this moment: Flower's programs take a number, not a socket."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
