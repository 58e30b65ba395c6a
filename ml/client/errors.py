"""What a caller is told when there is no answer."""

from __future__ import annotations


class InferenceError(Exception):
    """The inference service gave no answer.

    `permanent` says that the same request will never get one; `retry_after_seconds` when the service, or the circuit
    breaker before it, wants to be asked again, if either said so.
    """

    def __init__(self, message: str, permanent: bool, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.permanent = permanent
        self.retry_after_seconds = retry_after_seconds


class CircuitOpen(InferenceError):
    """The service was not asked, since it failed just before; it is tried again after `retry_after_seconds`."""

    def __init__(self, service: str, retry_after_seconds: float) -> None:
        super().__init__(
            f"{service} has failed repeatedly and is left alone: it is tried again in {retry_after_seconds:.1f} s",
            permanent=False,
            retry_after_seconds=retry_after_seconds,
        )
