from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from blog_site.articles.models import Article
from blog_site.comments import live, services
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
    article: Article, django_assert_max_num_queries
) -> None:
    watcher = Watcher(article)
    for _ in range(2):  # an article that nobody has commented on, and one that somebody has
        first = watcher.client.get(watcher.address, {"since": watcher.since})
        question = {"since": watcher.since}, {"If-None-Match": first["ETag"]}

        with django_assert_max_num_queries(2):
            assert watcher.client.get(watcher.address, question[0], headers=question[1]).status_code == 304
        services.post_comment(article=article, author=make_user(), text="好喝")
        assert watcher.client.get(watcher.address, question[0], headers=question[1]).status_code == 200


def test_a_cursor_stays_until_something_is_new(article: Article) -> None:
    watcher = Watcher(article)
    assert watcher.ask()["cursor"] == watcher.since
    services.post_comment(article=article, author=make_user(), text="好喝")
    assert watcher.ask()["cursor"] != watcher.since


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
