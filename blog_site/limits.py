"""How often somebody may do something: counted in the cache, so that all web processes count together."""

from __future__ import annotations

import hashlib
import ipaddress
import re
import time
from dataclasses import dataclass

from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache

from .cache import ForgivingRedisCache

_PERIODS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
_RATE = re.compile(r"(\d{1,9})/(second|minute|hour|day)")
# Goes on by itself where processes share no cache, and while Redis is away.
_of_this_process = LocMemCache("limits of this process", {"OPTIONS": {"MAX_ENTRIES": 20_000}})


@dataclass(frozen=True)
class Rate:
    """So many uses in each period; none where `uses` is 0."""

    uses: int
    seconds: int


def parse_rate(text: str) -> Rate:
    """Read a rate such as "60/minute"; raises ValueError."""
    matched = _RATE.fullmatch(text.strip())
    if matched is None:
        raise ValueError(f"{text!r} is no rate: write it like 60/minute ({', '.join(_PERIODS)})")
    return Rate(uses=int(matched[1]), seconds=_PERIODS[matched[2]])


def spend(*, purpose: str, who: str, rate: Rate) -> int:
    """Count one use of somebody's; gives 0, or after how many seconds there is another one to spend.

    Two uses at the same moment count as two, in whichever processes. While Redis is away, which blog_site.cache says
    in the log, each process goes by what it has counted itself.
    """
    period, past = divmod(int(time.time()), rate.seconds)
    # Of an address, or of a name that anybody may have typed.
    name = hashlib.sha256(who.encode(errors="surrogatepass")).hexdigest()
    key = f"limit:{purpose}:{rate.seconds}:{name}:{period}"
    own, shared = _count_own(key, 2 * rate.seconds), _count_shared(key, 2 * rate.seconds)
    used = own if shared is None else shared
    return rate.seconds - past if used > rate.uses else 0


def _count_own(key: str, kept_seconds: int) -> int:
    _of_this_process.add(key, 0, kept_seconds)
    try:
        return _of_this_process.incr(key)
    except ValueError:  # thrown out meanwhile, to make room
        return 1


def _count_shared(key: str, kept_seconds: int) -> int | None:
    shared = caches["default"]
    return shared.count(key, kept_seconds) if isinstance(shared, ForgivingRedisCache) else None


def forget_counts() -> None:
    """Forget what this process has counted, not what Redis has."""
    _of_this_process.clear()


def network_of(address: str) -> str:
    """The part of an address that one household has: all of IPv4, the first half of IPv6."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    if parsed.version == 4:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False))
