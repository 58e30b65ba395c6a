"""The runs of one, two and three characters of a text, as numbers: what the wide part of the network looks at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from ml.text import normalize_text

NO_GRAM: Final = 0  # pads rows of different lengths; no run has this number
WIDE_SCALE: Final = 2.0  # of the wide part's logits: its rows learn so much faster than the rest
MAX_CHARACTERS: Final = 1_000  # of a longer text the beginning and the end are looked at
_MULTIPLIER: Final = np.uint64(
    0x9E3779B97F4A7C15
)  # 2^64 divided by the golden ratio: spreads consecutive numbers
# Made once: making a numpy number takes a quarter of the time of computing with a short array.
_ONE, _SEVEN, _THIRTEEN, _TWENTY_NINE, _THIRTY_ONE, _THIRTY_THREE = map(np.uint64, (1, 7, 13, 29, 31, 33))
_LOW_BITS: Final = np.uint64(2**32 - 1)
_TEXT_SHIFT: Final = np.uint64(32)


def hash_grams(text: str) -> npt.NDArray[np.int64]:
    """Give the different runs of a text's characters, ascending numbers from 1 to 2^31 - 1; none of an empty text.

    Each run is numbered by a hash of its code points, so nobody need agree on a list of them. The text is normalized
    first.
    """
    return number_runs([normalize_text(text)])[0]


def number_runs(texts: Sequence[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Give what `hash_grams` gives for texts that are normalized already, end to end; and how many of each text.

    Numpy takes about as long to be called for one short text as for sixty: all go through it end to end, and a number
    carries its text in its upper half until the end.
    """
    shortened = [_shorten(text) for text in texts]
    points = np.frombuffer("".join(shortened).encode("utf-32-le"), np.uint32).astype(np.uint64)
    single = _mix(points + _ONE)
    double = _mix(single[:-1] * _THIRTY_ONE + points[1:] + _SEVEN)
    triple = _mix(double[:-1] * _THIRTY_ONE + points[2:] + _THIRTEEN)
    if len(texts) == 1:
        found = _distinct(_number(np.concatenate([single, double, triple])))
        return found.astype(np.int64), np.array([len(found)])
    owner = np.repeat(np.arange(len(texts), dtype=np.uint64), [len(text) for text in shortened])
    runs = []
    for length, hashes in ((1, single), (2, double), (3, triple)):
        # A run that begins in one text and ends in another is none.
        first, last = owner[: len(hashes)], owner[length - 1 :]
        runs.append(((first << _TEXT_SHIFT) | _number(hashes))[first == last])
    found = _distinct(np.concatenate(runs))
    bounds = np.searchsorted(found, np.arange(len(texts) + 1, dtype=np.uint64) << _TEXT_SHIFT)
    return (found & _LOW_BITS).astype(np.int64), np.diff(bounds)


def _shorten(text: str) -> str:
    half = MAX_CHARACTERS // 2
    return text if len(text) <= MAX_CHARACTERS else text[:half] + text[-half:]


def _number(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    numbers: npt.NDArray[np.uint64] = np.maximum(hashes >> _THIRTY_THREE, _ONE)  # 31 bits
    return numbers


def _distinct(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Sort and drop what repeats; np.unique takes three times as long for a short text."""
    values.sort()
    fresh = np.empty(len(values), bool)
    fresh[:1] = True
    np.not_equal(values[1:], values[:-1], out=fresh[1:])
    distinct: npt.NDArray[np.uint64] = values[fresh]
    return distinct


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Spread the bits, in place; arrays wrap around without a warning."""
    values ^= values >> _THIRTY_THREE
    values *= _MULTIPLIER
    values ^= values >> _TWENTY_NINE
    return values
