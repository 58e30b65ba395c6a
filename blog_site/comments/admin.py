"""Predictions, and the rules that hold comments, in the admin; comments themselves are in `moderation.admin`."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.db.models.options import Options
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext_lazy
from unfold.admin import ModelAdmin, TabularInline

from .models import BlockedWord, Prediction, Rules


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


class PredictionAdmin(ReadOnlyMixin, ModelAdmin):
    list_display = ["comment", "label", "score", "model_digest", "latency_ms", "created_at"]
    list_filter = ["label"]
    search_fields = ["model_digest", "comment__text"]
    list_select_related = ["comment"]
    show_full_result_count = False
    ordering = ["-id"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Prediction]:
        return super().get_queryset(request).defer("probabilities")


class RulesForm(ModelForm):
    class Meta:
        model = Rules
        fields = ["hold_first_comments", "hold_links", "hold_guests"]
        help_texts = {
            "hold_first_comments": gettext_lazy(
                "填 1，新注册的人第一条评论要先过目；通过一条之后，以后的直接公开。广告账号多半止步于此。0 表示不限制。"
            ),
            "hold_links": gettext_lazy(
                "广告评论十有八九带链接。写成 www.example.com 或 example.com 也算。写文章的人自己和审核员不受限制。"
            ),
            "hold_guests": gettext_lazy(
                "没有登录的访客，名字可以随便写。只有分类允许访客评论时才用得到；关掉之后，访客的评论直接公开。"
            ),
        }


@admin.register(Rules)
class RulesAdmin(ModelAdmin):
    """One row: its list leads straight to it."""

    form = RulesForm
    compressed_fields = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Rules | None = None) -> bool:
        return False

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if not self.has_view_or_change_permission(request):
            raise PermissionDenied
        rules, _made = Rules.objects.get_or_create(pk=Rules.load().pk)
        return HttpResponseRedirect(reverse("admin:comments_rules_change", args=[rules.pk]))


class BlockedWordForm(ModelForm):
    class Meta:
        model = BlockedWord
        fields = ["word", "action"]
        help_texts = {
            "word": gettext_lazy(
                "中文词夹着空格、标点也认得出来：填“加微信”，“加 微.信”也会被留下。"
                "英文按整个单词算：填“ass”，不会误伤“class”。大小写和全角半角不分。"
            ),
            "action": gettext_lazy(
                "“先审后发”进审核队列，由人决定；“算作垃圾评论”直接收起，不进队列，也不进训练。拿不准就选前者。"
            ),
        }


@admin.register(BlockedWord)
class BlockedWordAdmin(ModelAdmin):
    form = BlockedWordForm
    list_display = ["word", "action"]
    list_filter = ["action"]
    search_fields = ["word"]


admin.site.register(Prediction, PredictionAdmin)
