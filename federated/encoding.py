"""How uploads are written down: without loss, or in fewer bytes with what is lost sent later.

    lossless  float32; of an embedding the rows that were touched
    fp16      the same in half precision
    topk      of each tensor only the numbers of the largest magnitude, and where they stand

The last two lose something in a round, remember it, and add it to the next round's upload (error feedback: Seide et al.
2014, 1-bit SGD; Karimireddy et al. 2019, arXiv:1901.09847), so that in the long run nothing is lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import torch

from federated.protocol import Tensors
from federated.rows import ENTRIES, INDICES, ROWS, VALUES, pack_tensors
from ml.training_config import EncodingName

TOP_FRACTION: Final = 1 / 16  # of a tensor's numbers that "topk" sends
SMALL: Final = 1024  # tensors of at most so many numbers are sent whole
LARGEST_HALF: Final = 60_000.0  # half precision ends at 65,504


class Encoder:
    """Writes one site's uploads, round after round."""

    def __init__(self, kind: EncodingName) -> None:
        self._kind = kind
        self._left: dict[str, np.ndarray] = {}  # of each tensor what was not sent yet, in its own shape

    def encode(self, sums: Mapping[str, torch.Tensor]) -> Tensors:
        """Give the tensors of a message; sparse ones go as rows."""
        packed = pack_tensors(sums)
        if self._kind == "lossless":
            return packed
        write = self._halve if self._kind == "fp16" else self._pick_largest
        written: Tensors = {}
        for name, value in sums.items():
            rows = packed.get(name + ROWS)
            numbers = packed[name + VALUES] if rows is not None else packed[name]
            written |= write(name, tuple(value.shape), numbers, rows)
        return written

    def _halve(
        self, name: str, shape: tuple[int, ...], numbers: np.ndarray, rows: np.ndarray | None
    ) -> Tensors:
        """Send what is there in half precision; what was left of rows that are not there now waits for them."""
        left = self._left.setdefault(name, np.zeros(shape, np.float32))
        place: np.ndarray | slice = slice(None) if rows is None else rows
        wanted = numbers + left[place]
        sent = np.clip(wanted, -LARGEST_HALF, LARGEST_HALF).astype(np.float16)
        left[place] = wanted - sent
        return {name: sent} if rows is None else {name + ROWS: rows, name + VALUES: sent}

    def _pick_largest(
        self, name: str, shape: tuple[int, ...], numbers: np.ndarray, rows: np.ndarray | None
    ) -> Tensors:
        """Send the largest of this round's numbers and of what is left of earlier ones."""
        if rows is None and numbers.size <= SMALL:
            return {name: numbers}
        left = self._left.setdefault(name, np.zeros(shape, np.float32))
        if rows is None:
            left += numbers
        else:
            left[rows] += numbers
        flat = left.reshape(-1)
        count = max(1, int(numbers.size * TOP_FRACTION))
        candidates = np.flatnonzero(flat)
        if len(candidates) > count:
            largest = np.argpartition(np.abs(flat[candidates]), len(candidates) - count)
            candidates = np.sort(candidates[largest[-count:]])
        entries = flat[candidates].copy()
        flat[candidates] = 0.0
        return {name + INDICES: candidates.astype(np.int32), name + ENTRIES: entries}
