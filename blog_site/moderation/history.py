"""What is known of those who comment: how their other comments fared."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from django.db.models import Count, Q, Sum

from blog_site.comments.models import Comment, CommentQuerySet, Decision, Report

from .queue import REFUSED

SHOWN = 10


@dataclass(frozen=True)
class Standing:
    """Of one account: its comments, those refused, those waiting, and the reports that are open."""

    comments: int = 0
    refused: int = 0
    pending: int = 0
    open_reports: int = 0


@dataclass(frozen=True)
class History:
    """What stands beside a comment on its page."""

    standing: Standing
    comments: list[Comment]
    decisions: list[Decision]
    reports: list[Report]


def standings_of(author_ids: Collection[int]) -> dict[int, Standing]:
    """How the comments of several accounts fared, in one query."""
    rows = (
        Comment.objects.filter(author__in=author_ids)
        .order_by()
        .values("author")
        .annotate(**_counts())
        .values_list("author", "total", "refused", "pending", "open_reports")
    )
    return {author: Standing(*counts) for author, *counts in rows}


def _counts() -> dict[str, Count | Sum]:
    return {
        "total": Count("pk"),
        "refused": Count("pk", filter=Q(status__in=REFUSED)),
        "pending": Count("pk", filter=Q(status=Comment.Status.PENDING)),
        "open_reports": Sum("report_count"),
    }


def history_beside(comment: Comment) -> History:
    """The other comments of whoever wrote one, newest first, with the decisions and reports about them."""
    theirs = comments_of_the_same(comment)
    counted = theirs.order_by().aggregate(**_counts())
    return History(
        Standing(counted["total"], counted["refused"], counted["pending"], counted["open_reports"] or 0),
        list(theirs.exclude(pk=comment.pk).select_related("article").order_by("-pk")[:SHOWN]),
        list(
            Decision.objects.filter(comment__in=theirs)
            .select_related("by", "comment")
            .order_by("-pk")[:SHOWN]
        ),
        list(
            Report.objects.filter(comment__in=theirs)
            .select_related("reporter", "comment")
            .order_by("-pk")[:SHOWN]
        ),
    )


def comments_of_the_same(comment: Comment) -> CommentQuerySet:
    """Comments of the same account; of a guest, those under the same name, which anybody may have chosen."""
    if comment.author_id is not None:
        return Comment.objects.filter(author=comment.author_id)
    if comment.guest_name:
        return Comment.objects.filter(author=None, guest_name=comment.guest_name)
    return Comment.objects.filter(pk=comment.pk)  # a tombstone has nobody
