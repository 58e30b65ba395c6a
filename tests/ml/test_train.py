from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ml.data import Dataset, collate, epoch_batches
from ml.model import ROW_PARAMETERS, ModelConfig, SentimentLSTM, build_model, initial_parameters
from ml.optimizer import ServerOptimizer
from ml.train import RoundProgress, batch_gradient, choose_device, evaluate, train_centrally
from ml.training_config import RETRAINING, TrainingConfig
from ml.vocabulary import Vocabulary

SMALL = TrainingConfig(
    rounds=30, global_batch_size=64, learning_rate=0.02, warmup_rounds=3, label_smoothing=0.0, seed=4
)


def add_up(parts: list[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


@pytest.fixture
def config(vocabulary: Vocabulary) -> ModelConfig:
    return ModelConfig(len(vocabulary), embedding_dim=12, hidden_dim=8)


@pytest.fixture
def model(config: ModelConfig) -> SentimentLSTM:
    return build_model(config, initial_parameters(config, seed=1)).eval()


def largest_difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    differences = [(ours[name].detach() - theirs[name].detach()).to_dense() for name in theirs]
    return max(float(difference.abs().max()) for difference in differences)


def test_a_batch_gradient_is_that_of_the_summed_loss_over_all_its_samples(
    model: SentimentLSTM, dataset: Dataset
) -> None:
    batch = collate(dataset, np.arange(100))
    found = batch_gradient(model, batch, label_smoothing=0.1)
    inputs = (batch.token_ids, batch.lengths, batch.grams)
    logits = model(*(torch.from_numpy(array) for array in inputs))
    labels = torch.from_numpy(batch.labels)
    loss = functional.cross_entropy(logits, labels, reduction="sum", label_smoothing=0.1)
    loss.backward()
    expected = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    assert set(found.sums) == set(expected)
    assert largest_difference(found.sums, expected) < 1e-4
    assert found.samples == 100
    assert found.loss_sum == pytest.approx(loss.item(), rel=1e-5)
    assert found.correct == int((logits.argmax(1) == labels).sum())


def test_gradients_of_sites_add_up_to_that_of_their_union(model: SentimentLSTM, dataset: Dataset) -> None:
    parts = [np.arange(0, 5), np.arange(5, 64), np.arange(64, 90)]
    whole = batch_gradient(model, collate(dataset, np.arange(90)), 0.05)
    sites = [batch_gradient(model, collate(dataset, part), 0.05) for part in parts]
    summed = {name: sum(site.sums[name].to_dense() for site in sites) for name in whole.sums}
    assert largest_difference(summed, {name: value.to_dense() for name, value in whole.sums.items()}) < 1e-4
    assert sum(site.samples for site in sites) == whole.samples
    assert sum(site.loss_sum for site in sites) == pytest.approx(whole.loss_sum, rel=1e-5)


def test_taking_a_gradient_changes_no_parameter_and_leaves_none_behind(
    model: SentimentLSTM, dataset: Dataset
) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = batch_gradient(model, collate(dataset, np.arange(10)), 0.0)
    again = batch_gradient(model, collate(dataset, np.arange(10)), 0.0)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert largest_difference(first.sums, again.sums) < 1e-6
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_padding_row_gets_no_gradient(model: SentimentLSTM, dataset: Dataset) -> None:
    found = batch_gradient(model, collate(dataset, np.arange(40)), 0.0)
    assert 0 not in found.sums["embedding.weight"].indices()[0]
    assert len(found.sums["embedding.weight"].indices()[0]) > 1


def test_training_learns_its_samples_and_reports_every_round(config: ModelConfig, dataset: Dataset) -> None:
    progress: list[RoundProgress] = []
    untrained = evaluate(build_model(config, initial_parameters(config, SMALL.seed)), dataset)
    model = train_centrally([dataset], config, SMALL.with_rounds(60), on_round=progress.append)
    trained = evaluate(model, dataset)
    assert trained.accuracy > 0.75 > untrained.accuracy
    assert trained.loss < untrained.loss - 0.3
    assert [report.round for report in progress] == list(range(1, 61))
    assert progress[-1].loss < progress[0].loss


def test_training_twice_gives_the_same_model_whatever_was_drawn_before(
    config: ModelConfig, dataset: Dataset
) -> None:
    models = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        models.append(train_centrally([dataset], config, SMALL.with_rounds(4)))
    assert largest_difference(models[0].state_dict(), models[1].state_dict()) == 0.0


def test_split_over_sites_without_dropout_training_takes_the_same_steps(
    config: ModelConfig, dataset: Dataset
) -> None:
    """Large-batch SGD, whatever the split: gradient sums of sites, added and averaged, give the pooled step."""
    plain = replace(config, dropout=0.0, embedding_dropout=0.0, token_dropout=0.0)
    start = initial_parameters(plain, seed=6)
    pooled, federated = (ServerOptimizer(start, SMALL, ROW_PARAMETERS) for _ in range(2))
    batches = epoch_batches(len(dataset), 64, seed=6)
    for rows in itertools.islice(batches, 3):
        whole = batch_gradient(build_model(plain, pooled.parameters), collate(dataset, rows), 0.0)
        pooled.step({name: value / whole.samples for name, value in whole.sums.items()})
        sites = [
            batch_gradient(build_model(plain, federated.parameters), collate(dataset, part), 0.0)
            for part in np.split(rows, [7, 40])
        ]
        total = sum(site.samples for site in sites)
        federated.step({name: add_up([site.sums[name] for site in sites]) / total for name in start})
    # Adam divides by the gradient's size, so where that is rounding noise a step may differ by a step's length.
    far = sum(int(((pooled.parameters[n] - federated.parameters[n]).abs() > 1e-4).sum()) for n in start)
    assert far / sum(value.numel() for value in start.values()) < 0.001


def test_a_warm_start_begins_where_the_earlier_model_ended(config: ModelConfig, dataset: Dataset) -> None:
    champion = train_centrally([dataset], config, SMALL.with_rounds(40))
    start = {name: value.detach() for name, value in champion.named_parameters()}
    gentle = replace(SMALL.with_rounds(2), learning_rate=1e-5)
    continued = train_centrally([dataset], config, gentle, start=start)
    assert largest_difference(start, dict(continued.named_parameters())) < 1e-4


def test_evaluation_ignores_order_batches_and_mode(model: SentimentLSTM, dataset: Dataset) -> None:
    model.train()
    large, small = evaluate(model, dataset, batch_size=512), evaluate(model, dataset, batch_size=3)
    assert large.confusion == small.confusion
    assert large.loss == pytest.approx(small.loss, rel=1e-5)
    assert model.training


def test_training_on_nothing_is_refused(config: ModelConfig) -> None:
    with pytest.raises(ValueError, match="at least 1 sample"):
        train_centrally([], config, SMALL)


def test_a_training_configuration_survives_a_round_trip_and_unknown_keys_are_refused() -> None:
    assert TrainingConfig.from_json(RETRAINING.to_json()) == RETRAINING
    with pytest.raises(ValueError, match="patience"):
        TrainingConfig.from_json({**RETRAINING.to_json(), "patience": 3})


def test_without_cuda_auto_is_the_cpu_and_cuda_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="no CUDA device"):
        choose_device("cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_a_gradient_taken_on_cuda_is_that_of_the_cpu(
    model: SentimentLSTM, config: ModelConfig, dataset: Dataset
) -> None:
    batch = collate(dataset, np.arange(64))
    on_cpu = batch_gradient(model, batch, 0.05)
    there = {name: value.detach().cuda() for name, value in model.named_parameters()}
    on_cuda = batch_gradient(build_model(config, there).eval(), batch, 0.05)
    for name, value in on_cpu.sums.items():
        found = on_cuda.sums[name].to_dense().cpu()
        torch.testing.assert_close(found, value.to_dense(), rtol=1e-3, atol=1e-4)
