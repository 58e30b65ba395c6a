"""Where a request came from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.conf import settings


def client_address(environ: Mapping[str, Any]) -> str:
    """The reader's address, of a request's `META`. What a request says of itself is believed behind the gateway alone.

    The gateway sets X-Real-IP anew on each request (infra/nginx/proxy.conf); a probe comes past it and has none.
    """
    address = environ.get("REMOTE_ADDR", "")
    return environ.get("HTTP_X_REAL_IP", address) if settings.BEHIND_GATEWAY else address
