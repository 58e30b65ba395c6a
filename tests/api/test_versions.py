"""ETags: what has not changed is not sent again, and nobody overwrites what they have not read."""

from __future__ import annotations

import pytest
from django.test import Client

from blog_site.articles.models import Article
from blog_site.articles.services import save_article
from blog_site.comments.models import Comment
from blog_site.comments.services import edit_comment
from tests.api.answers import assert_error
from tests.comments.rows import make_article, make_comment, make_user

pytestmark = pytest.mark.django_db
ADDRESS = "/api/v1/articles/soy-milk/"


@pytest.fixture
def article() -> Article:
    return make_article(slug="soy-milk", title="豆浆", author=make_user("writer"))


def change(client: Client, etag: str, method: str = "patch", address: str = ADDRESS, **fields: str):
    body = {} if method == "delete" else {"data": fields or {"title": "新的题目"}}
    return getattr(client, method)(address, content_type="application/json", HTTP_IF_MATCH=etag, **body)


@pytest.mark.parametrize(
    "address", [ADDRESS, "/api/v1/articles/", f"{ADDRESS}comments/", "/api/v1/search/?q=豆浆"]
)
def test_what_has_not_changed_is_not_sent_again(client, article: Article, address: str) -> None:
    first = client.get(address)
    again = client.get(address, HTTP_IF_NONE_MATCH=first["ETag"])
    assert (again.status_code, again.content, again["ETag"]) == (304, b"", first["ETag"])
    weak = client.get(
        address, HTTP_IF_NONE_MATCH=f'"other", W/{first["ETag"]}'
    )  # as a gateway that compresses says
    assert weak.status_code == 304
    article.title = "豆浆，烫的"
    save_article(article=article, tags=["早餐"])
    make_comment(article=article)
    changed = client.get(address, HTTP_IF_NONE_MATCH=first["ETag"])
    assert changed.status_code == 200
    assert changed["ETag"] != first["ETag"]


def test_an_answer_is_kept_for_whom_it_was_given_and_asked_about_each_time(client, article: Article) -> None:
    answer = client.get(ADDRESS)
    assert {"private", "no-cache"} <= set(answer["Cache-Control"].split(", "))
    assert {"Authorization", "Cookie"} <= set(answer["Vary"].split(", "))


def test_an_error_has_no_version(client) -> None:
    assert "ETag" not in client.get(ADDRESS)


@pytest.mark.parametrize("method", ["patch", "put", "delete"])
def test_a_change_of_what_another_has_changed_meanwhile_is_refused(
    client, article: Article, method: str
) -> None:
    client.force_login(article.author)
    read = client.get(ADDRESS)["ETag"]
    Article.objects.update(title="别处改过的")
    fields = {"title": "我的", "category": "food", "body_markdown": "x"} if method == "put" else {}
    assert_error(change(client, read, method, **fields), 412, "precondition_failed")
    assert Article.objects.get().title == "别处改过的"
    assert change(client, client.get(ADDRESS)["ETag"], method, **fields).status_code in (200, 204)


@pytest.mark.parametrize("etag", ["*", "W/{etag}", '"other", {etag}', "{etag}"])
def test_whoever_has_read_the_present_version_may_change_it(client, article: Article, etag: str) -> None:
    client.force_login(article.author)
    asked = etag.replace("{etag}", client.get(ADDRESS)["ETag"])
    assert change(client, asked).status_code == 200
    assert Article.objects.get().title == "新的题目"


@pytest.mark.parametrize("step", ["publish", "withdraw"])
def test_publishing_and_withdrawing_heed_the_version_too(client, article: Article, step: str) -> None:
    client.force_login(article.author)
    assert_error(change(client, '"old"', "post", f"{ADDRESS}{step}/"), 412, "precondition_failed")


def test_a_profile_is_not_overwritten_unread(client) -> None:
    client.force_login(make_user("laowang"))
    me = "/api/v1/me/"
    assert_error(change(client, '"old"', address=me, bio="x"), 412, "precondition_failed")
    assert change(client, client.get(me)["ETag"], address=me, bio="住在老城").json()["bio"] == "住在老城"


@pytest.mark.parametrize("method", ["patch", "delete"])
def test_a_comment_that_has_changed_meanwhile_is_not_overwritten(
    client, article: Article, method: str
) -> None:
    comment = make_comment("好", article=article, author=make_user("reader"))
    client.force_login(comment.author)
    address = f"/api/v1/comments/{comment.pk}/"
    fields = {"text": "更好"} if method == "patch" else {}
    read = client.get(address)["ETag"]
    edit_comment(comment=comment, text="别处改过的")
    assert_error(change(client, read, method, address, **fields), 412, "precondition_failed")
    assert Comment.objects.get().text == "别处改过的"
    assert change(client, client.get(address)["ETag"], method, address, **fields).status_code in (200, 204)
