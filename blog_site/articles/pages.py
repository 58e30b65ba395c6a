"""What an article's page shows, for the two views that render it: reading, and a comment that was refused."""

from __future__ import annotations

import json
from typing import Any

from django.conf import settings
from django.core.paginator import Page, Paginator
from django.forms import BaseForm
from django.http import HttpRequest
from django.urls import reverse
from django.utils.safestring import SafeString, mark_safe

from .echo import Echo, listen
from .models import Article

COMMENTS_PER_PAGE = 50
KEPT_COMMENT = "kept_comment"  # key in the session


def article_context(
    article: Article, request: HttpRequest, comment_form: BaseForm | None = None
) -> dict[str, Any]:
    """Build the context of `articles/article.html`.

    `comment_form` is a bound form whose text and errors are to be shown again. Comments stand oldest first;
    `?comment=<id>` shows the page that comment is on, `?page=<number>` any page, and a refused comment the last.
    """
    return {
        "article": article,
        "comments": _comments_page(
            article, request, refused=comment_form is not None and comment_form.is_bound
        ),
        "echo": listen([article]).get(article.pk, Echo()),
        "comment_form": comment_form,
        "comment_text": comment_form["text"].value() if comment_form else _kept_comment(article, request),
        "comment_max_characters": settings.COMMENT_MAX_CHARACTERS,
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
    document = {
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
    text = json.dumps(document, ensure_ascii=False).translate(_SAFE_IN_SCRIPT)
    return mark_safe(text)  # noqa: S308 - nothing in it can end the element


def keep_comment(request: HttpRequest, article: Article, text: str) -> None:
    """Keep a comment of somebody whose session has ended until they have signed in and come back to the article."""
    request.session[KEPT_COMMENT] = {"article": article.pk, "text": text[: settings.COMMENT_MAX_CHARACTERS]}


def _kept_comment(article: Article, request: HttpRequest) -> str:
    """Give back what was kept, once, to somebody who can now post it."""
    kept = request.session.get(KEPT_COMMENT)
    if not request.user.is_authenticated or not kept or kept["article"] != article.pk:
        return ""
    del request.session[KEPT_COMMENT]
    return str(kept["text"])


def comment_address(article: Article, comment_id: int) -> str:
    """The address at which a comment can be seen, on whichever page of the comments it is."""
    return f"{article.get_absolute_url()}?comment={comment_id}#comment-{comment_id}"


def _comments_page(article: Article, request: HttpRequest, *, refused: bool) -> Page[Any]:
    comments = article.comments.visible().with_predictions()
    paginator = Paginator(comments, COMMENTS_PER_PAGE)
    asked = request.GET.get("comment", "")
    if refused:
        return paginator.get_page(paginator.num_pages)
    if asked.isascii() and asked.isdigit():
        return paginator.get_page(_page_number(article, int(asked)))
    return paginator.get_page(request.GET.get("page", 1))


def _page_number(article: Article, comment_id: int) -> int:
    """Say on which page a comment is; 1 when the article has no such visible comment."""
    comments = article.comments.visible()
    sought = comments.filter(pk=min(comment_id, 2**63 - 1)).first()
    if sought is None:
        return 1
    earlier = comments.filter(created_at__lt=sought.created_at).count()
    same_moment = comments.filter(created_at=sought.created_at, pk__lt=sought.pk).count()
    return (earlier + same_moment) // COMMENTS_PER_PAGE + 1
