"""What search engines are told: every public page, in pieces of a thousand."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.contrib.sitemaps import Sitemap
from django.urls import reverse

from .models import Article, ArticleQuerySet, Category


class ArticleSitemap(Sitemap):
    changefreq = "weekly"
    limit = 1000

    def items(self) -> ArticleQuerySet:
        return Article.objects.published().only("slug", "updated_at", "published_at").order_by("id")

    def lastmod(self, item: Article) -> datetime:
        return item.changed_at()

    def get_latest_lastmod(self) -> None:
        """Leave out of the index, where it may be missing, what all articles would have to be read for."""


class CategorySitemap(Sitemap):
    changefreq = "daily"

    def items(self) -> Any:
        return Category.objects.all()


class PageSitemap(Sitemap):
    changefreq = "daily"

    def items(self) -> list[str]:
        return ["articles:home", "articles:archive"]

    def location(self, item: str) -> str:
        return reverse(item)


SITEMAPS = {"articles": ArticleSitemap, "categories": CategorySitemap, "pages": PageSitemap}
