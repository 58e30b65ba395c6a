"""The runs of one, two and three characters of a text, as numbers: what the wide part of the network looks at."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from ml.text import normalize_text

NO_GRAM: Final = 0  # pads rows of different lengths; no run has this number
MAX_CHARACTERS: Final = 1_000  # of a longer text the beginning and the end are looked at
_MULTIPLIER: Final = np.uint64(
    0x9E3779B97F4A7C15
)  # 2^64 divided by the golden ratio: spreads consecutive numbers


def hash_grams(text: str) -> npt.NDArray[np.int64]:
    """Give the different runs of a text's characters, ascending numbers from 1 to 2^31 - 1; none of an empty text.

    Each run is numbered by a hash of its code points, so nobody need agree on a list of them. The text is normalized
    first.
    """
    normalized = normalize_text(text)
    if len(normalized) > MAX_CHARACTERS:
        half = MAX_CHARACTERS // 2
        normalized = normalized[:half] + normalized[-half:]
    points = np.frombuffer(normalized.encode("utf-32-le"), np.uint32).astype(np.uint64)
    with np.errstate(over="ignore"):
        single = _mix(points + np.uint64(1))
        double = _mix(single[:-1] * np.uint64(31) + points[1:] + np.uint64(7))
        triple = _mix(double[:-1] * np.uint64(31) + points[2:] + np.uint64(13))
    hashes = np.concatenate([single, double, triple]) >> np.uint64(33)  # 31 bits
    return np.unique(np.maximum(hashes, np.uint64(1))).astype(np.int64)


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    mixed = (values ^ (values >> np.uint64(33))) * _MULTIPLIER
    return mixed ^ (mixed >> np.uint64(29))
