"""Comments and the record of decisions about them, in the admin: it shows and asks, services decide."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, pgettext_lazy
from unfold.admin import ModelAdmin

from blog_site.comments.admin import PredictionInline, ReadOnlyMixin
from blog_site.comments.models import Comment, CommentQuerySet, Decision
from blog_site.comments.services import delete_comment
from blog_site.labels.admin import LabelInline
from blog_site.labels.models import Label, Source
from blog_site.labels.services import best_label

from . import views
from .history import history_beside
from .queue import page_of
from .services import Verdict, may_pass, pass_verdict


class LabelSourceFilter(admin.SimpleListFilter):
    title = gettext_lazy("标注来源")
    parameter_name = "label_source"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin) -> list[tuple[str, str]]:
        own = [source for source in Source if source != Source.CORPUS]  # imported samples have no comment
        return [*((source.value, source.label) for source in own), ("none", _("未标注"))]

    def queryset(self, request: HttpRequest, queryset: CommentQuerySet) -> CommentQuerySet:
        labels = Label.objects.of_present_text()
        if self.value() == "none":
            return queryset.exclude(pk__in=labels.values("comment"))
        if self.value() in Source.values:
            return queryset.filter(pk__in=labels.filter(source=self.value()).values("comment"))
        return queryset


@admin.register(Comment)
class CommentAdmin(ModelAdmin):
    """All comments; what waits for a moderator is in the queue, at `queue/` below them."""

    list_display = ["excerpt", "prediction", "current_label", "status", "byline", "title", "posted"]
    list_filter = ["status", "article__category", LabelSourceFilter]
    search_fields = ["text", "author__username", "author__display_name", "guest_name", "article__title"]
    # No date_hierarchy: MySQL and MariaDB need their time zone tables loaded for it, and fail without.
    ordering = ["-created_at", "-id"]
    list_per_page = 50
    show_full_result_count = False
    # What the card at the top of its page does not say.
    fields = ["parent", "explanation", "created_at", "edited_at", "like_count", "reply_count"]
    readonly_fields = fields
    inlines = [PredictionInline, LabelInline]
    actions = ["approve", "hide", "spam", "mark_negative", "mark_neutral", "mark_positive"]
    change_form_template = "admin/moderation/comment.html"

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        mine = [
            path("queue/", wrap(views.show_queue), name="moderation_queue"),
            path("verdicts/", wrap(views.take_verdict), name="moderation_verdict"),
        ]
        return mine + super().get_urls()

    def get_queryset(self, request: HttpRequest) -> CommentQuerySet:
        # list_select_related would be ignored: the admin leaves a queryset alone that selects related rows.
        comments = super().get_queryset(request).exclude(status=Comment.Status.DELETED)
        return (
            comments.with_predictions()
            .select_related("article", "parent")
            .prefetch_related(Prefetch("labels", Label.objects.of_present_text(), to_attr="present_labels"))
        )

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        comment = self.get_object(request, unquote(object_id))
        beside = {} if comment is None else _describe_page(comment)
        context = {**(extra_context or {}), **beside, **views.verdicts_for(request)}
        return super().change_view(request, object_id, form_url, context)

    # Nothing on a comment's page is written by hand: its author edits the text, and verdicts do the rest.

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Comment | None = None) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: Comment | None = None) -> bool:
        return bool(request.user.has_perm("comments.view_comment"))

    def has_decide_permission(self, request: HttpRequest) -> bool:
        return may_pass(request.user, Verdict.APPROVE)

    def has_label_permission(self, request: HttpRequest) -> bool:
        return may_pass(request.user, Verdict.NEUTRAL)

    # Deleting goes through the service: one that was answered leaves a tombstone, which the database would refuse.

    def get_deleted_objects(
        self, objs: QuerySet[Comment] | list[Comment], request: HttpRequest
    ) -> tuple[list[str], dict[str, int], set[str], list[str]]:
        missing = set() if self.has_delete_permission(request) else {str(self.opts.verbose_name)}
        return (
            [str(comment) for comment in objs],
            {str(self.opts.verbose_name_plural): len(objs)},
            missing,
            [],
        )

    def delete_model(self, request: HttpRequest, obj: Comment) -> None:
        delete_comment(comment=obj, by=request.user)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Comment]) -> None:
        for comment in queryset:
            delete_comment(comment=comment, by=request.user)

    @admin.display(description=gettext_lazy("内容"), ordering="text")
    def excerpt(self, comment: Comment) -> str:
        return Truncator(comment.text).chars(60)

    @admin.display(description=gettext_lazy("作者"), ordering="author")
    def byline(self, comment: Comment) -> str:
        return comment.byline if comment.author_id else _("%(name)s（访客）") % {"name": comment.guest_name}

    @admin.display(description=pgettext_lazy("one", "文章"), ordering="article__title")
    def title(self, comment: Comment) -> str:
        return Truncator(comment.article.title).chars(
            13
        )  # a whole one would push the next columns out of sight

    @admin.display(description=gettext_lazy("发表时间"), ordering="created_at")
    def posted(self, comment: Comment) -> str:
        return date_format(timezone.localtime(comment.created_at), "Y-m-d H:i")

    @admin.display(description=gettext_lazy("预测"))
    def prediction(self, comment: Comment) -> str:
        prediction = comment.current_prediction()
        return f"{prediction.get_label_display()} {prediction.score:.2f}" if prediction else _("待预测")

    @admin.display(description=gettext_lazy("标注"))
    def current_label(self, comment: Comment) -> str:
        label = best_label(comment.present_labels)
        return f"{label.get_sentiment_display()}（{label.get_source_display()}）" if label else _("待标注")

    @admin.display(description=gettext_lazy("判断依据"))
    def explanation(self, comment: Comment) -> str:
        address = reverse("comments:explanation", args=[comment.pk])
        return format_html('<a href="{}">{}</a>', address, _("看看是哪些字词让模型这么判断"))

    @admin.action(description=gettext_lazy("通过"), permissions=["decide"])
    def approve(self, request: HttpRequest, queryset: CommentQuerySet) -> None:
        self._pass(request, queryset, Verdict.APPROVE)

    @admin.action(description=Verdict.HIDE.label, permissions=["decide"])
    def hide(self, request: HttpRequest, queryset: CommentQuerySet) -> None:
        self._pass(request, queryset, Verdict.HIDE)

    @admin.action(description=gettext_lazy("标为垃圾"), permissions=["decide"])
    def spam(self, request: HttpRequest, queryset: CommentQuerySet) -> None:
        self._pass(request, queryset, Verdict.SPAM)

    @admin.action(description=gettext_lazy("标为负面"), permissions=["label"])
    def mark_negative(self, request: HttpRequest, queryset: CommentQuerySet) -> None:
        self._pass(request, queryset, Verdict.NEGATIVE)

    @admin.action(description=gettext_lazy("标为中性"), permissions=["label"])
    def mark_neutral(self, request: HttpRequest, queryset: CommentQuerySet) -> None:
        self._pass(request, queryset, Verdict.NEUTRAL)

    @admin.action(description=gettext_lazy("标为正面"), permissions=["label"])
    def mark_positive(self, request: HttpRequest, queryset: CommentQuerySet) -> None:
        self._pass(request, queryset, Verdict.POSITIVE)

    def _pass(self, request: HttpRequest, queryset: CommentQuerySet, verdict: Verdict) -> None:
        ids = list(queryset.values_list("pk", flat=True))
        count = pass_verdict(ids=ids, verdict=verdict, by=request.user)
        messages.success(request, views.say_passed(verdict, count))


def _describe_page(comment: Comment) -> dict[str, Any]:
    (card,) = views.describe_cards(page_of(Comment.objects.filter(pk=comment.pk), 1))
    return {"comment": card["comment"], "card": card, "history": history_beside(comment)}


@admin.register(Decision)
class DecisionAdmin(ReadOnlyMixin, ModelAdmin):
    """The record: who decided what, when and why. Nobody changes it, nor takes from it."""

    list_display = ["decided_at", "who", "action", "change", "about", "why"]
    list_filter = ["action", "to_status", ("by", admin.RelatedOnlyFieldListFilter), "at"]
    search_fields = ["excerpt", "reason", "by__username", "by__display_name"]
    list_select_related = ["by"]
    list_per_page = 50
    show_full_result_count = False
    ordering = ["-id"]
    fields = ["decided_at", "who", "action", "change", "about", "why"]
    readonly_fields = fields

    @admin.display(description=gettext_lazy("时间"), ordering="at")
    def decided_at(self, decision: Decision) -> str:
        return date_format(timezone.localtime(decision.at), "Y-m-d H:i")

    @admin.display(description=gettext_lazy("决定者"), ordering="by")
    def who(self, decision: Decision) -> str:
        return str(decision.by) if decision.by else _("规则")

    @admin.display(description=gettext_lazy("变化"))
    def change(self, decision: Decision) -> str:
        if decision.action == Decision.Action.RELABEL:
            before, after = decision.get_from_label_display(), decision.get_to_label_display()
        else:
            before, after = decision.get_from_status_display(), decision.get_to_status_display()
        return f"{before or '–'} → {after}"

    @admin.display(description=pgettext_lazy("one", "评论"))
    def about(self, decision: Decision) -> str:
        excerpt = Truncator(decision.excerpt).chars(40) or _("（已删除）")
        if decision.comment_id is None:
            return excerpt
        address = reverse("admin:comments_comment_change", args=[decision.comment_id])
        return format_html('<a href="{}">{}</a>', address, excerpt)

    @admin.display(description=gettext_lazy("理由"))
    def why(self, decision: Decision) -> str:
        return decision.reason_in_words() or "–"
