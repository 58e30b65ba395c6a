"""Cover pictures for the demo's articles, drawn here: the repository holds no photographs."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Final

from PIL import Image, ImageDraw

SIZE: Final = (1280, 720)  # pixels
_SCALE: Final = 2  # drawn so much larger, which smooths every edge once it is made smaller

Colour = tuple[int, int, int]
Motif = Callable[[ImageDraw.ImageDraw, "Palette", Random], None]


@dataclass(frozen=True)
class Palette:
    """From the dark colour to the light one."""

    dark: Colour
    light: Colour

    def between(self, share: float) -> Colour:
        """The colour at this share of the way; 0 is dark, 1 light."""
        red, green, blue = (round(a + (b - a) * share) for a, b in zip(self.dark, self.light, strict=True))
        return red, green, blue


def draw_cover(motif: str, dark: str, light: str, seed: str) -> bytes:
    """Draw a picture as PNG; the same words give the same one. Colours are written as #rrggbb."""
    palette = Palette(_parse_colour(dark), _parse_colour(light))
    width, height = SIZE[0] * _SCALE, SIZE[1] * _SCALE
    picture = Image.new("RGB", (width, height), palette.between(0.12))
    MOTIFS[motif](ImageDraw.Draw(picture), palette, Random(seed))
    file = io.BytesIO()
    picture.resize(SIZE, Image.Resampling.LANCZOS).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _parse_colour(text: str) -> Colour:
    red, green, blue = bytes.fromhex(text.removeprefix("#"))
    return red, green, blue


def _draw_rings(draw: ImageDraw.ImageDraw, palette: Palette, random: Random) -> None:
    """An echo: rings that widen and fade around a place a little off the middle."""
    width, height = SIZE[0] * _SCALE, SIZE[1] * _SCALE
    x, y = width * random.uniform(0.55, 0.75), height * random.uniform(0.45, 0.65)
    rings = 11
    for ring in range(rings, 0, -1):
        radius = height * 0.11 * ring
        draw.ellipse(
            (x - radius, y - radius, x + radius, y + radius),
            palette.between(0.14 + 0.62 * (1 - ring / rings) ** 1.6),
        )
    core = height * 0.055
    draw.ellipse((x - core, y - core, x + core, y + core), palette.light)


def _draw_bars(draw: ImageDraw.ImageDraw, palette: Palette, random: Random) -> None:
    """A sound: bars about a middle line, louder here and softer there."""
    width, height = SIZE[0] * _SCALE, SIZE[1] * _SCALE
    bars = 34
    step = width / (bars + 2)
    phase = random.uniform(0, math.tau)
    for bar in range(bars):
        share = bar / bars
        loudness = 0.18 + 0.5 * abs(math.sin(share * 2.4 * math.pi + phase)) * random.uniform(0.55, 1)
        left, half = step * (bar + 1.2), height * loudness / 2
        box = (left, height / 2 - half, left + step * 0.6, height / 2 + half)
        draw.rounded_rectangle(box, step * 0.3, palette.between(0.3 + 0.6 * loudness))


def _draw_hills(draw: ImageDraw.ImageDraw, palette: Palette, random: Random) -> None:
    """A land at evening: a sun, and ranges that darken towards whoever looks."""
    width, height = SIZE[0] * _SCALE, SIZE[1] * _SCALE
    draw.rectangle((0, 0, width, height), palette.between(0.82))
    x, y, radius = width * random.uniform(0.6, 0.8), height * 0.34, height * 0.13
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), palette.between(1))
    ranges = 5
    for number in range(ranges):
        base = height * (0.45 + 0.13 * number)
        waves = [(random.uniform(0.6, 2.4), random.uniform(0, math.tau)) for _ in range(3)]
        line = [
            (px, base - height * 0.05 * sum(math.sin(f * math.tau * px / width + p) for f, p in waves))
            for px in range(0, width + 1, 8)
        ]
        draw.polygon([(0, height), *line, (width, height)], palette.between(0.62 - 0.14 * number))


MOTIFS: Final[Mapping[str, Motif]] = {"bars": _draw_bars, "hills": _draw_hills, "rings": _draw_rings}
