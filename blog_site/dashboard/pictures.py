"""Where the marks of a picture lie. Pure arithmetic.

A picture is as wide as the page and so high as its style sheet says: its units are stretched, as bars and lines may be.
Words and numbers stand beside it, not in it, and stay as large as all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .figures import WAITING, Span

SLOT: Final = 10.0  # width of one column with the room around it
BAR: Final = 0.68  # of a slot
HEIGHT: Final = 100.0
STACKED: Final = (
    "negative",
    "neutral",
    "positive",
    WAITING,
)  # from the ground up: what one watches stands on it


@dataclass(frozen=True)
class Part:
    kind: str
    y: float
    height: float


@dataclass(frozen=True)
class Column:
    """What is shown of a span; `slot` is where its room begins, which answers the pointer from top to bottom."""

    span: Span
    slot: float
    x: float
    width: float
    parts: tuple[Part, ...]

    @property
    def slot_width(self) -> float:
        return SLOT


@dataclass(frozen=True)
class Picture:
    width: float
    top: int  # the value at the upper edge
    columns: tuple[Column, ...]
    line: str = ""  # points of a polyline
    area: str = ""  # and of the polygon below it

    @property
    def height(self) -> float:
        return HEIGHT

    @property
    def middle(self) -> int:
        return self.top // 2

    @property
    def ticks(self) -> tuple[Column, ...]:
        """The columns that are named: the first, one amid, the last."""
        last = len(self.columns) - 1
        return tuple(self.columns[at] for at in sorted({0, last // 2, last})) if self.columns else ()


def draw_views(spans: Sequence[Span]) -> Picture:
    """A line of views with the ground below it washed."""
    top = round_up(max((span.views for span in spans), default=0))
    points = [
        (round((number + 0.5) * SLOT, 2), round(HEIGHT * (1 - span.views / top), 2))
        for number, span in enumerate(spans)
    ]
    line = " ".join(f"{x},{y}" for x, y in points)
    area = f"{points[0][0]},{HEIGHT:g} {line} {points[-1][0]},{HEIGHT:g}" if points else ""
    return Picture(len(spans) * SLOT, top, _columns(spans, [()] * len(spans)), line, area)


def draw_comments(spans: Sequence[Span]) -> Picture:
    """A bar of comments for each span."""
    top = round_up(max((span.echo.comments for span in spans), default=0))
    parts = [_stack([("comments", span.echo.comments)], top) for span in spans]
    return Picture(len(spans) * SLOT, top, _columns(spans, parts))


def draw_sentiments(spans: Sequence[Span]) -> Picture:
    """A bar for each span, of as many parts as its comments have sentiments."""
    top = round_up(max((span.echo.comments for span in spans), default=0))
    parts = [_stack([(kind, getattr(span.echo, kind)) for kind in STACKED], top) for span in spans]
    return Picture(len(spans) * SLOT, top, _columns(spans, parts))


def _columns(spans: Sequence[Span], parts: Sequence[tuple[Part, ...]]) -> tuple[Column, ...]:
    margin = SLOT * (1 - BAR) / 2
    return tuple(
        Column(span, number * SLOT, round(number * SLOT + margin, 2), SLOT * BAR, of_span)
        for number, (span, of_span) in enumerate(zip(spans, parts, strict=True))
    )


def _stack(counts: Sequence[tuple[str, int]], top: int) -> tuple[Part, ...]:
    """Put parts on each other; those of nothing are left out."""
    parts, below = [], 0
    for kind, count in counts:
        below += count
        if count:
            parts.append(Part(kind, round(HEIGHT * (1 - below / top), 2), round(HEIGHT * count / top, 2)))
    return tuple(parts)


def round_up(value: int) -> int:
    """Give the next number that ends a scale well; it is even, so that the middle has a whole one too."""
    for top in (2, 4, 6, 8, 10):
        if value <= top:
            return top
    scale = 1
    while True:
        for step in (12, 16, 20, 30, 40, 50, 60, 80, 100):
            if value <= step * scale:
                return step * scale
        scale *= 10
