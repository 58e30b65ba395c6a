"""The wide part of a served network: what a text's runs of characters add to its logits."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ml.grams import WIDE_SCALE


class WidePart:
    """Looks rows up and adds them, in numpy: ONNX has no such sum over texts of different lengths.

    The runtime's own look-up, of rows padded to the longest text, takes ten times as long.
    """

    def __init__(self, weights: npt.NDArray[np.float32]) -> None:
        """Take the weights (K, classes) of the network's rows, the padding's first."""
        rows, classes = len(weights) - 1, weights.shape[1]
        # Numpy copies rows of a power of two of bytes several times as fast as others.
        self._rows = np.zeros((rows, 1 << (classes - 1).bit_length()), np.float32)
        self._rows[:, :classes] = weights[1:] * np.float32(WIDE_SCALE)
        self._classes = classes

    def logits(self, grams: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Give what is added to the logits (n, classes) of n texts, of their runs end to end and how many each has."""
        logits = np.zeros((len(counts), self._classes), np.float32)
        some = counts > 0
        if not some.any():
            return logits
        found = self._rows.take(grams % len(self._rows), axis=0, mode="clip")
        begins = np.cumsum(counts) - counts
        sums = np.add.reduceat(found, begins[some], axis=0)[:, : self._classes]
        logits[some] = sums / np.sqrt(counts[some, None].astype(np.float32))
        return logits


def take_wide_part(weights: Mapping[str, npt.NDArray[np.float32]]) -> WidePart | None:
    """Make the wide part of a network of these weights, where it has one."""
    return WidePart(weights["grams.weight"]) if "grams.weight" in weights else None
