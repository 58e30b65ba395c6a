"""Addresses that let their holder GET one file of a store for some time, as nginx's secure_link knows them.

Such an address ends in ?expires=SECONDS&signature=S, where S is the MD5 of "SECONDS PATH KEY" in the base64 of URLs,
without padding (nginx.org/en/docs/http/ngx_http_secure_link_module.html). The secret stands last, so that MD5's
weakness to extension does not help; and nobody but us chooses the paths, so neither do its collisions.
"""

from __future__ import annotations

import base64
import hashlib
import math
import time
from typing import Final
from urllib.parse import urlencode, urlsplit, urlunsplit

from federated.store import StoreError

LONGEST_SECONDS: Final = 7 * 86_400


def presign(url: str, path: str, key: str, expires: float, *, now: float | None = None) -> str:
    """An address of a file, e.g. shard_path(digest), in the store at `url`, good until `expires`.

    `expires` is in seconds since the epoch, after `now` (else this moment) and at most LONGEST_SECONDS after it.
    Raises StoreError for another, and for a store that is a folder.
    """
    now = time.time() if now is None else now
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise StoreError(
            "only the addresses of an http(s) store can be signed: set ARTIFACT_STORE_URL to one"
        )
    if not key:
        raise StoreError("there is no key to sign with: set ARTIFACT_STORE_SIGNING_KEY to the store's own")
    if not now < expires <= now + LONGEST_SECONDS:
        raise StoreError(
            f"an address may be good for at most {LONGEST_SECONDS} s, not for {expires - now:.0f}"
        )
    until = math.ceil(expires)
    full_path = f"{parts.path.rstrip('/')}/{path.lstrip('/')}"
    query = urlencode({"expires": until, "signature": sign(full_path, key, until)})
    return urlunsplit((parts.scheme, parts.netloc, full_path, query, ""))


def sign(path: str, key: str, expires: int) -> str:
    """The signature of a path that is good until so many seconds after the epoch."""
    digest = hashlib.md5(f"{expires} {path} {key}".encode(), usedforsecurity=False).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
