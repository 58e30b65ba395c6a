"""Parts of a tensor: the rows or the single numbers of it that a message carries.

Lossless: a matrix `name` of shape (V, E) becomes `name#rows`, int32 (R,) in ascending order, and `name#values`, (R, E):
the gradient of an embedding, and what changed of it in a round. `name#indices`, int32 (N,) ascending, and
`name#entries`, (N,), are single numbers of a tensor of any shape, counted in row-major order. What is left out is zero
in a gradient, and unchanged in parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from federated.protocol import MessageError, Tensors

ROWS: Final = "#rows"
VALUES: Final = "#values"
INDICES: Final = "#indices"
ENTRIES: Final = "#entries"
_PAIRS: Final = {ROWS: VALUES, INDICES: ENTRIES}


@dataclass(frozen=True)
class Part:
    """A tensor as it was sent."""

    values: np.ndarray  # the whole tensor, its rows (R, E), or its entries (N,)
    rows: np.ndarray | None = None  # int32 (R,), ascending
    indices: np.ndarray | None = None  # int32 (N,), ascending

    @property
    def whole(self) -> bool:
        """Whether nothing was left out."""
        return self.rows is None and self.indices is None


def pack_tensors(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """Lay tensors out for a message: sparse ones as the rows that they hold, all others whole."""
    packed: Tensors = {}
    for name, value in tensors.items():
        if value.is_sparse:
            value = value.coalesce()
            packed[name + ROWS] = value.indices()[0].cpu().numpy().astype(np.int32)
            packed[name + VALUES] = value.values().cpu().numpy()
        else:
            packed[name] = value.detach().cpu().numpy()
    return packed


def unpack_tensors(tensors: Tensors, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Give back what `pack_tensors` was given: rows as sparse tensors, all others whole. Raises MessageError."""
    unpacked: dict[str, torch.Tensor] = {}
    for name, part in read_parts(tensors, shapes).items():
        values = torch.from_numpy(part.values)
        if part.rows is not None:
            rows = torch.from_numpy(part.rows.astype(np.int64))[None]
            values = torch.sparse_coo_tensor(
                rows, values, shapes[name], is_coalesced=True, check_invariants=False
            )
        unpacked[name] = values
    return unpacked


def pack_rows(name: str, value: torch.Tensor, rows: np.ndarray) -> Tensors:
    """Lay some rows of a matrix out for a message."""
    return {name + ROWS: rows, name + VALUES: np.take(value.detach().numpy(), rows, axis=0)}


def put_rows(target: torch.Tensor, rows: np.ndarray, values: np.ndarray) -> None:
    """Write rows (R, E) of a matrix; on the CPU three times as quick as torch's own way."""
    if target.is_cuda:
        places = torch.from_numpy(rows.astype(np.int64)).to(target.device)
        target.index_copy_(0, places, torch.from_numpy(values).to(target.device))
    else:
        matrix = target.numpy()
        whole_row = np.dtype((np.void, matrix.shape[1] * matrix.itemsize))
        np.put(matrix.view(whole_row), rows, np.ascontiguousarray(values, matrix.dtype).view(whole_row))


def apply_changes(parameters: Mapping[str, torch.Tensor], tensors: Tensors) -> None:
    """Take over parameters that were sent whole or as the rows that changed, in place. Raises MessageError."""
    parts = read_parts(tensors, {name: tuple(value.shape) for name, value in parameters.items()})
    if parts.keys() != parameters.keys():
        raise MessageError(f"parameters missing or unknown: {sorted(parts.keys() ^ parameters.keys())}")
    for name, part in parts.items():
        target, values = parameters[name], part.values
        if part.rows is not None:
            put_rows(target, part.rows, values)
        elif part.whole and values.shape == target.shape:
            target.copy_(torch.from_numpy(values))
        else:
            raise MessageError(f"parameter {name} has shape {values.shape}, expected {tuple(target.shape)}")


def read_parts(tensors: Tensors, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Part]:
    """Give each tensor of a message under its own name; the shapes of those sent whole are left to the caller.

    Raises MessageError for places that do not fit their tensor, or are not in ascending order.
    """
    suffixes = tuple(_PAIRS) + tuple(_PAIRS.values())
    parts = {name: Part(value) for name, value in tensors.items() if not name.endswith(suffixes)}
    for places_suffix, values_suffix in _PAIRS.items():
        for name in [name.removesuffix(places_suffix) for name in tensors if name.endswith(places_suffix)]:
            places, values = tensors[name + places_suffix], tensors.get(name + values_suffix)
            shape = shapes.get(name)
            if shape is None or name in parts or values is None:
                raise MessageError(f"{name}: {places_suffix} of an unknown tensor, without values, or twice")
            parts[name] = (
                _read_rows(name, places, values, shape)
                if places_suffix == ROWS
                else _read_entries(name, places, values, shape)
            )
        lonely = [
            name
            for name in tensors
            if name.endswith(values_suffix)
            and name.removesuffix(values_suffix) + places_suffix not in tensors
        ]
        if lonely:
            raise MessageError(f"{', '.join(sorted(lonely))}: values without their places")
    return parts


def _read_rows(name: str, rows: np.ndarray, values: np.ndarray, shape: tuple[int, ...]) -> Part:
    if len(shape) != 2 or rows.dtype != np.int32 or rows.ndim != 1 or values.shape != (len(rows), shape[1]):
        raise MessageError(
            f"{name}: rows are {rows.dtype}{rows.shape} and values {values.shape} of a tensor {shape}, "
            "int32 (R,) and (R, E) of a matrix (V, E) are wanted"
        )
    _check_ascent(name, rows, shape[0])
    return Part(values, rows=rows)


def _read_entries(name: str, indices: np.ndarray, values: np.ndarray, shape: tuple[int, ...]) -> Part:
    if indices.dtype != np.int32 or indices.ndim != 1 or values.shape != indices.shape:
        raise MessageError(
            f"{name}: indices are {indices.dtype}{indices.shape} and entries {values.shape}, "
            "int32 (N,) and (N,) are wanted"
        )
    _check_ascent(name, indices, int(np.prod(shape, dtype=np.int64)))
    return Part(values, indices=indices)


def _check_ascent(name: str, places: np.ndarray, end: int) -> None:
    if len(places) and (places[0] < 0 or places[-1] >= end or (np.diff(places) <= 0).any()):
        raise MessageError(f"{name}: places must ascend within 0 … {end - 1}")
