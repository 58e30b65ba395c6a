"""Names and titles that people give, in the form in which they are stored."""

from __future__ import annotations

import re
import unicodedata

# Direction marks: on a page they would turn round what stands beside the name. No name needs one.
_DIRECTIONS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_LOOKS_BLANK = "\u115f\u1160\u3164\uffa0\u2800"  # letters and symbols by category, yet nothing is to be seen


def clean_name(raw: str) -> str:
    """One line without direction marks; empty where nothing of it would be seen."""
    name = " ".join(_DIRECTIONS.sub("", raw).split())
    return name if any(_is_seen(character) for character in name) else ""


def _is_seen(character: str) -> bool:
    return unicodedata.category(character)[0] in "LNPS" and character not in _LOOKS_BLANK
