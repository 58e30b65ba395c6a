"""The strategies, against a few lines of numpy each, on the real network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch

from federated.simulation import SimulatedRound, final_parameters, simulate_run
from federated.strategies import CONTROL, STRATEGIES, LocalTraining
from ml.data import Batch, Dataset, collate
from ml.model import ModelConfig, SentimentLSTM, build_model, initial_parameters
from ml.train import batch_gradient
from ml.training_config import StrategyName, TrainingConfig

Flat = np.ndarray  # all parameters end to end, float64
NETWORK = ModelConfig(
    20, embedding_dim=6, hidden_dim=4, dropout=0.0, embedding_dropout=0.0, token_dropout=0.0
)
SEED = 5
RATE = 0.2
STEPS = 3
ROUNDS = 4
PLAIN = TrainingConfig(
    rounds=ROUNDS,
    global_batch_size=1_000,  # larger than the shards: each batch of a site is its whole shard
    learning_rate=0.05,
    warmup_rounds=0,
    final_rate_fraction=1.0,
    weight_decay=0.0,
    clip_norm=0.0,
    label_smoothing=0.0,
    averaging_decay=0.0,
    seed=SEED,
    local_steps=STEPS,
    local_learning_rate=RATE,
)


def make_shard(samples: int, seed: int) -> Dataset:
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 9, samples)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    token_ids = random.integers(1, 20, offsets[-1]).astype(np.int32)
    nothing = np.zeros(0, np.int32), np.zeros(samples + 1, np.int64)
    return Dataset(token_ids, offsets, random.integers(0, 3, samples), *nothing)


SHARDS = {"books": make_shard(7, 1), "food": make_shard(11, 2), "travel": make_shard(4, 3)}
SIZES = {site: len(shard) for site, shard in SHARDS.items()}
ALL = sum(SIZES.values())


def flatten(tensors: Mapping[str, torch.Tensor]) -> Flat:
    return np.concatenate([tensors[name].detach().double().numpy().reshape(-1) for name in sorted(tensors)])


def gradient_at(flat: Flat, site: str) -> Flat:
    """The mean gradient of a site's shard."""
    parameters, start = {}, 0
    shapes = {name: value.shape for name, value in initial_parameters(NETWORK, 0).items()}
    for name in sorted(shapes):
        size = shapes[name].numel()
        parameters[name] = torch.from_numpy(flat[start : start + size].reshape(shapes[name])).float()
        start += size
    model = build_model(NETWORK, parameters).train()
    result = batch_gradient(model, collate(SHARDS[site], range(SIZES[site])), 0.0)
    return flatten({name: value.to_dense() for name, value in result.sums.items()}) / result.samples


def walk(start: Flat, site: str, correction: Flat | float = 0.0) -> Flat:
    """Where plain steps of gradient descent lead."""
    here = start
    for _ in range(STEPS):
        here = here - RATE * (gradient_at(here, site) + correction)
    return here


def fedavg(x: Flat) -> Flat:
    for _ in range(ROUNDS):
        x = sum(SIZES[site] / ALL * walk(x, site) for site in SHARDS)
    return x


def fedopt(x: Flat) -> Flat:
    """Adam on what the sites moved (FedAdam)."""
    m = v = np.zeros_like(x)
    for step in range(1, ROUNDS + 1):
        g = x - sum(SIZES[site] / ALL * walk(x, site) for site in SHARDS)
        moved = g != 0  # rows of words that no site has are left alone
        m, v = np.where(moved, 0.9 * m + 0.1 * g, m), np.where(moved, 0.99 * v + 0.01 * g * g, v)
        away = 0.05 * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.99**step)) + 1e-8)
        x = np.where(moved, x - away, x)
    return x


def scaffold(x: Flat) -> Flat:
    c, own = np.zeros_like(x), {site: np.zeros_like(x) for site in SHARDS}
    for _ in range(ROUNDS):
        ends = {site: walk(x, site, c - own[site]) for site in SHARDS}
        after = {site: own[site] - c + (x - ends[site]) / (STEPS * RATE) for site in SHARDS}
        c = c + sum(SIZES[site] / ALL * (after[site] - own[site]) for site in SHARDS)
        x, own = sum(SIZES[site] / ALL * ends[site] for site in SHARDS), after
    return x


