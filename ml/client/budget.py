"""How many retries a client may add to what it is asked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class RetryBudget:
    """A token bucket: each call adds a fraction of a retry, each retry takes a whole one; safe between threads.

    Retries then add at most `ratio` to the load of a service that is down already, beside the `reserve` and a trickle
    of `per_second` for clients that call rarely. As Finagle's RetryBudget (Oliver 2016,
    https://finagle.github.io/blog/2016/02/08/retry-budgets), with a bucket that overflows in place of credits that
    expire.
    """

    def __init__(
        self,
        *,
        ratio: float,
        reserve: float,
        per_second: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start with the whole reserve, which is also all that can be saved up."""
        self._ratio = ratio
        self._reserve = reserve
        self._per_second = per_second
        self._clock = clock
        self._lock = threading.Lock()
        self._retries = reserve
        self._counted_at = clock()

    def deposit(self) -> None:
        """Count a call that somebody asked for."""
        with self._lock:
            self._add(self._ratio)

    def withdraw(self) -> bool:
        """Take a retry; False when there is none to take."""
        with self._lock:
            self._add(0.0)
            if self._retries < 1.0:
                return False
            self._retries -= 1.0
            return True

    def _add(self, retries: float) -> None:
        now = self._clock()
        earned = retries + (now - self._counted_at) * self._per_second
        self._counted_at = now
        self._retries = min(self._reserve, self._retries + earned)
