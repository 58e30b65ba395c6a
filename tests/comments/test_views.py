from __future__ import annotations

import pytest
from django.urls import reverse

from blog_site.articles.models import Article
from blog_site.comments.models import Comment
from blog_site.comments.services import post_comment
from tests.blog import PASSWORD
from tests.comments.rows import make_article, make_comment, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def article() -> Article:
    return make_article()


@pytest.fixture
def reader(client):
    user = make_user("reader")
    client.force_login(user)
    return user


def post(client, article: Article, text: str, **extra):
    return client.post(reverse("comments:post_comment", args=[article.slug]), {"text": text}, **extra)


def test_a_posted_comment_leads_to_itself_on_the_article(client, article: Article, reader) -> None:
    response = post(client, article, "好喝")
    comment = Comment.objects.get()
    assert (comment.text, comment.author, comment.article) == ("好喝", reader, article)
    assert response.status_code == 302
    assert response.url == comment.get_absolute_url()
    assert response.url.endswith(f"#comment-{comment.pk}")
    assert client.get(response.url).status_code == 200


def test_somebody_who_is_not_signed_in_is_asked_to_and_then_comes_back(client, article: Article) -> None:
    response = post(client, article, "好喝")
    assert response.status_code == 302
    assert response.url.startswith(reverse("users:sign_in"))
    assert not Comment.objects.exists()

    client.force_login(make_user())
    back = client.get(reverse("comments:post_comment", args=[article.slug]))
    assert back.url.startswith(article.get_absolute_url())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "请输入评论内容"),
        (" \u200b ", "请输入评论内容"),
        ("好" * 10_001, "10001"),
        ("好\x00吃", "U+0000"),
        ("\x1b[31m", "U+001B"),
    ],
)
def test_a_rejected_comment_shows_the_page_again_with_the_reason(
    client, article: Article, reader, text: str, said: str
) -> None:
    response = post(client, article, text)
    assert response.status_code == 400
    assert said in response.content.decode()
    assert article.title in response.content.decode()
    assert not Comment.objects.exists()


def test_the_text_of_a_rejected_comment_is_kept(client, article: Article, reader) -> None:
    text = "这句话不想再打一遍" + "好" * 10_000
    assert text in post(client, article, text).content.decode()


def test_the_longest_comment_is_accepted_however_the_browser_ends_its_lines(
    client, article: Article, reader
) -> None:
    assert post(client, article, "\r\n".join(["好" * 99] * 100)).status_code == 302
    assert len(Comment.objects.get().text) == 9_999


def test_emoji_alone_are_a_comment_and_stored_intact(client, article: Article, reader) -> None:
    post(client, article, "👩‍👩‍👧‍👦❤️")
    assert Comment.objects.get().text == "👩‍👩‍👧‍👦❤️"


def test_a_request_without_the_field_is_rejected(client, article: Article, reader) -> None:
    assert client.post(reverse("comments:post_comment", args=[article.slug])).status_code == 400


def test_bytes_that_are_no_text_do_not_break_the_page(client, article: Article, reader) -> None:
    address = reverse("comments:post_comment", args=[article.slug])
    response = client.generic("POST", address, b"text=%ED%A0%80%FF", "application/x-www-form-urlencoded")
    assert response.status_code in (302, 400)
    for comment in Comment.objects.all():
        assert comment.text.encode()


@pytest.mark.parametrize("status", [Article.Status.DRAFT])
def test_a_draft_takes_no_comments(client, reader, status: str) -> None:
    draft = make_article(status=status)
    assert post(client, draft, "好喝").status_code == 404


def test_an_unknown_article_is_not_found(client, reader) -> None:
    assert client.post(reverse("comments:post_comment", args=["nothing"]), {"text": "好"}).status_code == 404


def test_a_forged_request_is_refused(article: Article) -> None:
    from django.test import Client

    client = Client(enforce_csrf_checks=True)
    client.force_login(make_user())
    assert post(client, article, "好喝").status_code == 403
    assert not Comment.objects.exists()


def test_an_article_with_a_chinese_address_takes_comments(client, reader) -> None:
    article = make_article(title="烫着喝的豆浆", slug="烫着喝的豆浆")
    assert post(client, article, "好喝").status_code == 302


def test_an_author_deletes_a_comment_and_comes_back_to_the_article(client, article: Article, reader) -> None:
    comment = make_comment(article=article, author=reader)
    response = client.post(reverse("comments:delete_comment", args=[comment.pk]))
    assert response.url.startswith(article.get_absolute_url())
    assert not Comment.objects.exists()


def test_nobody_else_deletes_it(client, reader) -> None:
    comment = make_comment()
    assert client.post(reverse("comments:delete_comment", args=[comment.pk])).status_code == 404
    client.logout()
    client.post(reverse("comments:delete_comment", args=[comment.pk]))
    assert Comment.objects.get() == comment


def test_following_a_link_deletes_nothing(client, reader) -> None:
    comment = make_comment("再也不来了", author=reader)
    question = client.get(reverse("comments:delete_comment", args=[comment.pk]))
    assert "删除这条评论？" in question.content.decode()
    assert "再也不来了" in question.content.decode()
    assert Comment.objects.get() == comment


def test_who_deletes_a_comment_that_was_answered_is_told_that_answers_stay(client, reader) -> None:
    comment = make_comment(author=reader)
    address = reverse("comments:delete_comment", args=[comment.pk])
    assert "别人的回复会留着" not in client.get(address).content.decode()
    post_comment(article=comment.article, author=make_user(), text="怎么了？", parent=comment)
    assert "别人的回复会留着" in client.get(address).content.decode()


def test_a_text_written_when_the_session_had_ended_is_there_after_signing_in(
    client, article: Article
) -> None:
    make_user("reader", password=PASSWORD)
    answer = post(client, article, "写了很久的一段话")

    answer = client.post(answer.url, {"username": "reader", "password": PASSWORD}, follow=True)

    assert answer.redirect_chain[-1][0] == f"{article.get_absolute_url()}#comment-form"
    assert "写了很久的一段话</textarea>" in answer.content.decode()
    assert "写了很久的一段话" not in client.get(article.get_absolute_url()).content.decode()


def test_a_text_for_an_article_that_was_taken_back_is_given_back(client, reader) -> None:
    answer = post(client, make_article(status="draft"), "写了很久的一段话")

    assert answer.status_code == 404
    assert "写了很久的一段话</textarea>" in answer.content.decode()


def test_a_draft_shows_its_author_no_form_that_would_refuse(client, reader) -> None:
    article = make_article(author=reader, status="draft")

    assert "comment-form" not in client.get(article.get_absolute_url()).content.decode()
