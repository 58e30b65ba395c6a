from __future__ import annotations

from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

from blog_site.articles.models import Article
from blog_site.comments import hot, live, services
from blog_site.comments.decisions import forget_removals
from blog_site.comments.models import Comment, Removal
from tests.comments.inference_server import InferenceServer
from tests.comments.rows import make_article, make_comment, make_reply, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def article() -> Article:
    return make_article(slug="soy-milk")


class Watcher:
    """A page that is open: asks for changes from where it was made."""

    def __init__(self, article: Article, user=None) -> None:
        self.client = Client()
        if user:
            self.client.force_login(user)
        self.address = f"{article.get_absolute_url()}comments/changes/"
        self.since = str(int(timezone.now().timestamp() * 1_000_000))

    def ask(self) -> dict[str, Any]:
        answer = self.client.get(self.address, {"since": self.since})
        assert answer.status_code == 200
        return answer.json()

    def changed(self) -> dict[int, str]:
        return {comment["id"]: comment["html"] for comment in self.ask()["comments"]}


def test_a_new_comment_comes_as_the_page_would_show_it(article: Article) -> None:
    watcher = Watcher(article)
    assert watcher.ask()["comments"] == []
    top = services.post_comment(article=article, author=make_user(), text="第一声")
    reply = make_reply(top, "第二声")

    answer = watcher.ask()

    assert [(c["id"], c["parent"]) for c in answer["comments"]] == [(top.pk, None), (reply.pk, top.pk)]
    page = watcher.client.get(article.get_absolute_url()).content.decode()
    main = answer["comments"][1]["html"].split('<ol class="comment-replies"')[0]
    assert "第二声" in main
    assert main.strip() in page
    assert answer["counts"] == {"comments": 2, "positive": 0, "neutral": 0, "negative": 0, "waiting": 2}


def test_a_badge_an_edit_a_like_and_a_decision_are_changes(
    article: Article, inference: InferenceServer
) -> None:
    comment = make_comment("好喝", article=article)
    moderator = make_user()
    for change, shows in (
        (lambda: services.score_comments(comments=[comment]), "badge-positive"),
        (lambda: services.edit_comment(comment=comment, text="难喝"), "难喝"),
        (lambda: services.like_comment(comment=comment, user=make_user()), 'data-likes="1"'),
    ):
        watcher = Watcher(article)
        change()
        assert shows in watcher.changed()[comment.pk]

    watcher = Watcher(article)
    services.decide(comments=[comment], action="hide", by=moderator)
    answer = watcher.ask()
    assert (answer["comments"], answer["gone"]) == ([], [comment.pk])
    services.decide(comments=[comment], action="restore", by=moderator)
    answer = watcher.ask()
    assert ([c["id"] for c in answer["comments"]], answer["gone"]) == ([comment.pk], [])
    services.delete_comment(comment=comment)
    assert watcher.ask()["gone"] == [comment.pk]


def test_placeholders_come_and_go_with_what_they_stand_for(article: Article) -> None:
    top = make_comment("甲", article=article)
    reply = make_reply(top, "乙")
    watcher = Watcher(article)
    services.decide(comments=[top], action="hide", by=make_user())
    assert 'data-status="placeholder"' in watcher.changed()[top.pk]
    services.decide(comments=[reply], action="hide", by=make_user())
    assert watcher.ask()["gone"] == [top.pk, reply.pk]


def test_what_never_was_to_be_seen_is_neither_new_nor_gone(article: Article) -> None:
    author = make_user()
    stranger, own = Watcher(article), Watcher(article, author)
    waiting = services.post_comment(article=article, author=author, text="https://a.example")
    assert list(own.changed()) == [waiting.pk]
    services.decide(comments=[waiting], action="mark_spam", by=make_user())
    services.delete_comment(comment=waiting)
    answer = stranger.ask()
    assert (answer["comments"], answer["gone"], answer["counts"]["comments"]) == ([], [], 0)


def test_a_page_far_behind_is_brought_up_to_date_in_pieces(article: Article, monkeypatch) -> None:
    monkeypatch.setattr(live, "MOST", 3)
    watcher = Watcher(article)
    made = [services.post_comment(article=article, author=make_user(), text=f"{n}").pk for n in range(7)]
    found: list[int] = []
    for more in (True, True, False):
        answer = watcher.ask()
        assert answer["more"] is more
        found += [comment["id"] for comment in answer["comments"]]
        watcher.since = answer["cursor"]
    assert found == made


def test_asking_again_when_nothing_changed_is_answered_shortly(
    article: Article, settings, django_assert_max_num_queries, django_capture_on_commit_callbacks
) -> None:
    settings.CACHE_IS_SHARED = True
    cache.clear()
    watcher = Watcher(article)
    first = watcher.client.get(watcher.address, {"since": watcher.since})
    assert first.json()["cursor"] == watcher.since  # nothing new: the same question next time

    def ask_again() -> int:
        headers = {"If-None-Match": first["ETag"]}
        return watcher.client.get(watcher.address, {"since": watcher.since}, headers=headers).status_code

    with django_assert_max_num_queries(1):
        assert ask_again() == 304
    with django_capture_on_commit_callbacks(execute=True):
        services.post_comment(article=article, author=make_user(), text="好喝")
    assert ask_again() == 200


def test_a_cache_that_each_process_has_for_itself_never_says_that_nothing_changed(article: Article) -> None:
    assert hot.article_version(article.pk) != hot.article_version(article.pk)


def test_a_version_counts_on_after_the_cache_forgot_it_under_a_new_name(settings) -> None:
    settings.CACHE_IS_SHARED = True
    first = hot.article_version(1)
    assert hot.article_version(1) == first
    cache.clear()
    assert hot.article_version(1) != first


@pytest.mark.parametrize("since", ["", "x", "-1", "9" * 30, "²", "0"])
def test_a_cursor_that_is_none_brings_the_next_one_and_no_error(client, article: Article, since: str) -> None:
    answer = client.get(f"{article.get_absolute_url()}comments/changes/", {"since": since})
    assert answer.status_code == 200
    assert answer.json()["cursor"].isdigit()


def test_a_drafts_changes_are_its_authors(client) -> None:
    draft = make_article(status="draft")
    address = f"{draft.get_absolute_url()}comments/changes/"
    assert client.get(address).status_code == 404
    client.force_login(draft.author)
    assert client.get(address).status_code == 200


def test_removals_are_forgotten_after_a_day(article: Article) -> None:
    Removal.objects.create(article=article, comment_id=1, at=timezone.now() - timezone.timedelta(hours=25))
    Removal.objects.create(article=article, comment_id=2)
    assert forget_removals() == 1
    assert Removal.objects.get().comment_id == 2
    assert not Comment.objects.exists()
