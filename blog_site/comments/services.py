"""Posting, editing, hiding and scoring comments."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from django.conf import settings
from django.db import transaction

from blog_site.articles.models import Article
from blog_site.users.models import User
from ml.text import text_digest

from .inference import MAX_TEXTS, InferenceError, PredictResponse, predict_texts
from .models import Comment, CommentQuerySet, Prediction
from .nudges import open_queue
from .text import clean_comment_text

logger = logging.getLogger(__name__)

# A sweep leaves the rest to the next one, so that it never holds a worker for long.
SWEEP_SECONDS = 20.0


def post_comment(*, article: Article, author: User, text: str) -> Comment:
    """Save a comment and, once it is committed, queue it for its tasks; raises CommentRejected."""
    cleaned = clean_comment_text(text)
    comment = Comment.objects.create(
        article=article, author=author, text=cleaned, text_digest=text_digest(cleaned)
    )
    _nudge_after_commit(comment)
    return comment


def edit_comment(*, comment: Comment, text: str) -> Comment:
    """Change a comment's text; one that now reads differently is queued again. Raises CommentRejected."""
    cleaned = clean_comment_text(text)
    old_digest, comment.text, comment.text_digest = comment.text_digest, cleaned, text_digest(cleaned)
    comment.save(update_fields=["text", "text_digest", "updated_at"])
    if comment.text_digest != old_digest:
        _nudge_after_commit(comment)
    return comment


def delete_comment(*, comment: Comment) -> None:
    """Delete a comment with everything that was said of it and learnt from it; twice does no harm."""
    Comment.objects.filter(pk=comment.pk).delete()


def hide_comments(*, comments: CommentQuerySet) -> int:
    """Hide comments from everybody but their authors and moderators; gives how many were shown before."""
    return _set_status(comments, Comment.Status.HIDDEN)


def show_comments(*, comments: CommentQuerySet) -> int:
    """Show hidden comments again; gives how many were hidden before."""
    return _set_status(comments, Comment.Status.VISIBLE)


def _set_status(comments: CommentQuerySet, status: Comment.Status) -> int:
    # MySQL refuses an UPDATE whose subquery reads the same table, as a filtered queryset may: name the rows.
    ids = list(comments.exclude(status=status).values_list("pk", flat=True))
    return Comment.objects.filter(pk__in=ids).exclude(status=status).update(status=status)


def _nudge_after_commit(comment: Comment) -> None:
    """Queue the comment's id; robust, because a request has succeeded once its row is there."""

    def nudge() -> None:
        open_queue().nudge(settings.COMMENT_POSTED_TASKS, comment.pk)

    transaction.on_commit(nudge, robust=True)


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
        present = dict(
            Comment.objects.select_for_update()
            .filter(pk__in=[c.pk for c in batch])
            .values_list("pk", "text_digest")
        )
        fresh = [
            Prediction(
                comment=comment,
                text_digest=comment.text_digest,
                model_digest=answer.model,
                label=said.label,
                score=said.score,
                probabilities=dict(said.probabilities),
                latency_ms=answer.latency_ms,
            )
            for comment, said in zip(batch, answer.predictions, strict=True)
            if present.get(comment.pk) == comment.text_digest
        ]
        # Rows that another worker has stored meanwhile stay as they are.
        Prediction.objects.bulk_create(fresh, ignore_conflicts=True)
        return list(
            Prediction.objects.filter(
                model_digest=answer.model, comment__in=[p.comment_id for p in fresh]
            ).filter(text_digest__in={p.text_digest for p in fresh})
        )


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
