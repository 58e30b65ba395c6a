from __future__ import annotations

import unicodedata
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.bootstrap import BootstrapCorpus
from ml.text import normalize_text, split_of, text_digest, unify_text

ANY_TEXT = st.text(st.characters())  # every code point, lone surrogates too


@given(ANY_TEXT)
def test_normalizing_twice_changes_nothing(text: str) -> None:
    once = normalize_text(text)
    assert normalize_text(once) == once


def test_every_single_code_point_normalizes_to_something_stable_that_utf_8_can_carry() -> None:
    for code in range(0x110000):
        once = normalize_text(f"a{chr(code)}b")
        assert normalize_text(once) == once, hex(code)
        once.encode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  很\u3000好 \r\n\t看 ", "很 好 看"),
        ("ＡＢＣ１２３！", "abc123!"),
        ("好\u200b看\ufeff", "好看"),
        ("好\x00看\x07\ud800", "好看"),
        ("❤️", "❤"),
        ("ℌello", "hello"),
        ("\u200b \n", ""),
        ("line\x85break", "line break"),
    ],
)
def test_what_looks_the_same_becomes_the_same(text: str, expected: str) -> None:
    assert normalize_text(text) == expected


@given(st.text(st.sampled_from("，！？：；（）…＜=a\u0338\u0301İ一")))
def test_short_cuts_for_common_punctuation_change_nothing(text: str) -> None:
    lowered = unicodedata.normalize("NFKC", text).lower()
    assert unify_text(text) == unicodedata.normalize("NFKC", lowered)


def test_texts_that_differ_only_in_form_share_a_digest_and_others_do_not() -> None:
    assert text_digest("ＯＫ 很好\u200b") == text_digest("ok  很好")
    assert text_digest("很好") != text_digest("很 好")
    assert text_digest("很好") == "38e5b024a6d4fff93f5a86e41e91065c440b46d95dc7fd0c6b88acded45a0ca3"


@pytest.mark.parametrize(
    ("text", "split"),
    [("很好", "train"), ("好看", "validation"), ("屏幕", "test"), ("太差了", "train"), ("", "validation")],
)
def test_a_text_never_changes_its_split(text: str, split: str) -> None:
    assert split_of(text) == split


@given(ANY_TEXT)
def test_the_split_depends_on_the_normalized_text_only(text: str) -> None:
    assert split_of(text) == split_of(normalize_text(text)) == split_of(f" {text}\n")


def test_eight_tenths_train_and_a_tenth_each_is_held_out(corpus: BootstrapCorpus) -> None:
    splits = Counter(split_of(example.text) for example in corpus.examples)
    shares = {name: count / len(corpus.examples) for name, count in splits.items()}
    assert shares == pytest.approx({"train": 0.8, "validation": 0.1, "test": 0.1}, abs=0.01)
