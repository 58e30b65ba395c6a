"""The moderators' queue: which comments need somebody, in which order, and what is said of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db.models import (
    Case,
    Exists,
    F,
    FilteredRelation,
    IntegerField,
    OuterRef,
    Prefetch,
    Q,
    Subquery,
    TextChoices,
    Value,
    When,
)
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from blog_site.comments.models import Comment, CommentQuerySet, Prediction, Report
from blog_site.labels.models import Label, Source

PAGE_SIZE = 25
UNCERTAIN_BELOW = 0.8  # a model that is surer than this needs nobody
OPEN = (Comment.Status.VISIBLE, Comment.Status.PENDING)
REFUSED = (Comment.Status.HIDDEN, Comment.Status.SPAM)


class Tab(TextChoices):
    PENDING = "pending", _("待审核")
    REPORTED = "reported", _("被举报")
    UNCERTAIN = "uncertain", _("模型没把握")
    DISPUTED = "disputed", _("模型与标注不一致")
    REFUSED = "refused", _("已隐藏与垃圾")
    ALL = "all", _("全部")


class Confidence(TextChoices):
    LOW = "low", _("低于 0.6")
    MEDIUM = "medium", _("0.6 到 0.85")
    HIGH = "high", _("高于 0.85")


class Age(TextChoices):
    DAY = "day", _("一天内")
    WEEK = "week", _("一周内")
    OLDER = "older", _("一周以前")


class Origin(TextChoices):
    MEMBER = "member", _("用户")
    GUEST = "guest", _("访客")
    API = "api", _("接口")


CONFIDENCE_RANGES = {
    Confidence.LOW: Q(present__score__lt=0.6),
    Confidence.MEDIUM: Q(present__score__gte=0.6, present__score__lte=0.85),
    Confidence.HIGH: Q(present__score__gt=0.85),
}
ORIGINS = {
    Origin.MEMBER: Q(author__isnull=False, via_api=False),
    Origin.GUEST: Q(author__isnull=True, via_api=False),
    Origin.API: Q(via_api=True),
}


@dataclass(frozen=True)
class Page:
    comments: list[Comment]
    number: int
    has_next: bool


def comments_in(tab: Tab, filters: Mapping[str, Any]) -> CommentQuerySet:
    """The comments of a tab in the order in which they should be read, narrowed by `forms.QueueFilters`."""
    comments = _of_tab(tab).filter(*_conditions(filters))
    judged = _conditions_on_prediction(filters)
    if tab == Tab.UNCERTAIN:
        doubtful = _with_present_prediction(comments, [Q(present__score__lt=UNCERTAIN_BELOW), *judged])
        return doubtful.order_by("present__score", "present__pk")  # as the index has them
    return _with_present_prediction(comments, judged) if judged else comments


def page_of(comments: CommentQuerySet, number: int) -> Page:
    """A page of a queue with all that a card shows; one comment more than it has tells whether another follows."""
    start = (number - 1) * PAGE_SIZE
    found = list(_with_all_said(comments)[start : start + PAGE_SIZE + 1])
    return Page(found[:PAGE_SIZE], number, len(found) > PAGE_SIZE)


def count_waiting() -> dict[Tab, int]:
    """How many comments wait for a decision, by the tabs that are emptied; both counts are read from an index."""
    return {tab: _of_tab(tab).order_by().count() for tab in (Tab.PENDING, Tab.REPORTED)}


def _of_tab(tab: Tab) -> CommentQuerySet:
    comments = Comment.objects.exclude(status=Comment.Status.DELETED)
    if tab == Tab.PENDING:
        return Comment.objects.filter(status=Comment.Status.PENDING).order_by("created_at", "pk")
    if tab == Tab.REPORTED:
        return comments.filter(report_count__gt=0).order_by("-report_count", "-pk")
    if tab == Tab.UNCERTAIN:
        return comments.filter(~_corrected(), status__in=OPEN)
    if tab == Tab.DISPUTED:
        return _disputed(comments.filter(~_corrected(), status__in=OPEN)).order_by("-pk")
    if tab == Tab.REFUSED:
        return comments.filter(status__in=REFUSED).order_by("-pk")
    return comments.order_by("-pk")


def _present(model: type[Prediction] | type[Label]) -> Any:
    """What was said of the text that a comment has now."""
    return model.objects.filter(comment=OuterRef("pk"), text_digest=OuterRef("text_digest"))


def _corrected() -> Exists:
    return Exists(_present(Label).filter(source=Source.MODERATOR))


def _with_present_prediction(comments: CommentQuerySet, conditions: list[Q]) -> CommentQuerySet:
    """Join the prediction that is shown, as `present`, under these conditions; comments without one fall out.

    All in one filter: Django joins the predictions once more for each further one.
    """
    of_text = FilteredRelation("predictions", condition=Q(predictions__text_digest=F("text_digest")))
    newer = _present(Prediction).filter(pk__gt=OuterRef("present__pk"))
    return comments.alias(present=of_text).filter(*conditions, ~Exists(newer), present__isnull=False)


def _disputed(comments: CommentQuerySet) -> CommentQuerySet:
    """Where the model says other than the labeller does: the language model or, where it said nothing, the lexicon."""
    rank = Case(When(source=Source.LLM, then=Value(1)), default=Value(0), output_field=IntegerField())
    said = _present(Prediction).order_by("-pk").values("label")[:1]
    labelled = _present(Label).exclude(source=Source.MODERATOR).order_by(rank.desc(), "-pk")
    return comments.alias(said=Subquery(said), labelled=Subquery(labelled.values("sentiment")[:1])).filter(
        ~Q(said=F("labelled")), said__isnull=False, labelled__isnull=False
    )


def _conditions(filters: Mapping[str, Any]) -> list[Q]:
    conditions = []
    if category := filters.get("category"):
        conditions.append(Q(article__category=category))
    if origin := filters.get("origin"):
        conditions.append(ORIGINS[Origin(origin)])
    if age := filters.get("age"):
        conditions.append(_posted(Age(age)))
    return conditions


def _conditions_on_prediction(filters: Mapping[str, Any]) -> list[Q]:
    conditions = []
    if sentiment := filters.get("sentiment"):
        conditions.append(Q(present__label=sentiment))
    if confidence := filters.get("confidence"):
        conditions.append(CONFIDENCE_RANGES[Confidence(confidence)])
    return conditions


def _posted(age: Age) -> Q:
    now = timezone.now()
    if age == Age.DAY:
        return Q(created_at__gte=now - timedelta(days=1))
    week_ago = now - timedelta(days=7)
    return Q(created_at__gte=week_ago) if age == Age.WEEK else Q(created_at__lt=week_ago)


def _with_all_said(comments: CommentQuerySet) -> CommentQuerySet:
    reports = Report.objects.filter(settled_at=None).select_related("reporter").order_by("-pk")
    return (
        comments.with_predictions()
        .select_related("article__category", "parent__author")
        .defer("article__body_markdown", "article__body_html")
        .prefetch_related(
            Prefetch("labels", Label.objects.of_present_text(), to_attr="present_labels"),
            Prefetch("reports", reports, to_attr="open_reports"),
            "decisions",
        )
    )
