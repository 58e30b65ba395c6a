"""How often a connection is asked whether it still stands."""

from __future__ import annotations

import time
from typing import Any, Final

from django.db import connections

# Django asks before a request's first query, which costs a page from the cache a fourth of its time. A server that
# restarts is away for longer than this, so a connection that it left behind is asked again before it is used.
TRUSTED_SECONDS: Final = 1.0


def trust_recent_connections(**_signal: Any) -> None:
    """Let a connection pass that was asked a moment ago; called when a request begins, after Django's own receiver."""
    now = time.monotonic()
    for connection in connections.all(initialized_only=True):
        if now - getattr(connection, "asked_at", 0.0) < TRUSTED_SECONDS:
            connection.health_check_done = True
        else:
            connection.asked_at = now
