"""Tensors of which a message carries rows, or single numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from federated.protocol import MessageError, Tensors
from federated.rows import apply_changes, pack_tensors, read_parts, unpack_tensors
from tests.federated.sparse import rows_of

SHAPES = {"embedding.weight": (6, 2), "output.bias": (3,)}


@given(touched=st.sets(st.integers(0, 5)))
def test_what_is_packed_is_unpacked_whole(touched: set[int]) -> None:
    embedding = torch.zeros(6, 2)
    embedding[sorted(touched), 1] = 1.5
    tensors = {"embedding.weight": rows_of(embedding, sorted(touched)), "output.bias": torch.arange(3.0)}
    packed = pack_tensors(tensors)
    assert packed["embedding.weight#rows"].tolist() == sorted(touched)
    unpacked = unpack_tensors(packed, SHAPES)
    assert unpacked.keys() == tensors.keys()
    assert torch.equal(unpacked["embedding.weight"].to_dense(), embedding)
    assert torch.equal(unpacked["output.bias"], torch.arange(3.0))


def test_changed_rows_are_taken_over_and_the_others_stay() -> None:
    held = {"embedding.weight": torch.ones(6, 2), "output.bias": torch.zeros(3)}
    changed = {name: value.clone() for name, value in held.items()}
    changed["embedding.weight"][[0, 5]] = 7.0
    sent = {
        "embedding.weight": rows_of(changed["embedding.weight"], [0, 5]),
        "output.bias": torch.full((3,), 2.0),
    }
    apply_changes(held, pack_tensors(sent))
    assert torch.equal(held["embedding.weight"], changed["embedding.weight"])
    assert held["output.bias"].tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize(
    "sent",
    [
        {"output.bias": np.zeros(3, np.float32)},
        {"embedding.weight": np.zeros((6, 2), np.float32), "output.bias": np.zeros(4, np.float32)},
        {
            "embedding.weight#indices": np.array([1], np.int32),
            "embedding.weight#entries": np.zeros(1, np.float32),
            "output.bias": np.zeros(3, np.float32),
        },
    ],
    ids=["missing", "misshapen", "single numbers"],
)
def test_parameters_that_do_not_fit_are_refused(sent: Tensors) -> None:
    with pytest.raises(MessageError):
        apply_changes({name: torch.zeros(shape) for name, shape in SHAPES.items()}, sent)


def packed(rows: list[int], values: np.ndarray | None = None, **more: np.ndarray) -> Tensors:
    given = np.zeros((len(rows), 2), np.float32) if values is None else values
    return {"embedding.weight#rows": np.array(rows, np.int32), "embedding.weight#values": given, **more}


def entries(indices: list[int], values: list[float]) -> Tensors:
    return {
        "output.bias#indices": np.array(indices, np.int32),
        "output.bias#entries": np.array(values, np.float32),
    }


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        (packed([0, 6]), "ascend within 0 … 5"),
        (packed([-1, 2]), "ascend"),
        (packed([2, 1]), "ascend"),
        (packed([2, 2]), "ascend"),
        (packed([1], np.zeros((2, 2), np.float32)), "values"),
        (packed([1], np.zeros((1, 3), np.float32)), "values"),
        (packed([1], **{"embedding.weight": np.zeros((6, 2), np.float32)}), "twice"),
        (
            {
                **packed([1]),
                "embedding.weight#indices": np.array([1], np.int32),
                "embedding.weight#entries": np.zeros(1, np.float32),
            },
            "twice",
        ),
        ({"embedding.weight#rows": np.array([1], np.int32)}, "without values"),
        ({"embedding.weight#values": np.zeros((1, 2), np.float32)}, "without their places"),
        ({"embedding.weight#rows": np.array([1]), "embedding.weight#values": np.zeros((1, 2))}, "int64"),
        (
            {"output.bias#rows": np.array([1], np.int32), "output.bias#values": np.zeros((1, 1))},
            "of a matrix",
        ),
        ({"other#rows": np.array([1], np.int32), "other#values": np.zeros((1, 1))}, "unknown tensor"),
        (entries([3], [1.0]), "ascend within 0 … 2"),
        (entries([1, 0], [1.0, 1.0]), "ascend"),
        (entries([1], [1.0, 2.0]), "entries"),
        ({"output.bias#entries": np.zeros(1, np.float32)}, "without their places"),
    ],
)
def test_places_that_do_not_fit_are_refused(tensors: Tensors, words: str) -> None:
    with pytest.raises(MessageError, match=words):
        read_parts(tensors, SHAPES)
