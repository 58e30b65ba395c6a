"""Where each character of a normalized text stands in the text as it was written."""

from __future__ import annotations

import itertools
import unicodedata
from dataclasses import dataclass
from typing import Final

from ml.text import unify_text

Span = tuple[int, int]
"""Start and end in code points."""

_JOINER: Final = "\u200d"  # holds the parts of an emoji together
_CONTEXT: Final = (
    32  # characters before one that can change what becomes of it; bounds the work on hostile texts
)


@dataclass(frozen=True)
class AlignedText:
    """A text in its normalized form, and the part of the original that each character of it comes from."""

    normalized: str
    origins: tuple[Span, ...]  # as many as the normalized text has characters; ascending, equal or disjoint

    def original_span(self, start: int, end: int) -> Span:
        """Give the part of the original that a part of the normalized text, not an empty one, comes from."""
        return self.origins[start][0], self.origins[end - 1][1]


def align_text(text: str) -> AlignedText:
    """Normalize a text and remember where everything was.

    The text is cut where normalization does not look across: a letter stays with its marks, an emoji with what is
    joined to it, and what shows nothing with what stands before it. Where normalization does look across after all
    (no such text is known), the whole text is one part, so that a place is vague but never wrong.
    """
    parts = _cut_apart(text)
    unified = unify_text(text)
    origins = [(start, end) for start, end in parts for _ in unify_text(text[start:end])]
    if len(origins) != len(unified):
        origins = [(0, len(text))] * len(unified)
    return _collapse_whitespace(unified, origins)


def _cut_apart(text: str) -> list[Span]:
    """Cut a text into parts that are normalized independently of each other."""
    starts: list[int] = []
    for place, character in enumerate(text):
        if not starts or not _belongs_to_previous(text[max(starts[-1], place - _CONTEXT) : place], character):
            starts.append(place)
    return list(itertools.pairwise([*starts, len(text)]))


def _belongs_to_previous(previous: str, character: str) -> bool:
    if "\u4e00" <= character <= "\u9fff" or " " <= character <= "~":
        return previous[-1] == _JOINER  # nothing else draws these to what stands before them
    form = unify_text(character)
    return (
        not form
        or previous[-1] == _JOINER
        or unicodedata.category(character).startswith("M")
        or "\U0001f3fb" <= character <= "\U0001f3ff"  # the colour of a skin
        or (_is_flag_half(character) and len(previous) == 1 and _is_flag_half(previous))
        or unify_text(previous + character) != unify_text(previous) + form
    )


def _is_flag_half(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _collapse_whitespace(unified: str, origins: list[Span]) -> AlignedText:
    kept: list[int] = []
    for place, character in enumerate(unified):
        if not character.isspace() or (kept and not unified[kept[-1]].isspace()):
            kept.append(place)
    if kept and unified[kept[-1]].isspace():
        kept.pop()
    normalized = "".join(" " if unified[place].isspace() else unified[place] for place in kept)
    return AlignedText(normalized, tuple(origins[place] for place in kept))
