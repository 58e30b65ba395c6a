"""Averaging of gradients: an exact running sum on numpy arrays, the same whoever answers first."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from federated.protocol import MessageError, Tensors, Update
from federated.rows import ROWS, VALUES, Part, read_parts

SENT_DTYPE = np.dtype(np.float32)  # what sites send
HALF: Final = np.dtype(np.float16)  # or, where that was agreed on, what they send to spare bytes
Shapes = Mapping[str, tuple[int, ...]]

FRACTION_BITS: Final = (
    42  # a number is rounded to a multiple of 2^-42: finer than float32 from 2^-18 (4e-6) upwards
)
SUM_LIMIT: Final = 2.0 ** (
    62 - FRACTION_BITS
)  # of the magnitude of a sum, about a million; int64 holds twice that
MAX_NORM_PER_SAMPLE: Final = 1_000.0  # of a gradient; training clips the average at a few units
_ROUNDER: Final = np.float64(1.5 * 2.0 ** (52 - FRACTION_BITS))  # a double beside it ends at the bit 2^-42
_ROUNDER_BITS: Final = _ROUNDER.view(np.int64)
_SMALL: Final = 2.0 ** (
    50 - FRACTION_BITS
)  # numbers below, 256, can be rounded by an addition, which is quicker
_CHUNK: Final = 1 << 17  # numbers added at a time: the intermediate arrays stay in the processor's cache


class InconsistentUpdates(ValueError):
    """Updates that cannot be averaged; the text names the site, the tensor and the difference."""


def check_update(
    update: Update, shapes: Shapes, dtype: npt.DTypeLike = SENT_DTYPE, *, sites: int = 1
) -> dict[str, Part]:
    """Refuse an update with wrong names or shapes, numbers that are not finite, a norm beyond the bound, or no sample.

    The bound is MAX_NORM_PER_SAMPLE for each sample, and what `sites` sums of that size can add up to. Gives the
    gradient by the names of the parameters, whole or in parts, with its norms.
    """
    try:
        parts = read_parts(update.gradients, shapes)
    except MessageError as error:
        raise InconsistentUpdates(f"site {update.site}: {error}") from error
    if parts.keys() != shapes.keys():
        wrong = sorted(parts.keys() ^ shapes.keys())
        raise InconsistentUpdates(f"site {update.site}: tensors missing or not asked for: {', '.join(wrong)}")
    if update.batch.samples < 1:
        raise InconsistentUpdates(
            f"site {update.site}: an update needs at least one sample, it holds {update.batch.samples}"
        )
    bound = min(MAX_NORM_PER_SAMPLE * update.batch.samples, SUM_LIMIT / sites)
    for name, part in parts.items():
        values = part.values
        if (part.whole and values.shape != shapes[name]) or values.dtype not in (dtype, HALF):
            raise InconsistentUpdates(
                f"site {update.site}: {name} is {values.dtype}{values.shape}, "
                f"wanted {np.dtype(dtype)}{tuple(shapes[name])}"
            )
        norm = gradient_norm(values)
        if not math.isfinite(norm):
            raise InconsistentUpdates(f"site {update.site}: {name} holds NaN or infinity")
        if norm > bound:
            raise InconsistentUpdates(
                f"site {update.site}: {name} has norm {norm:.3g}, at most {bound:.3g} is taken "
                f"for {update.batch.samples} samples"
            )
        parts[name] = replace(part, norm=norm)
    return parts


def gradient_norm(gradient: npt.NDArray[np.floating]) -> float:
    """Give the Euclidean norm; NaN or infinity when a number is one, or when squares overflow float32 (1e19)."""
    flat = gradient.reshape(-1)
    if flat.dtype == HALF:
        flat = flat.astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        return math.sqrt(square) if (square := float(np.dot(flat, flat))) >= 0 else math.nan


class GradientSum:
    """A running sum of the sites' gradient sums, one buffer a tensor however many sites there are.

    Fixed-point: each number is rounded once, to a multiple of 2^-42, and integers add exactly; so the sum is the
    same, bit for bit, in whatever order the updates come. Of matrices named in `rowwise` only the rows are averaged
    that some site touched.
    """

    def __init__(
        self,
        shapes: Shapes,
        dtype: npt.DTypeLike = SENT_DTYPE,
        *,
        sites: int = 1,
        rowwise: Collection[str] = (),
    ) -> None:
        """Prepare to add at most `sites` updates of these shapes."""
        self._shapes = dict(shapes)
        self._dtype = np.dtype(dtype)
        self._sites = sites
        self._totals = {name: np.zeros(math.prod(shape), np.int64) for name, shape in self._shapes.items()}
        self._touched = {name: np.zeros(shapes[name][0], np.bool_) for name in rowwise if name in shapes}
        # A chunk of numbers amid rounding; a matrix's row may be longer than a chunk.
        self._room = np.empty(max([_CHUNK, *(shape[-1] for shape in self._shapes.values() if shape)]))
        self.updates = 0
        self.samples = 0

    def add(self, update: Update) -> None:
        """Add an update; raises InconsistentUpdates, leaving the sum as it was, for one that does not fit."""
        parts = check_update(update, self._shapes, self._dtype, sites=self._sites)
        if self.updates == self._sites:
            raise InconsistentUpdates(
                f"site {update.site}: {self._sites} updates were announced, this is one more"
            )
        for name, part in parts.items():
            self._add_part(name, part)
        self.updates += 1
        self.samples += update.batch.samples

    def _add_part(self, name: str, part: Part) -> None:
        total, touched = self._totals[name], self._touched.get(name)
        if part.rows is not None:
            matrix, few = total.reshape(self._shapes[name]), max(1, _CHUNK // self._shapes[name][1])
            for start in range(0, len(part.rows), few):
                rows = part.rows[start : start + few]
                fixed = fixed_point(part.values[start : start + few], part.norm, self._room)
                fixed += np.take(matrix, rows, axis=0)
                matrix[rows] = fixed
            if touched is not None:
                touched[part.rows] = True
        elif part.indices is not None:
            total[part.indices] += fixed_point(part.values, part.norm)
            if touched is not None:
                touched[part.indices // self._shapes[name][1]] = True
        else:
            flat = part.values.reshape(-1)
            for start in range(0, len(flat), _CHUNK):
                chunk = flat[start : start + _CHUNK]
                total[start : start + _CHUNK] += fixed_point(chunk, part.norm, self._room)
            if touched is not None:
                touched |= part.values.any(axis=1)

    def take_average(self, threads: Executor | None = None) -> Tensors:
        """Give the average gradient over all samples, row-wise matrices as their touched rows (see federated.rows).

        The sum begins anew, in the same buffers. With `threads`, tensors are averaged side by side. Raises
        InconsistentUpdates when nothing was added.
        """
        if self.samples == 0:
            raise InconsistentUpdates("no update to average")
        largest_first = sorted(self._totals, key=lambda name: -len(self._totals[name]))
        take = functools.partial(self._take_tensor, scale=2.0**-FRACTION_BITS / self.samples)
        taken = map(take, largest_first) if threads is None else threads.map(take, largest_first)
        averaged = {name: value for tensors in taken for name, value in tensors.items()}
        self.updates = self.samples = 0
        return averaged

    def _take_tensor(self, name: str, scale: float) -> Tensors:
        matrix, touched = self._totals[name].reshape(self._shapes[name]), self._touched.get(name)
        if touched is None:
            return {name: self._take_all(matrix, scale)}
        rows = np.flatnonzero(touched)
        touched.fill(False)
        take = (
            self._take_all(matrix, scale)
            if len(rows) == len(matrix)
            else self._take_rows(matrix, rows, scale)
        )
        return {name + ROWS: rows.astype(np.int32), name + VALUES: take}

    def _take_all(self, total: npt.NDArray[np.int64], scale: float) -> npt.NDArray[np.floating]:
        scaled, flat = np.empty(total.shape, self._dtype), total.reshape(-1)
        for start in range(0, len(flat), _CHUNK):
            chunk = flat[start : start + _CHUNK]
            scaled.reshape(-1)[start : start + _CHUNK] = chunk * scale
            chunk.fill(0)
        return scaled

    def _take_rows(
        self, matrix: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], scale: float
    ) -> npt.NDArray[np.floating]:
        scaled = np.empty((len(rows), matrix.shape[1]), self._dtype)
        few = max(1, _CHUNK // matrix.shape[1])
        for start in range(0, len(rows), few):
            chunk = rows[start : start + few]
            scaled[start : start + few] = np.take(matrix, chunk, axis=0) * scale
            matrix[chunk] = 0
        return scaled


def fixed_point(
    values: npt.NDArray[np.floating], norm: float, room: npt.NDArray[np.float64] | None = None
) -> npt.NDArray[np.int64]:
    """Round to multiples of 2^-42, half to even; `norm` bounds every number.

    The result may lie in `room`, which spares the allocation: at least as many doubles as there are values.
    """
    room = np.empty(values.size) if room is None else room[: values.size]
    beside = room.reshape(values.shape)
    if norm < _SMALL:
        # Beside 1536 a double's last bit is 2^-42: the sum is rounded to it, and its bits count them.
        beside[...] = values
        beside += _ROUNDER
        bits: npt.NDArray[np.int64] = beside.view(np.int64)
        bits -= _ROUNDER_BITS
        return bits
    np.multiply(values, 2.0**FRACTION_BITS, out=beside, dtype=np.float64)
    fixed: npt.NDArray[np.int64] = np.rint(beside, out=beside).astype(np.int64)
    return fixed


def average_gradients(updates: Iterable[Update]) -> Tensors:
    """Average gradient sums by sample count (FedSGD, McMahan et al. 2017, arXiv:1602.05629).

    Each tensor keeps its shape, e.g. embedding (V, E), and its dtype: float32 as sites send it, or float64. Raises
    InconsistentUpdates when there is no update, or names, shapes or dtypes differ from those of the first by name.
    """
    ordered = sorted(updates, key=lambda update: update.site)
    if not ordered:
        raise InconsistentUpdates("no update to average")
    gradients = ordered[0].gradients
    double = all(gradient.dtype == np.float64 for gradient in gradients.values())
    total = GradientSum(
        {name: gradient.shape for name, gradient in gradients.items()},
        np.float64 if double else SENT_DTYPE,
        sites=len(ordered),
    )
    for update in ordered:
        total.add(update)
    return total.take_average()
