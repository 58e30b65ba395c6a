"""The cache in Redis: what it keeps can be read elsewhere, so without Redis it forgets and pages go on."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from django.core.cache.backends.redis import RedisCache, RedisCacheClient
from redis import Redis
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)
Kept = TypeVar("Kept")


class OneClient(RedisCacheClient):
    """Asks by one client: Django makes one for each exchange, which takes as long as the exchange."""

    def get_client(self, key: str | None = None, *, write: bool = False) -> Redis:
        return self._kept_client

    @functools.cached_property
    def _kept_client(self) -> Redis:
        client: Redis = super().get_client(write=True)
        return client


class ForgivingRedisCache(RedisCache):
    """Answers as an empty cache would while Redis is away; sessions are then read from the database.

    What the blog calls is covered, and what Django's `cached_db` sessions call. A deletion that Redis did not take
    is made good by the entry's own end.
    """

    def __init__(self, server: str, params: dict[str, Any]) -> None:
        super().__init__(server, params)
        self._class = OneClient

    def get(self, key: str, default: Any = None, version: int | None = None) -> Any:
        return _forgive(lambda: super(ForgivingRedisCache, self).get(key, default, version), default)

    def get_many(self, keys: Any, version: int | None = None) -> dict[str, Any]:
        return _forgive(lambda: super(ForgivingRedisCache, self).get_many(keys, version), {})

    def has_key(self, key: str, version: int | None = None) -> bool:
        return _forgive(lambda: super(ForgivingRedisCache, self).has_key(key, version), False)

    def add(self, key: str, value: Any, *rest: Any, **named: Any) -> bool:
        return _forgive(lambda: super(ForgivingRedisCache, self).add(key, value, *rest, **named), False)

    def set(self, key: str, value: Any, *rest: Any, **named: Any) -> None:
        _forgive(lambda: super(ForgivingRedisCache, self).set(key, value, *rest, **named), None)

    def set_many(self, data: Mapping[str, Any], *rest: Any, **named: Any) -> list[str]:
        return _forgive(lambda: super(ForgivingRedisCache, self).set_many(data, *rest, **named), list(data))

    def incr(self, key: str, delta: int = 1, version: int | None = None) -> int:
        return _forgive(lambda: super(ForgivingRedisCache, self).incr(key, delta, version), delta)

    def count(self, key: str, kept_seconds: int) -> int | None:
        """Count one more and give the count, in one exchange; None while Redis is away."""
        name = self.make_and_validate_key(key)
        exchange = self._cache.get_client(name, write=True).pipeline()
        exchange.set(name, 0, ex=kept_seconds, nx=True)
        exchange.incr(name)
        return _forgive(lambda: int(exchange.execute()[1]), None)

    def touch(self, key: str, *rest: Any, **named: Any) -> bool:
        return _forgive(lambda: super(ForgivingRedisCache, self).touch(key, *rest, **named), False)

    def delete(self, key: str, version: int | None = None) -> bool:
        return _forgive(lambda: super(ForgivingRedisCache, self).delete(key, version), False)


def _forgive(ask: Callable[[], Kept], otherwise: Kept) -> Kept:
    try:
        return ask()
    except RedisError as error:
        logger.warning("cache: Redis is away, going on without: %s", error)
        return otherwise
