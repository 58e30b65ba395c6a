"""Launchers: start, watch and stop a run by its name, wherever its processes live. No torch."""

from __future__ import annotations

from typing import Protocol

from federated.protocol import RunSpec, RunStatus


class Launcher(Protocol):
    """What training asks of a launcher. Each call may be repeated; none waits for the run."""

    def start(self, spec: RunSpec) -> None:
        """Start the run's aggregator and trainers; a run that was started already is left as it is."""

    def status(self, run: str) -> RunStatus:
        """Where the run stands; "absent" when it was never started."""

    def heal(self, run: str) -> None:
        """Start again what has died of a run under way."""

    def resume(self, run: str) -> None:
        """Let a run that was stopped or has failed go on; raises LookupError for one that cannot."""

    def stop(self, run: str) -> None:
        """End the run's processes; a run that has ended or never was is fine."""
