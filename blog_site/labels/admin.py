"""Labels, and the samples that they make."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext_lazy
from unfold.admin import ModelAdmin, TabularInline

from blog_site.comments.admin import ReadOnlyMixin

from .models import Label, LabelAttempt, Sample


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
    list_display = ["excerpt", "label", "source", "site", "split", "weight", "changed_at"]
    list_filter = ["label", "source", "site", "split"]
    search_fields = ["text", "key"]
    show_full_result_count = False
    ordering = ["-id"]

    @admin.display(description=gettext_lazy("内容"), ordering="text")
    def excerpt(self, sample: Sample) -> str:
        return sample.text if len(sample.text) <= 60 else f"{sample.text[:60]}…"


admin.site.register(Label, LabelAdmin)
admin.site.register(LabelAttempt, LabelAttemptAdmin)
admin.site.register(Sample, SampleAdmin)
