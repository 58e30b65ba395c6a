"""Replies, orders, edits, likes and reports through the API."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from blog_site.articles.models import Article
from blog_site.comments import services
from blog_site.comments.models import Comment, Report
from tests.api.answers import COMMENTS, assert_error, post
from tests.comments.rows import make_article, make_comment, make_reply, make_user

pytestmark = pytest.mark.django_db


def on(comment: Comment, what: str = "") -> str:
    return f"/api/v1/comments/{comment.pk}/{what}"


def walk(client, address: str, way: str = "next") -> list[str]:
    found: list[str] = []
    while address:
        page = client.get(address).json()
        texts = [comment["text"] for comment in page["results"]]
        found = [*found, *texts] if way == "next" else [*texts, *found]
        last, address = address, page[way]
    assert client.get(last).status_code == 200
    return found


@pytest.mark.parametrize(
    ("order", "expected"),
    [("oldest", "甲乙丙丁戊"), ("newest", "戊丁丙乙甲"), ("constructive", "丙乙甲戊丁")],
)
def test_the_list_is_paged_in_each_order_there_and_back(
    client, article: Article, order: str, expected: str
) -> None:
    now = timezone.now()
    for number, (text, worth) in enumerate(zip("甲乙丙丁戊", (0.5, 0.5, 0.5, 0.1, 0.2), strict=True)):
        moment = now - timedelta(hours=10 - number // 2)
        make_comment(text, article=article, created_at=moment, constructiveness=worth)

    address = f"{COMMENTS}?order={order}&page_size=2"
    assert "".join(walk(client, address)) == expected
    last = client.get(client.get(client.get(address).json()["next"]).json()["next"]).json()
    assert last["next"] is None
    assert "".join(walk(client, last["previous"], "previous")) == expected[:4]


@pytest.mark.parametrize(
    "query",
    [
        "order=best",
        "parent=x",
        "parent=-1",
        "cursor=x",
        "cursor=r",
        "cursor=r_1",
        "page_size=0",
        "page_size=x",
    ],
)
def test_a_query_that_means_nothing_is_refused_by_its_name(client, article: Article, query: str) -> None:
    error = assert_error(client.get(f"{COMMENTS}?{query}"), 400, "invalid")
    assert list(error["fields"]) == [query.partition("=")[0]]


def test_replies_are_posted_and_listed_below_what_they_answer(client, article: Article, reader) -> None:
    top = make_comment("甲", article=article)
    answer = post(client, {"text": "乙", "parent": top.pk})
    assert answer.status_code == 201
    assert (answer.json()["parent"], answer.json()["depth"], answer.json()["status"]) == (
        top.pk,
        1,
        "visible",
    )

    assert [c["text"] for c in client.get(f"{COMMENTS}?parent=root").json()["results"]] == ["甲"]
    assert [c["text"] for c in client.get(f"{COMMENTS}?parent={top.pk}").json()["results"]] == ["乙"]
    assert client.get(on(top)).json()["reply_count"] == 1


@pytest.mark.parametrize("parent", [0, -1, 10**9, 2**70, "1", 1.5, True])
def test_a_reply_to_nothing_is_refused(client, article: Article, reader, parent: object) -> None:
    error = assert_error(post(client, {"text": "乙", "parent": parent}), 400, "invalid")
    assert list(error["fields"]) == ["parent"]
    assert not Comment.objects.exists()


def test_what_was_removed_stays_without_its_words_for_its_replies(client, article: Article) -> None:
    top = make_comment("不该再看见", article=article, author=make_user("gone"))
    make_reply(top, "回答")
    services.decide(comments=[top], action="hide", by=make_user())

    removed, reply = client.get(COMMENTS).json()["results"]

    assert (removed["id"], removed["status"], removed["text"], removed["author"]) == (
        top.pk,
        "removed",
        "",
        None,
    )
    assert (removed["prediction"], removed["label"]) == (None, None)
    assert (reply["parent"], reply["text"]) == (top.pk, "回答")
    client.force_login(top.author)
    assert client.get(COMMENTS).json()["results"][0]["status"] == "hidden"


def test_a_held_comment_says_that_it_waits_and_is_listed_for_its_author_alone(
    client, article: Article, reader
) -> None:
    posted = post(client, {"text": "https://a.example"}).json()
    assert posted["status"] == "pending"
    assert len(client.get(COMMENTS).json()["results"]) == 1
    client.force_login(make_user())
    assert client.get(COMMENTS).json()["results"] == []


def test_a_closed_article_takes_no_comment(client, reader) -> None:
    make_article(slug="soy-milk", comments_open=False)
    assert_error(post(client, {"text": "好喝"}), 403, "permission_denied")


def test_ones_own_comment_is_changed_for_a_while(client, article: Article, reader) -> None:
    comment = make_comment("好喝", article=article, author=reader)

    def patch(body: object):
        return client.patch(on(comment), body, content_type="application/json")

    changed = patch({"text": " 难喝 "})
    assert (changed.status_code, changed.json()["text"]) == (200, "难喝")
    assert changed.json()["edited_at"] is not None
    assert_error(patch({"text": ""}), 400, "invalid")
    assert patch({}).json()["text"] == "难喝"
    Comment.objects.update(created_at=timezone.now() - timedelta(minutes=16))
    assert_error(patch({"text": "再改"}), 403, "permission_denied")
    client.force_login(make_user())
    assert_error(patch({"text": "别人改"}), 403, "permission_denied")
    client.logout()
    assert_error(patch({"text": "谁改"}), 401, "not_authenticated")


def test_likes_are_put_and_deleted_and_repeating_changes_nothing(client, article: Article, reader) -> None:
    comment = make_comment(article=article)
    for _ in range(2):
        assert client.put(on(comment, "like/")).json() == {"liked": True, "like_count": 1}
    assert client.get(on(comment)).json()["liked"] is True
    assert client.get(COMMENTS).json()["results"][0]["liked"] is True
    for _ in range(2):
        assert client.delete(on(comment, "like/")).json() == {"liked": False, "like_count": 0}
    own = make_comment(article=article, author=reader)
    assert_error(client.put(on(own, "like/")), 403, "permission_denied")
    client.logout()
    assert_error(client.put(on(comment, "like/")), 401, "not_authenticated")


def test_a_comment_is_reported_with_a_reason(client, article: Article, reader) -> None:
    comment = make_comment(article=article)
    answer = post(client, {"reason": "abuse", "note": "骂人"}, on(comment, "report/"))
    assert (answer.status_code, answer.json()["reason"]) == (201, "abuse")
    for body in (
        {},
        {"reason": "dislike"},
        {"reason": "spam", "note": "长" * 301},
        {"reason": "spam", "note": "\ud800"},
    ):
        assert_error(post(client, body, on(comment, "report/")), 400, "invalid")
    own = make_comment(article=article, author=reader)
    assert_error(post(client, {"reason": "spam"}, on(own, "report/")), 403, "permission_denied")
    assert Report.objects.count() == 1
