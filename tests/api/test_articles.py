from __future__ import annotations

import base64
from datetime import timedelta
from urllib.parse import urlencode

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from blog_site.articles.models import Article
from blog_site.articles.services import save_article
from tests.api.answers import assert_error
from tests.comments.rows import make_article, make_category, make_user

pytestmark = pytest.mark.django_db
LIST = "/api/v1/articles/"


def test_the_addresses_are_the_documented_ones() -> None:
    assert reverse("api:articles") == LIST
    assert reverse("api:article_comments", args=["slug"]) == "/api/v1/articles/slug/comments/"
    assert reverse("api:comment", args=[7]) == "/api/v1/comments/7/"
    assert reverse("api:schema") == "/api/v1/schema/"


def test_an_article_tells_all_about_itself(client) -> None:
    author = make_user("linxia", display_name="林夏")
    article = make_article(author=author, slug="soy-milk", title="豆浆", body_markdown="**烫**着喝")
    save_article(article=article, tags=["早餐"])
    said = client.get(f"{LIST}soy-milk/").json()
    assert said["title"] == "豆浆"
    assert said["author"] == {"username": "linxia", "display_name": "林夏"}
    assert said["category"]["slug"] == "food"
    assert said["tags"] == [{"slug": "早餐", "name": "早餐"}]
    assert said["body_markdown"] == "**烫**着喝"
    assert "<strong>烫</strong>" in said["body_html"]
    assert said["url"] == "/articles/soy-milk/"


def test_an_article_with_a_chinese_address_is_found(client) -> None:
    make_article(slug="烫着喝的豆浆")
    assert client.get(reverse("api:article", args=["烫着喝的豆浆"])).status_code == 200


def test_drafts_and_articles_of_tomorrow_are_for_their_author_alone(client) -> None:
    author = make_user()
    make_article(author=author, slug="draft", status=Article.Status.DRAFT)
    make_article(author=author, slug="tomorrow", published_at=timezone.now() + timedelta(days=1))
    slugs = ("draft", "tomorrow")
    for reader in (None, make_user(), author):
        if reader:
            client.force_login(reader)
        assert client.get(LIST).json()["results"] == []
        seen = [client.get(f"{LIST}{slug}/").status_code for slug in slugs]
        assert seen == ([200, 200] if reader == author else [404, 404])
        assert [client.get(f"{LIST}{slug}/comments/").status_code for slug in slugs] == [404, 404]


def test_the_list_walks_through_all_articles_newest_first_without_their_bodies(client) -> None:
    author = make_user()
    now = timezone.now()
    slugs = [f"article-{number}" for number in range(7)]
    for days, slug in enumerate(slugs):
        make_article(author=author, slug=slug, published_at=now - timedelta(days=days))
    seen, address = [], f"{LIST}?page_size=3"
    while address:
        page = client.get(address).json()
        seen += page["results"]
        address = page["next"]
    assert [article["slug"] for article in seen] == slugs
    assert "body_html" not in seen[0]


def test_articles_published_at_the_same_moment_are_all_listed(client) -> None:
    author, now = make_user(), timezone.now()
    for number in range(5):
        make_article(author=author, slug=f"a{number}", published_at=now)
    seen, address = [], f"{LIST}?page_size=2"
    while address:
        page = client.get(address).json()
        seen += [article["slug"] for article in page["results"]]
        address = page["next"]
    assert sorted(seen) == [f"a{number}" for number in range(5)]


def test_a_page_has_as_many_as_was_asked_for_and_at_most_a_hundred(client) -> None:
    author = make_user()
    for _ in range(3):
        make_article(author=author)
    assert len(client.get(LIST, {"page_size": "2"}).json()["results"]) == 2
    assert client.get(LIST, {"page_size": "100"}).status_code == 200
    for size in ("0", "-1", "x", "101", "9" * 50, "２", "1.5"):
        error = assert_error(client.get(LIST, {"page_size": size}), 400, "invalid")
        assert list(error["fields"]) == ["page_size"]


def cursor(**fields: str) -> str:
    return base64.b64encode(urlencode(fields).encode()).decode()


@pytest.mark.parametrize("address", [LIST, "/api/v1/categories/", "/api/v1/tags/"])
@pytest.mark.parametrize(
    "value",
    [
        "x",
        "%%%",
        "\x00",
        "\xed\xa0\x80",
        cursor(p="yesterday"),
        cursor(p="\x00"),
        cursor(p="9" * 400),
        cursor(p="2026-99-99 00:00"),
        cursor(p="2026-01-01"),
        cursor(p="2026-01-01T00:00:00"),
        cursor(p="0001-01-01T00:00:00+14:00"),
        cursor(p="-1"),
        cursor(p="２"),
        cursor(o="x"),
        cursor(o="-1"),
        cursor(p="1", o="9" * 30),
        cursor(r="maybe"),
    ],
)
def test_a_forged_cursor_is_never_an_error_of_the_server(client, address: str, value: str) -> None:
    make_article()
    response = client.get(address, {"cursor": value})
    if response.status_code != 200:
        assert list(assert_error(response, 400, "invalid")["fields"]) == ["cursor"]


def test_the_list_takes_the_same_queries_however_long_it_is(client) -> None:
    author = make_user()

    def count() -> int:
        with CaptureQueriesContext(connection) as queries:
            client.get(LIST)
        return len(queries)

    save_article(article=make_article(author=author), tags=["一"])
    few = count()
    for number in range(6):
        save_article(article=make_article(author=author), tags=[f"标签{number}"])
    assert count() == few


def test_categories_and_tags_are_listed(client) -> None:
    make_category("books", "读书")
    save_article(article=make_article(), tags=["小说"])
    assert {"slug": "books", "name": "读书", "description": ""} in client.get("/api/v1/categories/").json()[
        "results"
    ]
    assert client.get("/api/v1/tags/").json()["results"] == [{"slug": "小说", "name": "小说"}]


@pytest.mark.parametrize("address", ["/api/v1/categories/", "/api/v1/tags/", "/api/v1/predictions/"])
def test_what_nobody_writes_by_the_api_is_read_only(client, address: str) -> None:
    client.force_login(make_user())
    for method in ("post", "put", "patch", "delete"):
        response = getattr(client, method)(address, {}, content_type="application/json")
        assert_error(response, 405, "method_not_allowed")
