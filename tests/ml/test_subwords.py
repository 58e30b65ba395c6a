from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.subwords import MAX_SUBWORDS, NONE, subword_ids, subwords_of


def test_a_word_is_its_characters_and_its_pairs() -> None:
    assert subwords_of("好吃") == ["好", "吃", "<好", "好吃", "吃>"]
    assert subwords_of("好") == ["好", "<好", "好>"]


def test_buckets_are_the_same_everywhere() -> None:
    """They are part of what a model means: another hash would make another model of the same weights."""
    assert subword_ids(["好吃", "好"], 1_000).tolist() == BUCKETS


BUCKETS = [[533, 182, 241, 867, 851], [533, 241, 350, 0, 0]]


@given(words=st.lists(st.text(max_size=30), max_size=8), buckets=st.integers(2, 5_000))
def test_every_subword_falls_into_a_bucket_and_only_padding_into_none(words: list[str], buckets: int) -> None:
    ids = subword_ids(words, buckets)
    assert ids.shape[0] == len(words)
    for row, word in zip(ids, words, strict=True):
        count = len(subwords_of(word))
        assert count <= MAX_SUBWORDS
        assert ((row[:count] > NONE) & (row[:count] < buckets)).all()
        assert (row[count:] == NONE).all()


def test_without_buckets_there_are_no_subwords() -> None:
    with pytest.raises(ValueError, match="at least 2 buckets, not 1"):
        subword_ids(["好"], 1)
