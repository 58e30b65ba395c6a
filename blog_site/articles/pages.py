"""What an article's page shows above its comments, which `comments.pages` adds."""

from __future__ import annotations

import json
from typing import Any

from django.http import HttpRequest
from django.urls import reverse
from django.utils.safestring import SafeString, mark_safe

from .models import Article


def article_context(article: Article, request: HttpRequest) -> dict[str, Any]:
    """Build the context of `articles/article.html`; the comments below come by a tag of their own."""
    return {
        "article": article,
        "reading_minutes": max(1, round(len(article.body_markdown) / 400)),
        "page_address": article.get_absolute_url(),
        "linked_data": describe_for_machines(article, request),
    }


# Within a script element nothing is an entity; JSON has its own way to write what could end one.
_SAFE_IN_SCRIPT = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"})


def describe_for_machines(article: Article, request: HttpRequest) -> SafeString:
    """An article as JSON-LD (schema.org/BlogPosting), safe to stand in a script element."""
    address = request.build_absolute_uri(article.get_absolute_url())
    author = request.build_absolute_uri(reverse("articles:author", args=[article.author.username]))
    document: dict[str, Any] = {
        "@context": "https://schema.org",
        "@type": "BlogPosting",
        "headline": article.title,
        "description": article.summary,
        "url": address,
        "mainEntityOfPage": address,
        "inLanguage": "zh-Hans",
        "articleSection": article.category.name,
        "keywords": [tag.name for tag in article.tags.all()],
        "author": {"@type": "Person", "name": str(article.author), "url": author},
        "datePublished": article.published_at and article.published_at.isoformat(),
        "dateModified": article.updated_at.isoformat(),
    }
    if article.cover:
        document["image"] = request.build_absolute_uri(article.cover.url)
    text = json.dumps(document, ensure_ascii=False).translate(_SAFE_IN_SCRIPT)
    return mark_safe(text)  # noqa: S308 - nothing in it can end the element


def comment_address(article: Article, comment_id: int) -> str:
    """The address at which a comment can be seen, among its neighbours."""
    return f"{article.get_absolute_url()}?comment={comment_id}#comment-{comment_id}"
