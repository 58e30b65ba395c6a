"""Copies, in the cache, of what readers ask for all the time: an article's page, and what is counted of its comments.

A copy is kept under the version of what it was made from, which is a row of the database that changes in the same
transaction. So nobody has to be told that a copy is old, a reader who reads on while somebody writes keeps what they
read under the version they began with, and a cache that was away, or has missed something, can show nothing that is
past: its copies are found by a version that nobody asks for any more.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from django.conf import settings
from django.core.cache import cache
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import get_token
from django.utils import timezone, translation
from django.utils.cache import patch_vary_headers

from .models import Article, PageVersion
from .readership import count_view

# What a version does not cover lags by so much, and by _NEAR_SECONDS more: a new name, and "five minutes ago".
KEPT_SECONDS: Final = 60
GUEST_COOKIE: Final = "guest_comments"
# Who brings one of these may be shown something that others are not.
PERSONAL_COOKIES: Final = frozenset({settings.SESSION_COOKIE_NAME, "messages", GUEST_COOKIE})
ORDERS: Final = ("", "newest", "oldest", "constructive")
# Stands on a page where a form has its token, which is of one browser alone.
TOKEN: Final = "a-token-of-one-browser"  # noqa: S105 - it opens nothing

_MAKING_SECONDS: Final = 5  # after which another may try: whoever makes a copy has died
_WAIT_SECONDS: Final = 2.0
_LOOK_EVERY_SECONDS: Final = 0.02

_FIND_FACTS: Final = """
    SELECT article.id, article.updated_at, version.name
    FROM articles_article article JOIN articles_pageversion version ON version.article_id = article.id
    WHERE article.slug = %s AND article.status = %s AND article.published_at <= %s
"""

# Beside the cache each process keeps the pages that it was asked for a moment ago: their keys have their versions too.
_NEAR_SECONDS: Final = 10.0
_NEAR_PAGES: Final = 64

Made = TypeVar("Made")


# -- Versions ----------------------------------------------------------------------------------------------------


def touch_page(article_id: int) -> None:
    """Give an article's page another version, within the transaction that changes what it shows.

    As late in it as may be: whoever else changes something on the same page waits from here until its end.
    """
    PageVersion.objects.bulk_create(
        [PageVersion(article_id=article_id, name=secrets.randbits(62))],
        update_conflicts=True,
        update_fields=["name"],
        # MySQL and MariaDB look at every unique key, and must not be told which.
        **({} if connection.vendor == "mysql" else {"unique_fields": ["article"]}),
    )


def page_versions(article_ids: Iterable[int]) -> dict[int, int]:
    """The versions of articles' pages, by article id; without those that nothing has changed since they were made."""
    return dict(PageVersion.objects.filter(pk__in=list(article_ids)).values_list("pk", "name"))


# -- Copies ------------------------------------------------------------------------------------------------------


def read_or_make(key: str, make: Callable[[], Made], is_kept: Callable[[Made], bool] = bool) -> Made:
    """Give the copy under a key, or make it; of many who miss it at once, one makes it and the others wait a little.

    What `is_kept` says no to is given and not kept. `make` is called too where waiting does not help, and always
    while the cache is away.
    """
    kept: Made | None = cache.get(key)
    if kept is not None:
        return kept
    lock = f"{key}:making"
    if not cache.add(lock, 1, _MAKING_SECONDS):
        kept = _wait_for(key, lock)
        return make() if kept is None else kept
    try:
        made = make()
        if is_kept(made):
            cache.set(key, made, KEPT_SECONDS)
    finally:
        cache.delete(lock)
    return made


def _wait_for(key: str, lock: str) -> Any:
    """Give what another makes, or None when that takes long or comes to nothing."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while time.monotonic() < deadline:
        being_made = (
            cache.get(lock) is not None
        )  # asked first: what was made lies there before the lock is gone
        kept = cache.get(key)
        if kept is not None or not being_made:
            return kept
        time.sleep(_LOOK_EVERY_SECONDS)
    return None


# -- Pages -------------------------------------------------------------------------------------------------------


class NearPages:
    """Pages in this process's own memory, for some seconds each; the oldest make room."""

    def __init__(self, *, seconds: float = _NEAR_SECONDS, pages: int = _NEAR_PAGES) -> None:
        self._seconds, self._most = seconds, pages
        # Key → until when (on the monotonic clock), page; the oldest first.
        self._pages: dict[str, tuple[float, bytes]] = {}
        self._lock = threading.Lock()

    def get(self, key: str) -> bytes | None:
        until, page = self._pages.get(key, (0.0, b""))
        return page if time.monotonic() < until else None

    def keep(self, key: str, page: bytes) -> None:
        with self._lock:
            self._pages.pop(key, None)
            self._pages[key] = (time.monotonic() + self._seconds, page)
            while len(self._pages) > self._most:
                del self._pages[next(iter(self._pages))]


_near_pages: Final = NearPages()


@dataclass(frozen=True)
class PageFacts:
    """What must be known of an article to find the copy of its page."""

    article_id: int
    updated_at: str  # as the database writes it
    version: int


def answer_reader(
    request: HttpRequest, slug: str, render: Callable[[dict[str, Any]], HttpResponse]
) -> HttpResponse:
    """Answer with an article's page: for somebody who is nobody in particular, with a copy of it.

    `render` makes the page; it takes what else its context needs.
    """
    facts = _find_facts(slug) if _asks_for_the_common_page(request) else None
    if facts is None:
        return render({})
    count_view(request, facts.article_id)  # who has no session is not known as the author
    key = _key_of(request, facts)
    body = _near_pages.get(key)
    if body is None:
        body = read_or_make(
            key,
            lambda: render({"csrf_token": TOKEN}).content,
            is_kept=lambda made: TOKEN.encode() not in made,
        )
        if TOKEN.encode() in body:
            body = body.replace(TOKEN.encode(), get_token(request).encode())
        else:
            _near_pages.keep(key, body)
    response = HttpResponse(body)
    patch_vary_headers(response, ("Cookie", "Accept-Language"))
    return response


def _asks_for_the_common_page(request: HttpRequest) -> bool:
    asked = request.GET
    if not PERSONAL_COOKIES.isdisjoint(request.COOKIES):
        return False
    return len(asked) == 0 or (len(asked) == 1 and asked.get("order") in ORDERS)


def _find_facts(slug: str) -> PageFacts | None:
    """None where there is no copy to be had: of a page that is not public, or whose comments never changed.

    In SQL, since the mapper takes longer to write this query than all else that answers a reader.
    """
    now = connection.ops.adapt_datetimefield_value(timezone.now())
    with connection.cursor() as cursor:
        cursor.execute(_FIND_FACTS, [slug, Article.Status.PUBLISHED.value, now])
        row = cursor.fetchone()
    return PageFacts(row[0], str(row[1]), row[2]) if row else None


def _key_of(request: HttpRequest, facts: PageFacts) -> str:
    parts = (
        facts.updated_at,
        facts.version,
        translation.get_language(),
        timezone.get_current_timezone_name(),
        request.scheme,
        request.get_host(),
        request.GET.get("order", ""),
    )
    digest = hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()
    return f"article-page:{facts.article_id}:{digest[:32]}"
