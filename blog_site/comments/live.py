"""What has changed among an article's comments since a page was made, for the script that keeps it up to date.

The page carries a cursor (`data-cursor` of `.comment-list`); `?since=` takes it and the answer brings the next.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any, Final

from django.db.models import Prefetch
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotModified, JsonResponse
from django.shortcuts import get_object_or_404
from django.template.loader import render_to_string
from django.utils import timezone
from django.views.decorators.http import require_safe

from blog_site.articles.echo import Echo, listen
from blog_site.articles.hot import page_versions
from blog_site.articles.models import Article

from .cursors import OVERLAP, read_cursor, write_cursor
from .models import Comment, Prediction, Removal
from .pages import may_write, reader_of
from .threads import Node, Reader, listed, node_of, with_likes

MOST: Final = 100  # comments in an answer; a page that is further behind asks again at once


@require_safe
def changes(request: HttpRequest, slug: str) -> HttpResponse:
    """Answer `{"cursor", "comments": [{"id", "parent", "html"}], "gone": [ids], "counts"}`, or 304.

    Repeating a change does no harm: what is on the page is replaced by the same. Without `since`, only the cursor
    and the counts.
    """
    article = get_object_or_404(Article.objects.select_related("category"), slug=slug)
    if not article.is_public() and article.author_id != request.user.pk:
        raise Http404
    reader = reader_of(request)
    since = read_cursor(request.GET.get("since", ""))
    tag = _entity_tag(article, request, reader)
    if request.headers.get("If-None-Match") == tag:
        response: HttpResponse = HttpResponseNotModified()
    else:
        response = JsonResponse(_answer(article, request, reader, since))
    response["ETag"] = tag
    response["Cache-Control"] = "private, no-cache"
    response["Vary"] = "Cookie, Accept-Language"
    return response


def _answer(article: Article, request: HttpRequest, reader: Reader, since: datetime | None) -> dict[str, Any]:
    changed = _changed(article, reader, since)
    more = len(changed) > MOST
    gone = _gone(article, reader, since)
    if more:
        reached = changed[MOST - 1].changed_at
    elif changed or gone or since is None:
        reached = timezone.now() - OVERLAP
    else:
        reached = since  # the same question next time, so that "nothing changed" is a short answer
    parents_first = sorted(changed[:MOST], key=lambda comment: comment.pk)
    return {
        "cursor": write_cursor(reached),
        "more": more,
        "comments": [describe_comment(comment, article, request, reader) for comment in parents_first],
        "gone": gone,
        "counts": _counts(article),
    }


def _changed(article: Article, reader: Reader, since: datetime | None) -> list[Comment]:
    if since is None:
        return []
    shown = Comment.objects.filter(article=article, changed_at__gt=since).filter(listed(reader))
    newest_first = Prediction.objects.order_by("-id").defer("probabilities")
    rows = with_likes(shown.select_related("author"), reader).prefetch_related(
        Prefetch("predictions", newest_first, to_attr="predictions_newest_first")
    )
    return list(rows.order_by("changed_at", "id")[: MOST + 1])


def _gone(article: Article, reader: Reader, since: datetime | None) -> list[int]:
    """What a page may still show and must not: ids that others could see before, and cannot now."""
    if since is None:
        return []
    removed = Removal.objects.filter(article=article, at__gt=since).values_list("comment_id", flat=True)
    back = (
        Comment.objects.filter(pk__in=removed.order_by()).filter(listed(reader)).values_list("pk", flat=True)
    )
    return sorted(set(removed) - set(back))


def describe_comment(
    comment: Comment, article: Article, request: HttpRequest, reader: Reader
) -> dict[str, Any]:
    """One comment as a page puts it in its place; its predictions and whether the reader likes it are fetched."""
    return {
        "id": comment.pk,
        "parent": comment.parent_id,
        "html": render_comment(node_of(comment, reader=reader), article, request, reader),
    }


def render_comment(node: Node, article: Article, request: HttpRequest, reader: Reader) -> str:
    """One comment's HTML, as the page has it, without its replies."""
    context = {
        "node": node,
        "article": article,
        "may_write": may_write(article, reader),
        "page_address": article.get_absolute_url(),
    }
    return render_to_string("comments/_comment.html", context, request)


def _counts(article: Article) -> dict[str, int]:
    echo = listen([article]).get(article.pk, Echo())
    return {
        "comments": echo.comments,
        "positive": echo.positive,
        "neutral": echo.neutral,
        "negative": echo.negative,
        "waiting": echo.waiting,
    }


def _entity_tag(article: Article, request: HttpRequest, reader: Reader) -> str:
    """Name what the answer depends on: the state of the comments, the reader, the language and the question."""
    parts = [
        str(page_versions([article.pk]).get(article.pk, "untouched")),
        str(reader.user.pk),
        ".".join(map(str, reader.guests_own)),
        str(getattr(request, "LANGUAGE_CODE", "")),
        request.GET.get("since", ""),
    ]
    return f'"{hashlib.sha256("|".join(parts).encode()).hexdigest()[:32]}"'
