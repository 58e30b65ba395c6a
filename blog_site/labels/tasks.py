"""Celery tasks of labels: each takes an id, loads, calls one service."""

from __future__ import annotations

import logging

from celery import shared_task
from django.conf import settings

from blog_site.comments.models import Comment

from . import services
from .labellers import LabellerError, LabellerUnavailable, make_labeller

logger = logging.getLogger(__name__)


@shared_task(name="labels.label_comment", ignore_result=True)
def label_comment(comment_id: int) -> None:
    """Label one comment; what goes wrong is left to the sweep, which asks again when that makes sense."""
    waiting = services.unlabelled_comments(labeller=make_labeller(settings)).filter(pk=comment_id).first()
    if waiting is None:
        return
    try:
        services.label_comment(comment=waiting)
    except LabellerError as error:
        if isinstance(error, LabellerUnavailable):
            services.report_unavailable(error)
        logger.warning("comment %s: left to the sweep: %s", comment_id, error)


@shared_task(name="labels.accept_label", ignore_result=True)
def accept_label(comment_id: int) -> None:
    """Make a comment's sample what its label and its status say, after a moderator's decision."""
    comment = Comment.objects.filter(pk=comment_id).first()
    if comment is not None:
        services.accept_label(comment=comment)


@shared_task(name="labels.sweep_unlabelled", ignore_result=True)
def sweep_unlabelled() -> None:
    """Label what is still unlabelled."""
    services.sweep_unlabelled()
