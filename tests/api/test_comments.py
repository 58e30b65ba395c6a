from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from blog_site.api.services import make_token
from blog_site.articles.models import Article
from blog_site.comments.models import Comment
from blog_site.labels.models import Sample
from blog_site.labels.services import accept_label, correct_labels
from tests.api.answers import COMMENTS, assert_error, post
from tests.comments.rows import make_article, make_comment, make_user
from tests.comments.test_models import make_prediction
from tests.labels.test_services import make_label

pytestmark = pytest.mark.django_db


# -- Reading --


def test_a_comment_tells_what_a_model_and_a_labeller_said_of_it(client, article: Article) -> None:
    comment = make_comment("味道真好", article=article, author=make_user("laowang", display_name="老王"))
    make_prediction(comment, "a", score=0.75, probabilities={"positive": 0.75}, latency_ms=3.5)
    make_label(comment, "neutral")
    said = client.get(f"/api/v1/comments/{comment.pk}/").json()
    created_at = said.pop("created_at")
    assert created_at.startswith(str(comment.created_at.year))
    assert said == {
        "id": comment.pk,
        "article": "soy-milk",
        "parent": None,
        "depth": 0,
        "author": {"username": "laowang", "display_name": "老王"},
        "guest_name": "",
        "text": "味道真好",
        "status": "visible",
        "edited_at": None,
        "like_count": 0,
        "reply_count": 0,
        "liked": False,
        "constructiveness": 0.0,
        "prediction": {
            "label": "positive",
            "score": 0.75,
            "probabilities": {"positive": 0.75},
            "model": "a" * 64,
            "latency_ms": 3.5,
        },
        "label": {"sentiment": "neutral", "source": "llm"},
    }


def test_what_was_said_of_an_earlier_text_is_not_told(client, article: Article) -> None:
    comment = make_comment(article=article)
    make_prediction(comment, text_digest="0" * 64)
    make_label(comment, text_digest="0" * 64)
    said = client.get(f"/api/v1/comments/{comment.pk}/").json()
    assert (said["prediction"], said["label"]) == (None, None)


def test_the_moderators_label_is_the_one_that_is_told(client, article: Article) -> None:
    comment = make_comment(article=article)
    make_label(comment, "positive")
    correct_labels(comments=[comment], sentiment="negative", moderator=make_user())
    assert client.get(f"/api/v1/comments/{comment.pk}/").json()["label"] == {
        "sentiment": "negative",
        "source": "moderator",
    }


def test_polling_a_comment_takes_three_queries(client, article: Article, django_assert_num_queries) -> None:
    comment = make_comment(article=article)
    make_prediction(comment)
    make_label(comment)
    with django_assert_num_queries(3):
        client.get(f"/api/v1/comments/{comment.pk}/")


def test_the_list_takes_the_same_queries_however_long_it_is(client, article: Article) -> None:
    def count() -> int:
        with CaptureQueriesContext(connection) as queries:
            client.get(COMMENTS)
        return len(queries)

    make_comment(article=article)
    few = count()
    for _ in range(6):
        comment = make_comment(article=article)
        make_prediction(comment)
        make_label(comment)
    assert count() == few


def test_the_list_shows_visible_comments_of_the_article_oldest_first(client, article: Article) -> None:
    first, second = make_comment("一", article=article), make_comment("二", article=article)
    make_comment("藏", article=article, status="hidden")
    make_comment("别处")
    page = client.get(COMMENTS, {"page_size": 1}).json()
    assert [comment["id"] for comment in page["results"]] == [first.pk]
    assert [comment["id"] for comment in client.get(page["next"]).json()["results"]] == [second.pk]


def test_a_hidden_comment_is_its_authors_alone(client, article: Article) -> None:
    comment = make_comment(article=article, status="hidden")
    address = f"/api/v1/comments/{comment.pk}/"
    assert_error(client.get(address), 404, "not_found")
    client.force_login(make_user())
    assert_error(client.get(address), 404, "not_found")
    client.force_login(comment.author)
    assert client.get(address).status_code == 200


def test_comments_of_a_draft_are_not_told(client) -> None:
    comment = make_comment(article=make_article(status=Article.Status.DRAFT))
    assert_error(client.get(f"/api/v1/comments/{comment.pk}/"), 404, "not_found")


@pytest.mark.parametrize("number", ["0", "404", "9" * 30])
def test_an_unknown_comment_is_not_found(client, number: str) -> None:
    assert_error(client.get(f"/api/v1/comments/{number}/"), 404, "not_found")


# -- Posting --


def test_a_posted_comment_comes_back_whole(client, article: Article, reader) -> None:
    response = post(client, {"text": "  好喝\r\n"})
    assert response.status_code == 201
    comment = Comment.objects.get()
    said = response.json()
    assert (said["id"], said["article"], said["text"]) == (comment.pk, "soy-milk", "好喝")
    assert said["author"] == {"username": "reader", "display_name": "小满"}
    assert (said["prediction"], said["label"]) == (None, None)
    assert comment.author == reader


def test_a_token_is_as_good_as_a_session(article: Article) -> None:
    user = make_user()
    secret = make_token(owner=user, name="test").secret
    client = Client(enforce_csrf_checks=True)
    assert post(client, {"text": "好喝"}, HTTP_AUTHORIZATION=f"Bearer {secret}").status_code == 201
    assert Comment.objects.get().author == user


