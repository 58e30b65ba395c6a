"""How the database goes about the queries of the pages that are asked for most, and of the sweeps: by an index."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from django.conf import settings
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from blog_site.articles.models import Article, Tag
from blog_site.articles.search import rebuild_index
from blog_site.comments.models import Comment, Prediction
from blog_site.labels.labellers import make_labeller
from blog_site.labels.services import unlabelled_comments
from blog_site.users.models import User
from ml.text import text_digest
from tests.blog import make_category, make_user

ARTICLES, COMMENTS = 800, 3200
# Tables that grow with the blog; a scan of one of the others, such as categories, costs nothing.
BIG = (
    "articles_article", "articles_article_tags", "articles_searchentry", "articles_searchposting",
    "comments_comment", "comments_prediction",
)  # fmt: skip
FEW = 100  # rows that may be read in the order of an index until a page is full


@pytest.fixture
def full_blog(transactional_db: None) -> Article:
    """A blog with enough rows that a database uses its indexes; gives the article that is talked about most."""
    writer, category = make_user("writer"), make_category()
    other = make_category("film", "电影")
    now = timezone.now()
    Article.objects.bulk_create(
        [
            Article(
                slug=f"a{number}",
                title=f"第{number}篇",
                body_html="<p>豆腐</p>" if number % 50 == 0 else "<p>正文</p>",
                category=other if number % 10 == 0 else category,
                author=writer,
                status="draft" if number % 7 == 0 else "published",
                published_at=None if number % 7 == 0 else now - timedelta(minutes=number),
            )
            for number in range(1, ARTICLES)
        ]
    )
    articles = list(Article.objects.published())
    tag = Tag.objects.create(slug="dou", name="豆")
    Tag.objects.bulk_create(Tag(slug=f"t{number}", name=f"签{number}") for number in range(30))
    tags = list(Tag.objects.exclude(pk=tag.pk))
    through = Article.tags.through
    through.objects.bulk_create(
        through(article=article, tag=tags[number % len(tags)]) for number, article in enumerate(articles)
    )
    through.objects.bulk_create(through(article=article, tag=tag) for article in articles[:20])
    _talk(articles, writer)
    list(rebuild_index())
    _measure_tables()
    return articles[0]


def _talk(articles: list[Article], writer: object) -> None:
    """Few of the comments stand under one article; the last of all wait for a model."""
    now = timezone.now()
    Comment.objects.bulk_create(
        [
            Comment(
                article=articles[0] if number % 80 == 0 else articles[1 + number % (len(articles) - 1)],
                author=writer,
                text=f"第{number}条",
                text_digest=text_digest(f"第{number}条"),
                created_at=now - timedelta(minutes=number),
            )
            for number in range(COMMENTS)
        ]
    )
    comments = list(Comment.objects.order_by("pk"))
    parents = [comment for comment in comments if comment.article_id == articles[0].pk][:20]
    replies = [
        Comment(
            article=articles[0],
            parent=parents[number % len(parents)],
            depth=1,
            author=writer,
            text=f"回{number}",
            text_digest=text_digest(f"回{number}"),
        )
        for number in range(60)
    ]
    Comment.objects.bulk_create(replies)
    Comment.objects.filter(pk__in=[parent.pk for parent in parents]).update(reply_count=3, shown_replies=3)
    Comment.objects.update(updated_at=now - timedelta(hours=1))
    Prediction.objects.bulk_create(
        Prediction(
            comment=comment,
            text_digest=comment.text_digest,
            model_digest="a" * 64,
            label="positive",
            score=0.9,
            probabilities={},
            latency_ms=1,
        )
        for comment in comments[:-20]
    )


def _measure_tables() -> None:
    """Let the database count, as it does by itself after a while."""
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("ANALYZE")
        else:
            cursor.execute(f"ANALYZE TABLE {', '.join(BIG)}")
            cursor.fetchall()


@pytest.fixture(autouse=True)
def _empty_cache() -> Iterator[None]:
    cache.clear()
    yield
    cache.clear()


def read_plan(sql: str) -> list[str]:
    """Give what a query reads whole of a big table, in the database's own words; nothing where it goes by an index."""
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute(f"EXPLAIN QUERY PLAN {sql}".replace("%", "%%"), ())
            ends = " WHERE " not in sql and " LIMIT " in sql  # from one end, in the order of its key
            return [row[3] for row in cursor.fetchall() if _is_scan(row[3]) and not ends]
        cursor.execute(f"EXPLAIN {sql}".replace("%", "%%"), ())
        names = [column[0] for column in cursor.description]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    aliases = _aliases(sql)
    return [
        f"{row['table']}: {row['type']} by {row['key']}, {row['rows']} rows, {row['Extra']}"
        for row in rows
        if aliases.get(row["table"], row["table"]) in BIG
        and row["type"] in ("ALL", "index")
        and (row["key"] is None or int(row["rows"]) > FEW)
    ]


