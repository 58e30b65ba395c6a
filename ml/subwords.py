"""The characters and pairs of characters of a word, by which rare words learn from common ones.

As in fastText (Bojanowski et al. 2017, arXiv:1607.04606), each falls into one of a fixed number of buckets by a hash of
its content, so nobody need agree on a list of them. A word of Chinese is short: characters and pairs say all.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

NONE: Final = 0  # the bucket of the padding; no subword falls into it
MAX_SUBWORDS: Final = 16  # of a word; of a longer word the first ones count
_OPENING, _CLOSING = "<", ">"  # mark where a word begins and ends


def subwords_of(word: str) -> list[str]:
    """Give a word's characters, then its pairs, those with its ends among them."""
    marked = f"{_OPENING}{word}{_CLOSING}"
    pairs = [marked[at : at + 2] for at in range(len(marked) - 1)]
    return [*word, *pairs][:MAX_SUBWORDS]


def subword_ids(words: Sequence[str], buckets: int) -> npt.NDArray[np.int64]:
    """Give the buckets of each word's subwords, (words, longest), padded with NONE on the right.

    Buckets are 1 + CRC-32 of the subword in UTF-8, modulo `buckets` - 1. Raises ValueError for fewer than two.
    """
    if buckets < 2:
        raise ValueError(f"subwords want at least 2 buckets, not {buckets}")
    rows = [
        [1 + zlib.crc32(subword.encode()) % (buckets - 1) for subword in subwords_of(word)] for word in words
    ]
    ids = np.full((len(rows), max(map(len, rows), default=0)), NONE, np.int64)
    for row, found in zip(ids, rows, strict=True):
        row[: len(found)] = found
    return ids
