"""How much a comment gives others to go on: the key of the order "constructive first". Pure arithmetic.

Weights are a judgement, not a measurement: what is said counts most, then whether it gives reasons, then what other
readers think of it. Being negative costs nothing by itself, since criticism is what an author can use; it costs as far
as nothing is said besides.
"""

from __future__ import annotations

import math
import unicodedata
from itertools import pairwise
from typing import Final

from ml.text import normalize_text

SUBSTANCE, REASONS, LIKES = 0.45, 0.35, 0.2  # together 1
HOSTILITY: Final = 0.5
FULL_SUBSTANCE: Final = 120  # different pairs of neighbouring characters: three or four sentences
FULL_REASONS: Final = 3
FULL_LIKES: Final = 20

# Words with which somebody explains, weighs, proposes, gives an example or asks.
_REASONS: Final = (
    ("因为", "由于", "原因", "所以", "因此", "because", "since", "therefore"),
    ("但是", "不过", "然而", "虽然", "尽管", "相比", "however", "although", "compared"),
    ("建议", "希望", "不如", "可以试", "最好", "suggest", "recommend", "would be better"),
    ("比如", "例如", "举个例子", "像是", "for example", "for instance", "e.g."),
    ("如果", "假如", "要是", "其实", "实际上", "if ", "actually", "in fact"),
    ("为什么", "怎么", "请问", "是否", "如何", "why", "how ", "could you"),
    ("第一", "首先", "其次", "另外", "补充", "first", "second", "also,"),
)


def rate_constructiveness(*, text: str, likes: int = 0, negative: float = 0.0) -> float:
    """Rate a comment from 0 to 1; `negative` is the probability that the model gives to "negative", 0 if unasked."""
    words = normalize_text(text)
    substance, reasons = _substance(words), _reasons(words)
    liked = min(1.0, math.log1p(max(likes, 0)) / math.log1p(FULL_LIKES))
    empty_hostility = min(max(negative, 0.0), 1.0) * (1 - substance) * (1 - reasons)
    worth = SUBSTANCE * substance + REASONS * reasons + LIKES * liked - HOSTILITY * empty_hostility
    return round(min(max(worth, 0.0), 1.0), 4)


def _substance(words: str) -> float:
    """Say how much there is to read: repeating oneself, punctuation and emoji add nothing."""
    letters = [character for character in words if unicodedata.category(character)[0] in "LN"]
    pairs = len(set(pairwise(letters)))
    return min(1.0, math.log1p(pairs) / math.log1p(FULL_SUBSTANCE))


def _reasons(words: str) -> float:
    kinds = sum(any(word in words for word in kind) for kind in _REASONS)
    return min(1.0, kinds / FULL_REASONS)
