"""Labels, samples, and moderation: comments with what labels say of them, and the actions that correct it."""

from __future__ import annotations

from django.contrib import admin, messages
from django.db.models import Prefetch
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from unfold.admin import ModelAdmin, TabularInline

from blog_site.comments.admin import CommentAdmin, ReadOnlyMixin
from blog_site.comments.models import Comment, CommentQuerySet, Sentiment

from . import services
from .models import Label, LabelAttempt, LabelQuerySet, Sample, Source


class LabelInline(ReadOnlyMixin, TabularInline):
    model = Label
    extra = 0
    can_delete = False
    ordering = ["-id"]
    fields = [
        "source",
        "sentiment",
        "confidence",
        "intent",
        "toxicity",
        "reason",
        "model",
        "moderator",
        "updated_at",
    ]
    readonly_fields = fields


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


class ModeratedCommentAdmin(CommentAdmin):
    list_display = ["excerpt", "prediction", "current_label", "status", "author", "title", "posted"]
    list_filter = [*CommentAdmin.list_filter, LabelSourceFilter]
    inlines = [*CommentAdmin.inlines, LabelInline]
    actions = ["mark_negative", "mark_neutral", "mark_positive", *CommentAdmin.actions]

    def get_queryset(self, request: HttpRequest) -> CommentQuerySet:
        present: LabelQuerySet = Label.objects.of_present_text()
        return (
            super()
            .get_queryset(request)
            .prefetch_related(Prefetch("labels", present, to_attr="present_labels"))
        )

    def has_label_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perms(["labels.add_label", "labels.change_label"])

    @admin.display(description=gettext_lazy("标注"))
    def current_label(self, comment: Comment) -> str:
        label = services.best_label(comment.present_labels)
        return f"{label.get_sentiment_display()}（{label.get_source_display()}）" if label else _("待标注")

    @admin.action(description=gettext_lazy("标为负面"), permissions=["label"])
    def mark_negative(self, request: HttpRequest, queryset: CommentQuerySet) -> None:
        self._correct(request, queryset, Sentiment.NEGATIVE)

    @admin.action(description=gettext_lazy("标为中性"), permissions=["label"])
    def mark_neutral(self, request: HttpRequest, queryset: CommentQuerySet) -> None:
        self._correct(request, queryset, Sentiment.NEUTRAL)

    @admin.action(description=gettext_lazy("标为正面"), permissions=["label"])
    def mark_positive(self, request: HttpRequest, queryset: CommentQuerySet) -> None:
        self._correct(request, queryset, Sentiment.POSITIVE)

    def _correct(self, request: HttpRequest, queryset: CommentQuerySet, sentiment: Sentiment) -> None:
        count = services.correct_labels(comments=queryset, sentiment=sentiment, moderator=request.user)
        said = ngettext("已把 %(count)d 条评论标为%(label)s", "已把 %(count)d 条评论标为%(label)s", count)
        messages.success(request, said % {"count": count, "label": sentiment.label})


class LabelAdmin(ReadOnlyMixin, ModelAdmin):
    list_display = [
        "comment",
        "source",
        "sentiment",
        "confidence",
        "intent",
        "toxicity",
        "model",
        "moderator",
        "updated_at",
    ]
    list_filter = ["source", "sentiment", "intent"]
    search_fields = ["comment__text", "model", "reason"]
    list_select_related = ["comment", "moderator"]
    show_full_result_count = False
    ordering = ["-id"]


class LabelAttemptAdmin(ReadOnlyMixin, ModelAdmin):
    list_display = ["comment", "source", "model", "attempts", "next_at", "error", "cost_tokens"]
    list_filter = ["source"]
    list_select_related = ["comment"]
    show_full_result_count = False
    ordering = ["-id"]

    def has_delete_permission(self, request: HttpRequest, obj: LabelAttempt | None = None) -> bool:
        return ModelAdmin.has_delete_permission(
            self, request, obj
        )  # deleting one lets the text be asked about again


class SampleAdmin(ReadOnlyMixin, ModelAdmin):
    list_display = ["excerpt", "label", "source", "site", "split", "changed_at"]
    list_filter = ["label", "source", "site", "split"]
    search_fields = ["text", "key"]
    show_full_result_count = False
    ordering = ["-id"]

    @admin.display(description=gettext_lazy("内容"), ordering="text")
    def excerpt(self, sample: Sample) -> str:
        return sample.text if len(sample.text) <= 60 else f"{sample.text[:60]}…"


admin.site.unregister(Comment)
admin.site.register(Comment, ModeratedCommentAdmin)
admin.site.register(Label, LabelAdmin)
admin.site.register(LabelAttempt, LabelAttemptAdmin)
admin.site.register(Sample, SampleAdmin)
