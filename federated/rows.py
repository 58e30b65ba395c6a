"""Matrices of which most rows are zero, such as the gradient of an embedding, as the rows that are not.

Lossless: a matrix `name` of shape (V, E) becomes `name#rows`, int32 (R,) in ascending order, and `name#values`, (R, E).
"""

from __future__ import annotations

from collections.abc import Mapping
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


def unpack_rows(tensors: Tensors, shapes: Mapping[str, tuple[int, ...]]) -> Tensors:
    """Put the rows back into matrices of zeros of the given shapes; what was not packed stays as it is.

    Raises MessageError for rows that do not fit their matrix, or are not in ascending order.
    """
    unpacked = {name: value for name, value in tensors.items() if not name.endswith((ROWS, VALUES))}
    for name in [name.removesuffix(ROWS) for name in tensors if name.endswith(ROWS)]:
        rows, values, shape = tensors[name + ROWS], tensors.get(name + VALUES), shapes.get(name)
        if shape is None or len(shape) != 2 or name in unpacked or values is None:
            raise MessageError(f"{name}: rows of what is no matrix, or without values, or beside the whole")
        _check_rows(name, rows, values, shape)
        unpacked[name] = np.zeros(shape, values.dtype)
        unpacked[name][rows] = values
    lonely = [name for name in tensors if name.endswith(VALUES) and name.removesuffix(VALUES) not in unpacked]
    if lonely:
        raise MessageError(f"{', '.join(sorted(lonely))}: values without their rows")
    return unpacked


def _check_rows(name: str, rows: np.ndarray, values: np.ndarray, shape: tuple[int, ...]) -> None:
    if rows.dtype != np.int32 or rows.ndim != 1 or values.shape != (len(rows), shape[1]):
        raise MessageError(
            f"{name}: rows are {rows.dtype}{rows.shape} and values {values.shape}, "
            f"int32 (R,) and (R, {shape[1]}) are wanted"
        )
    if len(rows) and (rows[0] < 0 or rows[-1] >= shape[0] or (np.diff(rows) <= 0).any()):
        raise MessageError(f"{name}: rows must ascend within 0 … {shape[0] - 1}")
