"""What changes an article's comments, counted: whoever keeps a copy of them compares the count."""

from __future__ import annotations

import functools
import secrets

from django.conf import settings
from django.core.cache import cache
from django.db import transaction

# A count that Redis did not take, because it was away, is made good when the entry ends.
KEPT_SECONDS = 60


def touch_article(article_id: int) -> None:
    """Say, once the transaction is over, that readers of an article would now see other comments."""
    transaction.on_commit(functools.partial(_count_change, article_id), robust=True)


def article_version(article_id: int) -> str:
    """Name the state of an article's comments; another name may mean another state, the same name never does.

    A cache that has forgotten it begins anew, under a name it has not had. Where each process has a cache of its own,
    none hears what the others change: there every state is a new one.
    """
    if not settings.CACHE_IS_SHARED:
        return str(_beginning())
    key = _key(article_id)
    version = cache.get(key)
    if version is None:
        cache.add(key, _beginning(), KEPT_SECONDS)
        version = cache.get(key)
    return str(version if version is not None else _beginning())  # Redis is away


def _count_change(article_id: int) -> None:
    key = _key(article_id)
    try:
        cache.incr(key)
    except ValueError:  # not in the cache, or thrown out of it
        cache.add(key, _beginning(), KEPT_SECONDS)


def _key(article_id: int) -> str:
    return f"comments-version:{article_id}"


def _beginning() -> int:
    return secrets.randbits(62)
