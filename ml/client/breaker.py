"""Leaving alone a service that keeps failing."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Literal, Self

from ml.client.errors import CircuitOpen


class CircuitBreaker:
    """Closed, it lets everybody through; open, nobody; half-open, one at a time who tries (Nygard 2007, *Release It!*).

    It opens after so many failures in a row, for a pause that doubles with every probe that fails, up to the longest
    one. Pauses are drawn a fifth shorter or longer, so that many processes do not probe in step. Safe between threads.
    """

    def __init__(
        self,
        service: str,
        *,
        failures: int,
        first_pause_seconds: float,
        longest_pause_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._service = service  # as errors name it
        self._limit = failures
        self._first_pause = first_pause_seconds
        self._longest_pause = longest_pause_seconds
        self._clock = clock
        self._uniform = uniform
        self._lock = threading.Lock()
        self._failed = 0  # in a row
        self._pause = first_pause_seconds  # of the next opening
        self._probe_at: float | None = None  # None while closed
        self._probing = False
        self._era = 0  # counts openings and closings

    @property
    def state(self) -> Literal["closed", "open", "half-open"]:
        """Whether callers get through now."""
        with self._lock:
            if self._probe_at is None:
                return "closed"
            return "half-open" if self._clock() >= self._probe_at else "open"

    def admit(self) -> Permit:
        """Let a caller through; raises CircuitOpen while nobody may, or while another one is trying."""
        with self._lock:
            if self._probe_at is None:
                return Permit(self, self._era, probe=False)
            wait = self._probe_at - self._clock()
            if wait > 0:
                raise CircuitOpen(self._service, wait)
            if self._probing:
                raise CircuitOpen(self._service, self._first_pause)
            self._probing = True
            return Permit(self, self._era, probe=True)

    def settle(self, permit: Permit, healthy: bool | None) -> None:
        """Take in what a caller found; None when it found nothing out."""
        with self._lock:
            if permit.era != self._era:
                return  # asked before the circuit last opened or closed, which says more than this answer
            if healthy is None:
                self._probing = self._probing and not permit.probe
            elif healthy:
                self._close()
            elif permit.probe or self._failed + 1 >= self._limit:
                self._open()
            else:
                self._failed += 1

    def _close(self) -> None:
        self._failed = 0
        if self._probe_at is not None:
            self._era += 1
            self._probe_at, self._probing, self._pause = None, False, self._first_pause

    def _open(self) -> None:
        self._era += 1
        self._failed, self._probing = 0, False
        self._probe_at = self._clock() + self._pause * self._uniform(0.8, 1.2)
        self._pause = min(2 * self._pause, self._longest_pause)


class Permit:
    """Leave to ask once. Whoever leaves the block without having reported gives it back: a probe must not get lost."""

    def __init__(self, breaker: CircuitBreaker, era: int, probe: bool) -> None:
        self._breaker = breaker
        self.era = era
        self.probe = probe
        self._healthy: bool | None = None

    def report(self, *, healthy: bool) -> None:
        """Say whether the service is well."""
        self._healthy = healthy

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._breaker.settle(self, self._healthy)
