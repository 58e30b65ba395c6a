"""Pages to find and read articles."""

from __future__ import annotations

from typing import Any

from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_safe

from blog_site.users.models import User

from .echo import Echo, listen
from .hot import answer_reader
from .models import Article, ArticleQuerySet, Category, OldSlug, Tag
from .pages import article_context
from .readership import count_view
from .search import MAX_RESULTS, highlight, make_snippet, read_texts, search_articles
from .words import MAX_QUERY_CHARACTERS

ARTICLES_PER_PAGE = 10
POPULAR_TAGS = 20


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    popular = Tag.objects.popular(POPULAR_TAGS)
    return _render_list(request, "articles/home.html", Article.objects.published(), popular_tags=popular)


@require_safe
def category(request: HttpRequest, slug: str) -> HttpResponse:
    category = get_object_or_404(Category, slug=slug)
    articles = Article.objects.published().filter(category=category)
    return _render_list(request, "articles/category.html", articles, category=category)


@require_safe
def tag(request: HttpRequest, slug: str) -> HttpResponse:
    tag = get_object_or_404(Tag.objects.in_use(), slug=slug)
    return _render_list(request, "articles/tag.html", Article.objects.published().filter(tags=tag), tag=tag)


@require_safe
def author(request: HttpRequest, username: str) -> HttpResponse:
    author = get_object_or_404(User, username=username)
    articles = Article.objects.published().filter(author=author)
    return _render_list(request, "articles/author.html", articles, author=author)


@require_safe
def search(request: HttpRequest) -> HttpResponse:
    query = " ".join(request.GET.get("q", "").split())[:MAX_QUERY_CHARACTERS]
    page = Paginator(search_articles(query), ARTICLES_PER_PAGE).get_page(request.GET.get("page"))
    echoes, texts = listen(page.object_list), read_texts(page.object_list)
    hits = [
        {
            "article": article,
            "title": highlight(article.title, query),
            "snippet": highlight(make_snippet(texts.get(article.pk, ""), query), query),
            "echo": echoes.get(article.pk, Echo()),
        }
        for article in page.object_list
    ]
    context = {"query": query, "page": page, "hits": hits, "many": page.paginator.count >= MAX_RESULTS}
    if not hits:
        context["popular_tags"] = Tag.objects.popular(POPULAR_TAGS)
    return render(request, "articles/search.html", context)


@require_safe
def archive(request: HttpRequest) -> HttpResponse:
    """Every article's title under its month, a year at a time."""
    years = Article.objects.published().years()
    asked = {str(year): year for year in years}.get(request.GET.get("year", ""))
    year = asked or next(iter(years), None)
    articles = (
        Article.objects.published().filter(published_at__year=year).only("slug", "title", "published_at")
    )
    return render(
        request,
        "articles/archive.html",
        {"years": years, "year": year, "articles": articles if years else []},
    )


@require_safe
def robots(request: HttpRequest) -> HttpResponse:
    closed = "".join(
        f"Disallow: {path}\n" for path in ("/admin/", "/api/", "/search/", "/write/", "/mine/", "/dashboard/")
    )
    sitemap = request.build_absolute_uri(reverse("sitemap_index"))
    return HttpResponse(
        f"User-agent: *\n{closed}\nSitemap: {sitemap}\n", content_type="text/plain; charset=utf-8"
    )


@require_safe
def article(request: HttpRequest, slug: str) -> HttpResponse:
    # `?part=comments`: without the article around them, for a script that turns a page of theirs.
    part = "articles/_comments.html" if request.GET.get("part") == "comments" else "articles/article.html"

    def render_page(more: dict[str, Any]) -> HttpResponse:
        article = Article.objects.with_people().filter(slug=slug).first()
        if article is None:
            return _lead_to_present_address(request, slug)
        if not article.is_public() and article.author != request.user:
            raise Http404
        if not more and article.is_public() and article.author != request.user:
            count_view(request, article.pk)  # of who gets a copy, `answer_reader` counts
        return render(request, part, article_context(article, request) | more)

    return answer_reader(request, slug, render_page)


def _lead_to_present_address(request: HttpRequest, slug: str) -> HttpResponse:
    """Redirect from an address that an article had once; to whom it is hidden, it is as if it had never been."""
    old = get_object_or_404(OldSlug.objects.select_related("article__author"), slug=slug)
    if not old.article.is_public() and old.article.author != request.user:
        raise Http404
    query = request.META.get("QUERY_STRING", "")
    return redirect(
        f"{old.article.get_absolute_url()}{'?' if query else ''}{query}", permanent=old.article.is_public()
    )


def _render_list(
    request: HttpRequest, template: str, articles: ArticleQuerySet, **context: Any
) -> HttpResponse:
    """Render a page of articles with the echo of each."""
    # Keys alone, as an index has them in order: what lies before a page of them need not be read.
    keys = articles.values_list("pk", flat=True)
    page = Paginator(keys, ARTICLES_PER_PAGE).get_page(request.GET.get("page"))
    listed = Article.objects.read(page.object_list)
    echoes = listen(listed)
    entries = [(article, echoes.get(article.pk, Echo())) for article in listed]
    return render(request, template, {"page": page, "entries": entries, "now": timezone.now(), **context})
