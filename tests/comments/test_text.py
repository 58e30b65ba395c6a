from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blog_site.comments.text import CommentRejected, clean_comment_text
from ml.text import normalize_text


def test_a_text_is_kept_as_it_was_written_but_for_blanks_around_it() -> None:
    assert clean_comment_text("  \u3000豆浆 Doujiang，真  好喝！\n ") == "豆浆 Doujiang，真  好喝！"


@pytest.mark.parametrize("ending", ["\r\n", "\r", "\x85", "\u2028", "\u2029"])
def test_every_kind_of_line_end_becomes_a_newline(ending: str) -> None:
    assert clean_comment_text(f"一{ending}二") == "一\n二"


@pytest.mark.parametrize("text", ["😀", "👩‍👩‍👧‍👦❤️", "🇨🇳", "1️⃣", "!", "\U0001fae8"])
def test_a_single_visible_character_is_a_comment(text: str) -> None:
    assert clean_comment_text(text) == text


@pytest.mark.parametrize(
    "text",
    ["", " \t\r\n", "\u3000", "\u200b\u200d\ufeff", "\ufe0f", "\xad", "\u115f\u3164\u2800", "\U000e0020"],
)
def test_a_text_that_shows_nothing_is_refused(text: str) -> None:
    with pytest.raises(CommentRejected) as rejection:
        clean_comment_text(text)
    assert rejection.value.code == "blank"


def test_the_longest_comment_has_ten_thousand_characters() -> None:
    assert clean_comment_text("好" * 10_000) == "好" * 10_000


def test_a_longer_comment_is_refused_with_its_length_and_the_limit() -> None:
    with pytest.raises(CommentRejected) as rejection:
        clean_comment_text("好" * 10_001)
    assert rejection.value.code == "too_long"
    assert "10001" in rejection.value.message
    assert "10000" in rejection.value.message


def test_blanks_around_a_comment_do_not_count() -> None:
    assert len(clean_comment_text(" " * 50 + "好" * 10_000 + "\r\n" * 50)) == 10_000


@pytest.mark.parametrize("character", ["\x00", "\x07", "\x1b", "\x7f", "\x9b"])
def test_control_characters_are_refused_by_their_number(character: str) -> None:
    with pytest.raises(CommentRejected) as rejection:
        clean_comment_text(f"好{character}吃")
    assert f"U+{ord(character):04X}" in rejection.value.message


def test_tabs_and_newlines_are_text() -> None:
    assert clean_comment_text("a\tb\nc") == "a\tb\nc"


@pytest.mark.parametrize("text", ["\ud800", "好\udfff吃", "\udc00\ud800"])
def test_lone_surrogates_are_refused(text: str) -> None:
    with pytest.raises(CommentRejected) as rejection:
        clean_comment_text(text)
    assert rejection.value.code == "surrogate"


@given(st.text(st.characters(codec=None), max_size=60))
def test_whatever_is_accepted_can_be_stored_shown_and_accepted_again(raw: str) -> None:
    try:
        text = clean_comment_text(raw)
    except CommentRejected as rejection:
        assert rejection.message.encode()
        return
    assert text.encode()
    assert "\x00" not in text
    assert normalize_text(text)
    assert clean_comment_text(text) == text
