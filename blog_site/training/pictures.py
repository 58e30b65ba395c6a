"""A run's curves as SVG, drawn on the server so that the page needs no chart library and works without JavaScript."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 460, 200
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 10, 26  # margins, for the ticks' words
MAX_POINTS = 400  # more would be finer than a pixel
SMOOTHING = 0.9


@dataclass(frozen=True)
class Tick:
    position: float
    words: str


@dataclass(frozen=True, kw_only=True)
class Box:
    """A picture of WIDTH × HEIGHT with its two axes."""

    title: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    bottom: int = HEIGHT - BOTTOM
    right: int = WIDTH - RIGHT


@dataclass(frozen=True, kw_only=True)
class Curve(Box):
    """What the template draws: polylines as SVG `points`."""

    raw: str
    smoothed: str
    measured: tuple[tuple[float, float], ...]  # dots
    last: float | None


def make_curve(
    title: str,
    values: Sequence[float],
    *,
    planned: int,
    top: float | None = None,
    measured: Sequence[tuple[int, float]] = (),
) -> Curve:
    """A curve of one value per round. `planned` rounds fill the width, so that the line grows to the right."""
    highest = top if top is not None else max(values, default=1.0)
    rounds = max(planned, len(values), 1)

    def place(number: float, value: float) -> tuple[float, float]:
        x = LEFT + (number - 1) / max(rounds - 1, 1) * (WIDTH - LEFT - RIGHT)
        y = TOP + (1 - value / highest if highest else 0) * (HEIGHT - TOP - BOTTOM)
        return round(x, 1), round(y, 1)

    def line(series: Sequence[float]) -> str:
        step = max(1, len(series) // MAX_POINTS)
        points = (place(index + 1, series[index]) for index in range(0, len(series), step))
        return " ".join(f"{x},{y}" for x, y in points)

    smoothed = smooth(values)
    return Curve(
        title=title,
        raw=line(values),
        smoothed=line(smoothed),
        measured=tuple(place(number, value) for number, value in measured),
        x_ticks=tuple(
            Tick(place(number, 0)[0], str(number)) for number in sorted({1, (rounds + 1) // 2, rounds})
        ),
        y_ticks=tuple(Tick(place(1, highest * part)[1], f"{highest * part:.2f}") for part in (0, 0.5, 1)),
        last=smoothed[-1] if smoothed else None,
    )


@dataclass(frozen=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    series: int
    words: str  # its value


@dataclass(frozen=True, kw_only=True)
class Bars(Box):
    """Groups of bars beside each other, of shares between 0 and 1."""

    series: tuple[str, ...]
    bars: tuple[Bar, ...]


def make_bars(title: str, series: Sequence[str], groups: Sequence[tuple[str, Sequence[float]]]) -> Bars:
    """Bars of a value for each of the series in each group, (name, values)."""
    room = (WIDTH - LEFT - RIGHT) / max(len(groups), 1)
    width = min(0.8 * room / max(len(series), 1), 40.0)
    tall = HEIGHT - TOP - BOTTOM

    def middle(group: int) -> float:
        return LEFT + (group + 0.5) * room

    return Bars(
        title=title,
        series=tuple(series),
        bars=tuple(
            Bar(
                x=round(middle(group) + (place - len(values) / 2) * width, 1),
                y=round(TOP + (1 - value) * tall, 1),
                width=round(0.9 * width, 1),
                height=round(value * tall, 1),
                series=place,
                words=f"{name} {series[place]} {value:.3f}",
            )
            for group, (name, values) in enumerate(groups)
            for place, value in enumerate(values)
        ),
        x_ticks=tuple(Tick(round(middle(group), 1), name) for group, (name, _values) in enumerate(groups)),
        y_ticks=tuple(Tick(TOP + (1 - part) * tall, f"{part:.2f}") for part in (0, 0.5, 1)),
    )


def smooth(values: Sequence[float]) -> list[float]:
    """An exponential moving average that starts at the first value."""
    smoothed: list[float] = []
    for value in values:
        smoothed.append(value if not smoothed else SMOOTHING * smoothed[-1] + (1 - SMOOTHING) * value)
    return smoothed
