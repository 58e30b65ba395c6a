"""Copies of pages: given to the next reader, and never once they are past."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator

import pytest
from django.core.cache import cache
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext

from blog_site.articles import hot
from blog_site.articles.hot import read_or_make, touch_page
from blog_site.articles.models import Article, Category
from blog_site.articles.services import save_article
from blog_site.comments.decisions import decide
from blog_site.comments.models import Decision
from blog_site.comments.services import post_comment
from tests.blog import make_article, make_comment, make_prediction, make_user
from tests.test_cache import redis_away

__all__ = ["redis_away"]


@pytest.fixture(autouse=True)
def _empty_cache() -> Iterator[None]:
    cache.clear()
    yield
    cache.clear()


def make_hot_article(comments: int = 3) -> Article:
    article = make_article()
    for number in range(comments):
        comment = make_comment(article, f"第{number}条评论", author=make_user(f"reader{number}"))
        make_prediction(comment)
    touch_page(article.pk)
    return article


def read(article: Article, client: Client | None = None, **asked: str) -> str:
    return (client or Client()).get(article.get_absolute_url(), asked).content.decode()


@pytest.mark.django_db
def test_a_warm_page_takes_one_query_whatever_hangs_on_it(client: Client) -> None:
    article = make_hot_article(comments=30)

    with CaptureQueriesContext(connection) as cold:
        first = client.get(article.get_absolute_url())
    with CaptureQueriesContext(connection) as warm:
        second = Client().get(article.get_absolute_url())

    assert len(cold) <= 12
    assert len(warm) == 1
    assert second.content == first.content
    assert "第29条评论" in second.content.decode()
    assert not second.cookies
    assert second["Vary"] == "Cookie, Accept-Language"


@pytest.mark.django_db
def test_the_queries_of_a_cold_page_do_not_grow_with_its_comments(client: Client) -> None:
    article = make_hot_article(comments=5)
    with CaptureQueriesContext(connection) as of_few:
        read(article)
    for number in range(40):
        make_prediction(make_comment(article, f"又一条{number}"))
    touch_page(article.pk)

    with CaptureQueriesContext(connection) as of_many:
        read(article)

    assert len(of_many) == len(of_few) <= 12


@pytest.mark.django_db
@pytest.mark.parametrize("order", ["", "newest", "oldest"])
def test_each_order_has_a_copy_of_its_own(client: Client, order: str) -> None:
    article = make_hot_article(comments=2)
    for asked in ("oldest", "newest"):
        read(article, order=asked)

    page = read(article, **({"order": order} if order else {}))

    assert (page.index("第0条评论") < page.index("第1条评论")) == (order == "oldest")


@pytest.mark.django_db
def test_every_change_is_seen_at_once() -> None:
    article = make_hot_article()
    moderator = make_user("moderator", is_staff=True)
    read(article)

    comment = post_comment(article=article, author=make_user("late"), text="后来的一条")
    assert "后来的一条" in read(article)

    decide(comments=[comment], action=Decision.Action.HIDE, by=moderator)
    assert "后来的一条" not in read(article)

    article.title = "改过的标题"
    save_article(article=article, tags=["新标签"])
    assert "改过的标题" in read(article)
    assert "新标签" in read(article)

    article.status = Article.Status.DRAFT
    save_article(article=article, tags=[])
    assert Client().get(article.get_absolute_url()).status_code == 404


@pytest.mark.django_db
def test_a_change_that_is_rolled_back_leaves_the_copy() -> None:
    article = make_hot_article()
    read(article)

    with transaction.atomic():
        post_comment(article=article, author=make_user("late"), text="没有发生")
        transaction.set_rollback(True)

    with CaptureQueriesContext(connection) as asked:
        page = read(article)
    assert len(asked) == 1
    assert "没有发生" not in page


@pytest.mark.django_db
def test_what_was_read_before_a_change_is_kept_for_nobody_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    article = make_hot_article(comments=1)
    moderator = make_user("moderator", is_staff=True)
    keep = cache.set

    def hide_and_keep(key: str, *args: object, **named: object) -> None:
        """The page is made, and not yet in the cache: here a moderator hides what stands on it."""
        if key.startswith("article-page"):
            decide(comments=article.comments.all(), action=Decision.Action.HIDE, by=moderator)
        keep(key, *args, **named)

    monkeypatch.setattr(cache, "set", hide_and_keep)
    assert "第0条评论" in read(article)
    monkeypatch.undo()

    assert "第0条评论" not in read(article)


@pytest.mark.django_db
def test_a_cache_that_missed_a_change_shows_nothing_past(monkeypatch: pytest.MonkeyPatch) -> None:
    article = make_hot_article(comments=1)
    read(article)

    with monkeypatch.context() as away:
        for name in ("get", "get_many", "add", "set", "set_many", "incr", "delete"):
            away.setattr(type(cache._connections[cache._alias]), name, lambda *args, **named: None)
        decide(
            comments=article.comments.all(),
            action=Decision.Action.HIDE,
            by=make_user("moderator", is_staff=True),
        )

    assert "第0条评论" not in read(article)


@pytest.mark.django_db(transaction=True)
def test_nobody_of_twenty_readers_sees_a_comment_once_it_is_hidden() -> None:
    article = make_hot_article(comments=1)
    moderator = make_user("moderator", is_staff=True)
    all_read, hidden = threading.Barrier(21, timeout=120), threading.Event()
    seen_before: list[bool] = []
    seen_after: list[bool] = []

    def keep_reading() -> None:
        try:
            seen_before.append("第0条评论" in read(article))
            all_read.wait()
            for _ in range(100):
                is_past = hidden.is_set()
                page = read(article)
                if is_past:
                    seen_after.append("第0条评论" in page)
                    return
        finally:
            connection.close()

    readers = [threading.Thread(target=keep_reading) for _ in range(20)]
    for reader in readers:
        reader.start()
    all_read.wait()
    decide(comments=article.comments.all(), action=Decision.Action.HIDE, by=moderator)
    hidden.set()
    for reader in readers:
        reader.join()

    assert seen_before == [True] * 20
    assert seen_after == [False] * 20


@pytest.mark.django_db
def test_what_is_for_one_reader_is_kept_for_no_other(client: Client) -> None:
    article = make_hot_article()
    own = make_user("own")
    mine = Client()
    mine.force_login(own)
    post_comment(article=article, author=own, text="我说的")
    assert "退出登录" in read(article, mine)
    assert "退出登录" not in read(article)

    Category.objects.update(guests_may_comment=True)
    article.save()
    tokens = {re.search(r'csrfmiddlewaretoken" value="(\w+)"', read(article)).group(1) for _ in range(2)}
    assert len(tokens) == 2
    assert hot.TOKEN not in read(article)
    answer = client.get(article.get_absolute_url())
    assert "csrftoken" in answer.cookies


@pytest.mark.django_db
def test_pages_are_made_for_each_reader_where_redis_is_away(redis_away: None) -> None:
    article = make_hot_article()

    assert "第1条评论" in read(article)
    assert "第1条评论" in read(article)


def test_of_many_who_miss_a_copy_one_makes_it() -> None:
    made: list[int] = []
    started = threading.Barrier(8, timeout=60)
    given: list[str] = []

    def make() -> str:
        made.append(1)
        time.sleep(0.3)
        return "page"

    def ask() -> None:
        started.wait()
        given.append(read_or_make("hot-test", make))

    askers = [threading.Thread(target=ask) for _ in range(8)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()

    assert given == ["page"] * 8
    assert len(made) == 1


def test_a_maker_that_fails_leaves_the_others_to_make_it() -> None:
    def fail() -> str:
        raise RuntimeError("no page")

    with pytest.raises(RuntimeError):
        read_or_make("hot-test", fail)
    assert read_or_make("hot-test", lambda: "page") == "page"
    assert read_or_make("hot-test", fail) == "page"


def test_pages_near_at_hand_are_few_and_go_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(hot.time, "monotonic", lambda: now)
    near = hot.NearPages(seconds=10, pages=2)
    for name in ("a", "b", "a", "c"):
        near.keep(name, name.encode())

    assert [near.get(name) for name in ("a", "b", "c", "d")] == [b"a", None, b"c", None]
    now = 110.0
    assert near.get("a") is None
