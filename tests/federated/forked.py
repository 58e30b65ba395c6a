"""A run's processes, forked from one that has imported torch already: for tests where they die by the dozen.

They are what `federated.launch.local` starts, but for how they begin: nothing is executed, so what /proc says of their
command and environment is not theirs, and nobody but the fork server learns their exit status. Whoever asks for those,
or for the beginning itself, starts real ones.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import socket
import sys
from pathlib import Path

import psutil

from federated.launch.local import INHERITED, PACKAGE_ROOT, StartedProcess, beginning_of

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["federated.aggregator", "federated.trainer"])


def start_forked_process(
    name: str, module: list[str], environment: dict[str, str], work_dir: Path, pass_fds: tuple[int, ...] = ()
) -> StartedProcess:
    """Stands where `federated.launch.local.start_process` stands."""
    given = {key: os.environ[key] for key in INHERITED if key in os.environ} | environment
    sockets = {fd: socket.socket(fileno=os.dup(fd)) for fd in pass_fds}
    log = work_dir / f"{name}.log"
    log.touch()  # the first fork comes when the server has imported all
    process = FORKS.Process(target=become, args=(module, given, log, sockets), daemon=True, name=name)
    process.start()
    for passed in sockets.values():
        passed.close()
    assert process.pid is not None
    return StartedProcess(name, process.pid, beginning_of(psutil.Process(process.pid)))


def become(
    words: list[str], environment: dict[str, str], log: Path, sockets: dict[int, socket.socket]
) -> None:
    """Be what `python -m words…` would be with nothing but this environment, the log and the sockets."""
    os.setsid()
    with log.open("ab") as output, open(os.devnull, "rb") as nothing:
        for stream, file in enumerate((nothing, output, output)):
            os.dup2(file.fileno(), stream)
    os.chdir(PACKAGE_ROOT)
    os.environ.clear()
    os.environ.update(environment)
    module, *arguments = words
    here = {str(fd): str(passed.fileno()) for fd, passed in sockets.items()}  # by what number it came
    arguments = [here.get(word, word) for word in arguments]
    sys.argv = [module, *arguments]
    sys.exit(importlib.import_module(module).main(arguments))
