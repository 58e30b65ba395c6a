"""How often articles are opened: counted beside the database, and added to its rows every now and then.

A request costs one command to Redis, which all web processes share; a beat task carries what came together there into
`ArticleViews`. Without Redis, or while it is away, each process counts for itself and carries its own counts.
What is carried has a name that the database keeps in the same transaction: carried twice, it counts once.
"""

from __future__ import annotations

import atexit
import functools
import logging
import re
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final, cast

import redis
from django.conf import settings
from django.db import DatabaseError, connections, transaction
from django.db.models import Case, F, Value, When
from django.http import HttpRequest
from django.utils import timezone
from redis.exceptions import RedisError

from .models import Article, ArticleViews, CarriedViews

logger = logging.getLogger(__name__)

Counts = Mapping[tuple[int, date], int]  # by article id and day

# What reads by itself says so, or says nothing; what pretends to be a person is counted as one. Cubot makes telephones.
_PROGRAM: Final = re.compile(
    r"(?<!cu)bot\b|(?<!cu)bot[/_-]|crawl|spider|slurp|archiver|headless|lighthouse|preview|facebookexternalhit|whatsapp|feed"
    r"|monitor|uptime|pingdom|probe|curl|wget|httpx|python|aiohttp|urllib|scrapy|go-http|java/|okhttp|apache-http"
    r"|libwww|perl|ruby|node-fetch|axios|undici|postman|insomnia",
    re.IGNORECASE,
)
# Who asks for these has the article open already, and turns the pages of its comments.
_WITHIN_A_PAGE: Final = frozenset({"part", "after", "thread", "reply", "order"})
_SILENCE_SECONDS: Final = 10.0  # so long Redis is not asked again after it failed
_REMEMBERED: Final = timedelta(days=30)  # far longer than a batch can lie in Redis between two tries
_ROWS_AT_ONCE: Final = 500


def count_view(request: HttpRequest, article_id: int) -> None:
    """Count that a person has opened an article; whether it is its author is for the caller to know."""
    if is_reading(request):
        day = timezone.localdate(timezone=timezone.get_default_timezone())
        view_counter().count(article_id, day)


def is_reading(request: HttpRequest) -> bool:
    """Whether a request is somebody's who opens an article: no program, no prefetching, no turning of pages within."""
    if request.method != "GET" or not _WITHIN_A_PAGE.isdisjoint(request.GET):
        return False
    if "prefetch" in request.headers.get("Sec-Purpose", request.headers.get("Purpose", "")):
        return False
    agent = request.headers.get("User-Agent", "")
    return bool(agent) and _PROGRAM.search(agent) is None


# -- Into the database ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """Counts that are carried into the database together, under a name by which it knows them again."""

    name: str
    counts: Counts


@transaction.atomic
def carry_views(batch: Batch) -> int:
    """Add counts to the rows of their articles and days; gives how many views, 0 of a batch that was here before."""
    _carried, is_new = CarriedViews.objects.get_or_create(name=batch.name)
    if not is_new:
        return 0
    CarriedViews.objects.filter(at__lt=timezone.now() - _REMEMBERED).delete()
    standing = set(
        Article.objects.filter(pk__in={article_id for article_id, _day in batch.counts}).values_list(
            "pk", flat=True
        )
    )
    # In one order for all, so that two who write at once wait for each other and no more.
    keys = sorted(key for key in batch.counts if key[0] in standing)
    for start in range(0, len(keys), _ROWS_AT_ONCE):
        _add(keys[start : start + _ROWS_AT_ONCE], batch.counts)
    return sum(batch.counts[key] for key in keys)


def _add(keys: Iterable[tuple[int, date]], counts: Counts) -> None:
    empty = [ArticleViews(article_id=article_id, day=day, views=0) for article_id, day in keys]
    ArticleViews.objects.bulk_create(empty, ignore_conflicts=True)
    near = ArticleViews.objects.filter(
        article__in={row.article_id for row in empty}, day__in={row.day for row in empty}
    )
    found = {
        pk: counts.get((article_id, day), 0)
        for pk, article_id, day in near.values_list("pk", "article", "day")
    }
    more = Case(*(When(pk=pk, then=Value(count)) for pk, count in found.items() if count), default=Value(0))
    ArticleViews.objects.filter(pk__in=[pk for pk, count in found.items() if count]).update(
        views=F("views") + more
    )


def carry_shared_views() -> int:
    """Carry what came together in Redis into the database; gives how many views, which stay while it is away."""
    shared = view_counter().shared
    if shared is None:
        return 0
    carried = 0
    try:
        for batch in shared.take():
            carried += carry_views(batch)
            shared.forget(batch)
    except RedisError as error:
        logger.warning("views: Redis is away, its counts stay there: %s", error)
    return carried


