"""Posting, answering, editing, deleting, liking, reporting and scoring comments; `decide` changes their status."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from django.conf import settings
from django.db import transaction
from django.db.models import CASCADE, F
from django.utils import timezone
from django.utils.translation import gettext as _

from blog_site.articles.hot import touch_page
from blog_site.articles.models import Article
from blog_site.users.models import User
from ml.text import text_digest

from .constructiveness import rate_constructiveness
from .decisions import change_status, decide, follow_status, record_decision
from .inference import MAX_TEXTS, InferenceError, PredictResponse, predict_texts
from .models import BlockedWord, Comment, Decision, Like, Prediction, Report, Rules, Sentiment
from .nudges import nudge_after_commit
from .rules import Facts, Held, judge
from .text import CommentRejected, clean_comment_text, clean_guest_name

__all__ = [
    "decide",
    "delete_comment",
    "edit_comment",
    "like_comment",
    "post_comment",
    "report_comment",
    "score_comments",
    "sweep_unscored",
    "unlike_comment",
]

logger = logging.getLogger(__name__)

# A sweep leaves the rest to the next one, so that it never holds a worker for long.
SWEEP_SECONDS = 20.0
DEEPEST = 32_767  # what the column holds on every database


# -- Writing --


def post_comment(
    *,
    article: Article,
    text: str,
    author: User | None = None,
    guest_name: str = "",
    parent: Comment | None = None,
    via_api: bool = False,
) -> Comment:
    """Save a comment, or a reply to `parent`, and once it is committed queue it for its tasks.

    Without an `author` it is a guest's. What the rules hold waits for a moderator. Raises CommentRejected, also where
    the article takes no comments, or none of guests, or `parent` cannot be answered any more.
    """
    cleaned = clean_comment_text(text)
    name = "" if author is not None else clean_guest_name(guest_name)
    _refuse_closed(article, by_guest=author is None)
    held = _judge(article, author, cleaned)
    comment = Comment(
        article=article,
        parent=parent,
        depth=0 if parent is None else min(parent.depth + 1, DEEPEST),
        author=author,
        guest_name=name,
        via_api=via_api,
        text=cleaned,
        text_digest=text_digest(cleaned),
        status=_status_under(held),
        constructiveness=rate_constructiveness(text=cleaned),
    )
    with transaction.atomic():
        if parent is not None:
            _join_thread(comment, parent)
            comment.changed_at = timezone.now()  # after its parent, which a page must have first
        comment.save(force_insert=True)
        if held is not None:
            _record_hold(comment, held)
        touch_page(article.pk)
        nudge_after_commit(settings.COMMENT_POSTED_TASKS, comment.pk)
    return comment


def _refuse_closed(article: Article, *, by_guest: bool) -> None:
    if not article.comments_open:
        raise CommentRejected(_("这篇文章已关闭评论"), code="closed")
    if by_guest and not article.category.guests_may_comment:
        raise CommentRejected(_("登录后才能评论这篇文章"), code="guests_not_allowed")


def _judge(article: Article, author: User | None, text: str) -> Held | None:
    """Ask the rules about a text; who owns the article, or moderates, is held by none."""
    rules = Rules.load()
    before = 0
    if author is not None and rules.hold_first_comments:
        before = Comment.objects.visible().filter(author=author)[: rules.hold_first_comments].count()
    held = judge(Facts(text, author is None, before), rules, BlockedWord.objects.all())
    trusted = author is not None and (
        author.pk == article.author_id or author.has_perm("comments.change_comment")
    )
    return None if held is None or trusted else held


def _status_under(held: Held | None) -> str:
    if held is None:
        return Comment.Status.VISIBLE
    return Comment.Status.SPAM if held.is_spam else Comment.Status.PENDING


def _action_under(held: Held) -> Decision.Action:
    return Decision.Action.MARK_SPAM if held.is_spam else Decision.Action.HOLD


def _record_hold(comment: Comment, held: Held) -> None:
    record_decision(
        comment=comment,
        to_status=comment.status,
        action=_action_under(held),
        by=None,
        reason=held.reason,
        from_status="",
    )


def _join_thread(reply: Comment, parent: Comment) -> None:
    """Count a reply to a comment that others can still see.

    Before the reply is inserted: an insert locks its parent's row for reading, and two that then both wanted to write
    it would end each other.
    """
    present = _lock(parent)
    if present is None or not present.is_visible() or present.article_id != reply.article_id:
        raise CommentRejected(_("你要回复的评论已经不在了"), code="parent_gone")
    if reply.is_visible():
        Comment.objects.filter(pk=present.pk).update(
            reply_count=F("reply_count") + 1,
            shown_replies=F("shown_replies") + 1,
            changed_at=timezone.now(),
        )


def _lock(comment: Comment) -> Comment | None:
    """Give a comment as it is now, its row locked for this transaction; None when it is gone.

    By its number alone: with more conditions MySQL and MariaDB may lock entries of other indexes before the row, and
    somebody who has the row and changes those entries would wait for us as we wait for them.
    """
    return Comment.objects.select_for_update().filter(pk=comment.pk).first()


def edit_comment(*, comment: Comment, text: str) -> Comment:
    """Change a comment's text, for its author; one that now reads differently is judged and queued again.

    Raises CommentRejected, also when the time to edit it is over.
    """
    cleaned = clean_comment_text(text)
    with transaction.atomic():
        present = _lock(comment)
        author = present.author if present is not None else None
        if present is None or author is None or not present.may_be_edited_by(author):
            raise CommentRejected(
                _("评论只能在发表后 %(minutes)d 分钟内修改") % {"minutes": settings.COMMENT_EDIT_MINUTES},
                code="too_late",
            )
        if present.text != cleaned:
            _change_text(present, cleaned)
    comment.refresh_from_db()
    return comment


def _change_text(comment: Comment, text: str) -> None:
    old_digest, comment.text, comment.text_digest = comment.text_digest, text, text_digest(text)
    comment.edited_at = comment.changed_at = timezone.now()
    comment.save(update_fields=["text", "text_digest", "edited_at", "changed_at", "updated_at"])
    if comment.text_digest != old_digest:
        held = _judge(comment.article, comment.author, text)
        if held is not None and comment.status != _status_under(held):
            change_status(
                comment=comment,
                to_status=_status_under(held),
                action=_action_under(held),
                by=None,
                reason=held.reason,
            )
        _rate(comment)
        nudge_after_commit(settings.COMMENT_POSTED_TASKS, comment.pk)
    touch_page(comment.article_id)


def delete_comment(*, comment: Comment, by: User | None = None) -> None:
    """Delete a comment with everything that was said of it and learnt from it; twice does no harm.

    One that was answered leaves a tombstone. `by` is who deletes it, where that is not its author: then the record
    keeps an excerpt, which an author's own wish to be forgotten takes away.
    """
    with transaction.atomic():
        present = _lock(comment)
        if present is None or present.status == Comment.Status.DELETED:
            return
        own = by is None or by.pk == present.author_id
        decision = record_decision(
            comment=present,
            to_status=Comment.Status.DELETED,
            action=Decision.Action.DELETE,
            by=present.author if own else by,
        )
        if own:
            present.decisions.update(excerpt="")
        before, present.status = decision.from_status, Comment.Status.DELETED
        follow_status(present, before)
        if present.replies.exists():
            _bury(present)
        else:
            _remove(present)
        touch_page(present.article_id)


def _bury(comment: Comment) -> None:
    """Leave a tombstone: a row without words, and nothing that hung on them."""
    for relation in Comment._meta.related_objects:
        if relation.on_delete is CASCADE:
            relation.related_model._base_manager.filter(**{relation.field.name: comment}).delete()
    Comment.objects.filter(pk=comment.pk).update(**Comment.TOMBSTONE, changed_at=timezone.now())


def _remove(comment: Comment) -> None:
    """Take a comment's row away, and the tombstones above it that stood for its sake."""
    above: Comment | None = comment
    while above is not None:
        parent = above.parent
        above.delete()
        is_bare = (
            parent is not None and parent.status == Comment.Status.DELETED and not parent.replies.exists()
        )
        above = parent if is_bare else None


