"""Replies, likes, reports, edits and deletions, and the record of decisions."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.conf import settings as django_settings
from django.db.models import RestrictedError
from django.urls import reverse
from django.utils import timezone

from blog_site.comments import services
from blog_site.comments.models import BlockedWord, Comment, Decision, Like, Report, Rules
from blog_site.comments.text import CommentRejected
from blog_site.labels.labellers import make_labeller
from blog_site.labels.models import Label, Sample
from blog_site.labels.services import accept_label, refresh_samples, unlabelled_comments
from tests.comments.inference_server import InferenceServer
from tests.comments.rows import make_article, make_category, make_comment, make_reply, make_user
from tests.comments.test_models import make_prediction
from tests.comments.test_services import run_in_threads
from tests.labels.test_services import make_label

pytestmark = pytest.mark.django_db


def refused(code: str, **words) -> None:
    with pytest.raises(CommentRejected) as refusal:
        services.post_comment(**{"text": "好喝", **words})
    assert refusal.value.code == code
    assert not Comment.objects.filter(text="好喝").exists()


# -- Replies --


def test_a_reply_hangs_one_level_below_and_is_counted() -> None:
    top = make_comment()
    reply = make_reply(make_reply(top))
    assert (reply.depth, reply.article) == (2, top.article)
    top.refresh_from_db()
    assert (top.reply_count, top.shown_replies) == (1, 1)


@pytest.mark.parametrize("status", ["pending", "hidden", "spam", "deleted"])
def test_only_a_visible_comment_can_be_answered(status: str) -> None:
    parent = make_comment("甲", status=status)
    refused("parent_gone", article=parent.article, author=make_user(), parent=parent)


def test_a_comment_cannot_be_answered_under_another_article() -> None:
    refused("parent_gone", article=make_article(), author=make_user(), parent=make_comment("甲"))


def test_an_article_that_is_closed_takes_no_comment() -> None:
    refused("closed", article=make_article(comments_open=False), author=make_user())


# -- Guests --


def test_guests_comment_where_the_category_lets_them_and_wait() -> None:
    refused("guests_not_allowed", article=make_article(), guest_name="路人")
    article = make_article(category=make_category("open"))
    article.category.guests_may_comment = True
    refused("nameless", article=article, guest_name=" \u200b ")
    refused("name_too_long", article=article, guest_name="长" * 41)

    comment = services.post_comment(article=article, guest_name=" 路人  甲 ", text="好喝")

    assert (comment.author, comment.byline, comment.status) == (None, "路人 甲", "pending")
    assert Decision.objects.values_list("by", "action", "reason").get() == (None, "hold", "rule:guest")


# -- Rules --


def test_the_first_comments_of_an_account_wait_as_the_rules_say() -> None:
    Rules(pk=1, hold_first_comments=2).save()
    article, author = make_article(), make_user()
    statuses = []
    for _ in range(2):
        comment = services.post_comment(article=article, author=author, text="好喝")
        statuses.append(comment.status)
        services.decide(comments=[comment], action="approve", by=make_user())
    statuses.append(services.post_comment(article=article, author=author, text="好喝").status)
    assert statuses == ["pending", "pending", "visible"]


def test_a_word_that_means_spam_marks_it_and_the_record_names_it() -> None:
    BlockedWord.objects.create(word="赌场", action="spam")
    comment = services.post_comment(article=make_article(), author=make_user(), text="来 赌.场 玩")
    assert comment.status == Comment.Status.SPAM
    row = Decision.objects.get()
    assert (row.comment, row.by, row.from_status, row.to_status) == (comment, None, "", "spam")
    assert (row.action, row.reason, row.excerpt) == ("mark_spam", "rule:spam_word:赌场", "来 赌.场 玩")


def test_no_rule_holds_the_articles_author_or_a_moderator() -> None:
    article = make_article()
    for author in (article.author, make_user(is_superuser=True)):
        assert services.post_comment(article=article, author=author, text="https://a.example").is_visible()


def test_a_waiting_reply_is_counted_when_it_is_approved() -> None:
    parent = make_comment()
    reply = make_reply(parent, "https://a.example")
    parent.refresh_from_db()
    assert parent.reply_count == 0
    services.decide(comments=[reply], action="approve", by=make_user())
    parent.refresh_from_db()
    assert (parent.reply_count, parent.shown_replies) == (1, 1)


# -- Editing --


def test_an_edit_says_when_and_is_judged_by_the_rules_again() -> None:
    comment = make_comment("好喝")
    services.edit_comment(comment=comment, text="难喝")
    assert comment.edited_at is not None
    assert comment.is_visible()
    services.edit_comment(comment=comment, text="难喝，看 https://a.example")
    assert comment.is_pending()
    assert Decision.objects.values_list("by", "from_status", "to_status").get() == (
        None,
        "visible",
        "pending",
    )


@pytest.mark.parametrize(
    "changed", [{"created_at": timezone.now() - timedelta(minutes=16)}, {"status": "hidden"}]
)
def test_a_comment_is_edited_for_a_while_and_not_once_it_is_hidden(changed) -> None:
    comment = make_comment("好喝", **changed)
    with pytest.raises(CommentRejected) as refusal:
        services.edit_comment(comment=comment, text="难喝")
    assert refusal.value.code == "too_late"
    assert Comment.objects.get().text == "好喝"


def test_a_guests_comment_is_nobodys_to_edit() -> None:
    comment = make_comment("好喝")
    Comment.objects.update(author=None, guest_name="路人")
    with pytest.raises(CommentRejected):
        services.edit_comment(comment=comment, text="难喝")
    assert Comment.objects.get().text == "好喝"


# -- Deleting --


def test_a_comment_that_was_answered_leaves_a_tombstone_with_nothing_of_it() -> None:
    comment = make_comment("我后悔说的话")
    make_prediction(comment)
    make_label(comment)
    accept_label(comment=comment)
    reply = make_reply(comment)
    services.like_comment(comment=comment, user=make_user())
    services.report_comment(comment=comment, reporter=make_user(), reason="spam")

    services.delete_comment(comment=comment)

    comment.refresh_from_db()
    assert (comment.text, comment.author, comment.byline, comment.status) == ("", None, "", "deleted")
    assert (comment.like_count, comment.report_count) == (0, 0)
    for model in (Label, Sample, Like, Report):
        assert not model.objects.exists()
    assert not comment.predictions.exists()
    assert "后悔" not in "".join(Decision.objects.values_list("excerpt", flat=True))
    assert not Comment.objects.unscored().filter(pk=comment.pk).exists()
    services.delete_comment(comment=reply)
    assert not Comment.objects.exists()  # nothing is left that the tombstone stood for


def test_a_moderators_deletion_keeps_an_excerpt_and_who_it_was() -> None:
    comment, moderator = make_comment("骂人的话"), make_user()
    services.delete_comment(comment=comment, by=moderator)
    row = Decision.objects.get()
    assert (row.comment, row.by, row.action, row.excerpt) == (None, moderator, "delete", "骂人的话")


def test_a_comment_is_never_torn_from_above_its_replies() -> None:
    parent = make_comment()
    make_reply(parent)
    with pytest.raises(RestrictedError):
        parent.delete()


def test_an_article_goes_with_its_whole_thread() -> None:
    reply = make_reply(make_reply(make_comment()))
    reply.article.delete()
    assert not Comment.objects.exists()


def test_somebody_who_leaves_takes_their_words_with_them_and_no_one_elses() -> None:
    leaving = make_user()
    top = make_comment("走的人说的", author=leaving)
    make_prediction(top)
    make_reply(top, "别人的回答")
    alone = make_reply(top, "走的人又说", author=leaving)

    leaving.delete()

    top.refresh_from_db()
    assert (top.status, top.text, top.author, top.predictions.count()) == ("deleted", "", None, 0)
    assert (top.reply_count, top.shown_replies) == (1, 1)
    assert not Comment.objects.filter(pk=alone.pk).exists()
    assert Comment.objects.visible().get().text == "别人的回答"


def test_an_administrator_deletes_an_account_whose_comments_were_answered(client) -> None:
    top = make_comment("走的人说的")
    make_prediction(top)
    make_reply(top, "别人的回答")
    client.force_login(make_user(is_staff=True, is_superuser=True))
    address = reverse("admin:users_user_delete", args=[top.author_id])
    assert client.get(address).status_code == 200
    assert client.post(address, {"post": "yes"}).status_code == 302
    top.refresh_from_db()
    assert (top.status, top.text, top.author) == ("deleted", "", None)


# -- Likes and reports --


def test_a_reader_likes_a_comment_once_and_takes_it_back_once() -> None:
    comment, reader = make_comment("因为石磨，所以香"), make_user()
    assert services.like_comment(comment=comment, user=reader)
    assert not services.like_comment(comment=comment, user=reader)
    comment.refresh_from_db()
    liked = comment.constructiveness
    assert comment.like_count == 1
    assert services.unlike_comment(comment=comment, user=reader)
    assert not services.unlike_comment(comment=comment, user=reader)
    comment.refresh_from_db()
    assert comment.like_count == 0
    assert comment.constructiveness < liked


def test_neither_ones_own_comment_nor_one_that_is_gone_is_liked_or_reported() -> None:
    hidden, own = make_comment(status="hidden"), make_comment()
    for comment, user in ((hidden, make_user()), (own, own.author)):
        assert not services.like_comment(comment=comment, user=user)
        assert services.report_comment(comment=comment, reporter=user, reason="spam") is None
    assert not Like.objects.exists()
    assert not Report.objects.exists()


def test_reports_are_counted_once_a_reader_and_settled_by_a_decision() -> None:
    comment, reader, moderator = make_comment(), make_user(), make_user()
    for _ in range(2):
        services.report_comment(comment=comment, reporter=reader, reason="abuse", note=" 骂人 ")
    services.report_comment(comment=comment, reporter=make_user(), reason="spam")
    comment.refresh_from_db()
    assert comment.report_count == 2

    assert services.decide(comments=[comment], action="approve", by=moderator) == 1

    comment.refresh_from_db()
    assert (comment.report_count, comment.status) == (0, "visible")
    assert not Report.objects.filter(settled_at=None).exists()
    assert Report.objects.get(reporter=reader).note == "骂人"
    services.report_comment(comment=comment, reporter=reader, reason="abuse")
    comment.refresh_from_db()
    assert comment.report_count == 0  # settled, and nothing has changed since
    services.edit_comment(comment=comment, text="又改成骂人的")
    services.report_comment(comment=comment, reporter=reader, reason="abuse")
    comment.refresh_from_db()
    assert comment.report_count == 1


# -- What is learnt from them --


def test_what_waits_is_scored_and_labelled_and_spam_is_never_a_sample(inference: InferenceServer) -> None:
    waiting, spam = make_comment("等审核", status="pending"), make_comment("加微信", status="spam")
    assert list(Comment.objects.unscored()) == [waiting]
    assert list(unlabelled_comments(labeller=make_labeller(django_settings))) == [waiting]
    for comment in (waiting, spam):
        make_label(comment)
        accept_label(comment=comment)
    assert Sample.objects.get().comment == waiting

    services.decide(comments=[waiting], action="mark_spam", by=make_user())
    assert refresh_samples() == 1
    assert not Sample.objects.exists()
    services.decide(comments=[waiting], action="restore", by=make_user())
    assert refresh_samples() == 1
    assert Sample.objects.get().comment == waiting


def test_scoring_liking_and_editing_keep_the_constructiveness_up_to_date(inference: InferenceServer) -> None:
    comment = services.post_comment(article=make_article(), author=make_user(), text="差")
    posted = comment.constructiveness
    services.score_comments(comments=[comment])
    comment.refresh_from_db()
    scored = comment.constructiveness
    services.edit_comment(comment=comment, text="因为石磨换成了机器，所以淡；建议早上去，比如七点。")
    edited = comment.constructiveness
    assert scored <= posted < edited


# -- At the same time --


@pytest.mark.django_db(transaction=True)
def test_likes_replies_and_decisions_at_once_are_all_counted() -> None:
    parent, moderator = make_comment(), make_user()
    article = parent.article
    readers = iter([make_user() for _ in range(6)])
    same = make_user()
    waiting = [make_reply(parent, "https://a.example") for _ in range(3)]

    def like() -> None:
        services.like_comment(comment=parent, user=next(readers))
        services.like_comment(comment=parent, user=same)
        services.post_comment(article=article, author=same, text="同感", parent=parent)
        services.decide(comments=waiting, action="approve", by=moderator)

    assert run_in_threads(like, times=6) == []
    parent.refresh_from_db()
    assert parent.like_count == Like.objects.count() == 7
    assert parent.reply_count == parent.shown_replies == parent.replies.visible().count() == 9
    assert Decision.objects.filter(action="approve").count() == 3
