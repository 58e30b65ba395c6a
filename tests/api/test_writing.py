"""Writing articles by the API: what the pages allow, and to whom they allow it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from blog_site.articles.models import Article
from blog_site.comments.models import Comment
from blog_site.media.models import DIGEST_LENGTH, Image
from blog_site.users.models import User
from tests.api.answers import assert_error, post
from tests.comments.rows import make_article, make_category, make_comment, make_user

pytestmark = pytest.mark.django_db
LIST = "/api/v1/articles/"
WRITTEN = {"title": "豆浆", "category": "food", "body_markdown": "**烫**着喝", "tags": ["早餐", " 早餐 "]}


@pytest.fixture
def writer(client) -> User:
    make_category("food")
    user = make_user("linxia")
    client.force_login(user)
    return user


def patch(client: Client, address: str, **fields: Any):
    return client.patch(address, fields, content_type="application/json")


def test_an_article_is_written_as_a_draft_published_changed_withdrawn_and_deleted(
    client, writer: User
) -> None:
    made = post(client, WRITTEN, LIST)
    assert made.status_code == 201
    said = made.json()
    assert (said["status"], said["published_at"]) == ("draft", None)
    assert said["author"]["username"] == "linxia"
    assert [tag["name"] for tag in said["tags"]] == ["早餐"]
    assert "<strong>烫</strong>" in said["body_html"]
    address = made["Location"].removeprefix("http://testserver")
    assert client.get(address).json() == said

    assert post(client, {}, f"{address}publish/").json()["status"] == "published"
    assert [article["title"] for article in Client().get(LIST).json()["results"]] == ["豆浆"]
    changed = patch(client, address, title="豆花").json()
    assert (changed["title"], changed["slug"]) == ("豆花", said["slug"])
    assert [tag["name"] for tag in changed["tags"]] == ["早餐"]  # what is not sent stays
    found = Client().get("/api/v1/search/", {"q": "豆花"}).json()["results"]
    assert [article["slug"] for article in found] == [said["slug"]]

    assert client.post(f"{address}withdraw/").json()["status"] == "draft"
    assert Client().get(address).status_code == 404
    assert client.delete(address).status_code == 204
    assert not Article.objects.exists()


def test_put_says_all_anew(client, writer: User) -> None:
    article = make_article(author=writer, slug="a", summary="旧的")
    body = {**WRITTEN, "summary": "", "tags": []}
    answer = client.put(f"{LIST}a/", body, content_type="application/json")
    assert (answer.json()["summary"], answer.json()["tags"]) == ("", [])
    assert_error(client.put(f"{LIST}a/", {"title": "x"}, content_type="application/json"), 400, "invalid")
    article.refresh_from_db()
    assert article.title == "豆浆"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("title", ""),
        ("title", "长" * 121),
        ("title", 5),
        ("category", "nowhere"),
        ("category", 1),
        ("category", "\ud800"),
        ("category", "a\x00b"),
        ("body_markdown", ""),
        ("body_markdown", "长" * 100_001),
        ("body_markdown", "[" * 100_000),
        ("body_markdown", "\ud800"),
        ("summary", "长" * 301),
        ("tags", "早餐"),
        ("tags", ["长" * 41]),
        ("tags", [{"name": "早餐"}]),
        ("tags", [str(number) for number in range(9)]),
    ],
)
def test_what_the_page_would_not_take_is_refused_by_name(
    client, writer: User, field: str, value: Any
) -> None:
    error = assert_error(post(client, {**WRITTEN, field: value}, LIST), 400, "invalid")
    assert list(error["fields"]) == [field]
    assert not Article.objects.exists()


def test_only_its_author_changes_an_article(client, writer: User) -> None:
    for status, refusal in ((Article.Status.PUBLISHED, 403), (Article.Status.DRAFT, 404)):
        article = make_article(status=status)
        address = f"{LIST}{article.slug}/"
        answers = [
            patch(client, address, title="x"),
            client.put(address, WRITTEN, content_type="application/json"),
            client.delete(address),
            post(client, {}, f"{address}publish/"),
            client.post(f"{address}withdraw/"),
        ]
        assert [answer.status_code for answer in answers] == [refusal] * 5
        assert Article.objects.get(pk=article.pk).title == article.title
        assert Article.objects.get(pk=article.pk).status == status


def test_nobody_writes_without_saying_who_they_are(client) -> None:
    article = make_article()
    assert_error(post(client, WRITTEN, LIST), 401, "not_authenticated")
    assert_error(client.delete(f"{LIST}{article.slug}/"), 401, "not_authenticated")


def test_a_deleted_articles_comments_go_with_it(client, writer: User) -> None:
    article = make_article(author=writer)
    parent = make_comment(article=article)
    make_comment(article=article, parent=parent, depth=1)
    assert client.delete(f"{LIST}{article.slug}/").status_code == 204
    assert not Comment.objects.exists()


def test_an_article_may_wait_for_its_time_and_be_published_before_it(client, writer: User) -> None:
    article = make_article(author=writer, status=Article.Status.DRAFT)
    address = f"{LIST}{article.slug}/"
    later = timezone.now() + timedelta(days=1)
    scheduled = post(client, {"at": later.isoformat()}, f"{address}publish/").json()
    assert scheduled["status"] == "scheduled"
    assert Client().get(address).status_code == 404
    assert post(client, {}, f"{address}publish/").json()["status"] == "published"
    assert Client().get(address).status_code == 200
    for wrong in (
        "2020-01-01T00:00:00Z",
        "tomorrow",
        "2030-01-01",
        "2030-01-01T00:00:00",
        5,
        "9999-12-31T23:59:59Z",
    ):
        error = assert_error(post(client, {"at": wrong}, f"{address}publish/"), 400, "invalid")
        assert list(error["fields"]) == ["at"]


def test_a_cover_is_a_picture_of_ones_own(client, writer: User) -> None:
    article = make_article(author=writer)
    own, others = (
        Image.objects.create(owner=owner, digest=letter * DIGEST_LENGTH, width=1600, height=900, bytes=1)
        for owner, letter in ((writer, "a"), (make_user(), "b"))
    )
    address = f"{LIST}{article.slug}/"
    assert patch(client, address, cover=own.url).json()["cover"] == {
        "url": own.url,
        "width": 1600,
        "height": 900,
    }
    for wrong in (others.url, "https://elsewhere.example/x.png", "", 5):
        error = assert_error(patch(client, address, cover=wrong), 400, "invalid")
        assert list(error["fields"]) == ["cover"]
    assert patch(client, address, cover=None).json()["cover"] is None
