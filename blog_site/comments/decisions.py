"""Changes of a comment's status: each by one function, with a row that says who, when, from what, to what and why."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from blog_site.articles.hot import touch_page
from blog_site.users.models import User

from .models import Comment, Decision, Removal
from .nudges import nudge_after_commit

_Status, _Action = Comment.Status, Decision.Action
# What a moderator's action makes of a comment, by what it is; a status that is not named is left alone.
OUTCOMES: dict[str, dict[str, str]] = {
    _Action.APPROVE: {_Status.PENDING: _Status.VISIBLE, _Status.VISIBLE: _Status.VISIBLE},
    _Action.HIDE: dict.fromkeys((_Status.VISIBLE, _Status.PENDING, _Status.SPAM), _Status.HIDDEN),
    _Action.MARK_SPAM: dict.fromkeys((_Status.VISIBLE, _Status.PENDING, _Status.HIDDEN), _Status.SPAM),
    _Action.RESTORE: dict.fromkeys((_Status.HIDDEN, _Status.SPAM), _Status.VISIBLE),
}
EXCERPT_CHARACTERS = 100
REMOVALS_KEPT = timedelta(days=1)  # a page that was open longer has to be loaded again


def decide(*, comments: Iterable[Comment], action: str, by: User, reason: str = "") -> int:
    """Apply a moderator's decision to comments, and settle their reports; gives how many it changed.

    A comment that is there already is left as it is; approving one that is visible and reported confirms it.
    """
    ids = [comment.pk for comment in comments]
    return sum(_decide_one(comment_id, Decision.Action(action), by, reason) for comment_id in ids)


@transaction.atomic
def _decide_one(comment_id: int, action: Decision.Action, by: User, reason: str) -> bool:
    comment = Comment.objects.select_for_update().filter(pk=comment_id).first()
    to_status = OUTCOMES[action].get(comment.status) if comment else None
    if comment is None or to_status is None or (to_status == comment.status and not comment.report_count):
        return False
    change_status(comment=comment, to_status=to_status, action=action, by=by, reason=reason)
    comment.reports.filter(settled_at=None).update(settled_at=timezone.now())
    Comment.objects.filter(pk=comment.pk).update(report_count=0)
    nudge_after_commit(settings.COMMENT_DECIDED_TASKS, comment.pk)
    return True


def change_status(
    *, comment: Comment, to_status: str, action: Decision.Action, by: User | None, reason: str = ""
) -> None:
    """Change the status of a comment whose row this transaction has locked, and write down that it was."""
    record_decision(comment=comment, to_status=to_status, action=action, by=by, reason=reason)
    before, comment.status = comment.status, to_status
    Comment.objects.filter(pk=comment.pk).update(status=to_status, changed_at=timezone.now())
    follow_status(comment, before)
    touch_page(comment.article_id)


def record_decision(
    *,
    comment: Comment,
    to_status: str,
    action: Decision.Action,
    by: User | None,
    reason: str = "",
    from_status: str | None = None,
    from_label: str = "",
    to_label: str = "",
) -> Decision:
    """Write down a decision; `from_status` where it is not the comment's own: empty for one that is just posted."""
    return Decision.objects.create(
        comment=comment,
        excerpt=comment.text[:EXCERPT_CHARACTERS],
        by=by,
        from_status=comment.status if from_status is None else from_status,
        to_status=to_status,
        from_label=from_label,
        to_label=to_label,
        action=action,
        reason=reason[:300],
    )


def follow_status(comment: Comment, before: str) -> None:
    """Bring up to date what is counted above a comment whose status was `before`; its row is locked.

    A comment has a place on the page while it is visible or a reply below it has one; where that changes, its parent
    has a reply less or more there, and so on upwards, as long as what stands above is itself only a placeholder.
    """
    delta = int(comment.is_visible()) - int(before == Comment.Status.VISIBLE)
    if delta == 0:
        return
    if comment.parent_id is not None:
        _count(comment.parent_id, "reply_count", delta)
    moved: Comment | None = comment if comment.shown_replies == 0 else None
    while moved is not None:
        moved = _move(moved, delta)


def _move(comment: Comment, delta: int) -> Comment | None:
    """Give a comment its place on the page, or take it; gives the parent where that has the same happen to it."""
    if delta < 0:
        Removal.objects.create(article_id=comment.article_id, comment_id=comment.pk)
    if comment.parent_id is None:
        return None
    _count(comment.parent_id, "shown_replies", delta)
    parent = Comment.objects.select_for_update().get(pk=comment.parent_id)
    had_others = parent.shown_replies > int(delta > 0)
    return None if parent.is_visible() or had_others else parent


def _count(comment_id: int, name: str, delta: int) -> None:
    Comment.objects.filter(pk=comment_id).update(**{name: F(name) + delta}, changed_at=timezone.now())


def forget_removals() -> int:
    """Drop the removals that no open page asks for any more; gives how many."""
    return Removal.objects.filter(at__lt=timezone.now() - REMOVALS_KEPT).delete()[0]
