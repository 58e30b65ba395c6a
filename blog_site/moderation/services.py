"""Verdicts on comments: what a moderator says of several at once."""

from __future__ import annotations

from collections.abc import Sequence

from django.db.models import TextChoices
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from blog_site.comments.models import Comment, Decision, Sentiment
from blog_site.comments.services import decide
from blog_site.labels.services import correct_labels
from blog_site.users.models import User


class Verdict(TextChoices):
    """What a moderator may say; those that are a sentiment correct the label, the others the status."""

    APPROVE = "approve", _("通过")
    HIDE = "hide", pgettext_lazy("verdict", "隐藏")
    SPAM = "spam", _("垃圾")
    NEGATIVE = Sentiment.NEGATIVE.value, _("标为负面")
    NEUTRAL = Sentiment.NEUTRAL.value, _("标为中性")
    POSITIVE = Sentiment.POSITIVE.value, _("标为正面")

    @property
    def is_label(self) -> bool:
        return self.value in Sentiment.values


# Approving lets a comment be seen, whatever kept it from that.
ACTIONS = {
    Verdict.APPROVE: (Decision.Action.APPROVE, Decision.Action.RESTORE),
    Verdict.HIDE: (Decision.Action.HIDE,),
    Verdict.SPAM: (Decision.Action.MARK_SPAM,),
}


def pass_verdict(*, ids: Sequence[int], verdict: Verdict, by: User, reason: str = "") -> int:
    """Carry out a verdict on the comments named; gives how many it changed, those that are gone not among them."""
    comments = list(Comment.objects.filter(pk__in=ids))
    if verdict.is_label:
        return correct_labels(comments=comments, sentiment=verdict.value, moderator=by, reason=reason)
    return sum(decide(comments=comments, action=action, by=by, reason=reason) for action in ACTIONS[verdict])


def may_pass(user: User, verdict: Verdict) -> bool:
    if verdict.is_label:
        return user.has_perms(["labels.add_label", "labels.change_label"])
    return user.has_perm("comments.change_comment")
