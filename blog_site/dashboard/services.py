"""A writer's figures, put together in a fixed number of queries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from blog_site.articles.echo import Echo
from blog_site.articles.models import Article
from blog_site.users.models import User

from .figures import ArticleFigures, Order, Period, Span, Total, rank, spread_over, sum_up
from .received import received_comments, today, views_by_article, views_by_day

ARTICLES_SHOWN: Final = 10


@dataclass(frozen=True)
class ListedArticle:
    article: Article
    figures: ArticleFigures


@dataclass(frozen=True)
class Dashboard:
    """What came to a writer's articles within some days, and in total within as many before."""

    period: Period
    order: Order
    days: list[Span]
    now: Total
    before: Total
    articles: list[ListedArticle]
    articles_in_all: int  # on which anything came


def read_dashboard(writer: User, *, days: int, order: Order) -> Dashboard:
    """Read the figures of so many days up to today."""
    period = Period(days, today())
    earlier = period.before
    received = received_comments().from_readers_of(writer)
    views = views_by_day(writer, earlier.first, period.last)
    echoes = received.within(earlier.first, period.last).echoes_by_day()
    each_day = spread_over(period, views, echoes)
    ranked = _read_articles(writer, period, order)
    return Dashboard(
        period=period,
        order=order,
        days=each_day,
        now=sum_up(each_day),
        before=sum_up(spread_over(earlier, views, echoes)),
        articles=_with_articles(ranked[:ARTICLES_SHOWN]),
        articles_in_all=len(ranked),
    )


def _read_articles(writer: User, period: Period, order: Order) -> list[ArticleFigures]:
    views = views_by_article(writer, period)
    received = received_comments().from_readers_of(writer)
    echoes = received.within(period.first, period.last).echoes_by_article()
    figures = (
        ArticleFigures(pk, views.get(pk, 0), echoes.get(pk, Echo())) for pk in views.keys() | echoes.keys()
    )
    return rank(figures, order)


def _with_articles(ranked: list[ArticleFigures]) -> list[ListedArticle]:
    found = Article.objects.only("slug", "title", "status", "published_at").in_bulk(
        [figures.article_id for figures in ranked]
    )
    return [
        ListedArticle(found[figures.article_id], figures) for figures in ranked if figures.article_id in found
    ]