# -- What readers think of it --


def like_comment(*, comment: Comment, user: User) -> bool:
    """Like somebody else's comment; False when it is liked already, one's own, or not to be seen any more."""
    with transaction.atomic():
        present = _lock(comment)
        if present is None or not present.is_visible() or present.author_id == user.pk:
            return False
        if not Like.objects.get_or_create(comment=present, user=user)[1]:
            return False
        present.like_count += 1
        Comment.objects.filter(pk=present.pk).update(like_count=present.like_count, changed_at=timezone.now())
        _rate(present)
        touch_page(present.article_id)
    return True


def unlike_comment(*, comment: Comment, user: User) -> bool:
    """Take a like back; False when there is none."""
    with transaction.atomic():
        present = _lock(comment)
        if present is None or not Like.objects.filter(comment=present, user=user).delete()[0]:
            return False
        present.like_count -= 1
        Comment.objects.filter(pk=present.pk).update(like_count=present.like_count, changed_at=timezone.now())
        _rate(present)
        touch_page(comment.article_id)
    return True


def report_comment(*, comment: Comment, reporter: User, reason: str, note: str = "") -> Report | None:
    """Tell moderators of a comment; once a reader, unless it was edited since they settled it.

    None when it is one's own, or not to be seen any more.
    """
    with transaction.atomic():
        present = _lock(comment)
        if present is None or not present.is_visible() or present.author_id == reporter.pk:
            return None
        said = {"reason": Report.Reason(reason), "note": note.strip()[:300]}
        report, made = Report.objects.get_or_create(comment=present, reporter=reporter, defaults=said)
        reopened = (
            report.settled_at is not None
            and present.edited_at is not None
            and present.edited_at > report.settled_at
        )
        if reopened:
            Report.objects.filter(pk=report.pk).update(**said, settled_at=None, created_at=timezone.now())
        if made or reopened:
            Comment.objects.filter(pk=present.pk).update(report_count=F("report_count") + 1)
    return report


