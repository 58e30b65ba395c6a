"""Gradients of some rows, as torch gives them."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def rows_of(matrix: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
    """Give some rows of a matrix, named in ascending order, as a sparse one."""
    places = torch.tensor([list(rows)], dtype=torch.int64)
    return torch.sparse_coo_tensor(
        places, matrix[places[0]], matrix.shape, is_coalesced=True, check_invariants=True
    )
