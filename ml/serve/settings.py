"""What the inference service is told when it starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True)
class ServeSettings:
    """Where models come from, and the limits of a request."""

    store: Path  # holds artifacts/<digest>/ and champion.json
    poll_seconds: float = 0.2  # between looks at the champion pointer
    retry_seconds: float = 30.0  # before an artifact that failed is tried again
    workers: int = 2  # requests computed at once
    threads: int = 1  # processor threads of one computation
    max_texts: int = 256  # of a request
    max_characters: int = 10_000  # of a text
    max_body_bytes: int = 16 * 1024 * 1024  # room for the largest legal request, even all \\u escapes


def store_path(url: str) -> Path:
    """Give the folder that a URL like file:///srv/store names; raises ValueError for another kind of URL."""
    parts = urlsplit(url)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise ValueError(f"artifact store {url!r}: expected file:///absolute/path")
    return Path(unquote(parts.path))
