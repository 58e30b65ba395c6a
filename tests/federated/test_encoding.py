"""Uploads in fewer bytes: what is lost in a round is sent in a later one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from federated.encoding import TOP_FRACTION, Encoder
from federated.protocol import Tensors
from federated.rows import read_parts
from ml.training_config import EncodingName
from tests.federated.sparse import rows_of

SHAPES = {"embedding.weight": (50, 40), "lstm.weight": (64, 64), "output.bias": (3,)}


def draw(seed: int, rows: int = 12) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    drawn = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    touched = sorted(np.random.default_rng(seed).choice(50, rows, replace=False).tolist())
    return {**drawn, "embedding.weight": rows_of(drawn["embedding.weight"], touched)}


def spread(sent: Tensors) -> dict[str, np.ndarray]:
    """What an aggregator adds for a message."""
    added = {}
    for name, part in read_parts(sent, SHAPES).items():
        whole = np.zeros(SHAPES[name], np.float64)
        if part.rows is not None:
            whole[part.rows] = part.values
        elif part.indices is not None:
            whole.reshape(-1)[part.indices] = part.values
        else:
            whole[...] = part.values
        added[name] = whole
    return added


def total_of(parts: list[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.sum([part[name] for part in parts], axis=0) for name in SHAPES}


def dense(sums: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: value.to_dense().double().numpy() for name, value in sums.items()}


def size_of(sent: Tensors) -> int:
    return sum(value.nbytes for value in sent.values())


def test_the_lossless_encoding_loses_nothing() -> None:
    for name, value in spread(Encoder("lossless").encode(draw(0))).items():
        assert np.array_equal(value, dense(draw(0))[name])


@pytest.mark.parametrize(("kind", "most"), [("fp16", 0.52), ("topk", 2.1 * TOP_FRACTION)])
def test_fewer_bytes_go_up(kind: EncodingName, most: float) -> None:
    lossless = size_of(Encoder("lossless").encode(draw(0)))
    assert size_of(Encoder(kind).encode(draw(0))) < most * lossless


@pytest.mark.parametrize("kind", ["fp16", "topk"])
def test_what_is_lost_in_a_round_is_sent_later(kind: EncodingName) -> None:
    encoder = Encoder(kind)
    rounds = [draw(seed) for seed in range(6)]
    sent = total_of([spread(encoder.encode(sums)) for sums in rounds])
    wanted = total_of([dense(sums) for sums in rounds])
    quiet = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    quiet["embedding.weight"] = rows_of(quiet["embedding.weight"], range(50))
    for _ in range(60):  # nothing new: only what is left
        late = spread(encoder.encode(quiet))
        sent = {name: sent[name] + late[name] for name in SHAPES}
    for name in SHAPES:
        np.testing.assert_allclose(sent[name], wanted[name], atol=1e-5)


def test_the_largest_numbers_go_first() -> None:
    sums = draw(1)
    sent = spread(Encoder("topk").encode(sums))["lstm.weight"]
    whole = np.abs(dense(sums)["lstm.weight"])
    assert (sent != 0).sum() == int(64 * 64 * TOP_FRACTION)
    assert whole[sent != 0].min() >= whole[sent == 0].max()


def test_numbers_beyond_half_precision_arrive_in_several_rounds() -> None:
    encoder = Encoder("fp16")
    large = {"output.bias": torch.tensor([100_000.0, 0.0, -1.0])}
    first = encoder.encode(large)["output.bias"]
    assert np.isfinite(first).all()
    second = encoder.encode({"output.bias": torch.zeros(3)})["output.bias"]
    assert (first.astype(np.float64) + second.astype(np.float64)).tolist() == pytest.approx(
        [100_000.0, 0.0, -1.0], abs=20.0
    )
