"""Views are counted once, of people, and come into the database whatever is away meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import pytest
from django.conf import settings as blog_settings
from django.core.cache import cache
from django.db import DatabaseError
from django.test import Client, RequestFactory
from django_celery_beat.models import PeriodicTask

from blog_site.articles import readership
from blog_site.articles.models import Article, ArticleViews
from blog_site.articles.readership import Batch, SharedCounts, carry_views, is_reading, view_counter
from blog_site.articles.tasks import carry_views as carry_task
from tests.blog import make_article, make_user
from tests.comments.rows import make_comment
from tests.servers import find_free_port

PERSON = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36"
)
DAY = date(2026, 5, 1)


@pytest.fixture(autouse=True)
def _counter(settings) -> Iterator[None]:
    """A counter of its own, which carries when it is told to."""
    settings.VIEWS_CARRIED_SECONDS = 3600
    settings.REDIS_URL = ""
    cache.clear()
    view_counter.cache_clear()
    yield
    view_counter().stop()
    view_counter.cache_clear()
    cache.clear()


def visit(article: Article, client: Client | None = None, agent: str = PERSON, **asked: str) -> None:
    answer = (client or Client()).get(article.get_absolute_url(), asked, headers={"User-Agent": agent})
    assert answer.status_code == 200


def views_of(article: Article) -> int:
    view_counter().carry_kept()
    return sum(ArticleViews.objects.filter(article=article).values_list("views", flat=True))


@pytest.mark.django_db
def test_a_page_counts_whether_it_is_made_or_a_copy_and_whoever_reads_it() -> None:
    article = make_article()
    make_comment(article=article)
    reader = Client()
    reader.force_login(make_user("somebody"))

    for client in (None, None, reader):
        visit(article, client)

    assert views_of(article) == 3


@pytest.mark.django_db
def test_authors_programs_drafts_and_turning_pages_of_comments_do_not_count() -> None:
    article = make_article()
    author = Client()
    author.force_login(article.author)

    visit(article, author)
    visit(make_article("草稿", draft=True), author)
    visit(article, agent="Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)")
    visit(article, agent="")
    visit(article, order="oldest")
    visit(article, part="comments")
    Client().head(article.get_absolute_url(), headers={"User-Agent": PERSON})

    assert views_of(article) == 0
    assert ArticleViews.objects.count() == 0


@pytest.mark.parametrize(
    ("agent", "reads"),
    [
        (PERSON, True),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 MicroMessenger/8.0.49",
            True,
        ),
        (
            "Mozilla/5.0 (Linux; Android 14; Cubot KingKong) AppleWebKit/537.36 Chrome/126.0 Mobile Safari/537.36",
            True,
        ),
        ("Mozilla/5.0 (compatible; Baiduspider/2.0; +http://www.baidu.com/search/spider.html)", False),
        ("Sogou web spider/4.0", False),
        ("Mozilla/5.0 (Linux; Android 5.0) AppleWebKit/537.36 (compatible; Bytespider)", False),
        ("curl/8.5.0", False),
        ("python-httpx/0.27", False),
        ("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 HeadlessChrome/126.0.0.0 Safari/537.36", False),
    ],
)
def test_programs_are_told_from_people_by_what_they_call_themselves(agent: str, reads: bool) -> None:
    assert is_reading(RequestFactory().get("/", headers={"User-Agent": agent})) is reads


def test_a_page_that_is_fetched_in_advance_is_not_read() -> None:
    headers = {"User-Agent": PERSON, "Sec-Purpose": "prefetch;prerender"}
    assert not is_reading(RequestFactory().get("/", headers=headers))


@pytest.mark.django_db
def test_a_batch_adds_to_what_is_there_and_only_once() -> None:
    article, other = make_article(), make_article("另一篇")
    carry_views(Batch("a", {(article.pk, DAY): 3, (other.pk, DAY): 1}))
    second = Batch("b", {(article.pk, DAY): 4, (article.pk, date(2026, 5, 2)): 1, (10**9, DAY): 5})

    assert carry_views(second) == 5, "an article that is gone has no row"
    assert carry_views(second) == 0

    rows = ArticleViews.objects.order_by("article", "day").values_list("article", "day", "views")
    assert list(rows) == [
        (article.pk, DAY, 7),
        (article.pk, date(2026, 5, 2), 1),
        (other.pk, DAY, 1),
    ]


@pytest.mark.django_db
def test_counts_that_the_database_did_not_take_come_with_the_next_ones(monkeypatch) -> None:
    article = make_article()
    visit(article)
    with monkeypatch.context() as patch:
        patch.setattr(readership, "carry_views", _refuse)
        assert view_counter().carry_kept() == 0
    visit(article)

    assert views_of(article) == 2


def _refuse(batch: Batch) -> int:
    raise DatabaseError("gone away")


@pytest.mark.django_db
def test_while_redis_is_away_a_process_counts_for_itself(settings) -> None:
    settings.REDIS_URL = f"redis://127.0.0.1:{find_free_port()}/0"
    article = make_article()

    visit(article)
    visit(article)

    assert readership.carry_shared_views() == 0
    assert views_of(article) == 2


@pytest.mark.django_db
def test_the_schedule_carries_views_every_minute() -> None:
    row = PeriodicTask.objects.select_related("interval").get(name="carry views")
    assert (row.task, row.interval.every, row.interval.period) == (carry_task.name, 60, "seconds")


@pytest.mark.servers
@pytest.mark.django_db
def test_counts_of_all_processes_come_together_in_redis_and_are_carried_once(settings) -> None:
    settings.REDIS_URL = blog_settings.CACHES["default"]["LOCATION"]
    article = make_article()
    shared = SharedCounts(settings.REDIS_URL)
    visit(article)
    visit(article)
    shared.add(article.pk, DAY)  # another process

    left = list(shared.take())  # a task that ended before it had written
    assert [sum(batch.counts.values()) for batch in left] == [3]
    visit(article)
    carry_views(left[0])  # one that ended before it had said so to Redis

    carry_task()
    carry_task()

    assert views_of(article) == 4
    assert list(shared.take()) == []
