from __future__ import annotations

from datetime import datetime
from urllib.parse import urlencode

import pytest
from django.utils import timezone

from blog_site.articles.models import Article
from blog_site.articles.services import save_article
from tests.api.answers import assert_error
from tests.comments.rows import make_article, make_category, make_comment, make_user
from tests.comments.test_models import make_prediction

pytestmark = pytest.mark.django_db
LIST = "/api/v1/articles/"


def at(day: int, hour: int = 12) -> datetime:
    return datetime(2026, 5, day, hour, tzinfo=timezone.get_default_timezone())


def listed(client, address: str = LIST, **asked: object) -> list[str]:
    answer = client.get(address, asked)
    assert answer.status_code == 200, answer.content
    return [article["slug"] for article in answer.json()["results"]]


@pytest.fixture
def articles() -> None:
    lin, chen = make_user("linxia"), make_user("chenyu")
    food, film = make_category("food"), make_category("film")
    for slug, author, category, moment, tags in (
        ("first", lin, food, at(1, hour=0), ["早餐"]),
        ("second", chen, food, at(2), ["早餐", "豆浆"]),
        ("third", lin, film, at(3, hour=23), []),
    ):
        save_article(
            article=make_article(slug=slug, author=author, category=category, published_at=moment), tags=tags
        )


@pytest.mark.usefixtures("articles")
@pytest.mark.parametrize(
    ("asked", "slugs"),
    [
        ({}, ["third", "second", "first"]),
        ({"order": "newest"}, ["third", "second", "first"]),
        ({"order": "oldest"}, ["first", "second", "third"]),
        ({"category": "food"}, ["second", "first"]),
        ({"tag": "豆浆"}, ["second"]),
        ({"author": "linxia", "order": "oldest"}, ["first", "third"]),
        ({"from": "2026-05-02"}, ["third", "second"]),
        ({"to": "2026-05-02"}, ["second", "first"]),
        ({"from": "2026-05-01", "to": "2026-05-01"}, ["first"]),
        ({"from": "2026-05-03", "to": "2026-05-03"}, ["third"]),
        ({"from": "2026-05-04"}, []),
        ({"author": "linxia", "category": "food", "tag": "早餐"}, ["first"]),
    ],
)
def test_articles_are_listed_as_asked(client, asked: dict[str, str], slugs: list[str]) -> None:
    assert listed(client, **asked) == slugs


@pytest.mark.usefixtures("articles")
def test_a_filter_and_an_order_hold_on_every_page(client) -> None:
    page = client.get(LIST, {"author": "linxia", "order": "oldest", "page_size": 1}).json()
    assert [article["slug"] for article in page["results"]] == ["first"]
    page = client.get(page["next"]).json()
    assert ([article["slug"] for article in page["results"]], page["next"]) == (["third"], None)


@pytest.mark.usefixtures("articles")
def test_what_was_found_is_read_page_by_page(client) -> None:
    address, seen = f"/api/v1/search/?{urlencode({'q': '豆浆', 'page_size': 2})}", []
    while address:
        page = client.get(address).json()
        seen += [article["slug"] for article in page["results"]]
        address = page["next"]
    assert sorted(seen) == ["first", "second", "third"]
    assert [article["slug"] for article in client.get(page["previous"]).json()["results"]] == seen[:2]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("category", "nowhere"),
        ("category", ""),
        ("category", "\x00"),
        ("tag", "没有"),
        ("author", "nobody"),
        ("order", "best"),
        ("order", ""),
        ("from", "yesterday"),
        ("from", "2026-13-01"),
        ("from", "20260501"),
        ("from", "0001-01-01"),
        ("to", "9999-12-31"),
        ("to", ""),
    ],
)
def test_a_wrong_filter_is_named(client, name: str, value: str) -> None:
    error = assert_error(client.get(LIST, {name: value}), 400, "invalid")
    assert list(error["fields"]) == [name]


def test_a_tag_that_only_a_draft_has_is_told_to_nobody(client) -> None:
    save_article(article=make_article(status=Article.Status.DRAFT), tags=["机密"])
    assert_error(client.get(LIST, {"tag": "机密"}), 400, "invalid")
    assert_error(client.get("/api/v1/tags/机密/"), 404, "not_found")


def test_predictions_are_of_comments_that_the_asker_may_read(client) -> None:
    shown, hidden, own = (
        make_comment("好"),
        make_comment("藏", status="hidden"),
        make_comment("我的", status="hidden", author=make_user("me")),
    )
    for comment, model in ((shown, "a"), (shown, "b"), (hidden, "a"), (own, "a")):
        make_prediction(comment, model)
    make_prediction(shown, "c", text_digest="0" * 64)  # of a text that it had once

    def told(**asked: object) -> list[tuple[int, str]]:
        answer = client.get("/api/v1/predictions/", asked)
        return [(said["comment"], said["model"][:1]) for said in answer.json()["results"]]

    assert told() == [(shown.pk, "b"), (shown.pk, "a")]
    assert told(model="a" * 64) == [(shown.pk, "a")]
    assert told(label="negative") == []
    secret = hidden.predictions.get()
    assert_error(client.get(f"/api/v1/predictions/{secret.pk}/"), 404, "not_found")
    client.force_login(own.author)
    assert told(comment=own.pk) == [(own.pk, "a")]
    for name, value in (("comment", "x"), ("comment", "0"), ("label", "angry"), ("model", "x" * 65)):
        assert list(
            assert_error(client.get("/api/v1/predictions/", {name: value}), 400, "invalid")["fields"]
        ) == [name]
