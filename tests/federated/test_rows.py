"""Matrices as the rows that are not zero."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated.protocol import MessageError, Tensors
from federated.rows import pack_rows, unpack_rows

SHAPES = {"embedding.weight": (6, 2), "output.bias": (3,)}


@given(touched=st.sets(st.integers(0, 5)))
def test_what_is_packed_is_unpacked_whole(touched: set[int]) -> None:
    embedding = np.zeros((6, 2), np.float32)
    embedding[sorted(touched), 1] = 1.5
    tensors = {"embedding.weight": embedding, "output.bias": np.arange(3, dtype=np.float32)}
    packed = pack_rows(tensors)
    assert ("embedding.weight#rows" in packed) == (len(touched) <= 3)
    unpacked = unpack_rows(packed, SHAPES)
    assert unpacked.keys() == tensors.keys()
    for name, value in tensors.items():
        assert unpacked[name].dtype == value.dtype
        assert np.array_equal(unpacked[name], value)


def packed(rows: list[int], values: np.ndarray | None = None, **more: np.ndarray) -> Tensors:
    given = np.zeros((len(rows), 2), np.float32) if values is None else values
    return {"embedding.weight#rows": np.array(rows, np.int32), "embedding.weight#values": given, **more}


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        (packed([0, 6]), "ascend within 0 … 5"),
        (packed([-1, 2]), "ascend"),
        (packed([2, 1]), "ascend"),
        (packed([2, 2]), "ascend"),
        (packed([1], np.zeros((2, 2), np.float32)), "values"),
        (packed([1], np.zeros((1, 3), np.float32)), "values"),
        (packed([1], **{"embedding.weight": np.zeros((6, 2), np.float32)}), "beside the whole"),
        ({"embedding.weight#rows": np.array([1], np.int32)}, "without values"),
        ({"embedding.weight#values": np.zeros((1, 2), np.float32)}, "without their rows"),
        ({"embedding.weight#rows": np.array([1]), "embedding.weight#values": np.zeros((1, 2))}, "int64"),
        ({"output.bias#rows": np.array([1], np.int32), "output.bias#values": np.zeros((1, 1))}, "no matrix"),
        ({"other#rows": np.array([1], np.int32), "other#values": np.zeros((1, 1))}, "no matrix"),
    ],
)
def test_rows_that_do_not_fit_are_refused(tensors: Tensors, words: str) -> None:
    with pytest.raises(MessageError, match=words):
        unpack_rows(tensors, SHAPES)
