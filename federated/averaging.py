"""Averaging of gradients: an exact running sum, the same whoever answers first."""

from __future__ import annotations

import functools
import itertools
import math
import threading
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import Executor
from typing import Final

import numpy as np
import numpy.typing as npt

from federated.fixed_point import SUM_LIMIT, UNIT, add_entries, add_numbers, add_rows, take_numbers, take_rows
from federated.protocol import MessageError, Tensors, Update
from federated.rows import ROWS, VALUES, Part, read_parts
from ml.threads import run_side_by_side

SENT_DTYPE = np.dtype(np.float32)  # what sites send
HALF: Final = np.dtype(np.float16)  # or, where that was agreed on, what they send to spare bytes
Shapes = Mapping[str, tuple[int, ...]]

SMALL: Final = 2**17  # numbers of a tensor that is not worth a thread's while, nor a call of its own
MAX_NORM_PER_SAMPLE: Final = 1_000.0  # of a gradient; training clips the average at a few units


class InconsistentUpdates(ValueError):
    """Updates that cannot be averaged; the text names the site, the tensor and the difference."""


def read_update(update: Update, shapes: Shapes, dtype: npt.DTypeLike) -> dict[str, Part]:
    """Give the gradient by the names of the parameters, whole or in parts.

    Refuses an update with wrong names, shapes or kinds of numbers, or without a sample.
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
    for name, part in parts.items():
        values = part.values
        if (part.whole and values.shape != shapes[name]) or values.dtype not in (dtype, HALF):
            raise InconsistentUpdates(
                f"site {update.site}: {name} is {values.dtype}{values.shape}, "
                f"wanted {np.dtype(dtype)}{tuple(shapes[name])}"
            )
    return parts


def check_norms(update: Update, parts: Mapping[str, Part], bound: float) -> None:
    """Refuse numbers that are not finite, and a norm beyond the bound."""
    for name, part in parts.items():
        norm = gradient_norm(part.values)
        if not math.isfinite(norm):
            raise InconsistentUpdates(f"site {update.site}: {name} holds NaN or infinity")
        if norm > bound:
            raise InconsistentUpdates(
                f"site {update.site}: {name} has norm {norm:.3g}, at most {bound:.3g} is taken "
                f"for {update.batch.samples} samples"
            )


def gradient_norm(gradient: npt.NDArray[np.floating]) -> float:
    """Give the Euclidean norm; NaN or infinity when a number is one, or when squares overflow float32 (1e19)."""
    flat = gradient.reshape(-1)
    if flat.dtype == HALF:
        flat = flat.astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        return math.sqrt(square) if (square := float(np.dot(flat, flat))) >= 0 else math.nan


class GradientSum:
    """A running sum of the sites' gradient sums, one buffer a tensor however many sites there are.

    In fixed point (see federated.fixed_point): the same, bit for bit, in whatever order the updates come. Several
    threads may add updates at once, each to another tensor at a time. Of matrices named in `rowwise` only the rows
    are averaged that some site touched.
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
        self._touched = {name: np.zeros(shapes[name][0], np.bool_) for name in rowwise if name in shapes}
        sizes = {name: math.prod(shape) for name, shape in shapes.items() if name not in self._touched}
        # Small tensors are added, and averaged, end to end: each call costs more than the work on one of them.
        self._small = {name: size for name, size in sizes.items() if size <= SMALL}
        self._small_total = np.zeros(sum(self._small.values()), np.int64)
        self._totals = split(self._small_total, self._small)
        self._small_lock = threading.Lock()
        self._locks = dict.fromkeys(self._small, self._small_lock)
        for name in shapes.keys() - self._small.keys():
            self._totals[name] = np.zeros(math.prod(shapes[name]), np.int64)
            self._locks[name] = threading.Lock()
        self._counting = threading.Lock()
        self.updates = 0
        self.samples = 0

    def add(self, update: Update) -> None:
        """Add an update; raises InconsistentUpdates, leaving the sum as it was, for one that does not fit.

        That is one with wrong names or shapes, numbers that are not finite, no sample, or a norm beyond
        MAX_NORM_PER_SAMPLE for each sample and what all sites' sums of that size can add up to.
        """
        parts = read_update(update, self._shapes, self._dtype)
        bound = min(MAX_NORM_PER_SAMPLE * update.batch.samples, SUM_LIMIT / self._sites)
        small = self._take_small(parts)
        check_norms(update, parts, bound)
        if small is not None and not gradient_norm(small) <= bound:  # each may still be within it
            check_norms(update, {name: Part(part) for name, part in split(small, self._small).items()}, bound)
        with self._counting:
            if self.updates == self._sites:
                raise InconsistentUpdates(
                    f"site {update.site}: {self._sites} updates were announced, this is one more"
                )
            self.updates += 1
            self.samples += update.batch.samples
        for name, part in parts.items():
            with self._locks[name]:
                self._add_part(name, part)
        if small is not None:
            with self._small_lock:
                add_numbers(self._small_total, small)

    def _take_small(self, parts: dict[str, Part]) -> npt.NDArray[np.floating] | None:
        """Take the small tensors out of an update and lay them end to end, if all of them were sent whole."""
        if not self._small or not all(parts[name].whole for name in self._small):
            return None
        return np.concatenate([parts.pop(name).values.reshape(-1) for name in self._small], dtype=self._dtype)

    def _add_part(self, name: str, part: Part) -> None:
        total, touched = self._totals[name], self._touched.get(name)
        values = part.values.astype(np.float32) if part.values.dtype == HALF else part.values
        if part.rows is not None:
            add_rows(total.reshape(self._shapes[name]), part.rows, values)
            if touched is not None:
                touched[part.rows] = True
        elif part.indices is not None:
            add_entries(total, part.indices, values)
            if touched is not None:
                touched[part.indices // self._shapes[name][1]] = True
        else:
            add_numbers(total, values.reshape(-1))
            if touched is not None:
                touched |= values.any(axis=1)

    def take_average(self, threads: Executor | None = None) -> Tensors:
        """Give the average gradient over all samples, row-wise matrices as their touched rows (see federated.rows).

        The sum begins anew, in the same buffers. With `threads` beside this one, tensors are averaged side by side.
        Raises InconsistentUpdates when nothing was added.
        """
        if self.samples == 0:
            raise InconsistentUpdates("no update to average")
        scale = UNIT / self.samples
        large = sorted(self._totals.keys() - self._small.keys(), key=lambda name: -len(self._totals[name]))
        jobs = [functools.partial(self._take_tensor, name, scale) for name in large]
        jobs.append(functools.partial(self._take_small_average, scale))
        averaged: Tensors = {}
        for tensors in run_side_by_side(jobs, threads):
            averaged |= tensors
        self.updates = self.samples = 0
        return averaged

    def _take_small_average(self, scale: float) -> Tensors:
        taken = np.empty(len(self._small_total), self._dtype)
        take_numbers(self._small_total, scale, taken)
        return {name: part.reshape(self._shapes[name]) for name, part in split(taken, self._small).items()}

    def _take_tensor(self, name: str, scale: float) -> Tensors:
        total, shape, touched = self._totals[name], self._shapes[name], self._touched.get(name)
        if touched is None:
            taken = np.empty(shape, self._dtype)
            take_numbers(total, scale, taken.reshape(-1))
            return {name: taken}
        rows = np.flatnonzero(touched).astype(np.int32)
        touched.fill(False)
        taken = np.empty((len(rows), shape[1]), self._dtype)
        take_rows(total.reshape(shape), rows, scale, taken)
        return {name + ROWS: rows, name + VALUES: taken}


def split(numbers: np.ndarray, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Give the parts, of these sizes, of what lies end to end; they are not copies."""
    ends = list(itertools.accumulate(sizes.values()))
    return dict(zip(sizes, np.split(numbers, ends[:-1]), strict=True)) if sizes else {}


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
