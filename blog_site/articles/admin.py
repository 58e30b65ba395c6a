from __future__ import annotations

from django.contrib import admin
from django.forms import ModelForm
from django.http import HttpRequest
from unfold.admin import ModelAdmin

from .models import Article, ArticleQuerySet, Category, Tag
from .services import delete_article, save_article


@admin.register(Category)
class CategoryAdmin(ModelAdmin):
    list_display = ("name", "slug", "description")


@admin.register(Tag)
class TagAdmin(ModelAdmin):
    list_display = ("name", "slug")
    search_fields = ("name",)


@admin.register(Article)
class ArticleAdmin(ModelAdmin):
    list_display = ("title", "author", "category", "status", "published_at")
    list_filter = ("status", "category")
    list_select_related = ("author", "category")
    search_fields = ("title", "body_markdown")
    autocomplete_fields = ("author", "tags")
    # No date_hierarchy: MySQL and MariaDB need their time zone tables loaded for it, and fail without.

    def save_model(self, request: HttpRequest, obj: Article, form: ModelForm, change: bool) -> None:
        save_article(article=obj, tags=[tag.name for tag in form.cleaned_data["tags"]])

    def delete_model(self, request: HttpRequest, obj: Article) -> None:
        delete_article(article=obj)

    def delete_queryset(self, request: HttpRequest, queryset: ArticleQuerySet) -> None:
        for article in queryset:
            delete_article(article=article)
