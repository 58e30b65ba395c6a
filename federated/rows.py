"""Matrices of which most rows are zero, such as the gradient of an embedding, as the rows that are not.

Lossless: a matrix `name` of shape (V, E) becomes `name#rows`, int32 (R,) in ascending order, and `name#values`, (R, E).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from federated.protocol import MessageError, Tensors

ROWS: Final = "#rows"
VALUES: Final = "#values"


def pack_rows(tensors: Tensors) -> Tensors:
    """Replace each matrix by its rows that are not zero, where that at least halves it."""
    packed: Tensors = {}
    for name, value in tensors.items():
        touched = np.flatnonzero(value.any(axis=1)) if value.ndim == 2 else None
        if touched is None or 2 * len(touched) > len(value):
            packed[name] = value
        else:
            packed[name + ROWS] = touched.astype(np.int32)
            packed[name + VALUES] = value[touched]
    return packed


@dataclass(frozen=True)
class Part:
    """A tensor as it was sent: whole, or the rows of a matrix that are not zero."""

    rows: np.ndarray | None  # int32 (R,), ascending; None for the whole
    values: np.ndarray  # the whole tensor, or (R, E)


def read_parts(tensors: Tensors, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Part]:
    """Give each tensor of a message under its own name; the shapes of those sent whole are left to the caller.

    Raises MessageError for rows that do not fit their matrix, or are not in ascending order.
    """
    parts = {name: Part(None, value) for name, value in tensors.items() if not name.endswith((ROWS, VALUES))}
    for name in [name.removesuffix(ROWS) for name in tensors if name.endswith(ROWS)]:
        rows, values, shape = tensors[name + ROWS], tensors.get(name + VALUES), shapes.get(name)
        if shape is None or len(shape) != 2 or name in parts or values is None:
            raise MessageError(f"{name}: rows of what is no matrix, or without values, or beside the whole")
        _check_rows(name, rows, values, shape)
        parts[name] = Part(rows, values)
    lonely = [name for name in tensors if name.endswith(VALUES) and name.removesuffix(VALUES) not in parts]
    if lonely:
        raise MessageError(f"{', '.join(sorted(lonely))}: values without their rows")
    return parts


def unpack_rows(tensors: Tensors, shapes: Mapping[str, tuple[int, ...]]) -> Tensors:
    """Put rows back into matrices of zeros; what was not packed stays as it is. Raises MessageError."""
    unpacked: Tensors = {}
    for name, part in read_parts(tensors, shapes).items():
        unpacked[name] = part.values
        if part.rows is not None:
            unpacked[name] = np.zeros(shapes[name], part.values.dtype)
            unpacked[name][part.rows] = part.values
    return unpacked


def _check_rows(name: str, rows: np.ndarray, values: np.ndarray, shape: tuple[int, ...]) -> None:
    if rows.dtype != np.int32 or rows.ndim != 1 or values.shape != (len(rows), shape[1]):
        raise MessageError(
            f"{name}: rows are {rows.dtype}{rows.shape} and values {values.shape}, "
            f"int32 (R,) and (R, {shape[1]}) are wanted"
        )
    if len(rows) and (rows[0] < 0 or rows[-1] >= shape[0] or (np.diff(rows) <= 0).any()):
        raise MessageError(f"{name}: rows must ascend within 0 … {shape[0] - 1}")
