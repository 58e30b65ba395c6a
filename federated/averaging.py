"""Averaging of gradients: pure functions on numpy arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from federated.protocol import Tensors, Update

SENT_DTYPE = np.dtype(np.float32)  # what sites send


class InconsistentUpdates(ValueError):
    """Updates that cannot be averaged; the text names the site, the tensor and the difference."""


def check_update(
    update: Update, shapes: Mapping[str, tuple[int, ...]], dtype: npt.DTypeLike = SENT_DTYPE
) -> None:
    """Refuse an update with wrong names or shapes, numbers that are not finite, or no sample."""
    if update.gradients.keys() != shapes.keys():
        wrong = sorted(update.gradients.keys() ^ shapes.keys())
        raise InconsistentUpdates(f"site {update.site}: tensors missing or not asked for: {', '.join(wrong)}")
    if update.batch.samples < 1:
        raise InconsistentUpdates(
            f"site {update.site}: an update needs at least one sample, it holds {update.batch.samples}"
        )
    for name, gradient in update.gradients.items():
        if gradient.shape != shapes[name] or gradient.dtype != dtype:
            raise InconsistentUpdates(
                f"site {update.site}: {name} is {gradient.dtype}{gradient.shape}, "
                f"wanted {np.dtype(dtype)}{tuple(shapes[name])}"
            )
        if not np.isfinite(gradient).all():
            raise InconsistentUpdates(f"site {update.site}: {name} holds NaN or infinity")


def average_gradients(updates: Sequence[Update]) -> Tensors:
    """Average gradient sums by sample count (FedSGD, McMahan et al. 2017, arXiv:1602.05629).

    Each tensor keeps its shape, e.g. embedding (V, E), and its dtype: float32 as sites send it, or float64. The sums
    are added in the order of the sites' names, in float64, so that the result does not depend on who answered first.
    Raises InconsistentUpdates when there is no update or names, shapes or dtypes differ.
    """
    if not updates:
        raise InconsistentUpdates("no update to average")
    ordered = sorted(updates, key=lambda update: update.site)
    shapes = {name: gradient.shape for name, gradient in ordered[0].gradients.items()}
    double = all(gradient.dtype == np.float64 for gradient in ordered[0].gradients.values())
    dtype = np.dtype(np.float64) if double else SENT_DTYPE
    for update in ordered:
        check_update(update, shapes, dtype)
    samples = sum(update.batch.samples for update in ordered)
    averaged: Tensors = {}
    for name, shape in shapes.items():
        total = np.zeros(shape, dtype=np.float64)
        for update in ordered:
            total += update.gradients[name]
        averaged[name] = (total / samples).astype(dtype)
    return averaged
