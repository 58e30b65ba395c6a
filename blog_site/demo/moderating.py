"""What the demo's moderator has said of its comments: by the moderators' own service, then dated when it was said."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from datetime import datetime, timedelta

from django.utils import timezone

from blog_site.comments.models import Comment, Decision
from blog_site.labels.models import Label, Sample
from blog_site.moderation.services import Verdict, may_pass, pass_verdict
from blog_site.users.models import User

MINUTES = 20 * 60  # within which a moderator gets round to a comment


def label_comments(*, labels: Mapping[int, str], moderator: User) -> int:
    """Label comments by their ids; gives how many. None where the account of the moderator's name is not one."""
    if not all(may_pass(moderator, Verdict(label)) for label in labels.values()):
        return 0
    for sentiment in sorted(set(labels.values())):
        ids = [comment_id for comment_id, label in labels.items() if label == sentiment]
        pass_verdict(ids=ids, verdict=Verdict(sentiment), by=moderator)
    for comment in Comment.objects.filter(pk__in=labels):
        _date_label(comment, _labelled_at(comment))
    return len(labels)


def _labelled_at(comment: Comment) -> datetime:
    """Some time after the comment, the same one whenever the text is the same."""
    later = timedelta(minutes=15 + zlib.crc32(comment.text.encode()) % MINUTES)
    return min(comment.created_at + later, timezone.now())


def _date_label(comment: Comment, at: datetime) -> None:
    Label.objects.filter(comment=comment).update(created_at=at, updated_at=at)
    Decision.objects.filter(comment=comment, action=Decision.Action.RELABEL).update(at=at)
    Sample.objects.filter(comment=comment).update(created_at=at, changed_at=at)
