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
        found = self._rows.take(grams % len(self._rows), axis=0, mode="clip")
        if len(counts) == 1:
            sums = found.sum(axis=0, keepdims=True)
        else:
            sums = np.zeros((len(counts), found.shape[1]), np.float32)
            some = (
                counts > 0
            )  # where two begin at one place, reduceat would take the next one's first for a sum
            sums[some] = np.add.reduceat(found, (np.cumsum(counts) - counts)[some], axis=0)
        logits: npt.NDArray[np.float32] = sums[:, : self._classes] / np.sqrt(
            np.maximum(counts, 1).astype(np.float32)[:, None]
        )
        return logits


def take_wide_part(weights: Mapping[str, npt.NDArray[np.float32]]) -> WidePart | None:
    """Make the wide part of a network of these weights, where it has one."""
    return WidePart(weights["grams.weight"]) if "grams.weight" in weights else None
