"""What a script gets that sends the comments' forms and stays on the page; it is what the page shows."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from blog_site.comments.models import Comment, Rules
from tests.comments.rows import make_article, make_category, make_comment, make_user

pytestmark = pytest.mark.django_db


def signed_in(user) -> Client:
    client = Client(headers={"accept": "application/json"})
    client.force_login(user)
    return client


def send(client: Client, view: str, *args: Any, **fields: str) -> Any:
    return client.post(reverse(f"comments:{view}", args=args), fields)


def test_a_posted_comment_comes_back_as_the_page_shows_it() -> None:
    article, user = make_article(), make_user()
    parent = make_comment("甲", article=article)

    answer = send(signed_in(user), "post_comment", article.slug, text="我也这么看", parent=str(parent.pk))

    comment = Comment.objects.get(text="我也这么看")
    assert answer.status_code == 201
    assert answer.json()["notice"] == ""
    sent = answer.json()["comment"]
    assert (sent["id"], sent["parent"]) == (comment.pk, parent.pk)
    assert f'id="comment-{comment.pk}"' in sent["html"]
    page = signed_in(user).get(f"{article.get_absolute_url()}?comment={comment.pk}")
    assert '<div class="comment-text" lang="zh-Hans"><p>我也这么看</p></div>' in sent["html"]
    assert '<div class="comment-text" lang="zh-Hans"><p>我也这么看</p></div>' in page.content.decode()


def test_a_comment_that_waits_is_shown_to_its_writer_and_says_so() -> None:
    Rules.objects.update_or_create(pk=Rules.load().pk, defaults={"hold_first_comments": 1})

    answer = send(signed_in(make_user()), "post_comment", make_article().slug, text="第一次来")

    assert "审核" in answer.json()["notice"]
    assert 'data-status="pending"' in answer.json()["comment"]["html"]


def test_a_guest_is_shown_what_waits_before_the_browser_has_its_cookie(monkeypatch) -> None:
    monkeypatch.setattr("blog_site.comments.forms.was_written_by_hand", lambda stamp: True)
    category = make_category()
    category.guests_may_comment = True
    category.save()
    client = Client(headers={"accept": "application/json"})

    answer = send(client, "post_comment", make_article(category=category).slug, text="路过", name="过客")

    assert answer.status_code == 201
    assert "过客" in answer.json()["comment"]["html"]
    assert "guest_comments" in answer.cookies


def test_what_is_refused_says_why() -> None:
    answer = send(signed_in(make_user()), "post_comment", make_article().slug, text=" ")

    assert answer.status_code == 400
    assert answer.json() == {"errors": ["请输入评论内容"]}


def test_who_is_not_signed_in_is_sent_to_sign_in_and_keeps_the_words(client: Client) -> None:
    answer = client.post(
        reverse("comments:post_comment", args=[make_article().slug]),
        {"text": "还没登录"},
        headers={"accept": "application/json"},
    )

    assert answer.status_code == 302
    assert client.session["kept_comment"]["text"] == "还没登录"


def test_editing_liking_and_deleting_answer_with_what_the_page_is_to_show() -> None:
    user, other = make_user(), make_user()
    comment = make_comment("原来的话", author=user)

    edited = send(signed_in(user), "edit_comment", comment.pk, text="改过的话").json()
    liked = send(signed_in(other), "like_comment", comment.pk, liked="1").json()
    unliked = send(signed_in(other), "like_comment", comment.pk, liked="0").json()
    deleted = send(signed_in(user), "delete_comment", comment.pk).json()

    assert "改过的话" in edited["comment"]["html"]
    assert "comment-edited" in edited["comment"]["html"]
    assert 'aria-pressed="true"' in liked["comment"]["html"]
    assert 'data-likes="1"' in liked["comment"]["html"]
    assert 'aria-pressed="false"' in unliked["comment"]["html"]
    assert deleted == {"notice": "评论已删除"}
    assert not Comment.objects.filter(pk=comment.pk).exists()


def test_a_report_is_thanked_for_and_needs_a_reason() -> None:
    comment, reader = make_comment("甲"), make_user()

    without = send(signed_in(reader), "report_comment", comment.pk)
    reported = send(signed_in(reader), "report_comment", comment.pk, reason="spam")

    assert (without.status_code, len(without.json()["errors"])) == (400, 1)
    assert "谢谢" in reported.json()["notice"]
    assert comment.reports.get().reporter == reader


def test_the_comments_can_be_had_without_the_article_around_them(client: Client) -> None:
    article = make_article()
    make_comment("只要评论", article=article)

    part = client.get(article.get_absolute_url(), {"part": "comments"}).content.decode()

    assert "只要评论" in part
    assert 'class="prose"' not in part
    assert "<html" not in part
