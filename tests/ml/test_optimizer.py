"""The server optimizers, against torch's own and against what they promise of rows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from ml.model import ModelConfig, SentimentLSTM, build_model, initial_parameters
from ml.optimizer import ServerOptimizer, learning_rate_at
from ml.training_config import FIRST_TRAINING, RETRAINING, OptimizerName, TrainingConfig
from ml.vocabulary import Vocabulary

SMALL = TrainingConfig(rounds=30, global_batch_size=64, learning_rate=0.02, warmup_rounds=3, seed=4)
STEADY = replace(SMALL, warmup_rounds=0, final_rate_fraction=1.0, clip_norm=0.0)


@pytest.fixture
def model(vocabulary: Vocabulary) -> SentimentLSTM:
    config = ModelConfig(len(vocabulary), embedding_dim=12, hidden_dim=8)
    return build_model(config, initial_parameters(config, seed=1)).eval()


def largest_difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    return max(float((ours[name] - theirs[name]).detach().abs().max()) for name in theirs)


def draw(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "embedding.weight": torch.randn(9, 4, generator=generator),
        "output.bias": torch.randn(3, generator=generator),
    }


TORCHS_OWN: dict[OptimizerName, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.02, momentum=0.9),
    "adam": lambda groups: torch.optim.Adam(groups, lr=0.02, betas=(0.9, 0.99)),
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.02, betas=(0.9, 0.99)),
}


@pytest.mark.parametrize("name", list(TORCHS_OWN))
def test_each_optimizer_steps_as_torchs_own(name: OptimizerName) -> None:
    config = replace(STEADY, server_optimizer=name, weight_decay=0.1, averaging_decay=0.0)
    ours = ServerOptimizer(draw(0), config)
    theirs = {key: torch.nn.Parameter(value) for key, value in draw(0).items()}
    reference = TORCHS_OWN[name](
        [
            {"params": [theirs["embedding.weight"]], "weight_decay": 0.1},
            {"params": [theirs["output.bias"]], "weight_decay": 0.0},
        ]
    )
    for step in range(1, 12):
        gradients = draw(step)
        ours.step(gradients)
        for key, parameter in theirs.items():
            parameter.grad = gradients[key].clone()
        reference.step()
    assert largest_difference(ours.parameters, dict(theirs)) < 1e-6
    assert largest_difference(ours.parameters, draw(0)) > 0.1


def rows_of(gradient: Tensor, rows: list[int]) -> Tensor:
    return torch.sparse_coo_tensor(
        torch.tensor([rows]), gradient[rows], gradient.shape, check_invariants=True
    )


@pytest.mark.parametrize("name", list(TORCHS_OWN))
def test_touched_rows_step_as_if_they_were_alone_and_the_others_stay_bit_for_bit(name: OptimizerName) -> None:
    config = replace(STEADY, server_optimizer=name, averaging_decay=0.0)
    optimizer = ServerOptimizer(draw(0), config, {"embedding.weight"})
    alone = ServerOptimizer({"rows": draw(0)["embedding.weight"][[2, 5]]}, config)
    for step in range(1, 5):
        gradients = draw(step)
        alone.step({"rows": gradients["embedding.weight"][[2, 5]]})
        gradients["embedding.weight"] = rows_of(gradients["embedding.weight"], [2, 5])
        optimizer.step(gradients)
    moved, start = optimizer.parameters["embedding.weight"], draw(0)["embedding.weight"]
    torch.testing.assert_close(moved[[2, 5]], alone.parameters["rows"])
    others = [0, 1, 3, 4, 6, 7, 8]
    assert torch.equal(moved[others], start[others])
    assert not torch.equal(moved[[2, 5]], start[[2, 5]])


def test_the_average_of_rows_is_what_following_every_row_at_every_step_gives() -> None:
    config = replace(STEADY, averaging_decay=0.8)
    optimizer = ServerOptimizer(draw(0), config, {"embedding.weight"})
    expected = draw(0)["embedding.weight"].double()
    random = np.random.default_rng(0)
    for step in range(1, 30):
        rows = sorted(random.choice(9, 2, replace=False).tolist())
        gradients = draw(step)
        gradients["embedding.weight"] = rows_of(gradients["embedding.weight"], rows)
        optimizer.step(gradients)
        decay = min(0.8, step / (step + 10))
        expected = decay * expected + (1 - decay) * optimizer.parameters["embedding.weight"].double()
    found = optimizer.final_parameters()["embedding.weight"]
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    assert (found - optimizer.parameters["embedding.weight"]).abs().max() > 0.01


@pytest.mark.parametrize("name", list(TORCHS_OWN))
def test_from_its_state_an_optimizer_goes_on_bit_for_bit(name: OptimizerName) -> None:
    config = replace(SMALL, server_optimizer=name)
    gradients = []
    for step in range(1, 9):
        drawn = draw(step)
        drawn["embedding.weight"] = rows_of(drawn["embedding.weight"], [step, step % 3])
        gradients.append(drawn)
    undisturbed = ServerOptimizer(draw(0), config, {"embedding.weight"})
    interrupted = ServerOptimizer(draw(0), config, {"embedding.weight"})
    for number, gradient in enumerate(gradients):
        undisturbed.step(gradient)
        if number == 4:
            state = {key: value.clone() for key, value in interrupted.state().items()}
            interrupted = ServerOptimizer.from_state(state, config)
        interrupted.step(gradient)
    assert largest_difference(interrupted.final_parameters(), undisturbed.final_parameters()) == 0.0
    assert largest_difference(interrupted.parameters, undisturbed.parameters) == 0.0


def test_rows_of_a_parameter_that_is_not_row_wise_are_refused() -> None:
    optimizer = ServerOptimizer(draw(0), SMALL)
    gradients = draw(1)
    gradients["embedding.weight"] = rows_of(gradients["embedding.weight"], [1])
    with pytest.raises(ValueError, match=r"embedding\.weight is sparse"):
        optimizer.step(gradients)


def test_the_rate_warms_up_peaks_and_ends_at_its_fraction() -> None:
    config = replace(SMALL, rounds=100, warmup_rounds=10, learning_rate=1.0, final_rate_fraction=0.1)
    rates = [learning_rate_at(step, config) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == pytest.approx(1.0)
    assert max(rates) == pytest.approx(1.0)
    assert rates[100] == pytest.approx(0.1)
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates[10:]))
    assert learning_rate_at(5000, config) == pytest.approx(0.1)


@pytest.mark.parametrize("rounds", [1, 3, 5, 25, 1000])
def test_any_number_of_rounds_makes_a_usable_schedule(rounds: int) -> None:
    for config in (FIRST_TRAINING.with_rounds(rounds), RETRAINING.with_rounds(rounds)):
        assert config.rounds == rounds
        assert config.warmup_rounds < rounds
        rates = [learning_rate_at(step, config) for step in range(rounds)]
        assert all(0 < rate <= config.learning_rate for rate in rates)


def test_the_gradient_is_clipped_after_averaging(model: SentimentLSTM) -> None:
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    small = {name: torch.full_like(value, 1e-4) for name, value in parameters.items()}
    large = {name: value * 1e6 for name, value in small.items()}
    config = replace(SMALL, clip_norm=1e-3, averaging_decay=0.0)
    steps = []
    for gradients in (small, large):
        optimizer = ServerOptimizer(parameters, config)
        report = optimizer.step(gradients)
        expected = math.sqrt(sum(float(value.double().pow(2).sum()) for value in gradients.values()))
        assert report.gradient_norm == pytest.approx(expected, rel=1e-4)
        steps.append(optimizer.final_parameters())
    assert largest_difference(steps[0], steps[1]) < 1e-7


@pytest.mark.parametrize("damage", ["missing", "shape", "nan"])
def test_a_gradient_that_does_not_fit_is_refused_and_changes_nothing(
    model: SentimentLSTM, damage: str
) -> None:
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    optimizer = ServerOptimizer(parameters, SMALL)
    gradients = {name: torch.ones_like(value) for name, value in parameters.items()}
    if damage == "missing":
        del gradients["output.bias"]
    elif damage == "shape":
        gradients["output.bias"] = torch.ones(7)
    else:
        gradients["output.bias"][1] = torch.nan
    with pytest.raises(ValueError, match=r"output\.bias"):
        optimizer.step(gradients)
    assert optimizer.steps == 0
    assert largest_difference(optimizer.parameters, parameters) == 0.0


def test_the_result_averages_recent_parameters(model: SentimentLSTM) -> None:
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    optimizer = ServerOptimizer(parameters, replace(SMALL, averaging_decay=0.9, warmup_rounds=0))
    visited = []
    for _ in range(4):
        optimizer.step({name: torch.ones_like(value) for name, value in parameters.items()})
        visited.append(float(optimizer.parameters["output.bias"][0]))
    average = float(optimizer.final_parameters()["output.bias"][0])
    assert min(visited) < average < max(visited)
    last = ServerOptimizer(parameters, replace(SMALL, averaging_decay=0.0))
    last.step({name: torch.ones_like(value) for name, value in parameters.items()})
    assert largest_difference(last.final_parameters(), last.parameters) == 0.0


def test_the_optimizer_copies_what_it_starts_from(model: SentimentLSTM) -> None:
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    before = {name: value.clone() for name, value in parameters.items()}
    ServerOptimizer(parameters, SMALL).step(
        {name: torch.ones_like(value) for name, value in parameters.items()}
    )
    assert largest_difference(parameters, before) == 0.0
