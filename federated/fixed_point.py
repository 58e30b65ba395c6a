"""Sums of floating-point numbers as integers: exact, and so the same in any order.

A number is rounded once, half to even, to a multiple of 2^-42, finer than float32 from 2^-18 (4e-6) upwards.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from ml.compiled import compiled

FRACTION_BITS: Final = 42
UNIT: Final = 2.0**-FRACTION_BITS
SUM_LIMIT: Final = 2.0 ** (
    62 - FRACTION_BITS
)  # of a sum's magnitude, about a million; int64 holds twice that
_UNITS: Final = 2.0**FRACTION_BITS  # in one; a multiplication by it is exact

Integers = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.floating]
Places = npt.NDArray[np.int32]


@compiled
def add_numbers(total: Integers, numbers: Numbers) -> None:
    """Add numbers (N,) to their sums (N,), in place."""
    for place in range(len(numbers)):
        total[place] += np.int64(np.rint(numbers[place] * _UNITS))


@compiled
def add_entries(total: Integers, places: Places, numbers: Numbers) -> None:
    """Add numbers (M,) to the sums (N,) at these places (M,)."""
    for index in range(len(places)):
        total[places[index]] += np.int64(np.rint(numbers[index] * _UNITS))


@compiled
def add_rows(total: Integers, rows: Places, numbers: Numbers) -> None:
    """Add numbers (R, E) to these rows (R,) of the sums (V, E)."""
    for place in range(len(rows)):
        sums, added = total[rows[place]], numbers[place]
        for column in range(len(added)):
            sums[column] += np.int64(np.rint(added[column] * _UNITS))


@compiled
def take_numbers(total: Integers, scale: float, taken: Numbers) -> None:
    """Give the sums (N,), multiplied, in `taken` (N,), and make them zero."""
    for place in range(len(total)):
        taken[place] = total[place] * scale
        total[place] = 0


@compiled
def take_rows(total: Integers, rows: Places, scale: float, taken: Numbers) -> None:
    """Give these rows (R,) of the sums (V, E), multiplied, in `taken` (R, E), and make them zero."""
    for place in range(len(rows)):
        sums, given = total[rows[place]], taken[place]
        for column in range(len(given)):
            given[column] = sums[column] * scale
            sums[column] = 0
