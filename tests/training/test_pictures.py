from __future__ import annotations

from itertools import pairwise

import pytest

from blog_site.training.pictures import (
    BOTTOM,
    HEIGHT,
    LEFT,
    MAX_POINTS,
    RIGHT,
    TOP,
    WIDTH,
    make_bars,
    make_curve,
    smooth,
)

pytestmark = pytest.mark.once


def points_of(line: str) -> list[tuple[float, float]]:
    return [tuple(map(float, point.split(","))) for point in line.split()]


def test_a_curve_stays_in_its_box_and_rises_with_its_values() -> None:
    curve = make_curve("准确率", [0.2, 0.5, 1.0], planned=3, top=1.0)
    points = points_of(curve.raw)

    assert points[0][0] == LEFT
    assert points[-1] == (WIDTH - RIGHT, TOP)
    assert all(LEFT <= x <= WIDTH - RIGHT and TOP <= y <= HEIGHT - BOTTOM for x, y in points)
    assert points[0][1] > points[1][1] > points[2][1], "SVG counts downwards"


def test_a_curve_grows_to_the_right_as_rounds_are_made() -> None:
    first = points_of(make_curve("损失", [1.0, 0.8], planned=100).raw)
    later = points_of(make_curve("损失", [1.0] * 50, planned=100).raw)

    assert first[-1][0] < LEFT + 10
    assert later[-1][0] == pytest.approx((LEFT + WIDTH - RIGHT) / 2, abs=5)


def test_a_curve_without_rounds_has_axes_only() -> None:
    curve = make_curve("损失", [], planned=0)

    assert (curve.raw, curve.smoothed, curve.last, curve.measured) == ("", "", None, ())
    assert [tick.words for tick in curve.y_ticks] == ["0.00", "0.50", "1.00"]


def test_values_that_are_all_zero_divide_by_nothing() -> None:
    assert points_of(make_curve("损失", [0.0, 0.0], planned=2).raw)[0] == (LEFT, TOP)


def test_a_long_run_is_drawn_with_a_bounded_number_of_points() -> None:
    assert len(points_of(make_curve("损失", [0.5] * 10_000, planned=10_000).raw)) <= 2 * MAX_POINTS


def test_measured_rounds_are_dots_at_their_round() -> None:
    curve = make_curve("准确率", [0.1] * 5, planned=5, top=1.0, measured=[(1, 0.5), (5, 1.0)])

    assert curve.measured == ((LEFT, round((TOP + HEIGHT - BOTTOM) / 2, 1)), (WIDTH - RIGHT, TOP))


def test_smoothing_begins_at_the_first_value_and_follows_slowly() -> None:
    assert smooth([]) == []
    assert smooth([1.0, 1.0, 1.0]) == pytest.approx([1.0, 1.0, 1.0])
    assert smooth([0.0, 1.0]) == pytest.approx([0.0, 0.1])


def test_bars_stand_on_the_ground_as_high_as_their_values_and_beside_each_other() -> None:
    bars = make_bars("各类别", ["精确率", "召回率"], [("负面", [0.5, 1.0]), ("正面", [0.0, 0.25])]).bars

    assert [bar.height / (HEIGHT - TOP - BOTTOM) for bar in bars] == pytest.approx(
        [0.5, 1.0, 0.0, 0.25], abs=0.01
    )
    assert all(bar.y + bar.height == pytest.approx(HEIGHT - BOTTOM, abs=0.2) for bar in bars)
    assert all(left.x + left.width <= right.x for left, right in pairwise(bars))
    assert bars[0].x >= LEFT
    assert bars[-1].x + bars[-1].width <= WIDTH - RIGHT
    assert bars[1].words == "负面 召回率 1.000"


def test_bars_of_nothing_are_axes_only() -> None:
    assert make_bars("各站点", ["准确率"], []).bars == ()
