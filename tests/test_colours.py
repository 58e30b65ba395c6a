"""The colours of the style sheet can be read: WCAG 2.2 contrast, in the light and in the dark."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

STYLE_SHEET = Path(__file__).resolve().parents[1] / "static" / "css" / "site.css"
TEXT, SHAPE = 4.5, 3.0  # WCAG 2.2, 1.4.3 and 1.4.11

PAIRS = [
    *(
        (ink, ground, TEXT)
        for ink in ("ink", "ink-soft", "accent")
        for ground in ("paper", "surface", "sunken")
    ),
    ("on-accent", "accent", TEXT),
    ("on-accent", "accent-strong", TEXT),
    ("accent-strong", "accent-wash", TEXT),
    ("ink", "accent-wash", TEXT),
    ("ink-soft", "accent-wash", TEXT),
    ("wrong", "paper", TEXT),
    ("wrong", "surface", TEXT),
    ("ink", "negative-wash", TEXT),
    *((f"{label}", f"{label}-wash", TEXT) for label in ("positive", "neutral", "negative")),
    *(("ink", f"tint-{number}", TEXT) for number in range(6)),
    ("line-strong", "paper", SHAPE),  # the border says where a field is
    ("line-strong", "surface", SHAPE),
]


def colours(scheme: str) -> dict[str, str]:
    light, dark = re.findall(r":root \{(.*?)\}", STYLE_SHEET.read_text(encoding="utf-8"), re.DOTALL)
    named = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", light))
    return named if scheme == "light" else named | dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", dark))


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_fields_stand_out_from_their_ground(scheme: str) -> None:
    named = colours(scheme)

    too_faint = {
        f"{ink} on {ground}": round(contrast(named[ink], named[ground]), 2)
        for ink, ground, least in PAIRS
        if contrast(named[ink], named[ground]) < least
    }

    assert too_faint == {}


def test_black_on_white_has_the_contrast_the_standard_says() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
