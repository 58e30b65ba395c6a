"""The sign of life of workers and beat: a file, HEARTBEAT_FILE, that the loop which does the work touches.

A probe that finds it old has found a loop that stands still. While a worker has no broker there is no file: it is
connecting, and starting it anew would bring the broker back no sooner.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery import bootsteps

BEAT_EVERY_SECONDS = 2.0


def heartbeat_file() -> Path | None:
    name = os.environ.get("HEARTBEAT_FILE")
    return Path(name) if name else None


class Heartbeat(bootsteps.StartStopStep):  # type: ignore[misc]
    """Started by a worker's consumer whenever it is connected to the broker, and stopped when it no longer is."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._file = heartbeat_file()
        self._timer: Any = None
        self.enabled = self._file is not None

    def start(self, consumer: Any) -> None:
        self._beat()
        # The timer of the loop that takes messages, so it beats only while that goes round.
        self._timer = consumer.timer.call_repeatedly(BEAT_EVERY_SECONDS, self._beat)

    def stop(self, consumer: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._file is not None:
            self._file.unlink(missing_ok=True)

    def _beat(self) -> None:
        if self._file is not None:
            self._file.touch()
