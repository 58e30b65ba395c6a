from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.grams import MAX_CHARACTERS, hash_grams, number_runs
from ml.text import normalize_text


def test_runs_are_numbered_the_same_everywhere() -> None:
    """The numbers are part of what a model means: other ones would make another model of the same weights."""
    assert hash_grams("好吃").tolist() == NUMBERS


NUMBERS = [307652323, 340767558, 1449615959]


@given(text=st.text(max_size=200))
def test_any_text_has_different_numbers_that_a_graph_can_take(text: str) -> None:
    grams = hash_grams(text)
    assert (np.diff(grams) > 0).all()
    assert ((grams > 0) & (grams < 2**31)).all()
    assert len(grams) <= 3 * max(1, len(text) * 20)  # normalizing may lengthen a text


@pytest.mark.parametrize(
    ("text", "count"), [("", 0), ("   ", 0), ("好", 1), ("好吃", 3), ("好吃吗", 6), ("好好好", 3)]
)
def test_each_run_counts_once(text: str, count: int) -> None:
    assert len(hash_grams(text)) == count


def test_texts_that_share_a_run_share_its_number_and_order_matters() -> None:
    assert set(hash_grams("不好吃")) & set(hash_grams("好吃")) == set(hash_grams("好吃"))
    assert set(hash_grams("吃好")) != set(hash_grams("好吃"))


def test_the_text_is_normalized_first() -> None:
    assert hash_grams("ＡＢＣ").tolist() == hash_grams("abc").tolist()


def test_of_a_very_long_text_both_ends_are_looked_at() -> None:
    long = "".join(chr(0x4E00 + index) for index in range(3 * MAX_CHARACTERS))
    grams = hash_grams(long)
    assert len(grams) < 3 * MAX_CHARACTERS
    for end in (long[:3], long[-3:]):
        assert set(hash_grams(end)) <= set(grams)


def numbers_among_others(texts: list[str]) -> list[list[int]]:
    numbers, counts = number_runs([normalize_text(text) for text in texts])
    assert (numbers.dtype, len(numbers)) == (np.int64, counts.sum())
    return [part.tolist() for part in np.split(numbers, np.cumsum(counts)[:-1])] if texts else []


@given(texts=st.lists(st.text(max_size=60), max_size=8))
def test_a_text_among_others_has_the_numbers_it_has_alone(texts: list[str]) -> None:
    assert numbers_among_others(texts) == [hash_grams(text).tolist() for text in texts]


def test_long_texts_and_empty_ones_keep_to_themselves() -> None:
    texts = ["", "好" * 3 * MAX_CHARACTERS, "", "吃好", "一二三" * MAX_CHARACTERS, ""]
    assert numbers_among_others(texts) == [hash_grams(text).tolist() for text in texts]
