"""Days, changes, shares and where marks lie: arithmetic."""

from __future__ import annotations

from datetime import date

import pytest

from blog_site.articles.echo import Echo
from blog_site.dashboard.figures import (
    ArticleFigures,
    Period,
    Span,
    change,
    fold,
    points,
    rank,
    share_of,
    spread_over,
    sum_up,
)
from blog_site.dashboard.pictures import draw_sentiments, draw_views, round_up

pytestmark = pytest.mark.once
LAST = date(2026, 3, 3)


def echo(positive: int = 0, neutral: int = 0, negative: int = 0, waiting: int = 0) -> Echo:
    return Echo(
        positive + neutral + negative + waiting, negative=negative, neutral=neutral, positive=positive
    )


def test_a_period_ends_with_its_last_day_and_the_one_before_ends_where_it_begins() -> None:
    week = Period(7, LAST)
    assert (week.first, week.before.first, week.before.last) == (
        date(2026, 2, 25),
        date(2026, 2, 18),
        date(2026, 2, 24),
    )
    assert len(list(week)) == 7
    assert list(week)[-1] == LAST


def test_days_on_which_nothing_came_are_there_with_nothing() -> None:
    spans = spread_over(Period(3, LAST), {date(2026, 3, 2): 5, date(2026, 2, 1): 9}, {LAST: echo(negative=1)})
    assert [span.views for span in spans] == [0, 5, 0]
    assert [span.echo.comments for span in spans] == [0, 0, 1]
    assert (sum_up(spans).views, sum_up(spans).negative_share) == (5, 1.0)


def test_weeks_are_counted_from_the_end_and_lose_nothing() -> None:
    days = spread_over(Period(10, LAST), dict.fromkeys(Period(10, LAST), 2), {LAST: echo(positive=3)})
    weeks = fold(days, 7)
    assert [(week.first, week.last, week.views) for week in weeks] == [
        (date(2026, 2, 22), date(2026, 2, 24), 6),
        (date(2026, 2, 25), LAST, 14),
    ]
    assert weeks[-1].echo.positive == 3


def test_growth_from_nothing_is_no_number() -> None:
    assert change(5, 0) is None
    assert change(5, 4) == 0.25
    assert change(0, 4) == -1
    assert share_of(0, 0) is None
    assert points(0.5, 0.25) == 25
    assert points(None, 0.25) is None


def test_articles_of_few_judged_comments_come_last_by_negative_share() -> None:
    one_angry = ArticleFigures(1, 500, echo(negative=1))
    mixed = ArticleFigures(2, 10, echo(positive=2, negative=2))
    liked = ArticleFigures(3, 90, echo(positive=9, negative=1))

    def ids(order: str) -> list[int]:
        return [figures.article_id for figures in rank([one_angry, mixed, liked], order)]

    assert ids("negative") == [2, 3, 1]
    assert ids("comments") == [3, 2, 1]
    assert ids("views") == [1, 3, 2]


def test_parts_of_a_bar_stand_on_each_other_and_reach_the_height_of_their_sum() -> None:
    picture = draw_sentiments(
        [Span(LAST, LAST, 0, echo(positive=4, negative=2, waiting=2)), Span(LAST, LAST, 0, echo())]
    )
    assert picture.top == 8
    assert [(part.kind, part.y, part.height) for part in picture.columns[0].parts] == [
        ("negative", 75.0, 25.0),
        ("positive", 25.0, 50.0),
        ("waiting", 0.0, 25.0),
    ]
    assert picture.columns[1].parts == ()
    assert picture.columns[1].slot == picture.columns[0].slot + picture.columns[0].slot_width


def test_a_line_goes_through_the_middle_of_each_day() -> None:
    picture = draw_views([Span(LAST, LAST, views, echo()) for views in (0, 10, 5)])
    assert picture.line == "5.0,100.0 15.0,0.0 25.0,50.0"
    assert picture.area.startswith("5.0,100 ")
    assert picture.width == 30
    assert len(picture.ticks) == 3


@pytest.mark.parametrize(
    ("value", "top"),
    [(0, 2), (2, 2), (3, 4), (11, 12), (21, 30), (100, 100), (101, 120), (243, 300), (99_999, 100_000)],
)
def test_a_scale_ends_with_a_number_that_can_be_halved(value: int, top: int) -> None:
    assert round_up(value) == top
    assert top % 2 == 0
