from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.grams import WIDE_SCALE
from ml.wide import WidePart, take_wide_part

ROWS = np.random.default_rng(5).normal(size=(10, 3)).astype(np.float32)


@given(st.lists(st.lists(st.integers(1, 2**31 - 1), max_size=30), min_size=1, max_size=6))
def test_a_text_gets_its_rows_added_up_whatever_texts_are_beside_it(texts: list[list[int]]) -> None:
    found = WidePart(ROWS).logits(
        np.array([gram for grams in texts for gram in grams], np.int64),
        np.array([len(grams) for grams in texts], np.int64),
    )
    for row, grams in zip(found, texts, strict=True):
        rows = [
            ROWS[1 + gram % 9] for gram in grams
        ]  # as the network numbers them, row 0 being the padding's
        wanted = WIDE_SCALE * np.sum([np.zeros(3), *rows], axis=0) / max(1, len(grams)) ** 0.5
        assert row == pytest.approx(wanted, abs=1e-4)


def test_a_network_without_runs_of_characters_has_no_wide_part() -> None:
    assert take_wide_part({"output.bias": np.zeros(3, np.float32)}) is None
    assert isinstance(take_wide_part({"grams.weight": ROWS}), WidePart)
