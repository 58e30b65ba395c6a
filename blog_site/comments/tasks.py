"""Celery tasks of comments: each takes an id, loads, calls one service."""

from __future__ import annotations

import logging

from celery import Task, shared_task

from . import services
from .decisions import forget_removals
from .inference import InferenceError
from .models import Comment

logger = logging.getLogger(__name__)


@shared_task(name="comments.score_comment", bind=True, max_retries=1, ignore_result=True)
def score_comment(self: Task, comment_id: int) -> None:
    """Score one comment; a service that is away is asked once more a second later, then the sweep does it."""
    comments = list(Comment.objects.unscored().filter(pk=comment_id))
    try:
        services.score_comments(comments=comments)
    except InferenceError as error:
        if not error.permanent and self.request.retries == 0:
            raise self.retry(countdown=1) from error
        logger.warning("comment %s: left to the sweep: %s", comment_id, error)


@shared_task(name="comments.sweep_unscored", ignore_result=True)
def sweep_unscored() -> None:
    """Score what is still unscored, and drop what is kept for a day only."""
    services.sweep_unscored()
    forget_removals()
