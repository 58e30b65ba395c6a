"""Doing the same thing several times at once, as several workers do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from django.db import connection


def in_threads(work: Callable[[], Any], times: int) -> list[Any]:
    """Do the same in several threads that start together; gives what they returned or raised."""
    barrier, outcomes = threading.Barrier(times), []

    def run() -> None:
        try:
            barrier.wait(timeout=10)
            outcomes.append(work())
        except Exception as error:
            outcomes.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(outcomes) == times, "a thread did not come back"
    return outcomes
