"""One gradient, one optimizer step, and the training that joins them in one process.

Federated training uses the same pieces: sites call `batch_gradient`, the aggregator divides the sum of all
gradient sums by the number of all samples and gives it to the server optimizer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ml.data import Batch, Dataset, collate, length_batches, pool_datasets, slice_count
from ml.grams import NO_GRAM
from ml.metrics import Evaluation, evaluate_predictions
from ml.model import ROW_PARAMETERS, SentimentLSTM, build_model, initial_parameters
from ml.model_config import ModelConfig
from ml.optimizer import ServerOptimizer, StepReport
from ml.training_config import TrainingConfig


@dataclass(frozen=True)
class BatchGradient:
    """What one site computes from one batch: sums over its samples, so that sites' results add up."""

    sums: dict[str, Tensor]  # parameter name → gradient of the summed loss; of row-wise ones the rows, sparse
    samples: int
    loss_sum: float  # label-smoothed cross-entropy in nats
    correct: int


@dataclass(frozen=True)
class RoundProgress:
    """Where a central training stands after a round."""

    round: int
    rounds: int
    loss: float  # mean over the round's samples
    accuracy: float
    step: StepReport
    optimizer: ServerOptimizer


def batch_gradient(model: SentimentLSTM, batch: Batch, label_smoothing: float) -> BatchGradient:
    """Compute the gradient of the summed loss over a batch, with dropout if the model is in training mode.

    The batch goes through in slices of similar length, which spares most of the padding; since the loss is a
    sum, the gradient is that of the whole batch. The model's parameters do not change. Dropout draws from
    torch's global generator: seed it per round for a repeatable run.
    """
    model.zero_grad(set_to_none=True)
    device = model.output.weight.device
    loss_sum, correct = 0.0, 0
    for tensors in _slices(batch):
        token_ids, lengths, grams, labels = (tensor.to(device) for tensor in tensors)
        logits = model(token_ids, lengths, grams)  # (S, classes)
        loss = functional.cross_entropy(logits, labels, reduction="sum", label_smoothing=label_smoothing)
        loss.backward()
        loss_sum += loss.item()
        correct += int((logits.argmax(dim=1) == labels).sum())
    sums = {name: _taken_gradient(parameter) for name, parameter in model.named_parameters()}
    return BatchGradient(sums, len(batch), loss_sum, correct)


def _taken_gradient(parameter: torch.nn.Parameter) -> Tensor:
    gradient, parameter.grad = parameter.grad, None
    if gradient is None:
        return torch.zeros_like(parameter.data)
    return gradient.coalesce() if gradient.is_sparse else gradient


def _slices(batch: Batch) -> Iterator[list[Tensor]]:
    """Give token ids, lengths, grams and labels of a batch, slice by slice."""
    order = np.argsort(-batch.lengths, kind="stable")
    for rows in np.array_split(order, slice_count(len(order))):
        lengths, grams = batch.lengths[rows], batch.grams[rows]
        token_ids = batch.token_ids[rows, : int(lengths.max())]  # (S, longest of the slice)
        most = int((grams != NO_GRAM).sum(axis=1).max())
        yield [torch.from_numpy(array) for array in (token_ids, lengths, grams[:, :most], batch.labels[rows])]


def choose_device(wanted: str) -> torch.device:
    """Give the device that "auto", "cpu" or "cuda" asks for; raises ValueError for CUDA where there is none."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError("no CUDA device is to be seen here: take --device cpu, or auto")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


@torch.no_grad()
def evaluate(model: SentimentLSTM, dataset: Dataset, batch_size: int = 256) -> Evaluation:
    """Score a model on a dataset, without dropout and without label smoothing; the model's mode is kept."""
    was_training = model.training
    model.eval()
    device = model.output.weight.device
    predicted = np.zeros(len(dataset), dtype=np.int64)
    loss_sum = 0.0
    order = np.argsort(dataset.lengths, kind="stable")  # texts of similar length together: little padding
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = collate(dataset, rows)
        inputs = (batch.token_ids, batch.lengths, batch.grams)
        logits = model(*(torch.from_numpy(array).to(device) for array in inputs))
        labels = torch.from_numpy(batch.labels).to(device)
        loss_sum += functional.cross_entropy(logits, labels, reduction="sum").item()
        predicted[rows] = logits.argmax(dim=1).cpu().numpy()
    model.train(was_training)
    return evaluate_predictions(dataset.labels, predicted, loss=loss_sum / max(1, len(dataset)))


def train_centrally(
    datasets: Sequence[Dataset],
    model_config: ModelConfig,
    training_config: TrainingConfig,
    *,
    words: Sequence[str] = (),
    start: Mapping[str, Tensor] | None = None,
    on_round: Callable[[RoundProgress], None] | None = None,
) -> SentimentLSTM:
    """Train on all sites' samples pooled in one process, with the arithmetic of a federated run.

    `start` are the parameters of an earlier model (warm start); without them they are drawn. `words` are the
    vocabulary's tokens, see `build_model`. Gives the model
    in evaluation mode. Seeds torch's global generator. Raises ValueError when there is no sample.
    """
    pooled = pool_datasets(datasets)
    seed = training_config.seed
    parameters = start or initial_parameters(model_config, seed)
    optimizer = ServerOptimizer(parameters, training_config, ROW_PARAMETERS)
    batches = length_batches(pooled.lengths, training_config.global_batch_size, seed=seed, order_seed=seed)
    model = build_model(model_config, optimizer.parameters, words=words, copy=False).train()
    torch.manual_seed(seed)
    for number in range(1, training_config.rounds + 1):
        result = batch_gradient(model, collate(pooled, next(batches)), training_config.label_smoothing)
        report = optimizer.step({name: total / result.samples for name, total in result.sums.items()})
        if on_round is not None:
            loss, accuracy = result.loss_sum / result.samples, result.correct / result.samples
            on_round(RoundProgress(number, training_config.rounds, loss, accuracy, report, optimizer))
    return build_model(model_config, optimizer.final_parameters(), words=words).eval()
