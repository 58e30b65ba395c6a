"""Readers who ask one after the other, and what is said of their waiting."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode

import numpy as np

from ml.bench.processes import BenchError
from ml.bench.traffic import ask_in_turns

WARM_UP_SECONDS = 0.5


@dataclass
class Traffic:
    """What was answered within a window of time."""

    seconds: float
    latencies_ms: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies_ms) / self.seconds


def percentile(latencies_ms: Sequence[float], share: float) -> float:
    """The latency that `share` per cent of the requests did not exceed: one of those measured (nearest rank)."""
    return round(float(np.percentile(latencies_ms, share, method="inverted_cdf")), 2)


def ask(
    port: int,
    requests: Sequence[bytes],
    *,
    clients: int,
    seconds: float,
    status: int = 200,
    at_most: int | None = None,
) -> Traffic:
    """Let clients ask in turns, each its next request when its last is answered, for some seconds or so many answers.

    Raises BenchError when one is answered otherwise than with `status`.
    """
    start: float | None = None
    traffic = Traffic(seconds)
    with contextlib.closing(ask_in_turns(port, requests, clients)) as answers:
        for answer in answers:
            if answer.status != status:
                raise BenchError(
                    f"{requests[answer.number].splitlines()[0].decode()} was answered with {answer.status}, "
                    f"not {status}: {answer.body[:300].decode(errors='replace')}"
                )
            start = (
                start or answer.ended + WARM_UP_SECONDS
            )  # from the first answer: it may have filled a cache
            if answer.began < start:
                continue
            if answer.ended > start + seconds or (at_most and len(traffic.latencies_ms) >= at_most):
                traffic.seconds = answer.ended - start
                break
            traffic.latencies_ms.append(1000 * (answer.ended - answer.began))
    if not traffic.latencies_ms:
        raise BenchError(f"no answer within {seconds} s to {requests[0].splitlines()[0].decode()}")
    return traffic


def write_get(path: str, **asked: str) -> bytes:
    """Give the bytes of a request for a page, as somebody without an account sends it."""
    target = quote(path) + (f"?{urlencode(asked)}" if asked else "")
    return f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept-Language: zh-CN\r\n\r\n".encode("ascii")


def write_post(path: str, text: str, cookies: dict[str, str], token: str) -> bytes:
    """Give the bytes of a comment's form, as somebody who has signed in sends it."""
    body = urlencode({"text": text})
    named = "; ".join(f"{name}={value}" for name, value in {**cookies, "csrftoken": token}.items())
    head = (
        f"POST {quote(path)} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept-Language: zh-CN\r\nCookie: {named}\r\n"
        f"X-CSRFToken: {token}\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return (head + body).encode("ascii")
