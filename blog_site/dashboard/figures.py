"""What a writer's figures are: days and what came on them, sums, changes, shares. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final, Literal

from blog_site.articles.echo import Echo

PERIODS: Final = (7, 30, 90)  # days
DEFAULT_PERIOD: Final = 30
WAITING: Final = "waiting"  # of a comment that nobody has judged yet
FEW: Final = 3  # of fewer judged comments a share says nothing

Order = Literal["comments", "negative", "views"]
ORDERS: Final[tuple[Order, ...]] = ("comments", "negative", "views")


@dataclass(frozen=True)
class Period:
    """So many days up to a last one, which belongs to it."""

    days: int
    last: date

    @property
    def first(self) -> date:
        return self.last - timedelta(days=self.days - 1)

    @property
    def before(self) -> Period:
        """As many days just before."""
        return Period(self.days, self.first - timedelta(days=1))

    def __iter__(self) -> Iterator[date]:
        return (self.first + timedelta(days=number) for number in range(self.days))


@dataclass(frozen=True)
class Span:
    """What came within one day, or within some that are shown as one."""

    first: date
    last: date
    views: int
    echo: Echo


@dataclass(frozen=True)
class Total:
    views: int
    echo: Echo

    @property
    def negative_share(self) -> float | None:
        return share_of(self.echo.negative, self.echo.scored)


@dataclass(frozen=True)
class ArticleFigures:
    article_id: int
    views: int
    echo: Echo

    @property
    def negative_share(self) -> float | None:
        return share_of(self.echo.negative, self.echo.scored)


def spread_over(period: Period, views: Mapping[date, int], echoes: Mapping[date, Echo]) -> list[Span]:
    """Give every day of a period, those on which nothing came too."""
    return [Span(day, day, views.get(day, 0), echoes.get(day, Echo())) for day in period]


def fold(spans: Sequence[Span], width: int) -> list[Span]:
    """Make one of each `width` spans, counted from the last, so that it is the first one that may be short."""
    start = len(spans) % width
    groups = [spans[:start], *(spans[at : at + width] for at in range(start, len(spans), width))]
    return [_join(group) for group in groups if group]


def _join(spans: Sequence[Span]) -> Span:
    total = sum_up(spans)
    return Span(spans[0].first, spans[-1].last, total.views, total.echo)


def sum_up(spans: Iterable[Span]) -> Total:
    each = list(spans)
    return Total(sum(span.views for span in each), add_echoes(span.echo for span in each))


def add_echoes(echoes: Iterable[Echo]) -> Echo:
    each = list(echoes)
    return Echo(
        comments=sum(echo.comments for echo in each),
        negative=sum(echo.negative for echo in each),
        neutral=sum(echo.neutral for echo in each),
        positive=sum(echo.positive for echo in each),
    )


def make_echo(counts: Mapping[str, int]) -> Echo:
    """Make an echo of how many comments have each sentiment, those that wait included."""
    return Echo(
        comments=sum(counts.values()),
        negative=counts.get("negative", 0),
        neutral=counts.get("neutral", 0),
        positive=counts.get("positive", 0),
    )


def share_of(part: int, whole: int) -> float | None:
    """Give part / whole; None of nothing."""
    return part / whole if whole else None


def change(now: int, before: int) -> float | None:
    """Give the growth as a share of what was before, such as 0.25; None where nothing was."""
    return (now - before) / before if before else None


def points(now: float | None, before: float | None) -> float | None:
    """Give the difference of two shares in percentage points; None unless there are both."""
    return None if now is None or before is None else 100 * (now - before)


def rank(articles: Iterable[ArticleFigures], order: Order) -> list[ArticleFigures]:
    """Put articles in order; in the order of negative shares, those with few judged comments come last."""

    def key(figures: ArticleFigures) -> tuple[float, ...]:
        comments, views = figures.echo.comments, figures.views
        if order == "views":
            return views, comments, figures.article_id
        if order == "comments":
            return comments, views, figures.article_id
        enough = figures.echo.scored >= FEW
        return enough, figures.negative_share or 0.0, figures.echo.negative, comments, figures.article_id

    return sorted(articles, key=key, reverse=True)