def fedsgd(x: Flat) -> Flat:
    """Each round three batches' gradients at the same parameters, one step of plain SGD."""
    for _ in range(ROUNDS):
        x = x - 0.05 * sum(SIZES[site] / ALL * gradient_at(x, site) for site in SHARDS)
    return x


EXPECTED = {"fedavg": fedavg, "fedopt": fedopt, "scaffold": scaffold, "fedsgd": fedsgd}


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_strategy_arrives_where_its_paper_does(name: StrategyName) -> None:
    config = replace(
        PLAIN, strategy=name, server_optimizer="adam" if name == "fedopt" else "sgd", momentum=0.0
    )
    start = flatten(initial_parameters(NETWORK, SEED))
    expected = EXPECTED[name](start)
    found = flatten(dict(simulate_run(SHARDS, NETWORK, config).named_parameters()))
    assert np.abs(expected - start).max() > 0.01
    # Adam divides by the gradient's size, which magnifies rounding where there is hardly a gradient.
    far = np.abs(found - expected) > (1e-3 if name == "fedopt" else 2e-5)
    assert far.mean() <= (0.005 if name == "fedopt" else 0)


def test_all_strategies_are_there_under_their_names() -> None:
    assert {name: strategy.name for name, strategy in STRATEGIES.items()} == {
        name: name for name in ("fedsgd", "fedopt", "fedavg", "scaffold")
    }


def batches_of(site: str) -> list[Batch]:
    return [collate(SHARDS[site], range(SIZES[site])) for _ in range(STEPS)]


def make_model() -> SentimentLSTM:
    return build_model(NETWORK, initial_parameters(NETWORK, SEED)).train()


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_what_came_down_is_left_as_it_was(name: StrategyName) -> None:
    """A site is sent what changes; it must still hold what it was sent before."""
    model = make_model()
    held = STRATEGIES[name].start(dict(model.named_parameters()), PLAIN).parameters
    before = flatten(dict(model.named_parameters()))
    result = STRATEGIES[name].site().compute(model, held, batches_of("food"), LocalTraining(RATE, 0.0))
    assert np.array_equal(flatten(dict(model.named_parameters())), before)
    assert result.samples == STEPS * SIZES["food"]
    assert result.sums.keys() == held.keys()


def test_sites_that_step_send_the_rows_that_their_batches_touched() -> None:
    result = (
        STRATEGIES["fedavg"].site().compute(make_model(), {}, batches_of("travel"), LocalTraining(RATE, 0))
    )
    touched = result.sums["embedding.weight"].coalesce().indices()[0].tolist()
    assert touched == sorted(set(SHARDS["travel"].token_ids.tolist()))


def test_of_the_sites_heard_scaffold_moves_its_control_variate_only_so_far() -> None:
    averaged = {"output.bias": np.ones(3, np.float32), CONTROL + "output.bias": np.ones(3, np.float32)}
    weighed = STRATEGIES["scaffold"].weigh(averaged, participation=0.25)
    assert weighed["output.bias"].tolist() == [1.0, 1.0, 1.0]
    assert weighed[CONTROL + "output.bias"].tolist() == [0.25, 0.25, 0.25]


def test_a_simulated_run_tells_what_it_saw_and_sent() -> None:
    rounds: list[SimulatedRound] = []
    model = simulate_run(
        SHARDS, NETWORK, replace(PLAIN, strategy="fedsgd", local_steps=1), on_round=rounds.append
    )
    assert [seen.number for seen in rounds] == [1, 2, 3, 4]
    assert {seen.batch.samples for seen in rounds} == {ALL}
    parameters = sum(value.numel() * 4 for value in model.parameters())
    for seen in rounds:
        assert 0 < seen.bytes_up < len(SHARDS) * parameters * 1.3
        assert 0 < seen.bytes_down < len(SHARDS) * parameters * 1.3
    assert final_parameters(rounds[-1].optimizer).keys() == dict(model.named_parameters()).keys()


def test_without_a_sample_there_is_nothing_to_simulate() -> None:
    with pytest.raises(ValueError, match="no site has a sample"):
        simulate_run({"books": make_shard(0, 1)}, NETWORK, PLAIN)
