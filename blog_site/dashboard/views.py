"""The page on which writers see how their articles are read and answered."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext_lazy as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from blog_site.articles.models import Article

from .criticism import find_criticism
from .figures import DEFAULT_PERIOD, ORDERS, PERIODS, change, fold, points
from .pictures import draw_comments, draw_sentiments, draw_views
from .services import Dashboard, read_dashboard

ORDER_NAMES = {"comments": _("评论最多"), "negative": _("负面占比最高"), "views": _("浏览最多")}
WEEK = 7
DAYS_SHOWN_SINGLY = 30  # beyond, the bars of sentiments are of weeks


@login_required
@never_cache
@require_safe
def dashboard(request: HttpRequest) -> HttpResponse:
    asked = request.GET
    days = {str(period): period for period in PERIODS}.get(asked.get("days", ""), DEFAULT_PERIOD)
    order = {name: name for name in ORDERS}.get(asked.get("order", ""), ORDERS[0])
    figures = read_dashboard(request.user, days=days, order=order)
    by_week = days > DAYS_SHOWN_SINGLY
    context = {
        "figures": figures,
        "tiles": _changes(figures),
        "views_picture": draw_views(figures.days),
        "comments_picture": draw_comments(figures.days),
        "sentiments_picture": draw_sentiments(fold(figures.days, WEEK) if by_week else figures.days),
        "by_week": by_week,
        "nothing_yet": not figures.articles
        and not Article.objects.published().filter(author=request.user).exists(),
        "criticism": find_criticism(request.user, after=asked.get("after", "")),
        "periods": PERIODS,
        "orders": [(name, ORDER_NAMES[name]) for name in ORDERS],
    }
    return render(request, "dashboard/dashboard.html", context)


def _changes(figures: Dashboard) -> dict[str, float | None]:
    """How the three numbers above have changed, in per cent or percentage points; None where that says nothing."""
    now, before = figures.now, figures.before
    return {
        "views": _percent(change(now.views, before.views)),
        "comments": _percent(change(now.echo.comments, before.echo.comments)),
        "negative": points(now.negative_share, before.negative_share),
    }


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
