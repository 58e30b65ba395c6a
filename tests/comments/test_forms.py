"""The pages and forms of comments, without JavaScript."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from blog_site.articles.hot import GUEST_COOKIE
from blog_site.articles.models import Article
from blog_site.comments import guests
from blog_site.comments.models import Comment, Report
from tests.comments.rows import make_article, make_comment, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def article() -> Article:
    article = make_article(slug="soy-milk")
    article.category.guests_may_comment = True
    article.category.save()
    return article


@pytest.fixture
def reader(client):
    user = make_user("reader")
    client.force_login(user)
    return user


def go(client: Client, name: str, comment: Comment, data: dict[str, str] | None = None, **extra):
    address = reverse(f"comments:{name}", args=[comment.pk])
    return client.get(address) if data is None else client.post(address, data, **extra)


def post_as_guest(client: Client, article: Article, **data: str):
    page = client.get(article.get_absolute_url()).context["section"]
    fields = {"text": "好喝", "name": "路人", "website": "", "stamp": page.form.fresh_stamp(), **data}
    return client.post(reverse("comments:post_comment", args=[article.slug]), fields)


# -- Guests --


def test_a_guest_sees_that_the_comment_waits_and_nobody_else_sees_it(
    client, article: Article, monkeypatch
) -> None:
    monkeypatch.setattr(guests, "WRITTEN_IN_SECONDS", 0)

    answer = client.get(post_as_guest(client, article).url)

    page = answer.content.decode()
    assert "正在等待审核" in page
    assert "评论已提交，通过审核后其他人就能看到。" in page
    assert "好喝" not in Client().get(article.get_absolute_url()).content.decode()
    comment = Comment.objects.get()
    assert (comment.byline, comment.author) == ("路人", None)
    forger = Client()
    forger.cookies[GUEST_COOKIE] = f"{comment.pk}:forged"
    assert "好喝" not in forger.get(article.get_absolute_url()).content.decode()


@pytest.mark.parametrize("trap", [{"website": "https://a.example"}, {"stamp": ""}, {"stamp": "forged"}])
def test_what_simple_programs_do_is_refused_and_the_text_kept(
    client, article: Article, monkeypatch, trap
) -> None:
    monkeypatch.setattr(guests, "WRITTEN_IN_SECONDS", 0)
    answer = post_as_guest(client, article, **trap)
    assert answer.status_code == 400
    assert "好喝</textarea>" in answer.content.decode()
    assert not Comment.objects.exists()


def test_a_form_that_comes_back_at_once_was_not_written_by_hand(client, article: Article) -> None:
    assert "提交得太快了" in post_as_guest(client, article).content.decode()
    assert not Comment.objects.exists()


def test_a_guest_without_a_name_is_asked_for_one(client, article: Article, monkeypatch) -> None:
    monkeypatch.setattr(guests, "WRITTEN_IN_SECONDS", 0)
    assert "请填写称呼" in post_as_guest(client, article, name=" ").content.decode()


# -- Replies --


def test_a_reply_is_written_below_what_it_answers(client, article: Article, reader) -> None:
    parent = make_comment("甲说", article=article)
    page = client.get(f"{article.get_absolute_url()}?reply={parent.pk}").content.decode()
    assert f'name="parent" value="{parent.pk}"' in page
    assert "甲说" in page.split("<ol")[0].split('class="answering"')[1]

    posted = client.post(f"{article.get_absolute_url()}comments/", {"text": "乙说", "parent": parent.pk})

    reply = parent.replies.get()
    assert posted.url == reply.get_absolute_url()
    assert "乙说" in client.get(posted.url).content.decode()


def test_a_refused_reply_still_knows_what_it_answers(client, article: Article, reader) -> None:
    parent = make_comment(article=article)
    answer = client.post(f"{article.get_absolute_url()}comments/", {"text": " ", "parent": parent.pk})
    assert answer.status_code == 400
    assert f'name="parent" value="{parent.pk}"' in answer.content.decode()


@pytest.mark.parametrize("parent", ["999999", "x", "9" * 30])
def test_a_reply_to_nothing_is_refused_and_its_text_kept(
    client, article: Article, reader, parent: str
) -> None:
    answer = client.post(f"{article.get_absolute_url()}comments/", {"text": "乙说", "parent": parent})
    assert answer.status_code == 400
    assert "乙说</textarea>" in answer.content.decode()
    assert not Comment.objects.exists()


def test_a_closed_article_says_so_and_refuses(client, reader) -> None:
    article = make_article(comments_open=False)
    page = client.get(article.get_absolute_url()).content.decode()
    assert "这篇文章已关闭评论" in page
    assert "<textarea" not in page
    answer = client.post(f"{article.get_absolute_url()}comments/", {"text": "好喝"})
    assert answer.status_code == 400
    assert not Comment.objects.exists()


# -- Likes, edits, reports --


def test_a_like_is_given_and_taken_back_by_a_button(client, article: Article, reader) -> None:
    comment = make_comment(article=article)
    for liked, pressed in (("1", "true"), ("0", "false")):
        answer = go(client, "like_comment", comment, {"liked": liked}, follow=True)
        assert f'aria-pressed="{pressed}"' in answer.content.decode()
        comment.refresh_from_db()
        assert comment.like_count == int(liked)


def test_following_a_link_likes_and_reports_nothing(client, article: Article, reader) -> None:
    comment = make_comment(article=article)
    assert go(client, "like_comment", comment).url == comment.get_absolute_url()
    assert go(client, "report_comment", comment).status_code == 200
    comment.refresh_from_db()
    assert (comment.like_count, comment.report_count) == (0, 0)


def test_strangers_are_asked_to_sign_in_first(client, article: Article) -> None:
    comment = make_comment(article=article)
    for name in ("like_comment", "report_comment", "edit_comment"):
        assert go(client, name, comment, {}).url.startswith(reverse("users:sign_in"))


def test_ones_own_comment_is_changed_and_marked(client, article: Article, reader) -> None:
    comment = make_comment("好喝", article=article, author=reader)
    assert "好喝</textarea>" in go(client, "edit_comment", comment).content.decode()
    assert go(client, "edit_comment", comment, {"text": " "}).status_code == 400
    page = go(client, "edit_comment", comment, {"text": "难喝"}, follow=True).content.decode()
    assert "难喝" in page
    assert "已编辑" in page
    assert go(client, "edit_comment", make_comment(article=article)).status_code == 404


def test_a_reader_reports_a_comment_with_a_reason(client, article: Article, reader) -> None:
    comment = make_comment(article=article)
    assert go(client, "report_comment", comment, {"note": "没选理由"}).status_code == 400
    page = go(client, "report_comment", comment, {"reason": "abuse", "note": "骂人"}, follow=True)
    assert "谢谢，审核员会看到你的举报。" in page.content.decode()
    assert Report.objects.values_list("reason", "note", "reporter__username").get() == (
        "abuse",
        "骂人",
        "reader",
    )