def _rate(comment: Comment) -> None:
    """Bring a comment's constructiveness up to date; this transaction has locked its row."""
    prediction = comment.current_prediction()
    rated = rate_constructiveness(text=comment.text, likes=comment.like_count, negative=_negative(prediction))
    if rated != comment.constructiveness:
        comment.constructiveness = rated
        Comment.objects.filter(pk=comment.pk).update(constructiveness=rated)


def _negative(prediction: Prediction | None) -> float:
    """Say how negative a model finds a text; one that gives the label alone is taken at its word."""
    if prediction is None:
        return 0.0
    at_its_word = prediction.score if prediction.label == Sentiment.NEGATIVE else 0.0
    return float(prediction.probabilities.get(Sentiment.NEGATIVE.value, at_its_word))


# -- What models say of it --


def score_comments(*, comments: Iterable[Comment]) -> list[Prediction]:
    """Ask the model about comments, at most MAX_TEXTS in a request, and store what it says.

    A comment that was deleted or edited meanwhile is skipped; one that this model version has scored already
    keeps its prediction. When the service refuses a whole request, its texts are asked about one by one, so
    that one bad text holds up nobody. Raises InferenceError when the service cannot answer, or refuses all.
    """
    scored: list[Prediction] = []
    for batch in _batches(comments, MAX_TEXTS):
        scored += _score_batch(batch)
    return scored


def _batches(comments: Iterable[Comment], size: int) -> Iterator[Sequence[Comment]]:
    remaining = list(comments)
    for start in range(0, len(remaining), size):
        yield remaining[start : start + size]


def _score_batch(batch: Sequence[Comment]) -> list[Prediction]:
    try:
        return _store_predictions(batch, predict_texts([comment.text for comment in batch]))
    except InferenceError as error:
        if not error.permanent or len(batch) == 1:
            raise
        return _score_one_by_one(batch)


def _score_one_by_one(batch: Sequence[Comment]) -> list[Prediction]:
    scored: list[Prediction] = []
    refused = 0
    for comment in batch:
        try:
            scored += _store_predictions([comment], predict_texts([comment.text]))
        except InferenceError as error:
            refused += 1
            if not error.permanent or refused == len(batch):
                raise
            logger.warning("comment %s: not scored: %s", comment.pk, error)
    return scored


def _store_predictions(batch: Sequence[Comment], answer: PredictResponse) -> list[Prediction]:
    """Store an answer for those comments that still have the text that was asked about."""
    with transaction.atomic():
        locked = Comment.objects.select_for_update().filter(pk__in=[comment.pk for comment in batch])
        present = {comment.pk: comment for comment in locked.order_by("pk")}
        fresh = [
            Prediction(
                comment=present[comment.pk],
                text_digest=comment.text_digest,
                model_digest=answer.model,
                label=said.label,
                score=said.score,
                probabilities=dict(said.probabilities),
                latency_ms=answer.latency_ms,
            )
            for comment, said in zip(batch, answer.predictions, strict=True)
            if comment.pk in present and present[comment.pk].text_digest == comment.text_digest
        ]
        # Rows that another worker has stored meanwhile stay as they are.
        Prediction.objects.bulk_create(fresh, ignore_conflicts=True)
        _show_predictions(fresh)
        return list(
            Prediction.objects.filter(
                model_digest=answer.model, comment__in=[p.comment_id for p in fresh]
            ).filter(text_digest__in={p.text_digest for p in fresh})
        )


def _show_predictions(predictions: Sequence[Prediction]) -> None:
    """Bring up to date what follows from new predictions: the comments' constructiveness, and the pages."""
    comments = [prediction.comment for prediction in predictions]
    for comment, prediction in zip(comments, predictions, strict=True):
        comment.constructiveness = rate_constructiveness(
            text=comment.text, likes=comment.like_count, negative=_negative(prediction)
        )
        comment.changed_at = timezone.now()
    Comment.objects.bulk_update(comments, ["constructiveness", "changed_at"])
    # In order: two that touch the same pages wait for each other, and never each for the other.
    for article_id in sorted({comment.article_id for comment in comments}):
        touch_page(article_id)


@dataclass(frozen=True)
class Sweep:
    """What a sweep did: rows done, and whether the other side failed it."""

    done: int
    stopped: bool


def sweep_unscored() -> Sweep:
    """Score the comments that no nudge brought to a model: queue lost, service down, rows made in bulk.

    Oldest rows first, in batches of SWEEP_BATCH, until none is left, the time is up or the service fails.
    """
    deadline = time.monotonic() + SWEEP_SECONDS
    done, last_id = 0, 0
    while time.monotonic() < deadline:
        waiting = Comment.objects.unscored().older_than(settings.SWEEP_AFTER_SECONDS).filter(pk__gt=last_id)
        batch = list(waiting.order_by("pk")[: settings.SWEEP_BATCH])
        if not batch:
            break
        try:
            done += len(score_comments(comments=batch))
        except InferenceError as error:
            logger.warning("sweep: %d comments scored, then the inference service failed: %s", done, error)
            return Sweep(done, stopped=True)
        last_id = batch[-1].pk
    if done:
        logger.info("sweep: %d comments scored", done)
    return Sweep(done, stopped=False)
