"""Comments and predictions in the admin; `labels.admin` adds to comments what labels say of them."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import Model, QuerySet
from django.db.models.options import Options
from django.forms import ModelForm
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from unfold.admin import ModelAdmin, TabularInline

from . import services
from .models import Comment, CommentQuerySet, Decision, Prediction

# What brings a comment to a status, whichever it has.
ACTIONS_TO = {
    Comment.Status.VISIBLE: [Decision.Action.APPROVE, Decision.Action.RESTORE],
    Comment.Status.HIDDEN: [Decision.Action.HIDE],
    Comment.Status.SPAM: [Decision.Action.MARK_SPAM],
}


class ReadOnlyMixin:
    """Rows that only the product itself writes: the admin shows them."""

    opts: Options[Any]

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Refuse it on the rows' own pages; who deletes a comment, an article or a person deletes them with it."""
        page = request.resolver_match.url_name if request.resolver_match else ""
        if page.startswith(f"{self.opts.app_label}_{self.opts.model_name}_"):
            return False
        return super().has_delete_permission(request, obj)


class PredictionInline(ReadOnlyMixin, TabularInline):
    model = Prediction
    extra = 0
    can_delete = False
    ordering = ["-id"]
    fields = ["label", "score", "model_digest", "latency_ms", "created_at"]
    readonly_fields = fields


class CommentAdmin(ModelAdmin):
    list_display = ["excerpt", "prediction", "status", "author", "title", "posted"]
    list_filter = ["status", "article__category"]
    search_fields = ["text", "author__username", "author__display_name", "article__title"]
    # No date_hierarchy: MySQL and MariaDB need their time zone tables loaded for it, and fail without.
    ordering = ["-created_at", "-id"]
    list_per_page = 50
    show_full_result_count = False
    fields = ["article", "author", "text", "explanation", "status", "created_at", "updated_at"]
    readonly_fields = ["article", "author", "text", "explanation", "created_at", "updated_at"]
    inlines = [PredictionInline]
    actions = ["hide", "show"]

    def get_queryset(self, request: HttpRequest) -> CommentQuerySet:
        # list_select_related would be ignored: the admin leaves a queryset alone that selects related rows.
        return super().get_queryset(request).with_predictions().select_related("article")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False  # comments come from readers

    def save_model(self, request: HttpRequest, obj: Comment, form: ModelForm, change: bool) -> None:
        """Change nothing but the status, as a decision."""
        for action in ACTIONS_TO.get(obj.status, ()):
            services.decide(comments=[obj], action=action, by=request.user)

    def delete_model(self, request: HttpRequest, obj: Comment) -> None:
        services.delete_comment(comment=obj, by=request.user)

    @admin.display(description=gettext_lazy("内容"), ordering="text")
    def excerpt(self, comment: Comment) -> str:
        return comment.text if len(comment.text) <= 60 else f"{comment.text[:60]}…"

    @admin.display(description=gettext_lazy("文章"), ordering="article__title")
    def title(self, comment: Comment) -> str:
        title = comment.article.title  # short: a whole one would push the columns after it out of sight
        return title if len(title) <= 12 else f"{title[:12]}…"

    @admin.display(description=gettext_lazy("发表时间"), ordering="created_at")
    def posted(self, comment: Comment) -> str:
        return date_format(timezone.localtime(comment.created_at), "Y-m-d H:i")

    @admin.display(description=gettext_lazy("预测"))
    def prediction(self, comment: Comment) -> str:
        prediction = comment.current_prediction()
        return f"{prediction.get_label_display()} {prediction.score:.2f}" if prediction else _("待预测")

    @admin.display(description=gettext_lazy("判断依据"))
    def explanation(self, comment: Comment) -> str:
        address = reverse("comments:explanation", args=[comment.pk])
        return format_html('<a href="{}">{}</a>', address, _("看看是哪些字词让模型这么判断"))

    @admin.action(description=gettext_lazy("隐藏"), permissions=["change"])
    def hide(self, request: HttpRequest, queryset: CommentQuerySet) -> None:
        count = services.decide(comments=queryset, action=Decision.Action.HIDE, by=request.user)
        messages.success(request, ngettext("已隐藏 %d 条评论", "已隐藏 %d 条评论", count) % count)

    @admin.action(description=gettext_lazy("公开"), permissions=["change"])
    def show(self, request: HttpRequest, queryset: CommentQuerySet) -> None:
        actions = ACTIONS_TO[Comment.Status.VISIBLE]
        count = sum(services.decide(comments=queryset, action=action, by=request.user) for action in actions)
        messages.success(request, ngettext("已公开 %d 条评论", "已公开 %d 条评论", count) % count)


class PredictionAdmin(ReadOnlyMixin, ModelAdmin):
    list_display = ["comment", "label", "score", "model_digest", "latency_ms", "created_at"]
    list_filter = ["label"]
    search_fields = ["model_digest", "comment__text"]
    list_select_related = ["comment"]
    show_full_result_count = False
    ordering = ["-id"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Prediction]:
        return super().get_queryset(request).defer("probabilities")


admin.site.register(Comment, CommentAdmin)
admin.site.register(Prediction, PredictionAdmin)