def _is_scan(line: str) -> bool:
    """Whether a line of SQLite's plan is the reading of all of a big table, rather than in the order that is wanted."""
    found = re.match(r"SCAN (\w+)(?: USING (?:COVERING )?INDEX)?", line)
    return found is not None and found[1] in BIG


def _aliases(sql: str) -> dict[str, str]:
    """The tables behind the names that a query gives them."""
    return {alias: table for table, alias in re.findall(r"[`\"](\w+)[`\"] ([A-Z]\w*\d)\b", sql)}


def plans_of(ask: Callable[[], object]) -> list[str]:
    with CaptureQueriesContext(connection) as asked:
        ask()
    selects = [query["sql"] for query in asked if query["sql"].lstrip("( ").startswith("SELECT")]
    return [f"{line}\n    in {sql}" for sql in selects for line in read_plan(sql)]


def test_hot_queries_read_no_big_table_from_end_to_end(full_blog: Article) -> None:
    page = full_blog.get_absolute_url()
    comment = Comment.objects.filter(article=full_blog, parent=None).order_by("pk")[10]
    api = "/api/v1/articles"
    pages = [
        page, f"{page}?order=oldest", f"{page}?order=constructive", f"{page}?comment={comment.pk}",
        f"{page}?thread={comment.pk}", f"{page}comments/changes/?since=1", "/", "/?page=3", "/categories/film/",
        "/tags/dou/", "/authors/writer/", "/search/?q=豆腐", "/search/?q=豆", "/search/?q=第1 正文", "/feed.atom",
        f"{api}/", f"{api}/{full_blog.slug}/", f"{api}/{full_blog.slug}/comments/",
    ]  # fmt: skip

    def read(path: str) -> None:
        assert Client().get(path).status_code == 200, path

    found = {path: plans_of(lambda path=path: read(path)) for path in pages}
    first = Client().get(page).content.decode()
    following = re.search(r'more-comments"[^>]*href="([^"#]+)', first)
    assert following is not None
    next_page = following[1].replace("&amp;", "&")
    found["the next comments"] = plans_of(lambda: read(next_page))
    found["comments to score"] = plans_of(
        lambda: list(Comment.objects.unscored().older_than(20).filter(pk__gt=0).order_by("pk")[:50])
    )
    found["comments to label"] = plans_of(
        lambda: list(
            unlabelled_comments(labeller=make_labeller(settings))
            .older_than(20)
            .order_by("pk")
            .filter(pk__gt=9)[:50]
        )
    )

    some = list(Article.objects.order_by("pk").values_list("pk", flat=True)[:40])
    Article.objects.filter(pk__in=some).update(author=make_user("another"))
    another = Client()
    another.force_login(User.objects.get(username="another"))
    found["a writer's dashboard"] = plans_of(lambda: another.get("/dashboard/"))

    scanning = {name: plans for name, plans in found.items() if plans}
    assert not scanning, json.dumps(scanning, ensure_ascii=False, indent=1)


def sorts_of(ask: Callable[[], object]) -> list[str]:
    """The queries with a LIMIT for which a database has to sort all that there is first."""
    with CaptureQueriesContext(connection) as asked:
        ask()
    limited = [query["sql"] for query in asked if " LIMIT " in query["sql"] and "ORDER BY" in query["sql"]]
    return [sql for sql in limited if _sorts(sql)]


def _sorts(sql: str) -> bool:
    sign, explain = (
        ("TEMP B-TREE", "EXPLAIN QUERY PLAN") if connection.vendor == "sqlite" else ("filesort", "EXPLAIN")
    )
    with connection.cursor() as cursor:
        cursor.execute(f"{explain} {sql}".replace("%", "%%"), ())
        return any(sign in str(row) for row in cursor.fetchall())


@pytest.mark.parametrize("path", ["/", "/?page=3", "/categories/film/", "/authors/writer/"])
def test_a_page_of_a_list_is_read_in_the_order_of_an_index(full_blog: Article, path: str) -> None:
    assert sorts_of(lambda: Client().get(path)) == []
