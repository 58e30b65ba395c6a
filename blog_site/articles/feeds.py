"""Atom feeds: of the whole blog, of a category, of an author."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.contrib.syndication.views import Feed
from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.feedgenerator import Atom1Feed
from django.utils.translation import gettext_lazy as _

from blog_site.users.models import User

from .models import Article, ArticleQuerySet, Category

NEWEST = 20


def newest_articles(**of: Any) -> ArticleQuerySet:
    """The newest public articles of a category or an author, or of all."""
    return Article.objects.published().with_people().filter(**of)[:NEWEST]


class ArticleFeed(Feed):
    """The newest articles, whole: a reader of feeds need not come here to read."""

    feed_type = Atom1Feed
    language = "zh-Hans"
    title: Any = _("回声")
    subtitle: Any = _("一个认真读每一条评论的中文博客")

    def link(self, what: Any = None) -> str:
        return reverse("articles:home")

    def items(self, what: Any = None) -> ArticleQuerySet:
        return newest_articles()

    def item_title(self, item: Article) -> str:
        return item.title

    def item_description(self, item: Article) -> str:
        return item.body_html  # sanitised when it was rendered

    def item_link(self, item: Article) -> str:
        return item.get_absolute_url()

    def item_author_name(self, item: Article) -> str:
        return str(item.author)

    def item_author_link(self, item: Article) -> str:
        return reverse("articles:author", args=[item.author.username])

    def item_pubdate(self, item: Article) -> datetime | None:
        return item.published_at

    def item_updateddate(self, item: Article) -> datetime:
        return item.changed_at()

    def item_categories(self, item: Article) -> list[str]:
        return [item.category.name, *(tag.name for tag in item.tags.all())]


class CategoryFeed(ArticleFeed):
    def get_object(self, request: HttpRequest, slug: str) -> Category:
        return get_object_or_404(Category, slug=slug)

    def title(self, what: Category) -> str:
        return f"{what.name} · {ArticleFeed.title}"

    def subtitle(self, what: Category) -> str:
        return what.description

    def link(self, what: Category) -> str:
        return what.get_absolute_url()

    def items(self, what: Category) -> ArticleQuerySet:
        return newest_articles(category=what)


class AuthorFeed(ArticleFeed):
    def get_object(self, request: HttpRequest, username: str) -> User:
        return get_object_or_404(User, username=username)

    def title(self, what: User) -> str:
        return f"{what} · {ArticleFeed.title}"

    def subtitle(self, what: User) -> str:
        return what.bio

    def link(self, what: User) -> str:
        return reverse("articles:author", args=[what.username])

    def items(self, what: User) -> ArticleQuerySet:
        return newest_articles(author=what)
