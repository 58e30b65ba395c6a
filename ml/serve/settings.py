"""What the inference service is told when it starts."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ml.device import DEVICE_CHOICES, DeviceChoice


@dataclass(frozen=True)
class ServeSettings:
    """Where models come from, who may ask, and the limits of what is asked."""

    store: Path | str  # a folder that holds artifacts/<digest>/ and champion.json, or its http(s) address
    cache: Path | None = None  # where artifacts of an http(s) store are kept; None for a temporary folder
    store_token: str | None = None  # bearer token for an http(s) store
    token: str | None = None  # that requests must bear; None for whoever can connect
    protect_metrics: bool = False  # whether /metrics asks for the token as well
    access_log: bool = False  # one line of JSON a request

    poll_seconds: float = 0.2  # between looks at the champion pointer
    retry_seconds: float = 30.0  # before an artifact that failed is tried again
    threads: int = 1  # processor threads of one computation
    device: DeviceChoice = "auto"

    max_texts: int = 256  # of a request
    max_characters: int = 10_000  # of a text
    max_body_bytes: int = 16 * 1024 * 1024  # room for the largest legal request, even all \\u escapes
    max_wait_seconds: float = (
        0.015  # of a request that is let in, as estimated; beyond it new ones are refused
    )
    always_admitted: int = 32  # requests under way below which none is refused, however long they take
    max_waiting_bytes: int = 64 * 1024 * 1024  # of all bodies under way together: bounds memory

    max_connections: int = 1024
    headers_seconds: float = 10.0  # from a connection's or a request's begin to the end of its headers
    body_seconds: float = 30.0  # from the end of the headers to the end of the body
    idle_seconds: float = 30.0  # that a connection may stay unused; longer than clients keep theirs
    drain_seconds: float = 20.0  # for requests under way when told to stop

    payload_log: Path | None = None  # where a sample of what was asked is written, masked
    payload_rate: float = 0.01  # of requests that are sampled
    payload_log_bytes: int = 16 * 1024 * 1024  # of the file before it is set aside; one older file is kept

    def __post_init__(self) -> None:
        """Raise ValueError naming what cannot be: an unknown device, a limit that lets nothing through."""
        if self.device not in DEVICE_CHOICES:
            raise ValueError(f"device {self.device!r}: expected one of {', '.join(DEVICE_CHOICES)}")
        if not 0 <= self.payload_rate <= 1:
            raise ValueError(f"payload rate {self.payload_rate}: expected a number from 0 to 1")
        for name in ("max_texts", "max_characters", "max_body_bytes", "max_connections", "always_admitted"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: expected at least 1")
        if not (math.isfinite(self.max_wait_seconds) and self.max_wait_seconds > 0):
            raise ValueError(f"max_wait_seconds {self.max_wait_seconds}: expected seconds above 0")

    def for_worker(self, number: int) -> ServeSettings:
        """Give the settings of one of several processes: two that rotate one file would lose lines of it."""
        if self.payload_log is None:
            return self
        name = f"{self.payload_log.stem}.{number}{self.payload_log.suffix}"
        return replace(self, payload_log=self.payload_log.with_name(name))


def parse_store(url: str) -> Path | str:
    """Give the folder that a URL like file:///srv/store names, or the http(s) address without its last slash.

    Raises ValueError for another kind of URL.
    """
    parts = urlsplit(url)
    if parts.scheme in ("http", "https") and parts.netloc:
        return url
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise ValueError(
            f"artifact store {url!r}: expected file:///absolute/path, or http(s)://host/path of the same folder"
        )
    return Path(unquote(parts.path))
