"""What the processes of one service tell each other, so that any of them can answer for all."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

# Names of environment variables, set by the process that starts the others: the folder of their states, and the one
# in which prometheus_client lets them count together. The library reads its own name when it is imported.
FLEET_FOLDER: Final = "HUISHENG_FLEET"
COUNTERS_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"


@dataclass(frozen=True)
class WorkerState:
    """What one process serves, what it should serve, and why they differ."""

    model: str | None = None  # digest
    wanted: str | None = None  # digest
    error: str | None = "no model has been loaded yet"
    wanted_since: float = 0.0  # seconds of the machine's monotonic clock, which its processes share
    device: str | None = None  # where the model is computed
    reached: bool = False  # whether requests come to it, with a model or without

    @property
    def ready(self) -> bool:
        """Whether it answers."""
        return self.model is not None


class Fleet:
    """The states of all processes of a service, each in a file of a folder that they share.

    A process alone needs no folder. Files are replaced as a whole; that of a process that died is removed by the one
    that started it.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._own = WorkerState()

    def publish(self, state: WorkerState) -> None:
        """Tell the others what this process serves."""
        self._own = state
        if self._folder is not None:
            temporary = self._folder / f".{os.getpid()}.new"
            temporary.write_text(json.dumps(asdict(state)), encoding="utf-8")
            os.replace(temporary, state_file(self._folder, os.getpid()))

    def state(self) -> WorkerState:
        """What all of them together serve."""
        return combine_states(self._read_all() if self._folder is not None else [self._own])

    def _read_all(self) -> list[WorkerState]:
        assert self._folder is not None
        states = []
        for path in sorted(self._folder.glob("worker-*.json")):
            try:
                states.append(WorkerState(**json.loads(path.read_bytes())))
            except FileNotFoundError:  # its process died a moment ago
                continue
        return states or [self._own]


def state_file(folder: Path, pid: int) -> Path:
    """Name the file in which a process tells its state."""
    return folder / f"worker-{pid}.json"


def combine_states(states: Sequence[WorkerState]) -> WorkerState:
    """Say what a service of several processes serves: a model only once every process that answers serves it.

    While some have changed and others not, it is the one that is not wanted: whoever waits for the new one must not
    see it before the last old answer was given. One to which requests come while it has nothing, as where none had
    until now, makes a service that is not ready. One that was started anew answers no one until it has looked, and says
    nothing against the others.
    """
    newest = max(
        states, key=lambda state: state.wanted_since
    )  # others may not have seen the pointer change yet
    serving = [state for state in states if state.ready]
    if not serving:
        return newest
    wanted = newest.wanted
    empty = [state for state in states if state.reached and not state.ready]
    if empty:
        error = next((state.error for state in empty if state.wanted == wanted), None)
        return WorkerState(None, wanted, error, newest.wanted_since, reached=True)
    behind = [state for state in serving if state.model != wanted]
    # What is said of an older pointer says nothing of this one.
    error = next((state.error for state in serving if state.error and state.wanted == wanted), None)
    answering = (behind or serving)[0]
    return WorkerState(answering.model, wanted, error, newest.wanted_since, answering.device)
