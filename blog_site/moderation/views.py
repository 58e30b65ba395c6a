"""The queue's pages. They are the admin's: `admin.CommentAdmin` gives them their addresses, behind its door."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse, QueryDict
from django.shortcuts import render
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_GET, require_POST

from blog_site.comments.models import Comment
from blog_site.labels.services import best_label

from .forms import QueueFilters
from .history import standings_of
from .queue import PAGE_SIZE, Page, Tab, comments_in, count_waiting, page_of
from .services import Verdict, may_pass, pass_verdict

MAX_PAGE = 1_000


@require_GET
def show_queue(request: HttpRequest) -> HttpResponse:
    if not request.user.has_perm("comments.view_comment"):
        raise PermissionDenied
    tab, filters, number = _read(request.GET)
    narrowing = filters.narrowing()
    page = page_of(comments_in(tab, narrowing), number)
    context = {
        **admin.site.each_context(request),
        **verdicts_for(request),
        "title": _("审核队列"),
        "tabs": _describe_tabs(tab),
        "tab": tab,
        "filters": filters,
        "narrowed": bool(narrowing),
        "cards": describe_cards(page),
        "page": page,
        "query": request.GET.urlencode(),
        "next_query": _query_of(request.GET, page=number + 1),
        "previous_query": _query_of(request.GET, page=number - 1),
    }
    return render(request, "admin/moderation/queue.html", context)


@require_POST
def take_verdict(request: HttpRequest) -> HttpResponse:
    """Pass a verdict on one comment (`one=hide:5`), or on those ticked (`verdict=hide&id=5&id=6`)."""
    name, ids = _read_verdict(request.POST)
    if name not in Verdict.values:
        return HttpResponse(_("没有这样的处理方式"), status=HTTPStatus.BAD_REQUEST)
    verdict = Verdict(name)
    if not request.user.has_perm("comments.view_comment") or not may_pass(request.user, verdict):
        raise PermissionDenied
    reason = request.POST.get("reason", "").strip()
    count = pass_verdict(ids=ids, verdict=verdict, by=request.user, reason=reason)
    said = say_passed(verdict, count) if ids else _("先勾选评论，再选择处理方式")
    if request.headers.get("Accept") == "application/json":
        return JsonResponse({"said": said, "cards": _cards_after(request, ids)})
    messages.add_message(request, messages.SUCCESS if count else messages.WARNING, said)
    return HttpResponseRedirect(_way_back(request))


def verdicts_for(request: HttpRequest) -> dict[str, Any]:
    """Which verdicts somebody may pass, for the buttons."""
    return {
        "may_decide": may_pass(request.user, Verdict.APPROVE),
        "may_label": may_pass(request.user, Verdict.NEUTRAL),
    }


def say_passed(verdict: Verdict, count: int) -> str:
    said = ngettext("已处理 %(count)d 条评论：%(verdict)s", "已处理 %(count)d 条评论：%(verdict)s", count)
    return said % {"count": count, "verdict": verdict.label}


def _read(query: QueryDict) -> tuple[Tab, QueueFilters, int]:
    """What the queue's address says; what it says wrongly counts as not said."""
    tab = Tab(query["tab"]) if query.get("tab") in Tab.values else Tab.PENDING
    page = query.get("page", "")
    number = min(int(page), MAX_PAGE) if page.isascii() and page.isdecimal() and len(page) < 6 else 1
    return tab, QueueFilters(query), max(number, 1)


def _read_verdict(form: QueryDict) -> tuple[str, list[int]]:
    name, _colon, one = form.get("one", "").partition(":")
    if name:
        return name, _numbers([one])
    return form.get("verdict", ""), _numbers(form.getlist("id"))[:PAGE_SIZE]


def _numbers(words: list[str]) -> list[int]:
    return [int(word) for word in words if word.isascii() and word.isdecimal() and len(word) < 19]


def _query_of(query: QueryDict, *, page: int) -> str:
    changed = query.copy()
    changed["page"] = str(page)
    return changed.urlencode()


def _describe_tabs(current: Tab) -> list[dict[str, Any]]:
    waiting = count_waiting()
    return [{"tab": tab, "count": waiting.get(tab), "current": tab == current} for tab in Tab]


def describe_cards(page: Page) -> list[dict[str, Any]]:
    """What `_card.html` shows, of each comment of a page."""
    standings = standings_of({comment.author_id for comment in page.comments if comment.author_id})
    return [
        {
            "comment": comment,
            "prediction": comment.current_prediction(),
            "label": best_label(comment.present_labels),
            "standing": standings.get(comment.author_id or 0),
            "reports": comment.open_reports,
            "held": _why_held(comment),
        }
        for comment in page.comments
    ]


def _why_held(comment: Comment) -> str:
    """What kept it back: the newest decision, where that was a rule's."""
    newest = max(comment.decisions.all(), key=lambda decision: decision.pk, default=None)
    return newest.reason_in_words() if newest and newest.by_id is None else ""


def _cards_after(request: HttpRequest, ids: list[int]) -> dict[int, str | None]:
    """The cards of comments as they are after a verdict; none for what is not in this queue any more."""
    tab, filters, _number = _read(QueryDict(request.POST.get("query", "")))
    page = page_of(comments_in(tab, filters.narrowing()).filter(pk__in=ids), 1)
    cards = {card["comment"].pk: card for card in describe_cards(page)}
    context = verdicts_for(request)
    return {
        pk: render_to_string("admin/moderation/_card.html", {**context, "card": cards[pk]}, request)
        if pk in cards
        else None
        for pk in ids
    }


def _way_back(request: HttpRequest) -> str:
    """Where the verdict was passed: the queue as it was, or a comment's page."""
    back = request.POST.get("back", "")
    if back and url_has_allowed_host_and_scheme(back, {request.get_host()}, request.is_secure()):
        return back
    query = QueryDict(request.POST.get("query", "")).urlencode()
    return f"{reverse('admin:moderation_queue')}?{query}" if query else reverse("admin:moderation_queue")
