from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ml.alignment import align_text
from ml.text import normalize_text

# Characters that normalization treats in a way of its own, more often than chance would bring them.
ODD = (
    "\u200b\u200d\ufe0f\u0301\u0327\u0345\u0307\ud800\u00ad 　\t\n\x85\x1cΣσςΑİıß½①㎏ﬁﷺＡａ，。´"
    "\u1100\u1161\u11a8각ᾳ👩❤🏽🇨🇳\U000e0041\u09c7\u09be"
)
TEXTS = st.text(st.one_of(st.sampled_from(ODD + "好味道很差ab 1"), st.characters()), max_size=40)


def origin_of(text: str, part: str) -> str:
    """What a part of the normalized text was in the original."""
    aligned = align_text(text)
    start = aligned.normalized.index(part)
    first, last = aligned.original_span(start, start + len(part))
    return text[first:last]


@given(TEXTS)
@example("ΑΣ'Β")
@example("a\u0327\u0301")
@example("\u200b\u0301")
@example(" \u00b4 \u00b4 ")
def test_the_aligned_text_is_the_normalized_one_and_every_character_has_its_place(text: str) -> None:
    aligned = align_text(text)
    assert aligned.normalized == normalize_text(text)
    assert len(aligned.origins) == len(aligned.normalized)
    assert all(0 <= start < end <= len(text) for start, end in aligned.origins)


@given(TEXTS)
def test_places_ascend_and_two_are_the_same_or_apart(text: str) -> None:
    origins = align_text(text).origins
    for (start, end), (next_start, next_end) in itertools.pairwise(origins):
        assert (start, end) == (next_start, next_end) or end <= next_start


@given(TEXTS)
def test_what_no_place_covers_shows_nothing(text: str) -> None:
    covered = set(align_text(text).origins)
    rest, place = [], 0
    for start, end in sorted(covered):
        rest.append(text[place:start])
        place = end
    assert normalize_text("".join([*rest, text[place:]])) == ""


@given(TEXTS)
def test_a_place_says_what_the_character_says(text: str) -> None:
    """Alone, the part of the original reads as it does in the text; Σ, which looks around, may end otherwise."""
    aligned = align_text(text)
    for origin in set(aligned.origins):
        said = "".join(
            character
            for character, at in zip(aligned.normalized, aligned.origins, strict=True)
            if at == origin
        )
        alone = normalize_text(text[origin[0] : origin[1]])
        assert alone.replace("ς", "σ").replace(" ", "") == said.replace("ς", "σ").replace(" ", "")


@pytest.mark.parametrize(
    ("text", "part", "original"),
    [
        ("很ＡＢＣ好", "abc", "ＡＢＣ"),
        ("重㎏吗", "kg", "㎏"),
        ("cafe\u0301 好", "é", "e\u0301"),
        ("真\u200b好　　吃", "真好", "真\u200b好"),
        ("真好　　吃", "好 吃", "好　　吃"),
        ("❤️好", "❤", "❤️"),
        ("👩\u200d👧好", "👩", "👩\u200d👧"),
        ("👍🏽好", "👍", "👍🏽"),
        ("🇨🇳🇯🇵", "🇯", "🇯🇵"),
        ("\ud800好", "好", "好"),
        ("각", "각", "\u1100\u1161\u11a8"),
    ],
)
def test_what_belongs_together_stays_together(text: str, part: str, original: str) -> None:
    if original == "\u1100\u1161\u11a8":
        text = f"好{original}好"
    assert origin_of(text, part) == original


@pytest.mark.parametrize(
    "text", ["Σ" * 10_000, "é" * 10_000, "，" * 10_000, "好\u200b" * 5_000, "\u1100\u1161" * 5_000]
)
def test_long_odd_texts_take_no_longer_than_their_length(text: str) -> None:
    started = time.process_time()
    align_text(text)
    assert time.process_time() - started < 2