# -- In Redis ------------------------------------------------------------------------------------------------------


class SharedCounts:
    """Counts of all processes, in a hash of Redis that is renamed when it is carried away. Raises RedisError."""

    def __init__(self, url: str, *, prefix: str = "huisheng:views") -> None:
        self._redis = redis.Redis.from_url(
            url, socket_connect_timeout=0.5, socket_timeout=1, decode_responses=True
        )
        self._open = prefix
        self._batches = f"{prefix}:batches"  # the names of those that are being carried

    def add(self, article_id: int, day: date) -> None:
        self._redis.hincrby(self._open, f"{article_id}:{day.isoformat()}", 1)

    def take(self) -> Iterator[Batch]:
        """Give what was left from last time, then what has come together since; each until it is forgotten."""
        name = uuid.uuid4().hex
        # Its name first and both at once: what no name leads to would never be found again.
        with self._redis.pipeline(transaction=True) as step:
            step.sadd(self._batches, name)
            step.rename(self._open, self._key(name))  # an error, and nothing done, where nothing was counted
            step.execute(raise_on_error=False)
        for waiting in cast("set[str]", self._redis.smembers(self._batches)):
            fields = cast("dict[str, str]", self._redis.hgetall(self._key(waiting)))
            batch = Batch(waiting, {_read_field(field): int(count) for field, count in fields.items()})
            if batch.counts:
                yield batch
            else:
                self.forget(batch)

    def forget(self, batch: Batch) -> None:
        with self._redis.pipeline(transaction=True) as step:
            step.delete(self._key(batch.name))
            step.srem(self._batches, batch.name)
            step.execute()

    def _key(self, name: str) -> str:
        return f"{self._open}:{name}"


def _read_field(field: str) -> tuple[int, date]:
    article_id, _colon, day = field.partition(":")
    return int(article_id), date.fromisoformat(day)


# -- In this process -----------------------------------------------------------------------------------------------


class ViewCounter:
    """Counts in Redis; where there is none, or while it is away, here, until a thread carries that on."""

    def __init__(self, *, redis_url: str, carry_seconds: float) -> None:
        self.shared = SharedCounts(redis_url) if redis_url else None
        self._carry_seconds = carry_seconds
        self._silent_until = 0.0  # on the monotonic clock
        self._lock = threading.Lock()
        self._kept: Counter[tuple[int, date]] = Counter()
        self._leaving: Batch | None = None  # under way, or to be tried again under the same name
        self._carrying = threading.Lock()
        self._timer: threading.Timer | None = None
        atexit.register(self.carry_kept)  # a process that is told to end has nothing to lose

    def count(self, article_id: int, day: date) -> None:
        if not self._count_shared(article_id, day):
            with self._lock:
                self._kept[article_id, day] += 1
                self._set_timer()

    def _count_shared(self, article_id: int, day: date) -> bool:
        if self.shared is None or time.monotonic() < self._silent_until:
            return False
        try:
            self.shared.add(article_id, day)
        except RedisError as error:
            self._silent_until = time.monotonic() + _SILENCE_SECONDS
            logger.warning("views: Redis is away, this process counts for itself: %s", error)
            return False
        return True

    def _set_timer(self) -> None:
        if self._timer is None:
            self._timer = threading.Timer(self._carry_seconds, self._carry_in_thread)
            self._timer.daemon = True
            self._timer.start()

    def _carry_in_thread(self) -> None:
        try:
            self.carry_kept()
        finally:
            connections.close_all()  # this thread's own

    def carry_kept(self) -> int:
        """Carry this process's own counts into the database; what it does not take is kept, and tried again later."""
        carried = 0
        with self._carrying:
            while (batch := self._next_batch()) is not None:
                try:
                    carried += carry_views(batch)
                except DatabaseError as error:
                    logger.warning("views: the database took no counts, they are kept: %s", error)
                    with self._lock:
                        self._set_timer()
                    break
                self._leaving = None
        return carried

    def _next_batch(self) -> Batch | None:
        with self._lock:
            self._timer = None
            if self._leaving is None and self._kept:
                self._leaving, self._kept = Batch(uuid.uuid4().hex, dict(self._kept)), Counter()
            return self._leaving

    def stop(self) -> None:
        """Set no further timer off; what is kept is for `carry_kept`."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = None
        atexit.unregister(self.carry_kept)


@functools.cache
def view_counter() -> ViewCounter:
    """Give this process's counter."""
    return ViewCounter(redis_url=settings.REDIS_URL, carry_seconds=settings.VIEWS_CARRIED_SECONDS)