def test_nobody_posts_without_saying_who_they_are(client, article: Article) -> None:
    response = post(client, {"text": "好喝"})
    assert_error(response, 401, "not_authenticated")
    assert response["WWW-Authenticate"] == "Bearer"
    assert_error(
        post(client, {"text": "好喝"}, HTTP_AUTHORIZATION="Token forged"), 401, "authentication_failed"
    )
    assert_error(
        post(client, {"text": "好喝"}, HTTP_AUTHORIZATION="Token \xff\x00"), 401, "authentication_failed"
    )
    assert not Comment.objects.exists()


def test_somebody_locked_out_posts_nothing(client, article: Article) -> None:
    secret = make_token(owner=make_user(is_active=False), name="test").secret
    assert_error(
        post(client, {"text": "好"}, HTTP_AUTHORIZATION=f"Bearer {secret}"), 401, "authentication_failed"
    )


def test_a_session_needs_its_csrf_token(article: Article) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(make_user())
    assert_error(post(client, {"text": "好喝"}), 403, "permission_denied")


@pytest.mark.parametrize("address", ["/api/v1/articles/nothing/comments/", "/api/v1/articles/%00/comments/"])
def test_an_unknown_article_takes_no_comment(client, reader, address: str) -> None:
    assert_error(post(client, {"text": "好喝"}, address), 404, "not_found")


def test_a_draft_takes_no_comment(client, reader) -> None:
    draft = make_article(status=Article.Status.DRAFT, author=reader)
    assert_error(post(client, {"text": "好喝"}, f"/api/v1/articles/{draft.slug}/comments/"), 404, "not_found")


def test_the_longest_comment_is_accepted(client, article: Article, reader) -> None:
    assert post(client, {"text": "😀" * 10_000}).status_code == 201
    assert Comment.objects.get().text == "😀" * 10_000


@pytest.mark.parametrize(
    "body",
    [
        {"text": ""},
        {"text": " \n\u200b"},
        {"text": "好" * 10_001},
        {"text": "好\x00吃"},
        {"text": "\x1b[31m"},
        {"text": "\ud800"},
        {"text": "好\udfff"},
        {"text": None},
        {"text": 5},
        {"text": 1.5},
        {"text": True},
        {"text": ["好"]},
        {"text": {"zh": "好"}},
        {},
        {"Text": "好"},
        [],
        [{"text": "好"}],
        "好",
        5,
        None,
    ],
    ids=lambda body: repr(body)[:40],
)
def test_a_body_that_is_no_comment_is_refused_naming_what_is_wrong(
    client, article: Article, reader, body: Any
) -> None:
    error = assert_error(post(client, body), 400, "invalid")
    if isinstance(body, dict):
        assert list(error["fields"]) == ["text"]
        assert error["fields"]["text"] == [error["detail"]]
    assert not Comment.objects.exists()


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\xfe", b'{"text": "\xed\xa0\x80"}', b'{"text": NaN}', b'{"text": Infinity}', b"{'text': 'x'}",
     b"[" * 200_000, b'{"a":' * 100_000, b'{"text": ' + b"9" * 5_000 + b"}", b"\x00"],
    ids=lambda body: repr(body)[:30],
)  # fmt: skip
def test_bytes_that_are_no_json_are_refused(client, article: Article, reader, body: bytes) -> None:
    response = post(client, body)
    assert response.status_code == 400
    assert_error(response, 400, response.json()["code"])
    assert not Comment.objects.exists()


def test_too_large_a_body_is_refused_unread(client, article: Article, reader, settings) -> None:
    body = b'{"text": "' + b"x" * settings.DATA_UPLOAD_MAX_MEMORY_SIZE + b'"}'
    assert_error(post(client, body), 413, "payload_too_large")


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "nonsense"]
)
def test_another_kind_of_body_is_refused(client, article: Article, reader, kind: str) -> None:
    assert_error(client.generic("POST", COMMENTS, b"text=x", kind), 415, "unsupported_media_type")


def test_fields_that_are_not_a_writers_are_ignored(client, article: Article, reader) -> None:
    post(
        client,
        {
            "text": "好",
            "id": 99,
            "author": "admin",
            "created_at": "2001-01-01",
            "prediction": {"label": "positive"},
        },
    )
    comment = Comment.objects.get()
    assert (comment.author, comment.created_at.year > 2001, comment.current_prediction()) == (
        reader,
        True,
        None,
    )


# -- Deleting --


def test_an_author_deletes_a_comment_and_its_sample_goes_with_it(client, article: Article, reader) -> None:
    comment = make_comment(article=article, author=reader)
    make_label(comment)
    accept_label(comment=comment)
    assert client.delete(f"/api/v1/comments/{comment.pk}/").status_code == 204
    assert not Comment.objects.exists()
    assert not Sample.objects.exists()
    assert_error(client.delete(f"/api/v1/comments/{comment.pk}/"), 404, "not_found")


def test_nobody_else_deletes_it(client, article: Article) -> None:
    comment = make_comment(article=article)
    assert_error(client.delete(f"/api/v1/comments/{comment.pk}/"), 401, "not_authenticated")
    client.force_login(make_user())
    assert_error(client.delete(f"/api/v1/comments/{comment.pk}/"), 403, "permission_denied")
    assert Comment.objects.get() == comment


@pytest.mark.parametrize("method", ["put", "post"])
def test_a_comment_is_not_replaced_through_the_api(client, article: Article, reader, method: str) -> None:
    comment = make_comment(article=article, author=reader)
    response = getattr(client, method)(
        f"/api/v1/comments/{comment.pk}/", {"text": "x"}, content_type="application/json"
    )
    assert_error(response, 405, "method_not_allowed")
