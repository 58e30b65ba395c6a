"""Launchers: start, watch and stop a run by its name, wherever its processes live. No torch."""

from __future__ import annotations

from collections.abc import Set
from typing import Protocol

from federated.protocol import RunSpec, RunStatus


class LauncherError(Exception):
    """A launcher cannot do what is asked; the text says what, and what to do.

    `permanent` is false where the same may succeed later: the cluster was away, or what stood there before is still
    being removed.
    """

    def __init__(self, message: str, *, permanent: bool) -> None:
        super().__init__(message)
        self.permanent = permanent


class Launcher(Protocol):
    """What training asks of a launcher. Each call may be repeated; none waits for the run. All raise LauncherError."""

    def start(self, spec: RunSpec) -> None:
        """Start the run's aggregator and trainers; what was started of it already is left as it is."""

    def status(self, run: str) -> RunStatus:
        """Where the run stands; "absent" when it was never started, or not wholly."""

    def heal(self, run: str) -> None:
        """Start again what has died of a run under way."""

    def resume(self, run: str) -> bool:
        """Let a run that was stopped or has failed go on; raises LookupError for one that cannot.

        Says whether it may go on now: not while something is still left of what it was before; ask again then.
        """

    def stop(self, run: str) -> bool:
        """End the run's processes; a run that has ended or never was is fine. Says whether nothing is left of it."""

    def runs(self) -> Set[str]:
        """The runs that something is left of."""
