from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.forms import CharField, ModelForm
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin
from unfold.widgets import UnfoldAdminTextInputWidget

from .forms import split_tag_names
from .models import Article, ArticleQuerySet, Category, Tag
from .services import check_body, delete_article, save_article


@admin.register(Category)
class CategoryAdmin(ModelAdmin):
    list_display = ("name", "slug", "description")


@admin.register(Tag)
class TagAdmin(ModelAdmin):
    list_display = ("name", "slug")
    search_fields = ("name",)


class ArticleAdminForm(ModelForm):
    """Tags are typed, as writers type them: thousands to pick from are no help, least of all to a screen reader."""

    tag_names = CharField(
        label=_("标签"),
        required=False,
        help_text=_("用逗号隔开，最多 8 个，例如：早餐, 豆浆, 老店"),
        widget=UnfoldAdminTextInputWidget,
    )

    class Meta:
        model = Article
        fields = (
            "title",
            "slug",
            "summary",
            "body_markdown",
            "category",
            "author",
            "tag_names",
            "cover",
            "status",
            "published_at",
            "comments_open",
        )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            self.initial["tag_names"] = self.instance.tag_names()

    def clean_body_markdown(self) -> str:
        body: str = self.cleaned_data["body_markdown"]
        check_body(body)
        return body

    def clean_tag_names(self) -> list[str]:
        return split_tag_names(self.cleaned_data["tag_names"])


@admin.register(Article)
class ArticleAdmin(ModelAdmin):
    form = ArticleAdminForm
    list_display = ("title", "author", "category", "status", "published_at")
    list_filter = ("status", "category")
    list_select_related = ("author", "category")
    search_fields = ("title", "body_markdown")
    autocomplete_fields = ("author",)
    # No date_hierarchy: MySQL and MariaDB need their time zone tables loaded for it, and fail without.

    @admin.display(description=_("标签"))
    def tag_names(self, article: Article) -> str:
        """For those who may look and not change."""
        return article.tag_names()

    def save_model(self, request: HttpRequest, obj: Article, form: ModelForm, change: bool) -> None:
        save_article(article=obj, tags=form.cleaned_data["tag_names"])

    def delete_model(self, request: HttpRequest, obj: Article) -> None:
        delete_article(article=obj)

    def delete_queryset(self, request: HttpRequest, queryset: ArticleQuerySet) -> None:
        for article in queryset:
            delete_article(article=article)
