"""Who is let in: a bound, in time, on what waits."""

from __future__ import annotations

import math
from typing import Final

REQUEST_UNITS: Final = 256  # what a request costs beside its body's bytes: a fifth of a millisecond or so
_FIRST_SECONDS_PER_UNIT: Final = 1e-6  # until something was measured
_WEIGHT: Final = 0.1  # of the newest measurement


class Admission:
    """Lets requests in while what waits before them will be done within `max_wait_seconds`.

    A queue bounded by a count is too long for slow requests and too short for quick ones, and one that is full all the
    time makes everybody wait for its whole length. So the bound is the estimated wait: the work under way, times the
    measured time that work takes. Work is known before a body is read: units are its bytes, and a constant a request.
    Few requests are always let in, however slow they are. Bytes are bounded all the same: those of complete requests
    and, apart from them, those of bodies that are still to be completed, so that slow senders keep only each other out.
    """

    def __init__(self, *, max_wait_seconds: float, always_admitted: int, max_waiting_bytes: int) -> None:
        self._max_wait_seconds = max_wait_seconds
        self._always_admitted = always_admitted
        self._max_waiting_bytes = max_waiting_bytes
        self._seconds_per_unit = _FIRST_SECONDS_PER_UNIT
        self._units = 0
        self._held_bytes = 0
        self.under_way = 0  # requests

    @property
    def wait_seconds(self) -> float:
        """How long, as estimated, a request that came now would wait."""
        return self._units * self._seconds_per_unit

    @property
    def is_full(self) -> bool:
        """Whether a request that comes now is to be refused."""
        too_late = (
            self.under_way >= self._always_admitted
            and self._units * self._seconds_per_unit > self._max_wait_seconds
        )
        return too_late or self._units > self._max_waiting_bytes

    @property
    def retry_after_seconds(self) -> int:
        """When a refused request may come again: when what waits now will be done, in whole seconds."""
        seconds = self._units * self._seconds_per_unit
        return 1 if seconds <= 1 else math.ceil(seconds)

    def enter(self, units: int) -> None:
        """Count a request as under way until `leave` is called with the same units."""
        self._units += units
        self.under_way += 1

    def leave(self, units: int) -> None:
        """Count a request as done with, answered or not."""
        self._units -= units
        self.under_way -= 1

    def hold(self, size_bytes: int) -> bool:
        """Count bytes of a body that is not complete until they are released; false when they are too many."""
        self._held_bytes += size_bytes
        return self._held_bytes <= self._max_waiting_bytes

    def release(self, size_bytes: int) -> None:
        """Count bytes as held no more."""
        self._held_bytes -= size_bytes

    def measure(self, units: float, seconds: float) -> None:
        """Take into account that so much work was done in so much time."""
        if units > 0:
            self._seconds_per_unit += _WEIGHT * (seconds / units - self._seconds_per_unit)


def units_of(content_length: bytes | None, most_bytes: int) -> int:
    """Give the work that a request of this Content-Length brings; one that does not say counts as a small one.

    A body beyond `most_bytes` is not going to be read.
    """
    if content_length is None or not content_length.isdigit() or len(content_length) > 18:
        return REQUEST_UNITS
    return REQUEST_UNITS + min(int(content_length), most_bytes)
