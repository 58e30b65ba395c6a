"""One request to the model and its answer, without a framework between them."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.types import Receive

from ml.serve.admission import Admission
from ml.serve.batcher import Abandoned, always_wanted
from ml.serve.problems import Problem
from ml.trace import Trace

TIMEOUT: Final = b"x-request-timeout-ms"
_MAX_TIMEOUT_MS: Final = 24 * 3600 * 1000


@dataclass(slots=True)
class Exchange:
    """A request, and what is noted of it for the log while it is answered."""

    path: str
    query: bytes
    headers: Mapping[bytes, bytes]  # names in lower case; of one given twice the last
    request_id: bytes
    trace: Trace | None
    body: bytes = b""
    units: int = 0  # of work, see ml/serve/admission.py
    deadline: float = float("inf")  # monotonic seconds
    is_wanted: Callable[[], bool] = always_wanted
    texts: int = 0  # that were asked about
    model: str | None = None  # digest of the one that answered


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back."""

    status: int
    body: bytes
    content_type: bytes = b"application/json"
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)


Handler = Callable[[Exchange], Awaitable[Answer]]


@dataclass(frozen=True)
class DirectRoute:
    """A POST route that the gateway calls itself, and its part of the OpenAPI document."""

    path: str
    handler: Handler
    operation: dict[str, Any]


async def read_body(
    receive: Receive, headers: Mapping[bytes, bytes], limit_bytes: int, admission: Admission
) -> bytes:
    """Read a body; what has come of it counts in `admission` while the rest is awaited.

    Raises Problem 413 for one beyond the limit, 429 when too much is held of bodies that are not complete, Abandoned
    when the client goes away.
    """
    announced = headers.get(b"content-length", b"0")
    if announced.isdigit() and (len(announced) > 18 or int(announced) > limit_bytes):
        raise _too_large(limit_bytes)
    parts: list[bytes] = []
    held = 0
    try:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Abandoned
            part = message.get("body", b"")
            parts.append(part)
            if held + len(part) > limit_bytes:
                raise _too_large(limit_bytes)
            if not message.get("more_body", False):
                return b"".join(parts) if len(parts) > 1 else part
            held += len(part)
            if not admission.hold(len(part)):
                raise overloaded(admission.retry_after_seconds)
    finally:
        admission.release(held)


def deadline_of(headers: Mapping[bytes, bytes]) -> float:
    """Give until when (time.monotonic) the client waits for an answer, infinity where it does not say.

    `X-Request-Timeout-Ms` says so, in milliseconds from now: clocks of two machines need not agree. Raises Problem
    422 for one that is no such number.
    """
    given = headers.get(TIMEOUT)
    if given is None:
        return float("inf")
    if not given.isdigit() or len(given) > 9 or int(given) > _MAX_TIMEOUT_MS:
        raise Problem(
            422,
            f"X-Request-Timeout-Ms is {given.decode('ascii', 'replace')!r:.40}: expected whole milliseconds, at "
            f"most {_MAX_TIMEOUT_MS}",
            reason="limits",
        )
    return time.monotonic() + int(given) / 1000


def overloaded(retry_after_seconds: int) -> Problem:
    """Say that there is more to do than can be done in time."""
    return Problem(
        429,
        "more is asked than can be answered in time; ask again later, or ask less at once",
        {"Retry-After": str(retry_after_seconds)},
        reason="overload",
    )


def _too_large(limit_bytes: int) -> Problem:
    return Problem(
        413,
        f"the body is larger than the limit of {limit_bytes} bytes: send fewer texts a request",
        reason="body-size",
    )
